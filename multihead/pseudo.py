"""Labels that a model made: which they are, and that they never score anything."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import numpy as np

from multihead.data import Photos
from multihead.heads import Head
from multihead.leaks import LeakError

PSEUDO = "pseudo"  # the column that says which heads' labels are a model's
SPACE = "joint"  # the column that says what the joint classes of soft labels are, as [[head, [class, ...]], ...]


def space_text(space: Sequence[Head]) -> str:
    """A joint space as the column SPACE has it."""
    return _text({head.name: list(head.classes) for head in space})


def told_by(columns: Iterable[str], space: Sequence[Head]) -> str:
    """The joint space of a table of answers by its columns "mask:worn" and so on, which stand in the order of the model
    that answered; "" where they are not all there."""
    wanted = {f"{head.name}:{name}": (head.name, name) for head in space for name in head.classes}
    found: dict[str, list[str]] = {}
    for head, name in (wanted[column] for column in columns if column in wanted):
        found.setdefault(head, []).append(name)
    return _text(found) if sum(map(len, found.values())) == len(wanted) else ""


def _text(classes: dict[str, list[str]]) -> str:
    return json.dumps([[name, each] for name, each in classes.items()], ensure_ascii=False)


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
