"""A photo as the inputs of an exported graph. Exports carry this module, and what it imports, with them: it needs
numpy, OpenCV and Pillow alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from multihead.crops import Crop
from multihead.cutting import read_crops
from multihead.images import Source, open_image

PRESENT = "present"  # the input that says which crops a photo has


def feed(
    photo: Source, crops: Mapping[str, Crop], box: Sequence[float] | None = None, whole: bool = False
) -> dict[str, np.ndarray]:
    """{input: its crop, uint8 RGB (1, 3, H, W)} of one photo, and at the end "present": bool (1, crops), false for a
    crop that the photo lacks, whose pixels are black.

    photo: what `open_image` takes. crops: by the inputs' names. box, whole: as `read_crops` takes them.

    Raises: ImageError for a photo that cannot be read; ValueError for a box outside it, or not of four numbers.

    >>> made = feed(np.zeros((80, 60), np.uint8), {"full": Crop("full", "full", size=(8, 6))})
    >>> {name: array.shape for name, array in made.items()}
    {'full': (1, 3, 8, 6), 'present': (1, 1)}
    """
    if box is not None and len(box) != 4:
        raise ValueError(f"box {box!r} has {len(box)} numbers; expected (x0, y0, x1, y1) in pixels, or None")
    cuts, regions = read_crops(open_image(photo), list(crops.values()), box, whole)
    rows = [np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]) for pixels in cuts]  # (1, 3, H, W)
    return {**dict(zip(crops, rows)), PRESENT: np.array([[region is not None for region in regions]])}
