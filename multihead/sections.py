"""The parts of a report that follow from answered photos: scores with intervals, confusions, slices, calibration."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multihead import pages, paired, plots
from multihead.calibrate import calibration_errors, reliabilities
from multihead.data import Photos
from multihead.findings import Answered, Row
from multihead.heads import joint_names
from multihead.labels import encode, marginals
from multihead.metrics import Confusion, Scores, selection_of
from multihead.pages import Markup, paragraph
from multihead.persons import agreement, class_intervals

RESAMPLES = paired.RESAMPLES  # a page says what scores.csv says
LEVELS = 20  # slices of a column that are shown: the largest
INTERVAL = (
    f"Intervals hold 95 % of {RESAMPLES:,} draws of as many people, with replacement: they say how far a score would "
    "move with other people, not with another training."
)

HEAT = "Labels in rows, answers in columns; a stronger colour is a larger share of the row, blue right, orange wrong."


def drawn(draw: Callable[[Path], None]) -> bytes:
    """The PNG that `draw` writes to the path it is given."""
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder) / "picture.png")
        return (Path(folder) / "picture.png").read_bytes()


def settings(found: Mapping[str, object]) -> list[Markup]:
    """A table of settings."""
    if not found:
        return [paragraph("The folder has no args.yaml: it was not made by the command line.")]
    rows = [[name, _words(value)] for name, value in found.items()]
    return [
        pages.folded(f"{len(rows)} settings", pages.table(["setting", "value"], rows, text=2), shown=len(rows) < 15)
    ]


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def counts(parts: Mapping[str, Photos]) -> list[Markup]:
    """Photos and named people of each class, in each part."""
    if not parts:
        return [paragraph("The folder does not say which photos it read.")]
    frames = {name: photos.counts() for name, photos in parts.items()}
    columns = ["head", "class", *(f"{name}: {what}" for name in parts for what in ("photos", "people"))]
    first = next(iter(frames.values()))
    rows = [
        [head, name, *(int(frame[what].iloc[place]) for frame in frames.values() for what in ("photos", "people"))]
        for place, (head, name) in enumerate(zip(first["head"], first["class"]))
    ]
    totals = "; ".join(
        f"{name} {len(photos)} photos of {len(set(photos.people) - {''})} named people"
        for name, photos in parts.items()
    )
    joint = pages.folded("Counts by joint class", _joint_counts(parts))
    return [paragraph(totals[0].upper() + totals[1:] + "."), pages.table(columns, rows, text=2), joint]


def _joint_counts(parts: Mapping[str, Photos]) -> Markup:
    heads = next(iter(parts.values())).heads
    cells: dict[str, tuple[np.ndarray, np.ndarray]] = {
        name: (encode(photos.labels(heads), heads), np.array(photos.people, object)) for name, photos in parts.items()
    }
    rows: list[list[object]] = []
    for number, name in enumerate(joint_names(heads)):
        row: list[object] = [f"{number} {name}"]
        for joint, people in cells.values():
            row += [int((joint == number).sum()), len(set(people[joint == number]) - {""})]
        rows.append(row)
    columns = ["joint class", *(f"{name}: {what}" for name in parts for what in ("photos", "people"))]
    return pages.table(columns, rows)


def curves(runs: Mapping[str, Sequence[Row]]) -> list[Markup]:
    """Pictures of the loss and of the scores over the epochs: of one run its columns, of several a line each."""
    parts = []
    for what, last in (("loss", "loss"), ("score on the validation photos", "f1")):
        series = _series(runs, last)
        ends = ", ".join(f"{name} {pages.number(values[-1])}" for name, values in series.items())
        if any(np.isfinite(values[:-1]).any() for values in series.values()):
            lines = {name: [values] for name, values in series.items()}
            image = drawn(lambda path, lines=lines, what=what: _curves(path, lines, what))  # type: ignore[misc]
            parts.append(pages.picture(image, f"{what} by epoch; at the end: {ends}", f"At the end: {ends}."))
        elif series:
            parts.append(paragraph(f"The {what} was taken once, at the end: {ends}."))
    return parts or [paragraph("The folder has no metrics.csv with epochs.")]


def _curves(path: Path, lines: Mapping[str, Sequence[Sequence[float]]], what: str) -> None:
    plots.curves(path, lines, title=what.capitalize(), ylabel=what.split()[0])


def _series(runs: Mapping[str, Sequence[Row]], last: str) -> dict[str, list[float]]:
    """{column: its values of epochs 1, 2, ...} of the columns of one run that end so; of several runs the loss, or the
    score that an epoch is chosen by, of each."""
    if len(runs) == 1:
        (rows,) = runs.values()
        found = {name: [float(row[name]) for row in rows] for name in rows[0] if f"_{name}".endswith(f"_{last}")}
    else:
        one: Callable[[Row], float] = selection_of if last == "f1" else lambda row: float(row.get(last, math.nan))
        found = {run: [one(row) for row in rows] for run, rows in runs.items()}
    return {name: values for name, values in found.items() if np.isfinite(values).any()}


def summary(answered: Answered) -> list[Markup]:
    """Macro-F1 with its interval and accuracy, joint and of each head."""
    found, groups = answered.scores, answered.photos.groups()
    frame = paired.compare({"": [found.probs]}, found.labels, groups, found.table, resamples=RESAMPLES)
    parts: dict[str, Confusion] = {"macro_f1": found.joint} | {f"{name}_f1": head for name, head in found.heads.items()}
    rows = [
        [
            f"all {len(found.joint.classes)} classes"
            if row["metric"] == "macro_f1"
            else row["metric"].removesuffix("_f1"),
            *(float(row[name]) for name in ("mean", "mean_low", "mean_high")),
            pages.bar(row["mean"], row["mean_low"], row["mean_high"]),
            parts[row["metric"]].accuracy,
            *(int(row[name]) for name in ("rows", "people")),
        ]
        for row in frame.to_dict("records")
    ]
    columns = ["question", "macro-F1", "from", "to", pages.SPAN, "accuracy", "photos", "people"]
    return [pages.table(columns, rows), paragraph(INTERVAL, "soft")]


def confusions(found: Scores) -> list[Markup]:
    """The confusion of the joint classes and of each head, as heat maps."""
    parts = [paragraph(HEAT, "soft")]
    for name, head in found.heads.items():
        parts += [pages.heading(name), _heat(head)]
    return [*parts, pages.heading(f"All {len(found.joint.classes)} classes"), _heat(found.joint)]


def _heat(part: Confusion) -> Markup:
    if not part.n:
        return paragraph("No photo has this label.")
    return pages.heat_map(part.classes, part.counts, caption=f"{part.n} photos")


def classes(answered: Answered) -> list[Markup]:
    """Precision, recall and F1 of each class, with the interval of its F1."""
    found, groups = answered.scores, answered.photos.groups()
    marginal = marginals(found.probs, found.table)
    asked = {
        head.name: (found.heads[head.name], found.labels[:, i], marginal[head.name])
        for i, head in enumerate(found.table)
    }
    asked[f"All {len(found.joint.classes)} classes"] = (found.joint, encode(found.labels, found.table), found.probs)
    parts = []
    for name, (confusion, labels, probs) in asked.items():
        ends = class_intervals(groups, labels, probs.argmax(1), len(confusion.classes), resamples=RESAMPLES)
        frame = confusion.table().reset_index()
        people = [len(np.unique(groups[labels == number])) for number in range(len(frame))]
        rows = [
            [row["class"], *ends[at], pages.bar(*ends[at]), row["precision"], row["recall"], int(row["n"]), people[at]]
            for at, row in enumerate(frame.to_dict("records"))
        ]
        columns = ["class", "F1", "from", "to", pages.SPAN, "precision", "recall", "photos", "people"]
        parts += [pages.heading(name), pages.table(columns, rows)]
    return [*parts, paragraph(INTERVAL, "soft")]


def slices(found: Scores) -> list[Markup]:
    """Scores of the photos of each true class of each head, and of each source or fold where there are several."""
    parts = []
    for name in [*(head.name for head in found.table), "source", "fold"]:
        if name in ("source", "fold") and len(set(found.slices.get(name, ()))) < 2:
            continue
        levels = {level: part for level, part in found.by(name).items() if len(part.labels)}
        largest = sorted(levels, key=lambda level: -len(levels[level].labels))[:LEVELS]
        rows = [_slice(level, levels[level], name) for level in levels if level in largest]
        columns = [name, "photos", "macro-F1", "accuracy", *(f"{head.name} macro-F1" for head in found.table)]
        parts += [pages.heading(f"By {name}"), pages.table(columns, rows)]
        if len(levels) > LEVELS:
            parts.append(paragraph(f"The {LEVELS} largest of {len(levels)}.", "soft"))
    text = (
        "Macro-F1 and accuracy without a head's name are those of the joint classes, on photos whose heads are all "
        "known. A slice by a head's own class has no macro-F1 of that head."
    )
    return [*parts, paragraph(text, "soft")]


def _slice(level: str, part: Scores, name: str) -> list[object]:
    heads = [float("nan") if head == name else found.f1 for head, found in part.heads.items()]
    return [level, len(part.labels), part.f1, part.accuracy, *heads]


def calibration(found: Scores) -> list[Markup]:
    """The reliability picture and the expected calibration error, joint and of each head."""
    errors = calibration_errors(found.probs, found.labels, found.table)
    bins: dict[str, Any] = {
        name: part for name, part in reliabilities(found.probs, found.labels, found.table).items() if part[2].any()
    }
    if not bins:
        return [paragraph("No photo has a label to compare the confidence with.")]
    image = drawn(lambda path: plots.reliability(path, bins, title="Confidence and accuracy"))
    rows = [[name, int(part[2].sum()), errors[name]] for name, part in bins.items()]
    alt = "accuracy by confidence, joint and of each head; " + ", ".join(f"{row[0]} error {row[2]:.3f}" for row in rows)
    caption = "Right answers among photos of like confidence: below the diagonal the model is too sure."
    return [pages.table(["question", "photos", "expected calibration error"], rows), pages.picture(image, alt, caption)]


def agreements(answered: Answered) -> list[Markup]:
    """How far the photos of one person get one answer."""
    found = answered.scores
    frame = agreement(answered.photos.people, found.labels, found.probs, found.table)
    counted = frame[frame.people > 0]
    if counted.empty:
        return [
            paragraph("No person is known to be on two photos with the same label, so there is nothing to compare.")
        ]
    rows = [
        [row["head"], int(row["people"]), int(row["photos"]), row["unanimous"], row["majority"]]
        for row in counted.to_dict("records")
    ]
    columns = [
        "head",
        "people",
        "photos",
        "people whose photos all get one answer",
        "mean share of a person's commonest answer",
    ]
    left = [name for name in frame["head"] if name not in set(counted["head"])]
    text = "Counted are people with two photos or more that carry the same label."
    text += f" No person has such photos for {', '.join(left)}." if left else ""
    return [pages.table(columns, rows), paragraph(text, "soft")]
