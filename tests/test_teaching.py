import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from multihead.crops import FACE, FULL
from multihead.evaluation import evaluate
from multihead.heads import AGE, FLAT, GENDER, HEADS, MASK, Head, space
from multihead.labels import marginals
from multihead.leaks import LeakError
from multihead.prediction import predict
from multihead.pseudo import check_not_pseudo
from multihead.reading import read
from multihead.teaching import pseudo_label, soft_rows, soften

SMALL = FULL.resized(8)
COLUMNS = [f"joint:{index}" for index in range(18)]
BOX = ["x0", "y0", "x1", "y1"]


class Teacher(nn.Module):
    """Answers a photo of one grey level g with row g // 10 of a table of joint probabilities."""

    def __init__(self, rows, heads=HEADS, crop=SMALL):
        super().__init__()
        self.rows = nn.Parameter(torch.tensor(np.array(rows), dtype=torch.float64), requires_grad=False)
        self.space, self.crops, self.prior, self.asked = space(heads), (crop,), None, 0

    def probs(self, images, present=None):
        levels = images[self.crops[0]].float().mean((1, 2, 3))
        self.asked += len(levels)
        return self.rows[(levels / 10).round().long()]


def joint_of(mask, gender, age):
    """Joint probabilities (18,) of independent heads."""
    return np.einsum("i,j,k->ijk", mask, gender, age).ravel()


SURE = [
    joint_of([0.6, 0.3, 0.1], [0.95, 0.05], [0.7, 0.2, 0.1]),
    joint_of([0.1, 0.9, 0.0], [0.2, 0.8], [0.05, 0.05, 0.9]),
    joint_of([0.02, 0.02, 0.96], [0.1, 0.9], [0.3, 0.4, 0.3]),
    joint_of([0.4, 0.3, 0.3], [0.5, 0.5], [0.0, 1.0, 0.0]),
]


@pytest.fixture
def photos(tmp_path):
    """Four photos, one a row of SURE: the first two unlabelled, then a man of 59 known, then a mask known."""
    for number in range(4):
        Image.fromarray(np.full((9, 12, 3), 10 * number, np.uint8)).save(tmp_path / f"{number}.png")
    table = pd.DataFrame(
        {
            "path": [f"{number}.png" for number in range(4)],
            "mask": ["", "", "", "worn"],
            "gender": ["", "", "male", ""],
            "age": ["", "", "59", ""],
            "race": ["x", "", "y", ""],
        }
    )
    return read(table, root=tmp_path, name="t")


# ---- pseudo labels


def test_labels_by_hand(photos):
    found = pseudo_label(Teacher(SURE), photos, {"gender": 0.9, "age": 0.8, "mask": (0.5, 0.95, 0.95)}, workers=0)
    assert found.labels().tolist() == [[0, 0, -1], [-1, -1, 2], [2, 0, 1], [0, -1, 1]]
    assert found.table.pseudo.tolist() == ["mask gender", "age", "mask", "age"]
    assert found.table.years.isna().tolist() == [True, True, False, True]
    assert found.extra == ["race", "pseudo"] and found.heads == photos.heads
    assert "pseudo" not in photos.table and photos.labels()[0].tolist() == [-1, -1, -1]


def test_a_class_has_its_own_threshold(photos):
    for limits, wanted in [
        ((0.5, 0.95, 0.95), [0, -1, 2, 0]),
        ((0.61, 0.9, 0.97), [-1, 1, -1, 0]),
        ([0, 0, 0], [0, 1, 2, 0]),
        (1, [-1, -1, -1, 0]),
        (np.float32(0.8), [-1, 1, 2, 0]),
    ]:
        found = pseudo_label(Teacher(SURE), photos, {"mask": limits}, workers=0)
        assert found.labels([MASK])[:, 0].tolist() == wanted
        assert found.labels([GENDER, AGE]).tolist() == photos.labels([GENDER, AGE]).tolist()


def test_a_threshold_that_is_reached_is_enough(photos):
    half = Teacher([joint_of([0.5, 0.25, 0.25], [0.75, 0.25], [1, 0, 0])] * 4)
    assert pseudo_label(half, photos, {"gender": 0.75}, workers=0).labels([GENDER])[:, 0].tolist() == [0, 0, 0, 0]
    assert pseudo_label(half, photos, {"gender": 0.7501}, workers=0).labels([GENDER])[:, 0].tolist() == [-1, -1, 0, -1]


@pytest.fixture(scope="module")
def drawn(people):
    """(photos of drawn people with some labels hidden, the full ones, a model)."""
    from multihead.model import Model

    torch.manual_seed(0)
    model = Model("test_resnet", [head.on(FULL.resized(32, 24)) for head in HEADS])
    for head in model.head.values():
        nn.init.normal_(head.weight, std=3)
    full = read(people / "train")
    rng = np.random.default_rng(0)
    hidden = {head.name: np.where(rng.random(len(full)) < 0.5, -1, full.table[head.name]) for head in HEADS}
    years = np.where(rng.random(len(full)) < 0.5, np.nan, full.table.years)
    return full.with_columns(**hidden, years=years), full, model.eval()


@pytest.fixture(scope="module")
def answered(drawn):
    """The model's joint probabilities for `drawn`, by `evaluate`."""
    return evaluate(drawn[2], drawn[1], workers=0).probs


@pytest.mark.parametrize(
    "thresholds", [{"mask": 0.8}, {"age": 0.5, "gender": 0.95}, {"gender": 0.0}, {"mask": 1, "gender": 0.6, "age": 0.9}]
)
def test_known_labels_never_change_and_only_sure_ones_are_added(drawn, answered, thresholds):
    some, _, model = drawn
    found = pseudo_label(model, some, thresholds, workers=0)
    before, after = some.labels(), found.labels()
    assert np.array_equal(after[before >= 0], before[before >= 0])
    parts = marginals(answered, HEADS)
    for column, head in enumerate(HEADS):
        wanted = before[:, column].copy()
        for row, shares in enumerate(parts[head.name].tolist()):  # one by one, a second time
            if wanted[row] < 0 and head.name in thresholds and max(shares) >= thresholds[head.name]:
                wanted[row] = shares.index(max(shares))
        assert np.array_equal(after[:, column], wanted)
        named = np.array([head.name in text.split() for text in found.table.pseudo])
        assert np.array_equal(named, before[:, column] != after[:, column])
    columns = [name for name in some.table if name not in ("mask", "gender", "age")]
    pd.testing.assert_frame_equal(found.table[columns], some.table[columns])


def test_only_photos_with_something_to_fill_in_are_asked(photos):
    teacher = Teacher(SURE)
    pseudo_label(teacher, photos, {"gender": 0.9}, workers=0)
    assert teacher.asked == 3
    known = photos.with_columns(gender=1)
    found = pseudo_label(teacher, known, {"gender": 0.9}, workers=0)
    assert teacher.asked == 3 and found.table.pseudo.tolist() == [""] * 4


def test_a_second_round_keeps_what_the_first_wrote(photos):
    first = pseudo_label(Teacher(SURE), photos, {"gender": 0.9}, workers=0)
    second = pseudo_label(Teacher(SURE), first, {"gender": 0.8, "age": 0.8}, workers=0)
    assert second.table.pseudo.tolist() == ["gender", "gender age", "", "age"]
    assert second.labels([GENDER])[:, 0].tolist() == [0, 1, 0, -1]
    anew = pseudo_label(Teacher(SURE), first.with_columns(gender=-1), {"gender": 0.9}, workers=0)
    assert anew.table.pseudo.tolist() == ["gender", "", "gender", ""]


def test_teachers_of_other_heads(photos):
    """A teacher of one head, of a flat head, and photos that are read for one head only."""
    one = Teacher([[0.9, 0.1], [0.3, 0.7], [1, 0], [0.5, 0.5]], [GENDER])
    assert pseudo_label(one, photos, {"gender": 0.7}, workers=0).labels([GENDER])[:, 0].tolist() == [0, 1, 0, -1]
    flat = pseudo_label(Teacher(SURE, FLAT), photos, {"age": 0.8}, workers=0)
    assert flat.labels([AGE])[:, 0].tolist() == [-1, 2, 1, 1]
    masks = read(pd.DataFrame({"path": photos.paths}), heads=[MASK])
    assert pseudo_label(Teacher(SURE), masks, {"mask": 0.9}, workers=0).labels()[:, 0].tolist() == [-1, 1, 2, -1]
    with pytest.raises(KeyError, match=r"photos were read for heads \['mask'\], not 'age'"):
        pseudo_label(Teacher(SURE), masks, {"age": 0.9}, workers=0)


def test_pseudo_labels_are_written_and_read_again(photos, tmp_path):
    found = pseudo_label(Teacher(SURE), photos, {"gender": 0.9, "age": 0.8, "mask": (0.5, 0.95, 0.95)}, workers=0)
    found.write(tmp_path / "filled.csv")
    back = read(tmp_path / "filled.csv")
    assert back.labels().tolist() == found.labels().tolist()
    assert back.table.pseudo.tolist() == found.table.pseudo.tolist()
    np.testing.assert_array_equal(back.table.years, found.table.years)
    with pytest.raises(LeakError, match="4 of 4 validation photos"):
        check_not_pseudo(back, "validation")


def test_photos_that_cannot_be_read_stay_as_they_are(photos, tmp_path):
    (tmp_path / "1.png").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"teaching: 1 photos could not be read .*1.png.*empty file"):
        found = pseudo_label(Teacher(SURE), photos, {"age": 0.0, "gender": 0.0}, workers=0)
    assert found.labels()[1].tolist() == [-1, -1, -1] and found.table.pseudo[1] == ""
    assert found.labels().tolist()[0] == [-1, 0, 0] and found.labels().tolist()[3] == [0, 0, 1]
    with pytest.warns(UserWarning, match="1 photos could not be read"):
        soft = soften(Teacher(SURE), photos, workers=0)
    assert (soft.table[COLUMNS].iloc[1] == "").all() and len(soft) == 4
    assert np.isnan(soft_rows(soft, HEADS)).all(1).tolist() == [False, True, False, False]


@pytest.mark.parametrize("missing", ["full", "skip", "error"])
def test_photos_without_a_face(photos, missing):
    """The first photo has no face: read whole, or left as it is, or refused; the others are tight faces."""
    first = np.arange(4) == 0
    some = photos.with_columns(whole=~first, searched=first)
    teacher = Teacher(SURE, crop=FACE.resized(8))
    if missing == "error":
        with pytest.raises(ValueError, match="1 photos have no face"):
            pseudo_label(teacher, some, {"gender": 0.8}, missing=missing, workers=0)
        with pytest.raises(ValueError, match="1 photos have no face"):
            soften(teacher, some, missing=missing, workers=0)
        return
    found = pseudo_label(teacher, some, {"gender": 0.8}, missing=missing, workers=0)
    assert found.labels([GENDER])[:, 0].tolist() == [0 if missing == "full" else -1, 1, 0, -1]
    rows = soft_rows(soften(teacher, some, missing=missing, workers=0), HEADS)
    assert np.isnan(rows).all(1).tolist() == [missing == "skip", False, False, False]
    np.testing.assert_allclose(rows[1:], SURE[1:], atol=1e-6)
    pd.testing.assert_frame_equal(found.table[BOX], some.table[BOX])
    alone = pseudo_label(teacher, some[[0]], {"gender": 0.8}, missing="skip", workers=0)
    assert alone.labels().tolist() == [[-1, -1, -1]] and ":row" not in alone.table


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ({}, r"thresholds are empty; expected one for some of the heads \['mask', 'gender', 'age'\]"),
        ({"gendr": 0.9}, "thresholds name 'gendr', which is no head of the model; did you mean 'gender'?"),
        ({"smile": 0.9}, r"'smile', which is no head of the model; the model answers \['mask'"),
        ({"mask": (0.5, 0.9)}, r"threshold of head 'mask' is \(0.5, 0.9\); expected a number 0 to 1, or 3 of them"),
        ({"mask": 0.5, "age": 1.5}, "threshold of head 'age' is 1.5"),
        ({"age": (0.1, -0.1, 0.5)}, "threshold of head 'age' is"),
        ({"age": float("nan")}, "threshold of head 'age' is nan"),
        (0.9, "thresholds are 0.9; expected one a head, as {'mask': 0.9}"),
    ],
)
def test_wrong_thresholds_are_refused(photos, thresholds, message):
    with pytest.raises((ValueError, TypeError), match=message):
        pseudo_label(Teacher(SURE), photos, thresholds, workers=0)


def test_other_choices_and_classes_are_refused(photos):
    with pytest.raises(ValueError, match="teaching: missing is 'drop'; expected one of full, skip, error"):
        soften(Teacher(SURE), photos, missing="drop")
    other = Teacher([[0.5, 0.5]] * 4, [Head("gender", ("woman", "man"))])
    with pytest.raises(ValueError, match=r"head 'gender' has classes \('woman', 'man'\), the photos \('male'"):
        pseudo_label(other, photos, {"gender": 0.5})


# ---- soft labels


def test_soft_labels_by_hand(photos):
    teacher = Teacher([[0.25, 0.75], [1 / 3, 2 / 3], [1, 0], [1e-9, 1 - 1e-9]], [GENDER])
    soft = soften(teacher, photos, workers=0)
    assert soft.table["joint:0"].tolist() == ["0.25", "0.333333", "1", "1e-09"]
    assert soft.table["joint:1"].tolist() == ["0.75", "0.666667", "0", "1"]
    assert soft.extra == ["race", "joint", "joint:0", "joint:1"] and soft.labels().tolist() == photos.labels().tolist()
    rows = soft_rows(soft, [GENDER])
    assert rows.dtype == np.float32 and rows[0].tolist() == [0.25, 0.75]
    np.testing.assert_allclose(rows.sum(1), 1, atol=1e-6)


def test_soft_labels_are_what_predict_says(drawn):
    some, _, model = drawn
    soft = soften(model, some, workers=0, batch_size=7)
    table = predict(model, some)
    np.testing.assert_allclose(soft_rows(soft, HEADS), table[COLUMNS].to_numpy(), atol=2e-6)
    assert set(COLUMNS) <= set(table)  # the same names
    as_predicted = some.with_columns(**{name: table[name].map(repr) for name in COLUMNS})
    np.testing.assert_allclose(soft_rows(as_predicted, HEADS), soft_rows(soft, HEADS), atol=2e-6)


@given(st.lists(st.floats(0, 1), min_size=6, max_size=6).filter(lambda shares: sum(shares) > 1e-3))
def test_rows_keep_six_digits(shares):
    answer = np.array(shares) / sum(shares)
    photos = read(pd.DataFrame({"path": ["a.png"]}), root="/photos")
    cells = {f"joint:{index}": [f"{share:.6g}"] for index, share in enumerate(answer)}
    found = soft_rows(photos.with_columns(**cells), [MASK, GENDER])
    np.testing.assert_allclose(found[0], answer, atol=1e-5)
    assert found.sum() == pytest.approx(1, abs=1e-6)


def test_a_new_teacher_replaces_the_old(photos):
    soft = soften(Teacher(SURE), photos, workers=0)
    again = soften(Teacher([[0.25, 0.75]] * 4, [GENDER]), soft, workers=0)
    assert again.extra == ["race", "joint", "joint:0", "joint:1"] and len(soft.extra) == 20
    unlike_heads = read(pd.DataFrame({"path": photos.paths}), heads=[])
    assert soft_rows(soften(Teacher(SURE), unlike_heads, workers=0), HEADS).shape == (4, 18)


def test_photos_without_soft_labels_have_blank_rows(photos):
    assert np.isnan(soft_rows(photos, HEADS)).all() and soft_rows(photos, [GENDER]).shape == (4, 2)
    soft = soften(Teacher(SURE), photos[:2], workers=0)
    both = photos[2:] + soft
    np.testing.assert_allclose(soft_rows(both, FLAT), [[np.nan] * 18] * 2 + SURE[:2], atol=1e-6)
    assert soften(Teacher(SURE), photos[:0], workers=0).extra == ["race", "joint", *COLUMNS]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["0.5", "0.6"], "1.png: its soft labels are 0.5, 0.6; expected 2 probabilities that sum to one"),
        (["0.5", ""], "1.png: its soft labels are 0.5, ; expected 2"),
        (["0.5", "half"], "1.png: its soft labels are 0.5, half"),
        (["nan", "0.5"], "1.png: its soft labels are nan"),
        (["inf", "0"], "1.png: its soft labels are inf"),
        (["1.5", "-0.5"], "1.png: its soft labels are 1.5, -0.5"),
    ],
)
def test_wrong_rows_are_refused(photos, cells, message):
    columns = {f"joint:{index}": ["", cell, "", ""] for index, cell in enumerate(cells)}
    with pytest.raises(ValueError, match=message):
        soft_rows(photos.with_columns(**columns), [GENDER])


def test_another_joint_space_is_refused(photos):
    soft = soften(Teacher(SURE), photos, workers=0)
    with pytest.raises(ValueError, match=r"18 columns .*joint:0 to joint:17\), the heads \['gender'\] 2 joint classes"):
        soft_rows(soft, [GENDER])


def test_soft_labels_are_written_and_read_again(photos, tmp_path):
    soft = soften(Teacher(SURE), photos, workers=0)
    soft.write(tmp_path / "soft.csv")
    back = read(tmp_path / "soft.csv")
    assert back.extra == soft.extra and back.labels().tolist() == photos.labels().tolist()
    np.testing.assert_array_equal(soft_rows(back, HEADS), soft_rows(soft, HEADS))
    np.testing.assert_allclose(soft_rows(back, HEADS), SURE, atol=1e-6)


# ---- where pseudo labels may not be


def test_photos_that_people_labelled_pass(photos):
    check_not_pseudo(photos, "validation")
    check_not_pseudo(photos.with_columns(pseudo=["", " ", None, np.nan]), "validation")
    filled = pseudo_label(Teacher(SURE), photos, {"gender": 0.94}, workers=0)
    check_not_pseudo(filled[1:], "validation")
    with pytest.raises(
        LeakError, match=r"1 of 4 validation photos have labels that a model made, for one 0.png \(gender\)"
    ):
        check_not_pseudo(filled, "validation")
    with pytest.raises(LeakError, match=r"1 of 3 test photos .*, for one 0.png"):
        check_not_pseudo(photos[1:3] + filled[[0]], "test")


def test_soft_labels_are_read_in_the_order_of_the_heads(photos):
    """A teacher that asks in another order, its classes too, teaches the same."""
    other = [Head("age", AGE.classes[::-1]), GENDER, MASK]
    turned = [np.einsum("ijk->kji", row.reshape(3, 2, 3))[::-1].ravel() for row in SURE]
    soft = soften(Teacher(turned, other), photos, workers=0)
    np.testing.assert_allclose(soft_rows(soft, HEADS), SURE, atol=2e-6)
    np.testing.assert_allclose(soft_rows(soft, other), turned, atol=2e-6)
    both = soft[:2] + soften(Teacher(SURE), photos, workers=0)[2:]
    np.testing.assert_allclose(soft_rows(both, HEADS), SURE, atol=2e-6)
    answers = predict(Teacher(turned, other), photos.paths, workers=1).drop(columns=["label", "box", "error"])
    np.testing.assert_allclose(soft_rows(read(answers, heads=HEADS), HEADS), SURE, atol=2e-6)


def test_soft_labels_are_read_in_an_order_that_goes_round(photos):
    """Which is another than the one back."""
    other = [AGE, Head("mask", (*MASK.classes[1:], MASK.classes[0])), GENDER]
    turned = [np.roll(row.reshape(3, 2, 3), -1, 0).transpose(2, 0, 1).ravel() for row in SURE]
    soft = soften(Teacher(turned, other), photos, workers=0)
    np.testing.assert_allclose(soft_rows(soft, HEADS), SURE, atol=2e-6)


def test_soft_labels_of_other_heads_of_the_same_number_are_refused(photos):
    fruit = Head("fruit", ("apple", "pear", "plum"))
    soft = soften(Teacher(SURE, [fruit, GENDER, AGE]), photos, workers=0)
    told = r"of a teacher of fruit \(apple, pear, plum\), gender .* the heads are mask \(worn, incorrect, not_worn\)"
    with pytest.raises(ValueError, match=told):
        soft_rows(soft, HEADS)
    with pytest.raises(ValueError, match="the column 'joint' of the soft labels says 'what'; expected"):
        soft_rows(soft.with_columns(joint="what"), HEADS)
