"""What an output folder holds, told by its files: one of a kind only, else one would answer for the other."""

from __future__ import annotations

from pathlib import Path


def kinds(folder: str | Path) -> list[str]:
    """Of "an ensemble", "a model", "folds", "a comparison" and "a run" those whose files are in the folder."""
    folder = Path(folder)
    table = (folder / "photos.csv").is_file()
    marks = {
        "an ensemble": (folder / "ensemble.json").exists(),
        "a model": (folder / "config.json").exists(),
        "folds": table and any(folder.glob("fold[0-9]*")),
        "a comparison": table and (folder / "runs").is_dir(),
        "a run": (folder / "checkpoints").is_dir() or (folder / "model").is_dir(),
    }
    return [kind for kind, there in marks.items() if there]


def check_kind(folder: str | Path, kind: str) -> None:
    """Nothing where an output folder is new, or holds what is to be written into it.

    Raises: FileExistsError where it holds another kind; NotADirectoryError where it is a file.
    """
    if Path(folder).exists() and not Path(folder).is_dir():
        raise NotADirectoryError(f"{folder} is a file; name a folder (--output) for {kind}")
    held = kinds(folder)
    if held and kind not in held:
        raise FileExistsError(f"{folder} holds {held[0]}; name another folder (--output) for {kind}")
