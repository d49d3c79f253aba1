import json
import warnings
from functools import cache

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from multihead.drawing import draw, face_box
from multihead.figures import STATES
from multihead.synthetic import _suffix, make, people

FACE = ("wrinkles", "greying", "brow")
BODY = ("stoop", "slope", "collar")


@cache
def thumbnails(first, last):
    """Pixels (N, 768) of whole photos made 16 x 16, and their classes (N,) of 18."""
    rows = [
        (cv2.resize(draw(person, state)[0], (16, 16), interpolation=cv2.INTER_AREA).ravel(), joint(person, state))
        for person in people(last)[first:]
        for state in STATES
    ]
    pixels, classes = zip(*rows, strict=True)
    return np.array(pixels, np.float32), np.array(classes)


def joint(person, state):
    mask = {"incorrect_mask": 1, "normal": 2}.get(state, 0)
    return mask * 6 + (person.gender == "female") * 3 + band(person)


def band(person):
    return (person.age >= 30) + (person.age >= 60)


def files(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make(tmp_path_factory.mktemp("synthetic") / "data", count=6, seed=3, eval_people=2)


def test_people_follow_from_the_seed_and_a_shorter_list_is_a_prefix():
    assert people(20, seed=4)[:7] == people(7, seed=4)
    assert people(6, seed=4) != people(6, seed=5)
    assert [person.id for person in people(3)] == ["000001", "000002", "000003"]


def test_six_people_fill_all_cells_and_ages_stay_in_range():
    group = people(120)
    assert {(person.gender, band(person)) for person in group[6:12]} == {
        (g, b) for g in ("male", "female") for b in range(3)
    }
    assert all(18 <= person.age <= 75 for person in group)


def test_people_asks_for_one_at_least():
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        people(0)


def test_draw_is_the_same_each_time_and_differs_between_photos():
    person = people(1)[0]
    image, box = draw(person, "mask1", seed=2)
    again, _ = draw(person, "mask1", seed=2)
    assert image.dtype == np.uint8 and image.shape == (512, 384, 3)
    assert np.array_equal(image, again)
    assert not np.array_equal(image, draw(person, "mask2", seed=2)[0])
    assert not np.array_equal(image, draw(person, "mask1", seed=3)[0])
    assert box == face_box(person, "mask1", seed=2)


def test_draw_refuses_another_state():
    with pytest.raises(ValueError, match="got 'mask6'"):
        draw(people(1)[0], "mask6")


@pytest.mark.parametrize("size", [(512, 384), (256, 192), (240, 320)])
def test_boxes_lie_in_the_frame_with_body_below(size):
    for person in people(12):
        for state in STATES:
            x0, y0, x1, y1 = face_box(person, state, size=size)
            assert 0 <= x0 < x1 <= size[1] and 0 <= y0 < y1 < 0.75 * size[0]
            assert 0.18 <= (x1 - x0) / min(size[1], 0.75 * size[0]) <= 0.4


def test_boxes_hold_the_face():
    for person in people(12):
        image, (x0, y0, x1, y1) = draw(person, "normal")
        middle = image[round(y0 + 0.62 * (y1 - y0)) - 2 :, round((x0 + x1) / 2) - 26 :][:4, :8].mean((0, 1))  # a cheek
        corner = np.array(person.skin, float)
        cosine = middle @ corner / np.linalg.norm(middle) / np.linalg.norm(corner)
        assert cosine > 0.98


def test_layout_is_the_competitions(small):
    table = pd.read_csv(small / "train/train.csv", dtype={"id": str})
    assert list(table) == ["id", "gender", "race", "age", "path"] and len(table) == 6
    for row in table.itertuples():
        assert row.path == f"{row.id}_{row.gender}_Asian_{row.age}"
        photos = list((small / "train/images" / row.path).iterdir())
        assert sorted(photo.stem for photo in photos) == sorted(STATES)
        assert {photo.suffix for photo in photos} <= {".jpg", ".jpeg", ".png"}
    boxes = pd.read_csv(small / "train/boxes.csv")
    assert list(boxes) == ["path", "x0", "y0", "x1", "y1", "score", "status"] and len(boxes) == 42
    assert all((small / "train" / path).is_file() for path in boxes["path"])
    assert set(boxes["status"]) == {"found"} and set(boxes["score"]) == {1.0}


def test_eval_tells_nothing_but_in_its_truth(small):
    info = pd.read_csv(small / "eval/info.csv")
    truth = pd.read_csv(small / "eval/truth.csv", dtype={"person": str})
    assert list(info) == ["ImageID", "ans"] and set(info["ans"]) == {0} and len(info) == 14
    assert list(truth) == ["path", "mask", "gender", "age", "person"]
    assert (
        list("images/" + info["ImageID"]) == list(truth["path"]) == list(pd.read_csv(small / "eval/boxes.csv")["path"])
    )
    assert all((small / "eval" / path).is_file() for path in truth["path"])
    assert truth["mask"].value_counts().to_dict() == {"worn": 10, "incorrect": 2, "not_worn": 2}
    assert not set(truth["person"]) & set(pd.read_csv(small / "train/train.csv", dtype={"id": str})["id"])


def test_files_hold_what_draw_gives(small):
    person = people(1, seed=3)[0]
    path = next((small / f"train/images/{person.id}_{person.gender}_Asian_{person.age}").glob("normal.*"))
    image, _ = draw(person, "normal", seed=3)
    stored = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    assert abs(stored.astype(int) - image).mean() < 4


def test_extensions_are_mixed():
    found = [_suffix(person, state, 0) for person in people(60) for state in STATES]
    assert 0.9 < found.count(".jpg") / len(found) < 0.98
    assert {".jpg", ".jpeg", ".png"} == set(found)


def test_make_reuses_and_completes(small):
    before = files(small)
    stamp = {name: (small / name).stat().st_mtime_ns for name in before}
    lost = [next(name for name in before if "mask3" in name), "train/boxes.csv", "eval/truth.csv"]
    for name in lost:
        (small / name).unlink()
    assert make(small, count=6, seed=3, eval_people=2) == small
    assert files(small) == before
    changed = {name for name in before if (small / name).stat().st_mtime_ns != stamp[name]}
    assert changed == set(lost)


def test_make_refuses_a_negative_number_of_people(tmp_path):
    with pytest.raises(ValueError, match="eval_people >= 0, got 6 and -1"):
        make(tmp_path, count=6, eval_people=-1)
    assert not list(tmp_path.iterdir())


def test_make_refuses_other_data(small, tmp_path):
    with pytest.raises(FileExistsError, match="holds other drawn people"):
        make(small, count=6, seed=4, eval_people=2)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"it holds \['notes.txt'\]"):
        make(tmp_path, count=6)
    assert json.loads((small / "synthetic.json").read_text())["count"] == 6


def test_linear_model_on_small_pixels_fails_on_unseen_people():
    pixels, classes = thumbnails(0, 90)
    unseen, truth = thumbnails(90, 132)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=30))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        pred = model.fit(pixels, classes).predict(unseen)
    assert f1_score(truth, pred, labels=range(18), average="macro", zero_division=0) < 0.40


def age_score(names, group):
    signs = np.array([[getattr(person, name) for name in names] for person in group])
    bands = np.array([band(person) for person in group])
    half = len(group) // 2
    pred = LogisticRegression(max_iter=500).fit(signs[:half], bands[:half]).predict(signs[half:])
    return f1_score(bands[half:], pred, average="macro")


def test_age_needs_face_and_body():
    group = people(600)
    face, body, both = (age_score(names, group) for names in (FACE, BODY, FACE + BODY))
    assert max(face, body) < 0.75
    assert both > max(face, body) + 0.15
