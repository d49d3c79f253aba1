"""The package `preprocess` that an export carries: this library's own modules that make inputs of a photo, copied."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from multihead.crops import Crop

PACKAGE, ROOT = "preprocess", "feeds"

_IMPORT = re.compile(r"^([ \t]*)from multihead\.(\w+) import ", re.MULTILINE)

_INIT = '''"""A photo as the inputs of the graph beside this package, the same bit for bit as multihead makes them.

Made by `multihead export` of multihead's own modules (MIT License, Copyright (c) 2026 The multihead authors); needs
Python 3.11, numpy, OpenCV and Pillow. The folder may be moved and renamed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .crops import Crop
from .decoders import ImageError
from .{root} import feed
from .images import Source

__all__ = ["CROPS", "ImageError", "inputs"]

CROPS = {{
{crops}
}}


def inputs(photo: Source, box: Sequence[float] | None = None, whole: bool = False) -> dict[str, np.ndarray]:
    """{{input: its crop, uint8 RGB (1, 3, H, W)}} of one photo, and at the end "present": bool (1, crops), false for a
    crop that the photo lacks, whose pixels are black.

    photo: a path, a file's bytes, an open file, a Pillow image, or an array (H, W, 3) of RGB uint8 (OpenCV's are BGR:
    array[:, :, ::-1]). box: the face, (x0, y0, x1, y1) in pixels of the upright photo, x1 and y1 just outside it; None
    where none is known: every crop is then the whole photo. whole: the photo is a tight face, and all of it the box.

    Raises: ImageError for a photo that cannot be read; ValueError for a box outside it, or not of four numbers.
    """
    return feed(photo, CROPS, box, whole)
'''


def carry(crops: Mapping[str, Crop], folder: Path) -> None:
    """Write `preprocess/` into the folder, for a graph whose inputs are these crops by their names."""
    place = folder / PACKAGE
    place.mkdir()
    for name, text in sources().items():
        (place / f"{name}.py").write_text(text, encoding="utf-8")
    lines = "\n".join(f"    {name!r}: {crop!r}," for name, crop in crops.items())
    (place / "__init__.py").write_text(_INIT.format(root=ROOT, crops=lines), encoding="utf-8")


def sources() -> dict[str, str]:
    """{module: its source} of `feeds` and of all that it imports of this library, by relative imports.

    >>> list(sources())
    ['feeds', 'images', 'files', 'decoders', 'headers', 'cutting', 'crops']
    """
    found: dict[str, str] = {}
    waiting = [ROOT]
    while waiting:
        name = waiting.pop()
        if name not in found:
            text = resources.files("multihead").joinpath(f"{name}.py").read_text(encoding="utf-8")
            waiting += [match[2] for match in _IMPORT.finditer(text)]
            found[name] = _IMPORT.sub(r"\1from .\2 import ", text)
    return found
