import hashlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score

from multihead import crossval, paired
from multihead.batches import PhotoSet
from multihead.cli import main
from multihead.comparison import compare
from multihead.crops import FULL
from multihead.crossval import Cell
from multihead.evaluation import answers
from multihead.heads import AGE, GENDER, HEADS, MASK, UNKNOWN, flat
from multihead.labels import encode
from multihead.leaks import LeakError
from multihead.losses import Focal
from multihead.mixing import CutMix
from multihead.model import Model
from multihead.optim import SGD, AdamW, Timm
from multihead.reading import read
from multihead.recipe import EMA, Recipe
from multihead.runs import Run
from multihead.samplers import Shares
from multihead.steps import Diverged
from multihead.train import fit
from multihead.ways import Arm

module = importlib.import_module("multihead.comparison")  # the package gives the function that name
ROOT = Path(__file__).parents[1]
SMALL = FULL.resized(32, 24)
RECIPE = Recipe(epochs=2, batch_size=8, seed=9)
SEEDS, FOLDS = (0, 3), 2


def small(heads=HEADS):
    return Model("test_resnet", [head.on(SMALL) for head in heads])


def small_flat():
    return Model("test_resnet", flat([head.on(SMALL) for head in HEADS]))


PLAIN = Arm(small, RECIPE)
ARMS = {
    "plain": PLAIN,
    "mixed": Arm(small, replace(RECIPE, mix=CutMix(1.0), optim=SGD(0.01), ema=EMA(0.9), epochs=3)),
    "flat": Arm(small_flat, RECIPE),
    "twin": Arm(small, RECIPE),
}


@pytest.fixture(scope="module")
def photos(people):
    """Every second photo of twelve people."""
    return read(people / "train")[::2]


@pytest.fixture(scope="module")
def done(photos, tmp_path_factory):
    """A finished comparison: its folder, its table, and what it said."""
    out, said = tmp_path_factory.mktemp("compare") / "out", []
    frame = compare(ARMS, photos, out, folds=FOLDS, seeds=SEEDS, say=said.append)
    return SimpleNamespace(out=out, frame=frame, said=said)


def test_runs_of_other_arms_are_told(done, photos, tmp_path):
    """Whose rows the summary no longer has."""
    assert not any("also holds" in line for line in done.said)
    shutil.copytree(done.out, tmp_path / "out")
    name, said = list(ARMS)[1], []
    others = sorted(set(ARMS) - {name})
    compare({name: ARMS[name]}, photos, tmp_path / "out", folds=FOLDS, seeds=SEEDS, say=said.append)
    assert f"also holds runs of {', '.join(others)}: named too, they are compared without" in said[-1]


@pytest.fixture
def bare(monkeypatch):
    """Without pictures, which take longer than training."""
    for name in ("curves", "differences"):
        monkeypatch.setattr(module.plots, name, lambda *args, **options: None)


@pytest.fixture
def sides(monkeypatch):
    """[(folder, training photos, photos to score)] of the runs that are begun from now on."""
    begun = []

    def spy(model, train, valid, recipe, *, prepare=crossval.prepare, **options):
        begun.append((options["out"].parent, train, valid))
        return prepare(model, train, valid, recipe, **options)

    monkeypatch.setattr(crossval, "prepare", spy)
    return begun


def kept(folder):
    with np.load(folder / "answers.npz") as content:
        return content["rows"], content["probs"]


def content(folder, but=()):
    """The bytes of every file, by its path; but: names left out."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in but)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def runs(*arms, seeds=SEEDS, folds=FOLDS):
    return [f"runs/{arm}/fold{fold}-seed{seed}" for arm in arms for seed in seeds for fold in range(folds)]


def test_a_row_an_arm_seed_and_fold(done, photos):
    rows = pd.read_csv(done.out / "results.csv")
    wanted = [(arm, seed, fold) for arm in ARMS for seed in SEEDS for fold in range(FOLDS)]
    assert list(zip(rows.arm, rows.seed, rows.fold)) == wanted
    heads = [f"{head.name}_f1" for head in HEADS]
    assert list(rows) == ["arm", "fold", "seed", "photos", "n", "macro_f1", "accuracy", *heads]
    assert rows.groupby(["arm", "seed"]).photos.sum().unique().tolist() == [len(photos)]
    assert [text.split(":")[0] for text in done.said] == [
        f"{1 + place}/16 {arm}, fold {fold}, seed {seed}"
        for place, (seed, fold, arm) in enumerate((s, f, a) for s in SEEDS for f in range(FOLDS) for a in ARMS)
    ]


def test_the_files(done):
    per_run = {f"{run}/{name}" for run in runs(*ARMS) for name in ("answers.npz", "cell.json", "curve.csv")}
    tables = {"photos.csv", "results.csv", "times.csv", "summary.csv", "summary.md", "curves.png", "differences.png"}
    tables |= {"modes.json"}  # how all runs are computed
    assert set(content(done.out)) == per_run | tables
    times = pd.read_csv(done.out / "times.csv")
    assert len(times) == 16 and (times.seconds > 0).all() and list(times) == ["arm", "fold", "seed", "seconds"]


def test_scores_are_scikit_learns(done, photos):
    labels, rows = photos.labels(), pd.read_csv(done.out / "results.csv").set_index(["arm", "fold", "seed"])
    asked, probs = kept(done.out / "runs/flat/fold1-seed3")
    row = rows.loc["flat", 1, 3]
    joint = f1_score(encode(labels, HEADS)[asked], probs.argmax(1), average="macro", zero_division=0)
    assert row.macro_f1 == pytest.approx(joint, abs=1e-12)
    gender = probs.reshape(-1, 3, 2, 3).sum((1, 3)).argmax(1)
    assert row.gender_f1 == pytest.approx(
        f1_score(labels[asked, 1], gender, average="macro", zero_division=0), abs=1e-9
    )


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_is_the_run_made_by_hand(done, photos, name):
    train, valid = photos.folds(FOLDS, seed=0)[1]
    torch.manual_seed(3)
    model = ARMS[name].model()
    rows = fit(model, train, valid, replace(ARMS[name].recipe, seed=3, select="last", val_interval=1), workers=0)
    probs = answers(model, PhotoSet(valid, model.heads, model.crops), range(len(valid)))[1]
    asked, found = kept(done.out / f"runs/{name}/fold1-seed3")
    assert [photos.paths[row] for row in asked] == valid.paths
    assert np.array_equal(found, probs.astype(np.float32))
    curve = pd.read_csv(done.out / f"runs/{name}/fold1-seed3/curve.csv")
    for column in ("epoch", "lr", "loss", "macro_f1", "mask_f1"):
        assert curve[column].tolist() == pytest.approx([row[column] for row in rows], abs=1e-12), column


def test_seeds_and_folds_are_unlike_runs(done):
    digests = {hashlib.sha256(kept(done.out / run)[1].tobytes()).hexdigest() for run in runs("plain", "mixed", "flat")}
    assert len(digests) == 12


def test_the_same_arm_twice_differs_by_nothing(done):
    rows = pd.read_csv(done.out / "results.csv").set_index("arm")
    assert rows.loc["plain"].reset_index(drop=True).equals(rows.loc["twin"].reset_index(drop=True))
    twin = done.frame[done.frame.arm == "twin"]
    assert len(twin) == 4 and (twin[["difference", "low", "high"]] == 0).all(axis=None)
    assert (done.frame[done.frame.arm == "mixed"].difference != 0).any()


def test_arms_do_not_leak_into_each_other(done, photos, bare, tmp_path):
    compare({name: ARMS[name] for name in ("flat", "mixed", "plain")}, photos, tmp_path, folds=FOLDS, seeds=[3])
    for run in runs("flat", "mixed", "plain", seeds=[3]):
        assert (tmp_path / run / "answers.npz").read_bytes() == (done.out / run / "answers.npz").read_bytes(), run


def test_the_summary_is_that_of_the_pooled_answers(done, photos):
    pooled = {name: [np.zeros((len(photos), 18)) for _ in SEEDS] for name in ARMS}
    for name, probs in pooled.items():
        for number, seed in enumerate(SEEDS):
            for run in runs(name, seeds=[seed]):
                rows, found = kept(done.out / run)
                probs[number][rows] = found
    wanted = paired.compare(pooled, photos.labels(), photos.groups(), HEADS)
    assert done.frame.equals(wanted)
    assert (done.out / "summary.csv").read_text() == wanted.to_csv(index=False)
    assert (done.out / "summary.md").read_text() == paired.table(wanted) + "\n"


def test_nobody_is_on_both_sides_and_everybody_is_scored_once(done, photos):
    for name in ARMS:
        for seed in SEEDS:
            parts = [kept(done.out / run)[0] for run in runs(name, seeds=[seed])]
            assert sorted(np.concatenate(parts)) == list(range(len(photos)))
            first, second = ({photos.people[row] for row in part} for part in parts)
            assert first and second and not first & second


def test_learning_curves_hold_every_epoch(done):
    for name, arm in ARMS.items():
        for run in runs(name):
            curve = pd.read_csv(done.out / run / "curve.csv")
            assert curve.epoch.tolist() == list(range(1, arm.recipe.epochs + 1))
            assert curve[["loss", "lr", "macro_f1", "age_f1"]].notna().all(axis=None)


# ---- again


def test_again_nothing_is_trained_and_nothing_changes(done, photos, monkeypatch, tmp_path):
    shutil.copytree(done.out, tmp_path / "out")
    monkeypatch.setattr(crossval, "prepare", None)
    frame = compare(ARMS, photos, tmp_path / "out", folds=FOLDS, seeds=SEEDS)
    assert frame.equals(done.frame)
    assert content(tmp_path / "out") == content(done.out)


def test_another_arm_or_seed_trains_only_that(done, photos, sides, bare, tmp_path):
    shutil.copytree(done.out / "runs" / "plain", tmp_path / "runs" / "plain")
    more = {"first": Arm(small, replace(RECIPE, epochs=1)), "plain": PLAIN}
    compare(more, photos, tmp_path, folds=FOLDS, seeds=SEEDS)
    assert sorted(folder for folder, *_ in sides) == sorted(tmp_path / run for run in runs("first"))
    assert pd.read_csv(tmp_path / "results.csv").arm.tolist() == ["first"] * 4 + ["plain"] * 4
    sides.clear()
    compare({"plain": PLAIN}, photos, tmp_path, folds=FOLDS, seeds=(5, *SEEDS))
    assert [folder for folder, *_ in sides] == [tmp_path / run for run in runs("plain", seeds=[5])]
    assert pd.read_csv(tmp_path / "results.csv").seed.tolist() == [0, 0, 3, 3, 5, 5]
    for run in runs("plain"):
        assert kept(tmp_path / run)[1].tobytes() == kept(done.out / run)[1].tobytes()


def brighter():
    model = small()
    model.head["mask"].bias.data += 1
    return model


CHANGED = {
    "recipe": replace(PLAIN, recipe=replace(RECIPE, optim=AdamW(2e-3))),
    "rows": replace(PLAIN, rows="full"),
    "about": replace(PLAIN, about={"model": "resnet18"}),
    "model": replace(PLAIN, model=brighter),
}


@pytest.mark.parametrize("what", CHANGED)
def test_a_changed_arm_needs_another_name(done, photos, monkeypatch, what, tmp_path):
    shutil.copytree(done.out, tmp_path / "out")
    monkeypatch.setattr(crossval, "prepare", None)
    with pytest.raises(
        ValueError, match=rf"holds arm 'plain' with another {what}.*; name the arm or the output folder"
    ):
        compare(ARMS | {"plain": CHANGED[what]}, photos, tmp_path / "out", folds=FOLDS, seeds=SEEDS)
    assert content(tmp_path / "out") == content(done.out)


def test_a_changed_arm_is_refused_before_a_new_one_is_trained(done, photos, monkeypatch, tmp_path):
    shutil.copytree(done.out, tmp_path / "out")
    monkeypatch.setattr(crossval, "prepare", None)
    arms = {"new": replace(PLAIN, about={"new": 1}), "plain": CHANGED["recipe"]}
    with pytest.raises(ValueError, match="holds arm 'plain' with another recipe"):
        compare(arms, photos, tmp_path / "out", folds=FOLDS, seeds=SEEDS)
    assert not list((tmp_path / "out" / "runs").glob("new*"))


def test_other_photos_need_another_folder(done, photos, monkeypatch):
    monkeypatch.setattr(crossval, "prepare", None)
    with pytest.raises(ValueError, match="holds runs on other photos or folds; name the output folder anew"):
        compare(ARMS, photos[:-3], done.out, folds=FOLDS, seeds=SEEDS)
    labels = np.where(np.arange(len(photos)) == 4, UNKNOWN, photos.table["mask"])
    with pytest.raises(ValueError, match="holds runs on other photos or folds"):
        compare(ARMS, photos.with_columns(mask=labels), done.out, folds=FOLDS, seeds=SEEDS)


def test_the_same_photos_by_another_path_are_told_of(done, people, monkeypatch, tmp_path):
    """As on a machine that sees the shared photos elsewhere."""
    monkeypatch.setattr(crossval, "prepare", None)
    (tmp_path / "mount").symlink_to(people)
    photos = read(tmp_path / "mount" / "train")[::2]
    before = content(done.out)
    message = (
        rf"holds runs on photos as {people}/\S+\.\w+, which is {tmp_path}/mount/\S+ now: give them by the same path"
    )
    with pytest.raises(ValueError, match=message):
        compare(ARMS, photos, done.out, folds=FOLDS, seeds=SEEDS)
    assert content(done.out) == before


# ---- interrupted


class Crash(Exception):
    """Stands for whatever ends a process."""


MOMENTS = {
    "within an epoch": (Run, "_step", 9, False),
    "when the last epoch is done": (Run, "_finish", 3, False),
    "before the answers are kept": (crossval, "_keep", 2, True),
    "when the answers are kept": (crossval, "_keep", 2, False),
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_goes_on_from_any_moment(done, photos, monkeypatch, bare, moment, tmp_path):
    owner, name, number, before = moment
    arms, calls = {"plain": PLAIN, "mixed": ARMS["mixed"]}, []

    def dying(*args, plain=getattr(owner, name)):
        calls.append(name)
        if before and len(calls) == number:
            raise Crash
        plain(*args)
        if len(calls) == number:
            raise Crash

    recipe = {"recovery_interval": 2}
    arms = {name: replace(arm, recipe=replace(arm.recipe, **recipe)) for name, arm in arms.items()}
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dying)
        with pytest.raises(Crash):
            compare(arms, photos, tmp_path, folds=FOLDS, seeds=[3])
    compare(arms, photos, tmp_path, folds=FOLDS, seeds=[3])
    for run in runs("plain", "mixed", seeds=[3]):
        assert (tmp_path / run / "answers.npz").read_bytes() == (done.out / run / "answers.npz").read_bytes(), run
        columns = ["epoch", "lr", "loss", "macro_f1"]
        curves = [pd.read_csv(folder / run / "curve.csv")[columns] for folder in (tmp_path, done.out)]
        assert curves[0].equals(curves[1]), run
    assert not list(tmp_path.rglob("checkpoints"))


def halfway(folder):
    """A run with a checkpoint that is not done, where another is."""
    begun = {path.parents[2] for path in folder.glob("runs/*/*/run/checkpoints/last.pt")}
    finished = {path.parent for path in folder.glob("runs/*/*/answers.npz")}
    return next(iter(begun - finished), None) if finished else None


def killed_halfway(argv, folder):
    """The run that was in progress when the command line was killed."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "multihead", *argv]
    child = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    found, deadline = None, time.monotonic() + 240
    while found is None and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
        if halfway(folder):
            child.send_signal(signal.SIGSTOP)  # it may be done by now: look again while it stands still
            found = halfway(folder)
            child.send_signal(signal.SIGCONT if found is None else signal.SIGKILL)
    child.kill()
    told = child.communicate(timeout=60)[1].decode()
    assert child.returncode == -signal.SIGKILL, told
    return found


def test_killed_and_called_again(people, tmp_path):
    flags = ["--model", "test_resnet", "--resize", "32", "24", "--epochs", "3", "-b", "8", "--recovery-interval", "1"]
    argv = ["compare", str(people / "train"), *flags, "--vary", "opt=adamw,sgd", "--folds", "2", "--seeds", "1", "-q"]
    run = killed_halfway([*argv, "-o", str(tmp_path / "killed")], tmp_path / "killed")
    assert run is not None and not (run / "curve.csv").exists() and not (tmp_path / "killed" / "summary.csv").exists()
    for name in ("killed", "whole"):
        assert main([*argv, "-o", str(tmp_path / name)]) == 0
    ours, theirs = (content(tmp_path / name, but=("times.csv", "curve.csv")) for name in ("killed", "whole"))
    assert ours.keys() == theirs.keys() and {"results.csv", "summary.csv", "summary.md"} <= ours.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert pd.read_csv(run / "curve.csv").epoch.tolist() == [1, 2, 3]


# ---- photos


def test_only_some_sources_are_scored(photos, sides, bare, tmp_path):
    named = photos.with_columns(source=np.where(np.arange(len(photos)) % 3, "studio", "street"))
    compare({"plain": replace(PLAIN, recipe=replace(RECIPE, epochs=1))}, named, tmp_path, folds=2, sources=["street"])
    asked = np.concatenate([kept(tmp_path / run)[0] for run in runs("plain", seeds=[0])])
    assert sorted(asked) == list(range(0, len(photos), 3))
    for (_, train, valid), fold in zip(sides, photos.folds(2, seed=0), strict=True):
        assert set(train.paths) == set(fold[0].paths) and set(valid.table.source) == {"street"}
    frame = pd.read_csv(tmp_path / "summary.csv")
    assert (frame.rows == len(asked)).all()


def test_rows_full_trains_on_fully_labelled_photos_only(photos, sides, bare, tmp_path):
    genders = np.where(np.arange(len(photos)) % 4 == 1, UNKNOWN, photos.table["gender"])
    others = np.isin(photos.people, sorted(set(photos.people))[:2])
    partly, extra = (photos.with_columns(gender=genders)[rows] for rows in (~others, others))
    recipe = replace(RECIPE, epochs=1)
    arms = {"full": Arm(small, recipe, "full"), "all": Arm(small, recipe)}
    frame = compare(arms, partly, tmp_path, folds=2, extra=extra)
    trained = {folder.parent.name: [] for folder, *_ in sides}
    for folder, train, valid in sides:
        trained[folder.parent.name].append(train)
        assert not set(valid.paths) & set(extra.paths) and (valid.labels() == UNKNOWN).any()
    assert all((train.labels() != UNKNOWN).all() for train in trained["full"])
    for full, whole in zip(trained["full"], trained["all"]):
        assert set(extra.paths) <= set(whole.paths) and len(full) == (whole.labels() != UNKNOWN).all(1).sum()
        assert set(full.paths) & set(extra.paths)
    assert (frame.rows[frame.metric == "mask_f1"] == len(partly)).all()


def test_rows_full_are_those_that_know_the_heads_of_the_models(photos, sides, bare, tmp_path):
    genders = np.where(np.arange(len(photos)) % 4 == 1, UNKNOWN, photos.table["gender"])
    for heads, whole in (([MASK, AGE], True), ([MASK, GENDER], False), (flat([MASK, AGE]), True)):
        arm = Arm(lambda heads=heads: small(heads), replace(RECIPE, epochs=1), "full")
        assert (arm.chosen(photos.with_columns(gender=genders), 0, heads).labels([MASK]) != UNKNOWN).all()
        assert (len(arm.chosen(photos.with_columns(gender=genders), 0, heads)) == len(photos)) == whole
    compare({"full": Arm(lambda: small([MASK]), replace(RECIPE, epochs=1), "full")},
            photos.with_columns(gender=genders), tmp_path, folds=2)  # fmt: skip
    assert sum(len(train) for _, train, _ in sides) == len(photos)


def test_extra_photos_must_be_other_peoples(photos, tmp_path):
    extra = photos[5:6]
    rest = photos[[row for row in range(len(photos)) if row != 5]]
    assert extra.people[0] in rest.people
    with pytest.raises(LeakError, match="1 people are on both sides"):
        compare({"plain": PLAIN}, rest, tmp_path, folds=2, extra=extra)


def test_a_photo_that_cannot_be_read_is_named_and_left_out(photos, bare, capfd, tmp_path):
    (tmp_path / "torn.jpg").write_bytes(b"")
    paths = [str(tmp_path / "torn.jpg") if row == 7 else path for row, path in enumerate(photos.paths)]
    frame = compare({"plain": PLAIN}, photos.with_columns(path=paths), tmp_path / "out", folds=2)
    told = capfd.readouterr().err
    assert "validation: left out: " in told and "torn.jpg" in told and "empty file" in told
    asked = np.concatenate([kept(tmp_path / "out" / run)[0] for run in runs("plain", seeds=[0])])
    assert sorted(asked) == [row for row in range(len(photos)) if row != 7]
    assert (frame.rows == len(photos) - 1).all()


def test_a_photo_that_goes_away_stops_the_comparison(tmp_path):
    scores = SimpleNamespace(probs=np.zeros((3, 18)), errors=(("a.jpg", "'a.jpg': no such file"),))
    run = SimpleNamespace(kept_scores=scores, valid=SimpleNamespace(rows=np.arange(4)))
    with pytest.raises(ValueError, match="'a.jpg': no such file; put the photo back and go on"):
        crossval._keep(Cell("plain", 0, 0, tmp_path), [run])
    assert not list(tmp_path.iterdir())


# ---- wrong input


@pytest.mark.parametrize(
    ("arms", "options", "told"),
    [
        ({}, {}, r"arms \[\], seeds \[0\]; expected an arm or more"),
        ({"a": PLAIN}, {"seeds": ()}, r"seeds \[\]; expected an arm or more"),
        ({"a": PLAIN}, {"seeds": (1, 1)}, "expected an arm or more, and unlike seeds"),
        ({"a": PLAIN}, {"folds": 1}, r"folds\(1\) is no cross-validation"),
        ({"a": PLAIN}, {"folds": 13}, "cannot be dealt into 13 parts"),
        ({"a": PLAIN}, {"sources": ["street"]}, r"fold 0 has no photo of \['street'\] to score; there are \['train'\]"),
        ({"a/b": PLAIN}, {}, "arm 'a/b' cannot name a folder"),
        ({"..": PLAIN}, {}, "arm '..' cannot name a folder"),
        ({"": PLAIN}, {}, "arm '' cannot name a folder"),
        (
            {"a": PLAIN, "b": Arm(lambda: small([MASK, GENDER]), RECIPE)},
            {},
            r"arm 'b' answers \['mask', 'gender'\], the first arm \['mask', 'gender', 'age'\]; compare arms of equal",
        ),
    ],
)
def test_what_cannot_be_compared(photos, arms, options, told, tmp_path):
    with pytest.raises(ValueError, match=told):
        compare(arms, photos, tmp_path / "out", **({"folds": 2} | options))
    assert not (tmp_path / "out").exists()


def test_arms_that_cannot_be():
    with pytest.raises(ValueError, match="patience stops on the rows that score the arm"):
        Arm(small, Recipe(patience=2))
    with pytest.raises(ValueError, match="arm: rows is 'some'; expected one of all, full"):
        Arm(small, RECIPE, "some")
    with pytest.raises(ValueError, match="missing='skip' leaves photos out; every photo must be answered"):
        Arm(small, replace(RECIPE, missing="skip"))
    with pytest.raises(ValueError, match="arm: hidden is 2"):
        Arm(small, RECIPE, hidden=2)


def test_a_model_made_once_is_refused(photos, tmp_path):
    """Each fold would go on with the weights of the one before, which has seen its people."""
    model = small()
    for made in (lambda: model, lambda: [model]):
        with pytest.raises(ValueError, match="arm 'b': model= gives the same weights when it is called again"):
            compare({"a": PLAIN, "b": Arm(made, RECIPE)}, photos, tmp_path / "out", folds=2)
    assert not (tmp_path / "out").exists()


def test_a_fold_without_a_readable_photo(photos, monkeypatch, tmp_path):
    (tmp_path / "torn.jpg").write_bytes(b"")
    fold = set(photos.folds(2, seed=0)[0][1].paths)
    paths = []
    for number, path in enumerate(photos.paths):
        paths.append(str(tmp_path / f"{number}.jpg") if path in fold else path)
    with pytest.raises(ValueError, match=f"fold 0: none of {len(fold)} photos to score can be read"):
        compare({"plain": PLAIN}, photos.with_columns(path=paths), tmp_path / "out", folds=2)
    assert not list((tmp_path / "out").rglob("*.pt"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": {"agee": Focal()}}, "arm 'b': losses name .'agee'.; .* did you mean 'age'"),
        ({"optim": Timm("lambb")}, "arm 'b': .*lambb"),
        ({"sampler": Shares({"nowhere": 0.5})}, "arm 'b': shares: no training photo is of source .'nowhere'."),
        ({"distill": 0.5}, "arm 'b': recipe: distill needs photos with a teacher's answers"),
        ({"head_weights": {"agee": 2.0}}, "arm 'b': head_weights names .'agee'."),
    ],
)
def test_an_arm_that_cannot_be_run_is_refused_before_any_training(people, tmp_path, changes, message):
    def made():
        return Model("test_resnet", [head.on(FULL.resized(32)) for head in HEADS])

    arms = {"a": Arm(made, Recipe(epochs=1)), "b": Arm(made, Recipe(epochs=1, **changes))}
    with pytest.raises(ValueError, match=message):
        compare(arms, read(people / "train"), tmp_path / "out", folds=2)
    assert not (tmp_path / "out").exists()


def test_arms_go_by_name_and_seeds_are_several(tmp_path, people):
    photos, arm = read(people / "train"), Arm(lambda: Model("test_resnet"))
    with pytest.raises(TypeError, match="arms is list; expected them by name"):
        compare([arm], photos, tmp_path / "a")
    with pytest.raises(TypeError, match="seeds is 3; expected numbers, as"):
        compare({"a": arm}, photos, tmp_path / "a", seeds=3)


def test_an_arm_that_diverges_is_named_when_the_others_are_done(photos, tmp_path):
    wild = Arm(small, replace(RECIPE, optim=SGD(1e30), epochs=1))
    told = []
    with pytest.raises(
        Diverged, match="^arm 'wild', fold 0, seed 0: the loss is .*; plain, last done: compare without"
    ):
        compare(
            {"plain": PLAIN, "wild": wild, "last": replace(PLAIN, recipe=replace(RECIPE, epochs=1))},
            photos, tmp_path, folds=2, workers=0, say=told.append,
        )  # fmt: skip
    assert sum("the other arms go on" in line for line in told) == 1  # not tried on the other fold
    done = {path.parts[-3] + path.parts[-2] for path in tmp_path.glob("runs/*/*/answers.npz")}
    assert done == {f"{arm}fold{fold}-seed0" for arm in ("plain", "last") for fold in (0, 1)}
    assert len(pd.read_csv(tmp_path / "results.csv")) == 4
    with pytest.raises(Diverged, match="seed 0: the loss is [^;]*; lower lr, or set clip_grad$"):
        compare({"wild": wild}, photos, tmp_path, folds=2, workers=0)


def test_arms_of_the_command_line_that_train_alike(people, tmp_path, capsys):
    command = ["compare", str(people / "train"), "--model", "test_resnet", "--resize", "32", "-o", str(tmp_path / "c")]
    assert main([*command, "--vary", "lr=1e-3,0.001"]) == 2
    assert "arms 'lr 1e-3' and 'lr 0.001' train alike; leave one out" in capsys.readouterr().err
    for more, told in (
        (["model=test_resnet,nope_net"], "unknown backbone 'nope_net'"),
        (["initial_checkpoint=/nowhere"], "--initial-checkpoint /nowhere is not there"),
    ):
        assert main([*command, "--vary", *more]) == 2
        assert told in capsys.readouterr().err


def test_damaged_answers_are_named(tmp_path):
    (tmp_path / "answers.npz").write_bytes(b"torn")
    with pytest.raises(ValueError, match="answers.npz is damaged .*; remove .* to train it anew"):
        crossval.read_answers(tmp_path)
