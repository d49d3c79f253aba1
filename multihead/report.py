"""One page of HTML on a run, on folds or on a comparison: scores with intervals, slices, calibration, errors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multihead import pages, plots, sections
from multihead.compared import Comparison, of_comparison
from multihead.data import Photos
from multihead.files import check_writable, write_text
from multihead.findings import Findings, kind_of, of_folds, of_run
from multihead.metrics import Scores, selection_of
from multihead.mistakes import error_cards
from multihead.pages import Markup, paragraph

TITLES = {"run": "Training run", "folds": "Folds", "comparison": "Comparison"}


def report(
    folder: str | Path,
    out: str | Path | None = None,
    *,
    photos: Photos | None = None,
    errors: int = 24,
    maps: bool = True,
    device: Any = "cpu",
    batch_size: int = 64,
    workers: int = 2,
) -> Path:
    """The page that was written, one HTML file with its pictures, on a folder of `multihead train`, `folds`, `compare`.

    out: the file (default: report.html in the folder). photos: for a run, what its model answers in place of its
    validation photos; for folds and a comparison, their table of photos with paths as they are now. errors: how many
    of the surest wrong answers to show. maps: show where the model looked. What a folder does not hold is left out,
    and the page says so.

    Raises: FileNotFoundError for a folder of neither kind, ValueError for files that do not fit each other, errors < 0.
    """
    folder = Path(folder)
    if errors < 0:
        raise ValueError(f"errors={errors}; expected how many wrong answers to show, 0 or more")
    kind = kind_of(folder)
    target = folder / "report.html" if out is None else Path(out)
    check_writable(target)
    title = f"{TITLES[kind]} {folder.resolve().name}"
    if kind == "comparison":
        found = of_comparison(folder, photos)
        write_text(target, pages.page(title, _notes(found.notes), _comparison(found)))
        return target
    options = {"device": device, "batch_size": batch_size, "workers": workers}
    said = of_folds(folder, photos) if kind == "folds" else of_run(folder, photos, **options)
    shown = error_cards(said.answered, errors, maps=maps, device=device) if said.answered and errors else []
    lead = [*_notes(said.notes), *_headline(said)]
    write_text(target, pages.page(title, lead, _answered(said, shown)))
    return target


def _notes(texts: Sequence[str]) -> list[Markup]:
    return [paragraph(text, "note") for text in texts]


def _headline(said: Findings) -> list[Markup]:
    """What the page is about, in a sentence."""
    if said.answered is None:
        return []
    scores, what = said.answered.scores, "photos that the model did not see in training" if said.unseen else "photos"
    value, name = scores.selection
    text = "macro-F1 over all classes" if name == "macro_f1" else "mean macro-F1 of the heads"
    return [paragraph(f"{pages.number(value)} {text}, on {len(scores.labels)} {what}.")]


def _answered(said: Findings, shown: Sequence[Markup]) -> dict[str, Sequence[Markup]]:
    """The sections of a run or of folds."""
    settings, photos = sections.settings(said.settings), sections.counts(said.parts)
    curves, answered = sections.curves(said.curves), said.answered
    if answered is None:
        written = _written(said.written)
        return {"Scores": written, "Settings": settings, "Photos": photos, "Learning curves": curves}
    return {
        "Scores": sections.summary(answered),
        "Settings": settings,
        "Photos": photos,
        "Learning curves": curves,
        "Confusion": sections.confusions(answered.scores),
        "Classes": sections.classes(answered),
        "Slices": sections.slices(answered.scores),
        "Calibration": sections.calibration(answered.scores),
        "One person's photos": sections.agreements(answered),
        "Surest errors": shown or [paragraph("None were asked for.")],
    }


def _written(scores: Mapping[str, Any]) -> list[Markup]:
    """The scores of metrics.json, where nothing could be answered anew."""
    if not scores:
        return [paragraph("The folder holds no scores.")]
    parts = {"all classes": scores, **scores["heads"]}
    rows = [[name, part["n"], part["macro_f1"], part["accuracy"]] for name, part in parts.items()]
    table = pages.table(["question", "photos", "macro-F1", "accuracy"], rows)
    return [paragraph("As the run wrote them when it ended:"), table]


# ---- a comparison


def _comparison(found: Comparison) -> dict[str, Sequence[Markup]]:
    parts: dict[str, Sequence[Markup]] = {
        "Summary": [
            *_summary(found),
            *_picture(found, "differences.png", "differences to the first arm with intervals"),
        ],
        "What differs": _differing(found.settings),
        "Learning curves": _curves(found),
        "Time": _times(found.seconds),
    }
    if found.photos is not None:
        parts |= {
            "Photos": sections.counts({"all photos": found.photos}),
            "Classes": _classes(found.scores),
            "Slices": _slices(found.scores),
            "Confusion": [paragraph(sections.HEAT, "soft")]
            + [part for arm, seeds in found.scores.items() for part in _confusions(arm, seeds)],
        }
    return parts


def _picture(found: Comparison, name: str, alt: str) -> list[Markup]:
    return [pages.picture(found.pictures[name], alt, alt[0].upper() + alt[1:] + ".")] if name in found.pictures else []


def _summary(found: Comparison) -> list[Markup]:
    """The score of each arm, and its difference to the first with its interval."""
    cells = {(row["arm"], row["metric"]): row for row in found.summary.to_dict("records")}
    arms, metrics = list(dict.fromkeys(found.summary.arm)), list(dict.fromkeys(found.summary.metric))
    columns, rows = ["arm"], [[arm] for arm in arms]
    for metric in metrics:
        columns += [metric, "difference"]
        for arm, row in zip(arms, rows):
            cell = cells[arm, metric]
            row += [float(cell["mean"]), "" if arm == arms[0] else _difference(cell)]
    sizes = "; ".join(f"{m}: {cells[arms[0], m]['rows']} photos, {cells[arms[0], m]['people']} people" for m in metrics)
    text = (
        f"Differences are to {arms[0]}, with intervals that hold 95 % of resampled people; one that does not hold zero "
        f"is not explained by the people asked. {sizes}."
    )
    return [pages.table(columns, rows), paragraph(text, "soft")]


def _difference(cell: Mapping[Any, Any]) -> str:
    if not math.isfinite(cell["difference"]):
        return "–"
    text = f"{cell['difference']:+.3f}"
    return text + (f" [{cell['low']:+.3f}, {cell['high']:+.3f}]" if math.isfinite(cell["low"]) else "")


def _differing(settings: Mapping[str, Mapping[str, object]]) -> list[Markup]:
    """The settings that are not the same for all arms, and the others behind a line."""
    names = list(dict.fromkeys(name for own in settings.values() for name in own))
    texts = {name: [str(own.get(name, "–")) for own in settings.values()] for name in names}
    unlike = [name for name in names if len(set(texts[name])) > 1]
    same = pages.table(["setting", "value"], [[name, texts[name][0]] for name in names if name not in unlike], text=2)
    rows = [[name, *texts[name]] for name in unlike]
    table = pages.table(["setting", *settings], rows, text=len(settings) + 1)
    first = table if unlike else paragraph("The kept settings of the arms are the same.")
    return [first, pages.folded("Settings that all arms share", same)]


def _curves(found: Comparison) -> list[Markup]:
    """The score by epoch, as the comparison drew it or drawn anew."""
    alt = "learning curves of the arms, on photos not trained on"
    if "curves.png" in found.pictures:
        return _picture(found, "curves.png", alt)
    runs = {
        arm: [[selection_of(dict(row)) for row in rows] for rows in each] for arm, each in found.curves.items() if each
    }
    if not runs:
        return [paragraph("The folder holds no curves.")]
    image = sections.drawn(lambda path: plots.curves(path, runs, title="Learning curves", ylabel="macro-F1"))
    return [pages.picture(image, alt, alt[0].upper() + alt[1:] + ".")]


def _times(seconds: Mapping[str, Sequence[float]]) -> list[Markup]:
    rows = [
        [arm, len(each), f"{sum(each) / len(each):.1f}", f"{sum(each) / 60:.1f}"]
        for arm, each in seconds.items()
        if each
    ]
    return [pages.table(["arm", "runs", "seconds a run", "minutes in all"], rows)]


def _mean(values: Sequence[float]) -> float:
    """The mean of the seeds that have a number."""
    kept = [value for value in values if math.isfinite(value)]
    return float(np.mean(kept)) if kept else math.nan


def _classes(scores: Mapping[str, Sequence[Scores]]) -> list[Markup]:
    """F1 of each class, a column an arm: the mean over the seeds."""
    first, parts = next(iter(scores.values()))[0], []
    for name in [*first.heads, "joint"]:
        part = first.joint if name == "joint" else first.heads[name]
        rows: list[list[object]] = [[label, int(n)] for label, n in zip(part.classes, part.counts.sum(1))]
        for seeds in scores.values():
            f1 = np.mean([_part(one, name).per_class()[2] for one in seeds], 0)
            for row, value in zip(rows, f1):
                row.append(float(value))
        parts += [pages.heading(f"F1 by class, {name}"), pages.table(["class", "photos", *scores], rows)]
    return parts


def _part(found: Scores, name: str) -> Any:
    return found.joint if name == "joint" else found.heads[name]


def _slices(scores: Mapping[str, Sequence[Scores]]) -> list[Markup]:
    """Joint macro-F1 of the photos of each true class, a column an arm: the mean over the seeds."""
    first, parts = next(iter(scores.values()))[0], []
    for name in [*first.heads, "source"]:
        levels = {level: len(part.labels) for level, part in first.by(name).items() if len(part.labels)}
        largest = sorted(levels, key=lambda level: -levels[level])[: sections.LEVELS]
        cut = {arm: [one.by(name) for one in seeds] for arm, seeds in scores.items()}
        rows = [
            [level, levels[level], *(_mean([one[level].f1 for one in each]) for each in cut.values())]
            for level in levels
            if level in largest
        ]
        if len(rows) > 1:
            parts += [
                pages.heading(f"Macro-F1 over all classes, by {name}"),
                pages.table([name, "photos", *scores], rows),
            ]
    return parts


def _confusions(arm: str, seeds: Sequence[Scores]) -> list[Markup]:
    """The confusions of an arm, its seeds added up, behind a line."""
    parts = []
    for name in [*seeds[0].heads, "joint"]:
        part = _part(seeds[0], name)
        counts = np.sum([_part(one, name).counts for one in seeds], 0)
        caption = f"{name}: {int(counts.sum())} answers, of {len(seeds)} seed(s)"
        parts.append(pages.heat_map(part.classes, counts, caption=caption))
    return [pages.folded(arm, *parts)]
