"""The table of photos as it is written: what `multihead.read` reads back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from multihead.cells import BOX, numbers_or_spans
from multihead.heads import Head, numbers

if TYPE_CHECKING:
    import pandas as pd


def written(table: pd.DataFrame, heads: Sequence[Head], labels: np.ndarray, extra: Sequence[str]) -> pd.DataFrame:
    """A table of `Photos` with class names, numbers or spans, and faces in words, for a CSV.

    labels: (N, heads), -1 = unknown, which is a blank. extra: the columns that are written as they are.
    """
    plain = table[["path", "root", "source", "person", "split"]].copy()
    for head, label in zip(heads, labels.T):
        column = f"{head.name}_band" if head.number == head.name else head.name
        plain[column] = ["" if i < 0 else head.classes[i] for i in label]
    for number in numbers(heads):
        plain[number] = numbers_or_spans(table, number)
    plain[BOX] = table[BOX]
    whole, searched = table.whole.to_numpy(bool), table.searched.to_numpy(bool)
    faceless = searched & table.x0.isna().to_numpy()
    plain["face"] = np.where(whole, "whole", np.where(faceless, "none", ""))
    plain[list(extra)] = table[list(extra)]
    return plain
