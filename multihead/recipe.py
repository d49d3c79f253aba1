"""How a model is trained: one frozen dataclass of objects, read by the loop, the command line and the checkpoint.

Importing this module loads neither torch nor pandas. A field's metadata holds its command-line flag and help.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from multihead.augment import Augment, Flip
from multihead.optim import AdamW, Optim
from multihead.options import option, variants
from multihead.schedules import OneCycle, Schedule


@dataclass(frozen=True)
class EMA:
    """A moving average of the weights, which is what is scored and saved; it warms up, so short runs profit too."""

    model_ema_decay: float = option(0.999, "decay of the moving average of the weights")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a model is trained, except the model and the photos.

    head_weights: {head name: weight of its loss}, 1 for heads not named. smoothing: label smoothing. grad_accum_steps:
    batches per step of the optimiser. select: "best" keeps the epoch with the best validation score, "last" scores
    only after the last epoch and keeps it. patience: stop after so many epochs without a better score. age. missing:
    what becomes of a photo without a known face when a crop needs one ("full": read the whole photo, "skip", "error").
    recovery_interval: optimiser steps between two checkpoints inside an epoch.

    Raises: ValueError that names the field, what it holds and what was expected.

    >>> Recipe(epochs=3, optim=AdamW(1e-4)).optim.lr
    0.0001
    """

    epochs: int = option(10, "passes over the training photos")
    batch_size: int = option(32, "photos a batch, on each process", short="-b")
    optim: Optim = option(None, "optimiser", "opt", AdamW)
    schedule: Schedule = option(None, "course of the learning rate", "sched", OneCycle)
    augment: Augment = option(None, "changes of the training photos", "aug", Flip)
    smoothing: float = option(0.0, "label smoothing, from 0 to below 1")
    head_weights: Mapping[str, float] = option(None, "weight of a head's loss, as age=2 mask=1", "", dict)
    grad_accum_steps: int = option(1, "batches a step of the optimiser")
    clip_grad: float | None = option(None, "largest norm of the gradient")
    ema: EMA | None = option(None, "keep a moving average of the weights", "model-ema")
    amp: bool = option(False, "bfloat16 autocast")
    channels_last: bool = option(True, "memory format channels_last")
    select: str = option("best", "which epoch is kept: best (on the validation rows) or last")
    patience: int | None = option(None, "stop after so many epochs without a better score")
    missing: str = option("full", "a photo without a face where a crop needs one: full, skip or error")
    recovery_interval: int = option(100, "steps between two checkpoints inside an epoch")
    seed: int = option(0, "seed of everything random")

    def __post_init__(self) -> None:
        least = {"epochs": 1, "batch_size": 1, "grad_accum_steps": 1, "recovery_interval": 1, "seed": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < bound:
                raise ValueError(f"recipe: {name} is {value!r}; expected a whole number >= {bound}")
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"recipe: smoothing is {self.smoothing!r}; expected 0 <= smoothing < 1")
        choices = {"select": ("best", "last"), "missing": ("full", "skip", "error")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"recipe: {name} is {getattr(self, name)!r}; expected one of {', '.join(allowed)}")
        if self.patience is not None and (self.patience < 1 or self.select == "last"):
            raise ValueError(f"recipe: patience is {self.patience!r}; expected >= 1, with select='best'")
        for name, union in variants(Recipe).items():
            value = getattr(self, name)
            if not (isinstance(value, union) or value is None and name == "ema"):
                names = ", ".join(kind.__name__ for kind in union)
                raise ValueError(f"recipe: {name} is {value!r}; expected one of {names}, as in {union[0].__name__}()")
