"""One run of a cross-validation: a way to train, a fold and a seed, and the folder of what the run leaves.

The last epoch is what counts, so that nothing is chosen on the rows that score it. A run that is finished is kept, one
that was interrupted goes on, and several processes may share the runs of one folder.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multihead import ranks
from multihead.data import Photos
from multihead.files import locked, read_json, replace_file, write_text
from multihead.heads import UNKNOWN, Head, size
from multihead.identity import changes
from multihead.logs import write_rows
from multihead.metrics import Scores, score
from multihead.model import Model
from multihead.train import prepare
from multihead.ways import Arm

PAUSE = 1.0  # seconds between two looks at runs that other processes have in hand


@dataclass(frozen=True)
class Cell:
    """One run: an arm, a fold and a seed, and the folder of what it leaves.

    kept: whether the run's own folder, with its model, stays; it is then the cell's folder.
    """

    arm: str
    fold: int
    seed: int
    folder: Path
    kept: bool = False

    @property
    def done(self) -> bool:
        """True where the run is finished."""
        return (self.folder / "answers.npz").is_file()

    def run_folders(self, count: int) -> list[Path]:
        """Where each of the arm's models is trained."""
        whole = self.folder if self.kept else self.folder / "run"
        return [whole] if count == 1 else [whole / f"part{number}" for number in range(count)]

    def answers(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows (n,) of all photos, joint probabilities (n, K)) of a finished run."""
        return read_answers(self.folder)


def read_answers(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(rows (n,) of all photos, joint probabilities (n, K)) in the folder of a finished run.

    Raises: FileNotFoundError; ValueError that names the file where it is damaged.
    """
    path = folder / "answers.npz"
    try:
        with np.load(path) as kept:
            return kept["rows"], kept["probs"].astype(float)
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error}); remove {folder} to train it anew") from error


def carry_out(cells: Sequence[Cell], work: Callable[[Cell], None], told: Callable[[Cell], None]) -> None:
    """Let `work` finish every cell that is not done, and tell of each as it is done.

    Other processes may do the same with the same folders: a cell is in the hands of one at a time, and one that is
    killed leaves its cell to the others. Under torchrun the processes of one call share each cell.
    """
    ranks.start()
    left = list(cells)
    while left:
        waiting = []
        for cell in left:
            if _try(cell, work):
                told(cell)
            else:
                waiting.append(cell)
        if len(waiting) == len(left):  # all in the hands of others
            time.sleep(PAUSE)
        left = waiting


def _try(cell: Cell, work: Callable[[Cell], None]) -> bool:
    """Do a cell unless another process has it; whether it is done now."""
    if not ranks.first():
        got = ranks.gather(False)[0]
        if got:
            work(cell)
        return got
    cell.folder.mkdir(parents=True, exist_ok=True)
    with locked(cell.folder / "lock") as mine:
        ranks.gather(mine)
        try:
            if mine:
                work(cell)
        finally:
            if mine and cell.done:
                (cell.folder / "lock").unlink(missing_ok=True)  # whoever has it open finds the cell done
        return mine


def train_cell(
    arm: Arm,
    cell: Cell,
    sides: tuple[Photos, Photos],
    extra: Photos | None,
    loading: Mapping[str, Any],
    each: Callable[[Mapping[str, Any]], None] = lambda row: None,
) -> None:
    """Train and score one cell unless it is done: an arm on a fold's sides of `deal`, with `extra` photos to train on.

    loading: how `train.prepare` reads the photos (workers, cache) and where modes stand (book). each: told the row of
    every epoch.

    Raises: ValueError where the folder holds another run, or a photo to score cannot be read.
    """
    train, valid = sides
    if extra is not None:
        train = train + extra.with_columns(at=UNKNOWN)
    torch.manual_seed(cell.seed)
    models = arm.models()
    train = arm.chosen(train, cell.seed, [head for model in models for head in model.heads])
    identity = {**arm.identity(), "seed": cell.seed, "model": _digest(models), "processes": ranks.world()}
    identity |= {"train": train.fingerprint(), "valid": valid.fingerprint()}
    if ranks.first():
        _claim(cell, identity)
    ranks.wait()
    if not cell.done:
        runs = []
        for model, folder in zip(models, cell.run_folders(len(models))):
            run = prepare(model, train, valid, arm.settled(cell.seed), out=folder, resume=True, **loading)
            if run.valid is None or not len(run.valid.rows):
                raise ValueError(f"fold {cell.fold}: none of {len(valid)} photos to score can be read")
            for row in run.epochs(False):
                each(row)
            runs.append(run)
        if ranks.first():
            _keep(cell, runs)
    if ranks.first() and not cell.kept:
        shutil.rmtree(cell.folder / "run", ignore_errors=True)  # its checkpoints; of a run killed as it ended, too
    ranks.wait()


def _digest(models: Sequence[Model]) -> str:
    """A digest of the models before training: their heads, their weights."""
    found = hashlib.sha256()
    for model in models:
        found.update(repr((model.backbone_name, model.heads, model.rates)).encode())
        for name, value in model.state_dict().items():
            found.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def check_begun(cells: Sequence[Cell], arms: Mapping[str, Arm]) -> None:
    """Nothing where what the folders hold of these cells was begun as the arms are now; to be asked before any is
    trained. Raises: ValueError that names the folder, and what differs."""
    for cell in cells:
        asked = {**arms[cell.arm].identity(), "seed": cell.seed}
        _check_mark(cell, asked, (*asked, "hidden"))


def _claim(cell: Cell, identity: Mapping[str, Any]) -> None:
    """Mark the folder as this cell's. Raises: ValueError where it holds another's."""
    _check_mark(cell, identity)
    write_text(cell.folder / "cell.json", json.dumps(identity, indent=2))


def _check_mark(cell: Cell, identity: Mapping[str, Any], known: Sequence[str] | None = None) -> None:
    """Nothing where the folder holds no other cell's mark; known: what of the identity is known yet (default: all)."""
    marker = cell.folder / "cell.json"
    if not marker.is_file():
        return
    identity = json.loads(json.dumps(identity))  # as the mark has it
    old = {"hidden": None} | read_json(marker)  # which stands only where labels are hidden
    changed = [key for key in old if old[key] != identity.get(key) and (known is None or key in known)]
    if changed:
        what = f"holds arm {cell.arm!r}" if cell.arm else "was trained"
        anew = "the arm or the output folder anew" if cell.arm else "another output folder"
        told = f" ({'; '.join(changes(old['recipe'], identity['recipe']))})" if "recipe" in changed else ""
        raise ValueError(f"{cell.folder} {what} with another {', '.join(changed)}{told}; name {anew}")


def _keep(cell: Cell, runs: Sequence[Any]) -> None:
    """Write a finished cell's curve and its answers: of several models the product, as `multihead.combine` has it."""
    probs = np.ones((len(runs[0].valid.rows), 1))
    for run in runs:
        part = _answered(run.kept_scores, len(probs))
        probs = (probs[:, :, None] * part[:, None, :]).reshape(len(probs), -1)  # (n, K so far)
    valid = runs[0].valid
    rows = valid.photos.table["at"].to_numpy()[valid.rows]
    write_rows(cell.folder / "curve.csv", runs[0].rows if len(runs) == 1 else _joined(runs))
    content = {"rows": rows, "probs": probs.astype(np.float32)}
    replace_file(cell.folder / "answers.npz", lambda fresh: _savez(fresh, content))


def _answered(scores: Scores | None, count: int) -> np.ndarray:
    assert scores is not None
    if len(scores.probs) != count:
        raise ValueError(f"{scores.errors[0][1]}; put the photo back and go on")
    return scores.probs


def _joined(runs: Sequence[Any]) -> list[dict[str, Any]]:
    """The curves of several models as one: each head's columns, and the seconds of all."""
    joined = []
    for rows in zip(*(run.rows for run in runs)):
        row: dict[str, Any] = {"epoch": rows[0]["epoch"], "lr": rows[0]["lr"]}
        heads = [head.name for run in runs for head in run.model.space]
        row |= {name: part[name] for part in rows for name in part if name.removesuffix("_f1") in heads}
        row |= {"macro_f1": float("nan"), "selected_by": "mean_head_f1"}
        joined.append(row | {"seconds": sum(part["seconds"] for part in rows)})
    return joined


def _savez(path: Path, content: Mapping[str, np.ndarray]) -> None:
    with open(path, "wb") as file:  # numpy adds .npz to a path, not to a file
        np.savez(file, **content)  # type: ignore[arg-type]


def score_row(cell: Cell, photos: Photos, table: Sequence[Head]) -> dict[str, object]:
    """A finished cell's scores as a row; nothing in it depends on when or how fast it ran."""
    rows, probs = cell.answers()
    found = score(probs, photos.labels(table)[rows], table)
    row: dict[str, object] = {"arm": cell.arm, "fold": cell.fold, "seed": cell.seed, "photos": len(rows), "n": found.n}
    row |= {"macro_f1": found.f1, "accuracy": found.accuracy}
    return row | {f"{name}_f1": head.f1 for name, head in found.heads.items()}


def pooled(cells: Sequence[Cell], count: int, table: Sequence[Head]) -> list[np.ndarray]:
    """One matrix (count, K) a seed: every photo answered by the run that did not see it, NaN if none did."""
    return [_pool([cell for cell in cells if cell.seed == seed], count, table) for seed in _seeds(cells)]


def _seeds(cells: Sequence[Cell]) -> Iterator[int]:
    yield from dict.fromkeys(cell.seed for cell in cells)


def _pool(cells: Sequence[Cell], count: int, table: Sequence[Head]) -> np.ndarray:
    probs = np.full((count, size(table)), np.nan)
    for cell in cells:
        rows, answers = cell.answers()
        probs[rows] = answers
    return probs
