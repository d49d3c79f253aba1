"""A run that is killed and resumed ends with the bits of one that was not."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from multihead import checkpoint
from multihead.augment import Cutout, Flip, Gentle
from multihead.balance import DWA, Uncertainty
from multihead.crops import FULL
from multihead.heads import HEADS
from multihead.losses import Focal, SoftF1, Sum
from multihead.masks import DrawnMask
from multihead.mixing import CutMix, MixUp
from multihead.model import Model
from multihead.optim import MADGRAD, SGD, Adam, AdamW
from multihead.reading import read
from multihead.recipe import EMA, Recipe
from multihead.runs import Run
from multihead.samplers import Weighted
from multihead.schedules import Cosine, Cyclic, OneCycle, Plateau, Step
from multihead.train import epochs, fit

ROOT = Path(__file__).parents[1]
SMALL = FULL.resized(48, 36)
HARD = Recipe(
    epochs=2,
    batch_size=4,
    optim=MADGRAD(1e-3, weight_decay=1e-4),
    schedule=OneCycle(),
    smoothing=0.1,
    grad_accum_steps=2,
    clip_grad=5.0,
    ema=EMA(0.9),
    amp=True,
    recovery_interval=2,
    seed=3,
)
TIMES = ["photos_per_s", "seconds"]

# the runner kills itself outright after a step of an epoch, on one process: as a cut of power would
RUNNER = """
import json, os, signal, sys
sys.path.insert(0, {tests!r})
from test_resume import HARD, sides, small_model
from multihead import ranks
from multihead.runs import Run
from multihead.train import fit

people, out, workers, kill = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
plain = Run._step

def step(run):
    plain(run)
    done = run.batch // HARD.grad_accum_steps
    if kill and (run.epoch, done, ranks.rank()) == tuple(kill):
        os.kill(os.getpid(), signal.SIGKILL)

Run._step = step
fit(small_model(), *sides(people), HARD, out=out, workers=workers, resume=True)
"""


def small_model(heads=HEADS, seed=5):
    torch.manual_seed(seed)
    return Model("test_resnet", [head.on(SMALL) for head in heads], drop=0.2, drop_path=0.1)


def sides(people):
    return read(Path(people) / "train").split(0.2, seed=0)


def digest(state):
    """SHA-256 of names, shapes and bits."""
    found = hashlib.sha256()
    for key in sorted(state):
        value = state[key].contiguous()
        found.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def end_of(folder):
    """All that must be equal of two runs: the weights' digests, the rows without times, the scores."""
    rows = pd.read_csv(folder / "metrics.csv").drop(columns=TIMES)
    best = checkpoint.load(folder / "checkpoints" / "best.pt")
    last = checkpoint.load(folder / "checkpoints" / "last.pt")
    return {
        "model": hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest(),
        "best": (digest(best["model"]), best["epoch"], best["score"]),
        "last": (digest(last["model"]), digest(last["ema"]) if last["ema"] else None, last["epoch"], last["batch"]),
        "metrics.csv": rows.to_csv(index=False),
        "metrics.json": (folder / "metrics.json").read_text(),
        "splits.csv": (folder / "splits.csv").read_text(),
    }


def runner(folder, people, out, *, ranks=1, kill=None):
    """Train in fresh processes; the exit status."""
    script = folder / "runner.py"
    script.write_text(RUNNER.format(tests=str(ROOT / "tests")))
    launch = [] if ranks == 1 else ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = [sys.executable, *launch, script, people, out, "2", json.dumps(kill)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True, timeout=300)
    if kill is None:
        assert done.returncode == 0, done.stderr[-4000:]
    return done.returncode


def assert_stopped_in_mid_epoch(folder, epoch):
    state = checkpoint.load(folder / "checkpoints" / "last.pt")
    assert state["epoch"] == epoch and state["batch"] > 0 and state["batch"] % HARD.grad_accum_steps == 0
    assert len(state["rows"]) == epoch - 1 and not (folder / "model").exists()
    steps = state["batch"] // HARD.grad_accum_steps
    assert [part["n loss"] for part in state["losses"]] == [steps] * len(state["losses"])


@pytest.mark.slow
def test_killed_and_resumed_on_one_process(people, tmp_path):
    torch.rand(17)  # the caller's own random numbers have no part in it
    fit(small_model(), *sides(people), HARD, out=tmp_path / "whole", workers=2)
    assert runner(tmp_path, people, tmp_path / "killed", kill=(2, 5, 0)) == -signal.SIGKILL
    assert_stopped_in_mid_epoch(tmp_path / "killed", 2)
    runner(tmp_path, people, tmp_path / "killed")
    assert end_of(tmp_path / "killed") == end_of(tmp_path / "whole")


@pytest.mark.slow
def test_killed_and_resumed_on_two_processes(people, tmp_path):
    runner(tmp_path, people, tmp_path / "whole", ranks=2)
    assert runner(tmp_path, people, tmp_path / "killed", ranks=2, kill=(2, 3, 1)) != 0
    assert_stopped_in_mid_epoch(tmp_path / "killed", 2)
    runner(tmp_path, people, tmp_path / "killed", ranks=2)
    assert end_of(tmp_path / "killed") == end_of(tmp_path / "whole")


class Crash(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture(scope="module")
def whole(people, tmp_path_factory):
    """The end of an uninterrupted run of HARD."""
    folder = tmp_path_factory.mktemp("whole")
    fit(small_model(), *sides(people), HARD, out=folder, workers=0)
    return end_of(folder)


def crashed(people, folder, recipe, monkeypatch, name, moment, *, before=False):
    """A run that dies in (or, with before, ahead of) a method of Run the moment-th time that it is called."""
    plain, calls = getattr(Run, name), []

    def dying(run, *args):
        calls.append(name)
        if before and len(calls) == moment:
            raise Crash
        result = plain(run, *args)
        if len(calls) == moment:
            raise Crash
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Run, name, dying)
        with pytest.raises(Crash):
            fit(small_model(), *sides(people), recipe, out=folder, resume=True, workers=0)


MOMENTS = {
    "before the first checkpoint": ("_step", 1, False),
    "after a checkpoint within the first epoch": ("_step", 2, False),
    "in the last step of an epoch": ("_step", 8, False),
    "before validation": ("_validate", 2, True),
    "with the best weights written, the checkpoint not": ("_keep", 1, False),
    "with the row written, the checkpoint not": ("_save", 4, True),
    "at the end of an epoch": ("_save", 4, False),
    "before the model is written": ("_finish", 1, True),
    "when all is done": ("_finish", 1, False),
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_resumed_from_any_moment(people, tmp_path, whole, monkeypatch, moment):
    name, number, before = moment
    crashed(people, tmp_path, HARD, monkeypatch, name, number, before=before)
    model = small_model() if moment[:2] == ("_step", 1) else small_model(seed=99)  # a checkpoint holds all that counts
    fit(model, *sides(people), HARD, out=tmp_path, resume=True, workers=0)
    assert end_of(tmp_path) == whole


def test_resumed_after_many_crashes(people, tmp_path, whole, monkeypatch):
    crashed(people, tmp_path, HARD, monkeypatch, "_step", 5)
    for _ in range(2):
        calls = []

        def dying(run, plain=Run._step, calls=calls):
            plain(run)
            calls.append(1)
            if len(calls) == 5:
                raise Crash

        with monkeypatch.context() as patch, pytest.raises(Crash):
            patch.setattr(Run, "_step", dying)
            fit(small_model(), *sides(people), HARD, out=tmp_path, resume=True, workers=0)
    fit(small_model(), *sides(people), HARD, out=tmp_path, resume=True, workers=0)
    assert end_of(tmp_path) == whole


PLAIN = Recipe(epochs=2, batch_size=16, recovery_interval=1, seed=1)
OTHERS = {
    "adamw, cosine": {"optim": AdamW(1e-3), "schedule": Cosine(warmup_epochs=0.5), "ema": EMA(0.9)},
    "adam, cyclic": {"optim": Adam(1e-3), "schedule": Cyclic(up_epochs=0.5, down_epochs=0.5)},
    "sgd, step, last": {"optim": SGD(0.01), "schedule": Step(decay_epochs=1), "select": "last", "ema": EMA(0.5)},
    "mixed, masked, weighed, frozen": {
        "epochs": 3,
        "mix": CutMix(0.7),
        "augment": (Gentle(), Cutout(), DrawnMask(0.9)),
        "balance": Uncertainty(),
        "sampler": Weighted(),
        "freeze_epochs": 1,
        "layer_decay": 0.8,
        "losses": Sum((SoftF1(), Focal()), (0.4, 0.6)),
    },
    "dwa, plateau": {"epochs": 4, "balance": DWA(), "schedule": Plateau(0), "epoch_photos": 64, "mix": MixUp(0.5)},
    "no channels_last": {"channels_last": False, "augment": Flip(0.2), "head_weights": {"age": 2.0}},
}


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS)
def test_other_recipes_resume_as_well(people, tmp_path, monkeypatch, changes):
    from dataclasses import replace

    recipe = replace(PLAIN, **changes)
    fit(small_model(), *sides(people), recipe, out=tmp_path / "whole", workers=0)
    for moment in (2, 8) if recipe.epochs > 2 else (6, 1):  # in the first epoch, where it may be frozen, and after
        crashed(people, tmp_path / "crashed", recipe, monkeypatch, "_step", moment)
    fit(small_model(), *sides(people), recipe, out=tmp_path / "crashed", resume=True, workers=0)
    assert end_of(tmp_path / "crashed") == end_of(tmp_path / "whole")


def contents(folder):
    """The bytes of every file but the events, and how many event files there are."""
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    events = [path for path in files if "tfevents" in path.name]
    return {str(p): files[p].read_bytes() for p in files if p not in events}, len(events)


@pytest.mark.parametrize("select", ["best", "last"])
def test_a_finished_run_resumed_trains_nothing(people, tmp_path, monkeypatch, select):
    recipe = Recipe(epochs=2, batch_size=16, select=select)
    fit(small_model(), *sides(people), recipe, out=tmp_path, workers=0)
    before = contents(tmp_path)
    monkeypatch.setattr(Run, "_step", lambda run: pytest.fail("a step was taken"))
    model = small_model(seed=8)
    assert fit(model, *sides(people), recipe, out=tmp_path, resume=True, workers=0) == []
    assert contents(tmp_path) == before
    assert digest(model.state_dict()) == digest(checkpoint.load(tmp_path / "checkpoints" / "best.pt")["model"])


def test_early_stopping_holds_after_resume(people, tmp_path, monkeypatch):
    recipe = Recipe(epochs=9, batch_size=16, optim=AdamW(1e-7), patience=2, seed=1)  # too slow to get better
    rows = fit(small_model(), *sides(people), recipe, out=tmp_path / "whole", workers=0)
    assert 3 <= len(rows) < 9
    crashed(people, tmp_path / "crashed", recipe, monkeypatch, "_step", 4 * (len(rows) - 1) + 1)
    more = fit(small_model(), *sides(people), recipe, out=tmp_path / "crashed", resume=True, workers=0)
    assert [row["epoch"] for row in more] == [len(rows)]
    assert end_of(tmp_path / "crashed") == end_of(tmp_path / "whole")
    assert fit(small_model(), *sides(people), recipe, out=tmp_path / "crashed", resume=True, workers=0) == []


def test_more_epochs_are_another_recipe(people, tmp_path):
    """The rate's course depends on them: half a run of ten epochs is not a run of five."""
    train, valid = sides(people)
    fit(small_model(), train, valid, PLAIN, out=tmp_path, workers=0)
    with pytest.raises(ValueError, match=r"of another run and cannot be resumed \(epochs: 2, now 5\); start in a new"):
        fit(small_model(), train, valid, Recipe(**{**vars(PLAIN), "epochs": 5}), out=tmp_path, resume=True, workers=0)


def test_another_run_is_not_resumed(people, tmp_path):
    train, valid = sides(people)
    recipe = Recipe(epochs=1, batch_size=16)
    fit(small_model(), train, valid, recipe, out=tmp_path, workers=0)
    before = contents(tmp_path)

    def again(model=None, train=train, valid=valid, recipe=recipe):
        return fit(model or small_model(), train, valid, recipe, out=tmp_path, resume=True, workers=0)

    with pytest.raises(ValueError, match="optim: .*'lr': 0.001.*, now .*'lr': 0.01"):
        again(recipe=Recipe(epochs=1, batch_size=16, optim=AdamW(0.01)))
    with pytest.raises(ValueError, match=r"\(photos: .*, now "):
        again(train=train[:-1])
    with pytest.raises(ValueError, match=r"\(validation photos: .*, now "):
        again(valid=valid[:-1])
    with pytest.raises(ValueError, match=r"\(model: .*, now "):
        again(small_model(HEADS[:2]))
    with pytest.raises(ValueError, match=r"\(model: .*'drop': 0.2.*, now .*'drop': 0.0"):
        again(Model("test_resnet", [head.on(SMALL) for head in HEADS], drop_path=0.1))
    relabelled = train.with_columns(mask=0)
    with pytest.raises(ValueError, match=r"\(photos: .*, now "):
        again(train=relabelled)
    assert contents(tmp_path) == before


def test_weights_that_are_no_state_or_are_gone_are_not_resumed(people, tmp_path):
    train, valid = sides(people)
    recipe = Recipe(epochs=1, batch_size=16)
    fit(small_model(), train, valid, recipe, out=tmp_path, workers=0)
    best, last = (tmp_path / "checkpoints" / name for name in ("best.pt", "last.pt"))
    state, weights = last.read_bytes(), best.read_bytes()

    def refused(kind, told):
        with pytest.raises(kind, match=told):
            fit(small_model(), train, valid, recipe, out=tmp_path, resume=True, workers=0)

    last.write_bytes(weights)
    refused(ValueError, f"{last} holds weights, and not where a run stands; put the run's own last.pt back, or train")
    last.write_bytes(state)
    best.write_bytes(weights[: len(weights) // 2])
    refused(ValueError, "best.pt cannot be opened safely.*weights of epoch 1, the best so far: put the file back, or")
    torch.save(small_model().state_dict(), best)
    refused(ValueError, "best.pt is not what a run keeps; it is to hold the weights of epoch 1, the best so far: put")
    best.unlink()
    refused(FileNotFoundError, "no checkpoint at .*best.pt; it is to hold the weights of epoch 1, the best so far")
    best.write_bytes(weights)
    assert fit(small_model(), train, valid, recipe, out=tmp_path, resume=True, workers=0) == []


def test_a_photo_lost_since_is_another_run(people, tmp_path):
    import shutil

    shutil.copytree(Path(people) / "train", tmp_path / "data")
    train, valid = read(tmp_path / "data").split(0.2, seed=0)
    recipe = Recipe(epochs=1, batch_size=16)
    fit(small_model(), train, valid, recipe, out=tmp_path / "run", workers=0)
    Path(train.paths[0]).write_bytes(b"cut")
    with pytest.raises(ValueError, match="photos: .*, 70 readable., now .*, 69 readable"):
        fit(small_model(), train, valid, recipe, out=tmp_path / "run", resume=True, workers=0)


def test_a_run_is_not_overwritten(people, tmp_path):
    train, valid = sides(people)
    recipe = Recipe(epochs=1, batch_size=16)
    fit(small_model(), train, valid, recipe, out=tmp_path, workers=0)
    with pytest.raises(FileExistsError, match=r"holds a run; pass resume=True \(--resume\)"):
        next(epochs(small_model(), train, valid, recipe, out=tmp_path, workers=0))


def test_a_folder_is_one_runs_until_its_epochs_end(people, tmp_path):
    train, valid = sides(people)
    recipe = Recipe(epochs=2, batch_size=16)
    rows = epochs(small_model(), train, valid, recipe, out=tmp_path / "run", workers=0)
    next(rows)
    with pytest.raises(FileExistsError, match="another run is being trained into"):
        fit(small_model(), train, valid, recipe, out=tmp_path / "run", resume=True, workers=0)
    rows.close()  # as a caller does who leaves its loop
    assert [row["epoch"] for row in fit(small_model(), train, valid, recipe, out=tmp_path / "run", resume=True)] == [2]
    with pytest.raises(ValueError, match="of another run"):
        fit(small_model(), train, valid, Recipe(epochs=3), out=tmp_path / "run", resume=True, workers=0)
    assert not (tmp_path / "run" / ".lock").exists()


def test_resume_needs_a_folder(people):
    with pytest.raises(ValueError, match="resume=True needs out="):
        fit(small_model(), *sides(people), PLAIN, resume=True, workers=0)


def test_resume_in_an_empty_folder_starts(people, tmp_path):
    rows = fit(small_model(), *sides(people), Recipe(epochs=1, batch_size=16), out=tmp_path, resume=True, workers=0)
    assert [row["epoch"] for row in rows] == [1]


def test_a_damaged_checkpoint_is_named(people, tmp_path):
    recipe = Recipe(epochs=1, batch_size=16)
    fit(small_model(), *sides(people), recipe, out=tmp_path, workers=0)
    last = tmp_path / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[:500])
    with pytest.raises(ValueError, match="last.pt cannot be opened safely"):
        fit(small_model(), *sides(people), recipe, out=tmp_path, resume=True, workers=0)
