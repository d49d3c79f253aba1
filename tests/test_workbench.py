import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from multihead.cli import main
from multihead.crops import FULL
from multihead.data import Photos, write_splits
from multihead.evaluation import evaluate
from multihead.heads import HEADS, MASK, UNKNOWN
from multihead.joined import load
from multihead.mixing import CutMix, MixUp
from multihead.model import Model
from multihead.reading import read
from multihead.tta import TTA

MODEL = ["--model", "test_resnet", "--resize", "32", "24"]
QUICK = [*MODEL, "--epochs", "1", "-b", "8"]


def run(*argv):
    """The exit status, whether it comes by return or by argparse."""
    try:
        return main([str(part) for part in argv])
    except SystemExit as leave:
        return leave.code


@pytest.fixture(scope="module")
def photos(people):
    return read(people / "train")[::2]


@pytest.fixture(scope="module")
def table(photos, tmp_path_factory):
    """42 photos of twelve people as a CSV."""
    path = tmp_path_factory.mktemp("tables") / "photos.csv"
    photos.write(path)
    return path


@pytest.fixture(scope="module")
def teacher(photos, tmp_path_factory):
    """A model folder with unlike answers."""
    torch.manual_seed(0)
    model = Model("test_resnet", [head.on(FULL.resized(32, 24)) for head in HEADS])
    for head in model.head.values():
        torch.nn.init.normal_(head.weight, std=3)
    folder = tmp_path_factory.mktemp("models") / "teacher"
    model.save_pretrained(folder)
    return folder


def is_png(path):
    with Image.open(path) as picture:
        picture.load()
        return picture.format == "PNG"


# ---- compare


def test_compare(table, tmp_path, capsys):
    argv = ["compare", table, *QUICK, "--vary", "opt=adamw,sgd", "--folds", "2", "--seeds", "1", "-o", tmp_path / "c"]
    assert run(*argv) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0] == "2 arms, 2 folds, seeds 1: Photos(42 rows, 12 people named; known: mask 42, gender 42, age 42)"
    assert [line.split(":")[0] for line in lines[1:5]] == [
        f"{number}/4 {arm}, fold {fold}, seed 1"
        for number, arm, fold in zip("1234", ["adamw", "sgd"] * 2, [0, 0, 1, 1])
    ]
    names = "results.csv, summary.csv, summary.md, times.csv, curves.png, differences.png"
    assert lines[-1] == f"wrote {tmp_path / 'c'}: {names}"
    assert all((tmp_path / "c" / name).is_file() for name in names.split(", "))
    assert (tmp_path / "c" / "summary.md").read_text().strip() in out
    assert is_png(tmp_path / "c" / "curves.png") and is_png(tmp_path / "c" / "differences.png")
    found = pd.read_csv(tmp_path / "c" / "results.csv")
    assert found.arm.tolist() == ["adamw", "adamw", "sgd", "sgd"] and (found.seed == 1).all()
    assert run(*argv, "-q") == 0 and capsys.readouterr() == ("", "")
    assert run(*argv, "--lr", "0.3") == 2
    assert "holds arm 'adamw' with another recipe" in capsys.readouterr().err
    alone = [part.replace("opt=adamw,sgd", "opt=sgd") if isinstance(part, str) else part for part in argv]
    alone[-1] = tmp_path / "d"
    assert run(*alone) == 0  # nothing differs from the first arm
    assert capsys.readouterr().out.splitlines()[-1].endswith("times.csv, curves.png")
    assert not (tmp_path / "d" / "differences.png").exists()


class Reached(Exception):
    """The comparison itself would start now."""


@pytest.fixture
def begun(monkeypatch):
    """What a verb gave to multihead.comparison.compare, which is not run."""
    calls = []

    def stop(*args, **options):
        calls.append((args, options))
        raise Reached

    monkeypatch.setattr("multihead.comparison.compare", stop)
    return calls


def test_compare_reads_a_study(table, begun, tmp_path, capsys):
    study = {"model": "test_resnet", "folds": 4, "seeds": [1, 2], "data": [str(table)], "vary": None, "workers": 1}
    study |= {"lr": 0.1, "arms": {"one": {}, "two": {"opt": "sgd"}}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(study))
    with pytest.raises(Reached):
        run("compare", "-c", tmp_path / "s.yaml", "-o", tmp_path / "out", "--lr", "0.2", "--folds", "3")
    (arms, photos, out), options = begun[0]
    assert list(arms) == ["one", "two"] and [arm.recipe.optim.lr for arm in arms.values()] == [0.2, 0.2]
    assert len(photos) == 42 and Path(out) == tmp_path / "out"
    assert (options["folds"], list(options["seeds"]), options["workers"]) == (3, [1, 2], 1)


def test_compare_tells_of_photos_that_trained_the_weights_it_begins_with(photos, table, begun, tmp_path, capsys):
    write_splits(tmp_path / "old" / "splits.csv", {"train": photos[:7]})
    (tmp_path / "old" / "model").mkdir()
    with pytest.raises(Reached):
        run("compare", table, *QUICK, "--vary", f"initial_checkpoint={tmp_path / 'old'},{tmp_path / 'old' / 'model'}")
    told = capsys.readouterr().err
    for start in ("old", "old/model"):
        assert f"note: 7 of these 42 photos trained {tmp_path / start}, which this model began from" in told


def test_compare_takes_the_train_part_and_extra_photos(photos, begun, tmp_path, capsys):
    names = ["train", "val", "test"] * 14
    people = {name: names[number] for number, name in enumerate(sorted(set(photos.people)))}
    photos.with_columns(split=[people[name] for name in photos.people]).write(tmp_path / "t.csv")
    Photos(photos.table[:3].assign(path=["/a.jpg", "/b.jpg", "/c.jpg"]), photos.heads).write(tmp_path / "more.csv")
    argv = [
        "compare",
        tmp_path / "t.csv",
        "--vary",
        "lr=1,2",
        "--extra",
        tmp_path / "more.csv",
        "--score-source",
        "train",
    ]
    with pytest.raises(Reached):
        run(*argv)
    assert "folds of the train part of the split column; --ignore-split takes all" in capsys.readouterr().out
    with pytest.raises(Reached):
        run(*argv, "--ignore-split")
    assert [set(args[1].table.split) for args, _ in begun] == [{"train"}, {"train", "val", "test"}]
    assert [len(options["extra"]) for _, options in begun] == [3, 3] and begun[0][1]["sources"] == ["train"]


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["compare", "--vary", "lr=1,2"], "DATA is missing: name a folder of photos or a table"),
        (["compare", "{table}"], "name the arms: either 'arms:' in the file of -c, or --vary"),
        (
            ["compare", "{table}", "--vary", "lr=1,2", *QUICK, "--seed", "3"],
            "--seed 3 has no meaning for compare; expected --seeds",
        ),
        (["compare", "{table}", "--vary", "lr=1,2", "--patience", "3"], "arm 'lr 1': arm: patience stops on the rows"),
        (
            ["compare", "{table}", "--vary", "heads=mask,gender", *QUICK],
            "arm 'gender' answers ['gender'], the first arm",
        ),
        (
            ["compare", "{table}", "--vary", "lr=1,2", *QUICK, "--score-source", "x"],
            "fold 0 has no photo of ['x'] to score",
        ),
        (["compare", "{table}", "--vary", "lr=1,2", *QUICK, "--seeds", "1", "1"], "unlike seeds"),
        (["preview"], "DATA is missing"),
        (["preview", "{table}", "--batches", "0", "-o", "{tmp}/p.png"], "expected one or more, epochs counted from 1"),
        (["preview", "{table}", "-o", "{tmp}"], "it is a folder; name a file in it"),
        (
            ["preview", "{table}", "--distill", ".5", *QUICK, "-o", "{tmp}/p.png"],
            "distill needs photos with a teacher's",
        ),
        (["lr-range"], "DATA is missing"),
        (
            ["lr-range", "{table}", "--steps", "5", *QUICK, "-o", "{tmp}/r.csv"],
            "expected 0 < low < high and 10 steps or more",
        ),
        (["lr-range", "{table}", *QUICK, "-o", "{tmp}/r.png"], "the table, beside which the picture is r.png"),
        (
            ["label", "{teacher}", "{table}", "-o", "{tmp}/l.csv"],
            "say how sure a label must be, as --threshold mask=.95",
        ),
        (["label", "{teacher}", "{table}", "--threshold", "mask"], "'mask'; expected HEAD=NUMBER, or one a class"),
        (["label", "{teacher}", "{table}", "--threshold", "mask=high"], "'mask=high'; expected HEAD=NUMBER"),
        (["label", "{teacher}", "{table}", "--threshold", "mouth=.9", "-o", "{tmp}/l.csv"], "is no head of the model"),
        (["label", "{teacher}", "{table}", "--threshold", "mask=.9,.8", "-o", "{tmp}/l.csv"], "or 3 of them"),
        (["train", "{table}", "--cutmix", "1", "--mixup", "1"], "--cutmix and --mixup: choose one"),
        (["train", "{table}", "--cutmix", "1", "--mix", "mixup"], "--cutmix and --mix: choose one"),
        (
            ["train", "{table}", "--mixup-prob", ".5"],
            "--mixup-prob and --mixup-off-epoch belong to --cutmix, --mixup or --mix",
        ),
        (["train", "{table}", "--mixup-off-epoch", "3"], "belong to --cutmix, --mixup or --mix"),
        (
            ["train", "{table}", "--mixup", "1", "--mixup-prob", "2"],
            "mixup: prob is 2.0; expected a number >= 0 and <= 1",
        ),
        (["train", "{table}", "--cutmix", "-1"], "cutmix: alpha is -1.0; expected a number > 0"),
        (["train", "{table}", "--rows", "some"], "training: rows is 'some'; expected one of all, full"),
        (["evaluate", "{teacher}", "{table}", "--tta", "flop"], "unknown view 'flop'; did you mean 'flip'?"),
        (["predict", "{teacher}", "{table}", "--tta", "flip=1"], "flip takes no value"),
    ],
    ids=str,
)
def test_wrong_input_is_one_line_and_status_2(argv, told, table, teacher, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*(part.format(table=table, tmp=tmp_path, teacher=teacher) for part in argv)) == 2
    printed = capsys.readouterr()
    assert told in printed.err, printed.err
    assert "Traceback" not in printed.err and len(printed.err.splitlines()) <= 3
    assert not list(tmp_path.rglob("*.png")) and not list(tmp_path.rglob("*.csv"))


@pytest.mark.parametrize("verb", ["train", "lr-range", "preview"])
def test_full_rows_know_the_heads_of_the_model(photos, verb, tmp_path, capsys, monkeypatch):
    """Not all heads that there are: photos of masks alone are full to a model of masks."""
    masks = photos.with_columns(gender=UNKNOWN, age=UNKNOWN, years=np.nan)
    masks.with_columns(mask=np.where(np.arange(len(photos)) % 3, masks.table["mask"], UNKNOWN)).write(
        tmp_path / "m.csv"
    )
    taken = []

    def stop(*args, **options):
        taken.append(next(each for each in args if isinstance(each, Photos)))
        raise ValueError("enough")

    for name in ("train.prepare", "lr_range.lr_range", "preview.preview"):
        monkeypatch.setattr(f"multihead.{name}", stop)
    flags = [*MODEL, "--rows", "full", "-o", tmp_path / "out"]
    assert run(verb, tmp_path / "m.csv", *flags, "--heads", "mask", *(["--val-share", "0"] * (verb == "train"))) == 2
    assert "enough" in capsys.readouterr().err and len(taken[0]) > 10
    assert (taken[0].labels([MASK]) != UNKNOWN).all()
    assert run(verb, tmp_path / "m.csv", *flags) == 2
    assert "--rows full: no training photo knows all heads of the model" in capsys.readouterr().err


# ---- preview and lr-range


def test_preview(table, tmp_path, capsys):
    flags = ["-b", "6", *MODEL, "--cutmix", "1", "--mixup-prob", "1", "--epoch", "2"]
    assert run("preview", table, *flags, "-o", tmp_path / "p.png", "--batches", "2") == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / 'p.png'}: 12 photos of epoch 2\n"
    assert run("preview", table, *flags[:-2], "-o", tmp_path / "q.png", "--batches", "2", "-q") == 0
    assert capsys.readouterr() == ("", "") and is_png(tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes() != (tmp_path / "q.png").read_bytes()


def test_preview_shows_photos_that_train(photos, tmp_path, capsys, monkeypatch):
    shown = []
    monkeypatch.setattr("multihead.preview.preview", lambda photos, *args, **options: shown.append(photos) or 0)
    genders = np.where(np.arange(42) % 2, UNKNOWN, photos.table["gender"])
    halves = np.where(np.arange(42) < 21, "train", "val")
    photos.with_columns(gender=genders, split=halves).write(tmp_path / "t.csv")
    assert run("preview", tmp_path / "t.csv", "--rows", "full", "-o", tmp_path / "p.png") == 0
    assert shown[0].paths == photos.paths[0:21:2]


def test_lr_range(table, tmp_path, capsys):
    argv = ["lr-range", table, *QUICK, "--steps", "12", "--low", "1e-4", "--high", "0.1", "-j", "0"]
    assert run(*argv, "-o", tmp_path / "r.csv") == 0
    out = capsys.readouterr().out
    assert "12 steps; the loss falls fastest at lr " in out
    assert f"wrote {tmp_path / 'r.csv'} and {tmp_path / 'r.png'}" in out
    found = pd.read_csv(tmp_path / "r.csv")
    assert found.lr.tolist() == pytest.approx(np.geomspace(1e-4, 0.1, 12).tolist()) and is_png(tmp_path / "r.png")
    assert run(*argv, "-o", tmp_path / "again.csv", "-q") == 0 and capsys.readouterr() == ("", "")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "r.csv").read_bytes()


# ---- label, and training on its tables


@pytest.fixture
def unlabelled(people, photos, tmp_path):
    """Photos of two other people, whose masks and ages nobody knows."""
    found = read(people / "eval" / "truth.csv", boxes=people / "eval" / "boxes.csv")
    found = found.with_columns(mask=UNKNOWN, age=UNKNOWN, years=np.nan, split="")
    found.write(tmp_path / "unlabelled.csv")
    return tmp_path / "unlabelled.csv"


def test_label_writes_what_the_teacher_is_sure_of(teacher, unlabelled, tmp_path, capsys):
    path = tmp_path / "deep" / "l.csv"
    assert run("label", teacher, unlabelled, "--threshold", "mask=.5,.5,.5", "gender=.5", "-o", path, "-j", "0") == 0
    printed = capsys.readouterr()
    assert "of 14 photos got labels from the model; column pseudo names the heads" in printed.out
    assert printed.out.splitlines()[-1] == f"wrote {path}"
    assert "these labels are a model's: train on them (--extra), never validate" in printed.err
    rows = pd.read_csv(path, keep_default_na=False)
    before, after = read(unlabelled), read(path)
    scores = evaluate(load(teacher), before)
    best = scores.probs.reshape(-1, 3, 6).sum(2)
    sure = best.max(1) >= 0.5
    assert sure.any() and int(printed.out.split()[0]) == sure.sum()
    assert rows["pseudo"].tolist() == ["mask" if each else "" for each in sure]  # genders were known
    assert rows["mask"].tolist() == [MASK.classes[k] if each else "" for k, each in zip(best.argmax(1), sure)]
    assert after.table.gender.equals(before.table.gender) and after.table.age.equals(before.table.age)
    assert run("label", teacher, unlabelled, "--threshold", "mask=.5", "-o", path, "-q", "-j", "0") == 0
    assert capsys.readouterr() == ("", "")


def test_what_label_notices_is_a_line_without_its_place_in_the_source(teacher, unlabelled, tmp_path, capsys):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no photo")
    rows = pd.read_csv(unlabelled, dtype=str, keep_default_na=False)
    rows.loc[0, ["path", "root"]] = [str(bad), ""]
    rows.to_csv(unlabelled, index=False)
    argv = ["label", teacher, unlabelled, "--soft", "-o", tmp_path / "s.csv", "-j", "0"]
    assert run(*argv) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "bad.jpg" in line]
    assert len(told) == 1 and told[0].startswith("note: ") and ".py" not in told[0]
    assert run(*argv, "-q") == 0 and capsys.readouterr().err == ""


def test_a_pseudo_label_trains_and_never_validates(teacher, table, unlabelled, tmp_path, capsys):
    assert run("label", teacher, unlabelled, "--threshold", "mask=0", "age=0", "-o", tmp_path / "l.csv", "-j", "0") == 0
    assert run("train", table, *QUICK, "-j", "0", "--extra", tmp_path / "l.csv", "--output", tmp_path / "run") == 0
    splits = pd.read_csv(tmp_path / "run" / "splits.csv", keep_default_na=False)
    assert len(splits) == 42 + 14 and (splits.pseudo != "").sum() == 14
    assert set(splits.split[splits.pseudo != ""]) == {"train"} and "val" in set(splits.split)
    capsys.readouterr()
    assert run("train", tmp_path / "l.csv", *QUICK, "--val-share", "0.5", "-j", "0", "--output", tmp_path / "bad") == 2
    assert "have labels that a model made, for one images/" in capsys.readouterr().err
    assert not (tmp_path / "bad" / "checkpoints").exists()


def test_soft_labels_teach(teacher, table, unlabelled, tmp_path, capsys):
    assert run("label", teacher, unlabelled, "--soft", "-o", tmp_path / "s.csv", "-j", "0") == 0
    assert "14 of 14 photos carry the model's answers" in capsys.readouterr().out
    soft = pd.read_csv(tmp_path / "s.csv")
    wanted = evaluate(load(teacher), read(unlabelled)).probs
    assert np.allclose(soft[[f"joint:{k}" for k in range(18)]].to_numpy(), wanted, atol=1e-5)
    argv = ["train", table, *QUICK, "-j", "0", "--extra", tmp_path / "s.csv", "-q"]
    weights = []
    for share in ("0", "0.5"):
        assert run(*argv, "--distill", share, "--output", tmp_path / share) == 0
        weights.append((tmp_path / share / "model" / "model.safetensors").read_bytes())
    assert weights[0] != weights[1]
    assert yaml.safe_load((tmp_path / "0.5" / "args.yaml").read_text())["distill"] == 0.5
    assert run("train", table, *QUICK, "--distill", ".5", "-j", "0", "--output", tmp_path / "none") == 2
    assert "distill needs photos with a teacher's answers" in capsys.readouterr().err


def test_labels_of_both_kinds(teacher, unlabelled, tmp_path, capsys):
    argv = ["label", teacher, unlabelled, "--threshold", "age=.99,.99,0", "--soft", "-o", tmp_path / "l.csv", "-j", "0"]
    assert run(*argv) == 0
    out = capsys.readouterr().out
    assert "photos got labels" in out and "14 of 14 photos carry the model's answers" in out
    found = pd.read_csv(tmp_path / "l.csv", keep_default_na=False)
    assert {"pseudo", "joint:0", "joint:17"} <= set(found) and set(found["pseudo"]) <= {"", "age"}


# ---- views of a photo


def test_evaluate_and_predict_with_views(teacher, table, photos, tmp_path, capsys):
    flipped = evaluate(TTA(load(teacher)), photos)
    assert run("evaluate", teacher, table, "--json", "-j", "0", "--tta", "flip") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["macro_f1"] == pytest.approx(flipped.f1, abs=1e-9) and found["n"] == 42
    assert flipped.probs.tolist() != evaluate(load(teacher), photos).probs.tolist()
    argv = ["predict", teacher, *photos.paths[:3], "-j", "0", "-q", "-o"]
    assert run(*argv, tmp_path / "t.csv", "--tta", "flip", "scale=0.9") == 0
    assert run(*argv, tmp_path / "u.csv", "--tta", "flip") == 0
    joint = [f"joint:{k}" for k in range(18)]
    views, one = (pd.read_csv(tmp_path / f"{name}.csv")[joint].to_numpy() for name in "tu")
    assert np.allclose(one, flipped.probs[:3], atol=1e-5) and not np.allclose(views, one, atol=1e-5)


# ---- mixing, as timm names it


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ([], None),
        (["--cutmix", "0.7"], CutMix(alpha=0.7)),
        (["--mixup", "0.2", "--mixup-prob", "0.9"], MixUp(alpha=0.2, prob=0.9)),
        (["--cutmix", "1", "--mixup-off-epoch", "3"], CutMix(alpha=1.0, off_epoch=3)),
        (["--mix", "cutmix(shape=half)", "--mixup-prob", "1"], CutMix(shape="half", prob=1.0)),
        (["--cutmix", "0", "--mixup", "0.4"], MixUp(alpha=0.4)),  # 0 turns it off, as in timm
    ],
    ids=str,
)
def test_timms_flags_of_mixing(flags, wanted, table, monkeypatch, tmp_path):
    seen = []

    def stop(model, training, valid, recipe, **options):
        seen.append(recipe.mix)
        raise Reached

    monkeypatch.setattr("multihead.train.prepare", stop)
    with pytest.raises(Reached):
        run("train", table, *MODEL, *flags, "--output", tmp_path / "run")
    assert seen == [wanted]
    again = yaml.safe_load((tmp_path / "run" / "args.yaml").read_text()).get("mix")
    assert (again is None) == (wanted is None)
