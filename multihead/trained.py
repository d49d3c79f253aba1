"""Which photos, and whose, trained the model of a run: its scores on these say nothing of new ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multihead.data import Photos


def seen_in_training(model: str | os.PathLike, photos: Photos) -> list[str]:
    """Sentences on how many of the photos, and of other photos' people, the model's own run was trained on; none where
    it was on none, or where nothing tells.

    model: a run folder, or the model folder in one; its splits.csv tells. People count by their ids, within a folder.
    """
    run = Path(model) if (Path(model) / "splits.csv").is_file() else Path(model).parent
    if not (run / "splits.csv").is_file():
        return []
    import pandas as pd

    table = pd.read_csv(run / "splits.csv", dtype=str, keep_default_na=False, encoding_errors="surrogateescape")
    train = table[table.split == "train"]
    trained = set(train.path)
    people = set(zip(train.person, train.root))  # ids are of their folder
    both = sum(path in trained for path in photos.paths)
    rows = zip(photos.paths, photos.people, photos.table.root)
    more = sum(path not in trained and person != "" and (person, root) in people for path, person, root in rows)
    told = []
    if more:
        about = f"{more} of these {len(photos)} photos are others of people that, by their ids, trained this model"
        told.append(f"{about}, so the scores flatter it")
    if both:
        others = f"; {run / 'splits.csv'} holds the people that did not" if (table.split != "train").any() else ""
        told.append(f"{both} of these {len(photos)} photos trained this model, so the scores flatter it{others}")
    return told
