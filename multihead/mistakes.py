"""The answers that a model was surest of and that are wrong: who they show, and where the model looked."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from multihead import pages
from multihead.boxes import locate_faces
from multihead.crops import Crop, Region, box_of, cut
from multihead.findings import Answered
from multihead.heads import AGE_NUMBER, UNKNOWN, Head, crops, number_column, numbers
from multihead.images import read_image
from multihead.labels import marginals
from multihead.metrics import Scores
from multihead.pages import Markup

TALL = 160  # pixels of a thumbnail
QUALITY = 82


@dataclass(frozen=True)
class Mistake:
    """A wrong answer to one head: its row, the head's column, answer and label (class numbers), and its probability."""

    row: int
    column: int
    answer: int
    label: int
    confidence: float


def mistakes(found: Scores, count: int) -> list[Mistake]:
    """The `count` wrong answers of largest probability, as many of each head as there are to be had, surest first."""
    by_head = []
    for column, part in enumerate(marginals(found.probs, found.table).values()):
        labels, answers, sure = found.labels[:, column], part.argmax(1), part.max(1)
        rows = np.flatnonzero((labels != UNKNOWN) & (answers != labels))
        rows = rows[np.argsort(-sure[rows], kind="stable")]
        by_head.append([Mistake(int(r), column, int(answers[r]), int(labels[r]), float(sure[r])) for r in rows])
    shares = _shares([len(each) for each in by_head], count)
    return [mistake for each, share in zip(by_head, shares) for mistake in each[:share]]


def _shares(sizes: Sequence[int], count: int) -> list[int]:
    """How many to take of each, one in turn.

    >>> _shares([1, 9, 3], 9)
    [1, 5, 3]
    """
    taken = [0] * len(sizes)
    while sum(taken) < min(count, sum(sizes)):
        for place, size in enumerate(sizes):
            if taken[place] < size and sum(taken) < count:
                taken[place] += 1
    return taken


def error_cards(answered: Answered, count: int, *, maps: bool = True, device: Any = "cpu") -> list[Markup]:
    """Cards of the surest wrong answers, by head, with thumbnails and, if asked for, where the model looked."""
    found = answered.scores
    chosen = mistakes(found, count)
    if not chosen:
        known = (found.labels != UNKNOWN).any()
        return [pages.paragraph("Every labelled photo is answered right." if known else "No photo has a label.")]
    pictures, notes = _pictures(answered, chosen, maps, device)
    parts = [pages.paragraph(text, "note") for text in notes]
    above = shared_folder(answered.photos.paths)
    for column, head in enumerate(found.table):
        mine = [mistake for mistake in chosen if mistake.column == column]
        if mine:
            parts += [
                pages.heading(head.name),
                pages.cards([_card(answered, one, pictures[one], above) for one in mine]),
            ]
    text = (
        "Beside each crop that a head reads stands where its answer comes from: the brighter, the more it spoke for it."
    )
    parts += [pages.paragraph(text, "soft")] if maps else []
    return [*parts, pages.paragraph(f"Files are named from {above}.", "soft")] if above else parts


def shared_folder(paths: Sequence[str]) -> str:
    """The folder that all files are under, "" where they share none.

    >>> shared_folder(["/a/b/c/1.jpg", "/a/b/x/../2.jpg"])
    '/a/b'
    """
    with contextlib.suppress(ValueError):  # files on several drives
        found = os.path.commonpath([os.path.dirname(os.path.normpath(path)) for path in paths])
        return "" if found == os.path.dirname(found) else found
    return ""


def _card(answered: Answered, mistake: Mistake, views: Sequence[Markup] | str, above: str) -> Markup:
    """One wrong answer: its pictures (or why there are none), what the model said of each head, whose photo it is."""
    photos, found = answered.photos, answered.scores
    table, parts = photos.table.iloc[mistake.row], marginals(found.probs[mistake.row][None], found.table)
    lines = [views] if isinstance(views, str) else []
    for column, head in enumerate(found.table):
        probs, label = parts[head.name][0], int(found.labels[mistake.row, column])
        best = int(probs.argmax())
        truth = "label unknown" if label == UNKNOWN else "right" if label == best else f"label {head.classes[label]}"
        lines.append(f"{head.name}: {head.classes[best]} {probs[best]:.2f} ({truth})")
    for number in numbers(photos.heads):
        value, unit = table[number_column(number)], " years" if number == AGE_NUMBER else ""
        lines += [f"{number} {value:g}{unit}"] if np.isfinite(value) else []
    lines += [
        f"person {table['person'] or 'unknown'}, source {table['source'] or 'unknown'}",
        _below(table["path"], above),
    ]
    head = found.table[mistake.column]
    title = f"{head.classes[mistake.answer]} {mistake.confidence:.2f}, label {head.classes[mistake.label]}"
    return pages.card([] if isinstance(views, str) else views, lines, title)


def _below(path: str, above: str) -> str:
    return os.path.relpath(path, above) if above else os.path.normpath(path)


def _pictures(
    answered: Answered, chosen: Sequence[Mistake], maps: bool, device: Any
) -> tuple[dict[Mistake, list[Markup] | str], list[str]]:
    """{mistake: its pictures, or why there are none}, and notes on maps that could not be made."""
    pictures: dict[Mistake, list[Markup] | str] = {}
    notes: list[str] = []
    rows = np.array(sorted({mistake.row for mistake in chosen}))
    needed = crops(answered.heads)
    photos = locate_faces(answered.photos[rows], needed).photos
    models: dict[str, Any] = {}
    for mistake in chosen:
        place = int(np.searchsorted(rows, mistake.row))
        head = _own_head(answered.heads, answered.scores.table[mistake.column].name)
        folder = str(answered.folders[mistake.row])
        if maps and folder not in models:
            models[folder], problem = _model(folder, device)
            notes += [problem] if problem else []
        try:
            image = read_image(photos.paths[place])
            cuts, regions = _regions(image, needed, photos, place)
        except (ValueError, OSError) as error:
            pictures[mistake] = f"The photo cannot be read: {error}"
            continue
        found, problem = _looked(models.get(folder), head, dict(zip(needed, cuts)), regions, needed, mistake)
        notes += [problem] if problem and problem not in notes else []
        shown = [(crop, region) for crop, region in zip(needed, regions) if crop in head.crops and region is not None]
        pictures[mistake] = [view for crop, region in shown for view in _views(image, crop, region, found.get(crop))]
    return pictures, notes


def _regions(
    image: np.ndarray, needed: Sequence[Crop], photos: Any, place: int
) -> tuple[list[np.ndarray], list[Region | None]]:
    from multihead.cutting import cut_regions

    return cut_regions(image, needed, box_of(photos.boxes[place]), bool(photos.table["whole"].iloc[place]))


def _own_head(heads: Sequence[Head], name: str) -> Head:
    """The model's head that answers this question: itself, or the flat head of which it is a part."""
    return next(head for head in heads if name in (head.name, *(part.name for part in head.parts)))


def _model(folder: str, device: Any) -> tuple[Any, str]:
    from multihead.joined import load

    try:
        return load(folder).to(device), ""
    except (ValueError, OSError) as error:
        return None, f"Where the model looked is not shown: {error}"


def _looked(
    model: Any,
    head: Head,
    cuts: Mapping[Crop, np.ndarray],
    regions: Sequence[Region | None],
    needed: Sequence[Crop],
    mistake: Mistake,
) -> tuple[dict[Crop, np.ndarray], str]:
    """The map (H, W) of each crop for the head's answer, or why there is none."""
    if model is None:
        return {}, ""
    import torch

    from multihead.activation import activation_maps

    device = next(model.parameters()).device
    images = {crop: torch.from_numpy(pixels).permute(2, 0, 1)[None].to(device) for crop, pixels in cuts.items()}
    present = torch.tensor([[region is not None for region in regions]], device=device)
    asked = None if head.parts else {head.name: mistake.answer}
    try:
        found = activation_maps(model, images, present, asked)[head.name]
    except (ValueError, AttributeError, TypeError) as error:
        return {}, f"Where the model looked is not shown: {error}"
    return {crop: rows[0].cpu().numpy() for crop, rows in found.items()}, ""


def _views(image: np.ndarray, crop: Crop, region: Region, looked: np.ndarray | None) -> list[Markup]:
    """The crop, and the crop under its map."""
    size = (TALL, max(1, round(TALL * crop.size[1] / crop.size[0])))
    plain = cut(image, region, size)
    views = [pages.picture(_jpeg(plain), f"the {crop.name} crop")]
    if looked is not None:
        views.append(pages.picture(_jpeg(overlay(plain, looked)), f"where the model looked in the {crop.name} crop"))
    return views


def overlay(pixels: np.ndarray, looked: np.ndarray) -> np.ndarray:
    """Pixels (H, W, 3) in grey under the colours of a map (h, w) in 0..1: grey where it is 0, bright where it is 1."""
    import cv2

    size = (pixels.shape[1], pixels.shape[0])
    strength = np.clip(cv2.resize(looked.astype(np.float32), size, interpolation=cv2.INTER_LINEAR), 0, 1)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[:, :, None].astype(float)
    colours = cv2.applyColorMap((255 * strength).astype(np.uint8), cv2.COLORMAP_INFERNO)[:, :, ::-1].astype(float)
    weight = 0.65 * strength[:, :, None]
    return ((1 - weight) * grey * 0.9 + weight * colours).astype(np.uint8)


def _jpeg(pixels: np.ndarray) -> bytes:
    import cv2

    done, content = cv2.imencode(".jpg", np.ascontiguousarray(pixels[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done
    return content.tobytes()
