"""Files that are either the old or the new, never a torn half."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO


def replace_file(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a new file beside `path`, then put it in its place in one step; folders are made.

    Raises: OSError of the file system; the old file is then untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # a short name, since `path` may have the longest there is; one per thread, since several write pictures
    fresh = path.with_name(f".{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        fresh.touch()
        rights = (path if path.exists() else fresh).stat().st_mode
        fresh.unlink()
        write(fresh)
        fresh.chmod(rights)  # safetensors leaves files that only their owner may read
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def remove_torn(folder: Path) -> None:
    """Remove from a folder what `replace_file` was writing when its process was killed; nobody may be writing there."""
    for torn in folder.glob(".*-*.tmp"):
        torn.unlink(missing_ok=True)


def read_json(path: str | Path) -> Any:
    """What a JSON file holds. Raises: OSError; ValueError that names the file where it is no JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error


@contextlib.contextmanager
def growing(path: str | Path) -> Iterator[TextIO]:
    """A text file (UTF-8) that stands at `path` when the block ends, also by an error, if anything was written.

    For results that come one by one: what came before an interruption is kept. Raises: OSError of the file system.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with open(fresh, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
            try:
                yield stream
            finally:
                written = stream.tell() > 0
        if written:
            os.replace(fresh, path)
    except BaseException:
        if fresh.exists() and fresh.stat().st_size:
            os.replace(fresh, path)
        raise
    finally:
        fresh.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: str | Path) -> Iterator[bool]:
    """Whether this process got the lock file `path`, at once; it is free again when the block, or the process, ends.

    Between machines it holds where their shared file system keeps locks (NFS 4 does). Raises: OSError as `open`.
    """
    file = take(path)
    with file or contextlib.nullcontext():
        yield file is not None


def take(path: str | Path) -> TextIO | None:
    """The lock file `path`, open and this holder's alone until it is given to `give_up` or closed, as at the end of the
    process; None where another has it. Where the file system keeps no locks it is everybody's.

    Raises: OSError where it cannot be written.
    """
    import fcntl

    while True:
        file = open(path, "a")  # noqa: SIM115 (its holder closes it)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        except OSError:
            return file
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        file.close()  # its last holder has just removed it


def give_up(file: TextIO) -> None:
    """Remove and free a lock file that `take` gave."""
    with contextlib.suppress(OSError):
        os.unlink(file.name)
    file.close()


@contextlib.contextmanager
def turn(path: str | Path, tell: Callable[[], object] | None = None) -> Iterator[None]:
    """Waits until this process has the lock file `path` to itself, as `take`; `tell` is called once where it has to.
    Its folders are made, and it is removed at the end. Where it cannot be written nothing is locked: who writes beside
    it says so."""
    path = Path(path)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            while (file := take(path)) is None:
                if tell is not None:
                    tell()
                tell = None
                time.sleep(0.1)
            stack.callback(give_up, file)
        yield


def check_writable(path: str | Path) -> None:
    """Nothing where a file can be written at `path`; asked before long work. Its folders are made.

    Raises: OSError that names the path and what stands in the way.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.with_name(f".{os.getpid()}-{threading.get_ident()}.tmp")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}; name another place") from error
    if path.is_dir():
        raise OSError(f"cannot write {path}: it is a folder; name a file in it")


def write_text(path: str | Path, text: str) -> None:
    """Write text (UTF-8; undecodable bytes of file names survive) in one step."""
    replace_file(path, lambda fresh: fresh.write_text(text, encoding="utf-8", errors="surrogateescape"))


def cache_folder() -> Path:
    """Where found boxes are kept by default: multihead/ under $XDG_CACHE_HOME, or under ~/.cache."""
    home = os.path.expanduser("~")
    if home == "~":  # a user whom nobody knows, as in a container: where nothing can be written, as is then said
        home = "/nonexistent"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path(home, ".cache")) / "multihead"
