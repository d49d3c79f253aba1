"""The table of boxes that a scan writes: read, checked row by row, completed, and replaced as a whole."""

import csv
import math
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from multihead.crops import BOX_DIGITS

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("path", "x0", "y0", "x1", "y1", "score", "status")
STATUSES = ("found", "none", "unreadable")


def part_of(boxes: Path) -> Path:
    """Where a scan writes down what it has found until it is whole."""
    return boxes.with_name(boxes.name + ".part")


def forget(boxes: Path, names: set[str]) -> None:
    """Drop the rows of these names from a boxes file, and from what an interrupted scan left of it."""
    part = part_of(boxes)
    for path, rows in ((boxes, rows_of(boxes) if boxes.exists() else ()), (part, complete_rows(part))):
        texts = by_path(rows)
        if not names.isdisjoint(texts):
            write_rows(path, (text for name, text in texts.items() if name not in names))


def read_boxes(path: str | os.PathLike) -> "pd.DataFrame":
    """The table of a boxes file: path, x0, y0, x1, y1, score (floats, NaN where there is no box) and status.

    Columns score and status may be absent, as in boxes drawn by hand: NaN, and "found" where there is a box.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a column is missing or unknown, or a row is wrong; the message names file and row.

    >>> read_boxes("boxes.csv").query("status == 'found'")  # doctest: +SKIP
    """
    import pandas as pd

    blank = (math.nan,) * 4
    rows = [(row.path, *(row.box or blank), row.score, row.status) for row in rows_of(Path(path))]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    numbers = dict.fromkeys(COLUMNS[1:6], "float64")
    # object: a string type on Arrow could not hold the names that are not UTF-8
    return table.astype({"path": object, "status": object, **numbers})


class Row(NamedTuple):
    """A row of the table: a photo by its name, and a face of it, or that it has none or cannot be read."""

    path: str
    box: tuple[float, ...] | None  # x0, y0, x1, y1
    score: float | None
    status: str


def by_path(rows: Iterable[Row]) -> dict[str, str]:
    """{path: its rows as text}, in their order."""
    grouped: dict[str, str] = {}
    for row in rows:
        grouped[row.path] = grouped.get(row.path, "") + row_text(row)
    return grouped


def rows_of(path: Path) -> Iterator[Row]:
    """The checked rows of a boxes file. Raises: FileNotFoundError; ValueError for a wrong row."""
    if not path.exists():
        raise FileNotFoundError(f"no boxes at {path}; expected a CSV that multihead scan wrote")
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        reader = csv.reader(stream)
        header = next(reader, [])
        missing, unknown = [c for c in COLUMNS[:5] if c not in header], [c for c in header if c not in COLUMNS]
        if missing or unknown:
            raise ValueError(f"{path}: expected columns {list(COLUMNS)}, got {header}; missing {missing}")
        number = 1
        while True:
            number += 1
            try:
                fields = next(reader, None)
                if fields is None:
                    return
                if len(fields) != len(header):
                    raise ValueError(f"expected {len(header)} fields, got {len(fields)}")
                yield _row(dict(zip(header, fields, strict=True)))
            except (ValueError, csv.Error) as error:
                raise ValueError(f"{path}: row {number}: {error}") from None


def _row(fields: dict[str, str]) -> Row:
    numbers = [_number(fields, name) for name in COLUMNS[1:5]]
    box = tuple(number for number in numbers if number is not None)
    status = fields.get("status", "found" if box else "none")
    if not fields["path"]:
        raise ValueError("path is blank")
    if status not in STATUSES:
        raise ValueError(f"expected status to be one of {', '.join(STATUSES)}, got {status!r}")
    if status == "found" and not (len(box) == 4 and 0 <= box[0] < box[2] and 0 <= box[1] < box[3]):
        raise ValueError(f"expected a box 0 <= x0 < x1, 0 <= y0 < y1, got {numbers}")
    if status != "found" and box:
        raise ValueError(f"expected no box with status {status}, got {numbers}")
    return Row(fields["path"], box or None, _number(fields, "score"), status)


def _number(fields: dict[str, str], name: str) -> float | None:
    text = fields.get(name, "")
    try:
        number = float(text) if text else None
    except ValueError:
        number = math.nan
    if number is not None and not math.isfinite(number):
        raise ValueError(f"expected a number as {name}, got {text!r}")
    return number


def complete_rows(part: Path) -> list[Row]:
    """The rows an interrupted scan left, up to a torn one, and without the last photo, which may lack rows."""
    rows = []
    if part.exists():
        try:
            for row in rows_of(part):
                rows.append(row)
        except ValueError:
            pass
    return [row for row in rows if row.path != rows[-1].path]


def row_text(row: Row) -> str:
    """A row as a line of the file."""
    path = row.path
    if any(sign in path for sign in ',"\r\n'):  # the csv writer leaves a lone \r bare
        path = '"' + path.replace('"', '""') + '"'
    box = [f"{value:.{BOX_DIGITS}f}" for value in row.box] if row.box else [""] * 4
    score = "" if row.score is None else f"{row.score:.4f}"
    return ",".join([path, *box, score, row.status]) + "\n"


def write_rows(path: Path, texts: Iterable[str]) -> None:
    """Replace a file by these rows, whole or not at all. Raises: OSError that names the file and what to do."""
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
            stream.write(",".join(COLUMNS) + "\n")
            stream.writelines(texts)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except OSError as error:
        message = f"cannot write {path} ({error.strerror or error}); name a file in a folder that can be written"
        raise type(error)(error.errno, message) from error
