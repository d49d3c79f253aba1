"""A model as a teacher: labels that it is sure of, and all its answers, as columns of the photos' table.

Pseudo labels of the very photos that a model is scored on later are leakage, whatever labels they carry: in production
the test photos are the future. Label other photos (an unlabelled collection, the unknown heads of a partly labelled
one), and add them to the training photos only; validation and scoring refuse them (see
`multihead.pseudo.check_not_pseudo`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from multihead.batches import PhotoSet
from multihead.boxes import locate_faces
from multihead.cells import warn
from multihead.data import Photos
from multihead.evaluation import Classifier, answers
from multihead.heads import JOINT, UNKNOWN, Head, base, joint_columns, size
from multihead.labels import marginals
from multihead.options import choice, near
from multihead.pseudo import PSEUDO, SPACE, provenance, space_text
from multihead.recipe import MISSING
from multihead.speed import keep_memory

ROUNDING = 1e-3  # how far from one a row of written probabilities may sum


def pseudo_label(
    model: Classifier,
    photos: Photos,
    thresholds: Mapping[str, float | Sequence[float]],
    *,
    batch_size: int = 64,
    workers: int = 2,
    missing: str = "full",
) -> Photos:
    """The photos with unknown labels filled in where the model is sure: a head's largest probability reaches its
    threshold.

    thresholds: {head: one number, or one per class}, as {"gender": .9, "mask": (.5, .95, .95)}; other heads are left
    alone. Known labels (years too) never change, nor do photos that cannot be read or, with missing="skip", have no
    face. An age is filled in as its band. The text column "pseudo" names the heads that were filled in, "" for none,
    and keeps what an earlier round wrote; start from the photos as they were read to label them anew.

    Not for photos that are scored later: their labels would be the model's own answers about the test, and in
    production the test photos are the future.

    Raises: ValueError for no or an unknown head, a threshold outside 0..1, or not one per class; TypeError for one
    number for all heads; KeyError for a head that the photos were not read for.
    """
    limits = _limits(model.space, thresholds)
    heads = [head for head in model.space if head.name in limits]
    labels = photos.labels(heads)  # (N, heads)
    todo = np.flatnonzero((labels == UNKNOWN).any(1))
    rows, probs = _ask(model, photos, todo, batch_size=batch_size, workers=workers, missing=missing)
    parts, columns, words = marginals(probs, model.space), {}, [text.split() for text in provenance(photos)]
    for column, head in enumerate(heads):
        best = parts[head.name].argmax(1)
        sure = parts[head.name].max(1) >= limits[head.name][best]
        filled = sure & (labels[rows, column] == UNKNOWN)
        columns[head.name] = labels[:, column].copy()
        columns[head.name][rows[filled]] = best[filled]
        for row in rows[filled]:
            words[row].append(head.name)
    return photos.with_columns(**columns, **{PSEUDO: [" ".join(dict.fromkeys(names)) for names in words]})


def soften(
    model: Classifier, photos: Photos, *, batch_size: int = 64, workers: int = 2, missing: str = "full"
) -> Photos:
    """The photos with the model's joint probabilities as text columns "joint:0", "joint:1", ..., the soft labels of
    distillation; blank where a photo cannot be read or, with missing="skip", has no face. The column "joint" names the
    heads and classes that they are of.

    The photos may be read for any heads. Answers of an earlier teacher are replaced.

    Source: Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network, arXiv:1503.02531.

    Raises: ValueError for an unknown `missing`, or, with missing="error", a photo without a face.
    """
    rows, probs = _ask(model, photos, np.arange(len(photos)), batch_size=batch_size, workers=workers, missing=missing)
    cells = np.full((len(photos), size(model.space)), "", object)
    for row, answer in zip(rows, probs.tolist()):
        cells[row] = [f"{share:.6g}" for share in answer]
    told = np.full(len(photos), "", object)
    told[rows] = space_text(model.space)
    columns = {SPACE: told} | dict(zip(joint_columns(model.space), cells.T, strict=True))
    table = photos.table.drop(columns=[*_joint_columns(photos), SPACE], errors="ignore")
    return Photos(table.assign(**columns), photos.heads)


def is_taught(photos: Photos) -> bool:
    """Whether any of the photos carries a teacher's answer."""
    columns = _joint_columns(photos)
    return bool(columns) and bool(photos.table[columns[0]].fillna("").astype(str).str.strip().any())


def soft_rows(photos: Photos, space: Sequence[Head]) -> np.ndarray:
    """Joint probabilities (N, K) float32 from the columns that `soften` wrote, or `predict` without its label; NaN in
    rows that have none, and in all rows where the columns are not there. A teacher whose heads or classes stand in
    another order is read in the order of `space`.

    Raises: ValueError where the columns are not those of the joint space, or a row is not K probabilities that sum to
    about one, naming its photo.
    """
    space = base(space)
    wanted, there = joint_columns(space), _joint_columns(photos)
    rows = np.full((len(photos), len(wanted)), np.nan, np.float32)
    if not there:
        return rows
    if set(there) != set(wanted):
        raise ValueError(
            f"photos have {len(there)} columns of joint probabilities ({there[0]} to {there[-1]}), the heads "
            f"{[head.name for head in space]} {len(wanted)} joint classes; use a teacher of the same heads"
        )
    for row, cells in enumerate(photos.table[wanted].to_numpy(object)):
        if any(str(cell).strip() for cell in cells):
            rows[row] = _probabilities(cells, photos.table["name"].iloc[row])
    if SPACE in photos.table:
        told = photos.table[SPACE].fillna("").astype(str).str.strip().to_numpy(object)
        for text in set(told) - {"", space_text(space)}:
            rows[told == text] = rows[told == text][:, _places(text, space)]
    return rows


def _places(text: str, space: Sequence[Head]) -> np.ndarray:
    """Where a teacher's joint probabilities have each class (K,) of a space."""
    try:
        teacher = {str(name): [str(one) for one in classes] for name, classes in json.loads(text)}
    except (ValueError, TypeError):
        raise ValueError(
            f"the column {SPACE!r} of the soft labels says {text!r}; expected {space_text(space)!r}"
        ) from None
    if {name: sorted(own) for name, own in teacher.items()} != {head.name: sorted(head.classes) for head in space}:
        own = ", ".join(f"{name} ({', '.join(classes)})" for name, classes in teacher.items())
        ours = ", ".join(f"{head.name} ({', '.join(head.classes)})" for head in space)
        raise ValueError(f"the soft labels are of a teacher of {own}, the heads are {ours}; use a teacher of the same")
    names = list(teacher)
    places = np.arange(size(space)).reshape([len(own) for own in teacher.values()])
    places = places.transpose([names.index(head.name) for head in space])
    for axis, head in enumerate(space):
        places = places.take([teacher[head.name].index(name) for name in head.classes], axis)
    return places.ravel()


def _ask(
    model: Classifier, photos: Photos, rows: np.ndarray, *, batch_size: int, workers: int, missing: str
) -> tuple[np.ndarray, np.ndarray]:
    """(those of the rows (n,) that the model can answer, their joint probabilities (n, K)); warns of the unreadable."""
    choice("teaching", "missing", missing, MISSING)
    asked = photos[rows].with_columns(**{":row": rows})  # "skip" leaves rows out: each keeps its number
    keep_memory()
    asked = locate_faces(asked, model.crops, missing=missing).photos
    held = PhotoSet(asked, (), model.crops)
    found, probs, unreadable = answers(model, held, range(len(held)), batch_size=batch_size, workers=workers)
    warn("teaching", [reason for _, reason in unreadable], "photos could not be read and got no answer")
    return asked.table[":row"].to_numpy(np.int64)[found], probs


def _limits(space: Sequence[Head], thresholds: Mapping[str, float | Sequence[float]]) -> dict[str, np.ndarray]:
    """The thresholds {head: (C,)}, checked."""
    heads, limits = {head.name: head for head in space}, {}
    if not isinstance(thresholds, Mapping):
        raise TypeError(f"thresholds are {thresholds!r}; expected one a head, as {{{space[0].name!r}: 0.9}}")
    if not thresholds:
        raise ValueError(
            f"thresholds are empty; expected one for some of the heads {list(heads)}, as {{'gender': 0.9}}"
        )
    for name, value in thresholds.items():
        if name not in heads:
            hint = near(name, heads, 0.6) or f"; the model answers {list(heads)}"
            raise ValueError(f"thresholds name {name!r}, which is no head of the model{hint}")
        count = len(heads[name].classes)
        each = np.full(count, value, float) if np.ndim(value) == 0 else np.array(value, float)
        if each.shape != (count,) or not ((each >= 0) & (each <= 1)).all():
            raise ValueError(f"threshold of head {name!r} is {value!r}; expected a number 0 to 1, or {count} of them")
        limits[name] = each
    return limits


def _probabilities(cells: np.ndarray, name: str) -> np.ndarray:
    """The cells of one photo as probabilities (K,) that sum to one."""
    try:
        answer = np.array([float(str(cell)) for cell in cells])
    except ValueError:
        answer = np.full(len(cells), np.nan)  # a word, or a blank among numbers
    if not ((answer >= 0).all() and abs(answer.sum() - 1) <= ROUNDING):  # false for NaN and infinity too
        raise ValueError(
            f"{name}: its soft labels are {', '.join(map(str, cells))}; "
            f"expected {len(cells)} probabilities that sum to one, or blanks in all columns {JOINT}0 and so on"
        )
    return answer / answer.sum()


def _joint_columns(photos: Photos) -> list[str]:
    return [column for column in photos.table.columns if str(column).startswith(JOINT)]
