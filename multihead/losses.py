"""Losses: their settings, without torch; `multihead.criteria` computes them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from multihead.named import named
from multihead.options import between, choice, near, option, plain_number

if TYPE_CHECKING:
    from multihead.heads import Head

WORDS = ("inverse", "effective")  # class weights that are worked out from the training rows
WEIGHTS_HELP = "weight of each class: numbers, inverse (1 / training rows) or effective (effective number of rows)"
SMOOTHING_HELP = (
    "share of a row's mass that is spread evenly over the classes (of a flat head: over each part's), 0 to below 1"
)


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy: -log p of the true class.

    class_weights: a row of a class counts as if its photo were there so many times; None, a number for each class,
    "inverse" (1 / training rows of the class) or "effective" ((1 - b) / (1 - b ** rows) with b = .999, Cui et al.
    2019, arXiv 1901.05555). Only their ratios matter. For either word a class without training rows has weight 0, one
    that only shares of rows fill, of soft bands or a teacher, less than a row together, that of one row.
    """

    class_weights: str | tuple[float, ...] | None = option(None, WEIGHTS_HELP)
    smoothing: float = option(0.0, SMOOTHING_HELP)

    def __post_init__(self) -> None:
        _settle_weights(self)


@dataclass(frozen=True)
class Focal:
    """Cross-entropy that counts well answered rows less: -(1 - p) ** gamma * log p of the true class.

    class_weights: see CrossEntropy. Source: Lin et al. 2017, arXiv 1708.02002, equation 4.
    """

    gamma: float = option(2.0, "how much less a well answered row counts; 0 is cross-entropy (focal)")
    class_weights: str | tuple[float, ...] | None = option(None, WEIGHTS_HELP)
    smoothing: float = option(0.0, SMOOTHING_HELP)

    def __post_init__(self) -> None:
        between("focal", "gamma", self.gamma, 0)
        _settle_weights(self)


@dataclass(frozen=True)
class SoftF1:
    """1 - macro F1 of a batch, counted in probabilities, over the classes that the batch's target rows hold: those of
    which a row has an even share or more, not the dust that smoothing and soft bands leave in every class.

    It looks at a whole batch at once: use it with larger batches, or in a Sum.
    """


@dataclass(frozen=True)
class SymmetricCrossEntropy:
    """alpha * cross-entropy + beta * the same with target and answer exchanged; it bears wrong labels better.

    The log of a target below 1e-4 is log 1e-4, as in the authors' code. class_weights: see CrossEntropy.
    Source: Wang et al. 2019, arXiv 1908.06112, equation 7.
    """

    alpha: float = option(0.1, "factor of the cross-entropy (symmetriccrossentropy)")
    beta: float = option(1.0, "factor of the reverse cross-entropy (symmetriccrossentropy)")
    class_weights: str | tuple[float, ...] | None = option(None, WEIGHTS_HELP)

    def __post_init__(self) -> None:
        between("symmetriccrossentropy", "alpha", self.alpha, 0)
        between("symmetriccrossentropy", "beta", self.beta, 0)
        _settle_weights(self)


@dataclass(frozen=True)
class Custom:
    """A loss of your own: a function, or an object such as a torch module, that a module holds under a name.

    function: "module:name", or a function that a module defines, which then is named so. It is called with logits
    (R, C), f32, and target rows (R, C) of sum 1, smoothed and mixed as the recipe says, of the R photos of a batch
    whose label is known, and gives their R losses: `torch.nn.CrossEntropyLoss(reduction="none")` is one. It may look
    at the whole batch; its own parameters are not trained. The module is looked for where Python looks, then in the
    current folder; what a script or notebook itself defines is found while it runs. class_weights: see CrossEntropy.

    Raises: ValueError for what has no such name.

    >>> Custom("torch.nn.functional:cross_entropy").function
    'torch.nn.functional:cross_entropy'
    """

    function: str = option("", "module:name of a function of logits (R, C) and target rows (R, C) (custom)")
    class_weights: str | tuple[float, ...] | None = option(None, WEIGHTS_HELP)

    def __post_init__(self) -> None:
        object.__setattr__(self, "function", named(self.function, "custom"))
        _settle_weights(self)


@dataclass(frozen=True)
class Ordinal:
    """Another loss, on rows whose classes give away some mass to their neighbours, for classes in order (age).

    Every neighbour that there is gets share / 2, the rest stays: a class at an end keeps more. A flat head shares
    between the classes of its parts that have edges.
    """

    share: float = option(0.2, "mass that a class gives to its neighbours, half to each (ordinal)")
    loss: Loss = option(None, "loss on the shared rows (ordinal)", "", CrossEntropy)

    def __post_init__(self) -> None:
        between("ordinal", "share", self.share, 0, 1)
        check_losses("ordinal", (self.loss,))


@dataclass(frozen=True)
class Sum:
    """The weighted sum of several losses.

    >>> Sum((SoftF1(), Focal()), (0.4, 0.6)).weights
    (0.4, 0.6)
    """

    losses: tuple[Loss, ...] = option(None, "losses to add (sum)", "", lambda: (CrossEntropy(),))
    weights: tuple[float, ...] = option((1.0,), "factor of each loss (sum)")

    def __post_init__(self) -> None:
        for name in ("losses", "weights"):
            given = getattr(self, name)
            object.__setattr__(self, name, tuple(map(plain_number, given if isinstance(given, Iterable) else (given,))))
        if not self.losses or len(self.losses) != len(self.weights):
            raise ValueError(
                f"sum: {len(self.losses)} losses and {len(self.weights)} weights; expected one weight a loss"
            )
        check_losses("sum", self.losses)
        for weight in self.weights:
            between("sum", "weight", weight, 0)
        if not any(self.weights):
            raise ValueError(f"sum: weights are {self.weights!r}; expected a number > 0 for some loss")


Loss = CrossEntropy | Focal | SoftF1 | SymmetricCrossEntropy | Custom | Ordinal | Sum


def per_head(losses: Loss | Mapping[str, Loss], heads: Sequence[Head]) -> dict[str, Loss]:
    """The loss of each head: one for all, or {head: loss} with CrossEntropy() for heads not named.

    Raises: ValueError for the name of a head that is not there, or for what is no loss.
    """
    names = [head.name for head in heads]
    given = losses if isinstance(losses, Mapping) else dict.fromkeys(names, losses)
    if unknown := sorted(set(given) - set(names)):
        raise ValueError(f"losses name {unknown}; the heads are {names}{near(unknown[0], names)}")
    check_losses("losses", given.values())
    return {name: given.get(name, CrossEntropy()) for name in names}


def _settle_weights(loss: CrossEntropy | Focal | SymmetricCrossEntropy | Custom) -> None:
    """Class weights that come as a list or array, as scikit-learn gives them, as a tuple. Raises: ValueError where
    they, or the smoothing, are none."""
    owner, weights, smoothing = type(loss).__name__.lower(), loss.class_weights, getattr(loss, "smoothing", 0.0)
    if weights is not None and not isinstance(weights, (str, tuple, Mapping)) and isinstance(weights, Iterable):
        weights = tuple(plain_number(weight) for weight in weights)
        object.__setattr__(loss, "class_weights", weights)
    if not isinstance(smoothing, (int, float)) or not 0 <= smoothing < 1:
        raise ValueError(f"{owner}: smoothing is {smoothing!r}; expected 0 <= smoothing < 1")
    if isinstance(weights, str):
        choice(owner, "class_weights", weights, WORDS)
    elif weights is not None:
        numbers = isinstance(weights, tuple) and all(isinstance(weight, (int, float)) for weight in weights)
        if not numbers or not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not any(weights):
            raise ValueError(
                f"{owner}: class_weights is {weights!r}; expected a tuple of numbers >= 0, one a class and not all 0, "
                f"or {' or '.join(map(repr, WORDS))}"
            )


def check_losses(owner: str, losses: Iterable[object]) -> None:
    """Nothing where all are losses. Raises: ValueError that begins with the owner."""
    for loss in losses:
        if not isinstance(loss, Loss):
            names = ", ".join(kind.__name__ for kind in get_args(Loss))
            hint = "; a function of your own as Custom(function)" if callable(loss) else ""
            raise ValueError(f"{owner}: {loss!r} is no loss; expected one of {names}, as in CrossEntropy(){hint}")
