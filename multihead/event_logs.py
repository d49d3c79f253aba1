"""Logs as one tidy table: the scalars of TensorBoard event files and of metrics.csv, a row a value; learning curves."""

from __future__ import annotations

import csv
import fnmatch
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from multihead import plots
from multihead.event_files import Restart, Scalar, events, in_order
from multihead.options import choice, near

if TYPE_CHECKING:
    import pandas as pd

SOURCES = ("auto", "events", "metrics")
TABLES = ("metrics.csv", "curve.csv")  # of a folder with both, as a fold's, the first: they are the same rows
COLUMNS = ("run", "tag", "step", "wall_time", "value")


def read_logs(paths: str | Path | Sequence[str | Path], *, source: str = "auto") -> pd.DataFrame:
    """A table of every number that runs have logged: columns run, tag, step, wall_time (seconds since 1970), value.

    paths: event files, metrics.csv, run folders, folders with many runs below them. source: "events", "metrics"
    (metrics.csv, and curve.csv of a comparison), or "auto": the events, and the metrics of folders that have none.
    run: the folder below the given one, whose own name stands for itself; as given where two would share a name.
    Metrics have the epoch as step and no wall_time; their columns of text are left out.

    Of a tag's values at one step the one written last counts, and a resumed run voids what it had written of the steps
    that it does again (`purge_step`), as in TensorBoard. Steps rise; runs and tags stand as they are found. What cannot
    be read is told by a warning that names it: a file that a kill has cut off gives what stands before the cut.

    Raises: FileNotFoundError for a path that is not there and a folder without any log; ValueError for another source
    and for a file that is none of these.

    >>> import tempfile
    >>> from multihead.logs import write_rows
    >>> folder = tempfile.mkdtemp()
    >>> write_rows(f"{folder}/warm/metrics.csv", [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}])
    >>> read_logs(folder)[["run", "tag", "step", "value"]].to_csv(index=False).split()
    ['run,tag,step,value', 'warm,loss,1,0.5', 'warm,loss,2,0.25']
    """
    import pandas as pd

    choice("read_logs", "source", source, SOURCES)
    rows = []
    for name, folder in _named(_found([paths] if isinstance(paths, (str, Path)) else paths, source)).items():
        values = _values(folder, name)
        tags = {tag: number for number, tag in enumerate(dict.fromkeys(tag for tag, _ in values))}
        order = sorted(values, key=lambda key: (tags[key[0]], key[1]))
        rows += [(name, *key, *values[key]) for key in order]
    table = pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)  # names need not be UTF-8, which Arrow could hold
    return table.astype({"step": "int64", "wall_time": "float64", "value": "float64"})


def chosen(table: pd.DataFrame, tags: Sequence[str]) -> pd.DataFrame:
    """The rows of some tags, in the table's order; a tag may be a pattern such as `*_f1`.

    Raises: ValueError for one that no row has.
    """
    found = list(dict.fromkeys(table.tag))
    kept: set[str] = set()
    for tag in tags:
        fitting = [tag] if tag in found else fnmatch.filter(found, tag)
        if not fitting:
            raise ValueError(f"no tag {tag!r}{near(tag, found)}; expected some of {', '.join(found)}")
        kept.update(fitting)
    return table[table.tag.isin(kept)].reset_index(drop=True)


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """A row a run and step, a column a tag; NaN where a step lacks one.

    Raises: ValueError for a tag that is named as one of the other columns.
    """
    tags, runs = list(dict.fromkeys(table.tag)), list(dict.fromkeys(table.run))
    if taken := [tag for tag in tags if tag in ("run", "step")]:
        raise ValueError(f"the tag {taken[0]!r} has the name of a column; leave it out, or keep the table long")
    rows = table.pivot(index=["run", "step"], columns="tag", values="value")[tags].reset_index()
    rows = rows.sort_values("run", kind="stable", key=lambda column: column.map(runs.index))
    return rows.rename_axis(columns=None).reset_index(drop=True)


def draw(table: pd.DataFrame, tag: str, path: str | Path) -> None:
    """Write a PNG of one tag's learning curves: its value over steps, a line a run.

    Raises: ValueError where no row has the tag.
    """
    rows = table[table.tag == tag]
    series = {str(run): (part.step.tolist(), part.value.tolist()) for run, part in rows.groupby("run", sort=False)}
    plots.lines(path, series, title=tag, xlabel="step", ylabel=tag)


def draw_all(table: pd.DataFrame, folder: str | Path) -> list[Path]:
    """Write a PNG a tag into a folder, as `draw`; their paths. A name keeps the tag's letters: train_loss.png."""
    tags = list(dict.fromkeys(table.tag))
    paths = [Path(folder) / f"{name}.png" for name in _file_names(tags)]
    for tag, path in zip(tags, paths, strict=True):
        draw(table, tag, path)
    return paths


def _file_names(tags: Sequence[str]) -> list[str]:
    """A name a tag that any file system takes, no two equal, not even but for capitals."""
    names: list[str] = []
    taken: set[str] = set()
    for tag in tags:
        stem = re.sub(r"[^A-Za-z0-9.+=-]+", "_", tag).strip("._")[:100] or "tag"
        name, number = stem, 2
        while name.lower() in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name.lower())
        names.append(name)
    return names


# ---- finding


@dataclass
class _Folder:
    """The logs of one folder: `root` as it was given, `below` it."""

    root: Path
    below: Path
    events: list[Path] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)

    def add(self, path: Path) -> None:
        """Take a file; one that was named twice counts once."""
        files = self.events if "tfevents" in path.name else self.tables
        if path.name not in [file.name for file in files]:
            files.append(path)


def _found(paths: Sequence[str | Path], source: str) -> list[_Folder]:
    folders: dict[Path, _Folder] = {}
    for root in map(Path, paths):
        if not root.exists():
            raise FileNotFoundError(f"no such file or folder: {root}; expected event files, metrics.csv or folders")
        files = list(_below(root, source)) if root.is_dir() else [root]
        if root.is_file() and not _is_log(root.name, "auto"):
            raise ValueError(f"{root} is no log; expected 'tfevents' in its name, or one of {', '.join(TABLES)}")
        if not files:
            names = {"events": "files with 'tfevents' in their name", "metrics": " and ".join(TABLES)}
            looked = names.get(source, f"{names['events']}, {names['metrics']}")
            raise FileNotFoundError(f"no logs under {root}; looked for {looked}")
        top = root if root.is_dir() else root.parent
        for path in files:
            known = _Folder(top, path.parent.relative_to(top))
            folders.setdefault(path.parent.resolve(), known).add(path)
    return list(folders.values())


def _below(root: Path, source: str) -> Iterator[Path]:
    """The logs below a folder, in the order of their names; links are followed, each folder once."""
    seen = set()
    for place, names, files in os.walk(root, followlinks=True):
        real = os.path.realpath(place)
        names[:] = sorted(names) if real not in seen else []
        yield from (Path(place) / name for name in sorted(files) if real not in seen and _is_log(name, source))
        seen.add(real)


def _is_log(name: str, source: str) -> bool:
    # writers of profiles leave an empty file that only marks the folder
    event = "tfevents" in name and not name.endswith(".profile-empty")
    return (event and source != "metrics") or (name in TABLES and source != "events")


def _named(folders: Sequence[_Folder]) -> dict[str, _Folder]:
    """Each folder under its run's name."""
    names = [
        (folder.root.resolve().name if folder.below == Path() else folder.below.as_posix()) or "/" for folder in folders
    ]
    if max(Counter(names).values(), default=1) > 1:
        names = [(folder.root / folder.below).as_posix() for folder in folders]
    return dict(zip(names, folders, strict=True))


# ---- reading

Values = dict[tuple[str, int], tuple[float, float]]  # {(tag, step): (wall_time, value)}


def _values(folder: _Folder, name: str) -> Values:
    """The values of one run, from its events, else from its metrics."""

    def read(paths: Sequence[Path], scalars: Callable[..., Iterator[Scalar | Restart]]) -> Values:
        return _latest((scalar for path in paths for scalar in scalars(path, _warn)), name)

    values = read(in_order(folder.events), events)
    tables = sorted(folder.tables, key=lambda path: TABLES.index(path.name))[:1]
    if folder.events and not values:
        instead = f"; {tables[0].name} is read" if tables else ""
        _warn(f"run {name!r}: no scalar in its event files{instead}")
    return values or read(tables, _metrics)


def _latest(scalars: Iterator[Scalar | Restart], name: str) -> Values:
    """The value of each tag and step that was written last."""
    values: Values = {}
    again = 0
    for item in scalars:
        if isinstance(item, Restart):
            values = {key: value for key, value in values.items() if key[1] < item.step}
            continue
        key = item.tag, item.step
        again += key in values
        if key not in values or not item.wall_time < values[key][0]:
            values[key] = item.wall_time, item.value
    if again:
        _warn(f"run {name!r}: {again} values were written again for their tag and step; the last ones count")
    return values


def _metrics(path: Path, note: Callable[[str], None]) -> Iterator[Scalar]:
    """The numbers of a table with a row an epoch."""
    with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
        reader = csv.DictReader(stream)
        try:
            rows, names = list(reader), list(reader.fieldnames or [])
        except csv.Error as error:
            note(f"{path}: is no CSV ({error}); not read")
            return
    if "epoch" not in names:
        note(f"{path}: no column 'epoch' among {names}; not read")
        return
    whole = [row for row in rows if None not in row and _is_whole(row["epoch"])]
    if len(whole) < len(rows):
        note(f"{path}: {len(rows) - len(whole)} rows without a whole number as epoch, or too long, are left out")
    for name in names:
        cells = [(int(float(row["epoch"])), row[name]) for row in whole if name != "epoch" and row[name]]
        numbers = [(epoch, _float(cell)) for epoch, cell in cells]
        wrong = [cell for (_, cell), (_, number) in zip(cells, numbers) if number is None]
        if 0 < len(wrong) < len(cells):  # a column of text has none but these
            note(f"{path}: {len(wrong)} cells of column {name!r} are no numbers, for example {wrong[0]!r}; left out")
        yield from (Scalar(name, epoch, float("nan"), number) for epoch, number in numbers if number is not None)


def _is_whole(cell: str | None) -> bool:
    number = _float(cell)
    return number is not None and number.is_integer()


def _float(cell: str | None) -> float | None:
    try:
        return float(cell or "")
    except ValueError:
        return None


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=2)
