"""Heads, their classes, and the algebra between the answers of several heads and one joint distribution.

Everything here takes numpy arrays or torch tensors and returns the same kind. -1 means unknown everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from multihead.crops import FULL, Crop

if TYPE_CHECKING:
    import torch

Array = TypeVar("Array", np.ndarray, "torch.Tensor")
UNKNOWN = -1
AGE_NUMBER = "age"  # the number that recipes' settings of age are of
OLDEST = 130  # years: numbers above are no age
BLANKS = ("", "nan", "none", "<na>", "na", "n/a", "null", "-1", "-1.0")  # cells that say nothing, in lower case

TAKEN = frozenset(
    ("path", "name", "root", "source", "person", "split", "years", "x0", "y0", "x1", "y1", "whole", "searched", "face")
    + ("box", "label", "error", "status", "score", "pseudo", "joint", "macro")
)  # columns that mean something else in tables of photos, answers and scores


@dataclass(frozen=True)
class Head:
    """One question asked of a photo: its name, its classes in order, and the crops that its answer is read from.

    edges: for classes that are bands of a number, as of an age in years: band = how many edges are <= it. parts: for a
    flat head, the heads whose combinations are its classes (see `flat`). number: the column of tables that holds the
    number, by default the head's own; several heads may band one, as Head("decade", ..., edges=..., number="age").

    Raises: ValueError for a name that is no identifier or a column of the tables of photos, answers or scores
    (`TAKEN`), fewer than two or repeated classes (case does not count), classes named like a missing value or like
    another class's index, no crop, edges that do not rise or do not fit the classes, or a number without edges;
    TypeError for classes that are no texts.

    >>> Head("smile", ("no", "yes")).on(FULL.resized(64)).crops[0].size
    (64, 64)
    """

    name: str
    classes: tuple[str, ...]
    crops: tuple[Crop, ...] = (FULL,)
    edges: tuple[float, ...] | None = None
    parts: tuple[Head, ...] = ()
    number: str | None = None

    def __post_init__(self) -> None:
        for what, text in {"name": self.name, "number": self.number or self.name}.items():
            if not isinstance(text, str) or not text.isidentifier():
                raise ValueError(f"head {what} {text!r} must be letters, digits and _, as in 'mask'")
            if text in TAKEN:
                raise ValueError(
                    f"head {what} {text!r} is a column of the tables of photos, answers and scores; take another"
                )
        if self.edges is None and self.number not in (None, self.name):
            raise ValueError(f"head {self.name!r} has number {self.number!r}, but no edges of bands of it")
        texts = not isinstance(self.classes, str) and all(isinstance(name, str) for name in self.classes)
        if not texts:
            raise TypeError(f"head {self.name!r} has classes {self.classes!r}; expected texts, as ('no', 'yes')")
        for field in ("classes", "crops", "parts"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        if self.edges is not None:
            object.__setattr__(self, "edges", tuple(self.edges))
        object.__setattr__(self, "number", None if self.edges is None else self.number or self.name)
        plain = [name.strip().lower() for name in self.classes]  # as a table's cells are compared
        if len(plain) < 2 or len(set(plain)) < len(plain):
            raise ValueError(f"head {self.name!r} has classes {self.classes}; expected two or more unlike names")
        number = [text for place, text in enumerate(plain) if text.isdigit() and int(text) != place]
        if number:
            raise ValueError(
                f"head {self.name!r} names a class {number[0]!r}, which tables read as an index; rename it"
            )
        missing = [name for name, text in zip(self.classes, plain) if text in BLANKS]
        if missing:
            raise ValueError(
                f"head {self.name!r} names a class {missing[0]!r}, which tables read as missing; rename it"
            )
        if not self.crops or len(set(self.crops)) < len(self.crops):
            raise ValueError(f"head {self.name!r} has crops {self.crops}; expected one or more unlike crops")
        if self.edges is not None and (
            len(self.edges) != len(self.classes) - 1
            or not all(map(math.isfinite, self.edges))
            or any(b <= a for a, b in zip(self.edges, self.edges[1:]))
        ):
            raise ValueError(
                f"head {self.name!r} has edges {self.edges} for {len(self.classes)} classes; "
                f"expected {len(self.classes) - 1} rising numbers"
            )

    @property
    def in_years(self) -> bool:
        """Whether the classes are bands of the column age, not of some other number."""
        return self.number == AGE_NUMBER

    def on(self, *crops: Crop) -> Head:
        """The same head reading these crops; the features of several are joined in this order.

        Raises: TypeError for what is no crop.
        """
        if strange := [crop for crop in crops if not hasattr(crop, "region")]:
            raise TypeError(f"head {self.name!r} on {strange[0]!r}; expected crops such as multihead.FACE")
        return replace(self, crops=tuple(crops))


MASK = Head("mask", ("worn", "incorrect", "not_worn"))
GENDER = Head("gender", ("male", "female"))
AGE = Head("age", ("<30", "30-59", ">=60"), edges=(30, 60))
HEADS = (MASK, GENDER, AGE)


def flat(heads: Sequence[Head] = HEADS) -> tuple[Head, ...]:
    """A table of one head whose classes are all combinations of `heads`, first head slowest; it keeps the parts.

    >>> len(flat(HEADS)[0].classes)
    18
    """
    names = [""]
    for head in heads:
        names = [f"{name}/{part}".strip("/") for name in names for part in head.classes]
    crops = tuple(dict.fromkeys(crop for head in heads for crop in head.crops))
    return (Head("_".join(head.name for head in heads), tuple(names), crops, parts=tuple(heads)),)


FLAT = flat(HEADS)


def base(heads: Sequence[Head]) -> tuple[Head, ...]:
    """The heads that labels are given for: a flat head stands for its parts.

    Raises: ValueError where two of them share a name, or one bands what another's classes without edges are named in,
    TypeError for what is no head.
    """
    heads = (heads,) if isinstance(heads, Head) else heads
    if strange := [head for head in heads if not isinstance(head, Head)]:
        raise TypeError(f"heads hold {strange[0]!r}; expected heads such as multihead.MASK")
    table = tuple(part for head in heads for part in (head.parts or (head,)))
    names = [head.name for head in table]
    if len(set(names)) < len(names):
        raise ValueError(f"heads {names} repeat a name; every head of a table needs its own")
    named = {head.name for head in table if head.number != head.name}
    if clash := [head for head in table if head.number in named]:
        head = clash[0]
        raise ValueError(
            f"head {head.name!r} bands the number {head.number!r}, and head {head.number!r} reads that column as names "
            f"of its classes; expected edges of {head.number!r} too, or another number"
        )
    return table


def label_columns(head: Head) -> list[str]:
    """The columns of a table that labels of a head may stand in.

    >>> label_columns(AGE), label_columns(MASK)
    (['age', 'age_band'], ['mask'])
    """
    return [head.name] if head.number is None else list(dict.fromkeys([head.number, head.name, f"{head.name}_band"]))


def number_column(number: str) -> str:
    """The column of `Photos.table` that holds a number that heads band: years of an age.

    >>> number_column("age"), number_column("height")
    ('years', 'height:number')
    """
    return "years" if number == AGE_NUMBER else f"{number}:number"


def numbers(heads: Sequence[Head]) -> list[str]:
    """The numbers that heads band, each once.

    >>> numbers(HEADS)
    ['age']
    """
    return list(dict.fromkeys(head.number for head in heads if head.number is not None))


def space(heads: Sequence[Head]) -> tuple[Head, ...]:
    """The joint space of a table of heads: names and classes in order, crops and edges left out.

    Two models whose spaces are equal give joint distributions that may be averaged.
    """
    return tuple(Head(head.name, head.classes) for head in base(heads))


def size(heads: Sequence[Head]) -> int:
    """The number of joint classes."""
    return math.prod(len(head.classes) for head in base(heads))


def crops(heads: Sequence[Head]) -> tuple[Crop, ...]:
    """The distinct crops that a table of heads reads, in order of first use."""
    return tuple(dict.fromkeys(crop for head in heads for crop in head.crops))


def encode(labels: Array, heads: Sequence[Head] = HEADS) -> Array:
    """Joint class (N,) of labels (N, heads), first head slowest; unknown where any head is unknown.

    labels: an array, tensor or DataFrame; what a DataFrame lacks is unknown.

    Raises: ValueError for a wrong number of columns or a label outside its head's classes.

    >>> encode(np.array([[2, 1, 0], [0, -1, 1]]))
    array([15, -1])
    """
    table, labels = base(heads), _wide(_numbers(labels))
    if labels.ndim != 2 or labels.shape[1] != len(table):
        raise ValueError(f"labels have shape {tuple(labels.shape)}; expected (N, {len(table)}) for {_names(table)}")
    joint = labels[:, 0] * 0
    for column, head in enumerate(table):
        _check_range(labels[:, column], head)
        joint = joint * len(head.classes) + labels[:, column]
    joint[(labels == UNKNOWN).any(1)] = UNKNOWN
    return joint


def decode(joint: Array, heads: Sequence[Head] = HEADS) -> Array:
    """Labels (N, heads) of joint classes (N,), or (heads,) of one; an unknown joint class gives unknown labels.

    joint: an array, tensor, Series or number; a missing value is unknown.

    Raises: ValueError for a joint class outside the space, or no whole number.

    >>> decode(np.array([15, -1]))
    array([[ 2,  1,  0],
           [-1, -1, -1]])
    """
    table, joint = base(heads), _wide(_known(_numbers(joint)))
    if joint.ndim == 0:
        return decode(joint[None], heads)[0]
    if len(joint) and (joint.max() >= size(table) or joint.min() < UNKNOWN):
        raise ValueError(f"joint classes run from {joint.min()} to {joint.max()}; expected -1 to {size(table) - 1}")
    if isinstance(joint, np.ndarray) and joint.dtype.kind == "f":
        raise ValueError(f"joint class {joint[joint % 1 != 0][0]} is no whole number; expected -1 to {size(table) - 1}")
    columns, rest = [], joint
    for head in reversed(table):
        columns.append(rest % len(head.classes))
        rest = rest // len(head.classes)
    labels = _stack(columns[::-1]) if columns else joint[:, None][:, :0]  # (N, heads)
    labels[joint == UNKNOWN] = UNKNOWN
    return labels


def joint(probs: Mapping[str, Array], heads: Sequence[Head] = HEADS) -> Array:
    """Joint probabilities (N, K): the product of the heads' probabilities {head: (N, C)}, first head slowest.

    A flat head's own probabilities are joint already and enter as they are.

    Raises: KeyError for a head without probabilities; ValueError for a wrong number of columns.
    """
    product: Array | None = None
    for head in heads:
        if head.name not in probs:
            raise KeyError(f"no probabilities for head {head.name!r}; got {sorted(probs)}")
        rows = probs[head.name]
        if rows.ndim != 2 or rows.shape[1] != len(head.classes):
            raise ValueError(f"head {head.name!r} expects (N, {len(head.classes)}), got {tuple(rows.shape)}")
        if product is None:
            product = rows
        else:
            product = (product[:, :, None] * rows[:, None, :]).reshape(rows.shape[0], -1)  # (N, K so far)
    if product is None:
        raise ValueError("joint() needs at least one head")
    return product


def marginals(probs: Array, heads: Sequence[Head] = HEADS) -> dict[str, Array]:
    """Each head's probabilities {head: (N, C)} from joint ones (N, K), by summing over the other heads.

    Raises: ValueError where K is not the size of the joint space.
    """
    table = base(heads)
    if probs.ndim != 2 or probs.shape[1] != size(table):
        raise ValueError(f"joint probabilities have shape {tuple(probs.shape)}; expected (N, {size(table)})")
    grid = probs.reshape(probs.shape[0], *(len(head.classes) for head in table))  # (N, C1, C2, ...)
    axes = range(1, len(table) + 1)
    found = {}
    for axis, head in enumerate(table, 1):
        others = tuple(other for other in axes if other != axis)
        found[head.name] = grid.sum(others) if others else grid
    return found


def bands(years: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """Band (N,) of numbers (N,): how many edges are <= the number; unknown for NaN.

    >>> bands(np.array([29.9, 30, 60, float("nan")]), (30, 60))
    array([ 0,  1,  2, -1])
    """
    years = np.asarray(years, dtype=float)
    found = np.searchsorted(np.asarray(edges, dtype=float), years, side="right")
    return np.where(np.isnan(years), UNKNOWN, found)


def class_index(head: Head, value: object) -> int:
    """The class of one cell of a table: its name (any case), its index, "1.0" or 1.0; unknown for a blank or -1.

    Raises: ValueError that names the head, the value and the classes.

    >>> class_index(MASK, "Incorrect"), class_index(MASK, "2.0"), class_index(MASK, "")
    (1, 2, -1)
    """
    text = "" if value is None else str(value).strip()
    if text.lower() in BLANKS:
        return UNKNOWN
    names = [name.strip().lower() for name in head.classes]
    if text.lower() in names:
        return names.index(text.lower())
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if number in range(len(names)):
        return int(number)
    listed = ", ".join(f"{index} or {name}" for index, name in enumerate(head.classes))
    raise ValueError(f"{value!r} is no class of head {head.name!r}; expected {listed}, or a blank for unknown")


def _numbers(values: Array) -> Array:
    """A tensor as it is, anything else as an array: of a Series, DataFrame, list or number, whole where all are;
    missing values are -1."""
    if not isinstance(values, np.ndarray) and not hasattr(values, "detach"):
        told: Any = values
        told = told.to_numpy(dtype=float, na_value=np.nan) if hasattr(told, "to_numpy") else np.asarray(told)
        values = _known(told)
    return values


def _known(values: Array) -> Array:
    """An array's NaN as -1, and whole numbers as such."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "fO":
        values = np.where(np.isnan(values.astype(float)), UNKNOWN, values.astype(float))
        values = values.astype(np.int64) if (values % 1 == 0).all() else values
    return values


def _wide(values: Array) -> Array:
    """Whole numbers in 64 bits: a joint class may need more than its heads' classes do, and -1 a sign."""
    if isinstance(values, np.ndarray):
        return values.astype(np.int64) if values.dtype.kind in "iu" else values
    return values if values.is_floating_point() else values.long()


def _stack(columns: list[Array]) -> Array:
    if isinstance(columns[0], np.ndarray):
        return np.stack(columns, axis=1)
    import torch

    return torch.stack(columns, dim=1)


def _check_range(column: Array, head: Head) -> None:
    right = (column >= UNKNOWN) & (column < len(head.classes)) & (column % 1 == 0)  # false for NaN
    if not right.all():
        row = int(np.flatnonzero(~np.asarray(right))[0])
        found = column[row].item()
        raise ValueError(f"row {row}: head {head.name!r} has label {found!r}; expected -1 to {len(head.classes) - 1}")


def _names(heads: Sequence[Head]) -> list[str]:
    return [head.name for head in heads]
