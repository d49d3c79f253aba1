"""People and files on both sides of a split: what is refused before anything is trained or scored."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Protocol

from multihead import splits
from multihead.sources import named_unlike

if TYPE_CHECKING:
    import pandas as pd


class Side(Protocol):
    """Photos: their table has a row each, with its path and person."""

    @property
    def table(self) -> pd.DataFrame: ...


class LeakError(ValueError):
    """People or files that would be on both sides of a split."""


def check_disjoint(
    left: Side, right: Side, advice: str = "split by person with photos.split() or photos.folds()"
) -> None:
    """Nothing where no person, file or equal file is on both sides; advice: what to do where one is.

    Raises: LeakError that counts and names them.
    """
    for what, found in _shared(left, right).items():
        if found:
            listed = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
            raise LeakError(f"{len(found)} {what} are on both sides: {listed}; {advice}")


def _shared(left: Side, right: Side) -> dict[str, list[str]]:
    paths = [*left.table.path, *right.table.path]
    digests = splits.digests(paths)
    people = [named_unlike(one, other).person for one, other in permutations((left.table, right.table))]
    same = set(splits.shared(digests[: len(left.table)], digests[len(left.table) :]))
    twins = sorted({path for path, digest in zip(paths, digests) if digest in same})
    return {
        "people": splits.shared(*(each.tolist() for each in people)),
        "files": splits.shared(left.table.path.tolist(), right.table.path.tolist()),
        "files of the same bytes": twins,
    }
