"""The columns of tables of photos, and the words in their cells, that a user calls otherwise: as ours."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from multihead.cells import BOX, line_number
from multihead.data import CORE
from multihead.heads import HEADS, Head, label_columns
from multihead.options import near

if TYPE_CHECKING:
    import pandas as pd

ALIASES = {"person_id": "person", "ImageID": "path", "ans": "label"}
MEANT = ("source", "face", "label", "error", "status", "score", "root", "box")  # ours only as we write them
PLAIN = ["path", "root", "person", "split", "source", "face", "box", "label", "error", "status", "score", *BOX]


def where_labels_stand(heads: Sequence[Head]) -> str:
    """What tables and folders have to hold, for an error or note about photos without any label of these heads."""
    columns, head = list(dict.fromkeys(column for head in heads for column in label_columns(head))), heads[0]
    return (
        f"expected one of the columns {', '.join(columns)}: map others with columns= (--columns {columns[0]}=...); or "
        f'folders named after classes: translate others with labels= (--labels "{head.name}:FOLDER={head.classes[0]}")'
    )


def our_columns(table: pd.DataFrame, mapped: Mapping[str, str], heads: tuple[Head, ...]) -> pd.DataFrame:
    """The table with our column names. One set of flags serves all verbs: labels of our heads that are not among
    `heads` may be mapped too, and where there are no heads those of any, and are left out.

    Raises: KeyError for a mapped column that is missing or no path column.
    """
    names = list(dict.fromkeys([*PLAIN, *(column for head in heads for column in label_columns(head))]))
    others = [column for head in HEADS for column in label_columns(head)]
    for ours, theirs in mapped.items():
        if theirs not in table.columns:
            raise KeyError(f"column {theirs!r} (for {ours!r}) is not in the table; it has {list(table.columns)}")
        unread = not heads and not near(ours, PLAIN, 0.8)
        if ours not in [*names, *others] and not unread:
            raise KeyError(f"columns= maps {ours!r}, which is none of {names}")
    chosen = {ours: table[theirs] for ours, theirs in mapped.items() if ours in names}
    table = table.drop(columns=list(mapped.values())).assign(**chosen)
    table = table.rename(columns=_by_case(table, names))
    aliases = {theirs: ours for theirs, ours in ALIASES.items() if theirs in table and ours not in table}
    table = table.rename(columns=aliases).reset_index(drop=True)
    if "path" not in table:
        raise KeyError(
            f"no 'path' column; the table has {list(table.columns)}; map one with columns={{'path': ...}} "
            "(--columns path=...)"
        )
    empty = table.path.str.strip() == ""
    if empty.any():
        raise ValueError(f"row {line_number(int(empty.to_numpy().argmax()))}: the path is blank")
    if 0 < len(set(BOX) & set(table.columns)) < len(BOX):
        raise KeyError(f"a box needs the columns {BOX}; the table has {sorted(set(BOX) & set(table.columns))}")
    for column in sorted(set(table.columns) - set(names)):
        if column in CORE:
            warnings.warn(
                f"column {column!r} is not read: the name is taken; map it with columns= (as --columns age={column}), "
                "or name it otherwise",
                stacklevel=2,
            )
        if column.lower() in MEANT:
            continue
        if hint := near(column, [name for name in names if name not in table], 0.8):
            warnings.warn(f"column {column!r} is not read{hint}", stacklevel=2)
    return table


def _by_case(table: pd.DataFrame, names: Sequence[str]) -> dict[str, str]:
    """{the table's: ours} of columns that are named as ours but for capital letters."""
    known = {name.lower(): name for name in [*ALIASES, *names] if name not in MEANT}
    found = {column: known[column.lower()] for column in table.columns if column.lower() in known}
    ours = list(found.values())
    return {column: name for column, name in found.items() if name not in table and ours.count(name) == 1}


def split_words(words: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """{column: {word: ours}}, in lower case, of {"gender:V": "female", "gender:?": ""}.

    Raises: ValueError for a key without a column.

    >>> split_words({"gender:V": "female", "gender:?": ""})
    {'gender': {'v': 'female', '?': ''}}
    """
    found: dict[str, dict[str, str]] = {}
    for key, wanted in words.items():
        column, colon, word = key.partition(":")
        if not colon:
            raise ValueError(f"labels= maps {key!r}; expected column:word, as {{'gender:V': 'female'}}")
        found.setdefault(column.strip().lower(), {})[word.strip().lower()] = wanted
    return found


def mapped_cells(
    table: pd.DataFrame, words: Mapping[str, Mapping[str, str]], columns: Mapping[str, str]
) -> tuple[pd.DataFrame, set[str]]:
    """The table with other words in its cells, {column: {word: ours}} of `split_words`, and which columns it had.

    columns: our names -> the table's own, either of which may be given.
    """
    own = {name.lower(): ours for ours, theirs in columns.items() for name in (theirs, ours)}
    own |= {name.lower(): name for name in table.columns}
    there = {column: own[column] for column in words if column in own}
    for column, name in there.items():
        if name not in table:  # labels that are not read
            continue
        cells = table[name].tolist()
        table = table.assign(**{name: [words[column].get(cell.strip().lower(), cell) for cell in cells]})
    return table, set(there)
