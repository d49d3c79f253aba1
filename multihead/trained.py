"""Which photos, and whose, trained the model of a run: its scores on these say nothing of new ones."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from multihead.files import write_text
from multihead.sources import named_unlike

if TYPE_CHECKING:
    import pandas as pd

    from multihead.data import Photos

STARTED_IN = "started_in"  # the key of args.yaml for the folder that relative names in it are relative to
COLUMNS = ("path", "root", "source", "person", "split")  # as `Photos.write` begins
_INNER = re.compile(r"model|checkpoints|member\d+")  # folders in those of runs and ensembles
_CELL = re.compile(r"fold\d+|part\d+")  # folders in that of folds, whose args.yaml is theirs


def seen_in_training(model: str | os.PathLike, photos: Photos) -> list[str]:
    """Sentences on how many of the photos, and of other photos' people, the model's own run was trained on, and the run
    that it began from; none where it was on none, or where nothing tells.

    model: a run folder, or the model folder in one; its splits.csv tells, and its args.yaml where it began. People
    count by their ids, which are local to a source unless they are read as global; folders behind links are the
    folders.
    """
    if not (tables := splits_of(Path(model))):
        return []
    return _seen(tables, photos, "this model") + seen_before(_begun_from(tables[0].parent), photos)


def seen_before(start: str | os.PathLike | None, photos: Photos) -> list[str]:
    """As `seen_in_training`, of weights that training begins with, and of those that these began with, and so on.

    start: a run or model folder, or a file of weights in one.
    """
    told: list[str] = []
    for begun, tables in _line(start):
        told += _seen(tables, photos, f"{begun}, which this model began from")
    return told


def _line(start: str | os.PathLike | None) -> Iterator[tuple[str | os.PathLike, list[Path]]]:
    """Weights, what these began with, and so on: each with the tables that say who trained them."""
    known: list[list[Path]] = []
    while start is not None and (tables := splits_of(Path(start))) and tables not in known:
        yield start, tables
        known.append(tables)
        start = _begun_from(tables[0].parent)


def _begun_from(run: Path) -> str | None:
    """The weights that a run began with (--initial-checkpoint); None where no args.yaml names any."""
    while not (run / "args.yaml").is_file() and _CELL.fullmatch(run.name):
        run = run.parent
    if not (run / "args.yaml").is_file():
        return None
    import yaml

    content = yaml.safe_load((run / "args.yaml").read_text())
    start = content.get("initial_checkpoint") if isinstance(content, dict) else None
    return None if start is None else os.path.join(str(content.get(STARTED_IN, "")), start)


def _seen(tables: Sequence[Path], photos: Photos, model: str) -> list[str]:
    table = _read(tables)
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
        about = f"{more} of these {len(photos)} photos are others of people that, by their ids, trained {model}"
        told.append(f"{about}, so the scores flatter it")
    if both:
        others = f"; {tables[0]} holds the people that did not" if set(table.path) - set(train.path) else ""
        told.append(f"{both} of these {len(photos)} photos trained {model}, so the scores flatter it{others}")
    return told


def _read(tables: Sequence[Path]) -> pd.DataFrame:
    import pandas as pd

    from multihead.cells import text_table

    return pd.concat([text_table(table) for table in tables], ignore_index=True)


def _place(path: str, real: Callable[[str], str]) -> str:
    """The file without links among its folders."""
    return os.path.join(real(os.path.dirname(path)), os.path.basename(path))


def check_unseen(member: Path, valid: Photos) -> None:
    """Nothing where the member, and what it began from, were, as far as folders tell, trained on none of these photos'
    people.

    Raises: LeakError that names them.
    """
    from multihead.leaks import check_disjoint
    from multihead.reading import read

    for begun, tables in _line(member):
        trained = str(member) if begun is member else f"{begun}, which {member} began from"
        for table in tables:
            advice = f"{table} trained {trained}: give photos of people that trained no member"
            # people are written with their source before them, or are global; labels may be of other heads
            check_disjoint(read(table, heads=(), people="global").part("train"), valid, advice)


def splits_of(member: Path) -> list[Path]:
    """The tables that say which photos trained a member: a run or the model in it, folds, an ensemble or one of its
    members; or a file of weights, or an export, in one of these."""
    found = _tables(member)
    inner = _INNER.fullmatch(member.name) or member.is_file() and _INNER.fullmatch(member.parent.name)
    return splits_of(member.parent) if not found and (inner or (member.parent / "metrics.csv").is_file()) else found


def _tables(folder: Path) -> list[Path]:
    """A run's table, those of folds, and those of models that answer together."""
    names = ("splits.csv", "part[0-9]*/splits.csv", "fold[0-9]*/splits.csv", "fold[0-9]*/part[0-9]*/splits.csv")
    return [path for name in names for path in sorted(folder.glob(name)) if path.is_file() and _is_ours(path)]


def _is_ours(table: Path) -> bool:
    """Whether a run wrote the table: another may be named so, and lie beside a model."""
    with open(table, encoding="utf-8", errors="surrogateescape") as stream:
        return set(COLUMNS) <= set(stream.readline().strip().split(","))


def held_out(model: str | os.PathLike) -> set[str]:
    """Paths of the photos that, as far as the folder tells, validated or tested a model and did not train it."""
    if not (tables := splits_of(Path(model))):
        return set()
    table = _read(tables)
    return set(table.path[table.split.isin(["val", "test"])]) - set(table.path[table.split == "train"])


def keep_trained(members: Sequence[str], out: Path) -> None:
    """Write out/splits.csv, all photos that trained a member or what it began from, for `evaluate` to warn of."""
    tables = [path for member in members for _, found in _line(member) for path in found]
    if tables:
        table = _read(tables)
        trained = table[table.split == "train"].drop_duplicates("path")
        write_text(out / "splits.csv", trained.to_csv(index=False))
