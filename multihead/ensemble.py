"""Ensembles out of a cross-validation: a model a fold, every photo answered by the model that did not see its person.

Folds never share a person, each starts from the same new weights, and the last epoch is kept, so the out-of-fold
answers are honest: weights of votes, temperatures and decision weights may be fitted on them.
"""

from __future__ import annotations

import concurrent.futures
import json
import math
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multihead import paired, ranks
from multihead.cache import Cache, open_cache
from multihead.crossval import Cell, carry_out, check_begun, pooled, score_row, train_cell
from multihead.data import Photos
from multihead.dealing import claim_parts, deal, deal_by
from multihead.files import write_text
from multihead.heads import HEADS, JOINT, UNKNOWN, Head, joint_columns
from multihead.joined import Member, combine, load
from multihead.logs import line, write_rows
from multihead.metrics import score
from multihead.outputs import check_kind, kinds
from multihead.pseudo import check_not_pseudo
from multihead.reading import read
from multihead.recipe import Recipe
from multihead.ways import Arm, heads_of

if TYPE_CHECKING:
    import pandas as pd

    from multihead.model import Model


def fit_folds(
    model: Callable[[], Model | Sequence[Model]],
    photos: Photos,
    recipe: Recipe = Recipe(),
    *,
    out: str | Path,
    folds: int = 5,
    column: str | None = None,
    only: Sequence[int] | None = None,
    extra: Photos | None = None,
    rows: str = "all",
    about: dict[str, object] | None = None,
    processes: int = 1,
    workers: int = 0,
    cache: bool | str | Path | Cache = True,
    say: Callable[[str], None] = lambda text: None,
) -> pd.DataFrame | None:
    """Train a fresh model on each of `folds` person-disjoint parts and score all photos by the models that did not see
    them: a row a fold and one of all together, with intervals over resampled people; None while folds are missing.

    model: makes the model, or several of unlike heads that answer together, anew for every fold, after seeding. The
    folds are dealt by recipe.seed; column: a column of the photos that names each row's fold instead, which must keep
    people whole. only: these folds now, the others elsewhere or later. extra: more training photos, never scored. rows:
    training rows, "all" or "full" (all heads known). about: what else tells these folds from others. processes: folds
    trained at a time; several machines that share `out` may also call it at the same time. cache: as `train.epochs`
    takes it. Called again, it goes on at the fold, epoch and step where it stood.

    Writes into `out`: photos.csv (with the fold in which each row validates), fold0, fold1, ... (run folders, each
    with its model), and once all are there oof.csv (out-of-fold probabilities) and scores.csv.

    Raises: ValueError for fewer than two folds or fewer people than folds, a fold that is none, photos to score that
    cannot be read, a recipe with patience, or an `out` that holds other folds; LeakError for labels of a model, and for
    a column of folds that share a person or file, naming them.
    """
    arm, out = Arm(model, recipe, rows, about=about or {}), Path(out)
    arm = replace(arm, recipe=replace(recipe, select="last"))  # the best would be chosen on the rows it answers for
    check_kind(out, "folds")
    _check_processes(arm, processes)
    check_not_pseudo(photos, "out-of-fold")
    table = heads_of(arm, photos if extra is None else photos + extra)
    parts = deal(photos, folds, recipe.seed) if column is None else deal_by(photos, column)
    folds = len(parts)
    chosen = _chosen(only, folds)
    ranks.start()
    claim_parts(photos, parts, out)
    cells = [Cell("", fold, recipe.seed, out / f"fold{fold}", kept=True) for fold in range(folds)]
    check_begun(cells, {"": arm})
    wanted = [cells[fold] for fold in chosen]
    told = _told(cells, say, photos, table)
    if processes > 1:
        _in_processes(processes, wanted, (arm, parts, extra, workers, cache), told)
    else:
        _work(wanted, (arm, parts, extra, workers, cache), told, say)
    if not all(cell.done for cell in cells):
        left = [cell.fold for cell in cells if not cell.done]
        say(f"folds {', '.join(map(str, left))} are not trained yet; the scores wait for them")
        return None
    return _report(cells, photos, table, out)


@dataclass(frozen=True)
class Folds:
    """What `fit_folds` left: the folds' run folders, the photos that were answered, the fold (N,) in which each was
    held out, its out-of-fold joint probabilities (N, K), and its row (N,) in photos.csv."""

    folders: tuple[Path, ...]
    photos: Photos
    fold: np.ndarray
    probs: np.ndarray
    rows: np.ndarray

    def models(self) -> list[Member]:
        """The folds' models."""
        return [load(folder) for folder in self.folders]


def open_folds(folder: str | Path, heads: Sequence[Head] = HEADS) -> Folds:
    """The folds in a folder of `fit_folds`; heads: those of its models, for the labels.

    Raises: FileNotFoundError where the folder is none, or not all its folds are trained; ValueError for other heads.
    """
    import pandas as pd

    folder = Path(folder)
    if "folds" not in kinds(folder):
        raise FileNotFoundError(f"{folder} is no folder of folds; expected what multihead folds (fit_folds) wrote")
    if not (folder / "oof.csv").is_file():
        raise FileNotFoundError(f"{folder} lacks oof.csv: not all its folds are trained; call multihead folds again")
    answers = pd.read_csv(folder / "oof.csv", keep_default_na=False, encoding_errors="surrogateescape")
    names = joint_columns(heads)
    given = [name for name in answers.columns if name.startswith(JOINT)]
    if set(names) != set(given):
        raise ValueError(f"{folder / 'oof.csv'} holds {len(given)} joint classes; the heads have {len(names)}")
    rows, fold = answers["row"].to_numpy(int), answers["fold"].to_numpy(int)
    photos = read(folder / "photos.csv", heads=heads, people="global")[rows]  # as they were written
    folders = tuple(folder / f"fold{number}" for number in sorted(set(fold.tolist())))
    return Folds(folders, photos, fold, answers[names].to_numpy(float), rows)


def common_rows(folds: Sequence[Folds]) -> list[np.ndarray]:
    """For each, which of its rows (n,) all of them answered, in the same order of photos.

    Raises: ValueError where they are of different photos, or no photo was answered by all.
    """
    named = [
        zip(each.photos.paths, map(str, each.photos.boxes.tolist())) for each in folds
    ]  # a text: NaN equals nothing
    keys = [{key: row for row, key in enumerate(each)} for each in named]
    shared = [key for key in keys[0] if all(key in other for other in keys)]
    if len(shared) < len(keys[0]) / 2:
        raise ValueError(
            f"{folds[0].folders[0].parent} and the other folds answered {len(shared)} photos in common, of "
            f"{len(keys[0])}; out-of-fold answers can be weighed on the same photos"
        )
    return [np.array([key[one] for one in shared]) for key in keys]


def _check_processes(arm: Arm, processes: int) -> None:
    """Nothing where so many processes can train. Raises: ValueError."""
    ranks.start()
    if processes < 1 or processes > 1 and ranks.world() > 1:
        raise ValueError(
            f"processes is {processes}, under torchrun {ranks.world()}; expected >= 1, and 1 under torchrun"
        )
    if processes > 1:
        try:
            pickle.dumps(arm)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                f"several processes need a model function of a module, not a lambda or inner one ({error}); or start "
                "the program several times with the same out"
            ) from error


def _chosen(only: Sequence[int] | None, folds: int) -> list[int]:
    chosen = list(range(folds)) if only is None else list(only)
    for fold in chosen:
        if fold not in range(folds):
            raise ValueError(f"fold {fold} is none of {folds}; expected 0 to {folds - 1}")
    return chosen


def _work(
    cells: Sequence[Cell], job: tuple[Any, ...], told: Callable[[Cell], None], say: Callable[[str], None]
) -> None:
    arm, parts, extra, workers, cache = job
    book = cells[0].folder.parent / "modes.json"
    loading: dict[str, Any] = {"workers": workers, "cache": open_cache(cache), "book": book}

    def train(cell: Cell) -> None:
        def each(row: Mapping[str, Any]) -> None:
            say(f"fold {cell.fold}, {line(row)}")

        train_cell(arm, cell, parts[cell.fold], extra, loading, each)
        whole = cell.folder / "model"
        members = sorted(cell.folder.glob("part*"))
        if members and not (whole / "ensemble.json").is_file() and ranks.first():  # several models answer together
            combine([load(member) for member in members]).save(whole)

    carry_out(cells, train, told)


def _told(
    cells: Sequence[Cell], say: Callable[[str], None], photos: Photos, table: Sequence[Head]
) -> Callable[[Cell], None]:
    before = {cell for cell in cells if cell.done}

    def told(cell: Cell) -> None:
        row = score_row(cell, photos, table)
        done = "done before" if cell in before else f"{sum(one.done for one in cells)} of {len(cells)} done"
        say(f"fold {cell.fold}: macro-F1 {row['macro_f1']:.4f} on {row['n']} photos ({done})")

    return told


def _in_processes(count: int, cells: Sequence[Cell], job: tuple[Any, ...], told: Callable[[Cell], None]) -> None:
    """The cells in several processes, each with its share of the threads."""
    import torch

    threads = max(1, torch.get_num_threads() // count)
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    with concurrent.futures.ProcessPoolExecutor(count, context, _begin, (threads,)) as pool:
        working = {pool.submit(_work, [cell], job, _nothing, _nothing): cell for cell in cells}
        try:
            for finished in concurrent.futures.as_completed(working):
                finished.result()
                told(working[finished])
        except BaseException as error:  # an interruption, or a fold that cannot be trained: what waits is not begun
            if isinstance(error, KeyboardInterrupt):  # who asked this process to end need not have asked its children
                for child in set(multiprocessing.active_children()) - others:
                    child.terminate()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _begin(threads: int) -> None:
    """Start as one of several processes, which ends with the one that started it, also where that is killed."""
    import torch

    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # its fold goes on at the last checkpoint, as after a kill


def _nothing(_: object) -> None:
    """Tell nothing: the first process does."""


def _report(cells: Sequence[Cell], photos: Photos, table: Sequence[Head], out: Path) -> pd.DataFrame:
    import pandas as pd

    _check_alike(cells)
    (probs,) = pooled(cells, len(photos), table)
    fold = np.full(len(photos), UNKNOWN)
    for cell in cells:
        fold[cell.answers()[0]] = cell.fold
    found = [{"part": f"fold {cell.fold}", **_scored(probs, photos, table, fold == cell.fold)} for cell in cells] + [
        {"part": "pooled", **_scored(probs, photos, table, fold != UNKNOWN)}
    ]
    if ranks.first():
        write_text(out / "oof.csv", _oof(probs, fold, photos, table).to_csv(index=False))
        write_rows(out / "scores.csv", found)
    ranks.wait()
    return pd.DataFrame(found)


def _check_alike(cells: Sequence[Cell]) -> None:
    """Nothing where all folds were trained alike. Raises: ValueError that names the fold that was not."""
    marks = [json.loads((cell.folder / "cell.json").read_text()) for cell in cells]
    for cell, mark in zip(cells, marks):
        unlike = [key for key in mark if key not in ("train", "valid") and mark[key] != marks[0].get(key)]
        if unlike:
            raise ValueError(f"{cell.folder} was trained with another {', '.join(unlike)} than {cells[0].folder}")


def _scored(probs: np.ndarray, photos: Photos, table: Sequence[Head], rows: np.ndarray) -> dict[str, object]:
    """Scores of some rows, each with the interval over resampled people."""
    part = photos[rows]
    frame = paired.compare({"": [probs[rows]]}, part.labels(table), part.groups(), table)
    metrics: list[dict[Any, Any]] = frame.to_dict("records")
    joint = next(each for each in metrics if each["metric"] == "macro_f1")
    row: dict[str, object] = {"photos": len(part), "n": joint["rows"], "people": joint["people"]}
    row["accuracy"] = score(probs[rows], part.labels(table), table).accuracy
    for each in metrics:
        name = each["metric"]
        row |= {name: each["mean"], f"{name}_low": each["mean_low"], f"{name}_high": each["mean_high"]}
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


def _oof(probs: np.ndarray, fold: np.ndarray, photos: Photos, table: Sequence[Head]) -> pd.DataFrame:
    """A row a photo that was answered: its row in photos.csv, path, person, fold, classes, joint probabilities."""
    import pandas as pd

    rows = np.flatnonzero(fold != UNKNOWN)
    part = photos[rows]
    frame = pd.DataFrame({"row": rows, "path": part.paths, "person": part.people, "fold": fold[rows]})
    for head, label in zip(table, part.labels(table).T):
        frame[head.name] = ["" if index == UNKNOWN else head.classes[index] for index in label]
    columns = dict(zip(joint_columns(table), probs[rows].T, strict=True))
    return pd.concat([frame, pd.DataFrame(columns)], axis=1)
