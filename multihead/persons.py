"""What a person's photos say together: intervals of each class over people, and how far one person's photos agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from multihead.heads import UNKNOWN, Head, base
from multihead.labels import marginals
from multihead.paired import class_f1, draws, number_people, tally

if TYPE_CHECKING:
    import pandas as pd


def class_intervals(
    people: np.ndarray,
    labels: np.ndarray,
    answers: np.ndarray,
    classes: int,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> np.ndarray:
    """F1 of each class with an interval from resampled people: (classes, 3), the F1, its low and its high end.

    people: (N,) person of each row, as of `Photos.groups`; -1 is one of its own. labels: (N,) class numbers, -1 =
    unknown and left out. answers: (N,). An interval holds the middle `level` of the resamples in which the class occurs
    among labels or answers; it is NaN with fewer than two people, the F1 where the class occurs nowhere.

    >>> class_intervals(np.array([0, 1]), np.array([0, 1]), np.array([0, 1]), 2)[:, 0]
    array([1., 1.])
    """
    known = labels != UNKNOWN
    found = np.full((classes, 3), math.nan)
    if not known.any():
        return found
    people = number_people(people, known)
    counts = tally(people, labels[known], answers[None, known])[:, 0]  # (G, 2, C as far as it occurs)
    number = counts.shape[-1]
    found[:number, 0] = class_f1(counts.sum(0))
    if len(counts) > 1:
        flat = counts.reshape(len(counts), -1)
        again = np.concatenate(
            [class_f1((drawn @ flat).reshape(-1, 2, number)) for drawn in draws(len(counts), resamples, seed)]
        )
        for column in np.flatnonzero(np.isfinite(again).any(0)):
            ends = np.nanquantile(again[:, column], [(1 - level) / 2, (1 + level) / 2])
            found[column, 1:] = ends
    return found


def agreement(people: Sequence[str], labels: np.ndarray, probs: np.ndarray, heads: Sequence[Head]) -> pd.DataFrame:
    """How far the photos of one person get the same answer, one row a head: head, people, photos, unanimous, majority.

    Counted are people with two photos or more whose labels are known and all the same: what an honest model answers
    alike. unanimous: the share of them whose photos all get one answer. majority: the mean over them of the share of
    photos with a person's commonest answer. NaN where nobody is counted.

    people: (N,) person keys, "" = unknown. labels: (N, heads), -1 = unknown. probs: (N, K) joint probabilities.

    >>> from multihead.heads import GENDER
    >>> probs = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    >>> agreement(["ann"] * 3, np.zeros((3, 1), int), probs, [GENDER]).majority.round(3).tolist()
    [0.667]
    """
    import pandas as pd

    rows, parts = [], marginals(probs, heads)
    for column, head in enumerate(base(heads)):
        table = pd.DataFrame({"person": list(people), "label": labels[:, column], "answer": parts[head.name].argmax(1)})
        table = table[(table.person != "") & (table.label != UNKNOWN)]
        sizes = table.groupby("person").label.agg(["size", "nunique"])
        counted = sizes[(sizes["size"] > 1) & (sizes["nunique"] == 1)]
        chosen = table[table.person.isin(counted.index)]
        commonest = chosen.groupby(["person", "answer"]).size().groupby("person").max()
        share = (commonest / counted["size"]).to_numpy(float)
        rows.append(
            {
                "head": head.name,
                "people": len(counted),
                "photos": len(chosen),
                "unanimous": float((share == 1).mean()) if len(share) else math.nan,
                "majority": float(share.mean()) if len(share) else math.nan,
            }
        )
    return pd.DataFrame(rows)
