"""The algebra between the labels or answers of several heads and one joint distribution.

Everything here takes numpy arrays or torch tensors and returns the same kind. -1 means unknown everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from multihead.heads import BLANKS, HEADS, UNKNOWN, Head, base, size

if TYPE_CHECKING:
    import torch

SYNONYMS = {
    ("male", "female"): {"m": "male", "man": "male", "f": "female", "w": "female", "woman": "female"},
    ("no", "yes"): {"false": "no", "n": "no", "true": "yes", "y": "yes"},
    ("false", "true"): {"no": "false", "n": "false", "yes": "true", "y": "true"},
}  # other words that tables hold for the classes of a head that has both of a pair
Array = TypeVar("Array", np.ndarray, "torch.Tensor")


def encode(labels: Array, heads: Sequence[Head] = HEADS) -> Array:
    """Joint class (N,) of labels (N, heads), first head slowest; unknown where any head is unknown.

    labels: an array, tensor or DataFrame; of a DataFrame the columns count that are named as the heads, in any order
    (where none is, the columns as they stand), and missing values are unknown.

    Raises: ValueError for a wrong number of columns or a label outside its head's classes; KeyError for a DataFrame
    that has columns of some heads only.

    >>> encode(np.array([[2, 1, 0], [0, -1, 1]]))
    array([15, -1])
    """
    table = base(heads)
    labels = _wide(aligned(labels, table))
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

    Raises: KeyError for a head without probabilities; ValueError for a wrong number of columns, or heads with unlike
    numbers of rows.
    """
    product: Any = None
    for head in heads:
        if head.name not in probs:
            raise KeyError(f"no probabilities for head {head.name!r}; got {sorted(probs)}")
        rows = _plain(probs[head.name])
        if rows.ndim != 2 or rows.shape[1] != len(head.classes):
            raise ValueError(f"head {head.name!r} expects (N, {len(head.classes)}), got {tuple(rows.shape)}")
        if product is not None and rows.shape[0] != product.shape[0]:
            raise ValueError(f"head {head.name!r} has {rows.shape[0]} rows, the heads before it {product.shape[0]}")
        if product is None:
            product = rows
        else:
            wide = product.shape[1] * rows.shape[1]  # not -1, which no rows leave open
            product = (product[:, :, None] * rows[:, None, :]).reshape(rows.shape[0], wide)  # (N, K so far)
    if product is None:
        raise ValueError("joint() needs at least one head")
    return product


def marginals(probs: Array, heads: Sequence[Head] = HEADS) -> dict[str, Array]:
    """Each head's probabilities {head: (N, C)} from joint ones (N, K), by summing over the other heads.

    Raises: ValueError where K is not the size of the joint space.
    """
    table, probs = base(heads), _plain(probs)
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
    """The class of one cell of a table: its name (any case, or a word of `SYNONYMS` for it), its index, "1.0" or 1.0;
    unknown for a blank or -1.

    Raises: ValueError that names the head, the value and the classes.

    >>> from multihead.heads import MASK
    >>> class_index(MASK, "Incorrect"), class_index(MASK, "2.0"), class_index(MASK, "")
    (1, 2, -1)
    """
    text = "" if value is None else str(value).strip()
    if text.lower() in BLANKS:
        return UNKNOWN
    names = [name.strip().lower() for name in head.classes]
    if text.lower() in names:
        return names.index(text.lower())
    for pair, words in SYNONYMS.items():
        if words.get(text.lower()) in names and set(pair) <= set(names):
            return names.index(words[text.lower()])
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if number in range(len(names)):
        return int(number)
    listed = ", ".join(f"{index} or {name}" for index, name in enumerate(head.classes))
    raise ValueError(f"{value!r} is no class of head {head.name!r}; expected {listed}, or a blank for unknown")


def class_indices(head: Head, cells: Any) -> np.ndarray:
    """The classes (N,) of cells (N,), each as `class_index` reads it.

    Raises: ValueError that names the head, the first wrong value and the classes.
    """
    values = cells.tolist()
    known = {value: class_index(head, value) for value in dict.fromkeys(values)}
    return np.array([known[value] for value in values], np.int64)


def aligned(labels: Array, heads: Sequence[Head] = HEADS) -> Array:
    """Labels (N, heads) as `encode` takes them, a column a head in their order: of a DataFrame the columns named as the
    heads, missing values as -1.

    Raises: as `encode`, for columns and texts.
    """
    return _numbers(_named(labels, _names(base(heads))))


def _plain(probs: Any) -> Any:
    """A tensor or array as it is, a DataFrame or list as an array."""
    return probs if hasattr(probs, "detach") else np.asarray(probs)


def _named(values: Any, names: list[str]) -> Any:
    """The columns of these names, in this order, of a DataFrame that has them; anything else as it is."""
    columns = list(getattr(values, "columns", ()))
    if not set(names) & set(columns):
        return values
    if lacking := [name for name in names if name not in columns]:
        raise KeyError(f"labels have the columns {columns}, none for {lacking}; expected {names}, or an array")
    return values[names]


def _numbers(values: Array) -> Array:
    """A tensor as it is, anything else as an array: of a Series, DataFrame, list or number, whole where all are;
    missing values are -1."""
    if not hasattr(values, "detach") and not (isinstance(values, np.ndarray) and values.dtype.kind in "biuf"):
        told: Any = values
        told = told.to_numpy(dtype=object, na_value=np.nan) if hasattr(told, "to_numpy") else np.asarray(told)
        values = _known(told)
    return values


def _known(values: Array) -> Array:
    """An array's NaN as -1, and whole numbers as such."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "fOUST":
        try:
            values = values.astype(float)
        except ValueError as error:
            text = next(cell for cell in values.ravel().tolist() if isinstance(cell, str | bytes))
            raise ValueError(
                f"labels hold {text!r}; expected numbers, -1 = unknown; those of a table of names are "
                "multihead.read(table, heads=...).labels(heads)"
            ) from error
        values = np.where(np.isnan(values), UNKNOWN, values)
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
