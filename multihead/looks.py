"""At what size a photo is searched, and its pixels at that size from the least decoding."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from multihead.decoders import REDUCTIONS, Encoded, decoded, kind

# pixels of a photo that is always decoded in full: a coarser decode would save less than the second one costs that
# finer looks and most crops ask for
ONCE = 640 * 480


class Look(NamedTuple):
    """How a photo is looked at: its pixels decoded at 1/reduction, then resized to (height, width), for such faces."""

    reduction: int
    size: tuple[int, int]
    min_face: float = 0.0


def halved(size: tuple[int, int], shortest: int, longest: int) -> Look:
    """The smallest look at a photo of (height, width), halved up to three times, whose short side is `shortest` or
    more; the photo as `fitted` gives it where not even a half has that."""
    for reduction in reversed(REDUCTIONS[1:]):
        small = (-(-size[0] // reduction), -(-size[1] // reduction))
        if min(small) >= shortest:
            return Look(1 if math.prod(size) <= ONCE else reduction, _fit(small, longest))
    return fitted(size, longest)


def fitted(size: tuple[int, int], longest: int) -> Look:
    """The look at a photo of (height, width) whose longer side is `longest` at most, from the least decoding for it."""
    small = _fit(size, longest)
    enough = [reduction for reduction in REDUCTIONS if all(-(-a // reduction) >= b for a, b in zip(size, small))]
    return Look(enough[-1], small)


def pixels(photo: Encoded, planned: Look) -> np.ndarray:
    """The photo's RGB uint8 pixels (H, W, 3) for this look."""
    image = photo.pixels(planned.reduction)
    high, wide = planned.size
    while image.shape[0] % (4 * high) == image.shape[1] % (4 * wide) == 0:
        image = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)  # for which OpenCV has a fast way
    if image.shape[:2] == planned.size:
        return image
    return cv2.resize(image, (wide, high), interpolation=cv2.INTER_AREA)


def in_full(photo: Encoded, planned: Look) -> tuple[np.ndarray, np.ndarray]:
    """How places (x, y) of a look lie in the full photo: at scale * place - shift, each (2,); the photo keeps the
    decode of this look."""
    decode = photo.pixels(planned.reduction).shape[:2]
    reduction = 1 if decode == photo.size else planned.reduction
    high, wide = (reduction * side / seen for side, seen in zip(decode, planned.size))
    return np.array([wide, high]), np.array(photo.lead(reduction)[::-1], float)


def as_photos(images: Sequence[np.ndarray]) -> list[Encoded]:
    """The photos of arrays. Raises: ValueError where one is not RGB uint8 (H, W, 3)."""
    for index, image in enumerate(images):
        shown = isinstance(image, np.ndarray) and image.size > 0
        if not (shown and image.dtype == np.uint8 and image.shape[2:] == (3,)):
            raise ValueError(f"images[{index}]: expected RGB uint8 (H, W, 3), got {kind(image)}; use read_image first")
    return [decoded(image, f"images[{index}]") for index, image in enumerate(images)]


def _fit(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """(height, width), scaled down to fit where it is larger."""
    ratio = min(1.0, longest / max(size))
    return max(1, round(size[0] * ratio)), max(1, round(size[1] * ratio))
