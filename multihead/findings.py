"""What the folder of a run or of folds says: its settings, photos and curves, and its answered photos."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multihead.cells import text_table
from multihead.configs import crop_texts, read_config
from multihead.data import Photos
from multihead.evaluation import evaluate, scores
from multihead.heads import JOINT, Head, base, joint_columns
from multihead.metrics import Scores
from multihead.reading import read
from multihead.trained import seen_in_training

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Answered:
    """photos: those that were answered, a row each; scores: of the same rows; heads: the model's own; folders: the
    run folder (n,) of the model that answered each row, which had not seen it."""

    photos: Photos
    scores: Scores
    heads: tuple[Head, ...]
    folders: np.ndarray

    @property
    def probs(self) -> np.ndarray:
        """Joint probabilities (n, K)."""
        return self.scores.probs


@dataclass(frozen=True)
class Findings:
    """settings: {name: value}; parts: {part: its photos}; curves: {run: rows of metrics.csv}; written: the scores that
    the run itself wrote; notes: sentences on what is missing; unseen: nothing tells that a model answered what, or
    whom, it was trained on."""

    kind: str
    settings: Mapping[str, object]
    parts: Mapping[str, Photos]
    curves: Mapping[str, Sequence[Row]]
    answered: Answered | None
    written: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unseen: bool = True


def kind_of(folder: str | Path) -> str:
    """What a folder holds: "comparison", "folds" or "run".

    Raises: FileNotFoundError where it is none, or not there.
    """
    folder = Path(folder)
    if (folder / "runs").is_dir() and (folder / "summary.csv").is_file():
        return "comparison"
    if (folder / "oof.csv").is_file() or (folder / "fold0").is_dir():
        return "folds"
    if (folder / "ensemble.json").is_file() or (folder / "model" / "ensemble.json").is_file():
        raise FileNotFoundError(
            f"{folder} holds an ensemble, which has no training to report on; report the folds or runs that its "
            "members are of, and score it by multihead evaluate"
        )
    if any((folder / name).exists() for name in ("metrics.csv", "splits.csv", "model/config.json")):
        return "run"
    raise FileNotFoundError(
        f"{folder} is no folder to report on; expected what multihead train, folds or a finished compare wrote"
    )


def of_run(
    folder: Path, photos: Photos | None, *, device: Any = "cpu", batch_size: int = 64, workers: int = 2
) -> Findings:
    """What a run folder says; its model answers the validation part, or `photos` in its place."""
    heads, notes = _heads(folder), []
    parts: dict[str, Photos] = {}
    if heads and (folder / "splits.csv").is_file():
        table = read(folder / "splits.csv", heads=base(heads))
        parts = {name: table.part(name) for name in ("train", "val") if (table.table.split == name).any()}
    seen: list[str] = []
    if photos is not None:
        parts["val"] = photos
        seen = [f"{text[0].upper()}{text[1:]}." for text in seen_in_training(folder, photos)]
    answered = None
    if not heads:
        notes.append("There is no model/ in the folder: the run has not ended, so nothing could be answered.")
    elif "val" not in parts:
        notes.append("No photos validate in this run, so there is nothing to score.")
    else:
        missing = _settings(folder).get("missing", "full")
        options = {"batch_size": batch_size, "workers": workers, "missing": missing if missing == "skip" else "full"}
        answered, more = _answer(folder, heads, parts["val"], device, options)
        notes += more
    written = json.loads(text) if (text := text_of(folder / "metrics.json")) else {}
    curves = {"run": rows} if (rows := rows_of(folder / "metrics.csv")) else {}
    settings = _settings(folder) | _model_settings(folder)
    return Findings("run", settings, parts, curves, answered, written, (*seen, *notes), unseen=not seen)


def _answer(
    folder: Path, heads: tuple[Head, ...], photos: Photos, device: Any, options: Mapping[str, Any]
) -> tuple[Answered | None, list[str]]:
    """The photos as the run's model answers them, or why it cannot."""
    from multihead.joined import load

    try:
        model = load(folder).to(device)
        found = evaluate(model, photos.with_columns(**{":row": np.arange(len(photos))}), **options)
    except (ValueError, KeyError, OSError) as error:
        return None, [f"The photos could not be answered: {error}"]
    rows = found.slices[":row"].astype(int)
    found = replace(found, slices={name: column for name, column in found.slices.items() if name != ":row"})
    return Answered(photos[rows], found, heads, np.full(len(rows), str(folder))), _unread(found.errors)


def _unread(errors: Sequence[tuple[str, str]]) -> list[str]:
    if not errors:
        return []
    return [f"{len(errors)} photos could not be read and are not counted, the first: {errors[0][1]}"]


def of_folds(folder: Path, photos: Photos | None) -> Findings:
    """What a folder of folds says; photos: the table that its oof.csv answers, where photos.csv is out of date.

    Raises: ValueError for an oof.csv that does not fit the photos or the heads.
    """
    runs = {path.name: path for path in sorted(folder.glob("fold*"), key=_order) if path.name[4:].isdigit()}
    trained = [path for path in runs.values() if _heads(path)]
    curves = {name.replace("fold", "fold "): rows for name, path in runs.items() if (rows := _curve(path))}
    if not trained or not (folder / "oof.csv").is_file():
        note = "There is no oof.csv with a fold's model beside it: the folds have not ended."
        return Findings("folds", _settings(folder), {}, curves, None, {}, (note,))
    heads = _heads(trained[0])
    given = photos is not None
    if photos is None:
        there = folder / "photos.csv"
        photos = read(there if there.is_file() else folder / "oof.csv", heads=base(heads))
    answered = _out_of_fold(folder, photos, heads, given)
    notes = []
    if missing := len(photos) - len(answered.photos):
        notes.append(f"{missing} of {len(photos)} photos have no answer in oof.csv and are not counted.")
    settings = _settings(folder) | _model_settings(trained[0])
    return Findings("folds", settings, _dealt(photos), curves, answered, {}, tuple(notes))


def _out_of_fold(folder: Path, photos: Photos, heads: tuple[Head, ...], given: bool) -> Answered:
    """The photos with the answers of oof.csv, each of the fold's model that had not seen it."""
    table = _oof(folder / "oof.csv", heads)
    if "row" in table and not given and (folder / "photos.csv").is_file():
        places = table["row"].to_numpy(int)
    else:
        places = _matched(photos, table.path.tolist(), folder / "oof.csv")
    probs = table[joint_columns(heads)].to_numpy(float)
    found = scores(photos, heads, places, probs)
    found = replace(found, slices={**found.slices, "fold": table.fold.to_numpy(object)})
    return Answered(photos[places], found, heads, np.array([str(folder / f"fold{number}") for number in table.fold]))


def _dealt(photos: Photos) -> dict[str, Photos]:
    """All photos, and those of each fold where the table says which."""
    if "fold" not in photos.table:
        return {"all folds": photos}
    folds = photos.table["fold"].astype(str).to_numpy()
    names = sorted(set(folds) - {""}, key=_digits)
    return {"all folds": photos} | {f"fold {name}": photos[folds == name] for name in names}


def _oof(path: Path, heads: Sequence[Head]) -> pd.DataFrame:
    """The rows of an oof.csv as text. Raises: ValueError where a column is missing or a cell is no number."""
    table = text_table(path)
    wanted = ["path", "fold", *joint_columns(heads)]
    if lacking := [name for name in wanted if name not in table]:
        raise ValueError(f"{path} lacks the columns {lacking[:5]}; expected what multihead folds wrote for its heads")
    try:
        finite = np.isfinite(table[wanted[2:]].to_numpy(float)).all(1)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; expected probabilities in the columns {JOINT}0 and so on") from None
    if not finite.all():
        raise ValueError(f"{path}, line {int(np.flatnonzero(~finite)[0]) + 2}: a probability is not finite")
    return table


def _matched(photos: Photos, paths: Sequence[str], where: Path) -> np.ndarray:
    """The row (n,) of each path, as the table's path or the source's name; the faces of one photo keep their order."""
    own = {(name, turn): row for names in (photos.table.name, photos.paths) for row, (name, turn) in _turns(names)}
    keys = [key for _, key in _turns(paths)]
    if lacking := [name for name, turn in keys if (name, turn) not in own]:
        raise ValueError(f"{where} answers {len(lacking)} photos that are not in the table, the first {lacking[0]!r}")
    return np.array([own[key] for key in keys], np.int64)


def _turns(names: Iterable[str]) -> Iterable[tuple[int, tuple[str, int]]]:
    """(place, (name, how often it came before)) of each name."""
    seen: dict[str, int] = {}
    for place, name in enumerate(names):
        seen[name] = seen.get(name, -1) + 1
        yield place, (name, seen[name])


def _heads(folder: Path) -> tuple[Head, ...]:
    """The heads of a run folder's model, or of several that answer together; none where it has no model yet."""
    return tuple(head for config in _configs(folder / "model") for head in config["heads"])


def _configs(folder: Path) -> list[dict[str, Any]]:
    """The configurations of a model folder, or of the members of a combined one."""
    if (folder / "config.json").is_file():
        return [read_config(folder)]
    text = text_of(folder / "ensemble.json")
    return [config for member in (json.loads(text)["members"] if text else []) for config in _configs(folder / member)]


def _model_settings(folder: Path) -> dict[str, object]:
    """What the model is, in words."""
    if not (heads := _heads(folder)):
        return {}
    reads = {head.name: ", ".join(crop_texts(head.crops)) for head in heads}
    backbones = dict.fromkeys(str(config["backbone"]) for config in _configs(folder / "model"))
    return {"backbone": ", ".join(backbones), **{f"head {name} reads": text for name, text in reads.items()}}


def _settings(folder: Path) -> dict[str, object]:
    import yaml

    content = yaml.safe_load(text_of(folder / "args.yaml")) or {}
    return dict(content) if isinstance(content, dict) else {}


def _curve(folder: Path) -> list[Row]:
    """The epochs of a fold; of several models that answer together theirs as one, once they are trained."""
    return rows_of(folder / "metrics.csv") or rows_of(folder / "curve.csv")


def rows_of(path: Path) -> list[Row]:
    """The rows of a CSV of numbers, [] where there is none."""
    import pandas as pd

    return [] if not text_of(path).strip() else pd.read_csv(path).to_dict("records")  # type: ignore[return-value]


def text_of(path: Path) -> str:
    """The text of a file, "" where there is none."""
    return path.read_text(encoding="utf-8", errors="surrogateescape") if path.is_file() else ""


def _order(path: Path) -> tuple[int, str]:
    return _digits(path.name[4:])


def _digits(text: str) -> tuple[int, str]:
    return (int(text) if text.isdigit() else -1, text)
