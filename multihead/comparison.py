"""A fair comparison of ways to train: the same person-disjoint folds and seeds for every arm, and paired differences.

Every arm starts anew for every fold and seed: its own model, optimiser and schedule, from the same random numbers. The
last epoch is what counts, so that no arm is chosen on the rows that score it. What is finished is kept: a comparison
that was interrupted goes on where it stopped and ends with the same table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multihead import paired, plots, ranks
from multihead.cache import Cache, open_cache
from multihead.crossval import Cell, carry_out, check_begun, pooled, score_row, train_cell
from multihead.data import Photos
from multihead.dealing import claim_parts, deal
from multihead.files import write_text
from multihead.leaks import LeakError
from multihead.logs import write_rows
from multihead.outputs import check_kind
from multihead.steps import Diverged
from multihead.ways import Arm, same_space

if TYPE_CHECKING:
    import pandas as pd


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
    cache: bool | str | Path | Cache = True,
    say: Callable[[str], None] = lambda text: None,
) -> pd.DataFrame:
    """Train every arm on every fold and seed and tell how they differ: one row an arm and metric, as `paired.compare`.

    photos: dealt into `folds` parts by person; each part is scored by the runs that did not see it. extra: more
    training photos, never scored. sources: score only photos of these. workers: loader processes. cache: as
    `train.epochs` takes it. Call it again with the same arguments to go on after an interruption; arms and seeds may be
    added. Under torchrun every process calls it; the first one writes. Several processes, on one machine or on several
    that share `out`, may call it with the same arguments: each takes the runs that no other has in hand.

    Writes into `out`: photos.csv (with the fold in which each row validates), results.csv (a row an arm, fold and
    seed), times.csv, summary.csv, summary.md, curves.png, differences.png, and runs/ with each run's curve and answers.

    Raises: ValueError where arms answer different heads, or `out` holds other results under the same name;
    `steps.Diverged`, a ValueError, that names the arms whose loss is no number, when all others are done.
    """
    _check(arms, seeds)
    out = Path(out)
    check_kind(out, "a comparison")
    table = same_space(arms, photos if extra is None else photos + extra)
    dealt = parts = deal(photos, folds)
    if sources:
        parts = [(train, valid.where(source=list(sources))) for train, valid in parts]
    for fold, (_, valid) in enumerate(parts):
        if not len(valid):
            raise ValueError(f"fold {fold} has no photo of {list(sources)} to score; there are {_sources(photos)}")
    loading: dict[str, Any] = {"workers": workers, "cache": open_cache(cache), "book": out / "modes.json"}
    cells = [
        Cell(name, fold, seed, out / "runs" / name / f"fold{fold}-seed{seed}")
        for seed in seeds
        for fold in range(folds)
        for name in arms
    ]

    diverged: dict[str, str] = {}  # arm -> where and how

    def work(cell: Cell) -> None:
        where = f"arm {cell.arm!r}, fold {cell.fold}, seed {cell.seed}"
        if cell.arm in diverged:
            return
        try:
            train_cell(arms[cell.arm], cell, parts[cell.fold], extra, loading)
        except LeakError:  # of all arms alike
            raise
        except Diverged as error:
            diverged[cell.arm] = f"{where}: {error}"
            say(f"{diverged[cell.arm]}; the other arms go on")
        except ValueError as error:
            raise ValueError(f"{where}: {error}; what is done of the other arms is kept") from error

    def told(cell: Cell) -> None:
        if not cell.done:
            return
        done = sorted((one for one in cells if one.done), key=_order(arms))
        if ranks.first():
            write_rows(out / "results.csv", [score_row(one, photos, table) for one in done])
        row = score_row(cell, photos, table)
        say(f"{len(done)}/{len(cells)} {cell.arm}, fold {cell.fold}, seed {cell.seed}: macro-F1 {row['macro_f1']:.4f}")

    ranks.start()
    claim_parts(photos, dealt, out)
    check_begun(cells, arms)
    carry_out(cells, work, told)
    if diverged:
        rest = [name for name in arms if name not in diverged]
        more = f"; {', '.join(rest)} done: compare without what diverged" if rest else ""
        raise Diverged("; ".join(diverged.values()) + more)
    answers = {name: pooled([cell for cell in cells if cell.arm == name], len(photos), table) for name in arms}
    frame = paired.compare(answers, photos.labels(table), photos.groups(), table)
    if ranks.first():
        _report(frame, arms, cells, out)
        others = sorted({path.parts[-3] for path in out.glob("runs/*/*/answers.npz")} - set(arms))
        if others:
            say(
                f"{out} also holds runs of {', '.join(others)}: named too, they are compared without being trained anew"
            )
    ranks.wait()
    return frame


def _check(arms: Mapping[str, Arm], seeds: Sequence[int]) -> None:
    """Nothing where there are arms with names for folders, and unlike seeds. Raises: ValueError."""
    if not isinstance(arms, Mapping):
        raise TypeError(f"arms is {type(arms).__name__}; expected them by name, as {{'focal': Arm(model, recipe)}}")
    if not isinstance(seeds, Sequence):
        raise TypeError(f"seeds is {seeds!r}; expected numbers, as (0, 1, 2)")
    if not arms or not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"arms {list(arms)}, seeds {list(seeds)}; expected an arm or more, and unlike seeds")
    for name in arms:
        if not name or any(mark in name for mark in "/\\\0") or name.startswith("."):
            raise ValueError(f"arm {name!r} cannot name a folder; leave out / and a leading dot")


def _order(arms: Mapping[str, Arm]) -> Callable[[Cell], tuple[int, int, int]]:
    names = list(arms)
    return lambda cell: (names.index(cell.arm), cell.seed, cell.fold)


def _sources(photos: Photos) -> list[str]:
    return sorted(set(photos.table.source))


def _report(frame: pd.DataFrame, arms: Mapping[str, Arm], cells: Sequence[Cell], out: Path) -> None:
    """Write the summary, the pictures, and how long each run took."""
    import pandas as pd

    curves = {cell: pd.read_csv(cell.folder / "curve.csv") for cell in cells}
    times = [
        {"arm": cell.arm, "fold": cell.fold, "seed": cell.seed, "seconds": curves[cell].seconds.sum()} for cell in cells
    ]
    write_rows(out / "times.csv", times)
    write_text(out / "summary.csv", frame.to_csv(index=False))
    write_text(out / "summary.md", paired.table(frame) + "\n")
    joint = not any((rows.selected_by == "mean_head_f1").any() for rows in curves.values())  # known to all
    runs = {name: [_curve(curves[cell], joint) for cell in cells if cell.arm == name] for name in arms}
    label = "macro-F1" if joint else "mean of the heads' macro-F1"
    plots.curves(out / "curves.png", runs, title="Learning curves, photos not trained on", ylabel=label)
    first = next(iter(arms))
    found = frame[frame.arm != first]
    columns = [found[name].tolist() for name in ("metric", "arm", "difference", "low", "high")]
    rows = list(zip(*columns))
    if rows:
        plots.differences(out / "differences.png", rows, title=f"Difference to {first}, 95 % of resampled people")


def _curve(rows: pd.DataFrame, joint: bool) -> list[float]:
    """The score of each epoch: joint macro-F1, or the mean of the heads', which every arm has."""
    if joint:
        return rows.macro_f1.tolist()
    heads = [name for name in rows.columns if name.endswith("_f1") and name != "macro_f1"]
    return rows[heads].mean(axis=1).tolist()
