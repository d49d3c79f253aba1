"""Which photos, and whose, trained the model of a run: its scores on these say nothing of new ones."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from multihead.sources import named_unlike

if TYPE_CHECKING:
    from multihead.data import Photos

_INNER = re.compile(r"model|member\d+")  # folders in those of runs and ensembles
COLUMNS = ("path", "root", "source", "person", "split")  # as `Photos.write` begins


def seen_in_training(model: str | os.PathLike, photos: Photos) -> list[str]:
    """Sentences on how many of the photos, and of other photos' people, the model's own run was trained on; none where
    it was on none, or where nothing tells.

    model: a run folder, or the model folder in one; its splits.csv tells. People count by their ids, which are local to
    a source unless they are read as global; folders behind links are the folders.
    """
    tables = splits_of(Path(model))
    if not tables:
        return []
    import pandas as pd

    # of several, those of models that answer together: they were trained on the same photos
    table = pd.read_csv(tables[0], dtype=str, keep_default_na=False, encoding_errors="surrogateescape")
    train = table[table.split == "train"]
    real = functools.cache(os.path.realpath)
    train = train.assign(root=[real(root) for root in train.root])
    mine = named_unlike(photos.table.assign(root=[real(root) for root in photos.table.root]), train)
    trained, people = {_place(path, real) for path in train.path}, set(train.person) - {""}
    known = [_place(path, real) in trained for path in photos.paths]
    both = sum(known)
    more = sum(person in people and not there for person, there in zip(mine.person, known))
    told = []
    if more:
        about = f"{more} of these {len(photos)} photos are others of people that, by their ids, trained this model"
        told.append(f"{about}, so the scores flatter it")
    if both:
        others = f"; {tables[0]} holds the people that did not" if (table.split != "train").any() else ""
        told.append(f"{both} of these {len(photos)} photos trained this model, so the scores flatter it{others}")
    return told


def _place(path: str, real: Callable[[str], str]) -> str:
    """The file without links among its folders."""
    return os.path.join(real(os.path.dirname(path)), os.path.basename(path))


def check_unseen(member: Path, valid: Photos) -> None:
    """Nothing where the member, as far as its folder tells, was trained on none of these photos' people.

    Raises: LeakError that names them.
    """
    from multihead.data import check_disjoint
    from multihead.reading import read

    for table in splits_of(member):
        # people are written with their source before them, or are global
        check_disjoint(read(table, heads=valid.heads, people="global").part("train"), valid)


def splits_of(member: Path) -> list[Path]:
    """The tables that say which photos trained a member: a run or the model in it, folds, an ensemble or one of its
    members."""
    found = _tables(member)
    return splits_of(member.parent) if not found and _INNER.fullmatch(member.name) else found


def _tables(folder: Path) -> list[Path]:
    """A run's table, those of folds, and those of models that answer together."""
    names = ("splits.csv", "part[0-9]*/splits.csv", "fold[0-9]*/splits.csv", "fold[0-9]*/part[0-9]*/splits.csv")
    return [path for name in names for path in sorted(folder.glob(name)) if path.is_file() and _is_ours(path)]


def _is_ours(table: Path) -> bool:
    """Whether a run wrote the table: another may be named so, and lie beside a model."""
    with open(table, encoding="utf-8", errors="surrogateescape") as stream:
        return set(COLUMNS) <= set(stream.readline().strip().split(","))


def keep_trained(members: Sequence[str], out: Path) -> None:
    """Write out/splits.csv, all photos that trained a member, for `evaluate` to warn of."""
    import pandas as pd

    from multihead.files import write_text

    tables = [
        pd.read_csv(path, dtype=str, keep_default_na=False, encoding_errors="surrogateescape")
        for member in members
        for path in splits_of(Path(member))
    ]
    if tables:
        table = pd.concat(tables, ignore_index=True)
        trained = table[table.split == "train"].drop_duplicates("path")
        write_text(out / "splits.csv", trained.to_csv(index=False))
