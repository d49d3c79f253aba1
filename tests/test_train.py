import hashlib
import json
import os
import subprocess
import sys
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import load_file

from multihead import checkpoint
from multihead.augment import Diary, Flip, Plain
from multihead.balance import DWA, Uncertainty
from multihead.batches import PhotoSet
from multihead.cache import Cache
from multihead.cli import main
from multihead.crops import BODY, FACE, FULL
from multihead.evaluation import evaluate
from multihead.heads import GENDER, HEADS, MASK, flat
from multihead.joined import Ensemble
from multihead.leaks import LeakError
from multihead.loading import loader
from multihead.losses import CrossEntropy, Focal
from multihead.mixing import CutMix
from multihead.model import Model
from multihead.optim import SGD, AdamW, Timm
from multihead.orders import Shuffled
from multihead.reading import read
from multihead.recipe import EMA, Recipe
from multihead.runs import Run
from multihead.samplers import Weighted
from multihead.schedules import Constant, OneCycle, Plateau, rate
from multihead.sides import check_schedule
from multihead.steps import Stepper
from multihead.train import check_recipe, epochs, fit, prepare

ROOT = Path(__file__).parents[1]
SMALL = FULL.resized(32, 24)
QUICK = Recipe(epochs=2, batch_size=16, seed=1)


def small_model(heads=HEADS, backbone="test_resnet", crop=SMALL, **options):
    torch.manual_seed(5)
    return Model(backbone, [head.on(crop) for head in heads], **options)


def state_of(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(value, right[key]) for key, value in left.items())


@pytest.fixture(scope="module")
def photos(people):
    return read(people / "train")


@pytest.fixture(scope="module")
def sides(photos):
    return photos.split(0.2, seed=0)


def test_a_row_an_epoch_with_losses_rate_speed_and_scores(sides):
    rows = fit(small_model(), *sides, QUICK, workers=0)
    assert [row["epoch"] for row in rows] == [1, 2]
    heads = [f"{head.name}_{what}" for head in HEADS for what in ("loss", "f1")]
    wanted = {"epoch", "lr", "loss", "photos_per_s", "macro_f1", "accuracy", "selected_by", "seconds", *heads}
    assert all(set(row) == wanted for row in rows)
    assert rows[0]["selected_by"] == "macro_f1" and rows[0]["photos_per_s"] > 0
    # without weights of heads the loss is the mean of the heads'
    assert rows[1]["loss"] == pytest.approx(np.mean([rows[1][f"{head.name}_loss"] for head in HEADS]), abs=1e-6)


def test_the_run_folder(sides, tmp_path):
    train, valid = sides
    rows = fit(small_model(), train, valid, QUICK, out=tmp_path / "run", workers=0)
    names = {path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert {name for name in names if "tfevents" not in name} == {
        *["metrics.csv", "metrics.json", "splits.csv", "checkpoints/best.pt", "checkpoints/last.pt"],
        *["model/config.json", "model/model.safetensors", "model/README.md"],
    }
    table = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert table.macro_f1.tolist() == pytest.approx([row["macro_f1"] for row in rows])
    parts = read(tmp_path / "run" / "splits.csv").parts()
    assert [parts[name].paths for name in ("train", "val")] == [train.paths, valid.paths]
    assert np.array_equal(parts["val"].labels(), valid.labels())


def test_without_out_nothing_is_written_but_crops(sides, tmp_path, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)
    fit(small_model(), *sides, QUICK, workers=0, cache=False)
    assert list(tmp_path.iterdir()) == [] and list(cache.iterdir()) == []
    fit(small_model(), *sides, QUICK, workers=0)
    assert list(tmp_path.iterdir()) == [] and list(cache.rglob("*.pack"))


def test_any_number_of_workers_gives_the_same_weights(sides):
    recipe = replace(QUICK, augment=Diary(), ema=EMA(0.9))
    found = []
    for workers in (0, 1, 2):
        model = small_model(drop=0.3, drop_path=0.2)
        rows = fit(model, *sides, recipe, workers=workers)
        found.append(
            (state_of(model), [{k: v for k, v in row.items() if k not in ("photos_per_s", "seconds")} for row in rows])
        )
    for state, rows in found[1:]:
        assert same(state, found[0][0]) and rows == found[0][1]


def test_where_crops_are_kept_changes_no_weight(sides, tmp_path):
    recipe, found = replace(QUICK, augment=Diary(), crop_drop=0.3), []
    for cache in (Cache(memory=0), False, tmp_path / "crops", tmp_path / "crops"):
        model = small_model()
        run = prepare(model, *sides, recipe, workers=0, cache=cache)
        assert run.valid.held.gathers(run.valid.rows) == bool(found)
        list(run.epochs(False))
        found.append(state_of(model))
    assert all(same(found[0], other) for other in found[1:])


def test_the_seed_is_all_that_counts(sides):
    train, valid = sides
    before = torch.get_rng_state()
    models = []
    for seed in (1, 1, 2):
        models.append(small_model(drop=0.3))
        torch.manual_seed(len(models))  # the caller's own numbers
        before = torch.get_rng_state()
        fit(models[-1], train, valid, replace(QUICK, seed=seed), workers=0)
        assert torch.equal(torch.get_rng_state(), before)
    assert same(state_of(models[0]), state_of(models[1]))
    assert not same(state_of(models[0]), state_of(models[2]))


def test_a_plain_loop_gives_the_same_weights(sides):
    """A second implementation: torch alone, a batch at a time."""
    train, _ = sides
    recipe = Recipe(
        epochs=2, batch_size=16, optim=SGD(0.05, weight_decay=0.0), schedule=Constant(), augment=Flip(), seed=4,
        head_weights={"age": 2.0}, channels_last=False, select="last",
    )  # fmt: skip
    model, plain = small_model(), small_model()
    fit(model, train, None, recipe, workers=0)
    held = PhotoSet(train, HEADS, [SMALL], augment=Flip(), seed=4)
    order = Shuffled(range(len(train)), 16, seed=4)
    optimizer = torch.optim.SGD(plain.parameters(), 0.05, momentum=0.9, nesterov=True)
    for order.epoch in (1, 2):
        for batch in loader(held, order):
            batch = batch.to(torch.device("cpu"))
            logits = plain({SMALL: batch.images[SMALL]})
            parts = [F.cross_entropy(logits[head.name], batch.labels[:, i]) for i, head in enumerate(HEADS)]
            loss = (parts[0] + parts[1] + 2 * parts[2]) / 4
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    wanted = state_of(plain)
    for key, value in state_of(model).items():
        torch.testing.assert_close(value, wanted[key], rtol=0, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")


WITH_TWO = {
    "plain": "--epochs 2 --smoothing 0.1 --model-ema --aug diary --loss crossentropy(class_weights='inverse')",
    "mixed and weighed": "--epochs 2 --cutmix 1 --mixup-prob 0.7 --balance uncertainty --sampler weighted(by='mask') "
    "--aug gentle drawnmask --loss mask=focal age=ordinal --layer-decay 0.8 --head-lr 3",
    "dwa, frozen, mixup": "--epochs 3 --mixup 0.4 --mixup-prob 1 --balance dwa --freeze-epochs 1 "
    "--loss 0.4*softf1+0.6*focal --sched plateau --soft-bands 2",
}


@pytest.mark.slow
@pytest.mark.parametrize("choice", WITH_TWO.values(), ids=WITH_TWO)
def test_two_processes_equal_one_with_twice_the_accumulation(people, tmp_path, choice):
    flags = [
        *["--model", "test_vit", "--resize", "32", "-b", "8", "--opt", "sgd", "--lr", "0.02"],
        *["--drop", "0.2", "--drop-path", "0.2", "-j", "1", *choice.split()],
    ]
    data = str(people / "train")
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(["train", data, *flags, "--grad-accum-steps", "2", "--output", str(one), "-q"]) == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [*launch, "-m", "multihead", "train", data, *flags, "--output", str(two)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("wrote") == 1 and done.stdout.count("epoch 1 ") == 1  # one process speaks
    mine = load_file(one / "model" / "model.safetensors")
    for key, value in load_file(two / "model" / "model.safetensors").items():
        torch.testing.assert_close(value, mine[key], rtol=0, atol=1e-6, msg=key)
    left, right = (json.loads((run / "metrics.json").read_text()) for run in (one, two))
    assert left["n"] == right["n"] and left["macro_f1"] == pytest.approx(right["macro_f1"], abs=1e-9)
    settings = [yaml.safe_load((run / "args.yaml").read_text()) for run in (one, two)]
    assert {key for key in settings[0] if settings[0][key] != settings[1].get(key)} == {"output", "grad_accum_steps"}


ALIKE = """
import sys
import multihead as mh
from multihead import ranks

photos = mh.read(sys.argv[1])
for ema in (None, mh.EMA(0.5)):
    model = mh.Model("test_resnet", [head.on(mh.FULL.resized(32)) for head in mh.HEADS])
    mh.fit(model, photos, None, mh.Recipe(epochs=1, batch_size=8, ema=ema, augment=mh.Flip()), workers=0)
    one, other = ranks.gather({name: value.tolist() for name, value in model.state_dict().items()})
    unlike = [name for name in one if one[name] != other[name]]
    assert not unlike, unlike
"""


@pytest.mark.slow
def test_without_validation_two_processes_end_with_the_same_model(people, tmp_path):
    (tmp_path / "alike.py").write_text(ALIKE)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, str(tmp_path / "alike.py"), str(people / "train")]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("ema", [None, EMA(0.5)])
def test_when_it_ends_the_model_holds_the_best_weights(sides, ema, tmp_path):
    train, valid = sides
    model = small_model()
    recipe = Recipe(epochs=4, batch_size=16, optim=SGD(0.1), ema=ema, seed=2)
    rows = fit(model, train, valid, recipe, out=tmp_path, workers=0)
    best = max(rows, key=lambda row: row["macro_f1"])
    found = evaluate(model, valid, workers=0)
    assert not model.training
    assert found.f1 == pytest.approx(best["macro_f1"]) and found.accuracy == pytest.approx(best["accuracy"])
    kept = checkpoint.load(tmp_path / "checkpoints" / "best.pt")
    assert kept["epoch"] == best["epoch"] and same(kept["model"], state_of(model))
    assert same(load_file(tmp_path / "model" / "model.safetensors"), state_of(model))
    assert json.loads((tmp_path / "metrics.json").read_text()) == json.loads(json.dumps(found.to_dict()))


def test_the_kept_weights_are_the_best_epochs_not_the_last(sides, monkeypatch):
    """With scores that only fall, the first epoch is kept."""
    states = []
    plain = Run._validate

    def falling(run):
        row = plain(run)
        states.append(state_of(run.steps.scored))
        return row

    monkeypatch.setattr("multihead.metrics.Scores.selection", property(lambda self: (1.0 - len(states), "macro_f1")))
    monkeypatch.setattr(Run, "_validate", falling)
    model = small_model()
    fit(model, *sides, replace(QUICK, epochs=3), workers=0)
    assert same(state_of(model), states[0]) and not same(states[0], states[2])


def test_select_last_scores_only_the_last_epoch(sides):
    model = small_model()
    rows = fit(model, *sides, replace(QUICK, epochs=3, select="last"), workers=0)
    assert ["macro_f1" in row for row in rows] == [False, False, True]
    assert evaluate(model, sides[1], workers=0).f1 == pytest.approx(rows[2]["macro_f1"])


def test_patience_ends_a_run_that_gets_no_better(sides, monkeypatch):
    monkeypatch.setattr("multihead.metrics.Scores.selection", property(lambda self: (0.5, "macro_f1")))
    rows = fit(small_model(), *sides, replace(QUICK, epochs=9, patience=2), workers=0)
    assert [row["epoch"] for row in rows] == [1, 2, 3]


def test_patience_waits_for_an_epoch_that_is_scored(sides, monkeypatch):
    monkeypatch.setattr("multihead.metrics.Scores.selection", property(lambda self: (0.5, "macro_f1")))
    recipe = replace(QUICK, epochs=9, patience=2, val_interval=3)
    rows = fit(small_model(), *sides, recipe, workers=0)
    assert [row["epoch"] for row in rows if "macro_f1" in row] == [3, 6] and len(rows) == 6
    assert len(fit(small_model(), sides[0], None, replace(recipe, epochs=4), workers=0)) == 4  # nothing is scored


def test_without_validation_the_last_weights_are_kept(sides, tmp_path):
    rows = fit(small_model(), sides[0], None, QUICK, out=tmp_path, workers=0)
    assert "macro_f1" not in rows[-1] and not (tmp_path / "metrics.json").exists()
    best, last = (checkpoint.load(tmp_path / "checkpoints" / f"{name}.pt") for name in ("best", "last"))
    assert same(best["model"], last["model"])


def test_validation_without_labels_keeps_the_last_weights(sides, tmp_path, capsys):
    train, valid = sides
    unknown = valid.with_columns(mask=-1, gender=-1, age=-1, years=np.nan)
    rows = fit(small_model(), train, unknown, replace(QUICK, patience=1), out=tmp_path, workers=0)
    assert len(rows) == QUICK.epochs > 1  # patience waits for scores
    assert "validation: no photo has a label; without scores the last epoch is kept" in capsys.readouterr().err
    best, last = (checkpoint.load(tmp_path / "checkpoints" / f"{name}.pt") for name in ("best", "last"))
    assert same(best["model"], last["model"])


def test_the_moving_average_is_what_is_scored_and_saved(sides, tmp_path):
    """timm's update by hand: decay 0 until the warm-up lets it rise, so the average of one step is the weights."""
    from timm.utils import ModelEmaV3

    model, shadow = small_model(), None
    taken = []
    plain = Run._step

    def step(run):
        plain(run)
        nonlocal shadow
        shadow = shadow or ModelEmaV3(small_model(), 0.9, use_warmup=True)
        taken.append(1)
        shadow.update(run.model, step=len(taken))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "_step", step)
        fit(model, *sides, replace(QUICK, ema=EMA(0.9), select="last"), workers=0)
    wanted = shadow.module.state_dict()
    for key, value in state_of(model).items():
        torch.testing.assert_close(value, wanted[key], rtol=1e-5, atol=1e-6, msg=key)


def test_the_rate_follows_the_schedule_to_the_last_step(sides):
    rows = fit(small_model(), *sides, replace(QUICK, schedule=OneCycle(), optim=AdamW(0.01)), workers=0)
    steps = len(sides[0]) // 16
    wanted = [rate(OneCycle(), 0.01, epoch * steps - 1, 2 * steps, 2) for epoch in (1, 2)]
    assert [row["lr"] for row in rows] == pytest.approx(wanted)


def test_unreadable_photos_are_named_once_and_left_out(people, tmp_path, capsys):
    import shutil

    shutil.copytree(people / "train", tmp_path / "data")
    train, valid = read(tmp_path / "data").split(0.2, seed=0)
    bad = [Path(train.paths[3]), Path(valid.paths[0])]
    for number, path in enumerate(bad):
        path.write_bytes(path.read_bytes()[: 2000 + number])
    rows = fit(small_model(), train, valid, QUICK, workers=0, out=tmp_path / "run")
    told = capsys.readouterr().err
    assert told.count(str(bad[0])) == told.count(str(bad[1])) == 1
    assert "training: left out:" in told and "validation: left out:" in told and "truncated" in told
    assert len(rows) == 2 and json.loads((tmp_path / "run/metrics.json").read_text())["n"] == len(valid) - 1


def test_a_photo_that_goes_bad_during_the_run_stops_it(people, tmp_path):
    import shutil

    shutil.copytree(people / "train", tmp_path / "data")
    train = read(tmp_path / "data")
    run = prepare(small_model(), train, None, QUICK, workers=0, cache=Cache(memory=0)).epochs(False)
    next(run)
    for path in train.paths:
        Path(path).write_bytes(b"")
    with pytest.raises(ValueError, match="a photo can no longer be read: .*empty file; put it back and resume"):
        next(run)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model": "resnet18"}, "model is str; expected a multihead.Model$"),
        ({"model": Ensemble([small_model()])}, "model is Ensemble; expected a multihead.Model; an ensemble's members"),
        ({"train": "data"}, "train is str; expected photos, as multihead.read gives them"),
        ({"valid": pd.DataFrame()}, "valid is DataFrame; expected photos"),
        ({"recipe": {"epochs": 2}}, r"recipe is dict; expected a multihead.Recipe, as Recipe\(epochs=5\)"),
    ],
)
def test_what_cannot_be_trained_is_named(sides, wrong, message):
    given = {"model": small_model(), "train": sides[0], "valid": sides[1], "recipe": QUICK} | wrong
    with pytest.raises(TypeError, match=message):
        fit(*given.values(), workers=0)


def test_what_a_folder_would_not_describe_is_refused_before_training(sides, tmp_path, monkeypatch):
    model = small_model()
    model.head["mask"] = torch.nn.Sequential(model.head["mask"])
    with monkeypatch.context() as patched:
        patched.setattr("multihead.train.Ready", None)  # nothing is read
        with pytest.raises(ValueError, match="head 'mask' is a Sequential"):
            fit(model, *sides, QUICK, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert fit(model, *sides, QUICK, workers=0)  # nothing is written: any head goes


def test_no_validation_photos_are_an_error(sides):
    with pytest.raises(ValueError, match="there are no validation photos; give some, or valid=None"):
        fit(small_model(), sides[0], sides[1][:0], QUICK, workers=0)


def test_a_model_that_is_all_frozen_cannot_be_trained(sides):
    with pytest.raises(ValueError, match="no parameter of the model is to be trained"):
        fit(small_model().requires_grad_(False), sides[0], None, QUICK, workers=0)


def test_nothing_to_train_on_is_an_error(sides, tmp_path):
    train, valid = sides
    unknown = train.with_columns(mask=-1, gender=-1, age=-1, years=np.nan)
    told = r"none of 70 training photos has a label for \['mask', .* columns mask, gender, age, age_band: map others .*mask:FOLDER=worn"
    with pytest.raises(ValueError, match=told):
        fit(small_model(), unknown, valid, QUICK, workers=0)
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(b"")
    gone = read(pd.DataFrame({"path": [f"{n}.jpg" for n in range(3)], "mask": "worn"}), root=tmp_path)
    with pytest.raises(ValueError, match="none of 3 training photos can be read"):
        fit(small_model(), gone, valid, QUICK, workers=0)


def test_a_loss_that_is_no_number_is_an_error(sides):
    model = small_model()
    torch.nn.init.constant_(model.head["mask"].bias, float("nan"))
    with pytest.raises(ValueError, match="the loss is nan in epoch 1, batch 1; lower lr, or set clip_grad"):
        fit(model, *sides, QUICK, workers=0)


def test_people_on_both_sides_are_refused(photos):
    with pytest.raises(LeakError, match="people are on both sides"):
        fit(small_model(), photos[:40], photos[38:], QUICK, workers=0)


def test_a_weight_for_a_head_that_is_not_there(sides):
    with pytest.raises(ValueError, match=r"head_weights names \['size'\]"):
        fit(small_model(), *sides, replace(QUICK, head_weights={"size": 2.0}), workers=0)


def test_partial_labels_train_their_own_heads_only(sides):
    """Mask is known of everybody, gender of nobody: its layer stays as it was."""
    train, valid = sides
    model = small_model()
    before = state_of(model)
    recipe = Recipe(epochs=1, batch_size=16, optim=SGD(0.1, weight_decay=0.0))
    rows = fit(model, train.with_columns(gender=-1, age=-1, years=np.nan), None, recipe, workers=0)
    after = state_of(model)
    for name in ("gender", "age"):
        assert torch.equal(after[f"head.{name}.weight"], before[f"head.{name}.weight"])
    assert not torch.equal(after["head.mask.weight"], before["head.mask.weight"])
    assert np.isfinite(rows[0]["loss"]) and model.prior is not None


def test_batches_where_a_head_has_no_label_are_no_trouble(sides):
    train, valid = sides
    known = np.where(np.arange(len(train)) < 3, train.table.gender, -1)
    rows = fit(small_model(), train.with_columns(gender=known), valid, replace(QUICK, batch_size=4), workers=0)
    assert all(np.isfinite(row["loss"]) for row in rows)


def test_scores_of_heads_choose_where_no_row_is_fully_known(sides):
    train, valid = sides
    rows = fit(small_model(), train, valid.with_columns(gender=-1), QUICK, workers=0)
    assert rows[0]["selected_by"] == "mean_head_f1" and np.isnan(rows[0]["macro_f1"])


def test_flat_and_heads_go_through_the_same_loop(sides):
    table = flat([head.on(SMALL) for head in HEADS])
    torch.manual_seed(5)
    model = Model("test_resnet", table)
    rows = fit(model, *sides, replace(QUICK, smoothing=0.1), workers=0)
    assert {"loss", "mask_gender_age_loss", "mask_f1", "gender_f1", "age_f1", "macro_f1"} <= set(rows[0])
    assert evaluate(model, sides[1], workers=0).f1 == pytest.approx(max(row["macro_f1"] for row in rows))


def test_the_prior_is_the_share_of_the_classes(sides):
    train, _ = sides
    model = small_model()
    fit(model, train, None, QUICK, workers=0)
    labels = train.labels()
    joint = labels[:, 0] * 6 + labels[:, 1] * 3 + labels[:, 2]
    np.testing.assert_allclose(model.prior, np.bincount(joint, minlength=18) / len(train))


def test_the_prior_of_partial_labels_is_a_product():
    from multihead.sides import prior

    labels = np.array([[0, -1], [0, -1], [2, -1], [-1, 1]])
    np.testing.assert_allclose(prior(labels, [MASK, GENDER]), [0, 2 / 3, 0, 0, 0, 1 / 3])
    np.testing.assert_allclose(prior(np.array([[0, -1]]), [MASK, GENDER]), [0.5, 0.5, 0, 0, 0, 0])


def test_two_crops_train_on_found_boxes(people, sides):
    photos = read(people / "train", boxes=people / "train" / "boxes.csv")
    train, valid = photos.split(0.2, seed=0)
    face, body = FACE.resized(32), BODY.resized(48, 32)
    torch.manual_seed(0)
    model = Model("test_resnet", [MASK.on(face), HEADS[1].on(body), HEADS[2].on(face, body)])
    counts = []
    model.backbone.register_forward_hook(lambda _, inputs, __: counts.append(len(inputs[0])))
    fit(model, train, None, Recipe(epochs=1, batch_size=10), workers=0)
    assert counts == [10, 10] * 7  # 70 photos, a pass for each of the two crops


def test_photos_without_a_face_are_told_and_treated_as_asked(people, capsys):
    table = read(people / "train", boxes=people / "train" / "boxes.csv")
    blank = np.arange(len(table)) < 5
    boxes = {name: np.where(blank, np.nan, table.table[name]) for name in ("x0", "y0", "x1", "y1")}
    photos = table.with_columns(searched=True, **boxes)
    for missing in ("full", "skip"):
        torch.manual_seed(0)
        model = Model("test_resnet", [MASK.on(FACE.resized(32))])
        fit(model, photos, None, Recipe(epochs=1, batch_size=16, missing=missing), workers=0)
        assert "training: 5 photos have no face, for example" in capsys.readouterr().err
    with pytest.raises(ValueError, match="5 photos have no face"):
        fit(model, photos, None, Recipe(epochs=1, missing="error"), workers=0)


def test_a_heads_own_edges_train_and_score(sides):
    """Bands of the model, not of the reading: a model for 20 and 40 years is scored on 20 and 40 years."""
    train, valid = sides
    age = replace(HEADS[2], edges=(20, 40)).on(SMALL)
    torch.manual_seed(0)
    model = Model("test_resnet", [age])
    fit(model, train, valid, QUICK, workers=0)
    found = evaluate(model, valid, workers=0).heads["age"].counts.sum(1)
    assert found.tolist() == np.bincount(np.digitize(valid.table.years, [20, 40]), minlength=3).tolist()


def test_bf16_and_float_train_alike_but_not_the_same(sides):
    states = {}
    for amp in (False, True):
        model = small_model()
        fit(model, sides[0], None, replace(QUICK, epochs=1, amp=amp), workers=0)
        states[amp] = state_of(model)
    key = "head.mask.weight"
    assert not torch.equal(states[True][key], states[False][key])
    torch.testing.assert_close(states[True][key], states[False][key], rtol=0, atol=0.01)


def test_leaving_the_generator_early_is_no_harm(sides, tmp_path):
    for row in epochs(small_model(), *sides, replace(QUICK, epochs=5), out=tmp_path, workers=1):
        if row["epoch"] == 2:
            break
    assert len(pd.read_csv(tmp_path / "metrics.csv")) == 2
    weights = hashlib.sha256((tmp_path / "checkpoints" / "last.pt").read_bytes()).hexdigest()
    assert weights and not (tmp_path / "model").exists()


# ---- each choice of the recipe does what it says


def trained(sides, model=None, **changes):
    """A small model after training with these changes of QUICK, and its rows."""
    model = model or small_model()
    return model, fit(model, *sides, replace(QUICK, **changes), workers=0)


@pytest.mark.parametrize("leave", ["break", "raise"])
def test_who_leaves_while_the_backbone_is_frozen_gets_it_back(sides, leave):
    model = small_model()
    rows = epochs(model, *sides, replace(QUICK, epochs=3, freeze_epochs=2), workers=0)
    next(rows)
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())
    if leave == "break":
        rows.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            rows.throw(KeyboardInterrupt)
    assert all(parameter.requires_grad for parameter in model.backbone.parameters())
    start = state_of(model)
    trained(sides, model)
    assert any(not torch.equal(start[key], value) for key, value in state_of(model).items() if "conv" in key)


def test_a_frozen_backbone_stands_still_with_its_statistics(sides):
    start, model = state_of(small_model()), small_model()
    states = []
    for _ in epochs(model, *sides, replace(QUICK, epochs=3, freeze_epochs=2, select="last"), workers=0):
        states.append(state_of(model))
    for key, value in start.items():
        still = key.startswith("backbone.")
        assert torch.equal(states[1][key], value) == (still or key == "absent"), key
    moved = [key for key in start if key.startswith("backbone.") and not torch.equal(states[2][key], start[key])]
    assert any(key.endswith("weight") for key in moved) and any(key.endswith("running_mean") for key in moved)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_heads_learn_at_their_own_rate(sides):
    """Without momentum or decay the first step of SGD is proportional to the rate."""
    steps = {}
    for factor in (1.0, 5.0):
        model, start = small_model(), state_of(small_model())
        train, _ = sides
        recipe = Recipe(
            epochs=1,
            batch_size=16,
            epoch_photos=16,
            optim=SGD(0.01, 0.0, 0.0),
            schedule=Constant(),
            head_lr=factor,
            select="last",
            augment=Plain(),
        )
        fit(model, train, None, recipe, workers=0)
        steps[factor] = {key: value - start[key] for key, value in state_of(model).items()}
    for key in ("head.mask.weight", "head.age.bias"):
        torch.testing.assert_close(steps[5.0][key], 5 * steps[1.0][key], rtol=1e-3, atol=1e-6)
    backbone = next(key for key in steps[1.0] if key.endswith("conv1.weight"))
    torch.testing.assert_close(steps[5.0][backbone], steps[1.0][backbone], rtol=1e-4, atol=1e-7)


def test_losses_of_heads_are_the_named_ones(sides):
    _, plain = trained(sides, epochs=1)
    _, rows = trained(sides, epochs=1, losses={"mask": Focal(2.0)})
    assert rows[0]["mask_loss"] < 0.8 * plain[0]["mask_loss"]  # (1 - p) ** 2 shrinks each term
    assert rows[0]["age_loss"] == pytest.approx(plain[0]["age_loss"], rel=0.2)
    with pytest.raises(ValueError, match=r"losses name \['msak'\]; the heads are .*; did you mean 'mask'"):
        trained(sides, losses={"msak": Focal()})


def test_smoothing_is_that_of_every_heads_loss(sides):
    plain, one, other = (
        trained(sides, epochs=1, select="last", **changes)[0]
        for changes in ({}, {"smoothing": 0.3}, {"losses": CrossEntropy(smoothing=0.3)})
    )
    assert same(state_of(one), state_of(other)) and not same(state_of(one), state_of(plain))


def test_class_weights_read_the_training_labels(sides, monkeypatch):
    import multihead.sides

    seen = {}
    plain = multihead.sides.criterion

    def watched(loss, head, counts, smoothing):
        seen[head.name] = counts
        return plain(loss, head, counts, smoothing)

    monkeypatch.setattr(multihead.sides, "criterion", watched)
    trained(sides, epochs=1, losses=CrossEntropy(class_weights="inverse"))
    for column, head in enumerate(HEADS):
        assert (
            seen[head.name].tolist()
            == np.bincount(sides[0].labels(HEADS)[:, column], minlength=3)[: len(head.classes)].tolist()
        )


def test_uncertainty_learns_and_dwa_follows_the_losses(sides, monkeypatch):
    import multihead.steps

    train, valid = sides
    runs = []
    plain = Run.__init__
    monkeypatch.setattr(Run, "__init__", lambda run, *args: (plain(run, *args), runs.append(run))[0])
    trained(sides, balance=Uncertainty())
    assert runs[0].steps.log_variance.shape == (3,) and not torch.equal(
        runs[0].steps.log_variance, torch.full((3,), -0.5)
    )
    assert trained(sides)[1] and runs[1].steps.log_variance is None
    given = []
    combine = multihead.steps.combine

    def watched(losses, known, weights, *more):
        given.append(dict(weights))
        return combine(losses, known, weights, *more)

    monkeypatch.setattr(multihead.steps, "combine", watched)
    _, rows = trained(sides, epochs=3, balance=DWA(), head_weights={"age": 2.0})
    first, last = given[0], given[-1]
    assert first == {"mask": 1.0, "gender": 1.0, "age": 2.0}
    ratios = {name: np.exp(rows[1][f"{name}_loss"] / rows[0][f"{name}_loss"] / 2.0) for name in first}
    wanted = {name: 3 * ratio / sum(ratios.values()) for name, ratio in ratios.items()}
    assert last == pytest.approx(wanted | {"age": 2 * wanted["age"]})


def test_mixing_changes_the_run_until_its_last_epoch(sides):
    plain, _ = trained(sides, select="last")
    mixed, _ = trained(sides, select="last", mix=CutMix(prob=1.0))
    never, _ = trained(sides, select="last", mix=CutMix(prob=1.0, off_epoch=1))
    assert same(state_of(plain), state_of(never)) and not same(state_of(plain), state_of(mixed))


def test_an_epoch_has_as_many_photos_as_asked(sides, monkeypatch):
    seen = []
    plain = Stepper.gradient
    monkeypatch.setattr(
        Stepper,
        "gradient",
        lambda run, batches, *more: (seen.extend(*(b.rows for b in batches)), plain(run, batches, *more))[1],
    )
    trained(sides, epochs=1, epoch_photos=48)
    assert len(seen) == 48 and len(set(map(int, seen))) == 48


def test_a_weighted_sampler_evens_classes_out(sides, monkeypatch):
    seen = []
    plain = Stepper.gradient
    monkeypatch.setattr(
        Stepper, "gradient", lambda run, batches, *more: (seen.append(batches[0].labels), plain(run, batches, *more))[1]
    )
    trained(sides, epochs=1, sampler=Weighted("mask"))
    counts = torch.bincount(torch.cat(seen)[:, 0], minlength=3)
    assert counts.max() - counts.min() <= 2  # five of seven photos of a person show a worn mask


def test_validation_every_so_many_epochs(sides):
    _, rows = trained(sides, epochs=5, val_interval=2)
    assert [row["epoch"] for row in rows if "macro_f1" in row] == [2, 4, 5]
    _, rows = trained(sides, epochs=2, select="last", val_interval=1)
    assert all("macro_f1" in row for row in rows)


def test_plateau_lowers_the_rate_when_the_score_stands_still(sides, monkeypatch):
    import multihead.runs

    monkeypatch.setattr(multihead.runs, "selection_of", lambda row: 0.5)
    _, rows = trained(sides, epochs=4, schedule=Plateau(patience_epochs=1, decay_rate=0.1))
    assert [row["lr"] for row in rows] == pytest.approx([1e-3, 1e-3, 1e-3, 1e-4])
    with pytest.raises(ValueError, match="Plateau follows the validation score"):
        fit(small_model(), sides[0], None, replace(QUICK, schedule=Plateau()), workers=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": {"agee": Focal()}}, "losses name .'agee'.; .* did you mean 'age'"),
        ({"head_weights": {"agee": 2.0}}, "head_weights names .'agee'."),
        ({"sampler": Weighted("agee")}, "weighted: by is 'agee'"),
        ({"optim": Timm("lambb")}, "timm has no optimiser 'lambb'"),
        ({"schedule": Plateau(), "select": "last"}, "Plateau follows the validation score"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused_before_photos_are_read(sides, monkeypatch, tmp_path, changes, message):
    """Else it is said when all of them are searched for faces and decoded."""
    monkeypatch.setattr("multihead.train.Ready", None)
    with pytest.raises(ValueError, match=message):
        fit(small_model(), *sides, replace(QUICK, **changes), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_warm_up_that_outlasts_the_training_is_told_of(sides):
    _, valid = sides
    with pytest.warns(UserWarning, match=r"rises for 2 epochs .* training has 2: it never comes to lr=0.001"):
        check_schedule(replace(QUICK, schedule=Constant(warmup_epochs=2)), valid)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for schedule in (Constant(warmup_epochs=1.5), Constant(), OneCycle()):
            check_schedule(replace(QUICK, schedule=schedule), valid)


def test_a_teacher_pulls_the_model(sides):
    train, valid = sides
    probs = np.zeros((len(train), 18))
    probs[:, 17] = 1  # a teacher who gives everybody one answer
    taught = train.with_columns(
        **{f"joint:{place}": [f"{value:g}" for value in probs[:, place]] for place in range(18)}
    )
    model, _ = trained((taught, valid), epochs=4, distill=1.0, select="last", optim=AdamW(5e-3))
    found = evaluate(model, valid, workers=0)
    assert (found.probs.argmax(1) == 17).all()
    with pytest.raises(ValueError, match="distill needs photos with a teacher's answers"):
        trained(sides, distill=0.5)


def test_a_teacher_whom_nobody_asks_is_told_of(sides):
    train, _ = sides
    answers = {
        f"joint:{place}": np.where(np.arange(len(train)) == 3, "1" if place == 17 else "0", "") for place in range(18)
    }
    taught = train.with_columns(**answers)
    with pytest.warns(UserWarning, match="carry a teacher's answers .* of which nothing is learned: set distill"):
        check_recipe(small_model(), taught, QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_recipe(small_model(), taught, replace(QUICK, distill=0.5))
        check_recipe(small_model(), train, QUICK)
        blank = taught.with_columns(**{name: [""] * len(train) for name in answers})
        check_recipe(small_model(), blank, QUICK)


def test_pseudo_labels_do_not_validate(sides):
    train, valid = sides
    with pytest.raises(LeakError, match="validation photos"):
        trained((train, valid.with_columns(pseudo=["mask"] + [""] * (len(valid) - 1))))


def test_age_settings_touch_training_only(sides):
    plain, rows = trained(sides, epochs=1)
    model, _ = trained(sides, epochs=1, age_edges=(20, 25), drop_zones=((57, 59),), soft_bands=2.0)
    assert not same(state_of(plain), state_of(model))
    assert np.array_equal(evaluate(model, sides[1], workers=0).labels, sides[1].labels(HEADS))
    with pytest.raises(ValueError, match="need a head that bands the number age"):
        trained(sides, small_model([MASK]), soft_bands=1.0)


def test_every_batch_is_mixed_by_numbers_of_its_own(sides, monkeypatch):
    import multihead.steps

    seeds = []
    plain = multihead.steps.mix

    def watched(*given, seed, epoch):
        seeds.append(seed)
        return plain(*given, seed=seed, epoch=epoch)

    monkeypatch.setattr(multihead.steps, "mix", watched)
    trained(sides, mix=CutMix())
    assert len(seeds) >= 8 and len(set(seeds)) == len(seeds)


def test_an_interruption_leaves_no_threads_and_opencvs_number(sides, monkeypatch):
    def interrupted(self, *args):
        raise KeyboardInterrupt

    monkeypatch.setattr(Stepper, "gradient", interrupted)
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        with pytest.raises(KeyboardInterrupt) as held:  # as a notebook holds the traceback, and so the frames
            fit(small_model(), *sides, QUICK)
        assert cv2.getNumThreads() == 3 and held.tb is not None
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("lane")]
    finally:
        cv2.setNumThreads(before)
