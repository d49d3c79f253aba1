"""Files that are either the old or the new, never a torn half."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a disk, a share of it, or a file that may grow no more
DAY = 86400  # seconds
TORN = re.compile(r"\.\d+-\d+\.tmp")  # as `_beside` names files
LINE = 1 << 20  # bytes, more than a line of a table has


def replace_file(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a new file beside `path`, then put it in its place in one step; folders are made. Links lead to
    the file that is replaced; a device or a pipe is written into.

    Raises: OSError of the file system; the old file is then untouched.
    """
    if is_stream(path):
        with tempfile.TemporaryDirectory() as folder, naming(path):
            write(fresh := Path(folder, "written"))
            with open(_stream(path), "wb") as stream:
                stream.write(fresh.read_bytes())
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = _beside(path)
    try:
        fresh.touch()
        rights = (path if path.exists() else fresh).stat().st_mode
        fresh.unlink()
        with naming(path):
            write(fresh)
        fresh.chmod(rights)  # safetensors leaves files that only their owner may read
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    """Where a file is written before it takes the place of `path`: a short name, since `path` may have the longest
    there is; one per thread, since several write pictures; one that `remove_torn` finds."""
    return path.with_name(f".{os.getpid()}-{threading.get_ident()}.tmp")


def is_stream(path: str | Path) -> bool:
    """Whether a device, a pipe or a file that is open already stands at the path, as /dev/null or /dev/stdout: nothing
    that may be replaced."""
    path = Path(path)
    return path.exists() and (_descriptor(path) is not None or not path.is_file() and not path.is_dir())


def _descriptor(path: Path) -> int | None:
    """The number of the open file that a name as /dev/stdout or /dev/fd/3 stands for; None for other names."""
    name = {"/dev/stdout": "/dev/fd/1", "/dev/stderr": "/dev/fd/2"}.get(str(path), str(path))
    folder, _, number = name.rpartition("/")
    return int(number) if folder in ("/dev/fd", "/proc/self/fd") and number.isdecimal() else None


def _stream(path: str | Path) -> str | Path | int:
    """What to open to write into a stream: an open file as it is, after what it holds (as by `>> all.csv`)."""
    number = _descriptor(Path(path))
    return path if number is None else os.dup(number)


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Inside, the file that could not be written is named: a full disk's error knows none.

    Raises: OSError that names `path`, in place of one that names nothing.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in FULL:
            raise OSError(error.errno, f"cannot write ({os.strerror(error.errno)})", str(path)) from error
        raise


def remove_torn(folder: Path, age: float = 0.0) -> None:
    """Remove from a folder what `replace_file` was writing when its process was killed, `age` seconds ago or more;
    nobody may have been writing one file there for so long."""
    for torn in folder.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if TORN.fullmatch(torn.name) and (not age or time.time() - torn.stat().st_mtime >= age):
                torn.unlink()


def read_json(path: str | Path) -> Any:
    """What a JSON file holds. Raises: OSError; ValueError that names the file where it is no JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error


@contextlib.contextmanager
def growing(path: str | Path) -> Iterator[TextIO]:
    """A text file (UTF-8) that stands at `path` when the block ends, also by an error, if anything was written.

    For results that come one by one: what came before an interruption is kept, as far as its last whole line. Links
    lead to the file that is replaced; a device or a pipe is written into. Raises: OSError of the file system.
    """
    options: Any = {"mode": "w", "encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
    if is_stream(path):
        with naming(path), open(_stream(path), **options) as stream:
            yield stream
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = _beside(path)
    try:
        with naming(path), open(fresh, **options) as stream:
            yield stream
    except BaseException:
        cut_torn_line(fresh)
        raise
    finally:
        if fresh.exists() and fresh.stat().st_size:
            os.replace(fresh, path)
        fresh.unlink(missing_ok=True)


def cut_torn_line(path: Path) -> None:
    """Shorten a file to its last whole line: on a full disk the last is torn."""
    if path.exists():
        with open(path, "rb+") as file:
            start = max(0, file.seek(0, os.SEEK_END) - LINE)
            file.seek(start)
            file.truncate(start + file.read().rfind(b"\n") + 1)


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
        if is_stream(path) and os.access(path, os.W_OK):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = _beside(Path(os.path.realpath(path)))
        probe.touch()
        probe.unlink()
        remove_torn(path.parent, DAY)
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
