"""From rows of `Photos` to batches: decode, cut the crops, augment, stack; alike for any number of workers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from multihead import masks
from multihead.augment import (
    Albumentations,
    Augment,
    BoxJitter,
    Diary,
    Flip,
    Plain,
    RandAugment,
    apply,
    flips,
    jitter,
    last_flip,
    members,
    photo_seed,
)
from multihead.cache import Cache, Kept, Wanted
from multihead.crops import Box, Crop, Region, box_of
from multihead.cutting import crop_regions, cut_at, reduction_for
from multihead.data import Photos
from multihead.heads import UNKNOWN, Head
from multihead.images import open_image
from multihead.orders import Key

KEPT = 0.9  # share of kept rows from which batches are made by threads
SMALLEST = 2.0  # pixels from eyes to mouth in a crop below which no mask is drawn


@dataclass(frozen=True)
class Batch:
    """images {Crop: uint8 (B, 3, H, W)}, present (B, crops), labels (B, base heads) with -1 = unknown, rows (B,) of
    the table, drawn (B,): the mask class of a mask that was drawn on, -1 where none was, flipped (B,): which photos
    are still to be mirrored, as `to` does, and the rows that could not be read, each with its reason."""

    images: dict[Crop, Tensor]
    present: Tensor
    labels: Tensor
    rows: Tensor
    drawn: Tensor
    flipped: Tensor
    unreadable: tuple[tuple[int, str], ...] = ()

    def pin_memory(self) -> Batch:
        """The batch in memory that a GPU copies from without waiting; a DataLoader calls it by this name."""
        images = {crop: pixels.pin_memory() for crop, pixels in self.images.items()}
        return replace(self, images=images)

    def to(self, device: torch.device, channels_last: bool = False) -> Batch:
        """The batch on a device, its images in a memory format; photos that wait for it are mirrored there."""
        form = torch.channels_last if channels_last else torch.contiguous_format
        images = {
            crop: pixels.to(device, non_blocking=True, memory_format=form) for crop, pixels in self.images.items()
        }
        if self.flipped.any():
            which = self.flipped.to(device, non_blocking=True)
            images = {crop: mirrored(pixels, which) for crop, pixels in images.items()}
        labels, drawn = self.labels.to(device), self.drawn.to(device)
        none = torch.zeros_like(self.flipped)
        return Batch(images, self.present.to(device), labels, self.rows, drawn, none, self.unreadable)


def mirrored(pixels: Tensor, which: Tensor) -> Tensor:
    """Images (B, 3, H, W), those of `which` (B,) mirrored; strides stay.

    >>> mirrored(torch.tensor([[[[1, 2]]], [[[3, 4]]]]), torch.tensor([True, False])).flatten().tolist()
    [2, 1, 3, 4]
    """
    return torch.where(which[:, None, None, None], pixels.flip(3), pixels)


@dataclass(frozen=True)
class Item:
    """One row as the loader gives it: its crops (H, W, 3), or why it cannot be read; which crops are present; the
    class of a drawn mask, -1 for none; whether the crops are still to be mirrored."""

    row: int
    cuts: list[np.ndarray] | str
    present: list[bool]
    drawn: int = UNKNOWN
    flipped: bool = False


class PhotoSet(Dataset[Any]):
    """The rows of a table as crops; an item is asked for by the (epoch, row) or (epoch, row, time) of a `Key`, a batch
    by a list of those.

    cache: where crops are kept once `fill` has decoded them, so later epochs do not decode; without one every epoch
    does. A jittered box needs the photo itself, which is then read each time. points: (N, 5, 2) face points in pixels
    of the rows that may get a drawn mask, NaN for the others. crop_drop: how often a photo with several crops loses
    one. A Flip that comes last is left to `Batch.to`: the device mirrors a whole batch at once.
    """

    def __init__(
        self,
        photos: Photos,
        heads: Sequence[Head],
        crops: Sequence[Crop],
        *,
        augment: Augment | tuple[Augment, ...] = Plain(),
        points: np.ndarray | None = None,
        crop_drop: float = 0.0,
        seed: int = 0,
        cache: Cache | None = None,
    ) -> None:
        self.cache = cache
        self.paths, self.crops, self.seed = photos.paths, tuple(crops), seed
        self.flip_at = last_flip(augment)
        self.flip = None if self.flip_at is None else members(augment)[self.flip_at]
        self.augment = members(augment)[: self.flip_at]
        self.labels = torch.from_numpy(photos.labels(heads))
        self.boxes = [box_of(box) for box in photos.boxes]
        self.whole = photos.table.whole.tolist()
        self.points, self.crop_drop = points, crop_drop
        self.jitter = next((part for part in members(augment) if isinstance(part, BoxJitter)), None)
        self.mask = next((part for part in members(augment) if isinstance(part, masks.DrawnMask)), None)
        self.drawn = masks.mask_classes(heads) if self.mask else {}
        self.kept = Kept(self.crops, len(photos))
        rest = (part for place, part in enumerate(members(augment)) if place != self.flip_at)
        self.bare = not crop_drop and all(isinstance(part, Plain) for part in rest)

    def __len__(self) -> int:
        return len(self.paths)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"cache": None}  # a worker looks nothing up

    def __getitem__(self, key: tuple[int, ...]) -> Item:
        """The crops of a key, changed for training as the seed and the key say. Raises: TypeError for a row alone."""
        if not isinstance(key, tuple | list):
            raise TypeError(
                f"a PhotoSet is asked for (epoch, row), by which its changes are drawn, got {key!r}; a DataLoader "
                "needs sampler=[(epoch, row), ...] and collate_fn=photo_set.collate; multihead.Batches(model, photos) "
                "is all of it, with targets and losses"
            )
        epoch, row, _ = Key(*key)
        seed = self._seed(key)
        try:
            cuts, regions = self.pixels(row, seed if epoch else None)
        except ValueError as error:
            return Item(row, str(error), [])
        cuts, drawn = self._mask(row, cuts, regions, seed)
        cuts = apply(self.augment, cuts, seed)
        present = [region is not None for region in regions]
        if self.crop_drop:
            cuts, present = drop_crop(cuts, present, self.crop_drop, seed)
        return Item(row, cuts, present, drawn, self._flips(seed))

    def _seed(self, key: tuple[int, ...]) -> int:
        epoch, row, time = Key(*key)
        return photo_seed(self.seed, epoch, row + time * len(self))

    def _flips(self, seed: int) -> bool:
        return isinstance(self.flip, Flip) and flips(self.flip, self.flip_at or 0, seed)

    def pixels(self, row: int, seed: int | None = None) -> tuple[list[np.ndarray], list[Region | None]]:
        """The crops of a row before augmentation, each with its region of the photo; seed: that of a jittered box."""
        if found := self.kept.get(row):
            return found
        photo = open_image(self.paths[row])
        try:
            box, whole = self.boxes[row], self.whole[row]
            if self.jitter and seed is not None and (box or whole):
                box, whole = _jittered(self.jitter, None if whole else box, photo.size, seed), False
            regions = crop_regions(photo.size, self.crops, box, whole)
        except ValueError as error:
            raise ValueError(f"{self.paths[row]!r}: {error}") from error
        return cut_at(photo, self.crops, regions, reduction_for(self.crops, regions)), regions

    def _mask(
        self, row: int, cuts: list[np.ndarray], regions: Sequence[Region | None], seed: int
    ) -> tuple[list[np.ndarray], int]:
        """The crops with a drawn mask, and the new class, if the seed says so, the face's points are known, and no
        crop shows the face too small for a mask."""
        if not self.mask or self.points is None or np.isnan(self.points[row]).any():
            return cuts, UNKNOWN
        state = masks.choose(self.mask, seed)
        if state is None:
            return cuts, UNKNOWN
        places = [
            None if region is None else masks.points_in(self.points[row], region, pixels.shape)
            for pixels, region in zip(cuts, regions)
        ]
        if any(place is not None and masks.face_height(place) < SMALLEST for place in places):
            return cuts, UNKNOWN
        drawn = [
            pixels if place is None else masks.draw_mask(pixels, place, state, seed)
            for pixels, place in zip(cuts, places)
        ]
        return drawn, self.drawn[masks.LABELS[state]]

    def fill(self, workers: int = 2) -> list[tuple[int, str]]:
        """Decode once what is not kept, keeping the crops where there is room; [(row, reason)] of what cannot be
        read."""
        if self.cache is not None and self.jitter is None:
            photos = [Wanted(*row) for row in zip(self.paths, self.boxes, self.whole)]
            self.kept, found = self.cache.keep(photos, self.crops, workers)
            return sorted(found.items())
        with ThreadPoolExecutor(max(1, workers)) as pool:
            reasons = pool.map(self._reason, range(len(self)))
            return [(row, reason) for row, reason in enumerate(reasons) if reason]

    def _reason(self, row: int) -> str:
        try:
            self.pixels(row)
        except ValueError as error:
            return str(error)
        return ""

    def may_share_threads(self) -> bool:
        """True where hardly a row is left to decode, and threads may change crops at once, which the objects of
        albumentations may not."""
        alone = any(isinstance(part, (Albumentations, Diary, RandAugment)) for part in members(self.augment))
        return not alone and len(self) > 0 and self.kept.here.mean() >= KEPT

    def gathers(self, rows: Sequence[int] | np.ndarray) -> bool:
        """True where batches of these rows are only copied together: no decode, no augmentation but a last mirror."""
        return self.bare and self.kept.holds(np.asarray(rows, np.int64))

    def batch(self, keys: Sequence[tuple[int, ...]]) -> Batch:
        """A batch of keys."""
        rows = np.array([key[1] for key in keys], np.int64)
        if not self.gathers(rows):
            return self.collate([self[key] for key in keys])
        pixels = {crop: _buffer(len(rows), crop) for crop in self.crops}
        for column, crop in enumerate(self.crops):
            self.kept.gather(rows, column, pixels[crop].numpy())
        images = {crop: found.permute(0, 3, 1, 2) for crop, found in pixels.items()}
        present, numbers = torch.from_numpy(self.kept.present(rows)), torch.from_numpy(rows)
        flipped = torch.tensor([self._flips(self._seed(key)) for key in keys], dtype=torch.bool)
        return Batch(images, present, self.labels[numbers], numbers, torch.full_like(numbers, UNKNOWN), flipped)

    def collate(self, items: Sequence[Item]) -> Batch:
        """A batch of the items that could be read."""
        good = [item for item in items if not isinstance(item.cuts, str)]
        bad = tuple((item.row, item.cuts) for item in items if isinstance(item.cuts, str))
        images = {}
        for column, crop in enumerate(self.crops):
            buffer = _buffer(len(good), crop)
            pixels = buffer.numpy()
            for place, item in enumerate(good):
                pixels[place] = item.cuts[column]
            images[crop] = buffer.permute(0, 3, 1, 2)  # (B, 3, H, W) in channels_last strides: no copy
        rows = torch.tensor([item.row for item in good], dtype=torch.int64)
        drawn = torch.tensor([item.drawn for item in good], dtype=torch.int64)
        present = torch.tensor([item.present for item in good], dtype=torch.bool).reshape(len(good), len(self.crops))
        flipped = torch.tensor([item.flipped for item in good], dtype=torch.bool)
        return Batch(images, present, self.labels[rows], rows, drawn, flipped, bad)


def _buffer(count: int, crop: Crop) -> Tensor:
    """Room for `count` crops (B, H, W, 3); in a worker shared memory, so that sending copies nothing."""
    shape = (count, *crop.size, 3)
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    # as torch's own default_collate does it
    storage = torch.UntypedStorage._new_shared(math.prod(shape), device="cpu")
    return torch.empty(0, dtype=torch.uint8).set_(storage, 0, shape)  # type: ignore[call-overload]


def drop_crop(
    cuts: Sequence[np.ndarray], present: Sequence[bool], share: float, seed: int
) -> tuple[list[np.ndarray], list[bool]]:
    """The crops with, in `share` of the seeds, one present crop made absent (black); never the only one."""
    rng = np.random.default_rng((seed, 4))  # 1 to 3: the box's jitter, and masks
    there = [place for place, seen in enumerate(present) if seen]
    if len(there) < 2 or rng.random() >= share:
        return list(cuts), list(present)
    gone = there[int(rng.integers(len(there)))]
    pixels = [np.zeros_like(cut) if place == gone else cut for place, cut in enumerate(cuts)]
    return pixels, [seen and place != gone for place, seen in enumerate(present)]


def _jittered(setting: BoxJitter, box: Box | None, size: tuple[int, int], seed: int) -> Box:
    """The moved box where it still meets a photo of this (height, width), else the box itself."""
    high, wide = size
    box = box or (0.0, 0.0, float(wide), float(high))
    moved = jitter(setting, box, seed)
    meets = moved[0] < wide and moved[1] < high and moved[2] > 0 and moved[3] > 0
    return moved if meets else box
