"""Changes of training photos: drawn from (seed, epoch, index) alone, the same for all crops of a photo."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from multihead import pipelines
from multihead.masks import DrawnMask
from multihead.options import between, choice, option

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Flip:
    """Mirrors a photo with probability `hflip`, all its crops alike."""

    hflip: float = option(0.5, "probability of a mirrored photo")

    def __post_init__(self) -> None:
        between("flip", "hflip", self.hflip, 0, 1)


@dataclass(frozen=True)
class Diary:
    """The competition diary's strong colour jitter and a mirror: one of brightness, contrast, saturation (factor
    .2 to 3) and hue (-.3 to .3) for every photo, all its crops alike."""

    hflip: float = option(0.5, "probability of a mirrored photo")
    color_jitter_prob: float = option(1.0, "probability of the colour jitter (diary)")

    def __post_init__(self) -> None:
        between("diary", "hflip", self.hflip, 0, 1)
        between("diary", "color_jitter_prob", self.color_jitter_prob, 0, 1)


@dataclass(frozen=True)
class Gentle:
    """A mirror, small shifts, scales and turns, and a mild change of brightness, contrast and saturation; every crop
    of a photo draws the same numbers."""

    hflip: float = option(0.5, "probability of a mirrored photo")
    shift: float = option(0.06, "largest shift, as a share of the crop's side (gentle)")
    scale: float = option(0.12, "largest change of scale (gentle)")
    rotate: float = option(10.0, "largest turn in degrees (gentle)")
    color_jitter: float = option(0.2, "largest change of brightness, contrast, saturation (gentle)")

    def __post_init__(self) -> None:
        for name, most in {"hflip": 1, "shift": 1, "scale": 1, "rotate": 180, "color_jitter": 1}.items():
            between("gentle", name, getattr(self, name), 0, most)


@dataclass(frozen=True)
class Plain:
    """No augmentation: the photo as it is."""


@dataclass(frozen=True)
class RandAugment:
    """A mirror, and `num_ops` unlike operations of RandAugment's list, as strong as `magnitude` says, up or down.

    The list is cut to what suits faces: brightness, contrast, saturation, sharpness, autocontrast, equalize,
    posterize, rotate, shear, translate; no operation inverts colours.

    Source: Cubuk et al. 2019, RandAugment, arXiv 1909.13719.
    """

    num_ops: int = option(2, "operations a photo (randaugment)")
    magnitude: float = option(9.0, "strength of the operations, 0 to 10 (randaugment)")
    hflip: float = option(0.5, "probability of a mirrored photo")

    def __post_init__(self) -> None:
        choice("randaugment", "num_ops", self.num_ops, range(1, 11))
        between("randaugment", "magnitude", self.magnitude, 0, 10)
        between("randaugment", "hflip", self.hflip, 0, 1)


@dataclass(frozen=True)
class Cutout:
    """A black or grey hole at one place of all crops, with probability `prob`.

    Source: DeVries and Taylor 2017, arXiv 1708.04552.
    """

    prob: float = option(0.5, "probability of a hole (cutout)")
    size: float = option(0.3, "sides of the hole, as shares of the crop's sides (cutout)")

    def __post_init__(self) -> None:
        between("cutout", "prob", self.prob, 0, 1)
        between("cutout", "size", self.size, 0, 1, open_low=True)


@dataclass(frozen=True)
class CLAHE:
    """Local contrast evened out over 8 by 8 tiles of the lightness, with probability `prob`.

    Source: Zuiderveld 1994, Contrast limited adaptive histogram equalization, Graphics Gems IV.
    """

    prob: float = option(0.5, "probability of evened contrast (clahe)")
    clip_limit: float = option(4.0, "largest gain of local contrast (clahe)")

    def __post_init__(self) -> None:
        between("clahe", "prob", self.prob, 0, 1)
        between("clahe", "clip_limit", self.clip_limit, 0, open_low=True)


@dataclass(frozen=True)
class Grey:
    """A photo without colour, with probability `prob`."""

    prob: float = option(0.1, "probability of a photo without colour (grey)")

    def __post_init__(self) -> None:
        between("grey", "prob", self.prob, 0, 1)


@dataclass(frozen=True)
class BoxJitter:
    """A face box moved and scaled before the crops are cut, as if another detector had found it: see `jitter`."""

    shift: float = option(0.1, "largest shift, as a share of the box's sides (boxjitter)")
    scale: float = option(0.1, "largest change of the box's sides (boxjitter)")

    def __post_init__(self) -> None:
        between("boxjitter", "shift", self.shift, 0, 1)
        between("boxjitter", "scale", self.scale, 0, 0.9)  # the box keeps an area


@dataclass(frozen=True)
class Albumentations:
    """A pipeline of albumentations, all crops of a photo alike: every part draws the same numbers for each of them.

    pipeline: `A.Compose([...])` or one transform of it, a file that `A.save` wrote, or its JSON, which is what the
    field then holds. It must leave crops their size and uint8: they are resized before it and normalised after it.
    Pixels mean those of each crop; where crops differ in size, shares move them alike.

    Raises: ValueError for what is no pipeline, or has a part that cannot be written down, as A.Lambda.

    >>> Albumentations('{"__class_fullname__": "HorizontalFlip", "p": 0.5}')
    Albumentations(pipeline='{"__class_fullname__": "HorizontalFlip", "p": 0.5}')
    """

    pipeline: str = option("", "file that albumentations' A.save wrote, JSON or YAML (albumentations)")

    def __post_init__(self) -> None:
        object.__setattr__(self, "pipeline", pipelines.written(self.pipeline))


Augment = Flip | Diary | Gentle | Plain | RandAugment | Cutout | CLAHE | Grey | BoxJitter | DrawnMask | Albumentations
TRIES = 8  # photos that a pipeline of the user's own is tried on before training
_STILL = (Plain, BoxJitter, DrawnMask)  # leave the crops that they are given as they are


def members(augment: Augment | tuple[Augment, ...]) -> tuple[Augment, ...]:
    """The changes in their order: a tuple as it is, a single one as a tuple.

    >>> members(Flip())
    (Flip(hflip=0.5),)
    """
    return augment if isinstance(augment, tuple) else (augment,)


def check(augment: Augment | tuple[Augment, ...]) -> None:
    """Nothing where `augment` is one change or a tuple of changes that go together.

    Raises: ValueError for anything else, and for a tuple of which two mirror (one would undo the other), jitter the
    box or draw a mask.
    """
    parts = members(augment)
    names = ", ".join(kind.__name__ for kind in Augment.__args__)
    if not parts or not all(isinstance(part, Augment) for part in parts):
        foreign = any(type(part).__module__.startswith("albumentations") for part in parts)
        hint = "; a pipeline of albumentations as Albumentations(pipeline)" if foreign else ""
        expected = f"expected one of {names}, or a tuple of them, as in (Flip(), Grey()){hint}"
        raise ValueError(f"augment is {augment!r}; {expected}")
    mirrors = [part for part in parts if getattr(part, "hflip", 0) > 0]
    if len(mirrors) > 1:
        raise ValueError(f"augment has {mirrors}, which all mirror; expected hflip=0 in all but one")
    for kind in (BoxJitter, DrawnMask):
        found = [part for part in parts if isinstance(part, kind)]
        if len(found) > 1:
            raise ValueError(f"augment has {found}; expected at most one {kind.__name__}")


def try_out(augment: Augment | tuple[Augment, ...], sizes: Sequence[tuple[int, int]]) -> None:
    """Nothing where pipelines of the user's own can be made and keep crops (H, W) of these sizes as they are.

    Raises: ValueError as they would in training.
    """
    import numpy as np

    crops = [np.full((*size, 3), 127, np.uint8) for size in sizes]
    for part in members(augment):
        if isinstance(part, Albumentations):
            for seed in range(TRIES):
                apply(part, crops, seed)


def photo_seed(seed: int, epoch: int, index: int) -> int:
    """A number below 2**32 for one photo in one epoch; unlike arguments give unrelated numbers."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {epoch} {index}".encode(), digest_size=4).digest(), "little")


def apply(augment: Augment | tuple[Augment, ...], crops: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """The crops (H, W, 3) uint8 of one photo, changed alike: the same seed gives the same pixels in any process.

    Each crop may have its own size; shifts and holes are shares of it. A mirrored photo has all its crops mirrored.
    The changes of a tuple follow each other, each with random numbers of its own: those of its place in the tuple.
    BoxJitter and DrawnMask change nothing here: see `jitter` and `multihead.masks`.
    """
    changed = list(crops)
    for place, part in enumerate(members(augment)):
        changed = _apply(part, changed, _own(seed, place))
    return changed


def last_flip(augment: Augment | tuple[Augment, ...]) -> int | None:
    """The place of a Flip after which nothing changes pixels: a whole batch can then be mirrored where it is computed.

    >>> last_flip((Gentle(hflip=0.0), Flip(), BoxJitter())), last_flip((Flip(), Grey()))
    (1, None)
    """
    places = [place for place, part in enumerate(members(augment)) if not isinstance(part, _STILL)]
    return places[-1] if places and isinstance(members(augment)[places[-1]], Flip) else None


def flips(flip: Flip, place: int, seed: int) -> bool:
    """Whether a Flip at this place of a tuple mirrors the photo of a seed, as `apply` would.

    >>> flips(Flip(1.0), 0, seed=3), flips(Flip(0.0), 0, seed=3)
    (True, False)
    """
    import numpy as np

    return bool(np.random.default_rng(_own(seed, place)).random() < flip.hflip)


def _own(seed: int, place: int) -> int:
    """The seed of the member of a tuple at this place."""
    return photo_seed(seed, place, 0) if place else seed


def _apply(augment: Augment, crops: list[np.ndarray], seed: int) -> list[np.ndarray]:
    import cv2
    import numpy as np

    from multihead import gentle

    if isinstance(augment, _STILL):
        return crops
    rng = np.random.default_rng(seed)
    if isinstance(augment, (Cutout, CLAHE, Grey)):
        if rng.random() >= augment.prob:
            return crops
        if isinstance(augment, Cutout):
            return _holes(crops, augment.size, rng)
        return [_clahe(crop, augment.clip_limit) if isinstance(augment, CLAHE) else _grey(crop) for crop in crops]
    mirrored = rng.random() < getattr(augment, "hflip", 0)
    changed = [cv2.flip(crop, 1) if mirrored else crop for crop in crops]  # a copy by numpy takes 20 times as long
    if isinstance(augment, Gentle):
        most = {"shift": augment.shift, "scale": augment.scale, "rotate": augment.rotate}
        seeds = seed, photo_seed(seed, 0, 2)
        return [gentle.change(crop, seeds, **most, colour=augment.color_jitter) for crop in changed]
    pipeline = _pipeline(augment)
    # the first draw of the mirror's own seed would choose among jitters or operations: theirs is another stream
    return changed if pipeline is None else pipelines.run(pipeline, changed, photo_seed(seed, 0, 1))


def jitter(setting: BoxJitter, box: tuple[float, float, float, float], seed: int) -> tuple[float, float, float, float]:
    """The box (x0, y0, x1, y1), moved by up to `shift` of its sides and each side scaled by up to 1 +- `scale`.

    It never loses its area, but may leave the photo.

    Raises: ValueError for a box without area.

    >>> jitter(BoxJitter(shift=0.0, scale=0.0), (10, 20, 50, 80), seed=3)
    (10.0, 20.0, 50.0, 80.0)
    """
    import numpy as np

    x0, y0, x1, y1 = (float(value) for value in box)
    if not (x0 < x1 and y0 < y1):
        raise ValueError(f"box {(x0, y0, x1, y1)} has no area; expected x0 < x1 and y0 < y1")
    moves = np.random.default_rng((seed, 1)).uniform(-1, 1, 4)  # numbers that no member of a tuple draws
    (right, down), (wider, taller) = (setting.shift * moves[:2]).tolist(), (1 + setting.scale * moves[2:]).tolist()
    middle_x, middle_y = (x0 + x1) / 2 + right * (x1 - x0), (y0 + y1) / 2 + down * (y1 - y0)
    half_x, half_y = wider * (x1 - x0) / 2, taller * (y1 - y0) / 2
    return (middle_x - half_x, middle_y - half_y, middle_x + half_x, middle_y + half_y)


def _holes(crops: list[np.ndarray], size: float, rng: np.random.Generator) -> list[np.ndarray]:
    """The crops with one hole each, wholly inside and at the same relative place."""
    across, down, shade = rng.random(), rng.random(), 127 * int(rng.integers(2))
    holed = []
    for crop in crops:
        height, width = crop.shape[:2]
        high, wide = max(1, round(size * height)), max(1, round(size * width))
        top, left = round(down * (height - high)), round(across * (width - wide))
        crop = crop.copy()
        crop[top : top + high, left : left + wide] = shade
        holed.append(crop)
    return holed


def _clahe(crop: np.ndarray, clip_limit: float) -> np.ndarray:
    import cv2

    lab = cv2.cvtColor(crop, cv2.COLOR_RGB2LAB)
    lab[:, :, 0] = cv2.createCLAHE(clip_limit, (8, 8)).apply(lab[:, :, 0])
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def _grey(crop: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


@functools.lru_cache(maxsize=8)
def _pipeline(augment: Augment) -> Any:
    """The albumentations pipeline after the mirror, None where there is none."""
    if isinstance(augment, Albumentations):
        return pipelines.built(augment.pipeline)
    if isinstance(augment, RandAugment):
        return pipelines.rand_augment(augment.num_ops, augment.magnitude)
    return pipelines.diary(augment.color_jitter_prob) if isinstance(augment, Diary) else None
