"""Which part of a photo a head reads: a named region around a face box, cut and resized to one fixed size.

A box is (x0, y0, x1, y1) in pixels, half-open, as floats; a region is the same in whole pixels, inside the photo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real

import numpy as np

REGIONS = ("face", "body", "full")
# A body of which less lies inside the photo is absent. A tight face shows .07 of its body, a head-and-shoulders
# portrait .16 to .31, a photo in the competition's framing more than half.
VISIBLE = 0.15

BODY_WIDTHS, BODY_HEIGHTS, BODY_ABOVE = 3, 4.5, 0.75  # of the face box: a body's sides, and what is above the box

Box = tuple[float, float, float, float]
BOX_DIGITS = 2  # after the point, in tables of boxes and of answers: one photo gets one box, and one answer, by both
Region = tuple[int, int, int, int]


@dataclass(frozen=True)
class Crop:
    """A region of a photo at one size: what the backbone reads for the heads that name it.

    name: shown in errors and tables. region: "face" (the box plus `margin` on every side, as a share of the box's
    longer side, widened to the aspect of `size`), "body" (3 box widths by 4.5 box heights, from .75 above the box),
    or "full" (the whole photo, box or not). size: (height, width) in pixels.

    Raises: ValueError for an unknown region, a negative margin, or a size that is not two positive whole numbers.

    >>> FACE.resized(112, 96).size
    (112, 96)
    """

    name: str
    region: str
    margin: float = 0.0
    size: tuple[int, int] = (224, 224)

    def __post_init__(self) -> None:
        if self.region not in REGIONS:
            raise ValueError(f"crop {self.name!r} has region {self.region!r}; expected one of {REGIONS}")
        if not isinstance(self.margin, Real) or not 0 <= self.margin < float("inf"):
            raise ValueError(f"crop {self.name!r} has margin {self.margin!r}; expected a share of the box >= 0")
        if isinstance(self.size, list):
            object.__setattr__(self, "size", tuple(self.size))
        pair = isinstance(self.size, tuple) and len(self.size) == 2
        if not pair or any(not isinstance(side, int) or side < 1 for side in self.size):
            raise ValueError(f"crop {self.name!r} has size {self.size!r}; expected (height, width), whole numbers >= 1")

    def resized(self, height: int | tuple[int, int], width: int | None = None) -> Crop:
        """The same region at another size; one value is a square, a pair (height, width)."""
        pair = height if isinstance(height, tuple) and width is None else (height, height if width is None else width)
        return replace(self, size=pair)  # type: ignore[arg-type]  # checked there

    @property
    def needs_box(self) -> bool:
        """True if the region is found from a face box."""
        return self.region != "full"


# how many times as large a region is, both ways, where it is read at twice the crop's size and then halved: OpenCV
# averages halves several times as fast as fractions; farther from two, noise would no longer come out as its means
HALVED = (1.6, 2.5)

FACE = Crop("face", "face", margin=0.25)
BODY = Crop("body", "body")
FULL = Crop("full", "full")


def locate(crop: Crop, box: Sequence[float] | None, shape: Sequence[int]) -> Region | None:
    """The crop's region in a photo of shape (height, width, ...), or None for a body of which hardly anything is in it.

    `box` None means that no face is known: the region is then the whole photo (the caller decided so, by the argument
    `missing` of `multihead.boxes.locate_faces`).

    Raises: ValueError for a box without area or entirely outside the photo.
    """
    height, width = int(shape[0]), int(shape[1])
    if box is None or not crop.needs_box:
        return (0, 0, width, height)
    x0, y0, x1, y1 = (float(value) for value in box)
    if not (x0 < x1 and y0 < y1 and x0 < width and y0 < height and x1 > 0 and y1 > 0):
        raise ValueError(f"box {(x0, y0, x1, y1)} has no area inside a photo of {width} x {height} pixels")
    wanted = _body(x0, y0, x1, y1) if crop.region == "body" else _face(x0, y0, x1, y1, crop)
    left, top = min(max(0, round(wanted[0])), width - 1), min(max(0, round(wanted[1])), height - 1)
    right, bottom = min(width, round(wanted[2])), min(height, round(wanted[3]))
    right, bottom = max(right, left + 1), max(bottom, top + 1)  # one pixel at least
    whole = (wanted[2] - wanted[0]) * (wanted[3] - wanted[1])
    inside = (right - left) * (bottom - top)
    if crop.region == "body" and inside < VISIBLE * whole:
        return None
    return (left, top, right, bottom)


def crop_text(crop: Crop) -> str:
    """Which region a crop is, and its size, in words."""
    height, width = crop.size
    regions = {
        "full": "the whole photo",
        "face": f"the face box plus {crop.margin:g} of its longer side on each of its four sides, then widened about "
        f"its middle to the aspect of {width} to {height}",
        "body": f"{BODY_WIDTHS:g} widths of the face box by {BODY_HEIGHTS:g} of its heights, from {BODY_ABOVE:g} of "
        "its height above the box, the face in the middle of the width",
    }
    return f"{regions[crop.region]}, as {width} x {height} pixels (width x height)"


def box_of(row: np.ndarray) -> Box | None:
    """A row of four numbers as a box, None where it is blank (NaN)."""
    return None if np.isnan(row).any() else tuple(float(value) for value in row)  # type: ignore[return-value]


def _face(x0: float, y0: float, x1: float, y1: float, crop: Crop) -> Box:
    pad = crop.margin * max(x1 - x0, y1 - y0)
    wide, high = x1 - x0 + 2 * pad, y1 - y0 + 2 * pad
    aspect = crop.size[1] / crop.size[0]
    wide, high = max(wide, high * aspect), max(high, wide / aspect)  # widen, never cut into the face
    middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
    return (middle_x - wide / 2, middle_y - high / 2, middle_x + wide / 2, middle_y + high / 2)


def _body(x0: float, y0: float, x1: float, y1: float) -> Box:
    beside, high = (BODY_WIDTHS - 1) / 2 * (x1 - x0), y1 - y0
    top = y0 - BODY_ABOVE * high
    return (x0 - beside, top, x1 + beside, top + BODY_HEIGHTS * high)


def cut(image: np.ndarray, region: Region, size: tuple[int, int]) -> np.ndarray:
    """The region of an RGB photo (H, W, 3) uint8, resized to `size` (height, width): (height, width, 3) uint8.

    Shrinks by area average (of pixels that lie between the photo's, where it is about twice as large: `HALVED`) and
    enlarges linearly, each side by itself, so a small and a large copy of a photo give nearly equal pixels.
    """
    import cv2

    x0, y0, x1, y1 = region
    part, (height, width) = image[y0:y1, x0:x1], size
    ratios = (y1 - y0) / height, (x1 - x0) / width
    if ratios != (2, 2) and all(HALVED[0] <= ratio <= HALVED[1] for ratio in ratios):
        part = cv2.resize(part, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
    elif min(ratios) < 1 < max(ratios):
        shrunk = min(x1 - x0, width), min(y1 - y0, height)
        part = cv2.resize(part, shrunk, interpolation=cv2.INTER_AREA)
    method = cv2.INTER_AREA if min(ratios) >= 1 else cv2.INTER_LINEAR
    return cv2.resize(part, (width, height), interpolation=method)
