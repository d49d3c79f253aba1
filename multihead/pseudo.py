"""Labels that a model made: which they are, and that they never score anything."""

from __future__ import annotations

import numpy as np

from multihead.data import LeakError, Photos

PSEUDO = "pseudo"  # the column that says which heads' labels are a model's


def provenance(photos: Photos) -> list[str]:
    """The heads of each row whose labels a model made, as text; "" where people made them all."""
    if PSEUDO not in photos.table:
        return [""] * len(photos)
    return [str(cell).strip() for cell in photos.table[PSEUDO].fillna("")]


def check_not_pseudo(photos: Photos, what: str) -> None:
    """Nothing where all labels are people's; what: what the photos are for, as "validation".

    Raises: LeakError that counts the photos whose labels are a model's, and names one.
    """
    filled = np.array([bool(text) for text in provenance(photos)], bool)
    if filled.any():
        first = int(filled.argmax())
        raise LeakError(
            f"{int(filled.sum())} of {len(photos)} {what} photos have labels that a model made, for one "
            f"{photos.table['name'].iloc[first]} ({photos.table[PSEUDO].iloc[first]}); "
            f"{what} photos must be labelled by people: add pseudo labels to the training photos only"
        )
