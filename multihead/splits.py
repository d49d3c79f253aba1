"""Parts of a table that never share a person: grouping of rows, stratified dealing, and the leak check."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np


def groups(*keys: Sequence[str]) -> np.ndarray:
    """Group number (N,) of each row: rows that share any key (a person, a path, a digest) belong together.

    keys: one or more columns of N strings; "" ties a row to nothing. Chains count: if row 1 shares a person with
    row 2 and row 2 a file with row 3, all three are one group.

    >>> groups(["ann", "ann", "", "bo"], ["1", "2", "2", "3"])
    array([0, 0, 0, 1])
    """
    parent = list(range(len(keys[0])))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for column in keys:
        first: dict[str, int] = {}
        for row, key in enumerate(column):
            if key != "":
                parent[root(row)] = root(first.setdefault(key, row))
    return np.unique([root(row) for row in range(len(parent))], return_inverse=True)[1]


def deal(group: np.ndarray, labels: np.ndarray, shares: Sequence[float], seed: int = 0) -> np.ndarray:
    """Part (N,) of each row, so that groups stay whole and every part has its share of each kind of group.

    group: (N,) group numbers. labels: (N, heads), -1 = unknown. A group's kind is its majority label in each head
    (unknown is a kind of its own); kinds with too few groups to serve every part are merged, last head first.
    The same seed gives the same parts on every machine.

    Raises: ValueError where there are fewer groups than parts, or shares do not sum to one.
    """
    if abs(sum(shares) - 1) > 1e-9 or min(shares) <= 0:
        raise ValueError(f"shares {tuple(shares)} must be positive and sum to 1")
    number = int(group.max()) + 1 if len(group) else 0
    if number < len(shares):
        raise ValueError(f"{number} people cannot be dealt into {len(shares)} parts; give more people or fewer parts")
    sizes = np.bincount(group, minlength=number)
    strata = merge(majority(group, labels), math.ceil(1 / min(shares)))
    order = np.random.default_rng(seed).permutation(number)
    order = order[np.argsort(-sizes[order], kind="stable")]  # large groups first: small ones even out
    wanted = np.asarray(shares)
    parts, filled = np.zeros(number, dtype=int), np.zeros(len(shares))
    for stratum in sorted(set(strata)):
        members = [row for row in order if strata[row] == stratum]
        here = np.zeros(len(shares))
        # what strata before have too much of a part this one has too little, by half a group at most
        half = float(np.median(sizes[members])) / 2
        owed = (wanted * filled.sum() - filled).clip(-half, half)
        for place, row in enumerate(members):
            short = wanted * (here.sum() + sizes[row]) - here
            empty = here == 0
            last = empty.sum() >= len(members) - place  # else a part would have none of this kind
            part = int(np.lexsort((-short, -np.round(short + owed, 9), ~empty & last))[0])
            parts[row] = part
            here[part] += sizes[row]
            filled[part] += sizes[row]
    _fill_empty(parts, sizes, len(shares))
    return parts[group]


def majority(group: np.ndarray, labels: np.ndarray) -> list[tuple[int, ...]]:
    """The kind of each group: its commonest label in each head; an unknown label counts only if nothing is known."""
    number = int(group.max()) + 1 if len(group) else 0
    columns = []
    for column in labels.T:
        width = int(column.max(initial=0)) + 1
        known = column >= 0
        counts = np.bincount(group[known] * width + column[known], minlength=number * width).reshape(number, width)
        columns.append(np.where(counts.any(1), counts.argmax(1), -1))
    return list(zip(*(column.tolist() for column in columns))) if columns else [()] * number


def merge(kinds: Sequence[tuple[int, ...]], least: int) -> list[tuple[int, ...]]:
    """The kinds with those of fewer than `least` members merged, dropping the last head, then the one before."""
    merged = list(kinds)
    for length in range(max((len(kind) for kind in kinds), default=0) - 1, -1, -1):
        counts = Counter(merged)
        merged = [kind if counts[kind] >= least else kind[:length] for kind in merged]
    return merged


def shared(left: Iterable[str], right: Iterable[str]) -> list[str]:
    """The keys that occur on both sides, sorted; "" is no key."""
    return sorted((set(left) & set(right)) - {""})


def _fill_empty(parts: np.ndarray, sizes: np.ndarray, number: int) -> None:
    """Give a part that came out empty the smallest group of the part that has most groups."""
    for part in range(number):
        if not (parts == part).any():
            richest = np.bincount(parts, minlength=number).argmax()
            members = np.flatnonzero(parts == richest)
            parts[members[sizes[members].argmin()]] = part


def digests(paths: Sequence[str]) -> list[str]:
    """Digest of each file that may equal another (same size), "" for the rest and for unreadable files."""
    sizes = [_file_size(path) for path in paths]
    by_size: dict[int, set[str]] = {}
    for path, size in zip(paths, sizes):
        by_size.setdefault(size, set()).add(path)
    return [_digest(path) if size > 0 and len(by_size[size]) > 1 else "" for path, size in zip(paths, sizes)]


def _file_size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _digest(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()[:32]
    except OSError:
        return ""
