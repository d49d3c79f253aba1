"""The cells of a table as labels, years, splits and boxes; a wrong one is named by line, photo and column."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multihead.heads import AGE_NUMBER, BLANKS, UNKNOWN, Head, number_column, size, span_column
from multihead.labels import bands, class_index

if TYPE_CHECKING:
    import pandas as pd

OLDEST = 130  # years: numbers above are no age
BOX = ["x0", "y0", "x1", "y1"]
_SPAN = re.compile(r"(\d+)(?:\s*[-\u2013]\s*(\d+)|\+)")  # 25-29, or 60+
NO_NUMBERS = tuple(blank for blank in BLANKS if not blank.startswith("-"))  # an edge may be at -1
TURNED = (["yes", "no"], ["true", "false"])  # first classes whose numbers are not what 0 and 1 usually say
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "": "",
}


def text_table(path: str | Path) -> pd.DataFrame:
    """A table that this library wrote, every cell as its text, with what `write_text` lets survive."""
    import pandas as pd

    return pd.read_csv(path, dtype=str, keep_default_na=False, encoding_errors="surrogateescape")


def parse_cells(table: pd.DataFrame, column: str, parse: Callable[[str], Any], blank: pd.Series) -> list[Any]:
    """A column's cells, parsed once per distinct text. Raises: ValueError that says of the first that cannot be parsed
    its row and column, and names the others."""
    cells = table.get(column, blank).tolist()
    parsed: dict[str, Any] = {}
    wrong: dict[str, tuple[int, str]] = {}
    for row, cell in enumerate(cells):
        if cell not in parsed and cell not in wrong:
            try:
                parsed[cell] = parse(cell)
            except ValueError as error:
                wrong[cell] = row, str(error)
    if wrong:
        (cell, (row, why)), *others = wrong.items()
        coded = any("\udc80" <= letter <= "\udcff" for letter in cell)
        hint = "; the table is not in UTF-8: save it so (in Excel: CSV UTF-8)" if coded else ""
        if others:
            hint += f"; nor are {', '.join(repr(other) for other, _ in others[:5])}" + ", ..." * (len(others) > 5)
        if not coded:
            key = f"{column}:{cell.strip()}"
            hint += f'; labels= translates words: --labels "{key}=WORD", or "{key}=" for a blank'
        raise ValueError(f"{_row_of(table, row)}, column {column!r}: {why}{hint}")
    return [parsed[cell] for cell in cells]


def head_labels(table: pd.DataFrame, head: Head) -> np.ndarray:
    """Class numbers (N,) of one head, by name or index, from its own column and, with edges, its _band column, and from
    the spans in the column of its number, as 25-29 or 60+; a span over several bands tells none, which is warned of."""
    blank = _blank(table)
    by_name = lambda cell: class_index(head, cell)  # noqa: E731
    own = (lambda cell: number_or_band(cell, head)[1]) if head.number == head.name else by_name
    found = np.array(parse_cells(table, head.name, own, blank), np.int64)
    if head.number is None:
        _warn_of_turned(table, head)
        return found
    others = [parse_cells(table, f"{head.name}_band", by_name, blank)]
    if head.number != head.name:
        others.append(parse_cells(table, head.number, lambda cell: span_band(cell, head), blank))
    for more in others:
        found = np.where(found == UNKNOWN, np.array(more, np.int64), found)
    _warn_of_spans(table, head, found)
    return found


def head_numbers(table: pd.DataFrame, number: str, heads: Sequence[Head]) -> np.ndarray:
    """A number (N,) that some of the heads band, NaN = unknown, from its column; the names of classes, in that of a
    head, and spans are no numbers."""
    own = next((head for head in heads if head.name == number), None)
    parse = (lambda cell: number_or_band(cell, own)[0]) if own else lambda cell: number_or_blank(cell, number)
    found = np.array(parse_cells(table, number, parse, _blank(table)), float)
    if own and own.in_years:
        _warn_of_indices(found, own)
    return found


def head_spans(table: pd.DataFrame, number: str) -> list[str]:
    """The spans (N,) in the column of a number as they are written, "" where there is none."""
    return [cell.strip() if span_of(cell) else "" for cell in table.get(number, _blank(table)).tolist()]


def numbers_or_spans(table: pd.DataFrame, number: str) -> pd.Series:
    """The cells (N,) of a number in a table of `Photos`: where it is unknown, the span that was read in its place."""
    known = table[number_column(number)]
    if span_column(number) not in table:
        return known
    return known.astype(object).where(known.notna(), table[span_column(number)])


def span_of(cell: str) -> tuple[float, float] | None:
    """The ends of a span, None of what is none.

    >>> span_of("25-29"), span_of("60+"), span_of("25")
    ((25.0, 29.0), (60.0, inf), None)
    """
    found = _SPAN.fullmatch(cell.strip())
    return None if found is None else (float(found[1]), float(found[2] or "inf"))


def span_band(cell: str, head: Head) -> int:
    """The band that a span is within, unknown for one over several, and for what is no span."""
    span = span_of(cell)
    inside = set() if span is None else set(bands(np.array(span), head.edges or ()).tolist())
    return inside.pop() if len(inside) == 1 else UNKNOWN


def _warn_of_spans(table: pd.DataFrame, head: Head, found: np.ndarray) -> None:
    cells = table.get(head.number, _blank(table)).tolist()
    wide = [cell.strip() for cell, label in zip(cells, found) if label == UNKNOWN and span_of(cell)]
    if wide:
        warnings.warn(
            f"{len(wide)} rows whose {head.number} is a span over several bands of {head.name}, for example "
            f"{wide[0]}: unknown there",
            stacklevel=2,
        )


def _blank(table: pd.DataFrame) -> pd.Series:
    import pandas as pd

    return pd.Series([""] * len(table), dtype=object)


def _warn_of_turned(table: pd.DataFrame, head: Head) -> None:
    """0 and 1 are hardly yes and no in this order, as the places of the classes say."""
    yes, no = head.classes[:2]
    if [yes.strip().lower(), no.strip().lower()] not in TURNED:
        return
    turned = sum(cell.strip() in ("0", "1", "0.0", "1.0") for cell in table.get(head.name, _blank(table)))
    if turned:
        warnings.warn(
            f"column {head.name!r} numbers its classes in {turned} rows, where 0 is read as {yes!r} and 1 as {no!r}, "
            f"by their places in {head.classes}; if 1 says {yes!r}, put {no!r} first, or translate them "
            f"(labels={{'{head.name}:1': {yes!r}, '{head.name}:0': {no!r}}}, "
            f"--labels {head.name}:1={yes} {head.name}:0={no})",
            stacklevel=2,
        )


def _warn_of_indices(years: np.ndarray, head: Head) -> None:
    """Ages that are all 0, 1 or 2 are hardly years."""
    known = years[~np.isnan(years)]
    if len(known) > len(head.classes) and np.isin(known, range(len(head.classes))).all() and len(set(known)) > 1:
        listed = ", ".join(f"{value:g}" for value in sorted(set(known)))
        warnings.warn(
            f"column {head.name!r} holds nothing but {listed}, read as years; if these number the bands "
            f"{head.classes}, name the column {head.name}_band (columns={{'{head.name}_band': '{head.name}'}}, "
            f"--columns {head.name}_band={head.name})",
            stacklevel=2,
        )


def warn_of_bands(source: str, label: np.ndarray, numbers: np.ndarray, head: Head) -> None:
    differ = (label != UNKNOWN) & ~np.isnan(numbers) & (label != bands(numbers, head.edges or ()))
    rows = [f"row {line_number(int(row))}" for row in np.flatnonzero(differ)]
    column = f"{head.name}_band" if head.number == head.name else head.name
    warn(source, rows, f"rows whose {column} is not that of their {head.number}; the number counts")


def number(text: str) -> float:
    """A number with a decimal point, or with the comma that spreadsheets write in some countries.

    Raises: ValueError for what is none.

    >>> number("30.5"), number("30,5")
    (30.5, 30.5)
    """
    return float(re.sub(r"^\s*(-?\d+),(\d+)\s*$", r"\1.\2", text))


def number_or_band(cell: str, head: Head) -> tuple[float, int]:
    """(number, unknown) of a number, (NaN, band) of a band's name or of a span."""
    if cell.strip().lower() in [name.lower() for name in head.classes]:
        return float("nan"), class_index(head, cell)
    if span_of(cell):
        return number_or_blank(cell, head.name), span_band(cell, head)
    return number_or_blank(cell, head.name, f", one of {head.classes}"), UNKNOWN


def number_or_blank(cell: str, name: str, other: str = "") -> float:
    """The number of a cell, NaN of a blank or span. Raises: ValueError for anything else; `other` is also expected."""
    if cell.strip().lower() in BLANKS:
        return float("nan")
    span = span_of(cell)
    try:
        low, high = span or [number(cell.strip())] * 2
    except ValueError:
        low = high = float("nan")
    last = low if math.isinf(high) else high
    if not (low <= high and (low >= 0 and last <= OLDEST if name == AGE_NUMBER else math.isfinite(low))):
        expected = f"years from 0 to {OLDEST}" if name == AGE_NUMBER else "a number"
        raise ValueError(f"{cell!r} is no {name}; expected {expected}{other}, or a blank")
    return float("nan") if span else low


def joint_class(cell: str, heads: tuple[Head, ...]) -> int:
    """Class number of a cell of joint classes, -1 for a blank. Raises: ValueError for what is no joint class."""
    text = cell.strip()
    if text in ("", "-1"):
        return UNKNOWN
    if not re.fullmatch(r"\d+(\.0)?", text) or float(text) >= size(heads):
        raise ValueError(f"{cell!r} is no joint class; expected 0 to {size(heads) - 1} or a blank")
    return int(float(text))


def split_name(cell: str) -> str:
    """train, val, test or "" of a split cell. Raises: ValueError for another word."""
    if cell.strip().lower() not in SPLITS:
        raise ValueError(f"{cell!r} is no split; expected train, val, test or a blank")
    return SPLITS[cell.strip().lower()]


def face_word(cell: str) -> str:
    """ "whole", "none" or "" of a face cell. Raises: ValueError for another word."""
    word = cell.strip().lower()
    if word not in ("", "whole", "none"):
        raise ValueError(f"{cell!r}; expected 'whole' (the photo is a tight face), 'none' (no face in it) or a blank")
    return word


def boxes_of(table: pd.DataFrame) -> np.ndarray:
    """Boxes (N, 4) from x0 y0 x1 y1 or a `box` column of four numbers; NaN where blank."""
    if set(BOX) <= set(table.columns):
        rows = [[cell.strip() for cell in row] for row in table[BOX].to_numpy().tolist()]
        texts = [["" if cell.lower() in NO_NUMBERS else cell for cell in row] for row in rows]
    elif "box" in table:
        texts = [cell.split() for cell in table.box]
    else:
        return np.full((len(table), 4), np.nan)
    boxes = np.full((len(table), 4), np.nan)
    for row, cells in enumerate(texts):
        if not any(cells):
            continue
        try:
            boxes[row] = [number(cell) for cell in cells]
        except ValueError:
            raise ValueError(f"{_row_of(table, row)}: box {cells} is not four numbers x0 y0 x1 y1") from None
        if not (np.isfinite(boxes[row]).all() and boxes[row, 0] < boxes[row, 2] and boxes[row, 1] < boxes[row, 3]):
            what = f"box {cells} has no area; expected x0 < x1 and y0 < y1 in pixels"
            raise ValueError(f"{_row_of(table, row)}: {what}")
    known = ~np.isnan(boxes[:, 0])
    if known.any() and (boxes[known] >= 0).all() and (boxes[known] <= 1).all():
        row = int(known.argmax())
        what = (
            f"box {boxes[row].tolist()}, like all others, lies within one pixel; expected pixels, not shares of a side"
        )
        raise ValueError(f"{_row_of(table, row)}: {what}")
    return boxes


def _row_of(table: pd.DataFrame, row: int) -> str:
    return f"row {line_number(row)} ({table.path[row]})"


def line_number(index: int) -> int:
    """The line of a CSV that holds row `index`: the header is line 1."""
    return index + 2


def warn(where: str | Path, names: Sequence[str], what: str) -> None:
    """Warn of some of a source's names, counted, with one of them; nothing where there is none."""
    if names:
        warnings.warn(f"{where}: {len(names)} {what}, for example {names[0]}", stacklevel=2)
