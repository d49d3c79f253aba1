import io
import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from multihead.crops import BODY, FACE, FULL, cut, locate
from multihead.evaluation import evaluate
from multihead.faces import Face
from multihead.heads import AGE, GENDER, HEADS, MASK, flat
from multihead.images import read_image
from multihead.inputs import Item, items
from multihead.joined import combine
from multihead.labels import marginals
from multihead.model import Model
from multihead.modes import Pins
from multihead.pipeline import Answer, answers
from multihead.prediction import box_text, predict, stream, submission, table, write_table
from multihead.reading import read

SMALL = FULL.resized(32, 24)
JOINT = [f"joint:{index}" for index in range(18)]


def model_of(heads=HEADS, *crops, seed=0):
    torch.manual_seed(seed)
    model = Model("test_resnet", [head.on(*(crops or (SMALL,))) for head in heads])
    for head in model.head.values():
        torch.nn.init.normal_(head.weight, std=2)  # answers that differ
    return model.eval()


class Looker:
    """As many faces as the first pixel says, largest first, and a count of the photos it saw."""

    def __init__(self):
        self.seen = 0

    def find(self, images):
        self.seen += len(images)
        return [
            [Face((2.0 + n, 3.0, 22.0 - n, 25.0 - n), 0.9 - n / 10) for n in range(image[0, 0, 0])] for image in images
        ]


def noise(seed, faces=0, size=(60, 50)):
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    image[0, 0] = faces
    return image


@pytest.fixture
def folder(tmp_path):
    """Photos a.png (one face), b.png (none), c.png (three), sub/d.png (one)."""
    root = tmp_path / "photos"
    for number, (name, faces) in enumerate({"a": 1, "b": 0, "c": 3, "sub/d": 1}.items()):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(number, faces)).save(root / f"{name}.png")
    return root


def expected(model, image):
    """Joint probabilities (18,) of one photo, by the model alone."""
    pixels = torch.from_numpy(cut(image, (0, 0, image.shape[1], image.shape[0]), SMALL.size))
    with torch.no_grad():
        return model.probs({SMALL: pixels.permute(2, 0, 1)[None]})[0].numpy()


def test_the_columns_and_what_they_say(folder):
    model = model_of()
    found = predict(model, folder / "a.png")
    names = [f"{head.name}:{name}" for head in HEADS for name in head.classes]
    assert list(found) == ["path", "box", "face", "mask", "gender", "age", "label", *names, *JOINT, "error"]
    (row,) = found.to_dict("records")
    probs = expected(model, read_image(folder / "a.png"))
    np.testing.assert_allclose([row[name] for name in JOINT], probs, atol=1e-6)
    parts = marginals(probs[None], HEADS)
    for head in HEADS:
        np.testing.assert_allclose(
            [row[f"{head.name}:{name}"] for name in head.classes], parts[head.name][0], atol=1e-6
        )
        assert row[head.name] == head.classes[parts[head.name].argmax()]
    assert (row["label"], row["error"], row["box"]) == (probs.argmax(), "", "")
    assert row["path"] == str(folder / "a.png")


def sources(folder):
    image = read_image(folder / "a.png")
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    csv = folder.parent / "table.csv"
    pd.DataFrame({"path": ["photos/a.png"]}).to_csv(csv, index=False)
    frame = pd.DataFrame({"path": [str(folder / "a.png")]})
    return {
        "path": folder / "a.png",
        "string": str(folder / "a.png"),
        "list": [folder / "a.png"],
        "glob": str(folder / "a*.png"),
        "csv": csv,
        "frame": frame,
        "photos": read(frame),
        "array": image,
        "arrays": image[None],
        "pillow": Image.fromarray(image),
        "bytes": stream.getvalue(),
        "bytearray": bytearray(stream.getvalue()),
        "stream": io.BytesIO(stream.getvalue()),
        "streams": [io.BytesIO(stream.getvalue())],
        "generator": (path for path in [folder / "a.png"]),
        "nested": [[image], ()],
    }


NAMED = ["path", "string", "list", "glob", "csv", "frame", "photos", "generator"]


@pytest.mark.parametrize(
    "kind", [*NAMED, "array", "arrays", "pillow", "bytes", "bytearray", "stream", "streams", "nested"]
)
def test_every_kind_of_source_gives_the_same_answer(folder, kind):
    model = model_of()
    found = predict(model, sources(folder)[kind])
    assert len(found) == 1 and found.error[0] == ""
    np.testing.assert_allclose(found[JOINT].to_numpy()[0], expected(model, read_image(folder / "a.png")), atol=1e-6)
    if kind == "csv":
        assert found.path[0] == "photos/a.png"  # as the table has it
    else:
        assert found.path[0] == str(folder / "a.png") if kind in NAMED else found.path[0].startswith("photo")


def test_a_file_that_is_open_is_read_and_one_of_text_refused(folder):
    with open(folder / "a.png", "rb") as stream, open(folder / "a.png", encoding="latin-1") as text:
        found = predict(model_of(), [stream, text])
    np.testing.assert_allclose(
        found[JOINT].to_numpy()[0], expected(model_of(), read_image(folder / "a.png")), atol=1e-6
    )
    assert found.error[0] == "" and "read() gives str; expected bytes, as of a file opened with 'rb'" in found.error[1]


def test_an_address_is_no_file():
    found = predict(model_of(), "https://example.org/a.jpg")
    assert found.error[0].endswith("no such file; an address of the web is downloaded first")


def test_a_mixed_list_keeps_its_order(folder):
    grey = noise(9)[:, :, 0]
    found = predict(model_of(), [folder / "c.png", np.stack([noise(5), noise(6)]), str(folder / "sub"), grey])
    assert found.path.tolist() == [
        *[str(folder / "c.png"), "photo 1 0", "photo 1 1", str(folder / "sub" / "d.png"), "photo 3"]
    ]
    assert (found.error == "").all()


def test_a_folder_is_read_sorted_and_deep(folder):
    assert [path.removeprefix(f"{folder}/") for path in predict(model_of(), folder).path] == [
        *["a.png", "b.png", "c.png", "sub/d.png"]
    ]


def test_a_glob_may_go_deep(folder):
    assert len(predict(model_of(), f"{folder}/**/*.png")) == 4


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(folder):
    (folder / "a.png").rename(folder / "[a].png")
    found = predict(model_of(), folder / "[a].png")
    assert found.error.tolist() == [""]


def test_nothing_there_is_a_row_with_its_reason(folder):
    found = predict(
        model_of(), [folder / "gone.png", f"{folder}/*.nothing", folder / "a.png", b"", np.zeros((2, 2, 7))]
    )
    assert found.label.isna().tolist() == [True, True, False, True, True]
    assert found["mask"].tolist()[0] == "" and np.isnan(found["joint:0"][0])
    for error, reason in zip(found.error, ["no such file", "no such file", "", "empty file", "expected an array"]):
        assert reason in error
    assert str(folder / "gone.png") in found.error[0]


def test_an_empty_folder_gives_an_empty_table(tmp_path):
    found = predict(model_of(), tmp_path)
    assert len(found) == 0 and {"path", "box", "face", "label", "error", "mask:worn", "joint:17"} <= set(found)


def test_what_is_no_source(folder):
    with pytest.raises(
        TypeError, match="cannot read photos from dict; expected a path, array, tensor, PIL picture, bytes, file"
    ):
        predict(model_of(), {"a": 1})


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batch_size_and_workers_change_nothing(people, batch_size):
    model = model_of()
    whole = predict(model, people / "eval" / "images", workers=1)
    found = predict(model, people / "eval" / "images", batch_size=batch_size, workers=3)
    assert len(found) == 14
    pd.testing.assert_frame_equal(found, whole, rtol=0, atol=1e-6)


def test_more_photos_than_a_chunk_holds():
    images = [noise(number) for number in range(70)]
    images[40] = b"broken"
    found = predict(model_of(), images)
    assert found.path.tolist() == [f"photo {number}" for number in range(70)]
    assert np.flatnonzero(found.error != "").tolist() == [40]
    np.testing.assert_allclose(found[JOINT].to_numpy()[69], expected(model_of(), images[69]), atol=1e-6)


def test_rows_come_as_they_are_found():
    def endless():
        while True:
            yield noise(1)

    rows = answers(model_of(), endless())
    assert [next(rows).item.name for _ in range(40)][-1] == "photo 39"


def test_a_stream_gives_the_rows_of_the_table(folder):
    model = model_of()
    (folder / "empty.jpg").write_bytes(b"")
    wanted, found = predict(model, folder), list(stream(model, folder))
    pd.testing.assert_frame_equal(pd.DataFrame(found).astype({"label": "Int64"}), wanted)
    bad = next(row for row in found if row["error"])
    assert bad["label"] is None and bad["mask"] == "" and np.isnan(bad["joint:0"])
    assert {type(cell) for row in found if row is not bad for cell in row.values()} == {str, int, float}
    with pytest.raises(TypeError, match="unexpected keyword argument 'face'"):
        stream(model, folder, face="all")


def test_a_stream_of_a_camera_waits_for_one_more_frame():
    given = []

    def camera():
        while True:
            given.append(len(given))
            yield noise(1)

    rows = stream(model_of(), camera(), batch_size=1, workers=1)
    delays = [len(given) - number for number, _ in enumerate(itertools.islice(rows, 60), 1)]
    assert max(delays[40:]) <= 2 and max(delays) <= 34


def test_a_live_stream_answers_each_photo_before_the_next_is_asked_for():
    given = []

    def camera():
        for number in range(40):
            given.append(number)
            yield noise(number)

    model = model_of()
    rows = stream(model, camera(), batch_size=1, workers=0)
    assert all(len(given) == number for number, _ in enumerate(rows, 1)) and len(given) == 40
    live = predict(model, camera(), batch_size=1, workers=0, pins=Pins("f32"))
    wanted = predict(model, list(camera()), pins=Pins("f32"))
    assert live.path.tolist() == wanted.path.tolist()
    np.testing.assert_allclose(live[JOINT], wanted[JOINT], atol=1e-5)


def test_a_live_stream_keeps_the_rows_of_a_photo_together(folder, tmp_path):
    boxes = ["2 3 22 25", "3 3 21 24", "4 3 20 23"]
    rows = pd.DataFrame({"path": [str(folder / "a.png"), *[str(folder / "c.png")] * 3], "box": ["", *boxes]})
    model = model_of(HEADS, FACE.resized(32))
    options = {"batch_size": 1, "workers": 0, "missing": "full", "finder": Looker()}
    done = list(stream(model, iter([rows]), draw=tmp_path / "live", **options))
    assert [row["box"][:1] for row in done[1:]] == ["2", "3", "4"]
    predict(model, rows, draw=tmp_path / "whole", finder=Looker())
    (live,), (whole,) = (list((tmp_path / name).glob("c-*.jpg")) for name in ("live", "whole"))
    assert (read_image(live) == read_image(whole)).all()


# ---- faces


def test_all_faces_give_a_row_each(folder):
    finder = Looker()
    model = model_of(HEADS, FACE.resized(32))
    found = predict(model, folder, faces="all", finder=finder)
    assert [path[-5] for path in found.path] == list("abcccd") and finder.seen == 4
    assert found.box.tolist() == ["2.00 3.00 22.00 25.00", "", "2.00 3.00 22.00 25.00", "3.00 3.00 21.00 24.00", "4.00 3.00 20.00 23.00",
                                  "2.00 3.00 22.00 25.00"]  # fmt: skip
    image = read_image(folder / "c.png")
    (crop,) = model.crops
    pixels = torch.from_numpy(cut(image, locate(crop, (4, 3, 20, 23), image.shape), crop.size)).permute(2, 0, 1)
    with torch.no_grad():
        wanted = model.probs({crop: pixels[None]})[0].numpy()
    np.testing.assert_allclose(found[JOINT].to_numpy()[4], wanted, atol=1e-6)


def test_predict_and_evaluate_give_a_photo_one_answer(folder):
    """They round the boxes that are found alike."""

    class Fine:
        def find(self, images):
            return [[Face((2.346, 3.333, 31.238, 44.567), 0.9)] for _ in images]

    model = model_of(HEADS, FACE.resized(32))
    scores = evaluate(model, read(folder), finder=Fine(), workers=0)
    found = predict(model, folder, finder=Fine())
    np.testing.assert_allclose(found[JOINT].to_numpy(), scores.probs, atol=1e-7)
    assert set(found.box) == {"2.35 3.33 31.24 44.57"}


@pytest.mark.parametrize("faces", [None, "largest", "central"])
def test_one_face_gives_a_row_a_photo(folder, faces):
    found = predict(model_of(HEADS, FACE.resized(32)), folder, faces=faces, finder=Looker())
    assert len(found) == 4 and found.box[2] == ("2.00 3.00 22.00 25.00" if faces != "central" else found.box[2])


def test_a_photo_without_a_face_is_answered_and_known_by_its_blank_box(folder):
    model = model_of(HEADS, FACE.resized(32))
    found = predict(model, folder / "b.png", finder=Looker())
    assert found.box.tolist() == [""] and found.error.tolist() == [""] and found.label.notna().all()
    skipped = predict(model, folder, finder=Looker(), missing="skip")
    assert skipped.error.tolist() == ["", "no face found", "", ""] and skipped.label.isna().tolist()[1]
    with pytest.raises(ValueError, match="b.png: no face found; use missing='full' or 'skip'"):
        predict(model, folder, finder=Looker(), missing="error")


def test_whole_photos_are_not_searched_unless_asked(folder, capsys):
    finder = Looker()
    predict(model_of(), folder, finder=finder, missing="error")
    assert finder.seen == 0
    assert predict(model_of(), folder / "a.png", faces="largest", finder=finder).box.tolist() == [
        "2.00 3.00 22.00 25.00"
    ]
    assert capsys.readouterr().err == ""
    found = predict(model_of(), folder / "c.png", faces="all", finder=finder)
    assert len(found) == 3 and "all faces of a photo get one answer" in capsys.readouterr().err


@pytest.mark.parametrize("batch_size", [1, 16])
def test_a_picture_has_the_faces_of_all_rows_wherever_they_stand(folder, tmp_path, batch_size):
    edges = [(2, 30, 12, 45), (2, 30, 12, 45), (30, 30, 42, 45), (30, 2, 42, 14)]
    rows = pd.DataFrame(edges, columns=["x0", "y0", "x1", "y1"]).assign(path=["a.png", "b.png", "a.png", "c.png"])
    model = model_of(HEADS, FACE.resized(32))
    pictures = {}
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [0, 2, 1, 3]):  # the last: together
        drawn = tmp_path / str(order)
        predict(model, read(rows.iloc[order], root=folder), draw=drawn, batch_size=batch_size, workers=2)
        pictures[str(order)] = {path.name: path.read_bytes() for path in drawn.iterdir()}
    assert len(pictures[str(order)]) == 3 and all(found == pictures[str(order)] for found in pictures.values())


def test_a_photo_that_a_table_says_has_no_face_is_not_searched(folder):
    model, looker = model_of(HEADS, FACE.resized(32)), Looker()
    photos = read(pd.DataFrame({"path": ["a.png", "c.png"], "face": ["none", ""], "mask": [0, 0]}), root=folder)
    for faces in (None, "all"):
        found = predict(model, photos, faces=faces, finder=looker, workers=1)
        assert found.box.tolist()[0] == "" and found.box.tolist()[1] and found.error[0] == ""
    known = evaluate(model, photos, finder=looker, workers=0)  # as it is scored
    np.testing.assert_allclose(found[JOINT].to_numpy()[0], known.probs[0], atol=1e-6)
    assert predict(model, photos, missing="skip", finder=looker).error.tolist() == ["no face found", ""]


def test_boxes_and_tight_faces_of_a_table_are_used(folder):
    finder = Looker()
    frame = pd.DataFrame(
        {"path": ["a.png", "b.png"], "x0": ["5", ""], "y0": ["6", ""], "x1": ["30", ""], "y1": ["40", ""]}
    )
    photos = read(frame.assign(face=["", "whole"]), root=folder)
    model = model_of(HEADS, FACE.resized(32))
    found = predict(model, photos, finder=finder, missing="error")
    assert finder.seen == 0 and found.box.tolist() == ["5.00 6.00 30.00 40.00", ""]


def test_a_table_answered_again_gives_the_same_answers(folder, tmp_path):
    """A tight face would be searched, and a photo without a face be searched again."""

    class Blind(Looker):
        def find(self, images):
            return [[] for _ in super().find(images)]

    photos = read(pd.DataFrame({"path": ["a.png", "b.png"], "face": ["", "whole"]}), root=folder)
    model = model_of(HEADS, FACE.resized(32))
    first = predict(model, photos, finder=Blind())
    assert first.face.tolist() == ["none", "whole"] and first.box.tolist() == ["", ""]
    first.assign(path=[str(folder / name) for name in first.path]).to_csv(tmp_path / "answers.csv", index=False)
    looker = Looker()
    again = predict(model, tmp_path / "answers.csv", finder=looker)
    assert looker.seen == 0
    pd.testing.assert_frame_equal(again.drop(columns="path"), first.drop(columns="path"))
    seen = predict(model, [folder / "a.png", folder / "none.png"], finder=looker)
    assert seen.face.tolist() == ["", ""] and seen.box[0] and seen.error[1]
    assert predict(model, folder / "a.png", finder=Blind(), missing="skip").face.tolist() == ["none"]


def test_a_box_outside_its_photo_is_a_row_with_its_reason(folder):
    frame = pd.DataFrame({"path": ["a.png"], "x0": [500], "y0": [6], "x1": [530], "y1": [40]})
    found = predict(model_of(HEADS, FACE.resized(32)), read(frame, root=folder))
    assert "a.png" in found.error[0] and "no area inside a photo of 50 x 60" in found.error[0]


def test_an_absent_body_is_answered_by_the_learned_vector(folder):
    frame = pd.DataFrame({"path": ["a.png"], "x0": [1], "y0": [1], "x1": [49], "y1": [59]})
    model = model_of([AGE], BODY.resized(32))
    found = predict(model, read(frame, root=folder))
    wanted = model.head["age"](model.absent).softmax(1)[0].tolist()
    assert found[["age:<30", "age:30-59", "age:>=60"]].to_numpy()[0] == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("wrong", [{"faces": "every"}, {"missing": "drop"}])
def test_choices_are_checked(folder, wrong):
    with pytest.raises(
        ValueError,
        match="predict: .* expected one of largest, central, all|predict: .* expected one of full, skip, error",
    ):
        predict(model_of(), folder, **wrong)


# ---- tables


def test_the_table_reads_back(folder, tmp_path):
    found = predict(model_of(HEADS, FACE.resized(32)), [folder, folder / "gone.png"], faces="all", finder=Looker())
    found.to_csv(tmp_path / "answers.csv", index=False)
    back = read(tmp_path / "answers.csv", root=folder)
    assert len(back) == 7 and back.table.name.tolist() == found.path.tolist()
    labels = back.labels()
    for column, head in enumerate(HEADS):
        wanted = [head.classes.index(name) if name else -1 for name in found[head.name]]
        assert labels[:, column].tolist() == wanted
    assert np.isnan(back.boxes[1]).all() and back.boxes[0].tolist() == [2, 3, 22, 25]
    again = predict(model_of(HEADS, FACE.resized(32)), tmp_path / "answers.csv", finder=Looker())
    np.testing.assert_allclose(again[JOINT].to_numpy(), found[JOINT].to_numpy(), atol=1e-6)


def test_flat_and_combined_models_give_the_same_columns(folder):
    torch.manual_seed(0)
    model = Model("test_resnet", flat([head.on(SMALL) for head in HEADS]))
    single = combine([model_of([head], seed=n) for n, head in enumerate(HEADS)])
    columns = list(predict(model_of(), folder))
    assert list(predict(model, folder)) == list(predict(single, folder)) == columns


def test_a_table_of_fewer_heads(folder):
    found = predict(model_of([MASK, GENDER]), folder)
    assert "age" not in found and "joint:5" in found and "joint:6" not in found


def test_table_of_answers_by_hand():

    probs = np.zeros(18)
    probs[15] = 0.75
    probs[0] = 0.25
    rows = [Answer(Item("a", None), (1, 2, 3, 4.25), probs), Answer(Item("b", None), None, None, "why")]
    found = table(rows, HEADS)
    assert found.label.tolist() == [15, pd.NA] and found["mask"].tolist() == ["not_worn", ""]
    assert found["gender:female"][0] == 0.75 and found.box.tolist() == ["1.00 2.00 3.00 4.25", ""]
    assert found.error.tolist() == ["", "why"] and len(table([], HEADS)) == 0


def test_names():
    assert box_text(None) == "" and box_text((0, 1, 2.26, 3)) == "0.00 1.00 2.26 3.00"
    assert [item.name for item in items([b"a", [b"b", b"c"]])] == ["photo 0", "photo 1 0", "photo 1 1"]


# ---- pictures


def test_photos_of_one_name_in_two_folders_are_told_apart(tmp_path):
    for number, folder in enumerate("xy"):
        (tmp_path / folder).mkdir()
        Image.fromarray(noise(number)).save(tmp_path / folder / "1.png")
        Image.fromarray(noise(number + 2)).save(tmp_path / folder / f"{number}.only.png")
    photos = read(tmp_path / "x") + read(tmp_path / "y")
    names = [item.name for item in items(photos)]
    assert names == photos.paths and len(set(names)) == 4  # one rule for all rows, so that answers join
    assert [item.name for item in items(photos[[0, 1]])] == ["0.only.png", "1.png"]
    table = predict(model_of(), photos, draw=tmp_path / "drawn")
    assert len(set(table.path)) == 4 and len(list((tmp_path / "drawn").rglob("*.jpg"))) == 4


def test_draw_writes_a_picture_of_every_photo(folder, tmp_path):
    model = model_of(HEADS, FACE.resized(32))
    predict(model, [folder, folder / "gone.png"], faces="all", finder=Looker(), draw=tmp_path / "drawn")
    pictures = sorted((tmp_path / "drawn").iterdir())
    assert [path.name[0] for path in pictures] == list("abcd") and all(path.suffix == ".jpg" for path in pictures)
    assert all(min(read_image(path).shape[:2]) >= 320 for path in pictures)  # enlarged to be read


# ---- submissions


@pytest.fixture
def info(people):
    return people / "eval" / "info.csv"


def test_a_submission_answers_every_row_in_its_order(people, info):
    model = model_of()
    filled, unread = submission(model, info)
    listed = pd.read_csv(info)
    assert list(filled) == ["ImageID", "ans"] and filled.ImageID.tolist() == listed.ImageID.tolist() and unread == []
    images = [people / "eval" / "images" / name for name in listed.ImageID]
    assert filled.ans.tolist() == predict(model, images).label.tolist()


def test_unreadable_rows_get_the_prior_and_rows_stay_in_place(people, info, tmp_path):
    import shutil

    shutil.copytree(people / "eval", tmp_path / "eval")
    listed = pd.read_csv(info)
    names = listed.ImageID.tolist()
    (tmp_path / "eval/images" / names[2]).write_bytes(b"")
    (tmp_path / "eval/images" / names[5]).unlink()
    (tmp_path / "eval/images" / names[5]).mkdir()  # a folder of photos is one row all the same
    Image.fromarray(noise(1)).save(tmp_path / "eval/images" / names[5] / "a.png")
    Image.fromarray(noise(2)).save(tmp_path / "eval/images" / names[5] / "b.png")
    pd.concat([listed, pd.DataFrame({"ImageID": ["img*.jpg", "gone.jpg"], "ans": 0})]).to_csv(
        tmp_path / "eval/info.csv", index=False
    )
    model = model_of()
    with pytest.raises(ValueError, match=f"{names[2]}.*empty file.*knows no training prior"):
        submission(model, tmp_path / "eval/info.csv")
    model.prior = tuple(np.eye(18)[7])
    filled, unread = submission(model, tmp_path / "eval/info.csv")
    assert [name for name, _ in unread] == [names[2], names[5], "img*.jpg", "gone.jpg"]
    assert "empty file" in unread[0][1] and "is a folder" in unread[1][1] and "no such file" in unread[3][1]
    wanted, _ = submission(model, info)
    bad = filled.ImageID.isin([name for name, _ in unread])
    assert filled.ans[bad].tolist() == [7] * 4
    assert filled.ans[~bad].tolist() == wanted.ans[~wanted.ImageID.isin([names[2], names[5]])].tolist()


def test_a_submission_that_windows_wrote(people, info, tmp_path):
    listed = pd.read_csv(info)
    wanted, _ = submission(model_of(), info)
    told = "images\\" + listed.ImageID
    listed.assign(ImageID=told).to_csv(tmp_path / "info.csv", index=False)
    found, unread = submission(model_of(), tmp_path / "info.csv", people / "eval")
    assert found.ans.tolist() == wanted.ans.tolist() and found.ImageID.tolist() == told.tolist() and unread == []


def test_a_submissions_photos_may_lie_elsewhere(people, info, tmp_path):
    (tmp_path / "info.csv").write_bytes(info.read_bytes())
    wanted, _ = submission(model_of(), info)
    found, _ = submission(model_of(), tmp_path / "info.csv", people / "eval" / "images")
    pd.testing.assert_frame_equal(found, wanted)


def test_a_submission_needs_its_column(tmp_path):
    (tmp_path / "info.csv").write_text("name\na.jpg\n")
    with pytest.raises(KeyError, match="expected ImageID, as in the competition's info.csv"):
        submission(model_of(), tmp_path / "info.csv")


def test_a_table_written_row_by_row_is_the_table(folder, monkeypatch):
    monkeypatch.setattr("multihead.prediction.WAITING", 3)
    model, text = model_of(HEADS, FACE.resized(32)), []
    source = [folder, b"broken", noise(1), noise(2)]
    tally = write_table(answers(model, source, finder=Looker()), model.space, text.append)
    assert len(text) == 3 and "".join(text) == predict(model, source, finder=Looker()).to_csv(index=False)
    assert (tally.rows, tally.failed, tally.faceless) == (7, 1, 3)
    assert tally.names == [str(folder / "b.png"), "photo 2", "photo 3"]


def test_rows_before_an_interruption_are_written(folder):
    model, text = model_of(), []

    def interrupted():
        yield from answers(model, folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_table(interrupted(), model.space, text.append)
    assert len("".join(text).splitlines()) == 1 + 4


def test_a_submission_of_other_heads_or_without_its_photos_is_refused(info, tmp_path):
    with pytest.raises(
        ValueError, match="classes are those of mask, gender, age, in this order; this model answers for mask"
    ):
        submission(Model("test_resnet", HEADS[:1]), info)
    with pytest.raises(FileNotFoundError, match="no such folder of photos: .*nowhere"):
        submission(model_of(), info, tmp_path / "nowhere")
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ValueError, match="a.jpg is no table; expected a CSV"):
        submission(model_of(), tmp_path / "a.jpg")


def test_a_folders_name_is_no_model(people):
    from multihead import Ensemble, evaluate, read

    for refused in (lambda: predict("runs/a", people), lambda: evaluate("runs/a", read(people / "train"))):
        with pytest.raises(TypeError, match=r"expected a model, .* got 'runs/a'; multihead.load\('runs/a'\) opens"):
            refused()
    with pytest.raises(TypeError, match="expected a model, ensemble or export, got 'runs/a'"):
        Ensemble(["runs/a"])
    with pytest.raises(TypeError, match="expected photos as multihead.read gives them, got str"):
        evaluate(model_of(), "people")
    with pytest.raises(ValueError, match="a model needs at least one head"):
        Model("test_resnet", [])
