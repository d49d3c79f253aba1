"""A fair comparison of ways to train: the same person-disjoint folds and seeds for every arm, and paired differences.

Every arm starts anew for every fold and seed: its own model, optimiser and schedule, from the same random numbers. The
last epoch is what counts, so that no arm is chosen on the rows that score it. What is finished is kept: a comparison
that was interrupted goes on where it stopped and ends with the same table.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from multihead import paired, plots, ranks
from multihead.data import Photos
from multihead.files import replace_file, write_text
from multihead.labels import UNKNOWN, Head, base, size, space
from multihead.logs import write_rows
from multihead.metrics import Scores, score
from multihead.model import Model
from multihead.options import choice, to_dict
from multihead.recipe import Recipe
from multihead.train import check_recipe, prepare, selection_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Arm:
    """One way to train: how the model is made (called anew for every fold and seed, after seeding), the recipe (its
    seed is set by the comparison), and the training rows: "all", or "full", those whose heads are all known.

    about: whatever else tells this arm from another, kept with its results.
    """

    model: Callable[[], Model]
    recipe: Recipe = Recipe()
    rows: str = "all"
    about: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        choice("arm", "rows", self.rows, ("all", "full"))
        if self.recipe.patience is not None:
            raise ValueError("arm: patience stops on the rows that score the arm; leave it out and fix the epochs")

    def settled(self, seed: int) -> Recipe:
        """The recipe with this seed, scored every epoch for the curves, its last epoch kept."""
        return replace(self.recipe, seed=seed, select="last", val_interval=self.recipe.val_interval or 1)

    def identity(self) -> dict[str, object]:
        """What must be the same for kept results to be this arm's."""
        return {"recipe": to_dict(self.recipe), "rows": self.rows, "about": dict(self.about)}


@dataclass(frozen=True)
class Cell:
    """One run of a comparison: an arm, a fold and a seed, and the folder of what it leaves."""

    arm: str
    fold: int
    seed: int
    folder: Path

    @property
    def done(self) -> bool:
        """True where the run is finished."""
        return (self.folder / "answers.npz").is_file()


def compare(
    arms: Mapping[str, Arm],
    photos: Photos,
    out: str | Path,
    *,
    folds: int = 3,
    seeds: Sequence[int] = (0,),
    extra: Photos | None = None,
    sources: Sequence[str] = (),
    workers: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> pd.DataFrame:
    """Train every arm on every fold and seed and tell how they differ: one row an arm and metric, as `paired.compare`.

    photos: dealt into `folds` parts by person; each part is scored by the runs that did not see it. extra: more
    training photos, never scored. sources: score only photos of these. workers: loader processes. Call it again with
    the same arguments to go on after an interruption; arms and seeds may be added. Under torchrun every process calls
    it; the first one writes.

    Writes into `out`: results.csv (a row an arm, fold and seed), times.csv, summary.csv, summary.md, curves.png,
    differences.png, and runs/ with each run's curve and answers.

    Raises: ValueError where arms answer different heads, or `out` holds other results under the same name.
    """
    _check(arms, seeds)
    ranks.start()
    out, first = Path(out), next(iter(arms))
    table = _heads(arms, photos if extra is None else photos + extra)
    parts = [
        (train, valid.where(source=list(sources)) if sources else valid)
        for train, valid in photos.with_columns(at=np.arange(len(photos))).folds(folds, seed=0)
    ]
    for fold, (_, valid) in enumerate(parts):
        if not len(valid):
            raise ValueError(f"fold {fold} has no photo of {list(sources)} to score; there are {_sources(photos)}")
    loading: dict[str, Any] = {"workers": workers, "decoded": {}}
    cells = [
        Cell(name, fold, seed, out / "runs" / name / f"fold{fold}-seed{seed}")
        for seed in seeds
        for fold in range(folds)
        for name in arms
    ]
    for number, cell in enumerate(cells, 1):
        train, valid = parts[cell.fold]
        _run(arms[cell.arm], cell, train, valid, extra, loading)
        done = [one for one in cells if one.done]
        if ranks.first():
            write_rows(out / "results.csv", [_row(one, photos, table) for one in sorted(done, key=_order(arms))])
        row = _row(cell, photos, table)
        say(f"{number}/{len(cells)} {cell.arm}, fold {cell.fold}, seed {cell.seed}: macro-F1 {row['macro_f1']:.4f}")
    frame = paired.compare(_pooled(arms, cells, photos, table), photos.labels(table), photos.groups(), table)
    if ranks.first():
        _report(frame, arms, cells, out, first)
    ranks.wait()
    return frame


def _check(arms: Mapping[str, Arm], seeds: Sequence[int]) -> None:
    """Nothing where there are arms with names for folders, and unlike seeds. Raises: ValueError."""
    if not arms or not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"arms {list(arms)}, seeds {list(seeds)}; expected an arm or more, and unlike seeds")
    for name, arm in arms.items():
        if arm.recipe.missing == "skip":
            raise ValueError(f"arm {name!r} leaves photos out (missing='skip'); arms must score the same photos")
        if not name or any(mark in name for mark in "/\\\0") or name.startswith("."):
            raise ValueError(f"arm {name!r} cannot name a folder; leave out / and a leading dot")


def _heads(arms: Mapping[str, Arm], photos: Photos) -> tuple[Head, ...]:
    """The heads that all arms answer. Raises: ValueError that names the arm that answers others, or cannot be run."""
    table: tuple[Head, ...] | None = None
    for name, arm in arms.items():
        try:
            model = arm.model()
            check_recipe(model, photos, arm.recipe)
        except (ValueError, KeyError, ImportError) as error:
            raise ValueError(f"arm {name!r}: {error.args[0]}") from error
        heads = base(model.heads)
        table = table or heads
        if space(heads) != space(table):
            names = [[head.name for head in each] for each in (heads, table)]
            raise ValueError(f"arm {name!r} answers {names[0]}, the first arm {names[1]}; compare arms of equal heads")
    assert table is not None
    return table


def _sources(photos: Photos) -> list[str]:
    return sorted(set(photos.table.source))


def _run(arm: Arm, cell: Cell, train: Photos, valid: Photos, extra: Photos | None, loading: Mapping[str, Any]) -> None:
    """Train and score one cell unless it is done."""
    if extra is not None:
        train = train + extra.with_columns(at=UNKNOWN)
    if arm.rows == "full":
        train = train[(train.labels() != UNKNOWN).all(1)]
    torch.manual_seed(cell.seed)
    model = arm.model()
    identity = {**arm.identity(), "seed": cell.seed, "model": _digest(model), "processes": ranks.world()}
    identity |= {"train": train.fingerprint(), "valid": valid.fingerprint()}
    if ranks.first():
        _claim(cell, json.loads(json.dumps(identity)))
    ranks.wait()
    if not cell.done:
        run = prepare(model, train, valid, arm.settled(cell.seed), out=cell.folder / "run", resume=True, **loading)
        if run.valid is None or not len(run.valid.rows):
            raise ValueError(f"fold {cell.fold}: none of {len(valid)} photos to score can be read")
        for _ in run.epochs(False):
            pass
        if ranks.first():
            assert run.kept_scores is not None
            _keep(cell, run.kept_scores, run.valid.photos.table["at"].to_numpy()[run.valid.rows], run.rows)
    if ranks.first():
        shutil.rmtree(cell.folder / "run", ignore_errors=True)  # its checkpoints; of a run killed as it ended, too
    ranks.wait()


def _digest(model: Model) -> str:
    """A digest of the model before training: its table of heads, its weights."""
    found = hashlib.sha256(repr((model.backbone_name, model.heads, model.rates)).encode())
    for name, value in model.state_dict().items():
        found.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def _claim(cell: Cell, identity: Mapping[str, object]) -> None:
    """Mark the folder as this cell's. Raises: ValueError where it holds another's."""
    marker = cell.folder / "cell.json"
    if marker.is_file():
        old = json.loads(marker.read_text())
        changed = [key for key in old if old[key] != identity.get(key)]
        if changed:
            raise ValueError(
                f"{cell.folder} holds arm {cell.arm!r} with another {', '.join(changed)}; name the arm or the output "
                "folder anew"
            )
    write_text(marker, json.dumps(identity, indent=2))


def _keep(cell: Cell, scores: Scores, answered: np.ndarray, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a finished cell's answers (of rows (n,) of all photos) and its curve."""
    if len(answered) != len(scores.probs):
        raise ValueError(f"{scores.errors[0][1]}; put the photo back and go on")
    write_rows(cell.folder / "curve.csv", rows)
    content = {"rows": answered, "probs": scores.probs.astype(np.float32)}
    replace_file(cell.folder / "answers.npz", lambda fresh: _savez(fresh, content))


def _savez(path: Path, content: Mapping[str, np.ndarray]) -> None:
    with open(path, "wb") as file:  # numpy adds .npz to a path, not to a file
        np.savez(file, **content)  # type: ignore[arg-type]


def _order(arms: Mapping[str, Arm]) -> Callable[[Cell], tuple[int, int, int]]:
    names = list(arms)
    return lambda cell: (names.index(cell.arm), cell.seed, cell.fold)


def _row(cell: Cell, photos: Photos, table: Sequence[Head]) -> dict[str, object]:
    """A finished cell's row of results.csv: nothing in it depends on when or how fast it ran."""
    rows, probs = _answers(cell)
    found = score(probs, photos.labels(table)[rows], table)
    row: dict[str, object] = {"arm": cell.arm, "fold": cell.fold, "seed": cell.seed, "photos": len(rows), "n": found.n}
    row |= {"macro_f1": found.f1, "accuracy": found.accuracy}
    return row | {f"{name}_f1": head.f1 for name, head in found.heads.items()}


def _answers(cell: Cell) -> tuple[np.ndarray, np.ndarray]:
    with np.load(cell.folder / "answers.npz") as kept:
        return kept["rows"], kept["probs"].astype(float)


def _pooled(
    arms: Mapping[str, Arm], cells: Sequence[Cell], photos: Photos, table: Sequence[Head]
) -> dict[str, list[np.ndarray]]:
    """For each arm one matrix (N, K) a seed: every photo answered by the run that did not see it, NaN if none did."""
    pooled: dict[str, list[np.ndarray]] = {name: [] for name in arms}
    for name in arms:
        for seed in dict.fromkeys(cell.seed for cell in cells):
            probs = np.full((len(photos), size(table)), np.nan)
            for cell in cells:
                if cell.arm == name and cell.seed == seed:
                    rows, answers = _answers(cell)
                    probs[rows] = answers
            pooled[name].append(probs)
    return pooled


def _report(frame: pd.DataFrame, arms: Mapping[str, Arm], cells: Sequence[Cell], out: Path, first: str) -> None:
    """Write the summary, the pictures, and how long each run took."""
    import pandas as pd

    curves = {cell: pd.read_csv(cell.folder / "curve.csv") for cell in cells}
    times = [
        {"arm": cell.arm, "fold": cell.fold, "seed": cell.seed, "seconds": curves[cell].seconds.sum()} for cell in cells
    ]
    write_rows(out / "times.csv", times)
    write_text(out / "summary.csv", frame.to_csv(index=False))
    write_text(out / "summary.md", paired.table(frame) + "\n")
    runs = {name: [_curve(curves[cell]) for cell in cells if cell.arm == name] for name in arms}
    plots.curves(out / "curves.png", runs, title="Learning curves, photos not trained on", ylabel="macro-F1")
    found = frame[frame.arm != first]
    columns = [found[name].tolist() for name in ("metric", "arm", "difference", "low", "high")]
    rows = list(zip(*columns))
    if rows:
        plots.differences(out / "differences.png", rows, title=f"Difference to {first}, 95 % of resampled people")


def _curve(rows: pd.DataFrame) -> list[float]:
    """The score of each epoch that a run is chosen by: joint macro-F1, else the mean of the heads'."""
    return [selection_of({str(name): value for name, value in row.items()}) for row in rows.to_dict("records")]
