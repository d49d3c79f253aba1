"""YuNet, a small face detector from a file of the user's, run by OpenCV; and the detector that a name stands for."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from multihead.decoders import Encoded
from multihead.faces import Detector, Face, is_portrait, longer, look
from multihead.looks import Look, as_photos, fitted, halved
from multihead.mtcnn import Finder

_SHORTEST = 96  # pixels; a first look is taken at no smaller photos
_LONGEST = 1280  # pixels; larger photos are searched at this size


_OPENING = threading.Lock()  # the level of OpenCV's log is one for all threads


class YuNet:
    """YuNet from an ONNX file, such as face_detection_yunet_2023mar.onnx of OpenCV's model zoo; fixed sizes and
    dynamic ones serve alike.

    A first look is taken at a half, a quarter or an eighth of a photo; unless that finds a portrait (one face, not a
    small one, or a large one) the photo is looked at in full. May be used by several threads at once.

    Args:
        path: the file; it is not kept open.
        threshold: least score, 0..1; the default finds no more false faces than MTCNN (benchmarks/faces.py).
        min_face: longer side of the smallest face given, in pixels of the photo.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no YuNet, or a setting is out of range.

    >>> YuNet("yunet.onnx").find([read_image("a.jpg")])  # doctest: +SKIP

    Source: Wu, Peng and Yu 2023, YuNet: A Tiny Millisecond-level Face Detector.
    """

    def __init__(self, path: str | os.PathLike, *, threshold: float = 0.72, min_face: int | None = None) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"expected a threshold between 0 and 1, got {threshold!r}")
        if min_face is not None and min_face < 1:
            raise ValueError(f"expected min_face of 1 pixel or more, got {min_face!r}")
        if not Path(path).is_file():
            raise FileNotFoundError(f"no file {os.fspath(path)}; pass the path of a YuNet model, such as yunet.onnx")
        self.path, self.threshold, self.min_face = Path(path), threshold, min_face
        self.identity = f"yunet {_digest(self.path)} threshold={threshold} min_face={min_face}"
        self.parallel = True
        # a cv2 detector keeps the size of its photos: a thread has one to itself, and leaves it to the next
        self._idle: deque[cv2.FaceDetectorYN] = deque()
        self._see([np.zeros((32, 32, 3), np.uint8)])  # a file of another kind is refused here

    def find(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        """The faces of each RGB uint8 photo (H, W, 3), largest first. Raises: ValueError for other arrays."""
        return self.search(as_photos(images))

    def reduction(self, size: tuple[int, int]) -> int:
        """How much smaller a JPEG of this (height, width) may be decoded for the first look: 1, 2, 4 or 8."""
        return _first(size).reduction

    def search(self, photos: Sequence[Encoded]) -> list[list[Face]]:
        """As find, in pixels of the full photos, which are decoded as far as each look needs."""
        faces = look(photos, _first, self._see)
        again = [i for i, photo in enumerate(photos) if not is_portrait(faces[i], photo.size)]
        again = [i for i in again if _first(photos[i].size) != _second(photos[i].size)]
        for i, found in zip(again, look([photos[i] for i in again], _second, self._see), strict=True):
            faces[i] = found or faces[i]
        return [[face for face in found if longer(face) >= (self.min_face or 0)] for found in faces]

    def _see(self, images: list[np.ndarray], planned: Look | None = None) -> list[list[Face]]:
        try:
            detector = self._idle.pop()
        except IndexError:
            detector = _open(self.path, self.threshold)
        try:
            detector.setInputSize(images[0].shape[1::-1])
            found = [detector.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1] for image in images]
        except cv2.error as error:
            raise _wrong(self.path, error) from None
        self._idle.append(detector)
        return [[] if rows is None else [_face(row) for row in rows.astype(float).tolist()] for rows in found]


def open_detector(name: str | os.PathLike | Detector | None) -> Detector:
    """The detector of a name: Finder() for None or "mtcnn", a YuNet for the path of an .onnx file; a detector itself.

    Raises:
        ValueError: the name is neither, or the file is no YuNet.
        FileNotFoundError: there is no such file.

    >>> open_detector("mtcnn").identity == Finder().identity
    True
    """
    if name is None or name == "mtcnn":
        return Finder()
    if not isinstance(name, (str, os.PathLike)):
        return name
    if os.fspath(name).lower().endswith(".onnx"):
        return YuNet(name)
    raise ValueError(f"expected a detector 'mtcnn' or the path of a YuNet .onnx file, got {os.fspath(name)!r}")


def _open(path: Path, threshold: float) -> cv2.FaceDetectorYN:
    try:
        with _OPENING, _quiet():
            return cv2.FaceDetectorYN.create(str(path), "", (320, 320), threshold, 0.3, 5000)
    except cv2.error as error:
        raise _wrong(path, error) from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """OpenCV 5 warns on standard error of a setting that its own detector makes."""
    logging = getattr(cv2.utils, "logging", None)
    if logging is None:
        yield
        return
    before = logging.setLogLevel(logging.LOG_LEVEL_ERROR)
    try:
        yield
    finally:
        logging.setLogLevel(before)


def _wrong(path: Path, error: cv2.error) -> ValueError:
    text = " ".join(str(error).split())[:200]
    return ValueError(f"{path}: expected a YuNet model in ONNX, which OpenCV cannot make of it ({text})")


def _face(row: Sequence[float]) -> Face:
    """A face of YuNet's row: x, y, width, height, ten coordinates of five points, score.

    Its points are the person's right eye, left eye, nose, right and left corner of the mouth: left to right as seen.
    """
    left, top, width, height, *ten, score = row
    points = tuple(zip(ten[::2], ten[1::2], strict=True))
    return Face((left, top, left + width, top + height), score, points)


def _first(size: tuple[int, int]) -> Look:
    return halved(size, _SHORTEST, _LONGEST)


def _second(size: tuple[int, int]) -> Look:
    return fitted(size, _LONGEST)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
