"""Packs: many pictures of one size in one memory-mapped file, each found by a key and checked by its own checksum.

A pack's file holds the pictures one after another, then a table of their keys and checksums, then a few bytes that say
how many there are; it appears under its name when it is whole, and is never changed.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from multihead import ranks
from multihead.crops import Crop, Region

_ROW = np.dtype([("key", "V16"), ("checksum", "<u4")])
_END = struct.Struct("<8sIIII")  # mark, pictures, height, width, checksum of the table
_MARK = b"mhpack01"


class Pack:
    """Pictures (n, H, W, 3) uint8, read-only, with their keys (16 bytes each) and checksums.

    pixels is None in another process to which a pack in memory was sent, or one whose file is gone.
    """

    def __init__(self, pixels: np.ndarray | None, table: np.ndarray, path: Path | None = None) -> None:
        self.pixels, self.table, self.path = pixels, table, path
        self.checked = np.zeros(len(table), bool)

    def keys(self) -> list[bytes]:
        """The keys in the order of the pictures."""
        return [bytes(key) for key in self.table["key"].tolist()]

    def check(self, place: int) -> bool:
        """True where the picture is what was written; asked once for each."""
        if not self.checked[place]:
            assert self.pixels is not None
            self.checked[place] = zlib.crc32(self.pixels[place].data) == self.table["checksum"][place]
        return bool(self.checked[place])

    def __reduce__(self) -> tuple[object, ...]:
        if self.path is None or self.pixels is None:
            return Pack, (None, self.table)
        return _again, (self.path, self.pixels.shape[1:3], self.table)


def _again(path: Path, size: tuple[int, int], table: np.ndarray) -> Pack:
    try:
        return open_pack(path, size)
    except (OSError, ValueError):  # deleted since
        return Pack(None, table)


def open_pack(path: Path, size: tuple[int, int]) -> Pack:
    """The pack of a file, mapped into memory; its pictures are not yet checked.

    Raises: ValueError where the file is no whole pack of pictures of this (height, width); OSError as `open`.
    """
    with open(path, "rb") as file:
        length = os.fstat(file.fileno()).st_size
        if length < _END.size:
            raise ValueError(f"{path} is no whole pack")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    mark, count, height, width, checksum = _END.unpack_from(mapped, length - _END.size)
    start = count * height * width * 3
    whole = mark == _MARK and (height, width) == size and length == start + count * _ROW.itemsize + _END.size
    if not whole or zlib.crc32(mapped[start : length - _END.size]) != checksum:
        raise ValueError(f"{path} is no whole pack of {size[0]} x {size[1]} pixels")
    pixels = np.frombuffer(mapped, np.uint8, start).reshape(count, height, width, 3)
    return Pack(pixels, np.frombuffer(mapped, _ROW, count, start).copy(), path)


def pack_files(folder: Path) -> Iterator[Path]:
    """The whole packs of a folder, in the order of their names."""
    if folder.is_dir():
        yield from sorted(folder.glob("*.pack"))


def mark_used(packs: Sequence[Pack]) -> None:
    """Let the files of these packs be as young as now, for `delete_unused`."""
    for pack in packs:
        if pack.path is not None:
            with contextlib.suppress(OSError):  # deleted since, or of a folder that cannot be written
                os.utime(pack.path)


def delete_unused(folder: Path, seconds: float) -> int:
    """Delete the packs, in the folders of a folder, that nobody has used for so long; how many bytes that frees."""
    freed, before = 0, time.time() - seconds
    for path in folder.glob("*/*.pack"):
        with contextlib.suppress(OSError):  # deleted since, or not to be deleted
            found = path.stat()
            if found.st_mtime < before and _is_pack(path):
                path.unlink()
                freed += found.st_size
    return freed


def _is_pack(path: Path) -> bool:
    """Whether the file ends as a pack does: others call other things so, and name their folder as a cache's."""
    with open(path, "rb") as file:
        file.seek(-_END.size, os.SEEK_END)
        return file.read(len(_MARK)) == _MARK


class FileWriter:
    """A pack in the making, in a file that gets its name when `close` is called."""

    def __init__(self, folder: Path, size: tuple[int, int]) -> None:
        self.folder, self.size, self.table = folder, size, []  # type: tuple[Path, tuple[int, int], list]
        folder.mkdir(parents=True, exist_ok=True)
        self.part = folder / f"{time.time_ns()}-{os.getpid()}.part"
        self.file = open(self.part, "wb")  # noqa: SIM115  (closed by close or drop)

    def add(self, key: bytes, picture: np.ndarray) -> None:
        """Write a picture (H, W, 3). Raises: OSError where the disk is full."""
        assert picture.shape == (*self.size, 3) and picture.dtype == np.uint8
        data = np.ascontiguousarray(picture).data
        self.file.write(data)
        self.table.append((key, zlib.crc32(data)))

    def close(self) -> Pack | None:
        """The whole pack, None where nothing was added. Raises: OSError."""
        try:
            if not self.table:
                return None
            table = np.array(self.table, _ROW).tobytes()
            self.file.seek(3 * self.size[0] * self.size[1] * len(self.table))  # an interrupted picture may follow
            self.file.truncate()
            self.file.write(table + _END.pack(_MARK, len(self.table), *self.size, zlib.crc32(table)))
            self.file.close()
            path = self.part.with_suffix(".pack")
            os.replace(self.part, path)
        finally:
            self.drop()
        return open_pack(path, self.size)

    def drop(self) -> None:
        """Give up what is not whole."""
        with contextlib.suppress(OSError):  # the rest of the buffer has no room either
            self.file.close()
        self.part.unlink(missing_ok=True)


class MemoryWriter:
    """A pack in the making, in memory for `count` pictures at most."""

    def __init__(self, count: int, size: tuple[int, int]) -> None:
        self.pixels, self.table = np.empty((count, *size, 3), np.uint8), []  # type: tuple[np.ndarray, list]

    def add(self, key: bytes, picture: np.ndarray) -> None:
        """Keep a picture (H, W, 3)."""
        self.pixels[len(self.table)] = picture
        self.table.append((key, 0))

    def close(self) -> Pack | None:
        """The pack, None where nothing was added."""
        if not self.table:
            return None
        pack = Pack(self.pixels[: len(self.table)], np.array(self.table, _ROW))
        pack.checked[:] = True
        return pack

    def drop(self) -> None:
        """Nothing: memory needs no name."""


class Shelf:
    """The packs of one crop, and where each picture stands."""

    def __init__(self, folder: Path | None, size: tuple[int, int]) -> None:
        self.folder, self.size = folder, size
        self.seen: set[Path] = set()
        self.places: dict[bytes, tuple[Pack, int]] = {}

    @property
    def home(self) -> Path:
        """The folder of a shelf that has one."""
        assert self.folder is not None
        return self.folder

    def add(self, pack: Pack | None) -> None:
        """Find the pictures of a pack from now on."""
        if pack is None:
            return
        if pack.path is not None:
            self.seen.add(pack.path)
        self.places |= {key: (pack, place) for place, key in enumerate(pack.keys())}

    def refresh(self) -> None:
        """Take in the packs that were written since; what is no whole pack is deleted."""
        for path in [] if self.folder is None else pack_files(self.folder):
            if path not in self.seen:
                self.seen.add(path)
                try:
                    self.add(open_pack(path, self.size))
                except ValueError as error:
                    _delete(path, str(error))
                except OSError:  # deleted meanwhile
                    pass

    def check(self, keys: Sequence[bytes], pool: ThreadPoolExecutor) -> None:
        """Look at the pictures of these keys; a pack with a damaged one is deleted."""
        found = [self.places[key] for key in keys if key in self.places]
        todo = [(pack, place) for pack, place in found if not pack.checked[place]]
        good = pool.map(lambda one: one[0].check(one[1]), todo)
        for pack in {id(pack): pack for (pack, _), whole in zip(todo, good) if not whole}.values():
            assert pack.path is not None
            _delete(pack.path, f"{pack.path} is damaged")
            self.places = {key: place for key, place in self.places.items() if place[0] is not pack}

    def tidy(self) -> None:
        """Delete what a killed process left half-written; nobody else writes now."""
        for part in self.home.glob("*.part"):
            part.unlink(missing_ok=True)


class Kept:
    """Crops of a set of photos where they are kept: on disk or in memory, or not at all."""

    def __init__(self, crops: Sequence[Crop], count: int) -> None:
        self.crops, self.packs = tuple(crops), []  # type: tuple[Crop, ...], list[Pack]
        self.here = np.zeros(count, bool)
        self.pack, self.place = np.zeros((2, count, len(crops)), np.int32)  # of which pack, which picture; -1 absent
        self.regions = np.zeros((count, len(crops), 4), np.int32)

    def get(self, row: int) -> tuple[list[np.ndarray], list[Region | None]] | None:
        """The crops (H, W, 3), not to be written to, and regions of a row as `read_crops` gives them; None where they
        are not kept."""
        if not self.here[row]:
            return None
        cuts: list[np.ndarray] = []
        for column, crop in enumerate(self.crops):
            place = self.place[row, column]
            pixels = self.packs[self.pack[row, column]].pixels if place >= 0 else _black(crop.size)[None]
            if pixels is None:  # a pack that did not reach this process
                return None
            cuts.append(pixels[place])
        edges = self.regions[row].tolist()
        return cuts, [(x0, y0, x1, y1) if x1 else None for x0, y0, x1, y1 in edges]

    def gather(self, rows: np.ndarray, column: int, pictures: np.ndarray) -> None:
        """Put the crop of this column of kept rows (B,) into `pictures` (B, H, W, 3), black where absent."""
        packs, places = self.pack[rows, column], self.place[rows, column]
        for number in np.unique(packs[places >= 0]):
            chosen = np.flatnonzero((packs == number) & (places >= 0))
            pixels = self.packs[number].pixels
            assert pixels is not None
            if len(chosen) == len(rows):  # the usual case: no second copy
                np.take(pixels, places, axis=0, out=pictures, mode="clip")
                return
            pictures[chosen] = pixels[places[chosen]]
        pictures[places < 0] = 0

    def holds(self, rows: np.ndarray) -> bool:
        """True where all these rows can be gathered in this process."""
        return bool(self.here[rows].all()) and all(pack.pixels is not None for pack in self.packs)

    def present(self, rows: np.ndarray) -> np.ndarray:
        """Which crops of kept rows are present (B, crops)."""
        return self.place[rows] >= 0


def _black(size: tuple[int, int]) -> np.ndarray:
    return np.zeros((*size, 3), np.uint8)


def _delete(path: Path, why: str) -> None:
    ranks.say(f"{why}; its crops are decoded again")
    with contextlib.suppress(OSError):
        path.unlink()
