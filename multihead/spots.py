"""Where the labels of faces stand: beside their boxes, in the way of no other face where there is room."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from multihead.crops import Box

CORNER = 4  # pixels between the picture's corner and the label of a row that has no box
OWN = 1e-3  # what hiding its own face costs a label, as a share of hiding another or lying on another label


def spots(
    boxes: Sequence[Box | None], labels: Sequence[tuple[int, int]], size: tuple[int, int], gap: int = 2
) -> tuple[list[tuple[float, float]], bool]:
    """(left, top) of each label inside a picture, and whether none of them lies on a box or on another label.

    boxes: of the faces, in pixels; without one a label stands in the upper left corner. labels: (height, width) of
    each. size: (height, width) of the picture. gap: pixels between a box and its label. In their order they take the
    first free place around their box, below it if possible; where none is free, the one that hides least of the
    others, which may be inside the box.

    >>> spots([(10.0, 10.0, 30.0, 30.0), (10.0, 32.0, 30.0, 52.0)], [(8, 20), (8, 20)], (70, 70))
    ([(10.0, 0.0), (10.0, 54.0)], True)
    """
    count = len(boxes)
    filled = np.zeros((2 * count, 4))  # the boxes, then the labels that have a place
    filled[:count] = np.reshape([box or (0, 0, 0, 0) for box in boxes], (-1, 4))
    weights, found, free = np.ones(2 * count), [], True
    for number, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        places = _places(box, label, size, gap)  # (P, 4)
        weights[number] = OWN
        cost = _shared(places, filled[: count + number]) @ weights[: count + number]  # (P,)
        weights[number] = 1
        best = places[cost.argmin()]
        free = free and not cost.min()
        filled[count + number] = best
        found.append((float(best[0]), float(best[1])))
    return found, free


def _places(box: Box | None, label: tuple[int, int], size: tuple[int, int], gap: int) -> np.ndarray:
    """Places (P, 4) of a label around a box and in the box's corners, best first, moved into the picture."""
    high, wide = label
    if box is None:
        corners = [(CORNER, CORNER)]
    else:
        x0, y0, x1, y1 = box
        middle, below, above = (x0 + x1 - wide) / 2, y1 + gap, y0 - gap - high
        corners = [(x, y) for y in (below, above) for x in (x0, x1 - wide, middle)]  # type: ignore[misc]
        corners += [(x, y) for x in (x1 + gap, x0 - gap - wide) for y in (y0, y1 - high)]  # type: ignore[misc]
        corners += [(x, y) for y in (y1 - high, y0) for x in (x0, x1 - wide)]  # type: ignore[misc]
    places = np.array(corners, float).clip(0, np.maximum(0, (size[1] - wide, size[0] - high)))
    return np.concatenate([places, places + (wide, high)], 1)


def _shared(places: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Pixels (P, B) that each of the places (P, 4) has in common with each of the boxes (B, 4)."""
    x0, y0, x1, y1 = places.T[:, :, None]  # each (P, 1)
    wide = np.minimum(x1, boxes[:, 2]) - np.maximum(x0, boxes[:, 0])
    high = np.minimum(y1, boxes[:, 3]) - np.maximum(y0, boxes[:, 1])
    return wide.clip(0) * high.clip(0)
