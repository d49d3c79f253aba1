"""From a folder or table of any accepted form to `Photos`."""

from __future__ import annotations

import difflib
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multihead.data import BOX, CORE, Photos
from multihead.images import image_files
from multihead.labels import BLANKS, HEADS, UNKNOWN, Head, bands, base, class_index, decode, size

if TYPE_CHECKING:
    import pandas as pd

Source = "str | Path | pd.DataFrame"
PERSON_FOLDER = re.compile(r"(?P<id>.+)_(?P<gender>male|female)_(?P<race>[^_]+)_(?P<age>\d+)", re.IGNORECASE)
STEMS = {**{f"mask{number}": "worn" for number in range(1, 6)}, "incorrect_mask": "incorrect", "normal": "not_worn"}
ALIASES = {"person_id": "person", "ImageID": "path", "ans": "label"}
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test", "": ""}
PLAIN = ["path", "person", "split", "source", "face", "box", "label", "error", "status", "score", *BOX]
OLDEST = 130


def read(
    source: str | Path | pd.DataFrame | Sequence[object],
    *,
    heads: Sequence[Head] = HEADS,
    boxes: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    root: str | Path | None = None,
    name: str | None = None,
    people: str = "local",
) -> Photos:
    """The photos of a folder or table, or of several joined, with all that is known of them.

    source: a folder in the competition layout (`<id>_<gender>_<race>_<age>/mask1.jpg ...`, with or without
    train.csv), any other folder (photos without labels), a CSV or DataFrame with a path column and any of mask,
    gender, age (years, or a band by name), age_band, person, split, x0 y0 x1 y1 (pixels), face ("whole": already a
    tight face); or a list of such. Labels go by name, index or "1.0"; a blank is unknown. Other columns are kept as
    text. boxes: a CSV of `multihead scan`. columns: our name -> the table's. root: what paths are relative to
    (default: the table's folder). name: the source's name, which person ids are local to, except those that hold a
    ':' and so name a source themselves, as `Photos.write` wrote them; people="global": ids mean the same person in
    every source.

    Raises: FileNotFoundError, KeyError or ValueError that names the file, row and column, and what was expected.

    >>> import pandas as pd
    >>> read(pd.DataFrame({"path": ["a.jpg", "b.jpg"], "mask": ["worn", ""]}), root="/photos").known()["mask"]
    1
    """
    import pandas as pd

    if people not in ("local", "global"):
        raise ValueError(f"people={people!r}; expected 'local' or 'global'")
    if isinstance(source, (list, tuple)):
        if not source:
            raise ValueError("read() got an empty list; pass at least one folder or table")
        options = {"heads": heads, "columns": columns, "root": root, "name": name, "people": people}
        joined = read(source[0], **options)  # type: ignore[arg-type]
        for more in source[1:]:
            joined = joined + read(more, **options)  # type: ignore[arg-type, operator]
        return add_boxes(joined, boxes) if boxes is not None else joined
    if isinstance(source, pd.DataFrame):
        table, folder, label = _as_text(source), Path(root or "."), name or "table"
    else:
        path = Path(source)  # type: ignore[arg-type]
        table, folder, label = _load(path, Path(root) if root else None)
        label = name or label
        columns = None if path.is_dir() else columns  # a folder's columns are ours already
    photos = _photos(table, folder.absolute(), label, base(heads), columns or {}, people)
    return add_boxes(photos, boxes) if boxes is not None else photos


def add_boxes(photos: Photos, path: str | Path) -> Photos:
    """The photos with the boxes of a scan; a row that has a box, or is a tight face, keeps what it has.

    Photos the scan lists without a face count as searched. Of several faces in a photo the largest is taken.

    Raises: ValueError where the scan names none of the photos, or its relative paths fit several folders.
    """
    from multihead.scanning import read_boxes

    scan = read_boxes(path)
    scan = scan[scan.status.isin(["found", "none"])].copy()
    scan["area"] = ((scan.x1 - scan.x0) * (scan.y1 - scan.y0)).fillna(-1)
    best = scan.sort_values("area", kind="stable").drop_duplicates("path", keep="last").set_index("path")
    table = photos.table.copy()
    names = [n if n in best.index else p for n, p in zip(table.name, table.path)]
    listed = np.array([key in best.index for key in names], bool)
    if len(photos) and not listed.any():
        raise ValueError(
            f"{path}: none of its paths (first: {next(iter(best.index), 'no row')!r}) is one of the photos "
            f"(first: {names[0]!r}); expected paths as the source writes them, or absolute"
        )
    folders = {root for root, name, key in zip(table.root, table.name, names) if name == key and not os.path.isabs(key)}
    if len(folders) > 1:
        raise ValueError(
            f"{path} names photos relative to one folder, and these photos come from {len(folders)}: "
            f"{', '.join(sorted(folders)[:3])}; read each with its own boxes, or scan them together"
        )
    free = listed & table.x0.isna().to_numpy() & ~table.whole.to_numpy(bool)
    chosen = best.loc[[key for key, take in zip(names, free) if take], BOX].to_numpy(float)
    table.loc[free, BOX] = chosen
    table.loc[free, "searched"] = True
    return Photos(table, photos.heads)


def _load(source: Path, root: Path | None) -> tuple[pd.DataFrame, Path, str]:
    if source.is_dir():
        table, folder = _folder(source)
        return table, folder, source.resolve().name
    if not source.exists():
        raise FileNotFoundError(f"no such file or folder: {source}; expected a folder of photos or a CSV")
    if source.suffix.lower() not in (".csv", ".txt", ".tsv"):
        raise ValueError(f"{source} is no table; expected a folder or a CSV with a 'path' column")
    table = _csv(source)
    if {"id", "gender", "race", "age", "path"} <= set(table.columns) and (source.parent / "images").is_dir():
        return *_competition(source.parent / "images", table), source.parent.resolve().name  # type: ignore[return-value]
    folder = root or source.parent
    if root is None and "ImageID" in table.columns and (folder / "images").is_dir():
        folder = folder / "images"
        table = table.drop(columns="ans", errors="ignore")  # a placeholder in the competition's info.csv
    return table, folder, source.stem


def _csv(path: Path) -> pd.DataFrame:
    """A table with every cell as text. Raises: ValueError that names the file."""
    import pandas as pd

    other: dict[str, Any] = {} if path.suffix.lower() == ".csv" else {"sep": None, "engine": "python"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header would be cut
            return pd.read_csv(
                path, dtype=object, keep_default_na=False, encoding_errors="surrogateescape", index_col=False, **other
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        raise ValueError(f"{path} cannot be read as a CSV: {error}") from error


def _folder(root: Path) -> tuple[pd.DataFrame, Path]:
    import pandas as pd

    for images in (root, root / "images", root / "train" / "images"):
        if images.is_dir() and any(PERSON_FOLDER.fullmatch(item.name) for item in images.iterdir() if item.is_dir()):
            listed = next(
                (folder / "train.csv" for folder in (images, images.parent) if (folder / "train.csv").is_file()), None
            )
            table = None if listed is None else _csv(listed)
            if table is not None and (lacking := sorted({"path", "gender", "age"} - set(table.columns))):
                raise KeyError(f"{listed} lacks the columns {lacking}; it has {list(table.columns)}")
            return _competition(images, table)
    files = image_files(root)
    if not files:
        raise FileNotFoundError(
            f"no images under {root}; expected {root}/<id>_<gender>_<race>_<age>/*.jpg or a CSV with a 'path' column"
        )
    return pd.DataFrame({"path": [file.relative_to(root).as_posix() for file in files]}, dtype=object), root


def _competition(images: Path, listed: pd.DataFrame | None) -> tuple[pd.DataFrame, Path]:
    """The competition layout: one folder a person, the mask state in the file's stem, labels from train.csv if any."""
    import pandas as pd

    root = images.parent if images.name == "images" else images
    known = {} if listed is None else {str(row["path"]): row for row in listed.to_dict("records")}
    rows, odd, unlisted = [], [], []
    for folder in sorted(item for item in images.iterdir() if item.is_dir() and not item.name.startswith(".")):
        parts = PERSON_FOLDER.fullmatch(folder.name)
        if parts is None:
            odd.append(folder.name)
            continue
        if listed is not None and folder.name not in known:
            unlisted.append(folder.name)
        person = known.get(folder.name, parts.groupdict())
        for file in image_files(folder):
            state = STEMS.get(file.stem.lower(), "")
            if not state:
                odd.append(f"{folder.name}/{file.name}")
            rows.append(
                (
                    file.relative_to(root).as_posix(),
                    folder.name,
                    state,
                    str(person["gender"]).lower(),
                    str(person["age"]),
                )
            )
    lost = sorted(set(known) - {row[1] for row in rows})
    _warn(images, odd, "names that are no <id>_<gender>_<race>_<age> folder or mask1-5, incorrect_mask, normal")
    _warn(images, unlisted, "folders that train.csv lacks; their names were read instead")
    _warn(images, lost, "people of train.csv without a photo")
    return pd.DataFrame(rows, columns=["path", "person", "mask", "gender", "age"], dtype=object), root


def _warn(where: str | Path, names: Sequence[str], what: str) -> None:
    if names:
        warnings.warn(f"{where}: {len(names)} {what}, for example {names[0]}", stacklevel=2)


def _as_text(frame: pd.DataFrame) -> pd.DataFrame:
    """Every cell as the text a CSV would hold: missing values as blanks, whole numbers without .0 (ids with gaps)."""
    import pandas as pd

    plain = frame.astype(object).where(frame.notna(), "")
    return pd.DataFrame({name: [_text(cell) for cell in plain[name]] for name in plain.columns}, dtype=object)


def _text(cell: object) -> str:
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _photos(
    table: pd.DataFrame, root: Path, source: str, heads: tuple[Head, ...], mapped: Mapping[str, str], people: str
) -> Photos:
    import pandas as pd

    table = _rename(table, mapped, heads)
    paths = [str(root / path) for path in table.path]
    rows = len(table)
    blank = pd.Series([""] * rows, dtype=object)
    person = table.get("person", blank).str.strip()
    if people == "local":
        person = person.where((person == "") | person.str.contains(":"), f"{source}:" + person)
    found = pd.DataFrame(
        {
            "path": pd.Series(paths, dtype=object),  # a string type on Arrow could not hold names that are not UTF-8
            "name": table.path,
            "root": str(root),
            "source": table.get("source", source),
            "person": person,
            "split": _cells(table, "split", _split, blank),
        }
    )
    found[["years"]] = np.nan
    found[BOX] = _boxes(table)
    found["whole"] = np.array(_cells(table, "face", _whole, blank), bool)
    found["searched"] = False
    label = _cells(table, "label", lambda cell: _joint(cell, heads) if heads else UNKNOWN, blank)
    joint = decode(np.array(label, np.int64), heads)
    for column, head in enumerate(heads):
        own, years = _head(table, head)
        found[head.name] = np.where(own == UNKNOWN, joint[:, column], own)
        if head.edges:
            found["years"] = _one_number(found["years"].to_numpy(), years, head)
            _warn_of_bands(source, own, years, head)
    rest = [c for c in table.columns if c not in [*PLAIN, *found.columns] and ":" not in c and not c.endswith("_band")]
    for name in rest:
        found[name] = table[name]
    _refuse_repeats(found)
    return Photos(found, heads)


def _rename(table: pd.DataFrame, mapped: Mapping[str, str], heads: tuple[Head, ...]) -> pd.DataFrame:
    """The table with our column names. Raises: KeyError for a mapped column that is missing or no path column."""
    names = [*PLAIN, *(head.name for head in heads), *(f"{head.name}_band" for head in heads if head.edges)]
    for ours, theirs in mapped.items():
        if theirs not in table.columns:
            raise KeyError(f"column {theirs!r} (for {ours!r}) is not in the table; it has {list(table.columns)}")
        if ours not in names:
            raise KeyError(f"columns= maps {ours!r}, which is none of {names}")
    chosen = {ours: table[theirs] for ours, theirs in mapped.items()}
    table = table.drop(columns=list(mapped.values())).assign(**chosen)
    aliases = {theirs: ours for theirs, ours in ALIASES.items() if theirs in table and ours not in table}
    table = table.rename(columns=aliases).reset_index(drop=True)
    if "path" not in table:
        raise KeyError(f"no 'path' column; the table has {list(table.columns)}; map one with columns={{'path': ...}}")
    empty = table.path.str.strip() == ""
    if empty.any():
        raise ValueError(f"row {_row(int(empty.to_numpy().argmax()))}: the path is blank")
    if 0 < len(set(BOX) & set(table.columns)) < len(BOX):
        raise KeyError(f"a box needs the columns {BOX}; the table has {sorted(set(BOX) & set(table.columns))}")
    for column in sorted(set(table.columns) - set(names)):
        if column in CORE:
            warnings.warn(f"column {column!r} is not read: the name is taken; map it with columns=", stacklevel=2)
        near = difflib.get_close_matches(column, [name for name in names if name not in table], 1, 0.8)
        if near:
            warnings.warn(f"column {column!r} is not read; did you mean {near[0]!r}?", stacklevel=2)
    return table


def _cells(table: pd.DataFrame, column: str, parse: Callable[[str], Any], blank: pd.Series) -> list[Any]:
    """A column's cells, parsed once per distinct text. Raises: ValueError that adds the row and column."""
    cells = table.get(column, blank).tolist()
    parsed: dict[str, Any] = {}
    for row, cell in enumerate(cells):
        if cell not in parsed:
            try:
                parsed[cell] = parse(cell)
            except ValueError as error:
                raise ValueError(f"row {_row(row)} ({table.path[row]}), column {column!r}: {error}") from None
    return [parsed[cell] for cell in cells]


def _head(table: pd.DataFrame, head: Head) -> tuple[np.ndarray, np.ndarray]:
    """Class numbers and numbers (years) of one head, from its own column and, with edges, its _band column."""
    import pandas as pd

    blank = pd.Series([""] * len(table), dtype=object)
    if head.edges is None:
        cells = _cells(table, head.name, lambda cell: class_index(head, cell), blank)
        return np.array(cells, np.int64), np.full(len(table), np.nan)
    both = _cells(table, head.name, lambda cell: _years(cell, head), blank)
    band = np.array(_cells(table, f"{head.name}_band", lambda cell: class_index(head, cell), blank), np.int64)
    years = np.array([pair[0] for pair in both], float)
    named = np.array([pair[1] for pair in both], np.int64)
    return np.where(named == UNKNOWN, band, named), years


def _one_number(known: np.ndarray, years: np.ndarray, head: Head) -> np.ndarray:
    """Years (N,) from two heads that band the same number. Raises: ValueError where their columns differ."""
    differ = np.flatnonzero(~np.isnan(known) & ~np.isnan(years) & (known != years))
    if len(differ):
        row = int(differ[0])
        raise ValueError(
            f"row {_row(row)}: column {head.name!r} says {years[row]:g}, another {known[row]:g}; "
            "heads with edges all band one number a row"
        )
    return np.where(np.isnan(years), known, years)


def _warn_of_bands(source: str, label: np.ndarray, years: np.ndarray, head: Head) -> None:
    differ = (label != UNKNOWN) & ~np.isnan(years) & (label != bands(years, head.edges or ()))
    rows = [f"row {_row(int(row))}" for row in np.flatnonzero(differ)]
    _warn(source, rows, f"rows whose {head.name}_band is not that of their {head.name}; the number counts")


def _years(cell: str, head: Head) -> tuple[float, int]:
    """(years, unknown) of a number, (NaN, band) of a band's name."""
    text = cell.strip().lower()
    if text in [name.lower() for name in head.classes]:
        return float("nan"), class_index(head, cell)
    if text in BLANKS:
        return float("nan"), UNKNOWN
    try:
        years = float(text)
    except ValueError:
        years = float("nan")
    if not 0 <= years <= OLDEST:
        raise ValueError(
            f"{cell!r} is no {head.name}; expected years from 0 to {OLDEST}, one of {head.classes}, or a blank"
        )
    return years, UNKNOWN


def _joint(cell: str, heads: tuple[Head, ...]) -> int:
    text = cell.strip()
    if text in ("", "-1"):
        return UNKNOWN
    if not re.fullmatch(r"\d+(\.0)?", text) or float(text) >= size(heads):
        raise ValueError(f"{cell!r} is no joint class; expected 0 to {size(heads) - 1} or a blank")
    return int(float(text))


def _split(cell: str) -> str:
    if cell.strip().lower() not in SPLITS:
        raise ValueError(f"{cell!r} is no split; expected train, val, test or a blank")
    return SPLITS[cell.strip().lower()]


def _whole(cell: str) -> bool:
    if cell.strip().lower() not in ("", "whole"):
        raise ValueError(f"{cell!r}; expected 'whole' (the photo is a tight face) or a blank")
    return bool(cell.strip())


def _boxes(table: pd.DataFrame) -> np.ndarray:
    """Boxes (N, 4) from x0 y0 x1 y1 or a `box` column of four numbers; NaN where blank."""
    if set(BOX) <= set(table.columns):
        texts = [[cell.strip() for cell in row] for row in table[BOX].to_numpy().tolist()]
    elif "box" in table:
        texts = [cell.split() for cell in table.box]
    else:
        return np.full((len(table), 4), np.nan)
    boxes = np.full((len(table), 4), np.nan)
    for row, cells in enumerate(texts):
        if not any(cells):
            continue
        try:
            boxes[row] = [float(cell) for cell in cells]
        except ValueError:
            raise ValueError(f"row {_row(row)}: box {cells} is not four numbers x0 y0 x1 y1") from None
        if not (np.isfinite(boxes[row]).all() and boxes[row, 0] < boxes[row, 2] and boxes[row, 1] < boxes[row, 3]):
            raise ValueError(f"row {_row(row)}: box {cells} has no area; expected x0 < x1 and y0 < y1 in pixels")
    return boxes


def _refuse_repeats(found: pd.DataFrame) -> None:
    repeated = found.duplicated(["path", *BOX], keep=False).to_numpy()
    if repeated.any():
        first = int(repeated.argmax())
        rows = [_row(int(row)) for row in np.flatnonzero(found.path.to_numpy() == found.path[first])[:5]]
        raise ValueError(f"rows {rows} are the same file {found.name[first]!r} with the same box; keep one of them")


def _row(index: int) -> int:
    """The line of a CSV that holds row `index`: the header is line 1."""
    return index + 2
