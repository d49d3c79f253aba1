"""The demo in small: everything it promises to leave is there, and both scores are printed."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import multihead as mh
from multihead.cli import main
from multihead.demo import pixel_baseline, thumbnails


@pytest.mark.slow
def test_demo_leaves_model_table_and_picture_and_goes_on(tmp_path, capsys):
    folder = tmp_path / "demo"
    assert main(["demo", "-o", str(folder), "--people", "18", "--epochs", "1"]) == 0
    printed = capsys.readouterr().out
    assert "multihead" in printed and "16x16 pixels" in printed and "18 classes" in printed
    answers = pd.read_csv(folder / "predictions.csv")
    truth = pd.read_csv(folder / "data" / "eval" / "truth.csv")
    assert len(answers) == len(truth) > 0 and answers.error.isna().all()
    with Image.open(folder / "predictions.jpg") as picture:
        assert picture.width > 1000 and np.asarray(picture).std() > 10
    assert mh.load(folder / "run" / "model").prior is not None
    assert main(["demo", "-o", str(folder), "--people", "18", "--epochs", "1"]) == 0
    assert "finished before" in capsys.readouterr().out


def test_no_epochs_are_not_the_usual_ones(tmp_path, capsys):
    assert main(["demo", "-o", str(tmp_path / "demo"), "--epochs", "0"]) == 2
    assert "epochs is 0" in capsys.readouterr().err and not (tmp_path / "demo").exists()


def test_people_of_the_answers_are_new(people):
    trained = mh.read(people / "train")
    strangers = mh.read(people / "eval" / "truth.csv")
    assert not set(trained.table.person.str.split(":").str[1]) & set(strangers.table.person.str.split(":").str[1])


def test_pixel_baseline_is_a_logistic_regression_on_thumbnails(people):
    train, valid = mh.read(people / "train").split(0.4, seed=0)
    found = pixel_baseline(train, valid)
    pixels = thumbnails(train)
    assert pixels.shape == (len(train), 768) and pixels.min() >= 0 and pixels.max() <= 1
    scale = StandardScaler().fit(pixels)
    labels = mh.encode(train.labels())
    plain = LogisticRegression(C=0.01, max_iter=300).fit(scale.transform(pixels), labels)
    answers = plain.predict(scale.transform(thumbnails(valid)))
    assert found.accuracy == pytest.approx((answers == mh.encode(valid.labels())).mean())
