"""A folder of photos with their answers drawn on them, which several lanes write into."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from multihead.crops import Box
from multihead.decoders import Encoded, ImageError
from multihead.drawn import annotate, picture_path
from multihead.heads import Head
from multihead.images import open_image
from multihead.inputs import Item

Row = tuple[Item, Box | None, np.ndarray | None]  # a photo, a face, its joint probabilities (K,) or None


class Pictures:
    """The pictures of a folder; space: the heads of the joint probabilities."""

    def __init__(self, folder: str | Path, space: Sequence[Head]) -> None:
        self.folder, self.space = Path(folder), space
        self._lock = threading.Lock()
        self._drawn: dict[str, list[tuple[Box | None, np.ndarray]]] = {}  # of photos whose rows do not come together

    def draw(self, rows: Sequence[Row]) -> None:
        """A picture of each photo that has an answer; a table may have several rows of one photo."""
        for name in dict.fromkeys(item.name for item, _, probs in rows if probs is not None):
            mine = [row for row in rows if row[0].name == name]
            item = mine[0][0]
            shown = [(box, probs) for _, box, probs in mine if probs is not None]
            try:
                image = (item.source if isinstance(item.source, Encoded) else open_image(item.source)).pixels()
            except ImageError as error:  # it was there a moment ago
                print(f"no picture: {error}", file=sys.stderr)
                continue
            with self._lock if item.scattered else contextlib.nullcontext():
                if item.scattered:  # each time with the rows before, in an order that does not depend on the lanes
                    shown = sorted([*self._drawn.get(name, []), *shown], key=lambda each: each[0] or ())
                    self._drawn[name] = shown
                annotate(image, shown, self.space, picture_path(self.folder, name))
