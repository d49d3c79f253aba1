"""How a model is trained: one frozen dataclass of objects, read by the loop, the command line and the checkpoint.

Importing this module loads neither torch nor pandas. A field's metadata holds its command-line flag and help.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field


def option(default: object, help: str, flag: str = "", factory: object = None, short: str = "") -> typing.Any:
    """A dataclass field with its help and, where it differs from the field's name, its command-line flag."""
    metadata = {"help": help, "flag": flag, "short": short}
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)  # type: ignore[call-overload]
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay. Source: Loshchilov and Hutter 2019, arXiv 1711.05101."""

    lr: float = option(1e-3, "learning rate")
    weight_decay: float = option(0.05, "weight decay; never on biases and norms")


@dataclass(frozen=True)
class Adam:
    """Adam. Source: Kingma and Ba 2015, arXiv 1412.6980."""

    lr: float = option(1e-3, "learning rate")
    weight_decay: float = option(0.0, "weight decay; never on biases and norms")


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with Nesterov momentum."""

    lr: float = option(0.05, "learning rate")
    weight_decay: float = option(1e-4, "weight decay; never on biases and norms")
    momentum: float = option(0.9, "momentum")


@dataclass(frozen=True)
class MADGRAD:
    """MADGRAD of the madgrad package; its rates are not comparable with Adam's. Source: arXiv 2101.11075."""

    lr: float = option(1e-3, "learning rate")
    weight_decay: float = option(0.0, "weight decay; never on biases and norms")
    momentum: float = option(0.9, "momentum")


Optim = AdamW | Adam | SGD | MADGRAD


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


@dataclass(frozen=True)
class Flip:
    """Mirrors a photo with probability `hflip`, all its crops alike."""

    hflip: float = option(0.5, "probability of a mirrored photo")


@dataclass(frozen=True)
class Diary:
    """The competition diary's strong colour jitter and a mirror: one of brightness, contrast, saturation (factor
    .2 to 3) and hue (-.3 to .3) for every photo, all its crops alike."""

    hflip: float = option(0.5, "probability of a mirrored photo")
    color_jitter_prob: float = option(1.0, "probability of the colour jitter (diary)")


@dataclass(frozen=True)
class Gentle:
    """A mirror, small shifts, scales and turns, and a mild change of brightness, contrast and saturation; every crop
    of a photo draws the same numbers."""

    hflip: float = option(0.5, "probability of a mirrored photo")
    shift: float = option(0.06, "largest shift, as a share of the crop's side (gentle)")
    scale: float = option(0.12, "largest change of scale (gentle)")
    rotate: float = option(10.0, "largest turn in degrees (gentle)")
    color_jitter: float = option(0.2, "largest change of brightness, contrast, saturation (gentle)")


@dataclass(frozen=True)
class Plain:
    """No augmentation: the photo as it is."""


Augment = Flip | Diary | Gentle | Plain


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

    >>> Recipe(epochs=3, optim=SGD(0.1)).optim.momentum
    0.9
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


def variants(kind: type) -> dict[str, tuple[type, ...]]:
    """The fields of a dataclass that hold an object, each with the dataclasses that it may be an object of."""
    found: dict[str, tuple[type, ...]] = {}
    for name, hint in typing.get_type_hints(kind).items():
        members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        classes: tuple[type, ...] = tuple(m for m in members if isinstance(m, type) and dataclasses.is_dataclass(m))
        if classes:
            found[name] = classes
    return found


def to_dict(settings: object) -> dict[str, object]:
    """A dataclass of settings as plain data; an object inside it becomes {"name": its class, field: value, ...}."""
    plain: dict[str, object] = {}
    for item in dataclasses.fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, item.name)
        if dataclasses.is_dataclass(value):
            value = {"name": type(value).__name__, **to_dict(value)}
        plain[item.name] = dict(value) if isinstance(value, Mapping) else value
    return plain


def from_dict(plain: Mapping[str, object]) -> Recipe:
    """The Recipe that `to_dict` wrote.

    Raises: ValueError for a field or an object that is not known.
    """
    known = {item.name for item in dataclasses.fields(Recipe)}
    if unknown := sorted(set(plain) - known):
        raise ValueError(f"recipe: unknown fields {unknown}; expected some of {sorted(known)}")
    values = dict(plain)
    for name, union in variants(Recipe).items():
        if isinstance(chosen := values.get(name), Mapping):
            classes = {kind.__name__: kind for kind in union}
            if chosen.get("name") not in classes:
                raise ValueError(f"recipe: {name} is {chosen.get('name')!r}; expected one of {sorted(classes)}")
            rest = {key: value for key, value in chosen.items() if key != "name"}
            values[name] = classes[str(chosen["name"])](**rest)
    return Recipe(**values)  # type: ignore[arg-type]
