"""How a model is trained: one frozen dataclass of objects, read by the loop, the command line and the checkpoint.

Importing this module loads neither torch nor pandas. A field's metadata holds its command-line flag and help.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real

from multihead.augment import Augment, Diary, Flip, Gentle, Plain, check
from multihead.balance import Balance, Fixed
from multihead.losses import CrossEntropy, Loss, check_losses
from multihead.mixing import Mix
from multihead.modes import AMP
from multihead.optim import AdamW, Optim
from multihead.options import between, choice, numbers, option, variants, whole
from multihead.samplers import Sampler
from multihead.schedules import OneCycle, Schedule

MISSING = ("full", "skip", "error")  # what becomes of a photo without a known face where a crop needs one


@dataclass(frozen=True)
class EMA:
    """A moving average of the weights, which is what is scored and saved; it warms up, so short runs profit too."""

    model_ema_decay: float = option(0.999, "decay of the moving average of the weights")

    def __post_init__(self) -> None:
        between("ema", "model_ema_decay", self.model_ema_decay, 0, 1)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a model is trained, except the model and the photos.

    losses: one loss for all heads, or {head name: loss}, cross-entropy for heads not named. head_weights: {head name:
    weight of its loss}, 1 for heads not named. smoothing: label smoothing. mix: CutMix or MixUp of training batches.
    augment: one change of the training photos, or a tuple of them in their order; None changes nothing. epoch_photos:
    photos an epoch, by default as many as there are. head_lr: the heads' rate as a multiple of the backbone's.
    freeze_epochs: epochs in which the backbone stands still. crop_drop: how often a photo with several crops loses one.
    age_edges: age bands of training, in place of the head's own. drop_zones: (from, to) years whose age is left out.
    soft_bands: width in years of the Gaussian that spreads an age over the bands. distill: share of a teacher's answers
    in the targets, where the photos carry some (see `multihead.teaching`). grad_accum_steps: batches per step of the
    optimiser. select: "best" keeps the epoch with the best validation score, "last" keeps the last. val_interval:
    epochs between two validations; None is every epoch, with select="last" only the last. patience: stop after so many
    epochs without a better score. missing: what becomes of a photo without a known face when a crop needs one ("full":
    read the whole photo, "skip", "error"). recovery_interval: optimiser steps between two checkpoints inside an epoch.
    amp, channels_last, torchcompile: how the steps are computed; what is None is chosen by a few timed steps where the
    run is long enough (`multihead.choices`).

    Raises: ValueError that names the field, what it holds and what was expected.

    >>> Recipe(epochs=3, optim=AdamW(1e-4)).optim.lr
    0.0001
    """

    epochs: int = option(10, "passes over the training photos")
    batch_size: int = option(32, "photos a batch, on each process", short="-b")
    epoch_photos: int | None = option(None, "photos an epoch (default: all of them, once)")
    optim: Optim = option(None, "optimiser", "opt", AdamW)
    head_lr: float = option(1.0, "the heads' learning rate as a multiple of the backbone's")
    layer_decay: float | None = option(
        None, "factor of the learning rate from a layer to the one before (default: none)"
    )
    schedule: Schedule = option(None, "course of the learning rate", "sched", OneCycle)
    augment: Augment | tuple[Augment, ...] = option(
        None, "changes of the training photos, in order", "aug", Flip, flagged=(Flip, Diary, Gentle)
    )
    mix: Mix | None = option(None, "mixing of training photos", flagged=())
    losses: Loss | Mapping[str, Loss] = option(
        None, "loss of all heads, or of each as age=ordinal", "loss", CrossEntropy, flagged=()
    )
    balance: Balance = option(None, "weights of the heads' losses", "", Fixed, flagged=())
    head_weights: Mapping[str, float] = option(
        None, "weight of a head's loss, as age=2 mask=1 (default: 1 each)", "", dict
    )
    smoothing: float = option(0.0, "label smoothing, from 0 to below 1")
    sampler: Sampler | None = option(None, "how often each photo is drawn", flagged=())
    freeze_epochs: int = option(0, "first epochs in which only the heads learn")
    crop_drop: float = option(0.0, "how often a photo with several crops loses one")
    age_edges: tuple[float, ...] | None = option(None, "age bands of training, as 30 58 (default: the head's own)")
    drop_zones: tuple[tuple[float, float], ...] = option(
        (), "ages that training leaves out, as 57-59 28-29 (default: none)"
    )
    soft_bands: float | None = option(None, "years by which an age is spread over the bands (default: not spread)")
    distill: float = option(0.0, "share of a teacher's answers in the targets")
    grad_accum_steps: int = option(1, "batches a step of the optimiser")
    clip_grad: float | None = option(None, "largest norm of the gradient (default: no limit)")
    ema: EMA | None = option(None, "keep a moving average of the weights", "model-ema")
    amp: bool | None = option(None, "16 bits by autocast (default: what a few timed steps show to be faster)")
    amp_dtype: str = option(
        "bfloat16", "of --amp: bfloat16, or float16 (on a GPU, with scaled losses)", metavar="{bfloat16,float16}"
    )
    channels_last: bool | None = option(None, "memory format channels_last (default: timed)")
    torchcompile: bool | None = option(None, "compile the backbone (default: where a long run repays it)")
    select: str = option(
        "best",
        "which epoch train keeps: best (on the validation rows) or last, as folds, compare and tune always do",
        metavar="{best,last}",
    )
    val_interval: int | None = option(
        None, "epochs between two validations (default 1; with --select last only after the last)"
    )
    patience: int | None = option(None, "stop after so many epochs without a better score (default: never)")
    missing: str = option(
        "full",
        "a photo without a face where a crop needs one: full (all of it is read), skip or error",
        metavar="{full,skip,error}",
    )
    recovery_interval: int = option(100, "steps between two checkpoints inside an epoch")
    seed: int = option(0, "seed of everything random")

    def __post_init__(self) -> None:
        least = {"epochs": 1, "batch_size": 1, "grad_accum_steps": 1, "recovery_interval": 1, "seed": 0}
        least |= {"freeze_epochs": 0} | {
            name: 1 for name in ("epoch_photos", "val_interval") if getattr(self, name) is not None
        }
        for name, bound in least.items():
            object.__setattr__(self, name, whole("recipe", name, getattr(self, name), bound))
        if isinstance(self.augment, list):
            object.__setattr__(self, "augment", tuple(self.augment))
        if self.augment in (None, ()):
            object.__setattr__(self, "augment", Plain())
        if not isinstance(self.smoothing, Real) or not 0 <= self.smoothing < 1:
            raise ValueError(f"recipe: smoothing is {self.smoothing!r}; expected 0 <= smoothing < 1")
        choice("recipe", "select", self.select, ("best", "last"))
        choice("recipe", "amp_dtype", self.amp_dtype, tuple(AMP))
        choice("recipe", "missing", self.missing, MISSING)
        for name in ("distill", "crop_drop"):
            between("recipe", name, getattr(self, name), 0, 1)
        for name in ("amp", "channels_last", "torchcompile"):
            if getattr(self, name) not in (None, True, False):
                raise ValueError(f"recipe: {name} is {getattr(self, name)!r}; expected True, False or None")
        if not isinstance(self.head_weights, Mapping):
            raise ValueError(f"recipe: head_weights is {self.head_weights!r}; expected them by head, as {{'age': 2}}")
        for name in ("head_lr", "layer_decay", "soft_bands"):
            if name == "head_lr" or getattr(self, name) is not None:
                highest = 1 if name == "layer_decay" else float("inf")
                between("recipe", name, getattr(self, name), 0, highest, open_low=True)
        if self.clip_grad is not None:
            between("recipe", "clip_grad", self.clip_grad, 0, open_low=True)
        for name, weight in self.head_weights.items():
            between("recipe", f"head_weights of {name}", weight, 0)
        edges = () if self.age_edges is None else numbers("recipe", "age_edges", self.age_edges)
        if any(high <= low for low, high in zip(edges, edges[1:])):
            raise ValueError(f"recipe: age_edges is {edges!r}; expected rising numbers of years, as (30, 58)")
        object.__setattr__(self, "age_edges", edges or None)
        given = tuple(self.drop_zones) if isinstance(self.drop_zones, Iterable) else ((),)
        zones = tuple(numbers("recipe", "drop_zones", zone) if isinstance(zone, Iterable) else () for zone in given)
        if any(len(zone) != 2 or zone[0] > zone[1] for zone in zones):
            raise ValueError(f"recipe: drop_zones is {self.drop_zones!r}; expected pairs of years, as ((57, 59),)")
        object.__setattr__(self, "drop_zones", zones)
        if self.patience is not None and self.select == "best":
            object.__setattr__(self, "patience", whole("recipe", "patience", self.patience, 1))
        elif self.patience is not None:
            raise ValueError(f"recipe: patience is {self.patience!r}; expected None, or select='best'")
        self._check_objects()

    def _check_objects(self) -> None:
        for name, union in variants(Recipe).items():
            value = getattr(self, name)
            held = tuple(value.values()) if name == "losses" and isinstance(value, Mapping) else (value,)
            if name == "augment":
                check(value)
            elif name == "losses":
                check_losses("recipe: losses", held)
            elif not all(isinstance(part, union) or part is None and name in OPTIONAL for part in held):
                names = ", ".join(kind.__name__ for kind in union)
                raise ValueError(f"recipe: {name} is {value!r}; expected one of {names}, as in {union[0].__name__}()")


OPTIONAL = ("ema", "mix", "sampler")
