"""From photos to answers in lanes: each lane opens, searches, cuts and answers a few photos on its share of the cores.

Answers come out in the order of the photos. However many photos there are, a chunk for each lane, and one that waits,
are in memory, and what is listed ahead (`COUNTED`).
"""

from __future__ import annotations

import contextlib
import math
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multihead.crops import BOX_DIGITS, Box
from multihead.cutting import read_crops
from multihead.decoders import Encoded, ImageError
from multihead.evaluation import Classifier, check_classifier, device_of, evaluating
from multihead.faces import WHICH, Detector, choose, first_reduction, try_search
from multihead.images import is_open_file, open_image
from multihead.inputs import Item, after, ahead, chunks, is_listed, items, popped
from multihead.lanes import evenly, in_lanes, lane_count, portions, shared_cores
from multihead.logs import tell
from multihead.modes import Pins, check_pins
from multihead.options import choice, whole
from multihead.pictures import Pictures
from multihead.prepared import ENOUGH, is_asked, prepared
from multihead.recipe import MISSING
from multihead.speed import keep_memory
from multihead.yunet import open_detector

CHUNK = {"cpu": 16, "cuda": 64}  # photos that are answered together: on a core, what its caches still hold
SEARCHED = 64  # photos at most that a lane takes, opens and searches together, where none is waited for
COUNTED = 2000  # photos listed ahead, so that lanes share them evenly
HELD = 16_000_000  # decoded pixels that wait together for the search of a lane
FINER = 3 * HELD  # and those that a finer look at these photos may decode: a quarter of each, as 12 megapixels at 1/2

Cuts = tuple[list[np.ndarray], list[bool]]  # the crops (H, W, 3) of a row, and which of them are present


@dataclass(frozen=True)
class Answer:
    """One row: the photo, the face (None: none, or not looked for), joint probabilities (K,) or the reason for none."""

    item: Item
    box: Box | None
    probs: np.ndarray | None
    error: str = ""


def answers(
    model: Classifier,
    source: object,
    *,
    faces: str | None = None,
    batch_size: int | None = None,
    missing: str = "full",
    finder: Detector | str | None = None,
    workers: int | None = None,
    draw: str | Path | None = None,
    pins: Pins = Pins(),
    done: Sequence[str] = (),
    since: int | None = None,
) -> Iterator[Answer]:
    """The rows of `predict` (same arguments) one by one, as they are found; memory does not grow with the source.

    done: the names of the first photos, which are passed over: an interrupted call answered them, the last at the time
    `since` (nanoseconds); a photo that was written later is refused.
    """
    if faces is not None:
        choice("predict", "faces", faces, WHICH)
    choice("predict", "missing", missing, MISSING)
    check_classifier(model)
    batch_size = None if batch_size is None else whole("predict", "batch_size", batch_size, 0)  # 0: as few as can be
    workers = None if workers is None else whole("predict", "workers", workers, 0)
    check_pins(pins)
    needs = any(crop.needs_box for crop in model.crops)
    if faces == "all" and not needs:
        print("the model reads whole photos: all faces of a photo get one answer; train with crops that need a face "
              "(--crops face) to tell them apart", file=sys.stderr)  # fmt: skip
    keep_memory()
    rest = after(items(source), done, since)
    there = is_listed(source, COUNTED)
    lanes = lane_count() if workers is None else workers
    live = not there and not lanes and batch_size in (0, 1)
    first, rest = ahead(rest, 0 if live else COUNTED if there else ENOUGH)
    few = len(first) < ENOUGH and not live
    chunk = CHUNK.get(device_of(model).type, CHUNK["cuda"]) if batch_size is None else max(1, batch_size)
    taken = max(chunk, SEARCHED) if there and batch_size is None else chunk
    counted = None
    if few or there and batch_size is None and len(first) < COUNTED:
        counted = len(first)
        taken = evenly(len(first), max(1, lanes), taken)
        lanes = min(lanes, max(1, -(-len(first) // taken)))
    chunk = min(chunk, taken) if few else chunk  # modes are timed once for all numbers of photos
    finder = open_detector(finder)
    if hasattr(finder, "prepare") and (needs or faces):
        finder.prepare()
    pictures = None if draw is None else Pictures(draw, model.space)
    with shared_cores(max(1, lanes)) as threads:
        ready = model if few and not is_asked(pins) else _ready(model, chunk, pins, max(1, lanes), threads)
        lane = _Lane(ready, finder, faces or ("largest" if needs else None), needs, missing, chunk, pictures)
        with evaluating(ready):
            grouped = chunks(chain(popped(first), rest), portions(counted, lanes if batch_size is None else 1, taken))
            for rows in in_lanes(lane.answer, grouped, lanes, threads):
                yield from rows


def _ready(model: Classifier, chunk: int, pins: Pins, lanes: int, threads: int) -> Classifier:
    """The copy that answers, chosen by passes on as many threads as a lane has; says what was chosen by a timing."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        made, choices = prepared(model, chunk, pins, lanes)
    finally:
        torch.set_num_threads(before)
    for chosen in choices:
        if chosen.found == "timed":
            tell(f"speed of answers: {chosen}")
    return made


@dataclass(frozen=True)
class _Lane:
    """What a lane does with a chunk of photos; several run it at once."""

    model: Classifier
    finder: Detector
    faces: str | None  # which are looked for: None for none
    needs: bool
    missing: str
    batch_size: int
    pictures: Pictures | None
    alone: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, chunk: Sequence[Item]) -> list[Answer]:
        """The answers to a chunk of photos, in order."""
        rows: list[tuple[Answer, Cuts | None]] = []
        for group in self._groups(chunk):
            found = self._search(group)
            for place, ((item, _), (photo, boxes)) in enumerate(zip(group, found, strict=True)):
                rows += [self._row(self._kept(item, photo), photo, box) for box in boxes]
                if not isinstance(photo, str) and (place + 1 == len(group) or found[place + 1][0] is not photo):
                    photo.forget()  # its crops are cut: a group of full decodes would fill the memory
        done = self._probs(rows)
        if self.pictures is not None:
            self.pictures.draw([(row.item, row.box, row.probs) for row in done])
        # pixels and bytes are not held by the rows: memory would grow with a stream of them
        held = [isinstance(row.item.source, str | Path) for row in done]
        return [row if path else replace(row, item=replace(row.item, source=None)) for row, path in zip(done, held)]

    def _groups(self, chunk: Sequence[Item]) -> Iterator[list[tuple[Item, Encoded | str]]]:
        """The photos of a chunk, opened, and decoded for the search; as many as may be in memory together."""
        group: list[tuple[Item, Encoded | str]] = []
        held = later = 0  # pixels decoded now, and what a finer look at each may decode
        for item in chunk:
            last = group[-1] if group else None
            if last and _same(last[0].source, item.source):
                group.append((item, last[1]))
                continue
            photo = self._open(item)
            group.append((item, photo))
            held += 0 if isinstance(photo, str) else photo.held
            later += 0 if isinstance(photo, str) else math.prod(photo.size) // 4
            if held >= HELD or later >= FINER:
                yield group
                group, held, later = [], 0, 0
        if group:
            yield group

    def _open(self, item: Item) -> Encoded | str:
        try:
            photo = open_image(item.source)
            if self._searches(item):
                photo.pixels(first_reduction(self.finder, photo.size))
            return photo
        except ImageError as error:
            return str(error)

    def _kept(self, item: Item, photo: Encoded | str) -> Item:
        """The item with what its picture is drawn of: an open file gives its bytes once."""
        once = self.pictures is not None and is_open_file(item.source)
        return item if isinstance(photo, str) or not once else replace(item, source=photo)

    def _searches(self, item: Item) -> bool:
        return self.faces is not None and item.box is None and not (item.whole or item.searched)

    def _search(self, group: Sequence[tuple[Item, Encoded | str]]) -> list[tuple[Encoded | str, list[Box | None]]]:
        """Each photo, or why it cannot be read, with the boxes to answer for: its own, else those of faces found."""
        wanted = [photo for item, photo in group if not isinstance(photo, str) and self._searches(item)]
        with contextlib.nullcontext() if getattr(self.finder, "parallel", False) else self.alone:
            searched = iter(try_search(self.finder, wanted))
        found: list[tuple[Encoded | str, list[Box | None]]] = []
        for item, photo in group:
            if isinstance(photo, str) or not self._searches(item):
                found.append((photo, [item.box]))
                continue
            faces = next(searched)
            if isinstance(faces, ImageError):
                found.append((str(faces), [None]))
                continue
            chosen = choose(faces, self.faces or "largest", photo.size)
            found.append((photo, [_as_written(face.box) for face in chosen] or [None]))
        return found

    def _row(self, item: Item, photo: Encoded | str, box: Box | None) -> tuple[Answer, Cuts | None]:
        """The row without its probabilities, and its crops; None for these where there is no answer."""
        if isinstance(photo, str):
            return Answer(item, None, None, photo), None
        if box is None and self._searches(item):
            item = replace(item, searched=True)
        if self.needs and box is None and not item.whole and self.missing != "full":
            if self.missing == "error":
                raise ValueError(f"{item.name}: no face found; use missing='full' or 'skip'")
            return Answer(item, None, None, "no face found"), None
        try:
            cuts, regions = read_crops(photo, self.model.crops, box, item.whole)
        except ImageError as error:
            return Answer(item, None, None, str(error)), None
        except ValueError as error:
            return Answer(item, box, None, f"{item.name}: {error}"), None
        return Answer(item, box, None), (cuts, [region is not None for region in regions])

    def _probs(self, rows: Sequence[tuple[Answer, Cuts | None]]) -> list[Answer]:
        """The rows with their probabilities, one pass of the model for `batch_size` of them."""
        done = [row for row, _ in rows]
        there = [(place, cuts) for place, (_, cuts) in enumerate(rows) if cuts is not None]
        step = evenly(len(there), 1, self.batch_size)  # no pass of one after one of sixteen
        for start in range(0, len(there), step):
            part = there[start : start + step]
            for (place, _), probs in zip(part, batch_answers(self.model, [cuts for _, cuts in part]), strict=True):
                done[place] = _answered(done[place], probs)
        return done


def _answered(row: Answer, probs: np.ndarray) -> Answer:
    """The row with its probabilities, or why these are none."""
    if np.isfinite(probs).all():
        return replace(row, probs=probs)
    return replace(row, error=f"{row.item.name}: the model answers with {probs.max()}; are its weights damaged?")


def _same(one: object, other: object) -> bool:
    """Whether two sources are one: the same file, or the same object."""
    return one is other or isinstance(one, (str, Path)) and isinstance(other, (str, Path)) and one == other


def _as_written(box: Box) -> Box:
    """The box as tables of answers hold it, so that such a table, answered again, gives the same answers."""
    x0, y0, x1, y1 = (round(edge, BOX_DIGITS) for edge in box)
    return (x0, y0, x1, y1)


def batch_answers(model: Classifier, rows: Sequence[Cuts]) -> np.ndarray:
    """Joint probabilities (B, K) of the rows' crops, in one pass of a model in evaluation mode."""
    device = device_of(model)
    images: dict[Any, torch.Tensor] = {}
    for column, crop in enumerate(model.crops):
        pixels = torch.from_numpy(np.stack([cuts[column] for cuts, _ in rows]))  # (B, H, W, 3)
        pixels = pixels.pin_memory() if device.type == "cuda" else pixels
        # (B, 3, H, W) in channels_last strides: no copy
        images[crop] = pixels.permute(0, 3, 1, 2).to(device, non_blocking=True)
    present = torch.tensor([there for _, there in rows], dtype=torch.bool)
    with torch.inference_mode():
        return model.probs(images, present).cpu().numpy()
