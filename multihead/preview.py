"""A contact sheet of training batches as the model sees them: augmented, mixed, with their target rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from multihead.batches import Batch
from multihead.crops import Crop
from multihead.data import Photos
from multihead.files import replace_file
from multihead.heads import Head
from multihead.loading import loader
from multihead.recipe import Recipe
from multihead.sides import Ready, target_rows, training_order
from multihead.steps import part_of

COLUMNS = 8
TALLEST = 160  # pixels of a crop on the sheet


def preview(
    photos: Photos,
    heads: Sequence[Head],
    recipe: Recipe,
    path: str | Path,
    *,
    batches: int = 2,
    epoch: int = 1,
    workers: int = 2,
) -> int:
    """Write the first batches of an epoch as a PNG: each photo's crops, and under them its target rows; the number of
    photos shown. These are the pixels and rows that training with this recipe sees in that epoch; label smoothing,
    which the losses do, is not shown.

    Raises: ValueError for no batch or epoch, or where no photo can be read.
    """
    if batches < 1 or epoch < 1:
        raise ValueError(f"preview of {batches} batches of epoch {epoch}; expected one or more, epochs counted from 1")
    side = Ready(heads, photos, recipe, training=True, workers=workers)
    if not len(side.rows):
        raise ValueError(f"none of {len(photos)} photos can be read")
    targets, order = (
        target_rows(side.photos, heads, recipe),
        training_order(side, heads, recipe, recipe.grad_accum_steps),
    )
    order.epoch = epoch
    cells = []
    for number, batch in enumerate(loader(side.held, order)):
        if number == batches:
            break
        seen = part_of(batch.to(torch.device("cpu")), targets, recipe, epoch, number)
        cells += _cells(batch, seen.images, seen.targets, heads)
    _write(cells, Path(path))
    return len(cells)


def _cells(
    batch: Batch, images: Mapping[Crop, torch.Tensor], rows: Mapping[str, torch.Tensor], heads: Sequence[Head]
) -> list[tuple[list[np.ndarray], list[str]]]:
    """Each photo's crops (H, W, 3) and lines of text."""
    cells = []
    for place in range(len(batch.rows)):
        pixels = [image[place].permute(1, 2, 0).numpy() for image in images.values()]
        lines = [line for head in heads for line in _lines(head, rows[head.name][place])]
        cells.append((pixels, lines + (["mask drawn on"] if batch.drawn[place] >= 0 else [])))
    return cells


def _lines(head: Head, row: torch.Tensor) -> list[str]:
    """A target row as text, its three largest shares: ["mask worn .70 incorrect .30"]; a line each of many classes."""
    if float(row.sum()) == 0:
        return [f"{head.name} ?"]
    shown = sorted(((float(share), name) for share, name in zip(row, head.classes) if share >= 0.01), reverse=True)
    parts = [f"{name} {share:.2f}".replace(" 0.", " .") for share, name in shown[:3]]
    return parts if len(head.classes) > 6 else [" ".join([head.name, *parts])]


def _write(cells: Sequence[tuple[list[np.ndarray], list[str]]], path: Path) -> None:
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=12)
    strips = [Image.fromarray(np.concatenate([_fit(pixels) for pixels in crops], 1)) for crops, _ in cells]
    lines = max(len(text) for _, text in cells)
    probe = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    widest = max(probe.textlength(line, font=font) for _, text in cells for line in text)
    wide, high = max(max(strip.width for strip in strips), int(widest)) + 10, TALLEST + 16 * lines + 12
    columns = max(1, min(COLUMNS, len(cells), 2000 // wide))
    sheet = Image.new("RGB", (wide * columns, high * -(-len(cells) // columns)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (strip, (_, text)) in enumerate(zip(strips, cells)):
        left, top = place % columns * wide + 5, place // columns * high + 5
        sheet.paste(strip, (left, top))
        draw.multiline_text((left, top + TALLEST + 3), "\n".join(text), font=font, fill="black", spacing=3)
    replace_file(path, lambda fresh: sheet.save(fresh, format="PNG"))


def _fit(pixels: np.ndarray) -> np.ndarray:
    import cv2

    width = max(1, round(pixels.shape[1] * TALLEST / pixels.shape[0]))
    return cv2.resize(pixels, (width, TALLEST), interpolation=cv2.INTER_LINEAR)
