"""Folders and files of photos: the competition's layout, any other folder, and CSVs as plain text."""

from __future__ import annotations

import contextlib
import csv
import functools
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multihead.cells import SPLITS, warn
from multihead.heads import UNKNOWN
from multihead.images import image_files
from multihead.labels import class_index

if TYPE_CHECKING:
    import pandas as pd

    from multihead.heads import Head

PERSON_FOLDER = re.compile(r"(?P<id>.+)_(?P<gender>male|female)_(?P<race>[^_]+)_(?P<age>\d+)", re.IGNORECASE)
STEMS = {**{f"mask{number}": "worn" for number in range(1, 6)}, "incorrect_mask": "incorrect", "normal": "not_worn"}


def read_csv(path: Path) -> pd.DataFrame:
    """A table with every cell as text. Raises: ValueError that names the file, FileNotFoundError."""
    import pandas as pd

    if path.suffix.lower() not in (".csv", ".txt", ".tsv"):
        raise ValueError(
            f"{path} is no table; expected a CSV (.csv, .txt, .tsv), or in Python a DataFrame, as of "
            'pandas.read_json, or of photos by name, pandas.DataFrame({"path": [...]})'
        )
    with open(path, "rb") as file:
        head, first = file.readline(), file.readline()
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError(f"{path} is UTF-16; save it as UTF-8 (in Excel: CSV UTF-8)")
    separator = _separator(head, first)
    if not separator and path.suffix.lower() == ".csv":
        separator = ","
    other: dict[str, Any] = {"sep": separator} if separator else {"sep": None, "engine": "python"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header would be cut
            other |= {"dtype": object, "keep_default_na": False, "encoding_errors": "surrogateescape"}
            header = pd.read_csv(path, header=None, nrows=1, index_col=False, **other)
            names = header.iloc[0].str.strip().tolist()
            if repeated := [name for name in names if name and names.count(name) > 1]:
                raise ValueError(f"{path} has several columns {repeated[0]!r}; expected one, rename or drop the others")
            table = pd.read_csv(path, index_col=False, **other)
            return table.rename(columns={name: name.strip() for name in table.columns})
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        raise ValueError(f"{path} cannot be read as a CSV: {_longer_row(path, separator) or error}") from error


def _separator(head: bytes, first: bytes) -> str:
    """What separates the fields of a table's first two lines, outside of quotes, "" where nothing that is usual does:
    Excel writes semicolons in some countries. The mark that both have equally often, else the header most often."""
    lines = [re.sub(rb'"[^"]*"', b"", line) for line in (head, first)]
    counts = {mark: [line.count(mark.encode()) for line in lines] for mark in ",;\t|"}
    best = max(counts, key=lambda mark: (counts[mark][0] == counts[mark][1] > 0, counts[mark][0]))
    return best if counts[best][0] else ""


def _longer_row(path: Path, separator: str) -> str:
    """Which row has more fields than the header, "" where none has."""
    if not separator:
        return ""
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file, contextlib.suppress(csv.Error):
        rows = csv.reader(file, delimiter=separator)
        columns = len(next(rows, []))
        for row in rows:
            if len(row) > columns:
                return (
                    f"line {rows.line_num} has {len(row)} fields, the header {columns}; quote what holds {separator!r}"
                )
    return ""


def read_folder(root: Path) -> tuple[pd.DataFrame, Path]:
    """The photos of a folder, and what their paths are relative to.

    Raises: FileNotFoundError where there is no photo, naming the layouts that are read.
    """
    import pandas as pd

    images = competition_images(root)
    if images is not None:
        listed = next(
            (folder / "train.csv" for folder in (images, images.parent) if (folder / "train.csv").is_file()), None
        )
        table = None if listed is None else read_csv(listed)
        if table is not None and (lacking := sorted({"path", "gender", "age"} - set(table.columns))):
            raise KeyError(f"{listed} lacks the columns {lacking}; it has {list(table.columns)}")
        return read_competition(images, table, listed)
    files = image_files(root)
    if not files:
        raise FileNotFoundError(
            f"no images under {root}; expected {root}/<id>_<gender>_<race>_<age>/*.jpg or a CSV with a 'path' column"
        )
    return pd.DataFrame({"path": [file.relative_to(root).as_posix() for file in files]}, dtype=object), root


def folder_labels(table: pd.DataFrame, heads: Sequence[Head], words: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    """The table of a plain folder's photos with the labels, and splits, that names of folders on the way tell, as in
    train/worn/a.jpg: columns of those heads, the deepest folder counts; as it is where no folder is named like a class.

    words: {head: {folder: class}}, of folders that are named otherwise. Names of a class of several heads tell nothing.
    """

    @functools.cache
    def told_by(part: str) -> tuple[str, str] | None:
        found = [(head.name, name) for head in heads if (name := _class_name(head, words.get(head.name, {}), part))]
        return found[0] if len(found) == 1 else None

    columns: dict[str, list[str]] = {head.name: [""] * len(table) for head in heads} | {"split": [""] * len(table)}
    for row, path in enumerate(table.path):
        for part in path.lower().split("/")[:-1]:
            if told := told_by(part):
                columns[told[0]][row] = told[1]
            elif part in SPLITS:
                columns["split"][row] = part
    named = [head.name for head in heads if any(columns[head.name])]
    if not named:
        return table
    counts = ", ".join(f"{name} of {len(table) - columns[name].count('')} photos" for name in named)
    warnings.warn(f"the names of folders are labels: {counts}", stacklevel=2)
    return table.assign(**{name: columns[name] for name in [*named, "split"]})


def _class_name(head: Head, words: Mapping[str, str], part: str) -> str:
    """The class that a folder's name stands for, "" for none: a number is the name of anything."""
    text = words.get(part, part)
    if text == part and (part.isdigit() or part in SPLITS):
        return ""
    try:
        index = class_index(head, text)
    except ValueError:
        return ""
    return "" if index == UNKNOWN else head.classes[index]


def competition_images(root: Path) -> Path | None:
    """The folder of person folders in or under `root`, None where the competition's layout is not there."""
    for images in (root, root / "images", root / "train" / "images"):
        if images.is_dir() and any(PERSON_FOLDER.fullmatch(item.name) for item in images.iterdir() if item.is_dir()):
            return images
    return None


def read_competition(
    images: Path, listed: pd.DataFrame | None, source: Path | None, only: bool = False
) -> tuple[pd.DataFrame, Path]:
    """The competition layout: one folder a person, the mask state in the file's stem, labels from a table of people if
    there is one, read from the file `source`; only: no people but those."""
    import pandas as pd

    root = images.parent if images.name == "images" else images
    known = {} if listed is None else {str(row["path"]): row for row in listed.to_dict("records")}
    rows, odd, unlisted = [], [], []
    for folder in sorted(item for item in images.iterdir() if item.is_dir() and not item.name.startswith(".")):
        parts = PERSON_FOLDER.fullmatch(folder.name)
        if only and folder.name not in known:
            continue
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
                    str(person.get("race", parts["race"])),
                )
            )
    lost = sorted(set(known) - {row[1] for row in rows})
    warn(images, odd, "names that are no <id>_<gender>_<race>_<age> folder or mask1-5, incorrect_mask, normal")
    name = "" if source is None else source.name
    warn(images, unlisted, f"folders that {name} lacks; their names were read instead")
    warn(images, lost, f"people of {name} without a photo")
    return pd.DataFrame(rows, columns=["path", "person", "mask", "gender", "age", "race"], dtype=object), root
