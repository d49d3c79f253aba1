"""What the folder of a comparison says: its summary, what its arms differ in, and how each answered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multihead.crossval import read_answers
from multihead.data import Photos
from multihead.findings import Row, rows_of, text_of
from multihead.heads import HEADS, Head
from multihead.metrics import Scores, score
from multihead.reading import read

if TYPE_CHECKING:
    import pandas as pd

# an arm's name as it stands: "None" is no missing value, "0.10" no number
AS_WRITTEN: Mapping[str, Any] = {"dtype": {"arm": str}, "keep_default_na": False, "na_values": [""]}


@dataclass(frozen=True)
class Comparison:
    """summary: rows of `paired.compare`; settings: {arm: {name: value}}; seconds: {arm: of each run}; curves: {arm: the
    rows of each run}; scores: {arm: of each seed, over the folds}, empty where the photos are not known; groups: (n,)
    person of each scored row; pictures: {name: PNG}."""

    summary: pd.DataFrame
    settings: Mapping[str, Mapping[str, object]]
    seconds: Mapping[str, Sequence[float]]
    curves: Mapping[str, Sequence[Sequence[Row]]]
    scores: Mapping[str, Sequence[Scores]]
    photos: Photos | None
    pictures: Mapping[str, bytes]
    notes: tuple[str, ...] = ()


def of_comparison(folder: Path, photos: Photos | None) -> Comparison:
    """What a comparison folder says; photos: the rows that its answers count, by default its photos.csv.

    Raises: ValueError where answers name rows that the photos do not have.
    """
    import pandas as pd

    summary, notes = pd.read_csv(folder / "summary.csv", **AS_WRITTEN), []
    arms = list(dict.fromkeys(summary.arm))
    cells = {arm: _counted(folder, arm) for arm in arms}
    names = [metric.removesuffix("_f1") for metric in dict.fromkeys(summary.metric) if metric != "macro_f1"]
    known = {head.name: head for head in (HEADS if photos is None else photos.heads)}
    heads = tuple(known[name] for name in names if name in known)
    if photos is None and (folder / "photos.csv").is_file() and len(heads) == len(names):
        photos = read(folder / "photos.csv", heads=heads)
    if photos is None or len(heads) < len(names):
        notes.append(
            "The folder has no photos.csv of known heads: confusions, slices and counts, which need it, are left out."
        )
        photos = None
    found = {} if photos is None else {arm: _by_seed(arm, cells[arm], photos, heads) for arm in arms}
    pictures = {
        name: (folder / name).read_bytes() for name in ("curves.png", "differences.png") if (folder / name).is_file()
    }
    curves = {arm: [rows_of(cell / "curve.csv") for cell in cells[arm]] for arm in arms}
    seconds = {arm: [float(sum(row["seconds"] for row in rows)) for rows in curves[arm]] for arm in arms}
    settings = {arm: _arm_settings(cells[arm]) for arm in arms}
    return Comparison(summary, settings, seconds, curves, found, photos, pictures, tuple(notes))


def _counted(folder: Path, arm: str) -> list[Path]:
    """The runs of an arm that the summary counts: an earlier or unfinished call may have left more."""
    import pandas as pd

    cells = sorted(path.parent for path in (folder / "runs" / arm).glob("*/answers.npz"))
    if not (folder / "times.csv").is_file():
        return cells
    rows = pd.read_csv(folder / "times.csv", **AS_WRITTEN)
    counted = {f"fold{row.fold}-seed{row.seed}" for row in rows[rows.arm == arm].itertuples()}
    return [cell for cell in cells if cell.name in counted]


def _by_seed(arm: str, cells: Sequence[Path], photos: Photos, heads: Sequence[Head]) -> list[Scores]:
    """The scores of each seed of an arm, over its folds."""
    labels, columns = photos.labels(heads), {"source": photos.table.source.to_numpy()}
    by_seed: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for cell in cells:
        by_seed.setdefault(cell.name.partition("-")[2], []).append(read_answers(cell))
    found = []
    for parts in by_seed.values():
        rows, probs = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
        if rows.max(initial=-1) >= len(photos):
            raise ValueError(
                f"arm {arm!r} answers row {rows.max()} of {len(photos)} photos; expected the comparison's own"
            )
        slices = {name: column[rows] for name, column in columns.items()}
        found.append(score(probs, labels[rows], heads, slices))
    return found


def _arm_settings(cells: Sequence[Path]) -> dict[str, object]:
    """The settings of an arm, from its first run; an object as text, as "Focal(gamma=2.0)"."""
    text = text_of(cells[0] / "cell.json") if cells else ""
    content = json.loads(text) if text else {}
    plain = {"rows": content.get("rows", "all"), **content.get("about", {}), **content.get("recipe", {})}
    return {name: spelled(value) for name, value in plain.items() if name != "seed"}


def spelled(value: Any) -> str:
    """A setting that was made plain, as text.

    >>> spelled({"age": {"name": "Focal", "gamma": 2.0}}), spelled([1, 2]), spelled(None)
    ('age: Focal(gamma=2.0)', '1, 2', 'None')
    """
    if isinstance(value, dict) and "name" in value:
        return f"{value['name']}({', '.join(f'{k}={spelled(v)}' for k, v in value.items() if k != 'name')})"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {spelled(part)}" for key, part in value.items())
    return ", ".join(map(spelled, value)) if isinstance(value, (list, tuple)) else str(value)
