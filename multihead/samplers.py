"""Samplers: how often each training photo is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

from multihead.options import between, option

if TYPE_CHECKING:
    import numpy as np

    from multihead.heads import Head


@dataclass(frozen=True)
class Weighted:
    """Photos of a rare class more often: each with the probability 1 / count ** power of its class.

    by: "joint" or a head's name. power: 1 draws all classes equally often, 0 changes nothing. Photos whose class is
    unknown keep their share of the epoch.
    """

    by: str = option("joint", "whose classes are evened out: joint, or a head")
    power: float = option(1.0, "1: every class as often as any other; 0: as they are")

    def __post_init__(self) -> None:
        between("weighted", "power", self.power, 0)


@dataclass(frozen=True)
class Shares:
    """Each named source fills its share of an epoch; the other sources fill the rest by their size.

    >>> Shares({"utkface": 0.5}).shares["utkface"]
    0.5
    """

    shares: Mapping[str, float] = option(None, "{source: share of the photos}", "", dict)

    def __post_init__(self) -> None:
        shares = self.shares.values() if isinstance(self.shares, Mapping) else ()
        fit = all(isinstance(share, Real) and share >= 0 for share in shares)  # false for NaN too
        if not shares or not fit or sum(shares) > 1 + 1e-9:
            raise ValueError(f"shares: {self.shares!r}; expected {{source: share >= 0}}, together at most 1")


Sampler = Weighted | Shares


def row_weights(sampler: Sampler, labels: np.ndarray, heads: Sequence[Head], sources: Sequence[str]) -> np.ndarray:
    """The probability (N,) that a draw is each row, of labels (N, base heads), -1 = unknown, and sources (N,).

    Raises: ValueError for a head or a source that there is not, where shares leave rows that none fills, or no row's
    class is known.
    """
    if isinstance(sampler, Shares):
        return _by_source(sampler, sources)
    return _by_class(sampler, labels, heads)


def _by_class(sampler: Weighted, labels: np.ndarray, heads: Sequence[Head]) -> np.ndarray:
    import numpy as np

    from multihead.heads import UNKNOWN, base
    from multihead.labels import encode

    names = [head.name for head in base(heads)]
    options = f"joint or one of {', '.join(names)}"
    if sampler.by not in ("joint", *names):
        raise ValueError(f"weighted: by is {sampler.by!r}; expected {options}")
    classes = encode(labels, heads) if sampler.by == "joint" else labels[:, names.index(sampler.by)]
    if not len(classes):
        return np.zeros(0)
    known = classes != UNKNOWN
    if not known.any():
        lacking = f"{sampler.by} of any" if sampler.by != "joint" else f"all of {', '.join(names)} of any one"
        raise ValueError(f"weighted: nothing says {lacking} training photo; expected by to be {options}, and labelled")
    found = np.full(len(classes), 1 / len(classes))
    counts = np.bincount(classes[known])
    rare = counts[classes[known]].astype(float) ** -sampler.power
    found[known] = rare / rare.sum() * known.mean()
    return found


def _by_source(sampler: Shares, sources: Sequence[str]) -> np.ndarray:
    import numpy as np

    names = np.asarray(sources, object)
    if unknown := sorted(set(sampler.shares) - set(names)):
        raise ValueError(f"shares: no training photo is of source {unknown}; there are {sorted(set(names))}")
    found = np.zeros(len(names))
    others = ~np.isin(names, list(sampler.shares))
    rest = max(0.0, 1 - sum(sampler.shares.values()))
    if others.any():
        found[others] = rest / others.sum()
    elif rest > 1e-9:
        raise ValueError(f"shares: {dict(sampler.shares)} sum to {1 - rest:g} and name every source; expected 1")
    for name, share in sampler.shares.items():
        found[names == name] = share / (names == name).sum()
    return found


def draw(weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` row numbers in random order, each row as often as its weight (N,) says, give or take one.

    Source: systematic sampling, Madow and Madow 1944.
    """
    import numpy as np

    order = rng.permutation(len(weights))
    edges = np.cumsum(weights[order])
    marks = (rng.random() + np.arange(count)) / count * edges[-1]
    picked = order[np.searchsorted(edges, marks, side="right").clip(max=len(order) - 1)]
    return rng.permutation(picked)
