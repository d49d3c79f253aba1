"""MTCNN as a detector: a first look at a small photo, a second where that may find more, mirrored where one fails."""

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from multihead import cascade
from multihead.decoders import Encoded
from multihead.faces import Face, is_portrait, longer, look
from multihead.looks import Look, as_photos, fitted, halved

if TYPE_CHECKING:
    from multihead.nets import Nets

_SMALLEST = 20  # pixels; below it MTCNN sees nothing that is worth a label
_LONGEST = 1280  # pixels; larger photos are searched at this size
_SHORTEST = 144  # pixels; a first look is taken at no smaller photos
_FIRST_FACE = 0.15  # of the short side: the smallest face of a first look
_OVERLAP = 0.5  # of candidates of one face; facenet-pytorch's 0.7 costs a quarter more time and finds as many


_BUILDING = threading.Lock()  # layers draw random numbers as they are made, which is undone


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
