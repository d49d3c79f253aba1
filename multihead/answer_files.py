"""The file of a long table of answers: it grows beside its place, and an interrupted call is gone on with."""

import contextlib
import csv
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from multihead.files import locked, naming
from multihead.logs import tell
from multihead.prediction import Tally


@dataclass(frozen=True)
class Begun:
    """A table that is being written: the photos that it holds, in order, what was counted of them, where its further
    text goes, and when it was last written to (nanoseconds)."""

    done: Sequence[str]
    tally: Tally
    write: Callable[[str], object]
    since: int | None = None


@contextlib.contextmanager
def going_on(path: str | Path, columns: Sequence[str], settings: Mapping[str, object]) -> Iterator[Begun]:
    """A table of answers that takes the place of `path` when the block ends without an error.

    Until then it stands beside it, named .part. One of the same settings (plain data) that an interrupted call left is
    gone on with, from its last photo on, which may lack rows; the parts of others go when a table is whole.

    Raises: ValueError where another process writes the same table; OSError of the file system, naming `path`.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path, {"columns": list(columns), **settings})
    with naming(path), locked(part) as mine:
        if not mine:
            raise ValueError(f"another process writes the same answers to {path}; wait for it, or name another file")
        since = part.stat().st_mtime_ns
        done, tally, end = _kept(part)
        os.truncate(part, end)
        if done:
            tell(f"going on after {tally.rows} rows that an interrupted call left in {part}; remove it to begin anew")
        try:
            with open(part, "a", encoding="utf-8", errors="surrogateescape", newline="") as stream:
                yield Begun(done, tally, functools.partial(print, end="", file=stream, flush=True), since)
        except BaseException:
            if part.stat().st_size:
                tell(f"{_kept(part)[1].rows} whole rows are in {part}")
            else:
                part.unlink()
            raise
        if not part.stat().st_size:  # no photos: what stands at `path` stays
            part.unlink()
            return
        os.replace(part, path)
        for old in _parts(path):
            with locked(old) as idle:
                if idle:
                    old.unlink(missing_ok=True)


def stamps(paths: Iterable[str | Path]) -> dict[str, tuple[int, int]]:
    """The size and time of each file, and of all files in each folder: {path: (bytes, nanoseconds)}."""
    files = [file for path in map(Path, paths) for file in (path.rglob("*") if path.is_dir() else [path])]
    return {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(files) if file.is_file()}


def _part(path: Path, settings: Mapping[str, object]) -> Path:
    text = json.dumps([path.name, settings], sort_keys=True)
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return path.with_name(f"{_stem(path)}.{digest}.part")


def _parts(path: Path) -> list[Path]:
    """What interrupted calls left beside a table."""
    stem = _stem(path)
    return [file for file in path.parent.iterdir() if _is_part(file.name, stem)]


def _is_part(name: str, stem: str) -> bool:
    digest = name.removeprefix(f"{stem}.").removesuffix(".part")
    return name == f"{stem}.{digest}.part" and len(digest) == 8 and set(digest) <= set("0123456789abcdef")


def _stem(path: Path) -> str:
    return path.name[:60]  # `path` may have the longest name there is


def _kept(part: Path) -> tuple[list[str], Tally, int]:
    """(the photos whose rows are all there, what was counted of them, how many bytes they take with the header)."""
    done, tally, end, before = [], Tally(), 0, 0
    last: list[dict[str, str]] = []  # the rows of a photo that may lack some
    with open(part, "rb") as stream, contextlib.suppress(csv.Error):
        for row in csv.DictReader(_lines(stream)):
            if None in row or None in row.values():  # torn
                break
            if last and row["path"] != last[0]["path"]:
                for each in last:
                    lacks_face = not each["box"] and each["face"] != "whole"
                    tally.add(each["path"], each["label"] != "", lacks_face)
                done.append(last[0]["path"])
                last, end = [], before
            last.append(row)
            before = stream.tell()
    return done, tally, end


def _lines(stream: IO[bytes]) -> Iterator[str]:
    while line := stream.readline():  # iterating would forbid tell()
        yield line.decode("utf-8", "surrogateescape")
