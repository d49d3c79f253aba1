"""What users do in a row: README's commands, word by word, and the ways in which such rows have gone wrong."""

import json
import os
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

import multihead as mh
from multihead.boxes import boxes_file, locate_faces
from multihead.cli import main
from multihead.faces import Face

TINY = ["--model", "test_resnet", "--resize", "32", "--epochs", "1", "-j", "0"]
FULL = mh.FULL.resized(32)


class Middle:
    """A detector that finds one face, in the middle; counts the photos it sees."""

    def __init__(self):
        self.seen = 0

    def find(self, images):
        self.seen += len(images)
        return [[Face((w / 4, h / 4, w * 3 / 4, h * 3 / 4), 0.9)] for h, w in (image.shape[:2] for image in images)]


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    model = mh.Model("test_resnet", heads=[head.on(FULL) for head in mh.HEADS])
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def photo(path, size=(24, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(len(str(path))).integers(0, 256, (*size, 3), np.uint8))
    return path


@pytest.mark.slow
def test_the_competition_flow_of_the_readme(people, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(people / "train", tmp_path / "train")
    shutil.copytree(people / "eval", tmp_path / "eval")
    monkeypatch.setattr("multihead.yunet.Finder", Middle)
    monkeypatch.setattr("multihead.boxes.scan", None)  # every photo was searched by the first command
    assert main(["scan", "train", "-o", "boxes.csv"]) == 0
    assert main(["split", "train", "-o", "splits.csv", "--val-share", "0.3"]) == 0
    crops = ["--boxes", "boxes.csv", "--crops", "face"]
    assert main(["train", "splits.csv", *crops, *TINY, "--output", "runs/c"]) == 0
    monkeypatch.setattr("multihead.yunet.Finder", Middle)
    assert main(["predict", "runs/c", "eval/info.csv", "--submission", "submission.csv"]) == 0
    filled, info = pd.read_csv("submission.csv"), pd.read_csv("eval/info.csv")
    assert filled.ImageID.tolist() == info.ImageID.tolist() and filled.ans.between(0, 17).all()
    capsys.readouterr()
    assert main(["evaluate", "runs/c", "runs/c/splits.csv", "--json"]) == 0
    printed = capsys.readouterr()
    held_out = json.loads((tmp_path / "runs/c/metrics.json").read_text())
    assert json.loads(printed.out)["macro_f1"] == pytest.approx(held_out["macro_f1"], abs=1e-6)
    assert "trained this model" not in printed.err
    assert main(["evaluate", "runs/c", "train", "--boxes", "boxes.csv", "--json"]) == 0
    assert "photos trained this model" in capsys.readouterr().err


def test_a_written_split_keeps_names_and_what_was_searched(people, tmp_path):
    photos = mh.read(people / "train", boxes=people / "train" / "boxes.csv")
    photos = photos.with_columns(x0=np.nan, x1=np.nan, y0=np.nan, y1=np.nan)
    photos.write(tmp_path / "all.csv")
    back = mh.read(tmp_path / "all.csv")
    assert (
        back.table.name.tolist() == photos.table.name.tolist()
        and back.table.root.tolist() == photos.table.root.tolist()
    )
    assert back.table.searched.all() and not back.table.whole.any()


def test_a_failed_predict_leaves_the_old_table(model, tmp_path, capsys):
    (tmp_path / "wrong.csv").write_text("file\na.jpg\n")
    (tmp_path / "answers.csv").write_text("kept")
    assert main(["predict", str(model), str(tmp_path / "wrong.csv"), "-o", str(tmp_path / "answers.csv")]) == 2
    assert (tmp_path / "answers.csv").read_text() == "kept"
    (tmp_path / "empty").mkdir()
    assert main(["predict", str(model), str(tmp_path / "empty"), "-o", str(tmp_path / "answers.csv")]) == 1
    assert "no photos in" in capsys.readouterr().err
    assert (tmp_path / "answers.csv").read_text() == "kept"


def test_a_blank_split_is_training_and_may_not_leak(people, tmp_path, capsys):
    photos = mh.read(people / "train")
    split = np.array(["train"] * len(photos), object)
    split[-7:] = "test"
    split[-14:-7] = "val"
    mh.Photos(photos.table.assign(split=split), photos.heads).write(tmp_path / "good.csv")
    split[-1] = ""
    mh.Photos(photos.table.assign(split=split), photos.heads).write(tmp_path / "leak.csv")
    assert main(["train", str(tmp_path / "leak.csv"), *TINY, "--output", str(tmp_path / "run")]) == 2
    assert "1 people are on both sides" in capsys.readouterr().err
    extra = ["--extra", str(people / "train")]
    assert main(["train", str(tmp_path / "good.csv"), *extra, *TINY, "--output", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert "on both sides" in told and "so leave them out of --extra" in told


def test_several_rows_of_one_photo_share_its_picture(model, tmp_path):
    photo(tmp_path / "a.png", (300, 400))
    rows = "".join(f"a.png,{x},10,{x + 4},20\n" for x in range(0, 370, 10))  # more than are answered at once
    (tmp_path / "boxes.csv").write_text("path,x0,y0,x1,y1\n" + rows)
    assert (
        main(
            [
                "predict",
                str(model),
                str(tmp_path / "boxes.csv"),
                "-o",
                str(tmp_path / "t.csv"),
                "--draw",
                str(tmp_path / "drawn"),
            ]
        )
        == 0
    )
    (picture,) = (tmp_path / "drawn").iterdir()
    drawn = cv2.imread(str(picture))
    plain = cv2.imread(str(tmp_path / "a.png"))
    scale = drawn.shape[1] / plain.shape[1]
    smooth = [
        np.ptp(drawn[int(12 * scale) : int(18 * scale), int(x * scale)].astype(int), axis=0).max()
        for x in range(0, 370, 10)
    ]
    assert sum(value < 100 for value in smooth) > 30  # box edges of one colour, after JPEG, where there was noise
    table = pd.read_csv(tmp_path / "t.csv")
    assert len(table) == 37 and set(table.path) == {"a.png"}  # the table's own names


def test_answers_read_back_from_another_folder(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photo(tmp_path / "photos" / "1.png")
    assert main(["predict", "model", "photos", "-o", "out/answers.csv"]) == 0
    assert os.path.samefile(mh.read("out/answers.csv").paths[0], tmp_path / "photos" / "1.png")


def test_a_photo_that_changed_is_searched_again(tmp_path):
    file = photo(tmp_path / "a.png", (100, 100))
    photos, crops, finder = mh.read(tmp_path), [mh.FACE.resized(32)], Middle()
    assert locate_faces(photos, crops, finder=finder).photos.boxes.tolist() == [[25, 25, 75, 75]]
    assert locate_faces(photos, crops, finder=finder).searched == 0
    photo(file, (60, 60))
    later = boxes_file(tmp_path, finder).stat().st_mtime + 5
    os.utime(file, (later, later))
    assert locate_faces(photos, crops, finder=finder).photos.boxes.tolist() == [[15, 15, 45, 45]]
    assert finder.seen == 2


def test_heads_of_ones_own_are_scored_from_the_command_line(tmp_path, capsys):
    smile = mh.Head("smile", ("no", "yes")).on(FULL)
    age = mh.Head("age", ("young", "old"), edges=(40,)).on(FULL)
    mh.Model("test_resnet", heads=[smile, age]).save_pretrained(tmp_path / "model")
    for number in range(4):
        photo(tmp_path / f"{number}.png")
    (tmp_path / "smile.csv").write_text("path,smile,age\n0.png,yes,20\n1.png,no,40\n2.png,1,\n3.png,,70\n")
    assert main(["evaluate", str(tmp_path / "model"), str(tmp_path / "smile.csv"), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["heads"]["smile"]["n"] == 3 and scores["heads"]["age"]["classes"]["old"]["n"] == 2


def test_people_of_tables_with_one_name_stay_apart(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "people.csv").write_text("path,person\na.jpg,1\nb.jpg,2\n")
    tables = [str(tmp_path / folder / "people.csv") for folder in ("x", "y")]
    assert len(set(mh.read(tables).people)) == 4
    assert len(set(mh.read(tables, people="global").people)) == 2


def test_predict_and_scan_do_not_mind_labels(model, tmp_path, monkeypatch):
    photo(tmp_path / "a.png")
    (tmp_path / "odd.csv").write_text("path,gender\na.png,diverse\n")
    monkeypatch.setattr("multihead.yunet.Finder", Middle)
    assert main(["predict", str(model), str(tmp_path / "odd.csv"), "-o", str(tmp_path / "t.csv")]) == 0
    assert main(["scan", str(tmp_path / "odd.csv"), "-o", str(tmp_path / "b.csv")]) == 0
    (tmp_path / "map.csv").write_text("file\na.png\n")
    mapped = ["predict", str(model), str(tmp_path / "map.csv"), "--columns", "path=file", "-o", str(tmp_path / "m.csv")]
    assert main(mapped) == 0 and len(pd.read_csv(tmp_path / "m.csv")) == 1


def test_photos_without_a_face_are_said_and_scored(tmp_path, capsys):
    mh.Model("test_resnet", heads=[head.on(mh.FACE.resized(32)) for head in mh.HEADS]).save_pretrained(tmp_path / "m")
    for number in range(3):
        photo(tmp_path / f"{number}.png")
    (tmp_path / "t.csv").write_text("path,mask,face\n0.png,worn,none\n1.png,worn,whole\n2.png,not_worn,none\n")
    assert main(["evaluate", str(tmp_path / "m"), str(tmp_path / "t.csv")]) == 0
    assert "2 photos have no face and were read whole, for example 0.png, 2.png" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "m"), str(tmp_path / "t.csv"), "--missing", "skip", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["heads"]["mask"]["n"] == 1 and "were left out" in printed.err
    for quiet in ([], ["-q"]):
        assert (
            main(["predict", str(tmp_path / "m"), str(tmp_path / "t.csv"), "-o", str(tmp_path / "o.csv"), *quiet]) == 0
        )
        assert capsys.readouterr().err == "" if quiet else "2 photos have no face" in capsys.readouterr().err


def test_one_row_with_a_body_trains():
    body = mh.BODY.resized(32)
    model = mh.Model("resnet10t", heads=[mh.GENDER.on(body)]).train()
    present = torch.tensor([[False], [True], [False], [False]])
    logits = model({body: torch.zeros(4, 3, 32, 32, dtype=torch.uint8)}, present)["gender"]
    assert logits.shape == (4, 2) and torch.isfinite(logits).all()


def test_unknown_words_are_met_with_the_nearest(people, capsys):
    with pytest.raises(SystemExit):
        main(["trian", "x"])
    assert "did you mean 'train'?" in capsys.readouterr().err
    for flag, word, wanted in (("--heads", "maks", "'mask'"), ("--crops", "faec", "'face'")):
        assert main(["train", str(people / "train"), flag, word, *TINY]) == 2
        assert f"did you mean {wanted}?" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_said_first(model, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "t.csv"
    assert main(["predict", str(model), str(photo(tmp_path / "a.png")), "-o", str(target)]) == 2
    assert f"cannot write {target}" in capsys.readouterr().err
    assert main(["split", "nowhere", "-o", str(target)]) == 2
    assert f"cannot write {target}" in capsys.readouterr().err


def test_the_competitions_other_columns_are_kept(people):
    assert set(mh.read(people / "train").table.race) == {"Asian"}


def test_a_class_named_like_another_ones_index_is_refused():
    with pytest.raises(ValueError, match="names a class '1', which tables read as an index"):
        mh.Head("kids", ("1", "2", "3"))
    assert mh.Head("kids", ("0", "1", "2")).classes == ("0", "1", "2")
