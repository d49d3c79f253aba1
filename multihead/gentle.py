"""The changes of `augment.Gentle`, drawn and carried out as albumentations' Affine and ColorJitter do, bit for bit,
without what they take to get there: where crops are kept, hardly anything else is left for a loader to do.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import cv2
import numpy as np

JITTERED = 0.8  # the share of photos whose colours change


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
    still = np.eye(2, 3)
    if (np.abs(place - still) <= 1e-8 + 1e-5 * still).all():
        return image
    return cv2.warpAffine(image, place, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def _coloured(image: np.ndarray, factors: Sequence[float], order: Sequence[int]) -> np.ndarray:
    levels = np.arange(256, dtype=np.float32)
    for kind in order:
        if kind == 3 or factors[kind] == 1:
            continue
        factor = factors[kind]
        if kind == 2:
            grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
            image = cv2.addWeighted(image, factor, grey, 1 - factor, 0)
            continue
        middle = float(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean()) * (1 - factor) if kind else 0.0
        table = (levels * np.float32(factor) + np.float32(middle)).clip(0, 255).astype(np.uint8)
        image = cv2.LUT(image, table)
    return image
