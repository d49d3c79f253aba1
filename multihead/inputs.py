"""The photos that somebody wants answered: files, folders, tables, pixels, pictures, bytes; each with a name."""

from __future__ import annotations

import glob
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from multihead.crops import Box, box_of
from multihead.data import Photos
from multihead.images import is_open_file, is_tensor, iter_image_files
from multihead.reading import read
from multihead.sources import plain_path


@dataclass(frozen=True)
class Item:
    """One photo to answer for: its name in the table, what to read, and what is known of its face and person; searched:
    a face was looked for, so that no box means no face; scattered: other rows of the photo stand elsewhere; goes_on:
    the next row is the same photo's."""

    name: str
    source: Any
    box: Box | None = None
    whole: bool = False
    person: str = ""
    searched: bool = False
    scattered: bool = False
    goes_on: bool = False


def items(source: object) -> Iterator[Item]:
    """The photos of any accepted source, lazily, each with a name.

    Raises: TypeError for what is no source, ValueError for a CSV that cannot be read.
    """
    yield from _items(source, "photo")


def _items(source: Any, name: str) -> Iterator[Item]:
    import pandas as pd
    from PIL import Image

    if isinstance(source, Item):
        yield source
    elif isinstance(source, Photos):
        faces, names = zip(source.boxes, source.table.whole, source.table.searched), _shown(source)
        apart = _scattered(names)
        rows = zip(source.paths, names, [*names[1:], None], source.people, faces)
        for path, shown, after, person, (box, whole, searched) in rows:
            known = (box_of(box), bool(whole), person, bool(searched))
            yield Item(shown, Path(path), *known, scattered=shown in apart, goes_on=shown == after)
    elif isinstance(source, pd.DataFrame):
        yield from _items(read(source, heads=()), name)
    elif isinstance(source, (pd.Series, pd.Index)) or isinstance(source, np.ndarray) and source.dtype.kind in "OUS":
        paths = np.asarray(source, object).ravel().tolist()
        yield from _items(["" if isinstance(path, float) and path != path else path for path in paths], name)
    elif isinstance(source, (str, Path)):
        yield from _path_items(source)
    elif (isinstance(source, np.ndarray) or is_tensor(source)) and source.ndim == 4:
        yield from (Item(f"{name} {number}", image) for number, image in enumerate(source))
    elif isinstance(source, (np.ndarray, bytes, bytearray, Image.Image)) or is_tensor(source) or is_open_file(source):
        yield Item(name, source)  # before generators: an open file would give its lines
    elif isinstance(source, (list, tuple)) or hasattr(source, "__next__"):
        for number, part in enumerate(source):
            yield from _items(part, f"{name} {number}")
    else:
        kind = type(source).__name__
        expected = "expected a path, array, tensor, PIL picture, bytes, file, Photos, DataFrame, a list or a generator"
        raise TypeError(f"cannot read photos from {kind}; {expected}")


def _shown(photos: Photos) -> list[str]:
    """Each photo's name as its source wrote it; all photos' paths where sources wrote one name for unlike photos."""
    names, places = photos.table.name.tolist(), dict[str, str]()
    unlike = any(places.setdefault(name, path) != path for name, path in zip(names, photos.paths))
    return photos.paths if unlike else names


def named_as_given(photos: Photos, sources: Sequence[str]) -> Photos:
    """The photos of folders, named as they are where no table is made of them: what names them is read again as it is
    written. Those of tables keep the names that these have."""
    if not all(os.path.isdir(source) for source in sources):
        return photos
    folders = {plain_path(source): source for source in sources}
    names = list(photos.table.name)
    for row, path in enumerate(map(Path, photos.paths)):
        for whole, given in folders.items():
            if path.is_relative_to(whole):
                names[row] = str(Path(given, path.relative_to(whole)))
    return photos.with_columns(name=names)


def _scattered(names: Sequence[str]) -> set[str]:
    """The names that come again after another.

    >>> _scattered(["a", "a", "b", "c", "b"])
    {'b'}
    """
    begins = Counter(name for name, _ in groupby(names))
    return {name for name, count in begins.items() if count > 1}


def _path_items(source: str | Path) -> Iterator[Item]:
    path = Path(source)
    if not str(source).strip():
        yield Item("", "")  # not the current folder, which an empty path is to Python
    elif os.path.isdir(path):  # of a name that is too long, or where nobody may look, Path's own raises
        yield from (Item(str(file), file) for file in iter_image_files(path))
    elif path.suffix.lower() in (".csv", ".tsv", ".txt") and os.path.isfile(path):
        yield from _items(read(path, heads=()), "")
    elif not os.path.exists(path) and glob.has_magic(str(source)):
        matches = sorted(glob.glob(str(source), recursive=True))
        for match in matches or [str(source)]:
            yield from _path_items(match) if matches else [Item(match, Path(match))]
    else:
        yield Item(str(source), path)  # what is not there is a row with its reason


def is_listed(source: object, looked: int) -> bool:
    """False where something, or any of a list's first `looked` parts, gives photos one by one: it may be slow, or make
    each as it is asked. An open file is one photo, though it gives lines."""
    parts = source[:looked] if isinstance(source, (list, tuple)) else ()
    each = hasattr(source, "__next__") and not is_open_file(source)
    return not each and all(is_listed(part, looked) for part in parts)


def ahead(rest: Iterator[Item], count: int) -> tuple[deque[Item], Iterator[Item]]:
    """The first `count` photos, or those before an error, and what gives the others or raises the error in its turn."""
    first: deque[Item] = deque()
    try:
        for item in islice(rest, count):
            first.append(item)
    except Exception as error:
        return first, _raised(error)
    return first, rest


def _raised(error: Exception) -> Iterator[Item]:
    raise error
    yield


def after(rest: Iterator[Item], done: Sequence[str], since: int | None = None) -> Iterator[Item]:
    """The photos after those that are done, by their names in order; rows of one photo that follow each other are one.

    since: nanoseconds, when the last of them was answered. Raises: ValueError where the photos do not begin with these,
    or a file of theirs was written since.
    """
    if not done:
        return rest
    runs = groupby(rest, key=lambda item: item.name)
    for number, name in enumerate(done, 1):
        found, group = next(runs, ("no more", iter(())))
        if found == name and since is not None and any(_written(item.source) > since for item in group):
            raise ValueError(
                f"photo {number}, {name}, was written after it was answered; remove the .part file to begin anew"
            )
        if found != name:
            raise ValueError(
                f"photo {number} was {name} when this table was begun, and is {found} now: photos came or went; remove "
                "the .part file to begin anew"
            )
    return chain.from_iterable(group for _, group in runs)


def _written(source: object) -> int:
    """When a file was written or put in its place, in nanoseconds; 0 for what is no file that is there."""
    if not isinstance(source, (str, Path)):
        return 0
    try:
        stand = os.stat(source)
    except OSError:
        return 0
    return max(stand.st_mtime_ns, stand.st_ctime_ns)


def popped(first: deque[Item]) -> Iterator[Item]:
    """The photos, none of which is held any longer than its turn."""
    while first:
        yield first.popleft()


def chunks(rest: Iterator[Item], counts: Iterator[int]) -> Iterator[list[Item]]:
    """Lists of so many photos, as soon as they are full; the rows of one photo stay together. An error comes after
    those before it."""
    chunk: list[Item] = []
    broken: Exception | None = None
    count = next(counts)
    try:
        for item in rest:
            chunk.append(item)
            if len(chunk) >= count and not item.goes_on:
                yield chunk
                chunk, count = [], next(counts)
    except Exception as error:
        broken = error
    if chunk:
        yield chunk
    if broken is not None:
        raise broken
