"""The crops of one photo, cut from the smallest decode that shows them well: training and prediction alike.

Each crop is read from the photo at its own reduction, whatever the photo came in and whatever other crops ask for: a
JPEG's decoder reduces it, pixels that are there in full, or finer for another crop, are averaged. So a photo's answers
hardly depend on its container, or a model's on the others of its ensemble.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from multihead.crops import HALVED, Crop, Region, cut, locate
from multihead.decoders import REDUCTIONS, Encoded
from multihead.images import open_image

CUTTING = 5  # raised when a photo's crops get other pixels, so that kept ones are not used


def read_crops(
    photo: Encoded, crops: Sequence[Crop], box: Sequence[float] | None, whole: bool = False
) -> tuple[list[np.ndarray], list[Region | None]]:
    """The crops (H, W, 3) uint8 of one photo, and each crop's region in pixels of the full photo, None (and black
    pixels) for an absent crop.

    box: the face, None if none is known (crops then read the whole photo). whole: the photo is a tight face. A JPEG is
    decoded once, at the coarsest reduction that leaves every region 1.6 times as large as its crop or larger.

    Raises: ValueError for a box outside the photo; ImageError for a photo that cannot be decoded.

    >>> black, crop = np.zeros((80, 60, 3), np.uint8), Crop("full", "full", size=(8, 6))
    >>> cuts, regions = read_crops(open_image(black), [crop], None)
    >>> cuts[0].shape, regions
    ((8, 6, 3), [(0, 0, 60, 80)])
    """
    regions = crop_regions(photo.size, crops, box, whole)
    return cut_at(photo, crops, regions, reduction_for(crops, regions)), regions


def crop_regions(
    size: tuple[int, int], crops: Sequence[Crop], box: Sequence[float] | None, whole: bool = False
) -> list[Region | None]:
    """Each crop's region of a photo of this (height, width), None for an absent one. Raises: ValueError as `locate`."""
    if whole:
        box = (0.0, 0.0, float(size[1]), float(size[0]))
    return [locate(crop, box, size) for crop in crops]


def reduction_for(crops: Sequence[Crop], regions: Sequence[Region | None]) -> int:
    """The coarsest of 8, 4, 2, 1 at which every present crop's region has 1.6 times the crop's size or more both ways:
    nearer to it, what lies between two pixels of the decode would be blurred, and be averaged slowly.

    >>> reduction_for([Crop("full", "full", size=(100, 100))], [(0, 0, 640, 900)])
    4
    """
    return max(
        reduction
        for reduction in REDUCTIONS
        if reduction == 1
        or all(_fits(crop, region, reduction) for crop, region in zip(crops, regions) if region is not None)
    )


def cut_at(photo: Encoded, crops: Sequence[Crop], regions: Sequence[Region | None], reduction: int) -> list[np.ndarray]:
    """The crops (H, W, 3) of these regions of the full photo, from its decode at 1/reduction; black where absent."""
    if all(region is None for region in regions):
        return [np.zeros((*crop.size, 3), np.uint8) for crop in crops]
    pixels = photo.pixels(reduction)
    if pixels.shape[:2] == photo.size:  # no JPEG, or one that only comes in full
        reduction = 1
    down, right = photo.lead(reduction)
    cuts = []
    for crop, region in zip(crops, regions):
        if region is None:
            cuts.append(np.zeros((*crop.size, 3), np.uint8))
        else:
            there = (region[0] + right, region[1] + down, region[2] + right, region[3] + down)
            cuts.append(_cut_one(pixels, crop, there, reduction))
    return cuts


def cut_regions(
    image: np.ndarray, crops: Sequence[Crop], box: Sequence[float] | None, whole: bool = False
) -> tuple[list[np.ndarray], list[Region | None]]:
    """The crops of a decoded photo with their regions: as `read_crops`."""
    return read_crops(open_image(image), crops, box, whole)


def _fits(crop: Crop, region: Region, reduction: int) -> bool:
    high, wide = region[3] - region[1], region[2] - region[0]
    return min(high / crop.size[0], wide / crop.size[1]) >= HALVED[0] * reduction


def _cut_one(pixels: np.ndarray, crop: Crop, region: Region, reduction: int) -> np.ndarray:
    """The crop from a decode at 1/reduction, which is averaged where the crop's own reduction is coarser."""
    own = max(reduction, reduction_for([crop], [region]))
    if own == reduction:
        return _cut_reduced(pixels, region, reduction, crop.size)
    factor = own // reduction
    # whole squares of pixels about the region, and one more on each side that interpolation may read
    x0, y0 = (max(0, edge // own - 1) for edge in region[:2])
    x1, y1 = (-(-edge // own) + 1 for edge in region[2:])
    part = pixels[y0 * factor : y1 * factor, x0 * factor : x1 * factor]
    over = [-side % factor for side in part.shape[:2]]
    if any(over):  # the last squares of a photo are not whole
        part = cv2.copyMakeBorder(part, 0, over[0], 0, over[1], cv2.BORDER_REPLICATE)
    size = (part.shape[1] // factor, part.shape[0] // factor)
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    moved = (region[0] - x0 * own, region[1] - y0 * own, region[2] - x0 * own, region[3] - y0 * own)
    return _cut_reduced(small, moved, own, crop.size)


def _cut_reduced(pixels: np.ndarray, region: Region, reduction: int, size: tuple[int, int]) -> np.ndarray:
    """The region of the full photo as (height, width, 3), from its decode at 1/reduction.

    Edges between two pixels of the decode stay where they are: the region is read in between at a multiple of the size,
    about as fine as the decode or finer, and that is averaged.
    """
    x0, y0, x1, y1 = (edge / reduction for edge in region)
    if all(edge % reduction == 0 for edge in region):
        return cut(pixels, (int(x0), int(y0), int(x1), int(y1)), size)
    ratio = max((x1 - x0) / size[1], (y1 - y0) / size[0])
    finer = 2 if ratio <= HALVED[1] else math.ceil(ratio)
    step_x, step_y = (x1 - x0) / (finer * size[1]), (y1 - y0) / (finer * size[0])
    # a pixel's middle is half a pixel from its edge, on both sides of the map
    place = np.array([[step_x, 0, x0 + (step_x - 1) / 2], [0, step_y, y0 + (step_y - 1) / 2]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    fine = cv2.warpAffine(pixels, place, (finer * size[1], finer * size[0]), flags=how, borderMode=cv2.BORDER_REPLICATE)
    return cv2.resize(fine, (size[1], size[0]), interpolation=cv2.INTER_AREA)
