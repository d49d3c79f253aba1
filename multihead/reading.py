"""From a folder or table of any accepted form to `Photos`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from multihead.cells import (
    BOX,
    boxes_of,
    face_word,
    head_labels,
    head_numbers,
    head_spans,
    joint_class,
    line_number,
    parse_cells,
    split_name,
    warn_of_bands,
)
from multihead.columns import PLAIN, mapped_cells, our_columns, split_words
from multihead.data import Photos
from multihead.heads import BLANKS, HEADS, JOINT, UNKNOWN, Head, base, number_column, numbers, size, span_column
from multihead.labels import decode
from multihead.layouts import folder_labels, read_competition, read_csv, read_folder
from multihead.pseudo import PSEUDO, SPACE, told_by
from multihead.sources import plain_path, unlike_names, with_slashes

if TYPE_CHECKING:
    import pandas as pd


def read(
    source: str | Path | pd.DataFrame | Sequence[object],
    *,
    heads: Sequence[Head] = HEADS,
    boxes: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    root: str | Path | None = None,
    name: str | None = None,
    people: str = "local",
) -> Photos:
    """The photos of a folder or table, or of several joined, with all that is known of them.

    source: a folder in the competition layout (`<id>_<gender>_<race>_<age>/mask1.jpg ...`, with or without train.csv),
    any other folder (photos without labels, or with those that its folders are named after, as worn/a.jpg), a CSV or
    DataFrame with a path column and any of mask, gender, age (years, or a band by name), age_band, label (the number of
    the joint class), person, split, x0 y0 x1 y1 (pixels), face ("whole": already a tight face); or a list of such.
    Labels go by name, index or "1.0"; a blank is unknown. Other columns are kept as text. boxes: a CSV of `multihead
    scan`. columns: our name -> the table's. labels: the table's word -> ours, as {"gender:V": "female", "mask:?": ""}.
    root: what paths are relative to (default: the table's folder, or the current one where the photos are only there).
    name: the source's name, which person ids are local to, except those that hold a ':' and so name a source
    themselves, as `Photos.write` wrote them; people="global": ids mean the same person in every source.

    Raises: FileNotFoundError, KeyError or ValueError that names the file, row and column, and what was expected.

    >>> import pandas as pd
    >>> read(pd.DataFrame({"path": ["a.jpg", "b.jpg"], "mask": ["worn", ""]}), root="/photos").known()["mask"]
    1
    """
    if people not in ("local", "global"):
        raise ValueError(f"people={people!r}; expected 'local' or 'global'")
    sources = source if isinstance(source, (list, tuple)) else [source]
    if not sources:
        raise ValueError("read() got an empty list; pass at least one folder or table")
    words, taken = split_words(labels or {}), set[str]()
    names = [name] * len(sources) if name is not None or sources is not source else unlike_names(sources)
    joined: Photos | None = None
    for each, own in zip(sources, names):
        try:
            found = _one(each, base(heads), columns or {}, words, root, own, people, taken)  # type: ignore[arg-type]
        except KeyError as error:
            if len(sources) == 1 or not columns:
                raise
            alone = (
                "; columns= holds for every table: read those of other names alone and add them up (`multihead split`"
            )
            raise KeyError(f"{error.args[0]}{alone} each, then name the tables written)") from error
        joined = found if joined is None else joined + found
    if lost := sorted(set(words) - taken):
        raise KeyError(f"labels= maps words of {lost[0]!r}, which is no column of what was read")
    return _boxed(joined, boxes)  # type: ignore[arg-type]


def _one(
    source: str | Path | pd.DataFrame,
    heads: tuple[Head, ...],
    columns: Mapping[str, str],
    words: Mapping[str, Mapping[str, str]],
    root: str | Path | None,
    name: str | None,
    people: str,
    taken: set[str],
) -> Photos:
    """The photos of one source. words: {column: {word: ours}}, of which `taken` gets the columns that it has."""
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        table, folder, label = _as_text(source), Path(root or "."), name or "table"
    elif not isinstance(source, (str, os.PathLike)):
        raise TypeError(f"cannot read photos from {type(source).__name__}; expected folders or tables")
    else:
        table, folder, label = _load(Path(source), Path(root) if root else None)
        label = name or label
    is_folder = isinstance(source, (str, os.PathLike)) and Path(source).is_dir()
    columns = {} if is_folder else columns  # a folder's columns are ours already
    try:
        plain = is_folder and list(table.columns) == ["path"]
        table = our_columns(table, columns, heads)
        folder = folder if root or is_folder or isinstance(source, pd.DataFrame) else _nearest(folder, table.path)
        if plain:
            table = folder_labels(table, heads, words)
            taken |= {word for word in words if word in [head.name for head in heads]}
        table, mapped = mapped_cells(table, words, columns)
        taken |= mapped
        return _photos(table, Path(plain_path(folder)), label, heads, people)
    except (KeyError, ValueError) as error:
        text = str(error.args[0] if error.args else error)
        if isinstance(source, pd.DataFrame) or str(source) in text:
            raise
        raise (KeyError if isinstance(error, KeyError) else ValueError)(f"{source}: {text}") from error


def _boxed(photos: Photos, boxes: str | Path | None) -> Photos:
    if boxes is None:
        return photos
    from multihead.boxes import add_boxes  # with the search for faces, which reading a table does not need

    return add_boxes(photos, boxes)


def _nearest(folder: Path, paths: pd.Series) -> Path:
    """The folder that a table's paths are relative to: its own, or the current one where only there are photos."""
    first = with_slashes(paths.head(20).tolist(), folder, Path("."))
    if any((folder / path).exists() for path in first) or not any(Path(path).exists() for path in first):
        return folder
    return Path(".")


def _load(source: Path, root: Path | None) -> tuple[pd.DataFrame, Path, str]:
    if source.is_dir():
        table, folder = read_folder(source)
        return table, folder, source.resolve().name
    if not source.exists():
        raise FileNotFoundError(f"no such file or folder: {source}; expected a folder of photos or a CSV")
    table = read_csv(source)
    images = source.parent / "images"
    people = {"id", "gender", "race", "age", "path"} <= set(table.columns) and images.is_dir()
    if people and any((images / path).is_dir() for path in table.path if path.strip()):  # else it names photos
        found = read_competition(images, table, source, only=True)
        return *found, source.parent.resolve().name  # type: ignore[return-value]
    folder = root or source.parent
    if root is None and "ImageID" in table.columns and (folder / "images").is_dir():
        folder = folder / "images"
        table = table.drop(columns="ans", errors="ignore")  # a placeholder in the competition's info.csv
    return table, folder, source.stem


def _as_text(frame: pd.DataFrame) -> pd.DataFrame:
    """Every cell as the text a CSV would hold: missing values as blanks, whole numbers without .0 (ids with gaps)."""
    import pandas as pd

    names = [str(name).strip() for name in frame.columns]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"the table has several columns {repeated[0]!r}; expected one, rename or drop the others")
    plain = frame.astype(object).where(frame.notna(), "").set_axis(names, axis=1)
    return pd.DataFrame({name: [_text(cell) for cell in plain[name]] for name in names}, dtype=object)


def _text(cell: object) -> str:
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _photos(table: pd.DataFrame, root: Path, source: str, heads: tuple[Head, ...], people: str) -> Photos:
    import pandas as pd

    told = with_slashes(table.path.tolist(), root)
    paths = [plain_path(root / path) if ".." in path else str(root / path) for path in told]
    rows = len(table)
    blank = pd.Series([""] * rows, dtype=object)
    person = table.get("person", blank).str.strip()
    person = person.where(~person.str.lower().isin(BLANKS), "")  # else all unknown people were one
    person = person.str.replace(r"^(\d+)\.0$", r"\1", regex=True)  # numbers, of which some rows have none
    if people == "local":
        person = person.where((person == "") | person.str.contains(":"), f"{source}:" + person)
    found = pd.DataFrame(
        {
            "path": pd.Series(paths, dtype=object),  # a string type on Arrow could not hold names that are not UTF-8
            "name": _names(table),
            "root": _roots(table, root),
            "source": table.get("source", source),
            "person": person,
            "split": parse_cells(table, "split", split_name, blank),
        }
    )
    found[["years"]] = np.nan
    for number in numbers(heads):
        found[number_column(number)] = head_numbers(table, number, heads)
        if any(spans := head_spans(table, number)):  # heads of other edges may read more of them than ours do
            found[span_column(number)] = spans
    found[BOX] = boxes_of(table)
    face = np.array(parse_cells(table, "face", face_word, blank), object)
    found["whole"], found["searched"] = face == "whole", face == "none"
    # a table of answers says by its joint:0, joint:1, ... which space its label counts in; another space's is not ours
    answered = sum(column.startswith(JOINT) for column in table.columns)
    ours = bool(heads) and answered in (0, size(heads))
    label = parse_cells(table, "label", lambda cell: joint_class(cell, heads) if ours else UNKNOWN, blank)
    joint = decode(np.array(label, np.int64), heads)
    own_columns = [head_labels(table, head) for head in heads]
    if not answered and "label" in table:
        _warn_of_label(table, joint, heads, own_columns)
    for column, (head, own) in enumerate(zip(heads, own_columns, strict=True)):
        found[head.name] = np.where(own == UNKNOWN, joint[:, column], own)
        if head.number is not None:
            warn_of_bands(source, own, found[number_column(head.number)].to_numpy(), head)
    others = [column for column in table.columns if column not in [*PLAIN, *numbers(heads), *found.columns]]
    soft = answered and "label" not in table  # a teacher's answers beside labels (`multihead.soften`), not instead
    rest = [c for c in others if (":" not in c or soft and c.startswith(JOINT)) and not c.endswith("_band")]
    for name in rest:
        found[name] = table[name]
    if soft and SPACE not in found and (text := told_by(table.columns, base(heads))):
        found[SPACE] = text
    if answered and "label" in table and PSEUDO not in found:
        known = (found[[head.name for head in heads]] != UNKNOWN).to_numpy()
        found[PSEUDO] = [" ".join(head.name for head, there in zip(heads, row) if there) for row in known]
    _refuse_repeats(found)
    return Photos(found, heads)


def _warn_of_label(table: pd.DataFrame, joint: np.ndarray, heads: tuple[Head, ...], own: Sequence[np.ndarray]) -> None:
    """joint: the classes (N, heads) that the column label says; own: those (N,) that each head's own column says."""
    for column, (head, said) in enumerate(zip(heads, own)):
        unlike = (said != UNKNOWN) & (joint[:, column] != UNKNOWN) & (said != joint[:, column])
        if unlike.any():
            row = int(unlike.argmax())
            theirs, ours = (head.classes[found[row]] for found in (joint[:, column], said))
            warnings.warn(
                f"{int(unlike.sum())} rows have a label of another {head.name} than their own column, for one row "
                f"{line_number(row)}: label {table.label[row]} is the joint class of {theirs}, the column says {ours}, "
                "which is taken",
                stacklevel=2,
            )


def _roots(table: pd.DataFrame, root: Path) -> list[str]:
    """The folder of each photo: the table's own root where it names one, as `Photos.write` does."""
    own = table["root"].tolist() if "root" in table else [""] * len(table)
    return [folder or str(root) for folder in own]


def _names(table: pd.DataFrame) -> list[str]:
    """The photos' names as their source wrote them: relative to the table's own root where it names one."""
    own = table["root"].tolist() if "root" in table else [""] * len(table)
    inside = [bool(folder) and path.startswith(folder + os.sep) for folder, path in zip(own, table.path)]
    rows = zip(table.path, own, inside)
    return [Path(path).relative_to(folder).as_posix() if there else path for path, folder, there in rows]


def _refuse_repeats(found: pd.DataFrame) -> None:
    plain = found.assign(path=[os.path.normpath(path) for path in found.path])
    repeated = plain.duplicated(["path", *BOX], keep=False).to_numpy()
    if repeated.any():
        first = int(repeated.argmax())
        rows = [line_number(int(row)) for row in np.flatnonzero(plain.path.to_numpy() == plain.path[first])[:5]]
        raise ValueError(f"rows {rows} are the same file {found.name[first]!r} with the same box; keep one of them")
