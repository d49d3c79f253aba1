"""The packed cache: the crops of photos, decoded once, in memory-mapped files that runs, folds and processes share.

A crop is found by what its pixels depend on: the photo's bytes, the region, the reduction of the decode and the size.
So a moved or copied collection is found again, and a changed photo or box is not. The folder (by default
multihead/crops under $XDG_CACHE_HOME or ~/.cache) may be deleted at any time, a run in progress included: what is
missing is decoded again. What no run has read for `UNUSED` days is deleted when others are written. `cache=False`
(--no-cache) keeps crops in memory instead, up to `MEMORY`.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from multihead import ranks
from multihead.contents import Content, Contents
from multihead.crops import Box, Crop, Region
from multihead.cutting import CUTTING, crop_regions, cut_at, reduction_for
from multihead.files import cache_folder, turn
from multihead.images import open_image
from multihead.logs import bar, watched
from multihead.packs import FileWriter, Kept, MemoryWriter, Pack, Shelf, delete_unused, mark_used

LIMIT = 8 << 30  # bytes that one set of photos may add to the folder, and never more than half of the free disk
MEMORY = 2 << 30  # bytes of crops kept in memory where they are not kept on disk
UNUSED = 60  # days after which crops that no run has read are deleted, when others are written
PIECE = 256 << 20  # bytes of crops that are written as one pack: what a killed process loses
PIXELS = 2  # grows when crops of the same photos come out otherwise: those that were kept are not read then
_CHUNK = 128  # photos decoded before they are written


class Wanted(NamedTuple):
    """A photo whose crops are wanted: its file, its face box if known, and whether it is a tight face."""

    path: str
    box: Box | None
    whole: bool


class _Plan(NamedTuple):
    content: Content
    regions: list[Region | None]
    reduction: int
    keys: list[bytes | None]  # one a crop, None for an absent one


class Cache:
    """Crops that were decoded once, in a folder, or in this process's memory without one.

    limit: bytes that one set may add to the folder. memory: bytes that all sets together may take in memory where the
    folder cannot have them.
    """

    def __init__(self, folder: str | Path | None = None, *, limit: int = LIMIT, memory: int = MEMORY) -> None:
        self.folder, self.limit, self.memory = None if folder is None else Path(folder), limit, memory
        self.contents = Contents(None if self.folder is None else self.folder / "contents")
        self.shelves: dict[str, Shelf] = {}
        self.taken = 0

    def keep(self, photos: Sequence[Wanted], crops: Sequence[Crop], workers: int = 1) -> tuple[Kept, dict[int, str]]:
        """The photos' crops where they are kept, decoded now where they were not yet; and {row: why} of the photos
        that cannot be read."""
        reasons: dict[int, str] = {}
        with ThreadPoolExecutor(max(1, workers)) as pool:
            job = _Job(photos, crops, [self._shelf(crop) for crop in crops], pool, reasons)
            job.plan(self.contents)
            self._remember()
            missing = job.missing()
            if missing and self.folder is not None:
                missing = self._to_disk(job, missing)
            if missing and self.taken + job.bytes(missing) <= self.memory:
                self.taken += job.bytes(missing)
                job.write(missing, self.contents, lambda shelf: MemoryWriter(len(missing), shelf.size), sys.maxsize)
                missing = job.missing()
            job.check_readable(missing, self.contents)
            mark_used(job.packs())
            return job.kept(), reasons

    def _shelf(self, crop: Crop) -> Shelf:
        name = f"{crop.region}-{crop.margin:g}-{crop.size[0]}x{crop.size[1]}-v{CUTTING}"
        if name not in self.shelves:
            self.shelves[name] = Shelf(None if self.folder is None else self.folder / name, crop.size)
        return self.shelves[name]

    def _remember(self) -> None:
        with contextlib.suppress(OSError):  # the folder says so itself when crops are to be written
            self.contents.save()

    def _to_disk(self, job: _Job, missing: list[int]) -> list[int]:
        """What is still missing after the crops of these rows were written as far as the disk allows."""
        assert self.folder is not None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (lock := self.folder / "lock").touch()  # where nothing can be written it says so
            with turn(lock, lambda: ranks.tell(f"waiting for another process that writes to {self.folder}")):
                missing = job.missing()  # another process may have written them meanwhile
                if missing:
                    self._tidy(job)
                if missing and self._has_room(job.bytes(missing)):
                    for shelf in job.shelves:
                        shelf.tidy()
                    job.write(missing, self.contents, lambda shelf: FileWriter(shelf.home, shelf.size), PIECE)
        except OSError as error:
            ranks.say(f"crops are not kept in {self.folder}: {error.strerror or error}")
        return job.missing()

    def _tidy(self, job: _Job) -> None:
        """Delete what no run has read for long, this one included."""
        assert self.folder is not None
        mark_used(job.packs())
        if freed := delete_unused(self.folder, UNUSED * 86400):
            ranks.tell(f"deleted crops that no run has read for {UNUSED} days, {_mb(freed)}, from {self.folder}")

    def _has_room(self, needed: int) -> bool:
        free = shutil.disk_usage(self.folder or ".").free
        room = min(self.limit, free // 2)
        where = f"in {self.folder}; --cache-folder (cache=) names another, --no-cache (cache=False) none"
        if needed > room:
            ranks.say(
                f"crops take {_mb(needed)}, of {_mb(room)} at most (half of the free disk is {_mb(free // 2)}) {where}"
            )
            return False
        ranks.tell(f"keeping crops, {_mb(needed)}, {where}")
        return True


def open_cache(cache: bool | str | Path | Cache) -> Cache:
    """The cache that a `cache=` argument asks for: True: in the user's cache folder, False: in memory, or a folder.

    >>> open_cache(False).folder is None
    True
    """
    if isinstance(cache, Cache):
        return cache
    if isinstance(cache, bool):
        return Cache(cache_folder() / "crops" if cache else None)
    return Cache(cache)


class _Job:
    """One call of `Cache.keep`."""

    def __init__(
        self,
        photos: Sequence[Wanted],
        crops: Sequence[Crop],
        shelves: Sequence[Shelf],
        pool: ThreadPoolExecutor,
        reasons: dict[int, str],
    ) -> None:
        self.photos, self.crops, self.shelves, self.pool, self.reasons = photos, crops, shelves, pool, reasons
        self.plans: list[_Plan | None] = []

    def plan(self, contents: Contents) -> None:
        """Say of each photo what its crops' pixels depend on."""

        def one(photo: Wanted) -> _Plan | str:
            try:
                content = contents.of(photo.path)
            except (ValueError, OSError) as error:
                return str(error)
            try:
                regions = crop_regions(content.size, self.crops, photo.box, photo.whole)
            except ValueError as error:
                return f"{photo.path!r}: {error}"
            reduction = reduction_for(self.crops, regions)
            keys = [None if region is None else _key(content, region, reduction) for region in regions]
            return _Plan(content, regions, reduction, keys)

        for row, found in enumerate(self.pool.map(one, self.photos)):
            self.plans.append(found if isinstance(found, _Plan) else None)
            if isinstance(found, str):
                self.reasons[row] = found

    def missing(self) -> list[int]:
        """The rows that can be read, as far as is known, of which a crop is not kept."""
        for column, shelf in enumerate(self.shelves):
            shelf.refresh()
            keys = [plan.keys[column] for plan in self.plans if plan]
            shelf.check([key for key in keys if key is not None], self.pool)
        return [row for row, plan in enumerate(self.plans) if plan and row not in self.reasons and self._lacks(plan)]

    def _lacks(self, plan: _Plan | None) -> list[int]:
        """The columns of the crops that are not kept."""
        assert plan is not None
        return [
            column
            for column, (key, shelf) in enumerate(zip(plan.keys, self.shelves))
            if key is not None and key not in shelf.places
        ]

    def packs(self) -> list[Pack]:
        """Those that hold any of these crops, also where other crops of a photo are missing."""
        found: dict[int, Pack] = {}
        for column, shelf in enumerate(self.shelves):
            places = [shelf.places.get(plan.keys[column] or b"") for plan in self.plans if plan]
            found |= {id(place[0]): place[0] for place in places if place}
        return list(found.values())

    def bytes(self, rows: Sequence[int]) -> int:
        """What the crops of these rows take."""
        sizes = [3 * crop.size[0] * crop.size[1] for crop in self.crops]
        return sum(sizes[column] for row in rows for column in self._lacks(self.plans[row]))

    def cut(self, row: int, contents: Contents) -> list[np.ndarray] | str:
        """The crops of a photo, or why it cannot be read."""
        photo, plan = self.photos[row], self.plans[row]
        assert plan is not None
        try:
            cuts = cut_at(open_image(photo.path), self.crops, plan.regions, plan.reduction)
            if contents.of(photo.path).digest == plan.content.digest:
                return cuts
            return f"{photo.path!r}: changed while it was read"
        except (ValueError, OSError) as error:
            return str(error)

    def write(
        self,
        rows: Sequence[int],
        contents: Contents,
        writer: Callable[[Shelf], FileWriter | MemoryWriter],
        piece: int,
    ) -> None:
        """Decode these rows and keep their crops, as packs of some `piece` bytes; what is whole stays when this stops.

        Raises: OSError where a pack cannot be written.
        """
        width = sum(3 * crop.size[0] * crop.size[1] for crop in self.crops)
        step = max(_CHUNK, piece // width)
        with bar(len(rows), "decoding", ranks.first() and watched()) as shown:
            for start in range(0, len(rows), step):
                with self._writing(writer) as writers:
                    for row, cuts in self._decoded(rows[start : start + step], contents):
                        if isinstance(cuts, str):
                            self.reasons[row] = cuts
                        else:
                            self._add(row, cuts, writers)
                        shown.update()

    def _decoded(self, rows: Sequence[int], contents: Contents) -> Iterator[tuple[int, list[np.ndarray] | str]]:
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            yield from zip(chunk, self.pool.map(lambda row: self.cut(row, contents), chunk))

    def _add(self, row: int, cuts: Sequence[np.ndarray], writers: Sequence[FileWriter | MemoryWriter]) -> None:
        plan = self.plans[row]
        assert plan is not None
        for column in self._lacks(plan):
            writers[column].add(plan.keys[column] or b"", cuts[column])

    @contextlib.contextmanager
    def _writing(
        self, writer: Callable[[Shelf], FileWriter | MemoryWriter]
    ) -> Iterator[list[FileWriter | MemoryWriter]]:
        """A writer for each crop; their packs are added at the end, an interrupted one included."""
        writers: list[FileWriter | MemoryWriter] = []
        try:
            writers += [writer(shelf) for shelf in self.shelves]
            yield writers
        finally:
            try:
                for shelf, each in zip(self.shelves, writers):
                    shelf.add(each.close())
            finally:
                for each in writers:
                    each.drop()

    def check_readable(self, rows: Sequence[int], contents: Contents) -> None:
        """Decode the rows that are kept nowhere, to say which cannot be read."""
        for row, cuts in self._decoded(rows, contents):
            if isinstance(cuts, str):
                self.reasons[row] = cuts

    def kept(self) -> Kept:
        """Where everything stands."""
        kept = Kept(self.crops, len(self.plans))
        numbers: dict[int, int] = {}
        for row, plan in enumerate(self.plans):
            if plan is None or row in self.reasons or self._lacks(plan):
                continue
            kept.here[row] = True
            for column, (key, shelf) in enumerate(zip(plan.keys, self.shelves)):
                kept.regions[row, column] = plan.regions[column] or 0
                pack, place = (None, -1) if key is None else shelf.places[key]
                if pack is not None and id(pack) not in numbers:
                    numbers[id(pack)] = len(kept.packs)
                    kept.packs.append(pack)
                kept.pack[row, column], kept.place[row, column] = numbers.get(id(pack), 0), place
        return kept


def _key(content: Content, region: Region, reduction: int) -> bytes:
    place = struct.pack("<6i", *region, reduction, PIXELS)
    return hashlib.blake2b(content.digest + place, digest_size=16).digest()


def _mb(count: int) -> str:
    return f"{-(-count // 1_000_000)} MB"
