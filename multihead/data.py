"""Photos: an immutable table of files, what is known of them, and who is on them; parts that never share a person."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multihead import splits
from multihead.cells import BOX
from multihead.files import write_text
from multihead.heads import JOINT, UNKNOWN, Head, base, number_column, numbers, span_column
from multihead.labels import bands, class_index, class_indices
from multihead.leaks import check_disjoint
from multihead.sources import named_unlike
from multihead.written import written

if TYPE_CHECKING:
    import pandas as pd

CORE = ["path", "name", "root", "source", "person", "split", "years", *BOX, "whole", "searched"]


@dataclass(frozen=True, eq=False)
class Photos:
    """A table of photos, one row a face or photo; every method returns a new table.

    table: columns path (absolute), name (as the source wrote it), root, source, person ("" = unknown), split, years
    (age, NaN = unknown; any other number that heads band has a column as "height:number"), x0 y0 x1 y1 (face box in
    pixels, NaN = none), whole (a tight face: the photo is the box), searched (a face was looked for), one column of
    class numbers per head (-1 = unknown; the band of a number that is known), and any other column of the source as
    text. heads: the heads that the labels were read for. Made by `multihead.read`.
    """

    table: pd.DataFrame
    heads: tuple[Head, ...]

    def __post_init__(self) -> None:
        counted = [head for head in self.heads if head.number is not None and head.edges]
        labels = self.labels(counted).T
        columns = {head.name: found for head, found in zip(counted, labels) if (found != self.table[head.name]).any()}
        if columns:
            object.__setattr__(self, "table", self.table.assign(**columns))

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        known = ", ".join(f"{name} {count}" for name, count in self.known().items())
        people = len(set(self.people) - {""})
        return f"Photos({len(self)} rows, {people} people named; known: {known})"

    def __getitem__(self, rows: Any) -> Photos:
        """Some rows: a mask, row numbers or a slice."""
        chosen = np.arange(len(self))[rows]
        return Photos(self.table.iloc[np.atleast_1d(chosen)].reset_index(drop=True), self.heads)

    def __add__(self, other: Photos) -> Photos:
        """Both tables, one after the other. People of two folders or files of one name stay apart: the second's source
        is then named with the folder that it is in; a name that was given by hand means one source.

        Raises: ValueError where a file, with the same box, is in both, or where the heads differ.
        """
        import pandas as pd

        if not isinstance(other, Photos):
            return NotImplemented
        if _questions(self.heads) != _questions(other.heads):
            raise ValueError(f"photos read for heads {_names(self.heads)} and {_names(other.heads)} cannot be joined")
        both = pd.concat([self.table, named_unlike(other.table, self.table)], ignore_index=True)
        extra = list(dict.fromkeys(self.extra + other.extra))
        both[extra] = both[extra].fillna("")
        repeated = both.duplicated(["path", *BOX])
        if repeated.any():
            raise ValueError(
                f"{int(repeated.sum())} files are in both tables, for one {both.path[repeated].iloc[0]}; "
                "leave them out of one"
            )
        return Photos(both, self.heads)

    @property
    def paths(self) -> list[str]:
        """Absolute path of each row."""
        return self.table.path.tolist()

    @property
    def people(self) -> list[str]:
        """Person key of each row, "" = unknown."""
        return self.table.person.tolist()

    @property
    def boxes(self) -> np.ndarray:
        """Face boxes (N, 4) in pixels, NaN where there is none."""
        return self.table[BOX].to_numpy(np.float64)

    @property
    def extra(self) -> list[str]:
        """Names of the source's other columns, kept as text."""
        counted = [of(number) for number in numbers(self.heads) for of in (number_column, span_column)]
        own = [*CORE, *_names(self.heads), *counted]
        return [column for column in self.table.columns if column not in own]

    def known(self) -> dict[str, int]:
        """How many rows each head's label is known for."""
        labels = self.labels(self.heads)
        return {head.name: int((labels[:, column] != UNKNOWN).sum()) for column, head in enumerate(self.heads)}

    def labels(self, heads: Sequence[Head] | None = None) -> np.ndarray:
        """Class numbers (N, heads), -1 = unknown; years become bands by each head's own edges (by those of
        reading where it has none).

        heads: any table of heads whose names and classes the photos were read for (default: all of them).

        Raises: KeyError for a head the photos were not read for, ValueError where its classes differ.
        """
        columns = []
        for head in base(self.heads if heads is None else heads):
            own = {known.name: known for known in self.heads}.get(head.name)
            if own is None:
                raise KeyError(f"photos were read for heads {_names(self.heads)}, not {head.name!r}; pass read(heads=)")
            if own.classes != head.classes:
                raise ValueError(f"head {head.name!r} has classes {head.classes}, the photos {own.classes}")
            label = self.table[head.name].to_numpy(np.int64)
            found = self.numbers(head)
            if edges := head.edges or own.edges:
                label = np.where(np.isnan(found), label, bands(found, edges))
            columns.append(label)
        return np.stack(columns, axis=1) if columns else np.empty((len(self), 0), np.int64)

    def numbers(self, head: Head) -> np.ndarray:
        """The numbers (N,) that a head bands, NaN where unknown: everywhere where the photos were not read for them."""
        own = next((known for known in self.heads if known.name == head.name), head)
        column = number_column(own.number) if own.number is not None else ""
        return self.table[column].to_numpy(float) if column in self.table else np.full(len(self), np.nan)

    def where(self, test: Callable[[pd.DataFrame], object] | None = None, **values: object) -> Photos:
        """The rows that pass: a function of the table to a mask, or column=value or list of values.

        A head's value is a class by name or index: `photos.where(mask="worn", source=["aaf", "rmfd"])`.

        Raises: KeyError that lists the columns, ValueError for a value that is no class of its head.
        """
        keep = np.ones(len(self), bool) if test is None else np.asarray(test(self.table), bool)
        labels = dict(zip(_names(self.heads), self.labels().T))
        for column, wanted in values.items():
            if column not in self.table:
                raise KeyError(f"photos have no column {column!r}; there are {list(self.table.columns)}")
            found = labels.get(column, self.table[column].to_numpy())
            options: Iterable[Any] = wanted if isinstance(wanted, (list, tuple, set)) else [wanted]
            head = next((head for head in self.heads if head.name == column), None)
            keep = keep & np.isin(found, [class_index(head, option) if head else option for option in options])
        return self[keep]

    def part(self, name: str) -> Photos:
        """The rows whose split column says `name` ("train", "val" or "test").

        Raises: ValueError where there are none.
        """
        chosen = self[self.table.split.to_numpy() == name]
        if not len(chosen):
            there = sorted(set(self.table.split))
            raise ValueError(f"no photo has split {name!r}; the split column holds {there}; use photos.split(0.2)")
        return chosen

    def parts(self) -> dict[str, Photos]:
        """All named parts of the split column.

        Raises: LeakError where a person or file is in two of them.
        """
        found = {name: self.part(name) for name in ("train", "val", "test") if (self.table.split == name).any()}
        names = list(found)
        for first, left in enumerate(names):
            for right in names[first + 1 :]:
                check_disjoint(found[left], found[right])
        return found

    def groups(self) -> np.ndarray:
        """Group (N,) of each row: rows of one person, one file, or files of the same bytes belong together."""
        return splits.groups(self.people, self.paths, self.digests())

    def split(self, share: float = 0.2, *, seed: int = 0) -> tuple[Photos, Photos]:
        """Training and validation photos: `share` of the rows validates, no person or file on both sides, each
        kind of person (by what is known of them) in both.

        Raises: ValueError for a share outside 0..1 or too few people.
        """
        if not isinstance(share, Real) or not 0 < share < 1:
            raise ValueError(f"split share is {share!r}; expected a number between 0 and 1, for example 0.2")
        part = splits.deal(self.groups(), self.labels(), (1 - share, share), seed)
        return self[part == 0], self[part == 1]

    def folds(self, count: int = 5, *, seed: int = 0) -> list[tuple[Photos, Photos]]:
        """`count` pairs of training and validation photos; every row validates once, people stay whole.

        Raises: ValueError for fewer than two folds or fewer people than folds.
        """
        if not isinstance(count, Integral) or count < 2:
            raise ValueError(f"folds({count!r}) is no cross-validation; expected a whole number, 2 or more")
        fold = splits.deal(self.groups(), self.labels(), (1 / count,) * count, seed)
        return [(self[fold != number], self[fold == number]) for number in range(count)]

    def digests(self) -> list[str]:
        """Digest of each file that may equal another (same size), "" for the rest and for unreadable files."""
        return splits.digests(self.paths)

    def with_columns(self, **columns: Any) -> Photos:
        """The same photos with columns replaced or added, each of length N or one value; of a head by name or index.

        Raises: ValueError for a value that is no class of its head, or not that of a known number, which counts.
        """
        table = self.table.assign(**columns)  # a Series goes by its index
        labels, asked = {}, []
        for head in self.heads:
            number = "" if head.number is None else number_column(head.number)
            if head.name in columns:
                labels[head.name] = class_indices(head, table[head.name])
                asked += [] if number in columns else [(head.name, number)]
            elif number in columns:  # a band goes with its number
                labels[head.name] = np.where(np.isnan(self.numbers(head)), table[head.name], UNKNOWN)
        made = Photos(table.assign(**labels), self.heads)
        for name, number in asked:
            if unlike := int((labels[name] != made.table[name].to_numpy()).sum()):
                raise ValueError(
                    f"{name}: {unlike} rows have a number in {number!r} that is not of the class given; give "
                    f"{number} too, float('nan') where it is unknown"
                )
        return made

    def counts(self) -> pd.DataFrame:
        """One row a head and class: how many photos and how many named people."""
        import pandas as pd

        labels, people, rows = self.labels(), np.array(self.people, object), []
        for column, head in enumerate(self.heads):
            for index, name in [*enumerate(head.classes), (UNKNOWN, "unknown")]:
                chosen = labels[:, column] == index
                rows.append((head.name, name, int(chosen.sum()), len(set(people[chosen]) - {""})))
        return pd.DataFrame(rows, columns=["head", "class", "photos", "people"])

    def fingerprint(self) -> str:
        """Digest of everything that training reads: paths, labels, boxes, a teacher's answers, several sources."""
        import pandas as pd

        taught = [column for column in self.extra if column.startswith(JOINT)]
        sources = ["source"] if self.table.source.nunique() > 1 else []  # which photos are drawn may depend on them
        numbered = [column for column in map(number_column, numbers(self.heads)) if column != "years"]
        read = self.table[["years", *numbered, *BOX, "whole", *_names(self.heads), *taught, *sources]]
        plain: dict[str, Any] = {"path": [ascii(path) for path in self.paths]}  # not only UTF-8
        for head in self.heads:
            if head.number is not None:  # where the number is known it alone counts, whether its band is written too
                plain[head.name] = np.where(np.isnan(self.numbers(head)), read[head.name], UNKNOWN)
        hashes = pd.util.hash_pandas_object(read.assign(**plain))
        return hashlib.sha256(hashes.to_numpy().tobytes()).hexdigest()[:16]

    def write(self, path: str | Path) -> None:
        """Write the table as a CSV that `multihead.read` reads back: absolute paths, class names, boxes, split, and
        the other columns of the source."""
        write_text(path, written(self.table, self.heads, self.labels(), self.extra).to_csv(index=False))


def write_splits(path: str | Path, parts: Mapping[str, Photos]) -> None:
    """Write parts as one table with a split column, which reads back as the same parts."""
    import pandas as pd

    tables = [photos.with_columns(split=name).table for name, photos in parts.items()]
    heads = next(iter(parts.values())).heads
    Photos(pd.concat(tables, ignore_index=True), heads).write(path)


def _names(heads: Sequence[Head]) -> list[str]:
    return [head.name for head in heads]


def _questions(heads: Sequence[Head]) -> list[tuple[object, ...]]:
    """What labels depend on: everything of the heads but their crops."""
    return [(head.name, head.classes, head.edges, head.number) for head in heads]
