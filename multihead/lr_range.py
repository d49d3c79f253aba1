"""The learning-rate range test: the loss of a model while its rate rises, and where a run should start."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from multihead import plots
from multihead.cache import Cache
from multihead.data import Photos
from multihead.logs import write_rows
from multihead.model import Model
from multihead.recipe import Recipe
from multihead.schedules import Constant
from multihead.steps import Diverged
from multihead.train import prepare


@dataclass(frozen=True)
class RangeTest:
    """rates and losses of each step (n,), smoothed: the losses' moving average; steepest: the rate where it falls
    fastest; lowest: the rate where it is lowest. A usual choice lies between `steepest` and a tenth of `lowest`."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    steepest: float
    lowest: float

    def write(self, path: str | Path) -> None:
        """Write the table, and beside it the picture (.png), cut off well above the losses up to the lowest."""
        path = Path(path)
        rows = zip(self.rates, self.losses, self.smoothed)
        write_rows(path, [{"lr": rate, "loss": loss, "smoothed": mean} for rate, loss, mean in rows])
        top = 1.5 * max(self.losses[: self.rates.index(self.lowest) + 1])  # else one last step flattens the course
        drawn = {"each step": self.losses, "smoothed": self.smoothed}
        series = {name: (self.rates, [min(loss, top) for loss in losses]) for name, losses in drawn.items()}
        title = f"Learning-rate range test: steepest at {self.steepest:.2g}, lowest at {self.lowest:.2g}"
        labels = {"title": title, "xlabel": "learning rate", "ylabel": "training loss"}
        plots.lines(path.with_suffix(".png"), series, **labels, log_x=True, mark=self.steepest)


def lr_range(
    model: Model,
    photos: Photos,
    recipe: Recipe = Recipe(),
    *,
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 100,
    workers: int = 2,
    cache: bool | str | Path | Cache = True,
) -> RangeTest:
    """Train a copy of the model for `steps` steps while the rate rises from `low` to `high` by equal factors; stops
    where the loss is four times its lowest. The model itself is not changed. cache: as `train.epochs` takes it.

    Raises: ValueError for bounds that do not rise, fewer than ten steps, or a loss that is no number from the start.

    Source: Smith 2017, arXiv 1506.01186, section 3.3.
    """
    if not 0 < low < high or steps < 10:
        raise ValueError(f"low {low!r}, high {high!r}, steps {steps!r}; expected 0 < low < high and 10 steps or more")
    count = steps * recipe.batch_size * recipe.grad_accum_steps
    once = replace(recipe, epochs=1, epoch_photos=count, schedule=Constant(), freeze_epochs=0, ema=None, patience=None)
    run = prepare(copy.deepcopy(model), photos, None, once, workers=workers, cache=cache)
    run.taken = []

    def course(step: int) -> float:
        losses = [loss for _, loss in run.taken or ()]
        means = smooth(losses)
        if len(losses) > 10 and min(means) > 0 and means[-1] > 4 * min(means):
            raise _LeftRange
        return low * (high / low) ** (step / (steps - 1))

    run.course = course
    try:
        list(run.epochs(False))
    except _LeftRange:
        pass
    except Diverged:
        if len(run.taken) < 10:  # else the loss has just ceased to be a number: the end of the range
            raise
    return _result([rate for rate, _ in run.taken], [loss for _, loss in run.taken])


class _LeftRange(Exception):
    """The loss has left its range."""


def smooth(losses: Sequence[float], decay: float = 0.9) -> list[float]:
    """The moving average of losses (n,), corrected for its start."""
    found, mean = [], 0.0
    for number, loss in enumerate(losses, 1):
        mean = decay * mean + (1 - decay) * loss
        found.append(mean / (1 - decay**number))
    return found


def _result(rates: Sequence[float], losses: Sequence[float]) -> RangeTest:
    means = smooth(losses)
    bottom = min(range(len(means)), key=means.__getitem__)
    falls = [
        (means[place + 1] - means[place - 1]) / (math.log(rates[place + 1]) - math.log(rates[place - 1]))
        for place in range(1, max(2, bottom))
    ]
    steepest = 1 + min(range(len(falls)), key=falls.__getitem__)
    return RangeTest(tuple(rates), tuple(losses), tuple(means), rates[steepest], rates[bottom])
