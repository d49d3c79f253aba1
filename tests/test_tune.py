"""The search, with training replaced by a formula wherever the search itself is looked at."""

import copy
import csv
import functools
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
import torch
import yaml

from multihead import trials, tune
from multihead.cli import main
from multihead.crops import FULL
from multihead.heads import HEADS, UNKNOWN
from multihead.metrics import selection_of
from multihead.model import Model
from multihead.optim import AdamW
from multihead.outputs import check_kind
from multihead.reading import read
from multihead.recipe import Recipe
from multihead.steps import Diverged
from multihead.study import Lock, Plan, Worker, attempts, take_back
from multihead.train import fit
from multihead.trials import best_trial, importance, table
from multihead.tune import search
from multihead.ways import Arm

ROOT = Path(__file__).parents[1]
EPOCHS, FOLDS = 2, 2
QUICK = ["--model", "test_resnet", "--resize", "32", "24", "--epochs", "2", "-b", "8"]


def run(*argv):
    try:
        return main([str(part) for part in argv])
    except SystemExit as leave:
        return leave.code


@pytest.fixture(scope="module")
def photos(people):
    return read(people / "train")[::2]


def small():
    return Model("test_resnet", [head.on(FULL.resized(32, 24)) for head in HEADS])


once = functools.cache(small)


def shared():
    """A copy, which is made faster than a model."""
    return copy.deepcopy(once())


def arm(trial, model=shared):
    rate = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    return Arm(model, Recipe(epochs=EPOCHS, batch_size=8, optim=AdamW(rate)))


def worth(rate):
    """What the formula gives a rate: best at 1e-2."""
    return 1 - (math.log10(rate) + 2) ** 2 / 10


class Formula:
    """Takes the place of `prepare`: each epoch gives its share of what the rate is worth, fold by fold .1 more."""

    def __init__(self):
        self.runs, self.before = [], lambda recipe, epoch: None

    def __call__(self, model, train, valid, recipe, **loading):
        fold = len([1 for run in self.runs if run[2] == recipe]) % FOLDS
        self.runs.append((train, valid, recipe, loading))
        return SimpleNamespace(epochs=lambda progress: self.rows(recipe, fold))

    def rows(self, recipe, fold):
        for epoch in range(1, recipe.epochs + 1):
            self.before(recipe, epoch)
            score = (worth(recipe.optim.lr) + 0.1 * fold) * epoch / recipe.epochs
            yield {"epoch": epoch, "macro_f1": score, "selected_by": "macro_f1"}


@pytest.fixture
def formula(monkeypatch):
    """No training, no pictures."""
    made = Formula()
    monkeypatch.setattr(tune, "prepare", made)
    for name in ("scatter", "bars"):
        monkeypatch.setattr(trials.plots, name, lambda *args, **options: None)
    return made


def plan(count, **settings):
    return Plan(folds=FOLDS, trials=count, **settings)


def states(study):
    return [row["state"] for row in table(study)]


def rows_of(folder):
    with open(folder / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


# ---- a search


def test_a_trial_is_the_mean_of_the_folds(photos, formula, tmp_path):
    told = []
    study = search(arm, photos, tmp_path / "t", plan=plan(2), seed=5, first={"lr": 1e-2}, say=told.append)
    first = study.trials[0]
    assert first.params == {"lr": 1e-2} and first.value == pytest.approx(1.05)
    # the running mean: fold 0's two epochs, then fold 1's beside fold 0's last
    assert first.intermediate_values == pytest.approx({1: 0.5, 2: 1.0, 3: (1 + 0.55) / 2, 4: 1.05})
    row = rows_of(tmp_path / "t")[0]
    assert (row["number"], row["state"], row["epochs"]) == ("0", "complete", "4")
    assert [float(row[name]) for name in ("value", "fold 0", "fold 1")] == pytest.approx([1.05, 1, 1.1])
    assert told[0] == "trial 0: 1.0500 (lr 0.01); best 1.0500, trial 0" and len(told) == 2
    assert yaml.safe_load((tmp_path / "t" / "best.yaml").read_text()) == best_trial(study).params
    assert arm(study.best_trial).recipe.optim == AdamW(0.01)


def test_every_trial_sees_the_same_folds_of_people(photos, formula, tmp_path):
    search(arm, photos, tmp_path / "t", plan=plan(3, pruner="none"), seed=5)
    assert len(formula.runs) == 3 * FOLDS
    for number, (train, valid, recipe, loading) in enumerate(formula.runs):
        assert not set(train.people) & set(valid.people)
        assert sorted(train.paths + valid.paths) == sorted(photos.paths)
        assert valid.paths == formula.runs[number % FOLDS][1].paths
        assert (recipe.seed, recipe.select, recipe.val_interval) == (5, "last", 1)
        assert loading["cache"] is formula.runs[0][3]["cache"]
    assert {path for run in formula.runs[:FOLDS] for path in run[1].paths} == set(photos.paths)


def test_rows_full_leaves_photos_out_of_training_only(photos, formula, tmp_path):
    some = photos.with_columns(mask=np.where(np.arange(len(photos)) % 2, photos.table["mask"], UNKNOWN))

    def full(trial):
        return Arm(shared, arm(trial).recipe, rows="full")

    search(full, some, tmp_path / "t", plan=plan(1))
    for train, valid, *_ in formula.runs:
        assert (train.labels() != UNKNOWN).all() and (valid.labels() == UNKNOWN).any()


def test_the_search_finds_what_is_best(photos, formula, tmp_path):
    study = search(arm, photos, tmp_path / "t", plan=plan(18), seed=1, first={"lr": 1e-4})
    assert states(study).count("pruned") > 3
    assert abs(math.log10(study.best_params["lr"]) + 2) < 0.3 and study.best_value > study.trials[0].value
    assert len({trial.params["lr"] for trial in study.trials}) == 18
    pruned = [trial for trial in study.trials if trial.state.name == "PRUNED"]
    complete = [trial.value for trial in study.trials if trial.state.name == "COMPLETE"]
    assert all(len(trial.intermediate_values) < EPOCHS * FOLDS for trial in pruned)
    assert max(worth(trial.params["lr"]) for trial in pruned) < max(complete)


@pytest.mark.parametrize(("pruner", "pruned"), [("median", True), ("hyperband", True), ("none", False)])
def test_pruners(photos, formula, tmp_path, pruner, pruned):
    rates = iter([1e-2, 9e-3, 8e-3, 7e-3, 1.1e-4, 1e-4, 1.2e-4, 1.3e-4])

    def given(trial):
        rate = next(rates)
        return Arm(shared, Recipe(epochs=EPOCHS, optim=AdamW(trial.suggest_float("lr", rate, rate))))

    study = search(given, photos, tmp_path / "t", plan=plan(8, pruner=pruner))
    assert ("pruned" in states(study)[4:]) == pruned and "pruned" not in states(study)[:1]
    if pruner == "median":
        assert states(study) == ["complete"] * 4 + ["pruned"] * 4
        assert table(study)[4]["reason"] == "after 1 epochs" and table(study)[4]["value"] == ""
        assert table(study)[4]["last"] == pytest.approx(worth(1.1e-4) / 2)


def test_a_search_goes_on(photos, formula, tmp_path):
    one = search(arm, photos, tmp_path / "t", plan=plan(2), first={"lr": 1e-3})
    runs, begun = len(formula.runs), [trial.params for trial in one.trials]
    same = search(arm, photos, tmp_path / "t", plan=plan(2), first={"lr": 1e-3})
    assert len(formula.runs) == runs and len(same.trials) == 2
    more = search(arm, photos, tmp_path / "t", plan=plan(5), first={"lr": 1e-3})
    assert [trial.params for trial in more.trials[:2]] == begun
    assert len(more.trials) == 5 and len({trial.params["lr"] for trial in more.trials}) == 5
    assert len(rows_of(tmp_path / "t")) == 5
    assert sorted(path.name for path in (tmp_path / "t" / "workers").iterdir()) == ["journal", "turn"]


def test_a_search_with_the_same_seed_is_the_same(photos, formula, tmp_path):
    found = [search(arm, photos, tmp_path / name, plan=plan(3), seed=seed) for name, seed in zip("abc", (1, 1, 2))]
    rates = [[trial.params["lr"] for trial in study.trials] for study in found]
    assert rates[0] == rates[1] != rates[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plan": Plan(folds=3, trials=1)}, "folds 2, now 3"),
        ({"seed": 1}, "seed 0, now 1"),
        ({"about": {"epochs": 3}}, "epochs 2, now 3"),
        ({"about": {}}, "epochs 2, now None"),
    ],
)
def test_other_settings_are_refused(photos, formula, tmp_path, change, message):
    first = {"plan": plan(1), "about": {"epochs": 2}}
    search(arm, photos, tmp_path / "t", **first)
    with pytest.raises(ValueError, match=rf"'multihead' was begun with other settings \({message}\); give the same"):
        search(arm, photos, tmp_path / "t", **first | change)


def test_other_photos_are_refused(photos, formula, tmp_path):
    search(arm, photos, tmp_path / "t", plan=plan(1))
    with pytest.raises(ValueError, match=r"settings \(photos '\w+', now '\w+'\)"):
        search(arm, photos[1:], tmp_path / "t", plan=plan(1))


# ---- what cannot be trained


def test_what_diverges_is_told_and_the_search_goes_on(photos, formula, tmp_path):
    def before(recipe, epoch):
        if recipe.optim.lr > 1e-3:
            raise Diverged("the loss is nan in epoch 1, batch 1; lower lr, or set clip_grad")

    formula.before = before
    study = search(arm, photos, tmp_path / "t", plan=plan(8), first={"lr": 1e-3}, seed=3)
    failed = [row for row in rows_of(tmp_path / "t") if row["state"] == "failed"]
    assert 0 < len(failed) < 8 and all(float(row["lr"]) > 1e-3 for row in failed)
    assert {row["reason"] for row in failed} == {"the loss is nan in epoch 1, batch 1; lower lr, or set clip_grad"}
    assert study.best_params["lr"] <= 1e-3 and len(study.trials) == 8


def test_a_recipe_that_does_not_fit_the_model_is_a_failed_trial(photos, tmp_path):
    from multihead.losses import Focal

    def wrong(trial):
        return Arm(small, Recipe(losses={"hat": Focal()}))

    told = []
    with pytest.raises(ValueError, match="the first 3 trials all failed: .*'hat'"):
        search(wrong, photos, tmp_path / "t", plan=plan(9), say=told.append)
    assert len(told) == 3 and told[0].startswith("trial 0: failed: ") and "best" not in told[0]
    assert [row["state"] for row in rows_of(tmp_path / "t")] == ["failed"] * 3
    assert not (tmp_path / "t" / "best.yaml").exists()


def test_a_model_made_once_is_a_failed_trial(photos, tmp_path):
    model = small()
    with pytest.raises(ValueError, match="the first 3 trials all failed: model= gives the same weights"):
        search(lambda trial: Arm(lambda: model, Recipe(epochs=1)), photos, tmp_path / "t", plan=plan(9))


def test_an_error_of_the_program_ends_the_search_and_is_told(photos, formula, tmp_path):
    def broken(recipe, epoch):
        raise ZeroDivisionError("oh")

    formula.before = broken
    with pytest.raises(ZeroDivisionError):
        search(arm, photos, tmp_path / "t", plan=plan(1), first={"lr": 1e-2})
    rows = rows_of(tmp_path / "t")
    assert [row["state"] for row in rows] == ["died", "waiting"] and rows[1]["lr"] == "0.01"
    assert rows[0]["reason"] == "ZeroDivisionError('oh') (attempt 1); done again as trial 1"
    formula.before = lambda recipe, epoch: None
    assert states(search(arm, photos, tmp_path / "t", plan=plan(1))) == ["died", "complete"]


def test_folds_without_labels(photos, monkeypatch, tmp_path):
    def nothing(*args, **options):
        return SimpleNamespace(epochs=lambda progress: iter([{"epoch": 1}]))

    monkeypatch.setattr(tune, "prepare", nothing)
    with pytest.raises(ValueError, match="all failed: fold 0: no photo to score can be read and has its labels"):
        search(arm, photos, tmp_path / "t", plan=plan(3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pruner": "x"}, "plan: pruner is 'x'; expected one of median, hyperband, none"),
        ({"folds": 1}, "plan: folds is 1; expected a whole number >= 2"),
        ({"trials": 0}, "plan: trials is 0; expected a whole number >= 1"),
        ({"workers": -1}, "plan: workers is -1"),
        ({"minutes": 0}, "plan: minutes is 0; expected a number > 0"),
        ({"minutes": float("nan")}, "plan: minutes is nan"),
        ({"storage": "study.db"}, "plan: storage is 'study.db'; expected a URL, as sqlite:///study.db"),
    ],
)
def test_plans(settings, message):
    with pytest.raises(ValueError, match=message):
        Plan(**settings)


def test_limits():
    assert (Plan().limit, Plan(minutes=1).limit, Plan(trials=3, minutes=1).limit) == (20, math.inf, 3)


def test_torchrun_is_refused(photos, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="start the search several times on one study, not by torchrun"):
        search(arm, photos, tmp_path / "t")


def test_without_optuna(photos, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install 'multihead\[tune\]'"):
        search(arm, photos, tmp_path / "t")
    assert run("tune", tmp_path) == 2 and "pip install 'multihead[tune]'" in capsys.readouterr().err


# ---- nothing is lost


def test_the_time_budget_stops_a_trial_which_the_next_call_does(photos, formula, monkeypatch, tmp_path):
    now = [0.0]
    monkeypatch.setattr(tune, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=time.sleep))
    formula.before = lambda recipe, epoch: now.__setitem__(0, now[0] + 25)  # an epoch takes 25 seconds
    told = []
    search(arm, photos, tmp_path / "t", plan=Plan(folds=FOLDS, minutes=2.5), first={"lr": 1e-2}, say=told.append)
    rows = rows_of(tmp_path / "t")
    assert [row["state"] for row in rows] == ["complete", "stopped", "waiting"]
    assert [row["epochs"] for row in rows] == ["4", "2", "0"]
    assert rows[1]["reason"] == "stopped by the time budget; done again as trial 2" and rows[1]["value"] == ""
    assert rows[2]["lr"] == rows[1]["lr"] and told[1].startswith("trial 1: stopped: stopped by the time budget (lr")
    now[0] = 0.0
    study = search(arm, photos, tmp_path / "t", plan=plan(2))
    assert states(study) == ["complete", "stopped", "complete"]
    assert study.trials[2].params == study.trials[1].params
    assert attempts(study.trials[1]) == 0


def test_an_interrupted_trial_is_done_by_the_next_call(photos, formula, tmp_path):
    def interrupt(recipe, epoch):
        if len(formula.runs) > FOLDS:
            raise KeyboardInterrupt

    formula.before = interrupt
    with pytest.raises(KeyboardInterrupt):
        search(arm, photos, tmp_path / "t", plan=plan(3))
    rows = rows_of(tmp_path / "t")
    assert [row["state"] for row in rows] == ["complete", "stopped", "waiting"] and rows[1]["reason"][
        :11
    ] == "interrupted"
    formula.before = lambda recipe, epoch: None
    assert states(search(arm, photos, tmp_path / "t", plan=plan(3)))[2:] == ["complete", "complete"]


def lost(folder, name="gone-1-ab", **queued):
    """A study in which a trial runs in a process that is no more."""
    with Worker(folder) as worker, tune.quiet():
        study = tune.open_study(folder, plan(1), 0)
        if queued:
            study.enqueue_trial(queued)
        trial = study.ask()
        if name is not None:
            trial.set_user_attr("worker", name)
        return study, worker


@pytest.mark.parametrize("name", ["gone-1-ab", None])
def test_a_trial_of_a_dead_process_is_begun_again(photos, formula, tmp_path, name):
    lost(tmp_path / "t", name, lr=0.02)  # it died before it took its parameters
    study = search(arm, photos, tmp_path / "t", plan=plan(1))
    assert states(study) == ["died", "complete"] and study.trials[1].params == {"lr": 0.02}
    assert table(study)[0]["lr"] == 0.02
    assert table(study)[0]["reason"] == "its process was killed (attempt 1); done again as trial 1"


def test_what_kills_its_process_again_and_again_is_left(photos, formula, tmp_path):
    for number in range(6):
        study, worker = lost(tmp_path / "t", **({"lr": 0.02} if number == 0 else {}))
        with worker, worker.turn(), tune.quiet():
            take_back(study, worker)
    rows = table(study)
    told = [row["reason"] for row in rows if row["state"] == "died" and row["lr"] == 0.02]
    assert len(told) == 4 and told[-1] == "its process was killed (attempt 4)"  # once, and three times again


def test_a_line_that_a_full_disk_tore_loses_no_search(photos, formula, tmp_path):
    """What was written after it would stand in the same line, which nobody can read."""
    search(arm, photos, tmp_path / "t", plan=plan(2))
    journal = tmp_path / "t" / "study.journal"
    journal.write_bytes(journal.read_bytes()[:-30])  # within the answer of trial 1
    assert states(search(arm, photos, tmp_path / "t", plan=plan(2))) == ["complete", "died", "complete"]
    assert states(search(arm, photos, tmp_path / "t", plan=plan(3)))[3:] == ["complete"]


def test_a_damaged_journal_is_named(photos, formula, tmp_path):
    search(arm, photos, tmp_path / "t", plan=plan(1))
    journal = tmp_path / "t" / "study.journal"
    journal.write_text(journal.read_text().replace("{", "", 1))
    with pytest.raises(ValueError, match=r"study\.journal is damaged \(.*name another output folder"):
        search(arm, photos, tmp_path / "t", plan=plan(2))


def test_a_living_process_keeps_its_trial(tmp_path):
    with Worker(tmp_path) as one, Worker(tmp_path) as two:
        assert not one.died(two.name) and not one.died(one.name) and one.name != two.name
    assert one.died(two.name) and one.died("") and not one.died(one.name)


def test_a_process_may_end_while_it_is_asked_for(tmp_path, monkeypatch):
    worker, acquire = Worker(tmp_path), Lock.acquire
    (tmp_path / "workers" / "other.lock").touch()

    def late(lock, wait=True):
        got = acquire(lock, wait)
        lock.path.unlink()
        return got

    monkeypatch.setattr(Lock, "acquire", late)
    assert worker.died("other")


def test_a_holder_that_cannot_begin_gives_the_lock_back(tmp_path):
    def begin():
        raise PermissionError("read-only")

    lock = Lock(tmp_path / "lock", begin)
    with pytest.raises(PermissionError):
        lock.acquire()
    again = Lock(tmp_path / "lock")
    assert again.acquire(wait=False)
    again.release()


def test_turns_exclude_each_other(tmp_path):
    order = []
    with Worker(tmp_path) as one, Worker(tmp_path) as two:

        def other():
            with two.turn():
                order.append("two")

        thread = threading.Thread(target=other)
        with one.turn():
            thread.start()
            time.sleep(0.1)
            order.append("one")
        thread.join()
    assert order == ["one", "two"]


CHILD = """
import sys, time
sys.path[:0] = [{root!r}, {tests!r}]
import test_tune as t
from multihead import tune
tune.prepare = formula = t.Formula()
def before(recipe, epoch):
    print("in a trial", flush=True)
    time.sleep(100)
formula.before = before
t.search(t.arm, t.read({people!r})[::2], {out!r}, plan=t.plan(4), first={{"lr": 0.02}})
"""


@pytest.mark.slow
def test_a_killed_process_loses_no_trial(people, photos, formula, tmp_path):
    """One process is killed by SIGKILL in its trial while another searches: that one does the trial."""
    out = tmp_path / "t"
    code = CHILD.format(root=str(ROOT), tests=str(ROOT / "tests"), people=str(people / "train"), out=str(out))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    with child:
        try:
            assert child.stdout.readline() == "in a trial\n"
            killer = threading.Timer(1.5, lambda: os.kill(child.pid, signal.SIGKILL))
            killer.start()
            started = time.monotonic()
            study = search(arm, photos, out, plan=plan(4), first={"lr": 0.02})
        finally:
            child.kill()
    assert child.returncode == -signal.SIGKILL and time.monotonic() - started > 1
    rows = table(study)
    assert [row["state"] for row in rows] == ["died", *["complete"] * 4]
    assert rows[0]["lr"] == rows[4]["lr"] == 0.02 and rows[0]["worker"] != rows[4]["worker"]
    assert "done again as trial 4" in rows[0]["reason"]
    assert len({row["lr"] for row in rows}) == 4
    assert [row["state"] for row in rows_of(out)] == [row["state"] for row in rows]


# ---- a database


def test_a_database(photos, formula, tmp_path):
    stored = f"sqlite:///{tmp_path / 'x.db'}"
    search(arm, photos, tmp_path / "a", plan=plan(2, storage=stored))
    study = search(arm, photos, tmp_path / "b", plan=plan(3, storage=stored))
    assert states(study) == ["complete"] * 3 and len(rows_of(tmp_path / "b")) == 3
    assert not (tmp_path / "a" / "study.journal").exists()
    other = search(arm, photos, tmp_path / "a", plan=plan(1, storage=stored, study="other"), seed=4)
    assert len(other.trials) == 1
    with pytest.raises(ValueError, match="seed 4, now 0"):
        search(arm, photos, tmp_path / "a", plan=plan(1, storage=stored, study="other"))


def test_a_silent_process_of_a_database_is_dead(photos, formula, monkeypatch, tmp_path):
    monkeypatch.setattr("multihead.study.HEARTBEAT", 1)
    monkeypatch.setattr("multihead.study.GRACE", 1)
    at_database = plan(1, storage=f"sqlite:///{tmp_path / 'x.db'}")
    (tmp_path / "a" / "workers").mkdir(parents=True)
    with tune.quiet():
        study = tune.open_study(tmp_path / "a", at_database, 0)
        study.enqueue_trial({"lr": 0.02})
        with pytest.warns(UserWarning, match="Heartbeat"):
            trial = study.ask()
        study._storage.record_heartbeat(trial._trial_id)
    study = search(arm, photos, tmp_path / "b", plan=at_database)  # waits until the other is silent for long
    assert states(study) == ["died", "complete"] and study.trials[1].params == {"lr": 0.02}


@pytest.mark.parametrize("url", ["nothing:///x", "sqlite:////proc/none/x.db"])
def test_a_storage_that_cannot_be_opened(photos, tmp_path, url):
    with pytest.raises(ValueError, match="plan: the storage cannot be opened: "):
        search(arm, photos, tmp_path / "t", plan=plan(1, storage=url))


# ---- pictures


def test_importance_tells_what_matters_from_what_does_not():
    study = optuna.create_study(direction="maximize")
    rng = np.random.default_rng(0)
    spans = {name: optuna.distributions.FloatDistribution(0, 1) for name in ("idle", "much")}
    for number in range(40):
        params = {"idle": float(rng.random()), "much": float(rng.random())}
        if number == 3:
            assert importance(study) == {}
        study.add_trial(optuna.create_trial(value=params["much"], params=params, distributions=spans))
    found = importance(study)
    assert list(found) == ["much", "idle"] and found["much"] > 0.8 and sum(found.values()) == pytest.approx(1)


def test_importance_where_nothing_differs():
    study = optuna.create_study(direction="maximize")
    spans = {"lr": optuna.distributions.FloatDistribution(0, 1)}
    for number in range(5):
        study.add_trial(optuna.create_trial(value=0.5, params={"lr": number / 5}, distributions=spans))
    assert importance(study) == {}


def test_the_picture_of_the_course(photos, formula, monkeypatch, tmp_path):
    seen = {}
    monkeypatch.setattr(trials.plots, "scatter", lambda path, points, **rest: seen.update(points=points, **rest))
    study = search(arm, photos, tmp_path / "t", plan=plan(12), seed=1)
    complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert seen["points"]["complete"] == ([t.number for t in complete], [t.value for t in complete])
    name, places, values = seen["line"]
    assert name == "best so far" and places == [t.number for t in complete]
    assert values == np.maximum.accumulate([t.value for t in complete]).tolist()
    pruned = [t for t in study.trials if t.state.name == "PRUNED"]
    assert pruned and seen["points"]["pruned"][1] == [t.intermediate_values[max(t.intermediate_values)] for t in pruned]


# ---- the verb


@pytest.fixture
def marked(photos, tmp_path):
    """A table whose split column keeps a third of the people for validation, and those people."""
    train, valid = photos.split(0.3, seed=0)
    split = np.where(np.isin(photos.people, valid.people), "val", "train")
    photos.with_columns(split=split).write(tmp_path / "photos.csv")
    return tmp_path / "photos.csv", set(valid.paths)


def test_val_people_are_never_read(marked, formula, tmp_path, capsys):
    table, held = marked
    argv = ["tune", table, *QUICK, "--space", "lr=1e-4..1e-1:log", "--folds", FOLDS, "-o", tmp_path / "t"]
    assert run(*argv, "--trials", "2") == 0
    used = {path for train, valid, *_ in formula.runs for path in train.paths + valid.paths}
    assert held and used and not used & held
    out = capsys.readouterr().out
    assert "searching on the train part of the split column" in out and "best of 2 complete trials" in out
    assert "importance.png needs 4 complete trials of unlike scores" in out
    formula.runs.clear()
    text = table.read_text()  # a blank trains, as in the other verbs
    (table.parent / "blank.csv").write_text(text.replace(",train,", ",,"))
    assert run("tune", table.parent / "blank.csv", *argv[2:-1], tmp_path / "b", "--trials", "1", "-q") == 0
    assert used == {path for train, valid, *_ in formula.runs for path in train.paths + valid.paths}
    assert run(*argv, "--trials", "1", "--ignore-split", "-q", "-o", tmp_path / "u") == 0
    assert held < {path for train, valid, *_ in formula.runs for path in train.paths + valid.paths}


def test_a_split_column_without_train_or_with_people_on_both_sides(photos, formula, tmp_path, capsys):
    photos.with_columns(split="val").write(tmp_path / "a.csv")
    assert run("tune", tmp_path / "a.csv", *QUICK) == 2
    assert "the split column holds ['val'] and no train" in capsys.readouterr().err
    photos.with_columns(split=["train", "val"] * (len(photos) // 2)).write(tmp_path / "b.csv")
    assert run("tune", tmp_path / "b.csv", *QUICK) == 2
    assert "people are on both sides" in capsys.readouterr().err


@pytest.mark.slow
def test_from_the_command_line_to_a_trained_model(marked, tmp_path, capsys):
    table, held = marked
    space = {"lr": {"low": 1e-3, "high": 5e-2, "log": True}, "loss": ["crossentropy", "0.4*softf1 + 0.6*focal"]}
    config = {
        "model": "test_resnet",
        "resize": [32, 24],
        "epochs": 3,
        "batch_size": 8,
        "space": space,
        "data": [str(table)],
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    argv = [
        "tune",
        "-c",
        tmp_path / "c.yaml",
        "--folds",
        "2",
        "--trials",
        "4",
        "--pruner",
        "none",
        "-o",
        tmp_path / "t",
    ]
    assert run(*argv) == 0
    out = capsys.readouterr().out
    assert out.startswith("searching on the train part") and "; trial 0 " in out
    for name in ("history.png", "importance.png"):
        assert (tmp_path / "t" / name).read_bytes()[:4] == b"\x89PNG"
    rows = rows_of(tmp_path / "t")
    assert (
        [row["state"] for row in rows] == ["complete"] * 4
        and rows[0]["lr"] == "0.001"
        and rows[0]["loss"] == "crossentropy"
    )
    best = max(rows, key=lambda row: float(row["value"]))
    flags = yaml.safe_load((tmp_path / "t" / "best.yaml").read_text())
    assert flags["lr"] == float(best["lr"]) and not {"data", "output", "space"} & set(flags)
    assert (flags["resize"], flags["epochs"], flags["select"]) == ([32, 24], 3, "best")
    assert run("train", table, "-c", tmp_path / "t" / "best.yaml", "-o", tmp_path / "run", "-q") == 0
    used = yaml.safe_load((tmp_path / "run" / "args.yaml").read_text())
    assert {key: used.get(key) for key in flags} == flags
    assert run(*argv, "--epochs", "2") == 2
    assert "begun with other settings (epochs 3, now 2)" in capsys.readouterr().err


def test_a_trial_is_a_run(photos, tmp_path):
    """The score of a trial against training each fold by hand."""
    study = search(lambda trial: arm(trial, small), photos, tmp_path / "t", plan=plan(1), seed=3, first={"lr": 1e-2})
    by_hand = []
    for train, valid in photos.folds(FOLDS, seed=0):
        torch.manual_seed(3)
        recipe = Recipe(epochs=EPOCHS, batch_size=8, optim=AdamW(1e-2), seed=3)
        by_hand.append(selection_of(fit(small(), train, valid, recipe)[-1]))
    assert study.best_value == pytest.approx(np.mean(by_hand), abs=1e-9)
    assert json.loads(json.dumps(study.user_attrs["identity"]))["folds"] == FOLDS


# ---- what ends a search, and where it may begin


def test_a_folder_of_something_else_is_refused(photos, formula, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="run holds a run; name another folder .* for a search"):
        search(arm, photos, tmp_path / "run", plan=plan(1))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoints"]
    search(arm, photos, tmp_path / "t", plan=plan(1))
    with pytest.raises(FileExistsError, match="t holds a search; name another folder"):
        check_kind(tmp_path / "t", "a comparison")


def test_a_search_without_a_trained_trial_ends_with_an_error(people, tmp_path, capsys, monkeypatch):
    def diverged(trial, made):
        raise Diverged(f"the loss is nan in trial {trial.number}")

    monkeypatch.setattr(tune._Job, "_score", lambda self, trial, made: diverged(trial, made))
    out = tmp_path / "t"
    argv = ["tune", people / "train", "--model", "test_resnet", "--resize", "32", "--space", "lr=1e-3,1e-2", "-o", out]
    assert run(*argv, "--trials", "2", "--folds", "2") == 2
    told = capsys.readouterr().err
    assert "none of 2 trials could be trained to its end" in told and "trials.csv" in told
    assert len(rows_of(out)) == 2


def test_an_interruption_that_optuna_garbles_is_one(photos, formula, tmp_path, monkeypatch):
    """Its own code trips over a name where Ctrl-C comes while it writes its journal."""

    def garbled(self, *args, **options):
        try:
            raise KeyboardInterrupt
        finally:
            updated_state  # noqa: B018, F821

    monkeypatch.setattr(optuna.Study, "optimize", garbled)
    with pytest.raises(KeyboardInterrupt):
        search(arm, photos, tmp_path, plan=plan(1))


def test_a_misspelled_name_of_ones_own_is_one(photos, formula, tmp_path):
    """Also where it comes while another error is handled."""

    def wrong(trial):
        try:
            raise ValueError("first")
        except ValueError:
            mispelled  # noqa: B018, F821

    with pytest.raises(NameError, match="mispelled"):
        search(wrong, photos, tmp_path, plan=plan(1))
