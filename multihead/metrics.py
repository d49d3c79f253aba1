"""Scores from counts over all rows: macro-F1 and accuracy, joint and per head, per class and per slice.

Semantics are scikit-learn's: macro-F1 is the plain mean of F1 over the classes that occur among labels or answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from multihead.heads import HEADS, UNKNOWN, Head, base, joint_names, size
from multihead.labels import aligned, encode, marginals

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Confusion:
    """Counts (C, C) of labels (rows) against answers (columns), and what follows from them.

    >>> Confusion(("a", "b"), np.array([[3, 1], [0, 4]])).accuracy
    0.875
    """

    classes: tuple[str, ...]
    counts: np.ndarray

    def __repr__(self) -> str:
        """One line; print() shows the classes."""
        return (
            f"Confusion({len(self.classes)} classes, n {self.n}, macro-F1 {self.f1:.4f}, accuracy {self.accuracy:.4f})"
        )

    def __str__(self) -> str:
        wide = max(12, *map(len, self.classes))
        rows = [_line(["", "n", "precision", "recall", "F1"], wide)]
        for name, count, ratios in zip(self.classes, self.counts.sum(1), self.per_class().T):
            rows.append(_line([name, count, *ratios], wide))
        return "\n".join([*rows, f"macro-F1 {self.f1:.4f}, accuracy {self.accuracy:.4f}"])

    @property
    def n(self) -> int:
        """How many rows were counted."""
        return int(self.counts.sum())

    @property
    def accuracy(self) -> float:
        """Share of right answers; NaN without rows."""
        return float(np.trace(self.counts) / self.n) if self.n else math.nan

    @property
    def f1(self) -> float:
        """Macro-F1 over the classes that occur among labels or answers; NaN without rows."""
        seen = self.counts.sum(0) + self.counts.sum(1) > 0
        return float(self.per_class()[2][seen].mean()) if self.n else math.nan

    def per_class(self) -> np.ndarray:
        """Precision, recall and F1 of each class: (3, C); 0 where a ratio has no cases."""
        hits = np.diag(self.counts).astype(float)
        answered, labelled = self.counts.sum(0), self.counts.sum(1)
        ratios = [(hits, answered), (hits, labelled), (2 * hits, answered + labelled)]
        return np.stack([np.divide(top, low, out=np.zeros_like(hits), where=low > 0) for top, low in ratios])

    def table(self) -> pd.DataFrame:
        """One row a class: n (labelled rows), precision, recall, f1."""
        import pandas as pd

        precision, recall, f1 = self.per_class()
        rows = {"n": self.counts.sum(1), "precision": precision, "recall": recall, "f1": f1}
        return pd.DataFrame(rows, index=pd.Index(self.classes, name="class"))

    def to_dict(self) -> dict[str, object]:
        """n, macro_f1, accuracy, and classes: {name: {n, precision, recall, f1}}; NaN becomes None."""
        classes = {}
        for name, count, row in zip(self.classes, self.counts.sum(1), self.per_class().T):
            classes[name] = {"n": int(count), "precision": float(row[0]), "recall": float(row[1]), "f1": float(row[2])}
        return {**_summary(self), "classes": classes}


def confusion(labels: np.ndarray, answers: np.ndarray, classes: Sequence[str]) -> Confusion:
    """Counts of labels (N,) against answers (N,); rows whose label is unknown are left out.

    Raises: ValueError where a label, or an answer to a labelled row, is no class.
    """
    known = labels != UNKNOWN
    labels, answers, number = labels[known], answers[known], len(classes)
    for what, found in (("labels", labels), ("answers", answers)):
        if len(found) and not 0 <= found.min() <= found.max() < number:
            raise ValueError(f"{what} must lie in 0..{number - 1}, got {found.min()}..{found.max()}")
    counts = np.bincount(labels * np.int64(number) + answers, minlength=number * number)
    return Confusion(tuple(classes), counts.reshape(number, number))


@dataclass(frozen=True, eq=False)
class Scores:
    """How answers compare with labels: joint on rows whose heads are all known, each head on its own known rows.

    heads: {head name: Confusion}; joint: the Confusion over the joint classes. The joint answer is the likeliest
    joint class, a head's answer its likeliest class after summing over the others. errors: (path, reason) of photos
    that could not be read and are not counted. faceless: photos without a face, where a crop needs one. row_numbers:
    (N,) which rows of the scored photos `labels`, `probs` and `slices` are of: all but those in errors.
    """

    table: tuple[Head, ...]
    joint: Confusion
    heads: dict[str, Confusion]
    labels: np.ndarray = field(repr=False)
    probs: np.ndarray = field(repr=False)
    slices: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    errors: tuple[tuple[str, str], ...] = ()
    faceless: tuple[str, ...] = ()
    row_numbers: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64), repr=False)

    @property
    def n(self) -> int:
        """Rows whose heads are all known."""
        return self.joint.n

    @property
    def f1(self) -> float:
        """Joint macro-F1; NaN where no row is fully known."""
        return self.joint.f1

    @property
    def accuracy(self) -> float:
        """Joint accuracy; NaN where no row is fully known."""
        return self.joint.accuracy

    @property
    def confusion(self) -> np.ndarray:
        """Joint counts (K, K), labels in rows."""
        return self.joint.counts

    @property
    def selection(self) -> tuple[float, str]:
        """The number that a best epoch is chosen by, and its name: joint macro-F1, else the mean of the heads'."""
        if self.n:
            return self.f1, "macro_f1"
        scored = [head.f1 for head in self.heads.values() if head.n]
        return (float(np.mean(scored)) if scored else math.nan), "mean_head_f1"

    def by(self, name: str) -> Slices:
        """Scores of each slice: by a head's true class ("mask") or by a column of the photos ("source").

        Raises: KeyError that lists what there is to slice by.
        """
        names = [head.name for head in self.table]
        if not isinstance(name, str):
            raise TypeError(f"by() takes one name, got {name!r}; expected one of {names + list(self.slices)}")
        if name in names:
            head = self.table[names.index(name)]
            column, levels = self.labels[:, names.index(name)], dict(enumerate(head.classes))
        elif name in self.slices:
            column = np.asarray(self.slices[name])
            levels = {level: str(level) for level in sorted(set(column.tolist())) if str(level)}
        else:
            raise KeyError(f"cannot slice by {name!r}; there are {names + list(self.slices)}")
        return Slices({text: self.rows(column == level) for level, text in levels.items()})

    def rows(self, chosen: np.ndarray) -> Scores:
        """Scores of some rows only: a mask (N,) or row numbers."""
        slices = {name: np.asarray(column)[chosen] for name, column in self.slices.items()}
        found = score(self.probs[chosen], self.labels[chosen], self.table, slices)
        return replace(found, row_numbers=self.row_numbers[chosen])

    def to_dict(self, by: Sequence[str] = ()) -> dict[str, object]:
        """n, macro_f1, accuracy, heads, and by_<name> for the first head and whatever else is named, as in `Scores.by`;
        ready for JSON (NaN becomes None)."""
        names = dict.fromkeys([self.table[0].name, *by])
        heads = {name: head.to_dict() for name, head in self.heads.items()}
        return {**_summary(self.joint), "heads": heads, **{f"by_{name}": self._slices(name) for name in names}}

    def _slices(self, name: str) -> dict[str, object]:
        return {
            level: {**_summary(part.joint), "heads": {k: _summary(v) for k, v in part.heads.items()}}
            for level, part in self.by(name).items()
        }

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        rows = [("joint", self.joint), *self.heads.items()]
        lines = [_line(["", "n", "macro-F1", "accuracy"])]
        return "\n".join(lines + [_line([name, part.n, part.f1, part.accuracy]) for name, part in rows])


class Slices(dict[str, Scores]):
    """{slice: its Scores}; as text a line a slice, with its rows and the macro-F1 jointly and of each head."""

    def __repr__(self) -> str:
        wide = max([12, *map(len, self)])
        names = list(dict.fromkeys(name for part in self.values() for name in part.heads))
        lines = [_line(["", "rows", "joint", *names], wide)]
        for level, part in self.items():
            lines.append(_line([level, len(part.labels), part.f1, *(part.heads[name].f1 for name in names)], wide))
        return "\n".join(["macro-F1 by slice", *lines])


def _line(cells: Sequence[object], wide: int = 12) -> str:
    """A line of a table: a name, `wide` characters wide, a count of rows, then numbers or their names."""
    name, count, *others = cells
    shown = [f"{each:10.4f}" if isinstance(each, float) else f"{each:>10}" for each in others]
    return f"{name:{wide}}{count:>7}{''.join(shown)}"


def score(
    probs: np.ndarray,
    labels: np.ndarray,
    heads: Sequence[Head] = HEADS,
    slices: Mapping[str, np.ndarray] | None = None,
) -> Scores:
    """Scores of joint probabilities (N, K) against labels (N, heads), -1 = unknown; of a DataFrame by the names of its
    columns, as in `multihead.encode`.

    slices: columns (N,) that `Scores.by` may slice by.

    Raises: ValueError where shapes disagree, a label is no class, or a row is not finite or no probabilities.
    """
    table = base(heads)
    probs, labels = np.asarray(probs), np.asarray(aligned(labels, table))
    if probs.shape != (len(labels), size(table)):
        raise ValueError(f"probs have shape {probs.shape}; expected ({len(labels)}, {size(table)}), one row a label")
    check_probabilities(probs)
    joint = confusion(encode(labels, table).astype(np.int64), probs.argmax(1), joint_names(table))
    labels = labels.astype(np.int64)
    parts = marginals(probs, table)
    heads_found = {
        head.name: confusion(labels[:, column], parts[head.name].argmax(1), head.classes)
        for column, head in enumerate(table)
    }
    numbers = np.arange(len(labels))
    return Scores(table, joint, heads_found, labels, probs, dict(slices or {}), row_numbers=numbers)


def check_probabilities(probs: np.ndarray) -> None:
    """Nothing where each row (N, K) is a distribution, up to rounding. Raises: ValueError with the first other row."""
    if not np.isfinite(probs).all():
        row = int(np.flatnonzero(~np.isfinite(probs).all(1))[0])
        raise ValueError(
            f"row {row} of the probabilities is not finite: of a photo without an answer, which is left out "
            "before scoring, or a diverged model"
        )
    wrong = ~((probs >= 0).all(1) & (np.abs(probs.sum(1, dtype=float) - 1) < 1e-2))  # bfloat16 sums to about one
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"row {row} of the probabilities sums to {probs[row].sum():.4g}, its least is {probs[row].min():.4g}; "
            "expected the softmax, joint over the heads (multihead.joint)"
        )


def _summary(part: Confusion) -> dict[str, object]:
    return {
        "n": part.n,
        "macro_f1": None if math.isnan(part.f1) else part.f1,
        "accuracy": None if math.isnan(part.accuracy) else part.accuracy,
    }


def selection_of(row: Mapping[str, Any]) -> float:
    """The score that an epoch's row is chosen by, NaN where it was not scored."""
    if row.get("selected_by") != "mean_head_f1":
        return float(row.get("macro_f1", float("nan")))
    heads = [value for name, value in row.items() if name.endswith("_f1") and name != "macro_f1" and value == value]
    return float(np.mean(heads)) if heads else float("nan")
