"""Changes of training photos: drawn from (seed, epoch, index) alone, the same for all crops of a photo."""

from __future__ import annotations

import functools
import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from multihead.options import option

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Flip:
    """Mirrors a photo with probability `hflip`, all its crops alike."""

    hflip: float = option(0.5, "probability of a mirrored photo")


@dataclass(frozen=True)
class Diary:
    """The competition diary's strong colour jitter and a mirror: one of brightness, contrast, saturation (factor
    .2 to 3) and hue (-.3 to .3) for every photo, all its crops alike."""

    hflip: float = option(0.5, "probability of a mirrored photo")
    color_jitter_prob: float = option(1.0, "probability of the colour jitter (diary)")


@dataclass(frozen=True)
class Gentle:
    """A mirror, small shifts, scales and turns, and a mild change of brightness, contrast and saturation; every crop
    of a photo draws the same numbers."""

    hflip: float = option(0.5, "probability of a mirrored photo")
    shift: float = option(0.06, "largest shift, as a share of the crop's side (gentle)")
    scale: float = option(0.12, "largest change of scale (gentle)")
    rotate: float = option(10.0, "largest turn in degrees (gentle)")
    color_jitter: float = option(0.2, "largest change of brightness, contrast, saturation (gentle)")


@dataclass(frozen=True)
class Plain:
    """No augmentation: the photo as it is."""


Augment = Flip | Diary | Gentle | Plain


def photo_seed(seed: int, epoch: int, index: int) -> int:
    """A number below 2**32 for one photo in one epoch; unlike arguments give unrelated numbers."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {epoch} {index}".encode(), digest_size=4).digest(), "little")


def apply(augment: Augment, crops: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """The crops (H, W, 3) uint8 of one photo, changed alike: the same seed gives the same pixels in any process.

    Each crop may have its own size; shifts are shares of it. A mirrored photo has all its crops mirrored.
    """
    import numpy as np

    if isinstance(augment, Plain):
        return list(crops)
    mirrored = np.random.default_rng(seed).random() < augment.hflip
    changed = [np.ascontiguousarray(crop[:, ::-1]) if mirrored else crop for crop in crops]
    change = _change(augment)
    if change is None:
        return changed
    drawn = []
    for crop in changed:
        change.set_random_seed(seed)  # once per crop: every crop draws the same numbers
        drawn.append(change(image=crop)["image"])
    return drawn


@functools.lru_cache(maxsize=8)
def _change(augment: Augment) -> Any:
    """The albumentations pipeline after the mirror, None where there is none."""
    if not isinstance(augment, (Diary, Gentle)):
        return None
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the network for news
    import albumentations as A
    import cv2

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # albumentations only warns of arguments that it ignores
        if isinstance(augment, Diary):
            still: dict[str, Any] = {"brightness": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "hue": (0, 0)}
            moves = {"brightness": (0.2, 3), "contrast": (0.2, 3), "saturation": (0.2, 3), "hue": (-0.3, 0.3)}
            jitters = [A.ColorJitter(**(still | {name: reach}), p=1) for name, reach in moves.items()]
            return A.Compose([A.OneOf(jitters, p=augment.color_jitter_prob)])
        factor = (1 - augment.color_jitter, 1 + augment.color_jitter)
        move = A.Affine(
            scale=(1 - augment.scale, 1 + augment.scale),
            translate_percent=(-augment.shift, augment.shift),
            rotate=(-augment.rotate, augment.rotate),
            border_mode=cv2.BORDER_REFLECT_101,
            p=1,
        )
        return A.Compose(
            [move, A.ColorJitter(brightness=factor, contrast=factor, saturation=factor, hue=(0, 0), p=0.8)]
        )
