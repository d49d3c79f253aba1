"""Batches in order, made ahead by threads or processes."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from multihead.batches import Batch, PhotoSet
from multihead.lanes import in_lanes, shared_cores


class _Batches(Dataset[Batch]):
    """A set that is asked for whole batches."""

    def __init__(self, photos: PhotoSet) -> None:
        self.photos = photos

    def __getitem__(self, keys: Sequence[tuple[int, ...]]) -> Batch:
        return self.photos.batch(keys)


def loader(photos: PhotoSet, batches: Any, *, workers: int = 0, pin: bool = False) -> Iterable[Batch]:
    """The `Batch`es of lists of keys, in order, anew at every iteration; drawing from it leaves torch's global random
    numbers alone.

    workers: threads where all crops are kept and no change of them minds, which saves the way between processes; else
    the processes of a DataLoader.
    """
    if workers and photos.may_share_threads():
        return _Threads(photos, batches, workers, pin)
    return DataLoader(
        _Batches(photos),
        batch_size=None,  # a batch is asked for at once, and comes as one
        sampler=batches,
        num_workers=workers,
        collate_fn=_same,
        persistent_workers=workers > 0,
        pin_memory=pin,
        worker_init_fn=_worker if workers else None,
        generator=torch.Generator().manual_seed(0),
    )


@contextlib.contextmanager
def drawn_from(batches: Iterable[Batch]) -> Iterator[Iterator[Batch]]:
    """An iterator over the batches, whose threads end with the block: the traceback of an interruption, which a
    notebook keeps, would keep them, and OpenCV at their number."""
    rest = iter(batches)
    try:
        yield rest
    finally:
        if isinstance(rest, Generator):
            rest.close()


@dataclass(frozen=True)
class _Threads:
    """The batches of kept photos, made by threads of this process."""

    photos: PhotoSet
    batches: Iterable[Any]
    workers: int
    pin: bool

    def __iter__(self) -> Iterator[Batch]:
        with shared_cores(self.workers):
            for batch in in_lanes(self.photos.batch, self.batches, self.workers):
                yield batch.pin_memory() if self.pin else batch


def _same(batch: Any) -> Any:
    return batch


def _worker(_: int) -> None:
    cv2.setNumThreads(0)  # the workers share the cores among themselves
