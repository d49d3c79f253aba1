"""Answers for photos of any kind as a table, one row a photo or face, and a competition's submission."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multihead.crops import BOX_DIGITS, Box
from multihead.evaluation import Classifier, check_classifier
from multihead.faces import Detector
from multihead.heads import HEADS, Head, base, joint_columns, size
from multihead.inputs import Item
from multihead.labels import marginals
from multihead.layouts import read_csv
from multihead.modes import Pins
from multihead.pipeline import Answer, answers
from multihead.sources import with_slashes
from multihead.splits import groups
from multihead.voting import person_vote, shared_heads

if TYPE_CHECKING:
    import pandas as pd

WAITING = 256  # rows that are written together
SHOWN = 5  # names of photos that are said


def predict(
    model: Classifier,
    source: object,
    *,
    faces: str | None = None,
    batch_size: int | None = None,
    missing: str = "full",
    finder: Detector | str | None = None,
    workers: int | None = None,
    draw: str | Path | None = None,
    pins: Pins = Pins(),
) -> pd.DataFrame:
    """A table of answers: path, box, face, a column per head, label, probabilities, error; in the order of the source.

    source: a path, folder, glob pattern, CSV, `Photos`, DataFrame, RGB array (H, W, 3) or (N, H, W, 3) (OpenCV's
    are BGR: array[:, :, ::-1]), torch tensor (3, H, W) or (N, 3, H, W), PIL picture, bytes, open file, or a list or
    generator of any of these; a generator is taken a few photos at a time. faces: "largest" or "central" gives a
    row a photo, "all" a row a face; by default the largest, searched only if the model's crops need it. batch_size:
    photos that are searched and answered together (default: up to 64 are searched, of a generator 16, and 16
    answered; on a GPU 64). missing: what a photo without a face gets where a crop needs one ("full": the whole
    photo is read, "skip": a row with an error, "error": an exception). finder: a detector, or the path of a YuNet
    .onnx file (default: MTCNN); the one that the training photos' boxes are of. workers: photos are answered in so
    many lanes (default: one a core, at most 8), which share the cores; 0: one, which reads nothing ahead. draw: a
    folder for copies of the photos with boxes and answers. pins: what is fixed of how passes are computed, as
    Pins("f32"); from 32 photos on the rest is what is fastest here, fewer are answered in f32.

    Columns: path is the photo's name as its source wrote it (answers of `Photos` join on their table's column `name`;
    on `path`, where two sources wrote one name for unlike photos and all are named by their paths); box is "x0 y0 x1
    y1" in pixels; face "none" where one was looked for in vain, "whole" where the source says so, so that the table,
    answered again, gives the same answers; label the number of the likeliest joint class, which the joint macro-F1
    counts; a head's own column is its likeliest class by itself, as its own F1 counts it. Of one multi-head model they
    always agree; a flat model's or a vote's likeliest whole need not consist of the likeliest parts
    (`multihead.decode(label)` has its parts). "mask:worn" and so on are the probabilities of each head, "joint:0" and
    so on the joint ones. A photo that cannot be read has a row with its reason.

    Raises: ValueError for an unknown `faces` or `missing`, or, with missing="error", a photo without a face.
    """
    check_classifier(model)
    rows = answers(
        model,
        source,
        faces=faces,
        batch_size=batch_size,
        missing=missing,
        finder=finder,
        workers=workers,
        draw=draw,
        pins=pins,
    )
    return table(rows, model.space)


def stream(model: Classifier, source: object, **options: Any) -> Iterator[dict[str, Any]]:
    """The rows of `predict` (same arguments, same columns) one by one as they are found, each {column: value}: NaN and
    None where there is no answer. Memory does not grow with the source.

    Of a generator the first 32 are waited for, and then as many as answer well together; with batch_size=1 and
    workers=0, as for a camera's frames, each photo is answered before the next is asked for, by what is fastest here
    however few there are.

    Raises: as `predict`, also on the way; TypeError, at once, for an argument that it has not.
    """
    inspect.signature(predict).bind(model, source, **options)
    rows = answers(model, source, **options)
    return ({name: cells[0] for name, cells in _columns([row], model.space).items()} for row in rows)


def person_voted(rows: Sequence[Answer], space: Sequence[Head]) -> list[Answer]:
    """The answers after the photos of each person, where the source knew them, have voted on gender and age.

    Raises: ValueError where no head of the space is gender or age.
    """
    answered = [number for number, row in enumerate(rows) if row.probs is not None]
    voted = list(rows)
    if answered:
        probs = np.stack([rows[number].probs for number in answered])  # type: ignore[misc]
        group = groups([rows[number].item.person for number in answered])
        for number, each in zip(answered, person_vote(probs, group, space, shared_heads(space))):
            voted[number] = replace(rows[number], probs=each)
    return voted


def table(rows: Iterator[Answer] | Sequence[Answer], space: Sequence[Head]) -> pd.DataFrame:
    """The answers as a DataFrame; see `predict` for its columns."""
    import pandas as pd

    columns = _columns(list(rows), space)
    kinds = {name: "float64" for name in columns if ":" in name} | {"label": "Int64"}
    return pd.DataFrame(columns).astype(kinds)  # also where there are no rows


def _columns(rows: Sequence[Answer], space: Sequence[Head]) -> dict[str, list[Any]]:
    """The cells of the answers' table by column."""
    number = size(space)
    answered = np.array([row.probs is not None for row in rows], bool)
    probs = np.stack(
        [row.probs if row.probs is not None else np.full(number, np.nan) for row in rows] or [np.empty(number)]
    )
    probs = probs[: len(rows)]
    columns: dict[str, Any] = {"path": [row.item.name for row in rows], "box": [box_text(row.box) for row in rows]}
    columns["face"] = [_face(row) for row in rows]
    parts = marginals(probs, space)
    for head in space:
        best = np.nan_to_num(parts[head.name]).argmax(1)
        columns[head.name] = [head.classes[index] if there else "" for index, there in zip(best, answered)]
    likeliest = np.nan_to_num(probs).argmax(1).tolist()
    columns["label"] = [label if there else None for label, there in zip(likeliest, answered)]
    for head in space:
        wide = parts[head.name].T.tolist()
        columns |= {f"{head.name}:{name}": cells for name, cells in zip(head.classes, wide, strict=True)}
    columns |= dict(zip(joint_columns(space), probs.T.tolist(), strict=True))
    columns["error"] = [row.error for row in rows]
    return columns


@dataclass
class Tally:
    """What a table of answers holds: its rows, those without an answer, and photos that were read whole for want of a
    face, the first of them by name."""

    rows: int = 0
    failed: int = 0
    faceless: int = 0
    names: list[str] = field(default_factory=list)

    def count(self, row: Answer) -> None:
        """Count a row."""
        self.add(row.item.name, row.probs is not None, row.box is None and not row.item.whole)

    def add(self, name: str, answered: bool, lacks_face: bool) -> None:
        """Count a row of the photo of this name."""
        self.rows += 1
        self.failed += not answered
        if answered and lacks_face:
            self.faceless += 1
            if len(self.names) < SHOWN:
                self.names.append(name)


def write_table(
    rows: Iterable[Answer], space: Sequence[Head], write: Callable[[str], object], tally: Tally | None = None
) -> Tally:
    """Write the answers as CSV while they come, as `table` would hold them; what was counted on the way. Rows that came
    before an error are written. tally: of a table that is gone on with, counted further."""
    tally, waiting = tally or Tally(), list[Answer]()

    def flush() -> None:
        if waiting:
            write(table(waiting, space).to_csv(index=False, header=tally.rows == len(waiting)))
        waiting.clear()

    try:
        for row in rows:
            tally.count(row)
            waiting.append(row)
            if len(waiting) == WAITING:
                flush()
    finally:
        flush()
    return tally


def _face(row: Answer) -> str:
    """What tables of photos say of a face that has no box."""
    if row.item.whole:
        return "whole"
    return "none" if row.item.searched and row.box is None else ""


def box_text(box: Box | None) -> str:
    """A box as "x0 y0 x1 y1", "" for none."""
    return "" if box is None else " ".join(f"{value:.{BOX_DIGITS}f}" for value in box)


def submission(
    model: Classifier,
    info: str | Path,
    images: str | Path | None = None,
    *,
    batch_size: int | None = None,
    finder: Detector | str | None = None,
    workers: int | None = None,
    pins: Pins = Pins(),
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """(every row of a competition's info.csv in its order with `ans` filled in, [(ImageID, reason)] of the photos that
    could not be read and got the likeliest class of the training photos).

    images: the folder of the photos; by default images/ beside the file, or the file's own folder. The other arguments
    are those of `predict`.

    Raises: KeyError where there is no ImageID column; FileNotFoundError for a folder that is not there; ValueError
    where the model has other heads than the competition, or a photo cannot be read and it knows no training prior.
    """
    check_classifier(model)
    if [(head.name, head.classes) for head in base(model.space)] != [(head.name, head.classes) for head in HEADS]:
        raise ValueError(
            f"the competition's classes are those of {', '.join(head.name for head in HEADS)}, in this order; "
            f"this model answers for {', '.join(head.name for head in base(model.space))}"
        )
    if images is not None and not Path(images).is_dir():
        raise FileNotFoundError(f"no such folder of photos: {images}")
    info = Path(info)
    listed = read_csv(info)
    if "ImageID" not in listed:
        raise KeyError(f"{info} has columns {list(listed.columns)}; expected ImageID, as in the competition's info.csv")
    folder = Path(images) if images else info.parent / "images"
    folder = folder if folder.is_dir() else info.parent
    named = with_slashes(listed.ImageID.tolist(), folder)
    photos = [Item(str(folder / name), folder / name) for name in named]  # a row each, whatever is there
    options: Any = {"batch_size": batch_size, "finder": finder, "workers": workers, "pins": pins}
    rows = list(answers(model, photos, **options))
    unread = [(name, row.error) for name, row in zip(listed.ImageID, rows) if row.probs is None]
    known = getattr(model, "prior", None)
    if unread and known is None:
        raise ValueError(
            f"{unread[0][1]}; the model knows no training prior to answer with: train it with multihead.fit"
        )
    fallback = int(np.argmax(known)) if known is not None else 0
    listed["ans"] = [fallback if row.probs is None else int(row.probs.argmax()) for row in rows]
    return listed[["ImageID", "ans"]], unread
