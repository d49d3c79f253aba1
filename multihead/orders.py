"""In which order an epoch takes the rows of a table, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from multihead.options import whole
from multihead.samplers import draw


class Key(NamedTuple):
    """What a photo's changes are drawn by: the epoch (0: unchanged), its row, and how often the epoch has had the row
    before, so that a photo that is drawn again is changed anew."""

    epoch: int
    row: int
    time: int = 0


class Shuffled:
    """The batches of an epoch for one process: lists of (epoch, row, time), from (seed, epoch) alone.

    Batch b of optimiser step s goes to process b % world, so two processes see what one with twice the accumulation
    sees. weights: how often each row is drawn (as `samplers.row_weights` says), with replacement; without them each row
    comes once (some twice where there are fewer than a step takes, and its batches do not divide them). count: photos
    an epoch, by default as many as there are. Set `epoch` and `skip` (batches of this process already done) before
    iterating.
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
        weights: np.ndarray | None = None,
        count: int | None = None,
    ) -> None:
        self.rows, self.weights = np.asarray(rows), weights
        self.seed, self.rank, self.world, self.accumulate = seed, rank, world, accumulate
        share, count = world * accumulate, count or len(self.rows)
        self.batch_size = min(batch_size, -(-count // share))
        # optimiser steps an epoch; the few rows that are over wait for the next epoch's order
        self.steps = max(1, count // (self.batch_size * share))
        self.epoch, self.skip = 1, 0

    def __len__(self) -> int:
        return self.steps * self.accumulate - self.skip

    def __iter__(self) -> Iterator[list[Key]]:
        order = self._order(self.steps * self.accumulate * self.world * self.batch_size)
        keys = np.stack([np.full_like(order, self.epoch), order, times(order)], 1)
        for batch in keys.reshape(-1, self.world, self.batch_size, 3)[self.skip :, self.rank].tolist():
            yield [Key(*key) for key in batch]

    def _order(self, count: int) -> np.ndarray:
        """The rows (count,) of this epoch in order."""
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.weights is not None:
            return self.rows[draw(self.weights, count, rng)]
        rounds = -(-count // len(self.rows))
        return np.concatenate([rng.permutation(self.rows) for _ in range(rounds)])[:count]


def times(order: np.ndarray) -> np.ndarray:
    """How often each number (N,) has come before.

    >>> times(np.array([5, 3, 5, 5, 3])).tolist()
    [0, 0, 1, 2, 1]
    """
    places = order.argsort(kind="stable")
    ordered = order[places]
    found = np.empty_like(order)
    found[places] = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return found


def in_order(rows: Sequence[int] | np.ndarray, batch_size: int) -> list[list[Key]]:
    """Batches of rows in order, none left out; epoch 0 stands for no augmentation. Raises: ValueError for no size."""
    batch_size = whole("batches", "batch_size", batch_size, 1)
    return [[Key(0, int(row)) for row in rows[start : start + batch_size]] for start in range(0, len(rows), batch_size)]
