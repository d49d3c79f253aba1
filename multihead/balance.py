"""Balance: how the losses of several heads become one, and what is learned or measured for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from multihead.options import between, option

if TYPE_CHECKING:
    import torch

START = -0.5  # the log variance that every head begins with


@dataclass(frozen=True)
class Fixed:
    """The weighted mean of the heads' losses, with the weights that were given."""


@dataclass(frozen=True)
class Uncertainty:
    """Learned weights: a head's loss is divided by twice its variance, whose logarithm is paid for.

    Source: Kendall et al. 2018, arXiv 1705.07115, equation 10, with the logarithm of the variance learned.
    """


@dataclass(frozen=True)
class DWA:
    """Dynamic weight average: a head whose loss falls slowly counts more in the next epoch.

    Source: Liu et al. 2019, arXiv 1803.10704, equation 7.
    """

    temperature: float = option(2.0, "evenness of the weights; the higher, the more even (dwa)")

    def __post_init__(self) -> None:
        between("dwa", "temperature", self.temperature, 0, open_low=True)


Balance = Fixed | Uncertainty | DWA


def combine(
    losses: Mapping[str, torch.Tensor],
    known: Mapping[str, bool],
    weights: Mapping[str, float],
    log_variance: torch.Tensor | None = None,
    share: float = 1.0,
) -> torch.Tensor:
    """One loss (scalar) from {head: loss (scalar)}: the weighted mean over the heads that are known in this batch.

    known: {head: whether any of its rows has mass}. weights: {head: weight}, 1 for heads not named; only their ratios
    matter. log_variance: s (heads,) in the order of `losses`: a head's term is loss / (2 * exp(s)) + s / 2. share: of
    the last term, for one of several parts whose sum is a step's loss.
    A head that is not known has factor 0: its parameters and its s get a gradient of exactly zero. Where there is no
    other, the result is 0 with such a gradient.

    Raises: ValueError for the weight of a head that is not there, a weight that is no number >= 0, weights that are all
    0, or a log_variance that is not one number a head.
    """
    if unknown := sorted(set(weights) - set(losses)):
        raise ValueError(f"head_weights names {unknown}; the model's heads are {sorted(losses)}")
    for name, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"head_weights: {name} is {weight!r}; expected a number >= 0")
    if not any(weights.get(name, 1.0) for name in losses):
        raise ValueError(f"head_weights {dict(weights)} leave nothing to learn; expected a number > 0 for some head")
    terms = dict(losses)
    if log_variance is not None:
        if log_variance.shape != (len(losses),):
            raise ValueError(
                f"log_variance has shape {tuple(log_variance.shape)}; expected ({len(losses)},), one a head"
            )
        terms = {name: loss / (2 * s.exp()) + share * s / 2 for (name, loss), s in zip(losses.items(), log_variance)}
    shares = {name: weights.get(name, 1.0) * bool(known[name]) for name in losses}
    whole = sum(shares.values()) or 1.0
    # a head without mass enters with factor 0: its parameters keep a gradient, as distributed training needs
    return sum(term * (shares[name] / whole) for name, term in terms.items())  # type: ignore[return-value]


def log_variance(balance: Balance, heads: Sequence[object]) -> torch.nn.Parameter | None:
    """What Uncertainty learns: the log variance (heads,) of each head, -0.5 at first; None for any other balance.

    It belongs to the optimiser, without weight decay.

    Raises: TypeError for what is no balance.
    """
    _check(balance)
    if not isinstance(balance, Uncertainty):
        return None
    import torch

    return torch.nn.Parameter(torch.full((len(heads),), START))


def epoch_weights(balance: Balance, history: Sequence[Mapping[str, float]], heads: Sequence[str]) -> dict[str, float]:
    """The weight of each head's loss in the next epoch {head: weight}; with DWA they add up to the number of heads.

    history: a row per epoch so far, with the mean loss of head "age" under "age_loss". Where a head's loss is missing
    or NaN, its last two known ones are used; before there are two it counts as neither rising nor falling.

    Raises: TypeError for what is no balance.

    >>> history = [{"mask_loss": 1.0, "age_loss": 1.0}, {"mask_loss": 0.5, "age_loss": 0.9}]
    >>> {name: round(weight, 2) for name, weight in epoch_weights(DWA(), history, ["mask", "age"]).items()}
    {'mask': 0.9, 'age': 1.1}
    """
    _check(balance)
    if not isinstance(balance, DWA):
        return dict.fromkeys(heads, 1.0)
    scores = [_ratio(history, f"{head}_loss") / balance.temperature for head in heads]
    powers = [math.exp(score - max(scores)) for score in scores]
    return {head: len(heads) * power / sum(powers) for head, power in zip(heads, powers)}


def _ratio(history: Sequence[Mapping[str, float]], key: str) -> float:
    """A loss over the one before it; 1 where two are not known or there was nothing left to fall from."""
    known = [row[key] for row in history if key in row and math.isfinite(row[key])]
    if len(known) < 2 or known[-2] <= 0:
        return 1.0
    return known[-1] / known[-2]


def _check(balance: object) -> None:
    if not isinstance(balance, Balance):
        raise TypeError(f"{balance!r} is no balance; expected Fixed, Uncertainty or DWA")
