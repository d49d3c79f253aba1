"""From rows of `Photos` to batches: decode, cut the crops, augment, stack; alike for any number of workers."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from multihead.augment import Augment, Plain, apply, photo_seed
from multihead.crops import Crop, box_of, cut, locate
from multihead.data import Photos
from multihead.images import read_image
from multihead.labels import Head

MEMORY = 2 << 30  # bytes of decoded crops that a run may keep


@dataclass(frozen=True)
class Batch:
    """images {Crop: uint8 (B, 3, H, W)}, present (B, crops), labels (B, base heads) with -1 = unknown, rows (B,) of
    the table, and the rows that could not be read, each with its reason."""

    images: dict[Crop, Tensor]
    present: Tensor
    labels: Tensor
    rows: Tensor
    unreadable: tuple[tuple[int, str], ...] = ()

    def to(self, device: torch.device, channels_last: bool = False) -> Batch:
        """The batch on a device, its images in a memory format."""
        form = torch.channels_last if channels_last else torch.contiguous_format
        images = {
            crop: pixels.to(device, non_blocking=True, memory_format=form) for crop, pixels in self.images.items()
        }
        return Batch(images, self.present.to(device), self.labels.to(device), self.rows, self.unreadable)


def cut_crops(
    image: np.ndarray, crops: Sequence[Crop], box: Sequence[float] | None, whole: bool = False
) -> tuple[list[np.ndarray], list[bool]]:
    """The crops (H, W, 3) of one photo and which of them are present; an absent crop is black.

    box: the face, None if none is known (crops then read the whole photo). whole: the photo is a tight face.
    """
    if whole:
        box = (0.0, 0.0, float(image.shape[1]), float(image.shape[0]))
    cuts, present = [], []
    for crop in crops:
        region = locate(crop, box, image.shape)
        present.append(region is not None)
        cuts.append(np.zeros((*crop.size, 3), np.uint8) if region is None else cut(image, region, crop.size))
    return cuts, present


class PhotoSet(Dataset[Any]):
    """The rows of a table as crops; an item is asked for by (epoch, row).

    Decoded crops are kept in memory shared by all workers, up to `memory` bytes, so later epochs do not decode.
    """

    def __init__(
        self,
        photos: Photos,
        heads: Sequence[Head],
        crops: Sequence[Crop],
        *,
        augment: Augment = Plain(),
        seed: int = 0,
        memory: int = MEMORY,
    ) -> None:
        self.paths, self.crops, self.augment, self.seed = photos.paths, tuple(crops), augment, seed
        self.labels = torch.from_numpy(photos.labels(heads))
        self.boxes = [box_of(box) for box in photos.boxes]
        self.whole = photos.table.whole.tolist()
        self.kept = _Kept(len(photos), self.crops) if _Kept.bytes(len(photos), self.crops) <= memory else None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, list[np.ndarray] | str, list[bool]]:
        """(row, the crops or why the photo cannot be read, which crops are present)."""
        epoch, row = key
        try:
            cuts, present = self.pixels(row)
        except ValueError as error:
            return row, str(error), []
        return row, apply(self.augment, cuts, photo_seed(self.seed, epoch, row)), present

    def pixels(self, row: int) -> tuple[list[np.ndarray], list[bool]]:
        """The crops of a row before augmentation, and which are present."""
        if self.kept and (found := self.kept.get(row)):
            return found
        image = read_image(self.paths[row])
        try:
            cuts, present = cut_crops(image, self.crops, self.boxes[row], self.whole[row])
        except ValueError as error:
            raise ValueError(f"{self.paths[row]!r}: {error}") from error
        if self.kept:
            self.kept.put(row, cuts, present)
        return cuts, present

    def fill(self, workers: int = 2) -> list[tuple[int, str]]:
        """Decode every row once, keeping the crops where memory allows; [(row, reason)] of what cannot be read."""
        with ThreadPoolExecutor(max(1, workers)) as pool:
            reasons = pool.map(self._reason, range(len(self)))
            return [(row, reason) for row, reason in enumerate(reasons) if reason]

    def _reason(self, row: int) -> str:
        try:
            self.pixels(row)
        except ValueError as error:
            return str(error)
        return ""

    def collate(self, items: Sequence[tuple[int, list[np.ndarray] | str, list[bool]]]) -> Batch:
        """A batch of the items that could be read."""
        good = [item for item in items if not isinstance(item[1], str)]
        bad = tuple((row, reason) for row, reason, _ in items if isinstance(reason, str))
        images = {}
        for column, crop in enumerate(self.crops):
            pixels = np.zeros((len(good), *crop.size, 3), np.uint8)
            for place, (_, cuts, _) in enumerate(good):
                pixels[place] = cuts[column]
            # (B, 3, H, W) in channels_last strides: no copy
            images[crop] = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        rows = torch.tensor([row for row, _, _ in good], dtype=torch.int64)
        present = torch.tensor([there for _, _, there in good], dtype=torch.bool).reshape(len(good), len(self.crops))
        return Batch(images, present, self.labels[rows], rows, bad)


class _Kept:
    """Decoded crops in anonymous memory that forked workers share; each row is written once, by whoever decodes it."""

    def __init__(self, rows: int, crops: Sequence[Crop]) -> None:
        self.sizes = [crop.size for crop in crops]
        self.width = self.bytes(1, crops)
        self.array = np.frombuffer(mmap.mmap(-1, max(1, rows * self.width)), np.uint8)

    @staticmethod
    def bytes(rows: int, crops: Sequence[Crop]) -> int:
        # per row: a flag, a presence byte and the pixels of each crop
        return rows * (1 + sum(1 + 3 * crop.size[0] * crop.size[1] for crop in crops))

    def get(self, row: int) -> tuple[list[np.ndarray], list[bool]] | None:
        slot = self.array[row * self.width : (row + 1) * self.width]
        if not slot[0]:
            return None
        cuts, start = [], 1 + len(self.sizes)
        for height, width in self.sizes:
            cuts.append(slot[start : start + 3 * height * width].reshape(height, width, 3))
            start += 3 * height * width
        return cuts, slot[1 : 1 + len(self.sizes)].astype(bool).tolist()

    def put(self, row: int, cuts: Sequence[np.ndarray], present: Sequence[bool]) -> None:
        slot = self.array[row * self.width : (row + 1) * self.width]
        slot[1 + len(cuts) :] = np.concatenate([cut.ravel() for cut in cuts])
        slot[1 : 1 + len(cuts)] = present
        slot[0] = 1  # last: a row is either absent or whole

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Kept._empty, (len(self.array) // self.width, self.sizes))  # a spawned worker keeps its own

    @staticmethod
    def _empty(rows: int, sizes: Sequence[tuple[int, int]]) -> _Kept:
        return _Kept(rows, [Crop(f"crop{n}", "full", size=size) for n, size in enumerate(sizes)])


class Shuffled:
    """The batches of an epoch for one process: lists of (epoch, row), from (seed, epoch) alone.

    Batch b of optimiser step s goes to process b % world, so two processes see what one with twice the accumulation
    sees. Set `epoch` and `skip` (batches of this process already done) before iterating.
    """

    def __init__(
        self,
        rows: Sequence[int] | np.ndarray,
        batch_size: int,
        *,
        accumulate: int = 1,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.rows = np.asarray(rows)
        self.seed, self.rank, self.world, self.accumulate = seed, rank, world, accumulate
        share = world * accumulate
        self.batch_size = min(batch_size, -(-len(self.rows) // share))
        # optimiser steps an epoch; the few rows that are over wait for the next epoch's order
        self.steps = max(1, len(self.rows) // (self.batch_size * share))
        self.epoch, self.skip = 1, 0

    def __len__(self) -> int:
        return self.steps * self.accumulate - self.skip

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.rows)
        order = np.resize(order, self.steps * self.accumulate * self.world * self.batch_size)
        mine = order.reshape(-1, self.world, self.batch_size)[self.skip :, self.rank]
        for batch in mine.tolist():
            yield [(self.epoch, row) for row in batch]


def in_order(rows: Sequence[int] | np.ndarray, batch_size: int) -> list[list[tuple[int, int]]]:
    """Batches of rows in order, none left out; epoch 0 stands for no augmentation."""
    return [[(0, int(row)) for row in rows[start : start + batch_size]] for start in range(0, len(rows), batch_size)]


def loader(photos: PhotoSet, batches: Any, *, workers: int = 0, pin: bool = False) -> DataLoader[Batch]:
    """A DataLoader of `Batch`es; drawing from it leaves torch's global random numbers alone."""
    return DataLoader(
        photos,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=photos.collate,
        persistent_workers=workers > 0,
        pin_memory=pin,
        worker_init_fn=_worker if workers else None,
        generator=torch.Generator().manual_seed(0),
    )


def _worker(_: int) -> None:
    cv2.setNumThreads(0)  # the workers share the cores among themselves
