"""What users hand over by mistake, or in a form of their own: read as meant, or refused by name."""

import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import multihead as mh
from multihead.boxes import boxes_file
from multihead.cells import boxes_of
from multihead.cli import main
from multihead.data import write_splits
from multihead.images import read_image
from multihead.inputs import after, items
from multihead.options import to_dict, whole
from multihead.recipe import EMA
from multihead.sides import target_rows
from multihead.spelling import parse_head, spell

SMALL = mh.FULL.resized(32)
TINY = ["--model", "test_resnet", "--resize", "32", "--epochs", "1", "-j", "0", "-q"]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return mh.Model("test_resnet", heads=[head.on(SMALL) for head in mh.HEADS]).eval()


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((20, 30, 3), ord(name[0]), np.uint8)).save(tmp_path / name)
    return tmp_path


# ---- heads and labels


def test_classes_may_be_a_list(folder):
    head = mh.Head("tone", ["dark", "light"], crops=[SMALL], edges=[0.5])
    assert head == mh.Head("tone", ("dark", "light"), (SMALL,), (0.5,)) and hash(head) == hash(head.on(SMALL))


@pytest.mark.parametrize("classes", ["ab", (1, 2), ("a", None)])
def test_classes_are_texts(classes):
    with pytest.raises(TypeError, match="head 'tone' has classes .*; expected texts, as"):
        mh.Head("tone", classes)


@pytest.mark.parametrize("name", ["path", "box", "label", "error", "person", "pseudo"])
def test_a_head_is_no_column_of_answers(name):
    with pytest.raises(ValueError, match=f"head name '{name}' is a column of the tables .*; take another"):
        mh.Head(name, ("a", "b"))


def test_settings_of_age_leave_other_bands_alone(folder):
    height = mh.Head("height", ("short", "middle", "tall"), edges=(160, 180))
    photos = mh.read(pd.DataFrame({"path": ["a.png", "b.png"], "height": [150, 170]}), heads=[height], root=folder)
    with pytest.raises(ValueError, match=r"need a head that bands the number age; got \['height'\]"):
        target_rows(photos, [height], mh.Recipe(age_edges=(30, 58)))
    assert target_rows(photos, [height], mh.Recipe()).rows["height"].argmax(1).tolist() == [0, 1]


def test_each_head_has_its_own_number(folder):
    """A weight is no age, though all of its edges could be ages, and one of 140 is no error."""
    weight = mh.Head("weight", ("light", "heavy"), edges=(60,))
    rows = pd.DataFrame({"path": ["a.png", "b.png"], "age": [35, ""], "weight": ["50.5", "140"]})
    photos = mh.read(rows, heads=[mh.AGE, weight], root=folder)
    assert photos.labels().tolist() == [[1, 0], [-1, 1]] and photos.extra == []
    found = target_rows(photos, photos.heads, mh.Recipe(age_edges=(36, 60), drop_zones=((50, 51),), soft_bands=2))
    assert found.rows["age"].argmax(1).tolist() == [0, 0] and 0.5 < found.rows["age"][0].max() < 0.9
    assert found.rows["weight"].tolist() == [[1, 0], [0, 1]]
    decade = mh.Head("decade", ("20s", "30s", "40s", "older"), edges=(30, 40, 50), number="age")
    both = mh.read(rows, heads=[mh.AGE, decade], root=folder)
    moved = target_rows(both, both.heads, mh.Recipe(age_edges=(36, 60)))  # of the head age; bands of a decade stay
    assert moved.rows["age"][0].argmax() == 0 and moved.rows["decade"][0].argmax() == 1
    alone = target_rows(both, [decade], mh.Recipe(age_edges=(30, 36, 50)))
    assert alone.rows["decade"][0].argmax() == 1
    apart = [mh.read(rows[["path", name]], heads=[mh.AGE, weight], root="/" + name) for name in ("age", "weight")]
    assert (apart[0] + apart[1]).labels().tolist() == [[1, -1], [-1, -1], [-1, 0], [-1, 1]]
    photos.write(folder / "both.csv")
    back = mh.read(folder / "both.csv", heads=[mh.AGE, weight])
    assert back.table["weight:number"].tolist() == [50.5, 140] and (back.labels() == photos.labels()).all()
    other = photos.with_columns(**{"weight:number": [50.5, 61]})
    assert other.fingerprint() != photos.fingerprint()  # training reads it


def test_a_number_needs_edges_and_a_column_of_its_own():
    with pytest.raises(ValueError, match="head 'decade' has number 'age', but no edges"):
        mh.Head("decade", ("20s", "30s"), number="age")
    with pytest.raises(ValueError, match="head number 'path' is a column of the tables"):
        mh.Head("decade", ("20s", "30s"), edges=(30,), number="path")
    decade, named = (
        mh.Head("decade", ("20s", "30s"), edges=(30,), number="age"),
        replace(mh.AGE, edges=None),
    )
    with pytest.raises(ValueError, match="head 'decade' bands the number 'age', and head 'age' reads that column as"):
        mh.read(pd.DataFrame({"path": ["a.png"], "age": [35]}), heads=[decade, named])
    with pytest.raises(ValueError, match=r"row 2 \(a.png\), column 'age': '20s' is no age; expected years from 0"):
        mh.read(pd.DataFrame({"path": ["a.png"], "age": ["20s"]}), heads=[decade])


@pytest.mark.parametrize("text", ["x=a,b@", "x=a,b@nan"])
def test_edges_are_numbers(text):
    with pytest.raises(ValueError, match=f"head '{text}' cannot be read"):
        parse_head(text)


def test_a_head_may_have_bands_of_anything(folder):
    height = mh.Head("height", ("short", "middle", "tall"), edges=(160, 180))
    table = pd.DataFrame({"path": ["a.png", "b.png", "c.png"], "height": ["159.5", "180", "tall"]})
    assert mh.read(table, heads=[height], root=folder).labels().tolist() == [[0], [2], [2]]
    with pytest.raises(ValueError, match="'big' is no height; expected a number, one of"):
        mh.read(table.assign(height="big"), heads=[height], root=folder)


@pytest.mark.parametrize("cell", ["NA", "n/a", "null", "None", "nan", ""])
def test_what_tables_write_for_nothing_is_unknown(cell, folder):
    table = pd.DataFrame({"path": ["a.png"], "mask": [cell], "age": [cell]})
    assert mh.read(table, root=folder).labels().tolist() == [[-1, -1, -1]]


@pytest.mark.parametrize(
    "labels", [pd.Series([15, 0, None], dtype="Int64"), pd.Series([15.0, 0.0, np.nan]), np.array([15, 0, np.nan]),
               [15, 0, -1], [15, 0, None]], ids=repr
)  # fmt: skip
def test_labels_of_a_table_are_decoded(labels):
    found = mh.decode(labels)
    assert found.tolist() == [[2, 1, 0], [0, 0, 0], [-1, -1, -1]] and found.dtype == np.int64
    assert mh.decode(np.int64(15)).tolist() == mh.decode(15).tolist() == [2, 1, 0]
    assert mh.encode(pd.DataFrame(found, columns=["mask", "gender", "age"])).tolist() == [15, 0, -1]


def test_columns_of_labels_go_by_their_names():
    table = pd.DataFrame({"age": [2, 0], "mask": [0, 1], "path": ["a", "b"], "gender": [1, None]})
    assert mh.encode(table).tolist() == [5, -1]
    assert mh.encode(table[["mask", "gender", "age"]].set_axis([0, 1, 2], axis=1)).tolist() == [5, -1]
    with pytest.raises(KeyError, match=r"labels have the columns \['age', 'mask'\], none for \['gender'\]"):
        mh.encode(table[["age", "mask"]])


def test_a_label_that_is_no_whole_number_is_refused():
    with pytest.raises(ValueError, match=r"joint class 1.5 is no whole number; expected -1 to 17"):
        mh.decode(np.array([0, 1.5]))


# ---- photos


def test_an_empty_path_is_not_the_current_folder(model, folder, monkeypatch):
    monkeypatch.chdir(folder)
    for source in ("", ["a.png", "", " "]):
        table = mh.predict(model, source)
        assert table.error[table.path.str.strip() == ""].tolist() == ["the path is blank"] * (
            len(table) - (source != "")
        )


def test_a_name_that_no_file_can_have_is_a_row(model, folder):
    table = mh.predict(model, [folder / "a.png", "x" * 300 + ".jpg", "a\0.jpg", "data:image/png;base64," + "A" * 5000])
    reasons = ["", "File name too long", "not a file name", "File name too long"]
    assert all(reason in error for reason, error in zip(reasons, table.error, strict=True)) and not table.error[0]


def test_a_missing_path_in_a_column_is_a_row(model, folder):
    table = mh.predict(model, pd.Series([str(folder / "a.png"), np.nan]))
    assert table.error.tolist() == ["", "the path is blank"]


@pytest.mark.parametrize("kind", [pd.Series, np.array, pd.Index, lambda paths: np.array(paths, object)])
def test_paths_come_as_a_column(kind, folder):
    paths = [str(folder / name) for name in ("a.png", "b.png")]
    assert [item.name for item in items(kind(paths))] == paths


def test_a_wrong_source_is_told_what_there_is():
    with pytest.raises(TypeError, match="cannot read photos from dict; .*DataFrame, a list or a generator"):
        next(items({}))


def test_8_bits_that_lie_in_16_are_not_black():
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint16)
    with pytest.raises(ValueError, match="expected uint16 up to 65535, got .* up to .*; pass it as uint8"):
        read_image(image)
    np.testing.assert_array_equal(read_image(image * 257), image.astype(np.uint8))
    assert not read_image(np.zeros((4, 5), np.uint16)).any()


@pytest.mark.skipif(os.sep != "/", reason="folders are separated by \\ here")
def test_backslashes_are_pointed_at(model):
    assert "separated by /, and this has backslashes" in mh.predict(model, "imgs\\up.jpg").error[0]


@pytest.mark.parametrize("cell", ["", "nan", "NA", "None", " "])
def test_what_tables_write_for_nothing_is_no_box(cell):
    table = pd.DataFrame({"path": ["a", "b"], "x0": ["-1", cell], "y0": ["-1", cell], "x1": ["9", cell]})
    assert boxes_of(table.assign(y1=["8", cell])).tolist() == [[-1, -1, 9, 8], pytest.approx([np.nan] * 4, nan_ok=True)]
    with pytest.raises(ValueError, match=r"row 3 \(b\): box .* is not four numbers x0 y0 x1 y1"):
        boxes_of(table.assign(y1=["8", "7"]))


def test_boxes_are_pixels():
    table = pd.DataFrame({"path": ["a", "b"], "box": ["0.1 0.2 0.5 0.6", ""]})
    with pytest.raises(
        ValueError, match=r"row 2 \(a\): box .*, like all others, lies within one pixel; expected pixels"
    ):
        boxes_of(table)
    assert boxes_of(table.assign(box=["0 0 1 1.5", ""]))[0].tolist() == [0, 0, 1, 1.5]


# ---- numbers


def test_numbers_of_numpy_are_numbers():
    recipe = mh.Recipe(
        epochs=np.int64(2), seed=np.int32(3), optim=mh.AdamW(np.float32(0.5), weight_decay=np.float64(0.25))
    )
    plain = mh.Recipe(epochs=2, seed=3, optim=mh.AdamW(0.5, weight_decay=0.25))
    assert to_dict(recipe) == to_dict(plain) and spell(recipe.optim) == spell(plain.optim)
    found = to_dict(recipe)
    assert type(found["epochs"]) is int and all(type(value) in (float, str) for value in found["optim"].values())


@pytest.mark.parametrize("value", [True, 1.0, "2", None, -1])
def test_a_whole_number_is_one(value):
    with pytest.raises(ValueError, match="fit: workers is .*; expected a whole number >= 0"):
        whole("fit", "workers", value, 0)


@pytest.mark.parametrize(
    "make, told",
    [
        (lambda: mh.Recipe(epochs=True), "epochs is True"),
        (lambda: mh.Recipe(patience=1.5), "patience is 1.5"),
        (lambda: mh.Gentle(scale=2.5), "gentle: scale is 2.5"),
        (lambda: mh.Gentle(shift=-3), "gentle: shift is -3"),
        (lambda: EMA(-2.0), "ema: model_ema_decay is -2.0"),
        (lambda: mh.Crop("a", "face", float("nan"), (8, 8)), "margin nan"),
    ],
)
def test_settings_out_of_range_are_refused(make, told):
    with pytest.raises(ValueError, match=told):
        make()


def test_augmentations_may_be_a_list():
    assert mh.Recipe(augment=[mh.Flip(), mh.Grey()]) == mh.Recipe(augment=(mh.Flip(), mh.Grey()))


def test_numbers_of_evaluate_and_fit_are_checked(model, folder):
    photos = mh.read(pd.DataFrame({"path": ["a.png", "b.png"], "mask": ["worn", "worn"]}), root=folder)
    for wrong in ({"batch_size": 0}, {"batch_size": -1}, {"workers": "2"}, {"workers": -1}):
        with pytest.raises(ValueError, match=f"evaluate: {next(iter(wrong))} is .*; expected a whole number"):
            mh.evaluate(model, photos, **wrong)
    with pytest.raises(ValueError, match="fit: workers is -1; expected a whole number >= 0"):
        mh.fit(model, photos, None, mh.Recipe(epochs=1), workers=-1)


# ---- folders


def test_an_ensemble_is_not_saved_among_photos(model, folder):
    with pytest.raises(FileExistsError, match="holds 'a.png', which is of no ensemble; name a new folder"):
        mh.Ensemble([model]).save(folder)
    mh.Ensemble([model]).save(folder / "votes")
    mh.Ensemble([model, model]).save(folder / "votes")  # again
    assert len(mh.load(folder / "votes").weights) == 2


def test_an_ensemble_that_is_saved_half_is_not_a_mix(model, folder):
    class Full(mh.Model):
        def save_pretrained(self, *args, **kwargs):
            raise OSError("no space left")

    mh.Ensemble([model, model]).save(folder / "votes")
    full = Full("test_resnet", heads=model.heads)
    with pytest.raises(OSError, match="no space left"):
        mh.Ensemble([model, full]).save(folder / "votes")
    kept = mh.load(folder / "votes")  # the one that was there
    assert len(kept.members) == 2 and all(member.backbone_name == model.backbone_name for member in kept.members)


def test_other_photos_of_people_that_trained_are_told(model, folder, capsys):
    model.save_pretrained(folder / "run" / "model")
    frame = pd.DataFrame({"path": ["a.png", "b.png"], "mask": ["worn", "worn"], "person": ["1", "1"]})
    photos = mh.read(frame, root=folder)
    write_splits(folder / "run" / "splits.csv", {"train": photos[:1]})
    photos[1:].write(folder / "other.csv")
    photos[1:].with_columns(person="table:2").write(folder / "stranger.csv")
    photos[1:].with_columns(root="/elsewhere/table").write(folder / "namesake.csv")  # person 1 of another folder
    assert main(["evaluate", str(folder / "run"), str(folder / "other.csv")]) == 0
    assert "1 of these 1 photos are others of people that, by their ids, trained" in capsys.readouterr().err
    for name in ("stranger.csv", "namesake.csv"):
        assert main(["evaluate", str(folder / "run"), str(folder / name)]) == 0
        assert "trained this model" not in capsys.readouterr().err


def test_a_run_that_has_not_ended_is_told_from_no_run(folder, capsys):
    (folder / "run" / "checkpoints").mkdir(parents=True)
    (folder / "run" / "checkpoints" / "last.pt").write_bytes(b"")
    with pytest.raises(
        FileNotFoundError, match="is a run that has not ended; go on with it: multihead train --resume -o"
    ):
        mh.load(folder / "run")
    with pytest.raises(SystemExit):
        main(["train", "--resume", "-o", str(folder / "nowhere")])
    assert "nowhere holds no args.yaml of a run to go on with" in capsys.readouterr().err
    assert main(["train", str(folder), "--boxes", str(folder / "no.csv"), *TINY, "-o", str(folder / "x")]) == 2
    assert "no.csv; expected a CSV that multihead scan wrote" in capsys.readouterr().err


def test_slices_are_checked_before_anything_is_scored(model, folder, capsys, monkeypatch):
    model.save_pretrained(folder / "model")
    (folder / "t.csv").write_text("path,mask\na.png,worn\nb.png,worn\n")
    monkeypatch.setattr("multihead.evaluation.evaluate", None)
    assert main(["evaluate", str(folder / "model"), str(folder / "t.csv"), "--by", "mas"]) == 2
    assert "cannot slice by 'mas'; did you mean 'mask'?; there are ['mask', 'gender', 'age'" in capsys.readouterr().err


# ---- at a prompt


def test_modules_are_there_by_name():
    assert callable(mh.export.onnx) and callable(mh.paired.compare)
    with pytest.raises(AttributeError, match="module 'multihead' has no name 'exprt'"):
        mh.exprt  # noqa: B018


def test_what_a_prompt_shows_is_short(model):
    text = repr(model)
    assert text.startswith("Model('test_resnet', mask on full 32x32; gender on full 32x32;") and len(text) < 200
    scores = mh.score(np.eye(18), mh.decode(np.arange(18)))
    assert repr(scores) == str(scores) and "macro-F1" in repr(scores)


def test_a_detector_by_its_name(tmp_path):
    model = mh.Model("test_resnet", [mh.MASK.on(mh.FACE.resized(32))]).eval()
    image = np.full((48, 64, 3), 90, np.uint8)
    assert mh.predict(model, image, finder="mtcnn").equals(mh.predict(model, image))
    with pytest.raises(ValueError, match="expected a detector 'mtcnn' or the path of a YuNet .onnx file, got 'yunet'"):
        mh.predict(model, image, finder="yunet")
    assert boxes_file(tmp_path, "mtcnn") == boxes_file(tmp_path)
    with pytest.raises(FileNotFoundError, match="faces.onnx"):
        mh.predict(model, image, finder=tmp_path / "faces.onnx")


def test_many_photos_without_an_answer_are_counted(tmp_path, capsys):
    mh.Model("test_resnet", [mh.MASK.on(mh.FULL.resized(32))]).save_pretrained(tmp_path / "model")
    names = [f"{number}.jpg" for number in range(30)]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    pd.DataFrame({"path": names}).to_csv(tmp_path / "new.csv", index=False)
    main(["predict", str(tmp_path / "model"), str(tmp_path / "new.csv"), "-o", str(tmp_path / "answers.csv")])
    told = capsys.readouterr().err
    assert sum(line.startswith("no answer: ") for line in told.splitlines()) == 21
    assert "no answer: 10 more, 30 in all; the column error has them" in told
    assert pd.read_csv(tmp_path / "answers.csv").error.notna().sum() == 30


def test_a_photo_that_was_written_since_it_was_answered_is_told(folder):
    paths = sorted(str(path) for path in folder.glob("*.png"))
    names = [item.name for item in items(paths)]
    stand = max(os.stat(path).st_ctime_ns for path in paths)
    assert [item.name for item in after(items(paths), names[:1], stand)] == names[1:]
    with pytest.raises(ValueError, match="photo 1, .*, was written after it was answered; remove the .part"):
        list(after(items(paths), names[:1], stand - 10**18))
    assert [item.name for item in after(items(paths), names[:1])] == names[1:]
