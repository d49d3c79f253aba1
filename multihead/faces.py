"""Face boxes: what a detector is, the search of photos decoded as far as it needs, the choice among several faces."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from multihead.decoders import Encoded, ImageError
from multihead.looks import Look, in_full, pixels

WHICH = ("largest", "central", "all")

_PASS_PIXELS = 4_000_000  # at most so many pixels go through the nets together


@dataclass(frozen=True)
class Face:
    """A face in a photo: box (x0, y0, x1, y1) in pixels, half-open, inside the photo; score 0..1; five points.

    The points (x, y) are left eye, right eye, nose, left and right corner of the mouth as seen in the photo, or None
    from a detector without points; they may lie outside the photo.

    >>> Face((10, 20, 50, 80), 0.99).area
    2400
    """

    box: tuple[float, float, float, float]
    score: float
    points: tuple[tuple[float, float], ...] | None = None

    @property
    def area(self) -> float:
        """Width times height, in pixels."""
        x0, y0, x1, y1 = self.box
        return (x1 - x0) * (y1 - y0)


class Detector(Protocol):
    """Whatever finds faces: for each RGB uint8 photo (H, W, 3), of any mix of sizes, its faces, largest first.

    A detector may also have what makes it faster and its boxes safe to keep:

    - `search(photos: Sequence[Encoded]) -> list[list[Face]]`, in pixels of the full photos, each decoded as far as it
      likes;
    - `reduction(size: tuple[int, int]) -> int`: with which of decoders.REDUCTIONS its search begins for a photo of this
      (height, width), so that threads can decode ahead;
    - `parallel`, true where several threads may search at once, and `prepare()`, called once before they do;
    - `identity`, a text that tells it from detectors that find other boxes.
    """

    def find(self, images: Sequence[np.ndarray]) -> list[list[Face]]: ...


def search(finder: Detector, photos: Sequence[Encoded]) -> list[list[Face]]:
    """The faces of each photo, largest first, in pixels of the full photo, clipped to it.

    A detector without a search of its own is given the whole photos.

    Raises:
        ImageError: a photo is damaged.
        ValueError: the detector gave more or fewer lists than photos.

    >>> from multihead.looks import as_photos
    >>> from multihead.mtcnn import Finder
    >>> search(Finder(), as_photos([np.zeros((64, 48, 3), np.uint8)]))
    [[]]
    """
    own = getattr(finder, "search", None)
    found = own(photos) if own else finder.find([photo.pixels() for photo in photos])
    if len(found) != len(photos):
        name = f"{type(finder).__name__}.{'search' if own else 'find'}"
        raise ValueError(f"{name} gave {len(found)} lists of faces for {len(photos)} photos")
    return [_clipped(faces, photo.size) for faces, photo in zip(found, photos, strict=True)]


def try_search(finder: Detector, photos: Sequence[Encoded | ImageError]) -> list[list[Face] | ImageError]:
    """The faces of each photo as `search` gives them, or the error of one that could not be opened or is damaged."""
    readable = [photo for photo in photos if isinstance(photo, Encoded)]
    try:
        found: Iterator[list[Face] | ImageError] = iter(search(finder, readable) if readable else [])
    except ImageError:  # pixels that only a finer decoding shows to be damaged: the other photos are searched
        found = (_alone(finder, photo) for photo in readable)
    return [next(found) if isinstance(photo, Encoded) else photo for photo in photos]


def _alone(finder: Detector, photo: Encoded) -> list[Face] | ImageError:
    try:
        return search(finder, [photo])[0]
    except ImageError as error:
        return error


def first_reduction(finder: Detector, size: tuple[int, int]) -> int:
    """How much smaller a JPEG of this (height, width) is decoded first by `search` with this detector."""
    own = getattr(finder, "reduction", None)
    return own(size) if own else 1


def identity(finder: Detector) -> str:
    """A text that differs between detectors that find different boxes; by its class where it does not say.

    >>> from multihead.mtcnn import Finder
    >>> identity(Finder(min_face=40)) == identity(Finder())
    False
    """
    kind = type(finder)
    return getattr(finder, "identity", None) or f"{kind.__module__}.{kind.__qualname__}"


def look(
    photos: Sequence[Encoded],
    how: Callable[[tuple[int, int]], Look],
    see: Callable[[list[np.ndarray], Look], list[list[Face]]],
) -> list[list[Face]]:
    """What see(images of one size, their look) finds in each photo, in pixels of the full photo, clipped to it."""
    groups = defaultdict(list)
    for index, photo in enumerate(photos):
        groups[photo.size].append(index)
    faces: list[list[Face]] = [[] for _ in photos]
    for size, members in groups.items():
        planned = how(size)
        for chunk in _chunks(members, max(1, _PASS_PIXELS // math.prod(planned.size))):
            images = [pixels(photos[index], planned) for index in chunk]
            for index, found in zip(chunk, see(images, planned), strict=True):
                faces[index] = _in_full(found, photos[index], planned)
    return faces


def is_portrait(faces: Sequence[Face], size: tuple[int, int]) -> bool:
    """A face that is too large in (height, width) to be one of a group whose other faces are yet to be found."""
    longest = max(map(longer, faces), default=0.0)
    return longest >= (0.2 if len(faces) == 1 else 0.4) * min(size)


def choose(faces: Sequence[Face], which: str, size: tuple[int, int]) -> list[Face]:
    """The faces that count: one ("largest", or "central": nearest to the middle), or "all", largest first.

    Args:
        size: (height, width) of the photo.

    Raises:
        ValueError: which is none of the three.

    >>> small, large = Face((45, 45, 55, 55), 0.9), Face((0, 0, 40, 40), 0.9)
    >>> choose([small, large], "central", (100, 100)) == [small]
    True
    """
    check_which(which)
    ordered = sorted(faces, key=lambda face: -face.area)
    if which == "central":
        ordered.sort(key=lambda face: _off_centre(face, size))
    return ordered if which == "all" else ordered[:1]


def _in_full(faces: Sequence[Face], photo: Encoded, planned: Look) -> list[Face]:
    """Faces of a look in pixels of the full photo, clipped to it, largest first."""
    scale, shift = in_full(photo, planned)
    found = []
    for face in faces:
        x0, y0, x1, y1 = (np.array(face.box) * np.tile(scale, 2) - np.tile(shift, 2)).tolist()
        points = face.points and tuple(map(tuple, (np.array(face.points) * scale - shift).tolist()))
        found.append(Face((x0, y0, x1, y1), face.score, points))
    return sorted(_clipped(found, photo.size), key=lambda face: -face.area)


def _clipped(faces: Sequence[Face], size: tuple[int, int]) -> list[Face]:
    """What of the faces lies in a photo of (height, width): a detector may leave the frame, also altogether."""
    limit, found = np.array(size[::-1] * 2, float), []
    for face in faces:
        x0, y0, x1, y1 = np.array(face.box, float).clip(0, limit).tolist()
        if x1 - x0 >= 1 and y1 - y0 >= 1:
            found.append(Face((x0, y0, x1, y1), face.score, face.points))
    return found


def longer(face: Face) -> float:
    """The longer side of a face's box, in pixels."""
    x0, y0, x1, y1 = face.box
    return max(x1 - x0, y1 - y0)


def _chunks(items: list, count: int) -> Iterator[list]:
    return (items[start : start + count] for start in range(0, len(items), count))


def _off_centre(face: Face, size: tuple[int, int]) -> float:
    x0, y0, x1, y1 = face.box
    return math.hypot((x0 + x1 - size[1]) / 2, (y0 + y1 - size[0]) / 2)


def check_which(which: str) -> None:
    """Nothing where `which` is a known choice. Raises: ValueError that lists them."""
    if which not in WHICH:
        raise ValueError(f"expected which to be one of {', '.join(map(repr, WHICH))}, got {which!r}")
