"""Photos of which some labels are hidden: what training with missing labels is tried on."""

from __future__ import annotations

import numpy as np

from multihead.data import Photos
from multihead.heads import UNKNOWN, number_column, span_column


def hide_labels(photos: Photos, share: float, *, seed: int = 0) -> Photos:
    """The same photos, each head's label of each row hidden with probability `share`, independently of the others.

    A hidden age is hidden as band and as years, any banded number so; another head that bands the same number keeps its
    band. What is hidden at one share is hidden at every higher one of the same seed, so that shares may be compared.

    Raises: ValueError for a share outside 0..1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share of hidden labels is {share!r}; expected a number from 0 to 1")
    if share == 0:
        return photos
    hidden = np.random.default_rng((seed, 5)).random((len(photos), len(photos.heads))) < share  # (N, heads)
    columns: dict[str, np.ndarray] = {}
    for head, cells, label in zip(photos.heads, hidden.T, photos.labels().T):  # bands, of those whose numbers go too
        columns[head.name] = np.where(cells, UNKNOWN, label)
        if head.number is not None:
            column = number_column(head.number)
            columns[column] = np.where(cells, np.nan, columns.get(column, photos.numbers(head)))
            if (spans := span_column(head.number)) in photos.table:
                columns[spans] = np.where(cells, "", columns.get(spans, photos.table[spans].to_numpy()))
    return photos.with_columns(**columns)
