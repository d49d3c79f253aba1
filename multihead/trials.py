"""What the trials of a study have found: a table, the best settings, their course and what mattered, as files."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multihead import plots
from multihead.files import write_text
from multihead.logs import write_rows
from multihead.study import attempts, quiet

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

ENOUGH = 4  # complete trials that importance needs


def line(study: Study, trial: FrozenTrial) -> str:
    """A trial's end as one line of text."""
    row = _row(trial, {})
    told = f"{trial.value:.4f}" if row["state"] == "complete" else f"{row['state']}: {row['reason']}"
    best = best_trial(study)
    text = ", ".join(f"{name} {_plain(value)}" for name, value in trial.params.items())
    return f"trial {trial.number}: {told} ({text})" + (f"; best {best.value:.4f}, trial {best.number}" if best else "")


def _plain(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def best_trial(study: Study) -> FrozenTrial | None:
    """The complete trial with the best score, None before there is one."""
    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    return max(complete, key=lambda trial: trial.value or 0.0, default=None)


def table(study: Study) -> list[dict[str, object]]:
    """A row a trial: number, state, value, epochs, last (the running mean when it ended), seconds, worker, each
    parameter, each fold's score, and the reason of what did not complete."""
    trials = study.get_trials(deepcopy=False)
    again = {trial.user_attrs.get("again"): trial.number for trial in trials}
    names = list(dict.fromkeys(name for trial in trials for name in [*_params(trial)]))
    folds = {name for trial in trials for name in trial.user_attrs if name.startswith("fold ")}
    rows = []
    for trial in trials:
        row = _row(trial, again)
        reason = row.pop("reason")
        row |= {name: _params(trial).get(name, "") for name in names}
        rows.append(
            row | {name: trial.user_attrs.get(name, "") for name in sorted(folds, key=_number)} | {"reason": reason}
        )
    return rows


def _number(fold: str) -> int:
    return int(fold.removeprefix("fold "))


def _params(trial: FrozenTrial) -> Mapping[str, Any]:
    """The trial's parameters, taken or still queued."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def _row(trial: FrozenTrial, again: Mapping[int | None, int]) -> dict[str, object]:
    """The columns of a trial that do not depend on what is searched."""
    steps = trial.intermediate_values
    state, reason = _state(trial)
    if trial.number in again:
        reason += f"; done again as trial {again[trial.number]}"
    return {
        "number": trial.number,
        "state": state,
        "value": trial.value if state == "complete" else "",
        "epochs": len(steps),
        "last": steps[max(steps)] if steps else "",
        "seconds": round(trial.duration.total_seconds(), 1) if trial.duration else "",
        "worker": trial.user_attrs.get("worker", ""),
        "reason": reason,
    }


def _state(trial: FrozenTrial) -> tuple[str, str]:
    """What became of a trial (complete, pruned, failed, stopped, died, running, waiting), and why."""
    reason = trial.user_attrs.get("reason")
    if trial.state.name == "PRUNED":
        if reason is None:
            return "pruned", f"after {max(trial.intermediate_values)} epochs"
        return "failed", reason
    if trial.state.name == "FAIL":
        ended = trial.user_attrs.get("error", "its process was killed")
        return ("stopped", reason) if reason is not None else ("died", f"{ended} (attempt {attempts(trial)})")
    return trial.state.name.lower(), ""


def report(study: Study, out: Path) -> None:
    """Write the table, the best settings and the pictures as they now are."""
    write_rows(out / "trials.csv", table(study))
    best = best_trial(study)
    if best is None:
        return
    _write_best(best, out / "best.yaml")
    trials = study.get_trials(deepcopy=False)
    points: dict[str, tuple[list[float], list[float]]] = {}
    for trial in trials:
        state, _ = _state(trial)
        if state in ("complete", "pruned"):
            steps = trial.intermediate_values
            places, values = points.setdefault(state, ([], []))
            places.append(trial.number)
            values.append(float(trial.value if state == "complete" else steps[max(steps)]))  # type: ignore[arg-type]
    places, values = points["complete"]
    course = (places, list(itertools.accumulate(values, max)))
    labels = {"title": f"Best of {len(places)} complete trials: {best.value:.4f}", "xlabel": "trial"}
    plots.scatter(out / "history.png", points, line=("best so far", *course), **labels, ylabel="macro-F1")
    if len(places) >= ENOUGH and (shares := importance(study)):
        title = f"Importance of what is searched, over {len(places)} complete trials"
        plots.bars(out / "importance.png", shares, title=title, xlabel="share of the difference in score")


def _write_best(best: FrozenTrial, path: Path) -> None:
    import yaml

    settings = best.user_attrs.get("about") or best.params
    score = f"# trial {best.number}: macro-F1 {best.value:.4f}, mean over folds of people not trained on\n"
    write_text(path, score + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))


def importance(study: Study) -> dict[str, float]:
    """The share of each parameter in what sets the best tenth of the complete trials apart, largest first; empty where
    there are too few or nothing differs.

    Source: Watanabe et al. 2023, arXiv 2304.10255 (PED-ANOVA), as Optuna computes it.
    """
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    values = [trial.value for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    if len(values) < ENOUGH or len(set(values)) < 2:
        return {}
    with quiet():
        warnings.simplefilter("ignore")  # of few trials, which the picture's title tells
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    return {name: share for name, share in found.items() if share == share}
