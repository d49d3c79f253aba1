"""Schedules: the learning rate as a function of the step alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from multihead.options import option


@dataclass(frozen=True)
class OneCycle:
    """Rate up to `lr` over the first `pct_start` of all steps, then down to nothing, by cosines; per batch.

    Source: Smith and Topin 2018, arXiv 1708.07120.
    """

    pct_start: float = option(0.2, "share of the steps that the rate rises (onecycle)")

    def __post_init__(self) -> None:
        if not 0 <= self.pct_start <= 1:
            raise ValueError(f"recipe: pct_start is {self.pct_start!r}; expected a share from 0 to 1")


@dataclass(frozen=True)
class Cosine:
    """Rate from `lr` down to `min_lr` by half a cosine, after a linear warm-up; per batch."""

    warmup_epochs: float = option(0.0, "epochs of linear warm-up")
    min_lr: float = option(0.0, "lowest learning rate")


@dataclass(frozen=True)
class Step:
    """Rate times `decay_rate` every `decay_epochs` epochs, after a linear warm-up; per epoch."""

    warmup_epochs: float = option(0.0, "epochs of linear warm-up")
    decay_epochs: int = option(5, "epochs between two drops (step)")
    decay_rate: float = option(0.3, "factor of each drop (step)")

    def __post_init__(self) -> None:
        if self.decay_epochs < 1:
            raise ValueError(f"recipe: decay_epochs is {self.decay_epochs!r}; expected a whole number >= 1")


@dataclass(frozen=True)
class Cyclic:
    """Rate between `min_lr` and `lr` in triangles, up in `up_epochs`, down in `down_epochs`; per batch.

    mode "triangular2" halves the height of every further triangle. Momentum is left alone. Source: arXiv 1506.01186.
    """

    min_lr: float = option(1e-5, "lowest learning rate")
    up_epochs: float = option(1.0, "epochs of a rise (cyclic)")
    down_epochs: float = option(2.0, "epochs of a fall (cyclic)")
    cycle_mode: str = option("triangular2", "triangular or triangular2 (cyclic)")

    def __post_init__(self) -> None:
        if self.cycle_mode not in ("triangular", "triangular2"):
            raise ValueError(f"recipe: cycle_mode is {self.cycle_mode!r}; expected triangular or triangular2")
        if min(self.up_epochs, self.down_epochs) <= 0:
            raise ValueError(f"recipe: up_epochs {self.up_epochs!r} and down_epochs {self.down_epochs!r} must be > 0")


@dataclass(frozen=True)
class Constant:
    """One rate throughout, after a linear warm-up."""

    warmup_epochs: float = option(0.0, "epochs of linear warm-up")


Schedule = OneCycle | Cosine | Step | Cyclic | Constant


def rate(schedule: Schedule, lr: float, step: int, steps: int, epochs: int) -> float:
    """The learning rate of optimiser step `step` (from 0) of `steps` in `epochs` epochs; `lr` is the highest.

    A function of the step alone: nothing to save, and no optimiser's momentum is touched.

    Raises: TypeError for what is no schedule of `multihead.recipe`.
    """
    if not isinstance(schedule, Schedule):
        raise TypeError(f"{schedule!r} is no schedule; expected OneCycle, Cosine, Step, Cyclic or Constant")
    per_epoch = steps / epochs
    if isinstance(schedule, OneCycle):
        rise = max(schedule.pct_start * steps - 1, 1e-9)
        if step <= rise:
            return _anneal(lr / 25, lr, step / rise)
        return _anneal(lr, lr / 25e4, (step - rise) / max(steps - 1 - rise, 1e-9))
    if isinstance(schedule, Cyclic):
        return _triangle(schedule, lr, step / per_epoch)
    warm = schedule.warmup_epochs * per_epoch
    if step < warm:
        return lr * (step + 1) / (math.ceil(warm) + 1)
    if isinstance(schedule, Cosine):
        return _anneal(lr, schedule.min_lr, (step - warm) / max(steps - warm, 1))
    if isinstance(schedule, Step):
        return lr * schedule.decay_rate ** (int(step / per_epoch + 1e-9) // schedule.decay_epochs)
    return lr


def _anneal(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _triangle(schedule: Cyclic, lr: float, epoch: float) -> float:
    length = schedule.up_epochs + schedule.down_epochs
    cycle, place = divmod(epoch, length)
    up = place / schedule.up_epochs
    height = up if up <= 1 else 1 - (place - schedule.up_epochs) / schedule.down_epochs
    halved = 2.0**-cycle if schedule.cycle_mode == "triangular2" else 1.0
    return schedule.min_lr + (lr - schedule.min_lr) * height * halved
