"""Face boxes: a detector, the search of photos that are decoded as far as it needs, the choice among several faces."""

import math
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from multihead import cascade
from multihead.decoders import Encoded, ImageError
from multihead.looks import Look, as_photos, fitted, halved, in_full, pixels

if TYPE_CHECKING:
    from multihead.nets import Nets

WHICH = ("largest", "central", "all")

_SMALLEST = 20  # pixels; below it MTCNN sees nothing that is worth a label
_LONGEST = 1280  # pixels; larger photos are searched at this size
_SHORTEST = 144  # pixels; a first look is taken at no smaller photos
_FIRST_FACE = 0.15  # of the short side: the smallest face of a first look
_OVERLAP = 0.5  # of candidates of one face; facenet-pytorch's 0.7 costs a quarter more time and finds as many
_PASS_PIXELS = 4_000_000  # at most so many pixels go through the nets together


_BUILDING = threading.Lock()  # layers draw random numbers as they are made, which is undone


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


class Finder:
    """MTCNN with facenet-pytorch's nets, whose weights come with the package; nothing is downloaded.

    Each face is looked at once more, and where that does not decide again, mirrored; its score is the mean: masked
    faces pass at thresholds that would otherwise let in chance patterns (benchmarks/faces.py has the figures). A first
    look is taken at a half, a quarter or an eighth of a photo; a portrait (one face, not a small one, or a large one)
    is then done.

    Args:
        min_face: longer side of the smallest face given, in pixels of the photo. None looks first for 0.15 of the
            photo's short side, then, unless that finds a portrait, for 20 pixels. Where a look finds nothing the mirror
            image is tried.
        thresholds: least scores, 0..1: of the first two nets, and of the last one's mean over three looks. A higher one
            may ask for a look that a lower one needed not, and a score change by it.
        device: where the nets run, such as "cuda".
        longest: photos with a longer side are searched at this size, so that time and memory stay bounded.

    >>> Finder().find([np.zeros((64, 48, 3), np.uint8)])
    [[]]

    Source: Zhang et al. 2016, Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks.
    """

    def __init__(
        self,
        min_face: int | None = None,
        thresholds: tuple[float, float, float] = (0.6, 0.7, 0.45),
        *,
        device: str = "cpu",
        longest: int = _LONGEST,
    ):
        if min_face is not None and min_face < 12:
            raise ValueError(f"expected min_face of 12 pixels or more (MTCNN's own window), got {min_face!r}")
        if len(thresholds) != 3 or not all(0 < threshold < 1 for threshold in thresholds):
            raise ValueError(f"expected three thresholds between 0 and 1, got {thresholds!r}")
        first, second, last = thresholds
        self.min_face, self.thresholds, self.device, self.longest = min_face, (first, second, last), device, longest
        self.parallel = device == "cpu"
        self._nets: Nets | None = None

    @property
    def identity(self) -> str:
        """What decides which boxes are found."""
        return f"mtcnn min_face={self.min_face} thresholds={self.thresholds} longest={self.longest}"

    def find(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        """The faces of each photo, largest first; photos of equal size run together, which changes no result.

        Args:
            images: RGB uint8 (H, W, 3) each, sizes may differ; read_image gives such.

        Raises:
            ValueError: an image is something else.
        """
        return self.search(as_photos(images))

    def reduction(self, size: tuple[int, int]) -> int:
        """How much smaller a JPEG of this (height, width) may be decoded for the first look: 1, 2, 4 or 8."""
        return self._first(size).reduction

    def search(self, photos: Sequence[Encoded]) -> list[list[Face]]:
        """As find, in pixels of the full photos, which are decoded as far as each look needs."""
        faces: list[list[Face]] = [[] for _ in photos]
        # The nets are not symmetric: the mirror image shows them some masked faces that they overlook.
        for how, see in ((self._first, self._seen), (self._first, self._seen_mirrored)):
            _fill(faces, [i for i, found in enumerate(faces) if not found], photos, how, see)
        again = [i for i, photo in enumerate(photos) if self._is_open(faces[i], photo.size)]
        _fill(faces, again, photos, self._second, self._seen)
        empty = [i for i in again if not faces[i]]
        _fill(faces, empty, photos, self._second, self._seen_mirrored)
        return [[face for face in found if longer(face) >= (self.min_face or 0)] for found in faces]

    def prepare(self) -> None:
        """Make the nets, before threads use them: random numbers are drawn and put back on the way."""
        with _BUILDING:
            if self._nets is None:
                from multihead.nets import build_nets

                self._nets = build_nets(self.device)

    def _is_open(self, faces: Sequence[Face], size: tuple[int, int]) -> bool:
        """True where a second look may find more than the first, which found these faces."""
        return self._first(size) != self._second(size) and not is_portrait(faces, size)

    def _first(self, size: tuple[int, int]) -> Look:
        if self.min_face:
            return self._second(size)
        seen = halved(size, _SHORTEST, self.longest)
        return seen._replace(min_face=max(_SMALLEST, _FIRST_FACE * min(seen.size)))

    def _second(self, size: tuple[int, int]) -> Look:
        seen = fitted(size, self.longest)
        wanted = (self.min_face or 0) * seen.size[0] / size[0]
        return seen._replace(min_face=max(12.0, wanted if self.min_face else _SMALLEST))

    def _seen(self, images: list[np.ndarray], planned: Look) -> list[list[Face]]:
        return [_faces(*found) for found in self._detect(images, planned)]

    def _seen_mirrored(self, images: list[np.ndarray], planned: Look) -> list[list[Face]]:
        found = self._detect([np.ascontiguousarray(image[:, ::-1]) for image in images], planned)
        width = images[0].shape[1]
        return [_faces(*_mirror(boxes, points, width)) for boxes, points in found]

    def _detect(self, images: list[np.ndarray], planned: Look) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each photo, all of one size: boxes with scores (N, 5) and points (N, 5, 2)."""
        self.prepare()
        assert self._nets is not None
        return cascade.detect(self._nets, images, planned.min_face, self.thresholds, overlap=_OVERLAP)


def search(finder: Detector, photos: Sequence[Encoded]) -> list[list[Face]]:
    """The faces of each photo, largest first, in pixels of the full photo, clipped to it.

    A detector without a search of its own is given the whole photos.

    Raises:
        ImageError: a photo is damaged.
        ValueError: the detector gave more or fewer lists than photos.

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


def _fill(
    faces: list[list[Face]],
    rows: Sequence[int],
    photos: Sequence[Encoded],
    how: Callable[[tuple[int, int]], Look],
    see: Callable[[list[np.ndarray], Look], list[list[Face]]],
) -> None:
    """Put what this look finds in the photos of these rows in the place of their faces; nothing replaces none."""
    for row, found in zip(rows, look([photos[row] for row in rows], how, see), strict=True):
        faces[row] = found or faces[row]


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


def _faces(boxes: np.ndarray, points: np.ndarray) -> list[Face]:
    """Faces from boxes (N, 5) and points (N, 5, 2)."""
    rows = zip(boxes.tolist(), points.tolist(), strict=True)
    return [Face(tuple(box[:4]), box[4], tuple(map(tuple, five))) for box, five in rows]


def _mirror(boxes: np.ndarray, points: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, 5) and points (N, 5, 2) of the mirror image: left and right change places."""
    boxes, points = boxes.copy(), points[:, [1, 0, 2, 4, 3]]
    boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    points[:, :, 0] = width - points[:, :, 0]
    return boxes, points


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
