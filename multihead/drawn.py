"""A photo with the boxes and answers drawn on it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from multihead.crops import Box
from multihead.heads import Head
from multihead.images import write_jpeg
from multihead.labels import marginals

LONGEST = 65_500  # pixels; a JPEG holds no more
COLOURS = ((46, 160, 67), (219, 109, 40), (207, 34, 46), (9, 105, 218), (130, 80, 223), (87, 96, 106))


def annotate(
    image: np.ndarray, rows: Sequence[tuple[Box | None, np.ndarray]], space: Sequence[Head], path: str | Path
) -> None:
    """Write a JPEG of the photo (H, W, 3) with each face's box and answers; without a box they stand in a corner.

    rows: (box, joint probabilities (K,)). The colour is that of the first head's class; a number is its probability.
    """
    write_jpeg(np.asarray(_annotated(image, rows, space)), path)


def sheet(photos: Sequence[tuple[np.ndarray, Box | None, np.ndarray]], space: Sequence[Head], path: str | Path) -> None:
    """Write a JPEG of several photos with their answers, side by side in rows of six.

    photos: (image (H, W, 3), box, joint probabilities (K,)).
    """
    from PIL import Image, ImageOps

    height, width, columns = 360, 270, 6
    cells = [ImageOps.pad(_annotated(i, [(b, p)], space), (width, height), color="white") for i, b, p in photos]
    rows = -(-len(cells) // columns)
    page = Image.new("RGB", (columns * width, max(1, rows) * height), "white")
    for place, cell in enumerate(cells):
        page.paste(cell, ((place % columns) * width, (place // columns) * height))
    write_jpeg(np.asarray(page), path)


def _annotated(image: np.ndarray, rows: Sequence[tuple[Box | None, np.ndarray]], space: Sequence[Head]):  # type: ignore[no-untyped-def]
    """The photo as a PIL picture with boxes and answers."""
    from PIL import Image, ImageDraw, ImageFont

    picture = _readable(Image.fromarray(image))
    scale = picture.width / image.shape[1]
    draw = ImageDraw.Draw(picture)
    height = max(13, round(picture.height / 32))
    font = ImageFont.load_default(size=height)
    for box, probs in rows:
        parts = {name: part[0] for name, part in marginals(probs[None], space).items()}
        colour = COLOURS[int(parts[space[0].name].argmax()) % len(COLOURS)]
        lines = [f"{head.classes[part.argmax()]} {part.max():.2f}" for head in space for part in [parts[head.name]]]
        corner = (4.0, 4.0)
        if box is not None:
            x0, y0, x1, y1 = (value * scale for value in box)
            draw.rectangle((x0, y0, x1, y1), outline=colour, width=max(2, height // 7))
            corner = (x0, y1 + 2)
        _label(draw, lines, corner, font, colour, picture.size)
    return picture


def picture_path(folder: Path, name: str) -> Path:
    """Where a photo's drawn copy goes: its own name, and a short digest so that equal names do not collide."""
    stem = re.sub(r"[^\w.-]+", "_", Path(name).stem)[:80] or "photo"
    return folder / f"{stem}-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}.jpg"


def _readable(picture):  # type: ignore[no-untyped-def]
    """The picture, enlarged if it is too small to write on, reduced if it is too long for a JPEG."""
    factor = 320 / min(picture.size)
    if factor <= 1 or max(picture.size) * factor > 4000:  # a sliver is not enlarged
        picture.thumbnail((LONGEST, LONGEST))  # only ever reduces
        return picture
    return picture.resize((round(picture.width * factor), round(picture.height * factor)))


def _label(draw, lines, corner, font, colour, size) -> None:  # type: ignore[no-untyped-def]
    """White text on a filled patch, kept inside the picture."""
    text = "\n".join(lines)
    x0, y0, x1, y1 = draw.multiline_textbbox((0, 0), text, font=font)
    width, height = x1 - x0 + 6, y1 - y0 + 6
    left = min(max(0, corner[0]), max(0, size[0] - width))
    top = min(max(0, corner[1]), max(0, size[1] - height))
    draw.rectangle((left, top, left + width, top + height), fill=colour)
    draw.multiline_text((left + 3 - x0, top + 3 - y0), text, font=font, fill="white")
