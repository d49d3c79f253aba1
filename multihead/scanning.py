"""A resumable search of whole collections for faces, and the table of boxes that it writes."""

import csv
import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from multihead.decoders import ImageError
from multihead.faces import Detector, Finder, check_which, choose
from multihead.images import read_image

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("path", "x0", "y0", "x1", "y1", "score", "status")
STATUSES = ("found", "none", "unreadable")

_BATCH_PIXELS = 64_000_000  # at most so many decoded pixels wait in a scan


@dataclass
class ScanCounts:
    """What a scan met, in photos: with a face, without one, unreadable (and why), and known before (skipped)."""

    found: int = 0
    none: int = 0
    unreadable: int = 0
    skipped: int = 0
    problems: list[str] = field(default_factory=list)


def scan(
    files: Sequence[str | os.PathLike],
    boxes: str | os.PathLike,
    *,
    root: str | os.PathLike | None = None,
    which: str = "largest",
    finder: Detector | None = None,
    workers: int = 2,
    batch: int = 32,
    progress: Callable[[int, int, ScanCounts], None] | None = None,
) -> ScanCounts:
    """Search photos for faces and write `path,x0,y0,x1,y1,score,status`; what the file knows is not searched again.

    Each batch is appended to `<boxes>.part`, so that a killed scan loses one batch at most; at the end the file is
    replaced as a whole, in the order of files, after them the rows of photos that are not in files. Unreadable photos
    are tried anew each time. To search with another `which` or finder, remove the file first.

    Args:
        files: photos; `image_files` lists a folder's.
        boxes: the CSV to write or complete.
        root: photos under this folder are written relative to it (with /), the others with their absolute path.
        which: "largest", "central" or "all" (several rows a photo).
        finder: default Finder().
        workers: threads that decode.
        batch: photos searched together.
        progress: called after each batch with photos done, photos in all, and the counts.

    Raises:
        OSError: the file's folder cannot be written; said before the search.
        ValueError: a row of the present file is wrong.

    >>> scan(image_files("data"), "boxes.csv", root="data")  # doctest: +SKIP
    ScanCounts(found=1506, none=6, unreadable=0, skipped=0, problems=[])
    """
    check_which(which)
    boxes = Path(boxes)
    part = boxes.with_name(boxes.name + ".part")
    names = {_name(file, root): Path(file) for file in files}
    fresh = _by_path(_complete_rows(part))
    known = {**_by_path(_rows(boxes) if boxes.exists() else []), **fresh}
    todo = {name: file for name, file in names.items() if not _settled(known.get(name))}
    counts = ScanCounts(skipped=len(names) - len(todo))
    if not todo and not part.exists():
        return counts
    _write_rows(part, fresh.values())  # without a torn end; and the folder's rights show before the search
    searched = _search(todo, finder or Finder(), which, workers, batch, counts)
    with closing(searched), open(part, "a", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        for rows in searched:
            stream.write("".join(map(_line, rows)))
            stream.flush()
            os.fsync(stream.fileno())
            fresh.update(_by_path(rows))
            if progress:
                progress(counts.skipped + counts.found + counts.none + counts.unreadable, len(names), counts)
    _merge(boxes, fresh, names)
    part.unlink(missing_ok=True)
    return counts


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


def _search(
    todo: dict[str, Path], finder: Detector, which: str, workers: int, batch: int, counts: ScanCounts
) -> Generator[list[_Row], None, None]:
    """Rows of each batch of photos; counts is kept up to date."""
    for photos in _batches(_decoded(todo, workers), batch):
        readable = [image for _, image in photos if isinstance(image, np.ndarray)]
        found = finder.find(readable)
        if len(found) != len(readable):
            raise ValueError(
                f"{type(finder).__name__}.find gave {len(found)} lists of faces for {len(readable)} photos"
            )
        faces = iter(found)
        rows: list[_Row] = []
        for name, image in photos:
            if isinstance(image, ImageError):
                counts.unreadable += 1
                counts.problems.append(str(image))
                rows.append(_Row(name, None, None, "unreadable"))
                continue
            chosen = choose(next(faces), which, image.shape[:2])
            counts.found += bool(chosen)
            counts.none += not chosen
            rows += [_Row(name, face.box, face.score, "found") for face in chosen]
            rows += [] if chosen else [_Row(name, None, None, "none")]
        yield rows


def _decoded(todo: dict[str, Path], workers: int) -> Iterator[tuple[str, np.ndarray | ImageError]]:
    """Photos in order, decoded by threads that run at most 2 * workers photos ahead."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    waiting: deque = deque()
    try:
        for name, file in todo.items():
            waiting.append((name, pool.submit(_read, file)))
            if len(waiting) > 2 * workers:
                name, future = waiting.popleft()
                yield name, future.result()
        while waiting:
            name, future = waiting.popleft()
            yield name, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _read(file: Path) -> np.ndarray | ImageError:
    try:
        return read_image(file)
    except ImageError as error:
        return error


def _batches(photos: Iterable[tuple], batch: int) -> Iterator[list[tuple]]:
    """Lists of at most batch photos, and of no more pixels than fit in memory with ease."""
    waiting, pixels = [], 0
    for name, image in photos:
        waiting.append((name, image))
        pixels += math.prod(image.shape[:2]) if isinstance(image, np.ndarray) else 0
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


def _settled(rows: list[_Row] | None) -> bool:
    return rows is not None and rows[0].status != "unreadable"


def _by_path(rows: Iterable[_Row]) -> dict[str, list[_Row]]:
    grouped: dict[str, list[_Row]] = {}
    for row in rows:
        grouped.setdefault(row.path, []).append(row)
    return grouped


def _rows(path: Path) -> Iterator[_Row]:
    """The checked rows of a boxes file."""
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
    box = [f"{value:.2f}" for value in row.box] if row.box else [""] * 4
    score = "" if row.score is None else f"{row.score:.4f}"
    return ",".join([path, *box, score, row.status]) + "\n"


def _write_rows(path: Path, groups: Iterable[list[_Row]]) -> None:
    """Replace a file by these rows, whole or not at all."""
    part = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
            stream.write(",".join(COLUMNS) + "\n")
            stream.writelines(_line(row) for rows in groups for row in rows)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except OSError as error:
        message = f"cannot write {path} ({error.strerror or error}); name a file in a folder that can be written"
        raise type(error)(error.errno, message) from error


def _merge(boxes: Path, fresh: dict[str, list[_Row]], names: Iterable[str]) -> None:
    """Write all rows: those of names in their order, then the others as the file had them."""
    known = {**_by_path(_rows(boxes) if boxes.exists() else []), **fresh}
    ordered = {name: known.pop(name) for name in names}
    _write_rows(boxes, [*ordered.values(), *known.values()])
