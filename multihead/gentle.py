"""The changes of `augment.Gentle`, drawn and carried out as albumentations' Affine and ColorJitter do, bit for bit,
without what they take to get there: where crops are kept, hardly anything else is left for a loader to do.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import cv2
import numpy as np

JITTERED = 0.8  # the share of photos whose colours change
_STILL = (1, 0, 0, 0, 1, 0)  # the matrix (2, 3) that moves nothing
_LEVELS, _BYTES = np.arange(256, dtype=np.float32), np.arange(256, dtype=np.uint8)[None]
_HALF = 0.49998  # a little less than a half, so that whole numbers do not round down


def change(
    image: np.ndarray, seeds: tuple[int, int], *, shift: float, scale: float, rotate: float, colour: float
) -> np.ndarray:
    """The image (H, W, 3) uint8, moved as the first seed says and with other colours as the second does: with one for
    both, photos would be the brighter the lower they lie.

    shift: largest shift as a share of the side; scale: largest change of scale; rotate: largest turn in degrees;
    colour: largest change of brightness, contrast and saturation.

    >>> change(np.full((4, 4, 3), 9, np.uint8), (3, 4), shift=0.0, scale=0.0, rotate=0.0, colour=0.0)[0, 0].tolist()
    [9, 9, 9]
    """
    place, colours = map(random.Random, seeds)
    image = _moved(image, [place.random() for _ in range(7)], shift, scale, rotate)
    if colours.random() >= JITTERED:
        return image
    factors = [_between(1 - colour, 1 + colour, colours.random()) for _ in range(3)]
    order = [0, 1, 2, 3]  # the last is hue, which stays
    np.random.default_rng(seeds[1]).shuffle(order)
    return _coloured(image, factors, order)


def _between(low: float, high: float, number: float) -> float:
    return low + (high - low) * number


def _moved(image: np.ndarray, drawn: Sequence[float], shift: float, scale: float, rotate: float) -> np.ndarray:
    height, width = image.shape[:2]
    right, down = (int(_between(-shift, shift, u) * side) for u, side in zip(drawn[:2], (width, height)))
    across, along = (_between(1 - scale, 1 + scale, u) for u in drawn[4:6])  # 2 and 3 are the shear's, which is none
    turn = np.deg2rad(_between(-rotate, rotate, drawn[6]) % 360)
    x, y = width / 2 - 0.5, height / 2 - 0.5
    # in this order, for the last bits: to the middle, turned, scaled, from the middle
    turned = np.array([[np.cos(turn), np.sin(turn), x + right], [-np.sin(turn), np.cos(turn), y + down]])
    turned[:, :2] *= (across, along)
    place = turned @ np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]])  # (2, 3)
    if all(abs(value - still) <= 1e-8 + 1e-5 * still for value, still in zip(place.ravel().tolist(), _STILL)):
        return image
    four = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)  # OpenCV moves four channels twice as fast as three
    mirror = cv2.BORDER_REFLECT_101
    moved = cv2.warpAffine(four, place, (width, height), flags=cv2.INTER_LINEAR, borderMode=mirror)
    return cv2.cvtColor(moved, cv2.COLOR_RGBA2RGB)


def _coloured(image: np.ndarray, factors: Sequence[float], order: Sequence[int]) -> np.ndarray:
    for kind in order:
        if kind == 3 or factors[kind] == 1:
            continue
        factor = factors[kind]
        if kind == 2:
            grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
            image = cv2.addWeighted(image, factor, grey, 1 - factor, 0)
        elif kind:
            grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            image = _levelled(image, factor, cv2.sumElems(grey)[0] / grey.size * (1 - factor))
        else:
            image = _levelled(image, factor, 0.0)
    return image


def _levelled(image: np.ndarray, factor: float, add: float) -> np.ndarray:
    """Every level times `factor` plus `add`, cut off at 0 and 255 and below the point."""
    table = (_LEVELS * np.float32(factor) + np.float32(add)).clip(0, 255).astype(np.uint8)
    # a weighted sum takes half as long as a table, but rounds: with a half less it nearly always gives the same
    less = add - _HALF
    if np.array_equal(cv2.addWeighted(_BYTES, factor, _BYTES, 0, less)[0], table):
        return cv2.addWeighted(image, factor, image, 0, less)
    return cv2.LUT(image, table)
