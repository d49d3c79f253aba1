"""A photo with the boxes and answers drawn on it."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from multihead.crops import Box
from multihead.heads import Head
from multihead.images import write_jpeg
from multihead.labels import marginals
from multihead.spots import spots

LONGEST = 65_500  # pixels; a JPEG holds no more
LARGEST = 4000  # pixels; nothing is enlarged beyond
LEAST = 13  # pixels; lower letters cannot be read
COLOURS = ((46, 160, 67), (219, 109, 40), (207, 34, 46), (9, 105, 218), (130, 80, 223), (87, 96, 106))


def annotate(
    image: np.ndarray, rows: Sequence[tuple[Box | None, np.ndarray]], space: Sequence[Head], path: str | Path
) -> None:
    """Write a JPEG of the photo (H, W, 3) with each face's box and answers; without a box they stand in a corner.

    rows: (box, joint probabilities (K,)). The colour is that of the first head's class; a number is its probability.
    Where the labels of several faces would hide a face or each other, all get numbers, in the order of the rows, and
    their answers stand in a legend below the photo, which is enlarged where most faces are small.
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


class _Face(NamedTuple):
    """What is drawn of a row: its box in pixels of the picture, its colour, its answers, a line a head."""

    box: Box | None
    colour: tuple[int, int, int]
    lines: list[str]


def _annotated(image: np.ndarray, rows: Sequence[tuple[Box | None, np.ndarray]], space: Sequence[Head]):  # type: ignore[no-untyped-def]
    """The photo as a PIL picture with boxes and answers."""
    from PIL import Image

    picture = _readable(Image.fromarray(image))
    faces = [_face(box, probs, space, picture.width / image.shape[1]) for box, probs in rows]
    alone = sum(face.box is not None for face in faces) < 2
    if _labelled(picture, faces, ["\n".join(face.lines) for face in faces], anyhow=alone):
        return picture
    picture, faces = _enlarged(picture, faces)
    _labelled(picture, faces, [str(number) for number in range(1, len(faces) + 1)], anyhow=True)
    return _with_legend(picture, faces)


def _face(box: Box | None, probs: np.ndarray, space: Sequence[Head], scale: float) -> _Face:
    parts = {name: part[0] for name, part in marginals(probs[None], space).items()}
    colour = COLOURS[int(parts[space[0].name].argmax()) % len(COLOURS)]
    lines = [f"{head.classes[part.argmax()]} {part.max():.2f}" for head in space for part in [parts[head.name]]]
    return _Face(None if box is None else _scaled(box, scale), colour, lines)


def _scaled(box: Box, scale: float) -> Box:
    x0, y0, x1, y1 = (value * scale for value in box)
    return (x0, y0, x1, y1)


def _labelled(picture, faces: Sequence[_Face], texts: Sequence[str], *, anyhow: bool) -> bool:  # type: ignore[no-untyped-def]
    """Draw the boxes and a label of white text for each; False, and nothing drawn, where one would hide a face or
    another label, unless it shall be anyhow."""
    from PIL import ImageDraw, ImageFont

    draw = ImageDraw.Draw(picture)
    heights = [_letters(face.box, picture.size) for face in faces]
    fonts = {height: ImageFont.load_default(size=height) for height in set(heights)}
    patches = [_measured(draw, text, fonts[height]) for text, height in zip(texts, heights, strict=True)]
    places, free = spots([face.box for face in faces], patches, picture.size[::-1])
    if not (free or anyhow):
        return False
    for face, height in zip(faces, heights, strict=True):
        if face.box is not None:
            draw.rectangle(face.box, outline=face.colour, width=max(2, height // 7))
    for face, text, height, place in zip(faces, texts, heights, places, strict=True):
        _label(draw, text, fonts[height], place, face.colour)
    return True


def _enlarged(picture, faces: Sequence[_Face]):  # type: ignore[no-untyped-def]
    """The picture and its faces, enlarged until half of the faces have room for a number."""
    side = float(np.median([max(1.0, face.box[3] - face.box[1]) for face in faces if face.box is not None]))
    factor = min(3 * LEAST / side, LARGEST / max(picture.size))
    if factor <= 1:
        return picture, faces
    larger = picture.resize((round(picture.width * factor), round(picture.height * factor)))
    scale = larger.width / picture.width
    return larger, [face if face.box is None else face._replace(box=_scaled(face.box, scale)) for face in faces]


def _with_legend(picture, faces: Sequence[_Face]):  # type: ignore[no-untyped-def]
    """The picture, and below it a line for each face: its number on its colour, and its answers."""
    from PIL import Image, ImageDraw, ImageFont

    height = _letters((0.0, 0.0, 0.0, 0.0), picture.size)
    font, line, texts = ImageFont.load_default(size=height), round(1.5 * height), ["   ".join(f.lines) for f in faces]
    number = line // 2 + round(font.getlength(str(len(faces))))  # the width of a number's patch
    column = number + line + round(max(font.getlength(text) for text in texts))
    columns = max(1, min(len(faces), picture.width // column))
    rows = -(-len(faces) // columns)
    page = Image.new("RGB", (max(picture.width, column), picture.height + (rows + 1) * line), "white")
    page.paste(picture)
    draw = ImageDraw.Draw(page)
    for place, (face, text) in enumerate(zip(faces, texts, strict=True)):
        left, top = place // rows * (page.width // columns), picture.height + line // 2 + place % rows * line
        draw.rectangle((left, top, left + number, top + line - 2), fill=face.colour)
        draw.text((left + number / 2, top + line / 2 - 1), str(place + 1), "white", font, anchor="mm")
        draw.text((left + number + line // 3, top + line / 2 - 1), text, "black", font, anchor="lm")
    page.thumbnail((LONGEST, LONGEST))  # only ever reduces
    return page


def picture_path(folder: Path, name: str) -> Path:
    """Where a photo's drawn copy goes: its own name, and a short digest so that equal names do not collide."""
    stem = re.sub(r"[^\w.-]+", "_", Path(name).stem)[:80] or "photo"
    return folder / f"{stem}-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}.jpg"


def _readable(picture):  # type: ignore[no-untyped-def]
    """The picture, enlarged if it is too small to write on, reduced if it is too long for a JPEG."""
    factor = 320 / min(picture.size)
    if factor <= 1 or max(picture.size) * factor > LARGEST:  # a sliver is not enlarged
        picture.thumbnail((LONGEST, LONGEST))  # only ever reduces
        return picture
    return picture.resize((round(picture.width * factor), round(picture.height * factor)))


def _letters(box: Box | None, size: tuple[int, int]) -> int:
    """How high a label's letters are in a picture of this (width, height): by its face, within limits."""
    least = max(LEAST, round(math.sqrt(size[0] * size[1]) / 75))
    most = max(least, round(size[1] / 32))
    return most if box is None else min(most, max(least, round((box[3] - box[1]) / 7)))


def _measured(draw, text: str, font) -> tuple[int, int]:  # type: ignore[no-untyped-def]
    """(height, width) of the patch of a text."""
    x0, y0, x1, y1 = draw.multiline_textbbox((0, 0), text, font=font)
    return math.ceil(y1 - y0) + 6, math.ceil(x1 - x0) + 6


def _label(draw, text: str, font, corner: tuple[float, float], colour: tuple[int, int, int]) -> None:  # type: ignore[no-untyped-def]
    """White text on a filled patch."""
    left, top = corner
    x0, y0, *_ = draw.multiline_textbbox((0, 0), text, font=font)
    high, wide = _measured(draw, text, font)
    draw.rectangle((left, top, left + wide - 1, top + high - 1), fill=colour)
    draw.multiline_text((left + 3 - x0, top + 3 - y0), text, font=font, fill="white")
