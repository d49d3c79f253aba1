"""What a vote fits on out-of-fold answers, as one thing that is fitted and applied, so that it can be nested too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from multihead.calibrate import apply_temperatures, fit_temperatures
from multihead.decoding import fit_prior_weights, fit_weights, reweight
from multihead.heads import Head, size
from multihead.nested import held_out
from multihead.options import choice
from multihead.paired import compare
from multihead.voting import fit_vote_weights

if TYPE_CHECKING:
    import pandas as pd

DECODERS = {"prior": fit_prior_weights, "weights": fit_weights}


@dataclass(frozen=True)
class Wanted:
    """What is fitted for a vote of several recipes: temperatures of each, their shares (given where not None), and
    class weights for macro-F1 ("prior", "weights", or "" for none). pooled: temperatures {head: T} of the mean itself,
    which are given: what is fitted on photos that these answers are not of.

    Raises: ValueError for an unknown decoder.
    """

    calibrate: bool = False
    shares: tuple[float, ...] | None = None
    decode: str = ""
    pooled: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        choice("vote", "decode", self.decode, ("", *DECODERS))


@dataclass(frozen=True)
class Fitted:
    """The temperatures {head: T} of each recipe, its share, class weights (K,), None where none were asked for, and the
    temperatures of the mean."""

    temperatures: tuple[dict[str, float], ...]
    shares: tuple[float, ...]
    weights: np.ndarray | None
    pooled: Mapping[str, float] = field(default_factory=dict)

    def mean(self, probs: Sequence[np.ndarray], heads: Sequence[Head]) -> np.ndarray:
        """The tempered, weighted mean (N, K) of the recipes' probabilities, before class weights."""
        pairs = zip(probs, self.temperatures)
        tempered = [apply_temperatures(each, one, heads) if one else each for each, one in pairs]
        mean = np.average(np.stack(tempered), 0, self.shares)
        return apply_temperatures(mean, self.pooled, heads) if self.pooled else mean

    def answers(self, probs: Sequence[np.ndarray], heads: Sequence[Head]) -> np.ndarray:
        """The joint probabilities (N, K) that the vote answers with."""
        mean = self.mean(probs, heads)
        return mean if self.weights is None else reweight(mean, self.weights)


def fit(probs: Sequence[np.ndarray], labels: np.ndarray, heads: Sequence[Head], wanted: Wanted) -> Fitted:
    """All that is wanted, fitted in turn: temperatures, then shares of the tempered, then class weights of their mean,
    tempered where that is.

    probs: out-of-fold joint probabilities (N, K) of each recipe, on the same rows. labels: (N, heads), -1 = unknown.

    Raises: ValueError as what is fitted does.
    """
    temperatures = tuple(fit_temperatures(each, labels, heads) if wanted.calibrate else {} for each in probs)
    even = Fitted(temperatures, (1.0,) * len(probs), None)
    tempered = [
        replace(even, temperatures=(one,), shares=(1.0,)).mean([each], heads) for each, one in zip(probs, temperatures)
    ]
    shares = wanted.shares or fit_vote_weights(tempered, labels, heads)
    found = Fitted(temperatures, tuple(share / sum(shares) for share in shares), None, wanted.pooled)
    if not wanted.decode:
        return found
    return replace(found, weights=DECODERS[wanted.decode](found.mean(probs, heads), labels, heads))


def decoding_gain(
    probs: Sequence[np.ndarray], labels: np.ndarray, groups: np.ndarray, heads: Sequence[Head], wanted: Wanted
) -> pd.DataFrame:
    """What decoding gains for people on whom nothing was fitted: `multihead.paired.compare` of arms "plain" and
    "decoded".

    Everything that is wanted is fitted anew on the people of the other folds.
    """
    width, stacked = size(heads), np.concatenate(list(probs), 1)  # (N, recipes * K)

    def correct(seen: np.ndarray, told: np.ndarray, asked: np.ndarray, plan: Wanted) -> np.ndarray:
        parts, others = _split(seen, width), _split(asked, width)
        return fit(parts, told, heads, plan).answers(others, heads)

    arms = {}
    for name, plan in {"plain": replace(wanted, decode=""), "decoded": wanted}.items():
        arms[name] = [held_out(stacked, labels, groups, lambda s, t, a, plan=plan: correct(s, t, a, plan))]  # type: ignore[misc]
    return compare(arms, labels, groups, heads)


def _split(stacked: np.ndarray, width: int) -> list[np.ndarray]:
    return np.split(stacked, stacked.shape[1] // width, axis=1)
