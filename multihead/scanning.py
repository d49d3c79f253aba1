"""A resumable search of whole collections for faces, whose boxes go into a table (`multihead.box_files`)."""

import math
import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from multihead.box_files import Row, by_path, complete_rows, part_of, row_text, rows_of, write_rows
from multihead.decoders import Encoded, ImageError
from multihead.faces import Detector, Face, check_which, choose, first_reduction, try_search
from multihead.files import is_stream, naming, turn
from multihead.images import open_image
from multihead.lanes import evenly, in_lanes, lane_count, shared_cores
from multihead.logs import tell
from multihead.yunet import open_detector

_BATCH_PIXELS = 32_000_000  # at most so many pixels of photos in full are searched together by a lane


@dataclass
class ScanCounts:
    """What a scan met, in photos: with a face, without one, unreadable (and why), and known before (skipped)."""

    found: int = 0
    none: int = 0
    unreadable: int = 0
    skipped: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, text: str, problem: str) -> None:
        """Count a photo by its rows."""
        self.found += text.endswith(",found\n")
        self.none += text.endswith(",none\n")
        self.unreadable += text.endswith(",unreadable\n")
        self.problems += [problem] if problem else []


def scan(
    files: Iterable[str | os.PathLike],
    boxes: str | os.PathLike,
    *,
    root: str | os.PathLike | None = None,
    which: str = "largest",
    finder: Detector | str | None = None,
    workers: int | None = None,
    batch: int = 32,
    progress: Callable[[int, int, ScanCounts], None] | None = None,
) -> ScanCounts:
    """Search photos for faces and write `path,x0,y0,x1,y1,score,status`; what the file knows is not searched again.

    Each batch is appended to `<boxes>.part`, so that a killed scan loses a batch a lane at most; at the end the file is
    replaced as a whole, in the order of files, after them the rows of photos that are not in files. Unreadable photos
    are tried anew each time. To search with another `which` or finder, remove the file first. Scans that write one
    file wait for one another.

    Args:
        files: photos; `image_files` lists a folder's.
        boxes: the CSV to write or complete.
        root: photos under this folder are written relative to it (with /), the others with their absolute path.
        which: "largest", "central" or "all" (several rows a photo).
        finder: default Finder(); a `multihead.yunet.YuNet` serves too.
        workers: lanes that share the cores, each searching a batch (default: one a core, at most 8).
        batch: photos searched together.
        progress: called after each batch with photos done, photos in all, and the counts.

    Raises:
        OSError: the file's folder cannot be written; said before the search.
        ValueError: a row of the present file is wrong, or it is no file.

    >>> scan(image_files("data"), "boxes.csv", root="data")  # doctest: +SKIP
    ScanCounts(found=1506, none=6, unreadable=0, skipped=0, problems=[])
    """
    check_which(which)
    boxes = Path(boxes)
    if is_stream(boxes):
        raise ValueError(f"{boxes} is a device or a pipe; expected a file, which a scan reads and completes")
    job = _Job(Path(root or "."), open_detector(finder), which)
    # name -> its rows as text, "" where it is not searched yet: one dictionary and no more for each photo
    known = dict.fromkeys((_name(file, root) for file in files), "")
    waits = f"waiting for another scan that writes {boxes}"
    with turn(boxes.with_name(boxes.name + ".lock"), lambda: tell(waits)):
        return _scan(known, boxes, job, workers, batch, progress)


def _scan(
    known: dict[str, str],
    boxes: Path,
    job: "_Job",
    workers: int | None,
    batch: int,
    progress: Callable[[int, int, ScanCounts], None] | None,
) -> ScanCounts:
    part = part_of(boxes)
    others: dict[str, str] = {}
    fresh = by_path(complete_rows(part))
    for texts in (by_path(rows_of(boxes) if boxes.exists() else []), fresh):
        for name, text in texts.items():
            (known if name in known else others)[name] = text
    todo = [name for name, text in known.items() if not _settled(text)]
    counts = ScanCounts(skipped=len(known) - len(todo))
    if not todo and not part.exists():
        return counts
    write_rows(part, fresh.values())  # without a torn end; and the folder's rights show before the search
    if hasattr(job.finder, "prepare"):
        job.finder.prepare()
    searched = _search(todo, job, lane_count() if workers is None else max(1, workers), batch)
    with (
        closing(searched),
        naming(part),
        open(part, "a", encoding="utf-8", errors="surrogateescape", newline="") as stream,
    ):
        for found in searched:
            stream.write("".join(text for _, text, _ in found))
            stream.flush()
            os.fsync(stream.fileno())
            for name, text, problem in found:
                known[name] = text
                counts.add(text, problem)
            if progress:
                progress(counts.skipped + counts.found + counts.none + counts.unreadable, len(known), counts)
    write_rows(boxes, chain(known.values(), others.values()))
    part.unlink(missing_ok=True)
    return counts


Found = tuple[str, str, str]  # a photo's name, its rows as text, and why it cannot be read


@dataclass(frozen=True)
class _Job:
    """The search of a few photos; several lanes do it at once."""

    root: Path
    finder: Detector
    which: str
    alone: threading.Lock = field(default_factory=threading.Lock)

    def search(self, names: Sequence[str]) -> list[Found]:
        """The rows of photos, in order."""
        found: list[Found] = []
        opened = ((name, self._open(name)) for name in names)
        for photos in _batches(opened, len(names)):
            with nullcontext() if getattr(self.finder, "parallel", False) else self.alone:
                searched = try_search(self.finder, [photo for _, photo in photos])
            found += [self._found(name, photo, faces) for (name, photo), faces in zip(photos, searched, strict=True)]
        return found

    def _open(self, name: str) -> Encoded | ImageError:
        """A photo, decoded for the finder's first look."""
        try:
            photo = open_image(self.root / name)  # an absolute name stays as it is
            photo.pixels(first_reduction(self.finder, photo.size))
            return photo
        except ImageError as error:
            return error

    def _found(self, name: str, photo: Encoded | ImageError, faces: list[Face] | ImageError) -> Found:
        if isinstance(photo, ImageError) or isinstance(faces, ImageError):
            return name, row_text(Row(name, None, None, "unreadable")), str(faces)
        chosen = choose(faces, self.which, photo.size)
        rows = [Row(name, face.box, face.score, "found") for face in chosen] or [Row(name, None, None, "none")]
        return name, "".join(map(row_text, rows)), ""


def _search(todo: Sequence[str], job: _Job, lanes: int, batch: int) -> Generator[list[Found], None, None]:
    """What is found in each batch of photos, in order."""
    batch = evenly(len(todo), lanes, batch)
    with shared_cores(lanes) as threads:
        starts = range(0, len(todo), batch)
        yield from in_lanes(lambda at: job.search(todo[at : at + batch]), starts, lanes, threads)


def _batches(photos: Iterable[tuple], batch: int) -> Iterator[list[tuple]]:
    """Lists of at most batch photos, of no more pixels than fit in memory with ease when all are decoded in full."""
    waiting, pixels = [], 0
    for name, photo in photos:
        waiting.append((name, photo))
        pixels += math.prod(photo.size) if isinstance(photo, Encoded) else 0
        if len(waiting) == batch or pixels >= _BATCH_PIXELS:
            yield waiting
            waiting, pixels = [], 0
    if waiting:
        yield waiting


def _name(file: str | os.PathLike, root: str | os.PathLike | None) -> str:
    """How a photo is called in the table; links are not followed."""
    path = Path(os.path.abspath(file))
    if root is not None and path.is_relative_to(os.path.abspath(root)):
        path = path.relative_to(os.path.abspath(root))
    return path.as_posix()


def _settled(text: str) -> bool:
    return bool(text) and not text.endswith(",unreadable\n")
