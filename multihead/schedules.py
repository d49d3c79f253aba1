"""Schedules: the learning rate as a function of the step, and for `Plateau` of the scores so far; no state to save.

A schedule with `interval` "batch" changes the rate at every step. With "epoch" the epoch counts as one step, as where
torch's schedulers are stepped once an epoch, and its rate holds throughout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from multihead.options import between, choice, option, whole

INTERVALS = ("batch", "epoch")
CYCLE_MODES = ("triangular", "triangular2", "exp_range")
_INTERVAL = "when the rate changes: batch or epoch (onecycle, cosine, cosinerestarts, cyclic)"
_WARMUP = "epochs of linear warm-up (all but onecycle and cyclic)"
_LOWEST = "lowest learning rate (cosine, cosinerestarts, cyclic, plateau)"
_DECAY = "factor of each drop (step, plateau)"


@dataclass(frozen=True)
class OneCycle:
    """Rate up from lr / 25 to `lr` over the first `pct_start` of all steps, then down to nothing, by cosines.

    With interval "epoch" and few epochs no epoch may have the full `lr`. Source: Smith and Topin 2018, arXiv
    1708.07120; as torch's OneCycleLR, momentum left alone.
    """

    pct_start: float = option(0.2, "share of the steps that the rate rises (onecycle)")
    interval: str = option("batch", _INTERVAL, "sched-interval", metavar="{batch,epoch}")

    def __post_init__(self) -> None:
        between("onecycle", "pct_start", self.pct_start, 0, 1)
        choice("onecycle", "interval", self.interval, INTERVALS)


@dataclass(frozen=True)
class Cosine:
    """Rate from `lr` down to `min_lr` by half a cosine, after a linear warm-up."""

    warmup_epochs: float = option(0.0, _WARMUP)
    min_lr: float = option(0.0, _LOWEST)
    interval: str = option("batch", _INTERVAL, "sched-interval", metavar="{batch,epoch}")

    def __post_init__(self) -> None:
        _check_bounds(self)
        choice("cosine", "interval", self.interval, INTERVALS)


@dataclass(frozen=True)
class CosineRestarts:
    """Rate from `lr` down to `min_lr` by half a cosine, again and again, after a linear warm-up.

    The first cycle takes `cycle_epochs`, each further one `cycle_mul` times as long as the one before, and starts from
    `cycle_decay` times its rate. Source: Loshchilov and Hutter 2017 (SGDR), arXiv 1608.03983.
    """

    cycle_epochs: float = option(5.0, "epochs of the first cycle (cosinerestarts)")
    cycle_mul: float = option(1.0, "length of a cycle as a multiple of the one before (cosinerestarts)")
    cycle_decay: float = option(1.0, "highest rate of a cycle as a share of the one before (cosinerestarts)")
    min_lr: float = option(0.0, _LOWEST)
    warmup_epochs: float = option(0.0, _WARMUP)
    interval: str = option("batch", _INTERVAL, "sched-interval", metavar="{batch,epoch}")

    def __post_init__(self) -> None:
        _check_bounds(self)
        between("cosinerestarts", "cycle_epochs", self.cycle_epochs, 0, open_low=True)
        between("cosinerestarts", "cycle_mul", self.cycle_mul, 1)
        between("cosinerestarts", "cycle_decay", self.cycle_decay, 0, 1, open_low=True)
        choice("cosinerestarts", "interval", self.interval, INTERVALS)


@dataclass(frozen=True)
class Step:
    """Rate times `decay_rate` every `decay_epochs` epochs, those of a linear warm-up among them; per epoch but for the
    warm-up."""

    warmup_epochs: float = option(0.0, _WARMUP)
    decay_epochs: int = option(5, "epochs between two drops (step)")
    decay_rate: float = option(0.3, _DECAY)

    def __post_init__(self) -> None:
        _check_bounds(self)
        object.__setattr__(self, "decay_epochs", whole("step", "decay_epochs", self.decay_epochs, 1))


@dataclass(frozen=True)
class Plateau:
    """Rate times `decay_rate`, never below `min_lr`, when the validation score has stood still; per epoch but for the
    linear warm-up.

    A score counts as better if it is above the best by more than `threshold`; after more than `patience_epochs` scored
    epochs in a row without a better one the rate drops and they are counted anew. As torch's ReduceLROnPlateau.
    """

    patience_epochs: int = option(2, "epochs without a better score before a drop (plateau)")
    decay_rate: float = option(0.1, _DECAY)
    min_lr: float = option(0.0, _LOWEST)
    threshold: float = option(1e-4, "least gain of a score that counts (plateau)")
    warmup_epochs: float = option(0.0, _WARMUP)

    def __post_init__(self) -> None:
        _check_bounds(self)
        object.__setattr__(self, "patience_epochs", whole("plateau", "patience_epochs", self.patience_epochs, 0))
        between("plateau", "decay_rate", self.decay_rate, 0, 1, open_low=True)
        between("plateau", "min_lr", self.min_lr, 0)
        between("plateau", "threshold", self.threshold, 0)


@dataclass(frozen=True)
class Cyclic:
    """Rate between `min_lr` and `lr` in triangles, up in `up_epochs`, down in `down_epochs`.

    cycle_mode "triangular2" halves the height of every further triangle, "exp_range" multiplies it by `cycle_gamma` at
    every step (every epoch with interval "epoch"). Momentum is left alone. Source: Smith 2017, arXiv 1506.01186.
    """

    min_lr: float = option(1e-5, _LOWEST)
    up_epochs: float = option(1.0, "epochs of a rise (cyclic)")
    down_epochs: float = option(2.0, "epochs of a fall (cyclic)")
    cycle_mode: str = option(
        "triangular2",
        "how the height changes: not, halved each cycle, or by --cycle-gamma (cyclic)",
        metavar="{triangular,triangular2,exp_range}",
    )
    cycle_gamma: float = option(0.99994, "factor of the height at every step with exp_range (cyclic)")
    interval: str = option("batch", _INTERVAL, "sched-interval", metavar="{batch,epoch}")

    def __post_init__(self) -> None:
        _check_bounds(self)
        choice("cyclic", "cycle_mode", self.cycle_mode, CYCLE_MODES)
        between("cyclic", "up_epochs", self.up_epochs, 0, open_low=True)
        between("cyclic", "down_epochs", self.down_epochs, 0, open_low=True)
        between("cyclic", "cycle_gamma", self.cycle_gamma, 0, 1, open_low=True)
        choice("cyclic", "interval", self.interval, INTERVALS)


@dataclass(frozen=True)
class Constant:
    """One rate throughout, after a linear warm-up."""

    warmup_epochs: float = option(0.0, _WARMUP)

    def __post_init__(self) -> None:
        _check_bounds(self)


Schedule = OneCycle | Cosine | CosineRestarts | Step | Plateau | Cyclic | Constant


def _check_bounds(schedule: object) -> None:
    """Nothing where a schedule's warm-up, lowest rate and factor make sense. Raises: ValueError."""
    name = type(schedule).__name__.lower()
    for field in ("warmup_epochs", "min_lr", "decay_rate"):
        if hasattr(schedule, field):
            between(name, field, getattr(schedule, field), 0)


def rate(schedule: Schedule, lr: float, step: int, steps: int, epochs: int, *, history: Sequence[float] = ()) -> float:
    """The learning rate of optimiser step `step` (from 0) of `steps` in `epochs` epochs; `lr` is the highest.

    history: the validation scores of the epochs so far, the first epoch's first, higher is better, NaN where an epoch
    was not scored; only `Plateau` reads it, and only the epochs before the step's own.

    Raises: TypeError for what is no schedule of `multihead.schedules`.

    >>> rate(Step(decay_epochs=2, decay_rate=0.5), 0.1, step=30, steps=60, epochs=6)
    0.05
    """
    if not isinstance(schedule, Schedule):
        raise TypeError(f"{schedule!r} is no schedule; expected {_names()}")
    per_epoch = steps / epochs
    epoch = int(step / per_epoch + 1e-9)  # from 0
    if not isinstance(schedule, (Step, Plateau, Constant)) and schedule.interval == "epoch":
        step, steps, per_epoch = epoch, epochs, 1.0
    if isinstance(schedule, OneCycle):
        return _one_cycle(schedule, lr, step, steps)
    if isinstance(schedule, Cyclic):
        return _triangle(schedule, lr, step, per_epoch)
    warm = schedule.warmup_epochs * per_epoch
    if step < warm:
        return lr * (step + 1) / (math.ceil(warm) + 1)
    if isinstance(schedule, Cosine):
        return _anneal(lr, schedule.min_lr, (step - warm) / max(steps - warm, 1))
    if isinstance(schedule, CosineRestarts):
        return _restarted(schedule, lr, (step - warm) / per_epoch)
    if isinstance(schedule, Step):
        return lr * schedule.decay_rate ** (epoch // schedule.decay_epochs)
    if isinstance(schedule, Plateau):
        lowered = lr * schedule.decay_rate ** _drops(schedule, history[:epoch])
        return min(lr, max(lowered, schedule.min_lr))
    return lr


def _names() -> str:
    *names, last = (kind.__name__ for kind in Schedule.__args__)
    return f"{', '.join(names)} or {last}"


def _anneal(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _one_cycle(schedule: OneCycle, lr: float, step: int, steps: int) -> float:
    rise = schedule.pct_start * steps - 1  # below 0 where no step of a few is left to rise in
    if steps == 1:
        return lr / 25  # torch would have it at the end, and train nothing
    if step <= rise:
        return _anneal(lr / 25, lr, step / max(rise, 1e-9))
    return _anneal(lr, lr / 25e4, (step - rise) / max(steps - 1 - rise, 1e-9))


def _triangle(schedule: Cyclic, lr: float, step: int, per_epoch: float) -> float:
    cycle, place = divmod(step / per_epoch, schedule.up_epochs + schedule.down_epochs)
    up = place / schedule.up_epochs
    height = up if up <= 1 else 1 - (place - schedule.up_epochs) / schedule.down_epochs
    scale = {"triangular": 1.0, "triangular2": 2.0**-cycle, "exp_range": schedule.cycle_gamma**step}
    return schedule.min_lr + (lr - schedule.min_lr) * height * scale[schedule.cycle_mode]


def _restarted(schedule: CosineRestarts, lr: float, epoch: float) -> float:
    first, mul = schedule.cycle_epochs, schedule.cycle_mul
    if mul == 1:
        cycle = int(epoch / first + 1e-9)
        start = first * cycle
    else:  # n cycles take first * (mul**n - 1) / (mul - 1)
        cycle = int(math.log(1 + epoch / first * (mul - 1), mul) + 1e-9)
        start = first * (mul**cycle - 1) / (mul - 1)
    highest = max(lr * schedule.cycle_decay**cycle, schedule.min_lr)
    return _anneal(highest, schedule.min_lr, (epoch - start) / (first * mul**cycle))


def _drops(schedule: Plateau, history: Sequence[float]) -> int:
    """How often a run with these scores has lowered its rate; an epoch without a score changes nothing."""
    best, still, drops = -math.inf, 0, 0
    for score in history:
        if math.isnan(score):
            continue
        better = score > best + schedule.threshold
        best, still = (score, 0) if better else (best, still + 1)
        if still > schedule.patience_epochs:
            still, drops = 0, drops + 1
    return drops
