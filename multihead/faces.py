"""Face boxes: a detector, and the choice among several faces."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np

from multihead.decoders import Encoded

if TYPE_CHECKING:
    from facenet_pytorch import MTCNN

WHICH = ("largest", "central", "all")

_SMALLEST = 20  # pixels; below it MTCNN sees nothing that is worth a label
_LONGEST = 1280  # pixels; larger photos are searched at this size
_PASS_PIXELS = 8_000_000  # at most so many pixels go through the nets together


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
    """Whatever finds faces: for each RGB uint8 photo (H, W, 3), of any mix of sizes, its faces, largest first."""

    def find(self, images: Sequence[np.ndarray]) -> list[list[Face]]: ...


class Finder:
    """MTCNN from facenet-pytorch, whose weights come with the package; nothing is downloaded.

    Each face is looked at twice more, once mirrored, and its score is the mean: masked faces pass at thresholds that
    would otherwise let in chance patterns (benchmarks/faces.py has the figures).

    Args:
        min_face: longer side of the smallest face given, in pixels of the photo. None looks for 0.1 of the photo's
            short side (at least 20), and once more for 20 unless that finds a portrait: one face, not a small one.
            Where nothing is found the mirror image is tried.
        thresholds: least scores, 0..1: of the first two nets, and of the last one's mean over three looks.
        device: where the nets run, such as "cuda".
        longest: photos with a longer side are searched at this size, so that time and memory stay bounded.

    >>> Finder().find([np.zeros((64, 48, 3), np.uint8)])
    [[]]

    Source: Zhang et al. 2016, Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks.
    """

    def __init__(
        self,
        min_face: int | None = None,
        thresholds: tuple[float, float, float] = (0.5, 0.6, 0.55),
        *,
        device: str = "cpu",
        longest: int = _LONGEST,
    ):
        if min_face is not None and min_face < 12:
            raise ValueError(f"expected min_face of 12 pixels or more (MTCNN's own window), got {min_face!r}")
        if len(thresholds) != 3 or not all(0 < threshold < 1 for threshold in thresholds):
            raise ValueError(f"expected three thresholds between 0 and 1, got {thresholds!r}")
        self.min_face, self.thresholds, self.device, self.longest = min_face, tuple(thresholds), device, longest
        self._nets: MTCNN | None = None

    def find(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        """The faces of each photo, largest first; photos of equal size run together.

        Args:
            images: RGB uint8 (H, W, 3) each, sizes may differ; read_image gives such.

        Raises:
            ValueError: an image is something else.
        """
        for index, image in enumerate(images):
            shown = isinstance(image, np.ndarray) and image.size > 0
            if not (shown and image.dtype == np.uint8 and image.shape[2:] == (3,)):
                got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
                raise ValueError(f"images[{index}]: expected RGB uint8 (H, W, 3), got {got}; use read_image first")
        groups = defaultdict(list)
        for index, image in enumerate(images):
            groups[image.shape[:2]].append(index)
        faces: list[list[Face]] = [[] for _ in images]
        for size, members in groups.items():
            for chunk in _chunks(members, max(1, _PASS_PIXELS // math.prod(_fit(size, self.longest)))):
                for index, found in zip(chunk, self._find_equal([images[i] for i in chunk]), strict=True):
                    faces[index] = found
        return faces

    def _find_equal(self, images: list[np.ndarray]) -> list[list[Face]]:
        """The faces of photos of one size: large ones, then small ones if it is no portrait, then the mirror's."""
        height, width = images[0].shape[:2]
        small = _fit((height, width), self.longest)
        scale = np.array([width / small[1], height / small[0]])
        if small != (height, width):
            images = [cv2.resize(image, small[::-1], interpolation=cv2.INTER_AREA) for image in images]
        wanted = self.min_face / scale.max() if self.min_face else max(_SMALLEST, 0.1 * min(small))
        wanted = max(12.0, wanted)
        found = self._detect(images, wanted)
        if not self.min_face and wanted > _SMALLEST:
            again = [i for i, (boxes, _) in enumerate(found) if not _is_portrait(boxes, small)]
            for i, result in zip(again, self._detect([images[i] for i in again], _SMALLEST), strict=True):
                found[i] = result
        # The nets are not symmetric: the mirror image shows them some masked faces that they overlook.
        empty = [i for i, (boxes, _) in enumerate(found) if not len(boxes)]
        mirrored = self._detect([np.ascontiguousarray(images[i][:, ::-1]) for i in empty], wanted)
        for i, (boxes, points) in zip(empty, mirrored, strict=True):
            found[i] = _mirror(boxes, points, small[1])
        faces = [_faces(boxes, points, scale, (height, width)) for boxes, points in found]
        return [[face for face in each if _longer(face) >= (self.min_face or 0)] for each in faces]

    def _detect(self, images: list[np.ndarray], min_face: float) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each photo, all of one size: boxes with scores (N, 5) and points (N, 5, 2)."""
        try:
            return self._run(images, min_face)
        except (IndexError, RuntimeError, ValueError) as error:  # how detect_face dies of a box wholly outside a photo
            if not any(words in str(error) for words in ("shape of the mask", "non-empty list")):
                raise
        if len(images) > 1:
            return [self._detect([image], min_face)[0] for image in images]
        frame = min(images[0].shape[:2]) // 2
        framed = cv2.copyMakeBorder(images[0], frame, frame, frame, frame, cv2.BORDER_CONSTANT)
        boxes, points = self._run([framed], min_face)[0]
        return [(boxes - [frame, frame, frame, frame, 0], points - frame)]

    def _run(self, images: list[np.ndarray], min_face: float) -> list[tuple[np.ndarray, np.ndarray]]:
        import torch
        from facenet_pytorch.models.utils.detect_face import detect_face

        if not images or min(images[0].shape[:2]) * (12 / min_face) < 12:  # no level in the nets' pyramid
            return [(np.zeros((0, 5)), np.zeros((0, 5, 2)))] * len(images)
        nets, device = self._build(), torch.device(self.device)
        first, second, last = self.thresholds
        candidates = (first, second, max(0.1, last - 0.2))
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            batch = torch.from_numpy(np.stack(images)).to(device)  # (B, H, W, 3)
            found = detect_face(batch, min_face, nets.pnet, nets.rnet, nets.onet, candidates, 0.709, device)
            return [self._confirm(*each) for each in zip(images, *found, strict=True)]

    def _confirm(self, image: np.ndarray, boxes: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes and points whose mean score, as first found, looked at again and looked at mirrored, is high enough.

        Real faces, masked ones above all, keep their score under a second look; chance patterns lose it.
        """
        import torch

        boxes, points = (np.asarray(a, np.float64) for a in (boxes, points))  # ragged results have dtype object
        if not len(boxes):
            return boxes.reshape(0, 5), points.reshape(0, 5, 2)
        looks = torch.from_numpy(np.stack([_square(image, box, 1.15, 48) for box in boxes]))
        looks = (looks.to(self.device).permute(0, 3, 1, 2).float() - 127.5) / 128  # (N, 3, 48, 48)
        again = self._build().onet(torch.cat([looks, looks.flip(3)]))[2][:, 1].view(2, -1)  # (2, N)
        boxes[:, 4] = (boxes[:, 4] + again.sum(0).double().cpu().numpy()) / 3
        sure = boxes[:, 4] >= self.thresholds[2]
        return boxes[sure], points[sure]

    def _build(self) -> "MTCNN":
        if self._nets is None:
            import facenet_pytorch
            import torch

            with torch.random.fork_rng(devices=[]):  # new layers draw numbers: a first search must not shift a seed
                self._nets = facenet_pytorch.MTCNN(keep_all=True, device=self.device)
        return self._nets


def search(finder: Detector, photos: Sequence[Encoded]) -> list[list[Face]]:
    """The faces of each photo, largest first, in pixels of the full photo."""
    return finder.find([photo.pixels() for photo in photos])


def reduction_of(finder: Detector, size: tuple[int, int]) -> int:
    """The coarsest decoding that the finder is content with for its first look at a photo of (height, width)."""
    return finder.reduction(size) if hasattr(finder, "reduction") else 1


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


def _faces(boxes: np.ndarray, points: np.ndarray, scale: np.ndarray, size: tuple[int, int]) -> list[Face]:
    """Faces in pixels of the photo, largest first, from boxes (N, 5) and points (N, 5, 2) of the searched size."""
    limit = np.array(size[::-1] * 2, float)
    faces = []
    for box, five in zip(boxes, points, strict=True):
        x0, y0, x1, y1 = (box[:4] * np.tile(scale, 2)).clip(0, limit).tolist()
        if x1 - x0 >= 1 and y1 - y0 >= 1:  # the nets may leave the frame altogether
            faces.append(Face((x0, y0, x1, y1), float(box[4]), tuple(map(tuple, (five * scale).tolist()))))
    return sorted(faces, key=lambda face: -face.area)


def _is_portrait(boxes: np.ndarray, size: tuple[int, int]) -> bool:
    """One face, and too large to be one of a group whose other faces are yet to be found."""
    sides = (boxes[:, 2:4] - boxes[:, :2]).max(1)
    return len(sides) == 1 and sides[0] >= 0.2 * min(size)


def _mirror(boxes: np.ndarray, points: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, 5) and points (N, 5, 2) of the mirror image: left and right change places."""
    boxes, points = boxes.copy(), points[:, [1, 0, 2, 4, 3]]
    boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    points[:, :, 0] = width - points[:, :, 0]
    return boxes, points


def _square(image: np.ndarray, box: np.ndarray, grow: float, size: int) -> np.ndarray:
    """Pixels (size, size, 3) of a square about the box, its side grow times the longer one; black outside the photo."""
    x0, y0, x1, y1 = box[:4]
    side = max(1, round(grow * max(x1 - x0, y1 - y0)))
    left, top = round((x0 + x1 - side) / 2), round((y0 + y1 - side) / 2)
    square = np.zeros((side, side, 3), np.uint8)
    inside = image[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)]
    square[max(-top, 0) :, max(-left, 0) :][: inside.shape[0], : inside.shape[1]] = inside
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)


def _longer(face: Face) -> float:
    x0, y0, x1, y1 = face.box
    return max(x1 - x0, y1 - y0)


def _fit(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """(height, width), scaled down to fit where it is larger."""
    ratio = min(1.0, longest / max(size))
    return max(1, round(size[0] * ratio)), max(1, round(size[1] * ratio))


def _chunks(items: list, count: int) -> Iterator[list]:
    return (items[start : start + count] for start in range(0, len(items), count))


def _off_centre(face: Face, size: tuple[int, int]) -> float:
    x0, y0, x1, y1 = face.box
    return math.hypot((x0 + x1 - size[1]) / 2, (y0 + y1 - size[0]) / 2)


def check_which(which: str) -> None:
    """Nothing where `which` is a known choice. Raises: ValueError that lists them."""
    if which not in WHICH:
        raise ValueError(f"expected which to be one of {', '.join(map(repr, WHICH))}, got {which!r}")
