"""Every example runs on drawn people and prints a number that holds."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

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
    tested |= {"own_loop", "film", "serve"}  # serve in test_serve.py
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested | {"start"}


@pytest.fixture
def started(monkeypatch, tmp_path):
    """What main is called with by `start` for an example `drawn` with these words, in an empty folder."""
    start = load("start")
    monkeypatch.chdir(tmp_path)
    made = []
    monkeypatch.setattr(start, "make", lambda root, count: made.append((str(root), count)) or Path(root))

    def call(*words, main=None, people=120):
        monkeypatch.setattr(sys, "argv", ["examples/drawn.py", *words])
        found = []
        start.start(main or (lambda root, out, epochs=1: found.append((str(root), str(out)))), people)
        return found[0] if found else None

    call.made = made
    return call


def test_start_names_a_folder_for_each_source(started):
    assert started() == ("runs/people120/train", "runs/drawn-people120")
    assert started(people=60) == ("runs/people60/train", "runs/drawn-people60")
    assert started.made == [("runs/people120", 120), ("runs/people60", 60)]  # of one folder, one would be refused
    assert started("some/mine") == ("some/mine", "runs/drawn-mine")
    assert started("some/v1.2/") == ("some/v1.2/", "runs/drawn-v1.2")
    assert started("mine.csv") == ("mine.csv", "runs/drawn-mine")
    assert started(".") == (".", f"runs/drawn-{Path.cwd().name}")
    assert started("mine", "elsewhere") == ("mine", "elsewhere")
    assert len(started.made) == 2


def test_start_gives_no_folder_to_what_writes_none(started):
    found = []
    started("mine", main=lambda root, epochs=1: found.append((root, epochs)))
    assert found == [("mine", 1)]


@pytest.mark.parametrize("words", [("a", "b", "c"), ("--help",)])
def test_start_shows_the_docstring_for_words_that_it_does_not_know(started, monkeypatch, words):
    monkeypatch.setattr(sys.modules["__main__"], "__doc__", "usage")
    with pytest.raises(SystemExit, match="^usage$"):
        started(*words)
    with pytest.raises(SystemExit, match="^usage$"):
        started("a", "b", main=lambda root: None)


@pytest.mark.parametrize(
    ("error", "told"),
    [(ValueError("no such"), "no such"), (KeyError("no 'path'"), "no 'path'"), (OSError(2, "gone"), "gone")],
)
def test_start_ends_with_the_message_of_an_error(started, error, told):
    def main(root):
        raise error

    with pytest.raises(SystemExit, match=f"^drawn: error: .*{told}$"):
        started(main=main)
    with pytest.raises(ZeroDivisionError):  # nothing that a user could mend
        started(main=lambda root: 1 / 0)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_says_how_it_is_called(path):
    text, name = path.read_text(), path.stem
    if name in ("start", "schedules", "predict_image", "film", "serve"):
        return
    folder = f"[PHOTOS [OUTPUT]]    # by default drawn people, and runs/{name}-<name of PHOTOS>\n"
    words = folder if re.search(r"^def main\(root, out", text, re.M) else "[PHOTOS]    # by default drawn people"
    assert f"\npython examples/{name}.py {words}" in text and "from start import start" in text


@pytest.mark.slow
def test_other_photos_of_the_same_name_are_refused_in_a_line(people, tmp_path):
    others = shutil.copytree(people / "train", tmp_path / "other" / "train")
    shutil.rmtree(sorted((others / "images").iterdir())[0])
    table = pd.read_csv(others / "train.csv")
    table[[(others / "images" / name).is_dir() for name in table.path]].to_csv(others / "train.csv", index=False)
    load("five_folds").main(people / "train", out=tmp_path / "runs" / "five_folds-train", epochs=1, folds=2, **TINY)
    command = [sys.executable, str(EXAMPLES / "five_folds.py"), str(others)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    message = "runs/five_folds-train holds runs on other photos or folds; name the output folder anew"
    assert done.stderr.splitlines()[-1] == f"five_folds: error: {message}"


def test_train_folder(people, capsys, tmp_path):
    f1 = load("train_folder").main(people / "train", epochs=1, out=tmp_path / "run", **TINY)
    assert 0 <= f1 <= 1
    assert "joint" in capsys.readouterr().out
    assert (tmp_path / "run" / "model" / "config.json").is_file()
    again = load("train_folder").main(people / "train", epochs=1, out=tmp_path / "run", **TINY)
    assert again == f1 and "epoch" not in capsys.readouterr().out


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


def test_predict_image_of_a_photo_that_a_phone_has_turned(people, model, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.open(photos_of(people, 1)[0]).convert("RGB").save(tmp_path / "turned.jpg", exif=exif)
    table = load("predict_image").main(model, tmp_path / "turned.jpg")
    probs = table[[name for name in table if name.startswith("joint:")]].to_numpy(float)
    assert probs.size and np.ptp(probs, axis=0).max() < 0.01


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    model = mh.Model("test_resnet", heads=[head.on(mh.FULL.resized(32)) for head in mh.HEADS])
    for head in model.head.values():
        torch.nn.init.normal_(head.weight, std=2)  # answers that differ
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def photos_of(people, count):
    return sorted((people / "train" / "images").rglob("*.jpg"))[:count]


def lines_of(model, source):
    """What film prints for these photos, by `predict`."""
    table = mh.predict(mh.load(model), source)
    return [f"frame {number}: {row.mask}, {row.gender}, {row.age}" for number, row in enumerate(table.itertuples())]


def test_film_of_a_video(people, model, capsys, tmp_path):
    images = [cv2.resize(cv2.imread(str(path)), (96, 128)) for path in photos_of(people, 40)]
    writer = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (96, 128))
    for image in images:
        writer.write(image)
    writer.release()
    film = load("film")
    shown = list(film.frames(tmp_path / "film.avi"))
    assert len(shown) == 40
    for image, frame in zip(images, shown):  # in order, and RGB
        assert abs(image[:, :, ::-1].astype(int) - frame).mean() < 6 < abs(image.astype(int) - frame).mean()
    found = film.main(model, tmp_path / "film.avi")
    *lines, last = capsys.readouterr().out.splitlines()
    assert lines == lines_of(model, shown) and len({line.partition(": ")[2] for line in lines}) > 1
    assert found.total() == 40 and last.startswith("40 frames: ") and f"{found['worn']} worn" in last


def test_film_of_a_folder_tells_of_a_frame_that_cannot_be_read(people, model, capsys, tmp_path):
    (tmp_path / "frames").mkdir()
    paths = [
        Path(shutil.copy(path, tmp_path / "frames" / f"{n:03}.jpg")) for n, path in enumerate(photos_of(people, 5))
    ]
    paths[2].write_bytes(b"no photo")
    found = load("film").main(model, tmp_path / "frames")
    lines = capsys.readouterr().out.splitlines()
    expected = lines_of(model, paths)
    assert [lines[n] for n in (0, 1, 3, 4)] == [expected[n] for n in (0, 1, 3, 4)]
    assert lines[2].startswith("frame 2: ") and "not an image" in lines[2]
    assert found["unreadable"] == 1 and lines[5].startswith("5 frames: ")


def test_film_answers_while_it_runs_and_ends_on_ctrl_c(people, model, capsys, monkeypatch):
    film, printed = load("film"), []

    def frames(source):
        for path in photos_of(people, 40):
            printed.append(capsys.readouterr().out.count("frame "))
            yield path
        raise KeyboardInterrupt

    monkeypatch.setattr(film, "frames", frames)
    film.main(model, "0")
    assert printed == [0] + [1] * 39, printed  # each before the next is read
    assert " frames: " in capsys.readouterr().out


def test_film_of_what_is_no_video(model, tmp_path):
    (tmp_path / "text.avi").write_text("no video")
    with pytest.raises(ValueError, match="text.avi is no video that OpenCV opens; expected"):
        load("film").main(model, tmp_path / "text.avi")


def test_own_loop(people, capsys):
    f1 = load("own_loop").main(people / "train", epochs=2, **TINY)
    lines = capsys.readouterr().out.splitlines()
    assert 0 <= f1 <= 1 and lines[-1].endswith(f"macro-F1 {f1:.3f}")
    first, last = (float(re.search(r"loss ([\d.]+)", line)[1]) for line in lines)
    assert last < first


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
