"""The two sides of a run, training and validation: photos located, decoded once, and what is wrong with them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import numpy as np

from multihead import ranks
from multihead.augment import Augment
from multihead.batches import PhotoSet
from multihead.boxes import locate_faces
from multihead.data import Photos
from multihead.labels import UNKNOWN, Head, base, encode, joint, size
from multihead.model import Model
from multihead.recipe import Recipe


class Ready:
    """Photos that can be read, with their crops in memory where they fit: what one side of a run reads."""

    def __init__(self, model: Model, photos: Photos, recipe: Recipe, augment: Augment, workers: int) -> None:
        located = ranks.first_then_rest(lambda: locate_faces(photos, model.crops, missing=recipe.missing))
        self.photos, self.faceless, self.searched = located.photos, located.faceless, located.searched
        self.held = PhotoSet(self.photos, model.heads, model.crops, augment=augment, seed=recipe.seed)
        self.unreadable = self.held.fill(workers)
        bad = {row for row, _ in self.unreadable}
        self.rows = np.array([row for row in range(len(self.photos)) if row not in bad], np.int64)

    def notes(self, what: str) -> list[str]:
        """What a user should know of these photos, a line each."""
        lines = []
        if self.searched:
            lines.append(f"{what}: searched {self.searched} photos for faces")
        if self.faceless:
            lines.append(f"{what}: {len(self.faceless)} photos have no face, for example {self.faceless[0]}")
        lines += [f"{what}: left out: {reason}" for _, reason in self.unreadable]
        return lines


def report(sides: Mapping[str, Ready]) -> None:
    """Say on standard error, once, what was searched, has no face, or cannot be read."""
    if ranks.first():
        for what, ready in sides.items():
            for note in ready.notes(what):
                print(note, file=sys.stderr)


def prior(labels: np.ndarray, heads: Sequence[Head]) -> tuple[float, ...]:
    """The share of each joint class (K,) in training labels (N, heads): the product of the heads' shares where no row
    is fully known, even shares where a head has no label."""
    table = base(heads)
    whole = encode(labels, table)
    whole = whole[whole != UNKNOWN]
    if len(whole):
        shares = np.bincount(whole, minlength=size(table)) / len(whole)
    else:
        each = {}
        for column, head in enumerate(table):
            known = labels[:, column][labels[:, column] != UNKNOWN]
            counts = np.bincount(known, minlength=len(head.classes)) if len(known) else np.ones(len(head.classes))
            each[head.name] = (counts / counts.sum())[None]
        shares = joint(each, table)[0]
    return tuple(float(share) for share in shares)
