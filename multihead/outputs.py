"""What an output folder holds, told by its files: one of a kind only, else one would answer for the other."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from multihead.files import give_up, remove_torn, take

OWN = ("checkpoints", "model")  # folders of a run that nobody but its training writes into


def kinds(folder: str | Path) -> list[str]:
    """Of "an ensemble", "a model", "folds", "a comparison", "a search" and "a run" those whose files are in the
    folder."""
    folder = Path(folder)
    table = (folder / "photos.csv").is_file()
    marks = {
        "an ensemble": (folder / "ensemble.json").exists(),
        "a model": (folder / "config.json").exists(),
        "folds": table and any(folder.glob("fold[0-9]*")),
        "a comparison": table and (folder / "runs").is_dir(),
        "a search": (folder / "study.journal").exists(),
        "a run": (folder / "checkpoints").is_dir() or (folder / "model").is_dir(),
    }
    return [kind for kind, there in marks.items() if there]


def check_kind(folder: str | Path, kind: str) -> None:
    """Nothing where an output folder is new, or holds what is to be written into it.

    Raises: FileExistsError where it holds another kind; NotADirectoryError where it is a file.
    """
    if Path(folder).is_file():
        raise NotADirectoryError(f"{folder} is a file; name a folder (--output) for {kind}")
    held = kinds(folder)
    if held and kind not in held:
        raise FileExistsError(f"{folder} holds {held[0]}; name another folder (--output) for {kind}")


@dataclass
class Claim:
    """A run folder that no other run writes into until it is released. last: its last checkpoint, None where the run
    starts."""

    folder: Path
    last: Path | None
    lock: TextIO | None = None
    made: bool = False

    def release(self) -> None:
        """Let others have the folder, which goes where it was made for this and nothing was written into it."""
        if self.lock is not None:
            give_up(self.lock)
            if self.made:
                with contextlib.suppress(OSError):
                    self.folder.rmdir()
        self.lock = None

    def __del__(self) -> None:
        self.release()  # of a run that nobody went on with


def claim(folder: str | Path, *, resume: bool, alone: bool = True) -> Claim:
    """The folder for one run, new or (resume) going on; alone: keep other processes out, which one of several does.

    Raises: FileExistsError where it holds a run and `resume` is not said, a finished one without checkpoints, or
    something else, and where another process trains into it; NotADirectoryError where it is a file.
    """
    folder = Path(folder)
    check_kind(folder, "a run")
    made = not folder.exists()
    lock = _take(folder) if alone else None
    if alone and lock is None:
        raise FileExistsError(f"another run is being trained into {folder}; wait for it, or name another folder")
    found = Claim(folder, folder / "checkpoints" / "last.pt", lock, made)
    try:
        _check_begun(found, resume)
    except FileExistsError:
        found.release()
        raise
    if alone:
        for name in OWN:  # a killed run would leave a file as large as its checkpoint each time
            remove_torn(folder / name)
    return found


def _take(folder: Path) -> TextIO | None:
    """The lock of a folder, which is made; None where another run has it."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another run has just given it up
            return take(folder / ".lock")


def _check_begun(found: Claim, resume: bool) -> None:
    if found.last is not None and not found.last.exists():
        if (found.folder / "model").exists():
            raise FileExistsError(
                f"{found.folder} holds a finished run, whose checkpoints are gone; name another folder (--output)"
            )
        found.last = None
    if found.last is not None and not resume:
        raise FileExistsError(
            f"{found.folder} holds a run; pass resume=True (--resume) to go on, or name another folder (--output)"
        )
