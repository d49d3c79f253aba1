"""A search for the recipe, the backbone and the crops that score best on people that a trial did not train on.

A trial trains once on each fold; its score is the mean over the folds of the last epoch's, so that no epoch is chosen
on the rows that score it. Several processes, on several machines, may work on one study, and it goes on when called
again.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from multihead.cache import Cache, open_cache
from multihead.data import Photos
from multihead.metrics import selection_of
from multihead.outputs import check_kind
from multihead.study import Plan, Worker, claim, need_optuna, open_study, quiet, take_back
from multihead.train import prepare
from multihead.trials import line, report
from multihead.ways import Arm, check_arm, made_anew

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

FAULTS = (ValueError, KeyError, ImportError, torch.OutOfMemoryError)  # settings that cannot be trained with
SAME = 3  # so many first trials that fail for one reason end the search
PAUSE = 1.0  # seconds between two looks at the other processes' trials


class Stopped(Exception):
    """A trial that the time budget ended; it is queued again."""


def search(
    arm: Callable[[Trial], Arm],
    photos: Photos,
    out: str | Path,
    *,
    plan: Plan = Plan(),
    seed: int = 0,
    first: Mapping[str, Any] | None = None,
    about: Mapping[str, object] | None = None,
    cache: bool | str | Path | Cache = True,
    say: Callable[[str], None] = lambda text: None,
) -> Study:
    """The Optuna study after its trials; `arm(study.best_trial)` is the best way to train.

    arm: asks the trial for what is searched (`trial.suggest_float("lr", 1e-4, 1e-2, log=True)`) and gives the way to
    train. photos: dealt into `plan.folds` parts by person, each scored by the run that did not see it; leave out the
    people that the final score is to be told on. seed: of all trials, and of what is proposed. first: parameters of
    the first trial, such as the ones used so far. about: what else must be the same where a study goes on. cache: as
    `train.epochs` takes it.

    Call it again with the same arguments to go on, or in several processes at once; a trial whose process is killed is
    done by another, or by the next call. One that the time budget or Ctrl-C stops is done by the next call.

    Writes into `out`: trials.csv, best.yaml (the best arm's `about`, else its parameters), history.png,
    importance.png (after four completed trials), study.journal, and workers/ with the locks of the processes.

    Raises: ImportError where Optuna is missing; FileExistsError where `out` holds something else, as a run; ValueError
    where it holds another search, or where the first trials all fail for one reason.
    """
    need_optuna()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("a trial trains in one process; start the search several times on one study, not by torchrun")
    out = Path(out)
    check_kind(out, "a search")
    folds = photos.folds(plan.folds, seed=0)
    identity = {"photos": photos.fingerprint(), "folds": plan.folds, "seed": seed, **(about or {})}
    with quiet(), Worker(out) as worker:
        with worker.turn():
            study = open_study(out, plan, seed)
            claim(study, identity)
            if first is not None and not study.get_trials(deepcopy=False):
                study.enqueue_trial(dict(first))
        loading: dict[str, Any] = {"workers": plan.workers, "cache": open_cache(cache)}
        ends = time.monotonic() + 60 * (plan.minutes or float("inf"))
        job = _Job(arm, folds, loading, seed, ends, worker.name)
        try:
            _work(study, worker, job, plan.limit, out, say)
        finally:
            with worker.turn():
                take_back(study, worker)
                report(study, out)
    return study


class _Job:
    """What this process does with a trial."""

    def __init__(
        self,
        arm: Callable[[Trial], Arm],
        folds: Sequence[tuple[Photos, Photos]],
        loading: Mapping[str, Any],
        seed: int,
        ends: float,
        worker: str,
    ) -> None:
        self.arm, self.folds, self.loading, self.seed = arm, folds, loading, seed
        self.ends, self.worker = ends, worker
        self.begun = contextlib.ExitStack()  # left as soon as a trial is marked as this process's
        self.faults: list[str] | None = []  # of the first trials; None after one that had none

    def over(self) -> bool:
        """True where the time budget is spent."""
        return time.monotonic() >= self.ends

    def __call__(self, trial: Trial) -> float:
        """The score of the trial. Raises: TrialPruned where it is not worth going on, or cannot be trained."""
        from optuna import TrialPruned

        trial.set_user_attr("worker", self.worker)
        self.begun.close()
        try:
            made = self.arm(trial)
            check_arm(made)
            trial.set_user_attr("about", json.loads(json.dumps(dict(made.about), default=str)))
            return self._score(trial, made)
        except FAULTS as error:
            reason = str(error.args[0] if error.args else error).splitlines()[0]
            trial.set_user_attr("reason", reason)
            raise TrialPruned(reason) from error  # so the sampler learns to stay away from it
        except (Stopped, KeyboardInterrupt) as error:
            trial.set_user_attr("reason", str(error) or "interrupted")
            raise
        except TrialPruned:
            raise
        except Exception as error:
            trial.set_user_attr("error", repr(error))
            raise

    def _score(self, trial: Trial, arm: Arm) -> float:
        """The mean over the folds of the last epoch's score."""
        found: list[float] = []
        made_anew(arm)
        for fold, (train, valid) in enumerate(self.folds):
            torch.manual_seed(self.seed)
            (model,), recipe = arm.models(), arm.settled(self.seed)
            run = prepare(model, arm.chosen(train, heads=model.heads), valid, recipe, **self.loading)
            score = float("nan")
            for row in run.epochs(False):
                score = selection_of(row)
                left = recipe.epochs * (len(self.folds) - fold) - row["epoch"]
                self._look(trial, float(np.mean([*found, score])), fold * recipe.epochs + row["epoch"], left)
            if score != score:
                raise ValueError(f"fold {fold}: no photo to score can be read and has its labels")
            found.append(score)
            trial.set_user_attr(f"fold {fold}", score)
        return float(np.mean(found))

    def _look(self, trial: Trial, value: float, step: int, left: int) -> None:
        """Report the running mean, and end the trial where it is not worth going on or the time is over."""
        from optuna import TrialPruned

        if value == value:  # an epoch without validation has none
            trial.report(value, step)
            if left and trial.should_prune():
                raise TrialPruned(f"after {step} of {step + left} epochs")
        if left and self.over():
            raise Stopped("stopped by the time budget")

    def judge(self, trial: FrozenTrial) -> None:
        """Nothing, or a complaint. Raises: ValueError where the first trials all failed for one reason."""
        if self.faults is None or trial.state.name == "FAIL":
            return
        reason = trial.user_attrs.get("reason")
        self.faults = None if reason is None else [*self.faults, reason]
        if self.faults and len(self.faults) == SAME and len(set(self.faults)) == 1:
            raise ValueError(f"the first {SAME} trials all failed: {reason}")


def _work(study: Study, worker: Worker, job: _Job, limit: float, out: Path, say: Callable[[str], None]) -> None:
    """Do trials until the study has as many as it is to have, or the time is over."""
    while not job.over():
        with contextlib.ExitStack() as turn:
            turn.enter_context(worker.turn())
            take_back(study, worker)
            done, running = _count(study)
            if done + running < limit:
                job.begun = turn.pop_all()
                with job.begun:
                    try:
                        study.optimize(job, n_trials=1, catch=(Stopped,))
                    except NameError as error:  # optuna's, where Ctrl-C comes while it writes its journal
                        if isinstance(error.__context__, KeyboardInterrupt):
                            raise error.__context__ from None
                        raise
        if done + running < limit:
            with worker.turn():
                report(study, out)
                trial = _last(study, worker.name)
            say(line(study, trial))
            job.judge(trial)
        elif running:  # by another process, which may die
            time.sleep(PAUSE)
        else:
            return


def _count(study: Study) -> tuple[int, int]:
    """How many trials have an answer, and how many run."""
    states = [trial.state.name for trial in study.get_trials(deepcopy=False)]
    return states.count("COMPLETE") + states.count("PRUNED"), states.count("RUNNING")


def _last(study: Study, worker: str) -> FrozenTrial:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.user_attrs.get("worker") == worker][-1]
