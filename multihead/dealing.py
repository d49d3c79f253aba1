"""The folds of a cross-validation: photos dealt by person, or as a table says, and the folder that belongs to them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from multihead import ranks
from multihead.cells import text_table
from multihead.data import Photos
from multihead.leaks import check_disjoint


def deal(photos: Photos, folds: int, seed: int = 0) -> list[tuple[Photos, Photos]]:
    """`folds` pairs of training and validation photos with a column `at`, the row's number among all photos."""
    return photos.with_columns(at=np.arange(len(photos))).folds(folds, seed=seed)


def deal_by(photos: Photos, column: str) -> list[tuple[Photos, Photos]]:
    """As `deal`, by a column that names each row's fold.

    Raises: KeyError for an unknown column; ValueError where it is blank somewhere or names fewer than two folds;
    LeakError where two folds share a person, file or equal file, naming them.
    """
    if column not in photos.extra:
        raise KeyError(f"photos have no column {column!r} of folds; there are {photos.extra}")
    names = photos.table[column].astype(str).str.strip().to_numpy()
    blank = np.flatnonzero(names == "")
    if len(blank):
        raise ValueError(f"column {column!r} is blank for {photos.table['name'].iloc[blank[0]]}; name every row's fold")
    found = sorted(set(names), key=lambda name: (len(name), name))  # 2 before 10
    if len(found) < 2:
        raise ValueError(f"column {column!r} names only the fold {found}; expected two or more")
    numbered = photos.with_columns(at=np.arange(len(photos)))
    parts = [(numbered[names != name], numbered[names == name]) for name in found]
    for train, valid in parts:
        check_disjoint(train, valid)
    return parts


def fold_of(parts: Sequence[tuple[Photos, Photos]]) -> np.ndarray:
    """The fold (N,) in which each row of the dealt photos validates."""
    found = np.empty(sum(len(valid) for _, valid in parts), np.int64)
    for fold, (_, valid) in enumerate(parts):
        found[valid.table["at"].to_numpy()] = fold
    return found


def claim_parts(photos: Photos, parts: Sequence[tuple[Photos, Photos]], out: Path) -> None:
    """Write out/photos.csv: the photos in their order, with the fold in which each validates.

    Raises: ValueError where there is another one.
    """
    if not ranks.first():
        return
    path, fresh = out / "photos.csv", out / f".photos-{uuid.uuid4().hex}.csv"
    try:
        photos.with_columns(fold=fold_of(parts).astype(str)).write(fresh)
        if path.is_file() and path.read_bytes() != fresh.read_bytes():
            raise ValueError(f"{out} holds runs on {_unlike(path, fresh)} name the output folder anew")
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def _unlike(path: Path, fresh: Path) -> str:
    """What a folder's photos.csv holds, beside the one that a call would write."""
    old, new = text_table(path), text_table(fresh)
    places, moved = ["path", "root"], old.path != new.path if len(old) == len(new) else False
    if not np.any(moved) or not old.drop(columns=places).equals(new.drop(columns=places)):
        return "other photos or folds;"
    before, now = old.path[moved].iloc[0], new.path[moved].iloc[0]
    return f"photos as {before}, which is {now} now: give them by the same path, from every machine that shares it, or"
