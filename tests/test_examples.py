"""Every example runs on drawn people and prints a number that holds."""

import importlib.util
from pathlib import Path

import pandas as pd
import pytest
import torch

import multihead as mh

EXAMPLES = Path(__file__).parents[1] / "examples"
TINY = {"backbone": "test_resnet", "size": 32}


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_run_here():
    tested = {"train_folder", "two_crops", "predict_image", "heads_vs_flat", "three_models", "resume"}
    tested |= {"compare_arms", "distil", "schedules", "logs_to_table", "tune", "five_folds", "soft_voting"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested


def test_train_folder(people, capsys, tmp_path):
    f1 = load("train_folder").main(people / "train", epochs=1, out=tmp_path / "run", **TINY)
    assert 0 <= f1 <= 1
    assert "joint" in capsys.readouterr().out
    assert (tmp_path / "run" / "model" / "config.json").is_file()


def test_two_crops(people, capsys):
    load("two_crops").main(people / "train", epochs=1, boxes=people / "train" / "boxes.csv", **TINY)
    printed = capsys.readouterr().out
    assert "2 passes of the backbone a photo, for 3 heads" in printed
    assert "where the mask is incorrect" in printed


def test_predict_image(people, capsys, tmp_path):
    torch.manual_seed(0)
    model = mh.Model("test_resnet", heads=[head.on(mh.FULL.resized(32)) for head in mh.HEADS])
    model.save_pretrained(tmp_path / "model")
    photo = sorted((people / "train" / "images").rglob("normal.*"))[0]
    table = load("predict_image").main(tmp_path / "model", photo, draw=tmp_path / "drawn")
    assert len(table) == 3 and table.label.nunique() == 1
    assert "the three agree: True" in capsys.readouterr().out
    assert list((tmp_path / "drawn").glob("*.jpg"))


def test_heads_vs_flat(people, capsys):
    found = load("heads_vs_flat").main(people / "train", epochs=1, **TINY)
    assert found["heads"].n == found["flat"].n > 0
    assert "heads minus flat" in capsys.readouterr().out


def test_three_models(people):
    found = load("three_models").main(people / "train", epochs=1, **TINY)
    assert list(found) == ["three", "flat", "both"] and all(0 <= f1 <= 1 for f1 in found.values())


@pytest.mark.slow
def test_resume(people, capsys):
    whole, halves = load("resume").main(people / "train", epochs=2, backbone="test_resnet", size=32)
    assert whole == halves
    assert "equal: True" in capsys.readouterr().out


def test_compare_arms(people, capsys, tmp_path):
    found = load("compare_arms").main(people / "train", out=tmp_path / "compare", epochs=1, **TINY)
    assert set(found.arm) == {"plain", "cutmix"} and (tmp_path / "compare" / "curves.png").is_file()
    assert "cutmix minus plain, mask macro-F1: " in capsys.readouterr().out


def test_distil(people, capsys):
    found = load("distil").main(people / "train", epochs=1, **TINY)
    assert list(found) == ["alone", "taught", "teacher"] and all(0 <= f1 <= 1 for f1 in found.values())
    assert "macro-F1 over 18 classes: alone" in capsys.readouterr().out


def test_schedules(capsys, tmp_path):
    load("schedules").main(tmp_path / "schedules.png")
    assert (tmp_path / "schedules.png").read_bytes()[:4] == b"\x89PNG" and "OneCycle" in capsys.readouterr().out


def test_logs_to_table(people, capsys, tmp_path):
    best = load("logs_to_table").main(people / "train", out=tmp_path / "runs", epochs=2, **TINY)
    assert list(best.run) == ["lr0.0004", "lr0.004"] and (tmp_path / "runs" / "macro_f1.png").is_file()
    for row in best.itertuples():
        rows = pd.read_csv(tmp_path / "runs" / row.run / "metrics.csv")
        assert rows.macro_f1.max() == pytest.approx(row.value) and rows.macro_f1[row.step - 1] == rows.macro_f1.max()
    assert "lr0.004: best epoch " in capsys.readouterr().out


def test_tune(people, capsys, tmp_path):
    found = load("tune").main(people / "train", out=tmp_path / "tune", epochs=1, trials=2, **TINY)
    assert list(found) == ["best", "first"] and all(0 <= f1 <= 1 for f1 in found.values())
    printed = capsys.readouterr().out
    assert "best settings: {'crops': " in printed and "on people never searched on: " in printed
    assert (tmp_path / "tune" / "trials.csv").is_file()


@pytest.mark.slow
def test_five_folds(people, capsys, tmp_path):
    found = load("five_folds").main(people / "train", out=tmp_path / "folds", folds=2, epochs=1, **TINY)
    assert list(found) == ["fold 0", "fold 1", "ensemble", "soup"] and all(0 <= f1 <= 1 for f1 in found.values())
    assert "out of fold: " in capsys.readouterr().out and (tmp_path / "folds" / "oof.csv").is_file()


@pytest.mark.slow
def test_soft_voting(people, capsys, tmp_path):
    found = load("soft_voting").main(people / "train", out=tmp_path, folds=2, epochs=1, **TINY)
    assert list(found) == ["heads", "flat", "both"] and all(0 <= f1 <= 1 for f1 in found.values())
    assert "weights heads " in capsys.readouterr().out
    assert len(mh.load(tmp_path / "ensemble").members) == 4
