"""Mixing the photos of a batch: a part of each becomes its partner's, and every head's target row says how much.

A head's row keeps the share of its own pixels that the head's crops really keep: the same relative box is cut in every
crop, and counted after it is clipped and rounded there. Masses mix as rows do: mixed with unknown leaves that share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from multihead.options import between, choice, option, whole

if TYPE_CHECKING:
    import torch

    from multihead.crops import Crop
    from multihead.heads import Head

SHAPES = ("box", "strip", "half")
_PROB = "probability that a batch is mixed"
_ALPHA = "alpha of Beta(alpha, alpha), from which the share of the own photo is drawn"
_OFF = "mixing stops from this epoch on, counted from 1; 0: never"


@dataclass(frozen=True)
class CutMix:
    """A part of each photo is cut from its partner.

    shape: "box" (the paper's, anywhere, clipped at the borders), "strip" (a box of full height, so both faces keep
    eyes and mouth), "half" (own left half, the partner's right half; alpha has no say).

    Raises: ValueError that names the field, what it holds and what was expected.

    Source: Yun et al. 2019, arXiv 1905.04899, algorithm A1.
    """

    prob: float = option(0.5, _PROB)
    alpha: float = option(1.0, _ALPHA)
    shape: str = option("box", "what CutMix cuts: box, strip (full height) or half (the right half)")
    off_epoch: int = option(0, _OFF)

    def __post_init__(self) -> None:
        _validate(self)
        choice("cutmix", "shape", self.shape, SHAPES)


@dataclass(frozen=True)
class MixUp:
    """Each photo is blended with its partner, pixel by pixel. Source: Zhang et al. 2018, arXiv 1710.09412.

    Raises: ValueError that names the field, what it holds and what was expected.
    """

    prob: float = option(0.5, _PROB)
    alpha: float = option(0.2, _ALPHA)
    off_epoch: int = option(0, _OFF)

    def __post_init__(self) -> None:
        _validate(self)


@dataclass(frozen=True)
class InvertedCutMix:
    """The competition diary's CutMix with its two errors, kept so that a study can show what they cost; else of no use.

    A box with share r of the partner leaves the own target the weight r instead of 1 - r, and the box is laid out as
    if the photo were as wide as it is high, then cut off at the right border.

    Raises: ValueError that names the field, what it holds and what was expected.
    """

    prob: float = option(0.8, _PROB)
    alpha: float = option(1.0, _ALPHA)
    off_epoch: int = option(0, _OFF)

    def __post_init__(self) -> None:
        _validate(self)


Mix = CutMix | MixUp | InvertedCutMix


def mix(
    setting: Mix,
    images: Mapping[Crop, torch.Tensor],
    present: torch.Tensor | None,
    rows: Mapping[str, torch.Tensor],
    heads: Sequence[Head],
    *,
    seed: int,
    epoch: int,
) -> tuple[dict[Crop, torch.Tensor], dict[str, torch.Tensor]]:
    """The batch mixed: images {Crop: uint8 (B, 3, H, W)} and target rows {head: (B, C)}; the inputs stay as they are.

    present: (B, crops) in the order of `images`, None where all crops are. A photo whose partner has other crops, or
    that is its own partner, stays unmixed. All choices (whether, share, place, partners) come from `seed` alone, so
    every device makes the same; a batch that is not mixed comes back as it is. epoch: counted from 1.

    Raises: TypeError for what is no mixing; KeyError for a head without rows or whose crops are not there; ValueError
    where numbers of photos differ or `present` does not fit.

    >>> import torch
    >>> from multihead.heads import GENDER, crops
    >>> images = {crop: torch.zeros(2, 3, *crop.size, dtype=torch.uint8) for crop in crops([GENDER])}
    >>> rows = {"gender": torch.tensor([[1.0, 0.0], [0.0, 0.0]])}
    >>> mix(CutMix(1, shape="half"), images, None, rows, [GENDER], seed=1, epoch=1)[1]["gender"].tolist()
    [[0.5, 0.0], [0.5, 0.0]]
    """
    import numpy as np
    import torch

    count = _count(setting, images, present, rows, heads)
    rng = np.random.default_rng(seed)
    if rng.random() >= setting.prob or 0 < setting.off_epoch <= epoch:
        return dict(images), dict(rows)
    share, place = float(rng.beta(setting.alpha, setting.alpha)), rng.random(2)  # place: (down, across), in 0 to 1
    device = next(iter(rows.values())).device
    own, partner = torch.arange(count, device=device), torch.from_numpy(rng.permutation(count)).to(device)
    there = torch.ones(count, len(images), dtype=torch.bool) if present is None else present
    there = there.to(device)
    partner = torch.where((there == there[partner]).all(1), partner, own)
    mixed, kept = {}, {}
    for crop, pixels in images.items():
        mixed[crop], kept[crop] = _mixed(setting, pixels, partner, share, place.tolist())
    return mixed, {head.name: _row(rows[head.name], partner, _share(head, kept, there)) for head in heads}


def _share(head: Head, kept: Mapping[Crop, float], present: torch.Tensor) -> torch.Tensor:
    """The own photo's weight (B, 1) in a head's target: the mean of what is kept {crop: weight} over those of its crops
    that are present (B, crops); 1 where a head sees none, and so nothing of the partner."""
    import torch

    there = present[:, [list(kept).index(crop) for crop in head.crops]]  # (B, the head's crops)
    weights = torch.tensor([kept[crop] for crop in head.crops], device=there.device)
    share = (there * weights).sum(1, keepdim=True) / there.sum(1, keepdim=True)
    return torch.where(there.any(1, keepdim=True), share, 1.0)


def _mixed(
    setting: Mix, pixels: torch.Tensor, partner: torch.Tensor, share: float, place: Sequence[float]
) -> tuple[torch.Tensor, float]:
    """One crop's pixels (B, 3, H, W) mixed with the partners', and the own photo's weight in the target."""
    mixed = pixels.clone()  # keeps the memory format
    if isinstance(setting, MixUp):
        mixed.copy_((share * pixels.float() + (1 - share) * pixels[partner].float()).round())
        return mixed, share
    height, width = pixels.shape[2:]
    top, left, bottom, right = _box(setting, share, place, height, width)
    mixed[..., top:bottom, left:right] = pixels[..., top:bottom, left:right][partner]
    if isinstance(setting, InvertedCutMix):
        return mixed, share
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)


def _box(
    setting: CutMix | InvertedCutMix, share: float, place: Sequence[float], height: int, width: int
) -> tuple[int, int, int, int]:
    """The box (top, left, bottom, right) in pixels, half-open, that a partner fills; the same relative box for crops
    of unlike size."""
    if isinstance(setting, InvertedCutMix):
        side = share**0.5
        top, left = (round(start * (1 - side) * height) for start in place)  # left should be a share of the width
        return top, min(left, width), top + round(side * height), min(left + round(side * height), width)
    if setting.shape == "half":
        return 0, width // 2, height, width
    strip = setting.shape == "strip"
    side = 1 - share if strip else (1 - share) ** 0.5
    left, right = _edges(place[1], side, width)
    top, bottom = (0, height) if strip else _edges(place[0], side, height)
    return top, left, bottom, right


def _edges(middle: float, side: float, length: int) -> tuple[int, int]:
    """Where a stretch of relative length `side` around `middle` starts and ends on `length` pixels, clipped."""
    return round(max(0.0, middle - side / 2) * length), round(min(1.0, middle + side / 2) * length)


def _row(row: torch.Tensor, partner: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Target rows (B, C): the own row by `share` (B, 1), the partner's by the rest; unchanged where there is none."""
    import torch

    alone = partner == torch.arange(len(row), device=row.device)
    kept = share.to(row.dtype).masked_fill(alone[:, None], 1.0)  # (B, 1)
    return kept * row + (1 - kept) * row[partner]


def _validate(setting: Mix) -> None:
    owner = type(setting).__name__.lower()
    between(owner, "prob", setting.prob, 0, 1)
    between(owner, "alpha", setting.alpha, 0, 1000, open_low=True)
    object.__setattr__(setting, "off_epoch", whole(owner, "off_epoch", setting.off_epoch, 0))


def _count(
    setting: Mix,
    images: Mapping[Crop, torch.Tensor],
    present: torch.Tensor | None,
    rows: Mapping[str, torch.Tensor],
    heads: Sequence[Head],
) -> int:
    """The number of photos in the batch. Raises: as `mix` does."""
    if not isinstance(setting, Mix):
        raise TypeError(f"{setting!r} is no mixing; expected CutMix, MixUp or InvertedCutMix")
    if sorted(rows) != sorted(head.name for head in heads):
        raise KeyError(f"target rows are for {sorted(rows)}; expected those of {[head.name for head in heads]}")
    if lacking := sorted({crop.name for head in heads for crop in head.crops if crop not in images}):
        raise KeyError(f"heads read crops {lacking}, the batch has {[crop.name for crop in images]}")
    counts = {len(pixels) for pixels in images.values()} | {len(row) for row in rows.values()}
    if len(counts) != 1:
        raise ValueError(f"images and target rows hold {sorted(counts)} photos; expected one number")
    count = counts.pop()
    if present is not None and tuple(present.shape) != (count, len(images)):
        raise ValueError(f"present has shape {tuple(present.shape)}; expected {(count, len(images))}")
    return count
