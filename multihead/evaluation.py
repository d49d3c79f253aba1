"""A model's answers on labelled photos, and their scores over all of them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from multihead.batches import Batch, PhotoSet
from multihead.boxes import locate_faces
from multihead.crops import Crop
from multihead.data import Photos
from multihead.faces import Detector
from multihead.heads import HEADS, Head, base, size
from multihead.loading import loader
from multihead.metrics import Scores, score
from multihead.modes import Pins, autocast, check_pins
from multihead.options import whole
from multihead.orders import in_order
from multihead.prepared import ENOUGH, is_asked, prepared
from multihead.pseudo import check_not_pseudo
from multihead.speed import keep_memory
from multihead.splits import groups
from multihead.voting import person_vote, shared_heads

SLICES = ("source", "person", "split")  # columns of ours that scores are sliced by, beside a source's own


class Classifier(Protocol):
    """What everything above the model speaks to: a model, an ensemble, a combination. Threads ask it at once."""

    space: tuple[Head, ...]
    crops: tuple[Crop, ...]
    training: bool

    def probs(self, images: Mapping[Crop, Tensor], present: Tensor | None = None) -> Tensor:
        """Joint probabilities (B, K) of uint8 images {Crop: (B, 3, H, W)}."""

    def train(self, mode: bool = True) -> object:
        """Training mode on or off, as in torch."""

    def parameters(self) -> object:
        """As in torch."""


def check_classifier(model: object) -> None:
    """Nothing for what has crops and a space. Raises: TypeError for a folder's name and whatever else has none."""
    if not hasattr(model, "space") or not hasattr(model, "crops"):
        opened = f"; multihead.load({str(model)!r}) opens a folder" if isinstance(model, (str, Path)) else ""
        raise TypeError(f"expected a model, ensemble or export, got {model!r:.80}{opened}")


def evaluate(
    model: Classifier,
    photos: Photos,
    *,
    batch_size: int = 64,
    workers: int = 2,
    missing: str = "full",
    finder: Detector | str | None = None,
    pins: Pins = Pins(),
) -> Scores:
    """Scores of the model over all rows of `photos`; faces are searched where a crop needs one.

    The passes are computed as is fastest here (`multihead.choices`), from 32 photos on; pins: what is fixed of that, as
    Pins("f32"). A photo that cannot be read is not counted; `Scores.errors` lists it with its reason, `Scores.faceless`
    photos without a face.

    Raises: KeyError where the photos were not read for a head of the model; ValueError where its classes differ, no
    photo can be read or, with missing="error", one has no face; LeakError where a model made some of the labels.
    """
    check_classifier(model)
    if not isinstance(photos, Photos):
        raise TypeError(f"expected photos as multihead.read gives them, got {type(photos).__name__}")
    batch_size = whole("evaluate", "batch_size", batch_size, 1)
    workers = whole("evaluate", "workers", workers, 0)
    check_pins(pins)
    keep_memory()
    check_not_pseudo(photos, "scored")
    located = locate_faces(photos, model.crops, missing=missing, finder=finder)
    photos = located.photos
    held = PhotoSet(photos, model.space, model.crops)
    ready = prepared(model, batch_size, pins)[0] if len(held) >= ENOUGH or is_asked(pins) else model
    found, probs, unreadable = answers(ready, held, range(len(held)), batch_size=batch_size, workers=workers)
    if not len(found):
        first = f"; the first: {unreadable[0][1]}" if unreadable else ""
        raise ValueError(f"none of {len(photos)} photos could be scored{first}")
    return replace(scores(photos, own_heads(model), found, probs, unreadable), faceless=located.faceless)


def person_voted(found: Scores) -> Scores:
    """The scores after the photos of each person, as far as known, have voted on gender and age (`person_vote`).

    Raises: ValueError where nobody is known, or no head is gender or age.
    """
    people = np.asarray(found.slices.get("person", []), dtype=str)
    if not (people != "").any():
        raise ValueError("a person vote needs photos whose people are known: a column person, or a folder a person")
    probs = person_vote(found.probs, groups(people.tolist()), found.table, shared_heads(found.table))
    voted = score(probs, found.labels, found.table, found.slices)
    return replace(voted, errors=found.errors, faceless=found.faceless, row_numbers=found.row_numbers)


def label_heads(model: Any) -> tuple[Head, ...]:
    """The heads that labels are read for to score a model: its own, with the edges of ours where it has none."""
    ours = {(head.name, head.classes): head for head in HEADS}
    return tuple(head if head.edges else ours.get((head.name, head.classes), head) for head in own_heads(model))


def own_heads(model: Any) -> tuple[Head, ...]:
    """The base heads of a model, with its edges; of a classifier that has none the heads of its space."""
    return base(getattr(model, "heads", model.space))


def scores(
    photos: Photos,
    heads: Sequence[Head],
    rows: np.ndarray,
    probs: np.ndarray,
    unreadable: Sequence[tuple[int, str]] = (),
) -> Scores:
    """Scores of joint probabilities (n, K) for the rows (n,) of a table, sliced by any of its text columns.

    Numbers (years) become bands by the heads' own edges, where they have some.
    """
    chosen = photos[rows]
    slices = {name: chosen.table[name].to_numpy() for name in chosen.table.columns if name in SLICES}
    slices |= {name: chosen.table[name].to_numpy() for name in chosen.extra}
    found = score(probs, chosen.labels(heads), heads, slices)
    return replace(
        found, row_numbers=np.asarray(rows), errors=tuple((photos.paths[row], reason) for row, reason in unreadable)
    )


def answers(
    model: Classifier,
    photos: PhotoSet,
    rows: Sequence[int] | np.ndarray,
    *,
    batch_size: int = 64,
    workers: int = 0,
    precision: str = "f32",
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, str]]]:
    """(rows that could be read (n,), their joint probabilities (n, K), [(row, reason)] of the others)."""
    device = device_of(model)
    batches = loader(photos, in_order(rows, batch_size), workers=workers, pin=device.type == "cuda")
    unreadable: list[tuple[int, str]] = []
    found, probs = [np.empty(0, np.int64)], [np.empty((0, size(model.space)))]
    with evaluating(model), torch.inference_mode(), autocast(device, precision):
        for batch in batches:
            unreadable += batch.unreadable
            if len(batch.rows):
                found.append(batch.rows.numpy())
                probs.append(batch_probs(model, batch, device))
    return np.concatenate(found), np.concatenate(probs), unreadable


def device_of(model: Any) -> torch.device:
    """Where a model's images belong: the device of its weights, the CPU for one without any, as an exported model."""
    weights = next(iter(model.parameters()), None)
    return torch.device("cpu") if weights is None else weights.device


def read_batches(model: Classifier, photos: Photos, limit: int, batch_size: int = 32) -> list[Batch]:
    """Up to `limit` photos, spread over all of them, as batches on the CPU; what cannot be read is left out.

    Raises: ValueError where none can be read.
    """
    located = locate_faces(photos, model.crops).photos
    rows = np.unique(np.linspace(0, len(located) - 1, min(limit, len(located))).astype(int))
    batches = loader(PhotoSet(located, model.space, model.crops), in_order(rows, batch_size))
    found = [batch for batch in batches if len(batch.rows)]
    if not found:
        raise ValueError(f"none of {len(photos)} photos could be read")
    return found


def batch_probs(model: Classifier, batch: Batch, device: torch.device) -> np.ndarray:
    """Joint probabilities (B, K) of one batch, in numpy."""
    moved = batch.to(device, channels_last=True)
    return model.probs(moved.images, moved.present).cpu().numpy()


@contextlib.contextmanager
def evaluating(model: Classifier) -> Iterator[None]:
    """The model in evaluation mode inside, and each of its parts in the mode that it had when no thread is inside any
    longer."""
    parts = list(model.modules()) if isinstance(model, torch.nn.Module) else [model]
    with _SWITCHING:
        switched_on = [part for part in parts if id(part) in _INSIDE and part.training]  # by somebody inside
        for part in parts:
            _INSIDE.setdefault(id(part), _Inside(part, part.training)).threads += 1
        model.train(False)
    try:
        yield
    finally:
        with _SWITCHING:
            for part in parts:
                _INSIDE[id(part)].threads -= 1
            left = [_INSIDE.pop(id(part)) for part in parts if not _INSIDE[id(part)].threads]
            if len(left) == len(parts):
                model.train(left[0].mode)  # some backbones forget what they kept for evaluation
            for held in left:
                held.part.training = held.mode
            for part in switched_on:
                part.training = True


@dataclass
class _Inside:
    """A part of a model that threads evaluate, and the mode that it had before."""

    part: Any
    mode: bool
    threads: int = 0


_INSIDE: dict[int, _Inside] = {}
_SWITCHING = threading.Lock()
