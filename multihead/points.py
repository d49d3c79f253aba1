"""The five points of faces (eyes, nose, corners of the mouth), searched once and kept in a file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from multihead import ranks
from multihead.boxes import SEARCH
from multihead.crops import Box, box_of
from multihead.data import Photos
from multihead.decoders import Encoded, ImageError
from multihead.faces import Detector, Face, identity, try_search
from multihead.files import cache_folder
from multihead.images import open_image
from multihead.yunet import open_detector

CHUNK = 32  # photos searched together, and lost at most where a search is killed


def locate_points(
    photos: Photos,
    rows: Sequence[int] | np.ndarray,
    *,
    finder: Detector | str | None = None,
    progress: Callable[[int], object] | None = None,
) -> np.ndarray:
    """Points (N, 5, 2) in pixels of each photo: left and right eye, nose, left and right corner of the mouth.

    Only `rows` are searched; the others, and photos without a face, have NaN. Where a photo's box is known, the points
    are of the face that overlaps it most. What was found is kept in the cache folder, a line a photo, so that an
    interrupted search goes on; a photo written since is searched again. progress: called with the number of photos
    just searched.
    """
    found = np.full((len(photos), 5, 2), np.nan)
    finder = open_detector(finder)
    file = points_file(finder)
    boxes, kept = photos.boxes, _read(file)
    keys = {int(row): _key(photos.paths[row], box_of(boxes[row])) for row in rows}
    todo, unkept = [row for row, key in keys.items() if key not in kept], ""
    for start in range(0, len(todo), CHUNK):
        chunk = todo[start : start + CHUNK]
        fresh = dict(_search(photos, chunk, boxes, finder))
        lines = {
            keys[row]: None if points is None else np.asarray(points).round(2).tolist() for row, points in fresh.items()
        }
        try:
            _append(file, lines)
        except OSError as error:
            unkept = error.strerror or str(error)
        kept |= lines
        if progress:
            progress(len(chunk))
    if unkept:
        ranks.say(f"points of faces are not kept in {file}: {unkept}; XDG_CACHE_HOME names another place")
    for row, key in keys.items():
        if kept.get(key) is not None:
            found[row] = kept[key]
    return found


def points_file(finder: Detector | str | None = None) -> Path:
    """Where the points are kept; each detector, and each version of the search, keeps its own; default Finder()."""
    key = hashlib.sha256(f"{SEARCH} {identity(open_detector(finder))}".encode()).hexdigest()[:16]
    return cache_folder() / f"points-{key}.jsonl"


def _search(
    photos: Photos, rows: Sequence[int], boxes: np.ndarray, finder: Detector
) -> Iterator[tuple[int, Sequence[tuple[float, float]] | None]]:
    opened = [_opened(photos.paths[row]) for row in rows]
    for row, faces in zip(rows, try_search(finder, opened)):
        # whoever reads a photo with an error reports it
        face = None if isinstance(faces, ImageError) else _chosen(faces, box_of(boxes[row]))
        yield row, None if face is None else face.points


def _opened(path: str) -> Encoded | ImageError:
    try:
        return open_image(path)
    except ImageError as error:
        return error


def _chosen(faces: Sequence[Face], box: Box | None) -> Face | None:
    """The face that overlaps the box most, the largest where no box is known."""
    if box is None or not faces:
        return faces[0] if faces else None
    best = max(faces, key=lambda face: overlap(face.box, box))
    return best if overlap(best.box, box) > 0 else None


def overlap(left: Box, right: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    wide = min(left[2], right[2]) - max(left[0], right[0])
    high = min(left[3], right[3]) - max(left[1], right[1])
    shared = max(0.0, wide) * max(0.0, high)
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (left, right)]
    return shared / (sum(areas) - shared)


def _key(path: str, box: Box | None) -> str:
    """A photo's file, how it stands, and the face that is meant."""
    try:
        stat = os.stat(path)
        state = f"{stat.st_size} {stat.st_mtime_ns}"
    except OSError:
        state = "gone"
    text = f"{os.path.abspath(path)} {state} {box}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:24]


def _read(path: Path) -> dict[str, list[list[float]] | None]:
    if not path.exists():
        return {}
    kept = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            key, points = json.loads(line)
        except ValueError:
            continue  # the last line of a killed search
        kept[key] = points
    return kept


def _append(path: Path, lines: dict[str, list[list[float]] | None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.exists() and path.read_bytes()[-1:] not in (b"\n", b"")
    with open(path, "a", encoding="utf-8") as file:  # one write a chunk: two searches at once do not mix lines
        file.write(("\n" if torn else "") + "".join(json.dumps(line) + "\n" for line in lines.items()))
