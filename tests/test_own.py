"""What users bring: a loss, a pipeline of albumentations, a backbone and photos as tensors, from their own modules."""

import json
import os
import re
import sys

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import yaml
from torch import nn

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations as A

import multihead as mh
from multihead.cli import main

TINY = ["--model", "test_resnet", "--resize", "32", "--epochs", "2", "-b", "8", "-j", "0", "--val-share", "0.25"]
LOSSES = """
import torch

def poly(logits, rows, epsilon=1.0):
    log_probs = logits.log_softmax(1)
    return -(rows * log_probs).sum(1) + epsilon * (1 - (rows * log_probs.exp()).sum(1))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder: my_losses.py and aug.yaml."""
    (tmp_path / "my_losses.py").write_text(LOSSES)
    pipeline = A.Compose([A.HorizontalFlip(p=0.5), A.RandomBrightnessContrast(p=0.5)])
    A.save(pipeline, tmp_path / "aug.yaml", data_format="yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_losses", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def weights(run):
    return mh.Model.from_pretrained(run / "model").state_dict()


@pytest.mark.slow
def test_a_run_with_a_loss_and_a_pipeline_of_ones_own_is_repeated_by_its_settings(people, folder):
    own = ["--loss", "mask=custom('my_losses:poly')", "age=ordinal(loss=custom('my_losses:poly'))"]
    assert main(["train", str(people), *TINY, *own, "--aug", "albumentations('aug.yaml')", "-o", "a"]) == 0
    kept = yaml.safe_load((folder / "a" / "args.yaml").read_text())
    assert "my_losses:poly" in str(kept["loss"]) and "RandomBrightnessContrast" in str(kept["aug"])
    (folder / "aug.yaml").unlink()  # the settings hold what it said
    assert main(["train", "-c", "a/args.yaml", str(people), "-o", "b"]) == 0
    assert all(torch.equal(value, weights(folder / "b")[name]) for name, value in weights(folder / "a").items())
    assert main(["train", str(people), *TINY, "-o", "plain"]) == 0
    assert any(not torch.equal(value, weights(folder / "plain")[name]) for name, value in weights(folder / "a").items())


def test_a_run_with_a_loss_of_ones_own_goes_on(people, folder, capsys):
    own = ["--loss", "custom('my_losses:poly')"]
    assert main(["train", str(people), *TINY, *own, "-o", "a"]) == 0
    assert main(["train", "--resume", "-o", "a"]) == 0
    (folder / "my_losses.py").unlink()
    sys.modules.pop("my_losses")
    assert main(["train", str(people), *TINY, *own, "-o", "c"]) == 2
    assert "custom: 'my_losses:poly': module 'my_losses' cannot be imported" in capsys.readouterr().err


def test_a_loss_that_gives_a_mean_is_told_before_training(people, folder, capsys):
    (folder / "my_losses.py").write_text("def poly(logits, rows):\n    return logits.sum()\n")
    assert main(["train", str(people), *TINY, "--loss", "custom('my_losses:poly')", "-o", "a"]) == 2
    assert "gave shape () for 3 photos; expected a loss for each of them" in capsys.readouterr().err


class Net(nn.Module):
    """A backbone that says nothing of itself."""

    def __init__(self, flat):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.flat = flat

    def forward(self, x):
        return self.body(x).mean((2, 3)) if self.flat else self.body(x)


def my_own_net(pretrained=False, **options):
    return Net(True)


def my_spatial_net(pretrained=False, **options):
    return Net(False)


def test_a_backbone_that_timm_was_told_of_trains_is_saved_and_answers(people, tmp_path):
    timm.models.register_model(my_own_net)
    photos = mh.read(people)
    model = mh.Model("my_own_net", heads=[head.on(mh.FULL.resized(32)) for head in mh.HEADS])
    mh.fit(model, photos, None, mh.Recipe(epochs=1), out=tmp_path / "run")
    again = mh.load(tmp_path / "run" / "model")
    pictures = torch.randint(0, 256, (4, 3, 40, 30), dtype=torch.uint8)
    found, wanted = mh.predict(again, pictures), mh.predict(model, list(pictures.permute(0, 2, 3, 1).numpy()))
    numbers = found.select_dtypes("number").columns
    np.testing.assert_allclose(found[numbers].astype(float), wanted[numbers].astype(float))
    assert len(found) == 4 and not found.error.astype(bool).any() and isinstance(found, pd.DataFrame)


def test_a_backbone_that_gives_maps_is_refused():
    timm.models.register_model(my_spatial_net)
    with pytest.raises(ValueError, match=r"backbone Net gives shape \(1, 8, 16, 16\) .*; expected features \(1, D\)"):
        mh.Model("my_spatial_net", heads=[mh.MASK.on(mh.FULL.resized(32))])


@pytest.mark.slow
def test_heads_of_ones_own_go_through_every_command(people, tmp_path, capsys):
    """Trained, scored, folded, compared and reported from the command line, a banded one of no years among them."""
    photos = mh.read(people / "train")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"path": photos.paths, "person": photos.people, "mask": photos.labels()[:, 0]})
    frame["tone"] = rng.choice(["Dark", "light", ""], len(frame))
    frame["height"] = rng.choice(["150", "165.5", "tall", ""], len(frame))
    frame.to_csv(tmp_path / "t.csv", index=False)
    heads = ["--heads", "mask", "tone=dark,light", "height=short,middle,tall@160,180"]
    quick = [*heads, *TINY[:-2], "--epochs", "1", "-q"]
    data = str(tmp_path / "t.csv")
    assert main(["train", data, *quick, "--crops", "full", "tone=full:24x24", "-o", str(tmp_path / "a")]) == 0
    model = mh.load(tmp_path / "a")
    assert [head.name for head in model.heads] == ["mask", "tone", "height"] and model.heads[2].edges == (160, 180)
    assert model.heads[1].crops[0].size == (24, 24)
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "a"), data, "--part", "all", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    known = {"tone": (frame.tone != "").sum(), "height": (frame.height != "").sum(), "mask": len(frame)}
    assert {name: head["n"] for name, head in scores["heads"].items()} == known
    assert main(["train", "-c", str(tmp_path / "a" / "args.yaml"), "-o", str(tmp_path / "again"), "-q"]) == 0
    assert all(torch.equal(value, weights(tmp_path / "again")[name]) for name, value in weights(tmp_path / "a").items())
    assert main(["folds", data, *quick, "--folds", "2", "-o", str(tmp_path / "f")]) == 0
    assert main(["ensemble", str(tmp_path / "f"), "--calibrate", "-o", str(tmp_path / "e")]) == 0
    assert set(mh.load(tmp_path / "e").space) == set(model.space)
    few = [word for word in quick if word not in ("--val-share", "0.25")]
    vary = ["--vary", "aug=flip,plain", "--folds", "2", "-o", str(tmp_path / "c")]
    assert main(["compare", data, *few, *vary]) == 0
    assert {"tone_f1", "height_f1"} <= set(pd.read_csv(tmp_path / "c" / "results.csv").columns)
    assert main(["report", str(tmp_path / "a"), "-q"]) == 0
    assert main(["predict", str(tmp_path / "a"), data, "-o", str(tmp_path / "answers.csv")]) == 0
    answers = pd.read_csv(tmp_path / "answers.csv")
    assert set(answers.tone) <= {"dark", "light"} and len([name for name in answers if name.startswith("joint:")]) == 18


@pytest.mark.parametrize(
    "head, told",
    [
        ("tone", "unknown head 'tone'; expected some of mask, gender, age, or one of your own with its classes, as"),
        ("tone=dark", "head 'tone=dark' cannot be read .*expected two or more unlike names"),
        ("tone=a,b@1,2", "cannot be read .*expected 1 rising numbers"),
        ("tone=a,b@x", "cannot be read .*expected name=class,class or name=low,middle,high@160,180"),
        ("mask=a,b", r"heads \['mask', 'mask'\] repeat a name"),
    ],
)
def test_a_head_that_cannot_be_read_is_told(head, told, people, tmp_path, capsys):
    assert main(["train", str(people), *TINY, "--heads", "mask", head, "-o", str(tmp_path / "a")]) == 2
    assert re.search(told, capsys.readouterr().err)
