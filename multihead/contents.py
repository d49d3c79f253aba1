"""What a photo file holds: a digest of its bytes and its size, remembered while the file is as it was."""

from __future__ import annotations

import hashlib
import os
import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from multihead.files import replace_file
from multihead.images import open_image

_ENTRY = np.dtype([("file", "V16"), ("digest", "V16"), ("size", "<i4", 2)])
_YOUNG = 2_000_000_000  # ns: a file written so recently may be written again within one tick of its clock


class Content(NamedTuple):
    """Digest of a file's bytes, and (height, width) of the upright photo."""

    digest: bytes
    size: tuple[int, int]


class Contents:
    """The contents of photo files, kept in the file `index` where there is one.

    A file counts as the same while its path, size and times of change are. An index that is damaged is not used.
    """

    def __init__(self, index: Path | None = None) -> None:
        self.index, self.known, self.added = index, _read(index), False

    def of(self, file: str) -> Content:
        """What the file holds; it is read only if it is new or changed. Threads may ask at once.

        Raises: ImageError for what is no photo, as `open_image`.
        """
        before = _stamp(file)
        if before is not None and (found := self.known.get(before)):
            return found
        size = open_image(file).size
        with open(file, "rb") as stream:
            content = Content(hashlib.file_digest(stream, _digest).digest(), size)
        if before is not None and before == _stamp(file) and time.time_ns() - os.stat(file).st_mtime_ns > _YOUNG:
            self.known[before], self.added = content, True
        return content

    def save(self) -> None:
        """Write the index with what was added, and what other processes added meanwhile. Raises: OSError."""
        if self.index is None or not self.added:
            return
        self.known = _read(self.index) | self.known
        entries = np.array([(file, found.digest, found.size) for file, found in self.known.items()], _ENTRY)
        data = entries.tobytes()
        replace_file(self.index, lambda fresh: fresh.write_bytes(zlib.crc32(data).to_bytes(4, "little") + data))
        self.added = False


def _digest(data: bytes = b"") -> Any:
    return hashlib.blake2b(data, digest_size=16)


def _stamp(file: str) -> bytes | None:
    """A digest of path, size and time of change; None where the file cannot be asked."""
    try:
        found = os.stat(file)
    except (OSError, ValueError):
        return None
    text = f"{os.path.abspath(file)}\0{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"
    return _digest(text.encode("utf-8", "surrogateescape")).digest()


def _read(index: Path | None) -> dict[bytes, Content]:
    try:
        data = b"" if index is None else index.read_bytes()
    except OSError:
        return {}
    if len(data) < 4 or int.from_bytes(data[:4], "little") != zlib.crc32(data[4:]) or (len(data) - 4) % _ENTRY.itemsize:
        return {}
    return {
        bytes(file): Content(bytes(digest), (height, width))
        for file, digest, (height, width) in np.frombuffer(data, _ENTRY, offset=4).tolist()
    }
