"""What a fitted correction does for people it was not fitted on: nested estimates, by dealing people into folds.

The rows are out-of-fold answers: their models never saw them. Each fold's correction is fitted on the people of the
other folds and applied to its own, so no number here was chosen on the rows that it is counted on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from multihead.calibrate import (
    BINS,
    FLOOR,
    apply_temperatures,
    checked,
    expected_calibration_error,
    fit_temperatures,
    questions,
)
from multihead.decoding import fit_weights, reweight
from multihead.heads import UNKNOWN, Head
from multihead.options import between
from multihead.paired import compare, number_people
from multihead.splits import deal

if TYPE_CHECKING:
    import pandas as pd

Fit = Callable[[np.ndarray, np.ndarray, Sequence[Head]], np.ndarray]
Correct = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def nested_gain(
    probs: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    heads: Sequence[Head],
    fit: Fit = fit_weights,
    *,
    folds: int = 5,
    seed: int = 0,
    resamples: int = 2000,
) -> pd.DataFrame:
    """What a decoder fitted on other people gains over the likeliest class: the table of `multihead.paired.compare`.

    probs: out-of-fold joint probabilities (N, K). labels: (N, heads), -1 = unknown. groups: (N,) person of each row,
    as of `Photos.groups`; -1 is one of its own. fit: makes weights (K,) of probs, labels and heads, as
    `multihead.decoding.fit_weights`, `fit_prior_weights` or `fit_joint_weights`.

    The arms are "argmax" and "fitted"; the row of arm "fitted" and metric "macro_f1" has the gain as `difference`, and
    low and high, its interval over people.

    Raises: ValueError for fewer people than folds, and as `compare` and `fit` do.
    """

    def correct(seen: np.ndarray, told: np.ndarray, asked: np.ndarray) -> np.ndarray:
        return reweight(asked, fit(seen, told, heads))

    probs, labels = checked(probs, labels, heads)
    fitted = held_out(probs, labels, groups, correct, folds=folds, seed=seed)
    arms = {"argmax": [probs], "fitted": [fitted]}
    return compare(arms, labels, groups, heads, resamples=resamples, seed=seed)


def nested_calibration(
    probs: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    heads: Sequence[Head],
    *,
    folds: int = 5,
    seed: int = 0,
    bins: int = BINS,
) -> list[dict[str, object]]:
    """Calibration before and after temperatures fitted on other people: a row for "joint" and for each head.

    Arguments as of `nested_gain`. Keys: part; n (known rows); ece and ece_after, the expected calibration errors; loss
    and loss_after, the mean negative log-likelihoods of the labels in nats. NaN where no row is known.

    Raises: ValueError for fewer people than folds, and as `multihead.calibrate.fit_temperatures` does.
    """

    def correct(seen: np.ndarray, told: np.ndarray, asked: np.ndarray) -> np.ndarray:
        return apply_temperatures(asked, fit_temperatures(seen, told, heads), heads)

    probs, labels = checked(probs, labels, heads)
    after = questions(held_out(probs, labels, groups, correct, folds=folds, seed=seed), labels, heads)
    rows = []
    for part, (before, known) in questions(probs, labels, heads).items():
        row: dict[str, object] = {"part": part, "n": int((known != UNKNOWN).sum())}
        for name, each in (("", before), ("_after", after[part][0])):
            row[f"ece{name}"] = expected_calibration_error(each, known, bins)
            row[f"loss{name}"] = _loss(each, known)
        rows.append(row)
    return rows


def held_out(
    probs: np.ndarray, labels: np.ndarray, groups: np.ndarray, correct: Correct, *, folds: int = 5, seed: int = 0
) -> np.ndarray:
    """Probabilities (N, K) of which each person's were corrected by what was fitted on people of the other folds.

    correct: (probs and labels of the other folds' rows, probs of the fold's rows) -> these corrected. People are dealt
    as `multihead.splits.deal` does: stratified, the same for the same seed.

    Raises: ValueError for fewer people than folds, fewer than two folds, or groups that are no person numbers.
    """
    between("nested", "folds", folds, 2)
    people = number_people(groups, np.ones(len(labels), bool))
    if (count := int(people.max(initial=-1)) + 1) < folds:
        raise ValueError(
            f"nested: {count} people are too few; expected {folds} or more, some of whom are left out in turn"
        )
    fold = deal(people, labels, [1 / folds] * folds, seed)
    places = [np.flatnonzero(fold == number) for number in range(folds)]
    parts = [correct(np.delete(probs, here, 0), np.delete(labels, here, 0), probs[here]) for here in places]
    return np.concatenate(parts)[np.argsort(np.concatenate(places))]


def _loss(probs: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log-likelihood of the known labels; NaN where there is none."""
    known = np.flatnonzero(labels != UNKNOWN)
    told = probs[known, labels[known]].clip(min=FLOOR)
    return float(-np.log(told).mean()) if len(known) else float("nan")
