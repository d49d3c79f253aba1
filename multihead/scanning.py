"""A resumable search of whole collections for faces, and the table of boxes that it writes."""

import csv
import math
import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from multihead.crops import BOX_DIGITS
from multihead.decoders import Encoded, ImageError
from multihead.faces import Detector, Face, check_which, choose, first_reduction, try_search
from multihead.files import is_stream, naming, turn
from multihead.images import open_image
from multihead.lanes import evenly, in_lanes, lane_count, shared_cores
from multihead.logs import tell
from multihead.yunet import open_detector

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("path", "x0", "y0", "x1", "y1", "score", "status")
STATUSES = ("found", "none", "unreadable")

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
    part = boxes.with_name(boxes.name + ".part")
    others: dict[str, str] = {}
    fresh = _by_path(_complete_rows(part))
    for texts in (_by_path(_rows(boxes) if boxes.exists() else []), fresh):
        for name, text in texts.items():
            (known if name in known else others)[name] = text
    todo = [name for name, text in known.items() if not _settled(text)]
    counts = ScanCounts(skipped=len(known) - len(todo))
    if not todo and not part.exists():
        return counts
    _write_rows(part, fresh.values())  # without a torn end; and the folder's rights show before the search
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
    _write_rows(boxes, chain(known.values(), others.values()))
    part.unlink(missing_ok=True)
    return counts


def forget(boxes: Path, names: set[str]) -> None:
    """Drop the rows of these names from a boxes file, and from what an interrupted scan left of it."""
    part = boxes.with_name(boxes.name + ".part")
    for path, rows in ((boxes, _rows(boxes) if boxes.exists() else ()), (part, _complete_rows(part))):
        texts = _by_path(rows)
        if not names.isdisjoint(texts):
            _write_rows(path, (text for name, text in texts.items() if name not in names))


def read_boxes(path: str | os.PathLike) -> "pd.DataFrame":
    """The table of a boxes file: path, x0, y0, x1, y1, score (floats, NaN where there is no box) and status.

    Columns score and status may be absent, as in boxes drawn by hand: NaN, and "found" where there is a box.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a column is missing or unknown, or a row is wrong; the message names file and row.

    >>> read_boxes("boxes.csv").query("status == 'found'")  # doctest: +SKIP
    """
    import pandas as pd

    blank = (math.nan,) * 4
    rows = [(row.path, *(row.box or blank), row.score, row.status) for row in _rows(Path(path))]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    numbers = dict.fromkeys(COLUMNS[1:6], "float64")
    # object: a string type on Arrow could not hold the names that are not UTF-8
    return table.astype({"path": object, "status": object, **numbers})


class _Row(NamedTuple):
    path: str
    box: tuple[float, ...] | None  # x0, y0, x1, y1
    score: float | None
    status: str


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
            return name, _line(_Row(name, None, None, "unreadable")), str(faces)
        chosen = choose(faces, self.which, photo.size)
        rows = [_Row(name, face.box, face.score, "found") for face in chosen] or [_Row(name, None, None, "none")]
        return name, "".join(map(_line, rows)), ""


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


def _by_path(rows: Iterable[_Row]) -> dict[str, str]:
    """{path: its rows as text}"""
    grouped: dict[str, str] = {}
    for row in rows:
        grouped[row.path] = grouped.get(row.path, "") + _line(row)
    return grouped


def _rows(path: Path) -> Iterator[_Row]:
    """The checked rows of a boxes file. Raises: FileNotFoundError; ValueError for a wrong row."""
    if not path.exists():
        raise FileNotFoundError(f"no boxes at {path}; expected a CSV that multihead scan wrote")
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        reader = csv.reader(stream)
        header = next(reader, [])
        missing, unknown = [c for c in COLUMNS[:5] if c not in header], [c for c in header if c not in COLUMNS]
        if missing or unknown:
            raise ValueError(f"{path}: expected columns {list(COLUMNS)}, got {header}; missing {missing}")
        number = 1
        while True:
            number += 1
            try:
                fields = next(reader, None)
                if fields is None:
                    return
                if len(fields) != len(header):
                    raise ValueError(f"expected {len(header)} fields, got {len(fields)}")
                yield _row(dict(zip(header, fields, strict=True)))
            except (ValueError, csv.Error) as error:
                raise ValueError(f"{path}: row {number}: {error}") from None


def _row(fields: dict[str, str]) -> _Row:
    numbers = [_number(fields, name) for name in COLUMNS[1:5]]
    box = tuple(number for number in numbers if number is not None)
    status = fields.get("status", "found" if box else "none")
    if not fields["path"]:
        raise ValueError("path is blank")
    if status not in STATUSES:
        raise ValueError(f"expected status to be one of {', '.join(STATUSES)}, got {status!r}")
    if status == "found" and not (len(box) == 4 and 0 <= box[0] < box[2] and 0 <= box[1] < box[3]):
        raise ValueError(f"expected a box 0 <= x0 < x1, 0 <= y0 < y1, got {numbers}")
    if status != "found" and box:
        raise ValueError(f"expected no box with status {status}, got {numbers}")
    return _Row(fields["path"], box or None, _number(fields, "score"), status)


def _number(fields: dict[str, str], name: str) -> float | None:
    text = fields.get(name, "")
    try:
        number = float(text) if text else None
    except ValueError:
        number = math.nan
    if number is not None and not math.isfinite(number):
        raise ValueError(f"expected a number as {name}, got {text!r}")
    return number


def _complete_rows(part: Path) -> list[_Row]:
    """The rows an interrupted scan left, up to a torn one, and without the last photo, which may lack rows."""
    rows = []
    if part.exists():
        try:
            for row in _rows(part):
                rows.append(row)
        except ValueError:
            pass
    return [row for row in rows if row.path != rows[-1].path]


def _line(row: _Row) -> str:
    path = row.path
    if any(sign in path for sign in ',"\r\n'):  # the csv writer leaves a lone \r bare
        path = '"' + path.replace('"', '""') + '"'
    box = [f"{value:.{BOX_DIGITS}f}" for value in row.box] if row.box else [""] * 4
    score = "" if row.score is None else f"{row.score:.4f}"
    return ",".join([path, *box, score, row.status]) + "\n"


def _write_rows(path: Path, texts: Iterable[str]) -> None:
    """Replace a file by these rows, whole or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
            stream.write(",".join(COLUMNS) + "\n")
            stream.writelines(texts)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except OSError as error:
        message = f"cannot write {path} ({error.strerror or error}); name a file in a folder that can be written"
        raise type(error)(error.errno, message) from error
