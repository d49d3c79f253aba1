"""Output folders that are there whole, or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from multihead.files import give_up, naming, take, write_text

MARKS = ("config.json", "ensemble.json")  # what `multihead.load` looks for, which comes last
MOVED = "moved.json"  # in the scratch folder: the names that are put into a folder that was there


@contextlib.contextmanager
def whole_folder(folder: str | Path, what: str) -> Iterator[Path]:
    """A scratch folder for the content of a new or empty one, which gets it when the block ends without an error.

    what: the folder is for, as errors say. What killed processes left of the same folder is removed.

    Raises: FileExistsError where the folder is not empty, or another process writes it; OSError of the file system,
    naming the folder.
    """
    folder = Path(folder)
    # beside the folder, so that it is put in place by its name alone; in one that is there, which may be a mount
    place = folder if folder.is_dir() else folder.parent
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; name a new folder for {what}")
    with naming(folder):
        place.mkdir(parents=True, exist_ok=True)
        lock = take(place / f".{folder.name}.lock")
    if lock is None:
        raise FileExistsError(f"another process is writing {folder}; wait for it, or name a new folder for {what}")
    try:
        _remove_left(folder, place)
        if folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise FileExistsError(f"{folder} is not empty; name a new folder for {what}")
        with naming(folder), tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=place) as scratch:
            whole = Path(scratch) / "whole"
            whole.mkdir()
            yield whole
            _put(whole, folder, Path(scratch) / MOVED)
    finally:
        give_up(lock)


def _remove_left(folder: Path, place: Path) -> None:
    """Remove the scratch folders of killed processes, and what the last of them had put in place."""
    own = re.compile(rf"\.{re.escape(folder.name)}-[a-z0-9_]{{8}}")  # not that of a folder called <name>-more
    for scratch in place.iterdir():
        if own.fullmatch(scratch.name) and (scratch / "whole").is_dir():
            if (scratch / MOVED).is_file():
                _take_back(folder, json.loads((scratch / MOVED).read_text()))
            shutil.rmtree(scratch, ignore_errors=True)


def _put(whole: Path, folder: Path, moved: Path) -> None:
    """Give a folder its name, or its content to the empty one that has it, last what `multihead.load` looks for."""
    if not folder.exists():
        os.replace(whole, folder)
        return
    names = sorted((part.name for part in whole.iterdir()), key=lambda name: (name in MARKS, name))
    write_text(moved, json.dumps(names))
    try:
        for name in names:
            os.replace(whole / name, folder / name)
    except BaseException:
        _take_back(folder, names)
        raise
    moved.unlink()


def _take_back(folder: Path, names: list[str]) -> None:
    """Remove what was put into a folder, unless all of it was."""
    if names and (folder / names[-1]).exists():
        return
    for name in names:
        part = folder / name
        shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)
