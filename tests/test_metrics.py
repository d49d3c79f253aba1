import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

from multihead.heads import FLAT, HEADS, MASK
from multihead.labels import encode, joint
from multihead.metrics import Confusion, confusion, score, selection_of

pairs = st.integers(2, 6).flatmap(
    lambda c: st.tuples(
        st.just(c),
        st.lists(st.tuples(st.integers(0, c - 1), st.integers(0, c - 1)), min_size=1, max_size=30),
    )
)


def hot(labels, heads=HEADS):
    """Joint probabilities that answer just these labels."""
    probs = np.full((len(labels), 18), 0.01)
    probs[np.arange(len(labels)), encode(np.asarray(labels), heads)] = 0.83
    return probs


def random_case(count, unknown=0.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.integers(0, len(head.classes), count) for head in HEADS], 1)
    labels[rng.random(labels.shape) < unknown] = -1
    return rng.dirichlet(np.ones(18) / 2, count), labels


def near(left, right):
    return left == pytest.approx(right, abs=1e-9)


# ---- confusion


def test_confusion_by_hand():
    found = confusion(np.array([0, 0, 0, 0, 1, 1, -1]), np.array([0, 0, 0, 1, 1, 1, 0]), ["a", "b"])
    assert found.counts.tolist() == [[3, 1], [0, 2]] and found.n == 6 and found.accuracy == 5 / 6
    np.testing.assert_allclose(found.per_class(), [[1, 2 / 3], [3 / 4, 1], [6 / 7, 4 / 5]])
    assert found.f1 == pytest.approx((6 / 7 + 4 / 5) / 2)
    table = found.table()
    assert table.index.tolist() == ["a", "b"] and table.n.tolist() == [4, 2]
    assert table.columns.tolist() == ["n", "precision", "recall", "f1"]


@given(pairs)
def test_confusion_agrees_with_scikit_learn(case):
    classes, rows = case
    labels, answers = np.array(rows).T
    found = confusion(labels, answers, [str(index) for index in range(classes)])
    np.testing.assert_array_equal(found.counts, confusion_matrix(labels, answers, labels=range(classes)))
    assert near(found.f1, f1_score(labels, answers, average="macro", zero_division=0))  # absent classes left out
    assert near(found.accuracy, accuracy_score(labels, answers))
    wanted = precision_recall_fscore_support(labels, answers, labels=range(classes), zero_division=0)
    np.testing.assert_allclose(found.per_class(), wanted[:3], atol=1e-9)
    assert found.table().n.tolist() == wanted[3].tolist()


@given(pairs, st.randoms(use_true_random=False))
def test_the_order_of_rows_and_the_names_of_classes_do_not_matter(case, random):
    classes, rows = case
    renamed = list(range(classes))
    random.shuffle(renamed)
    other = [(renamed[label], renamed[answer]) for label, answer in rows]
    random.shuffle(other)
    first, second = (confusion(*np.array(part).T, [str(i) for i in range(classes)]) for part in (rows, other))
    assert near(first.f1, second.f1) and near(first.accuracy, second.accuracy)


def test_a_class_that_is_only_answered_counts_as_zero():
    found = confusion(np.array([0, 0]), np.array([0, 1]), ["a", "b", "never"])
    assert found.f1 == pytest.approx((2 / 3 + 0) / 2)


def test_no_rows_are_nan_not_zero():
    empty = confusion(np.array([-1, -1]), np.array([0, 1]), ["a", "b"])
    assert empty.n == 0 and math.isnan(empty.f1) and math.isnan(empty.accuracy)
    assert empty.to_dict()["macro_f1"] is None and empty.to_dict()["accuracy"] is None


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32])
def test_narrow_labels_count_as_wide_ones(kind):
    labels = np.arange(18).astype(kind)
    assert (confusion(labels, np.arange(18), list("abcdefghijklmnopqr")).counts == np.eye(18)).all()


def test_confusion_refuses_what_is_no_class():
    with pytest.raises(ValueError, match=r"answers must lie in 0\.\.1, got 0\.\.2"):
        confusion(np.array([0, 1]), np.array([0, 2]), ["a", "b"])
    with pytest.raises(ValueError, match=r"answers must lie in 0\.\.1, got -1\.\.0"):
        confusion(np.array([0, 1]), np.array([0, -1]), ["a", "b"])
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.1, got 0\.\.5"):
        confusion(np.array([0, 5]), np.array([0, 1]), ["a", "b"])
    assert confusion(np.array([0, -1]), np.array([0, 9]), ["a", "b"]).n == 1  # an unknown row's answer is not read


def test_confusion_as_plain_data():
    plain = Confusion(("a", "b"), np.array([[3, 1], [0, 2]])).to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["n"] == 6 and plain["classes"]["a"] == {"n": 4, "precision": 1.0, "recall": 0.75, "f1": 6 / 7}


# ---- scores


def test_score_by_hand():
    labels = np.array([[0, 0, 0], [0, 1, 2], [2, 0, -1], [-1, -1, -1]])
    scores = score(hot([[0, 0, 0], [0, 0, 2], [2, 0, 1], [1, 1, 1]]), labels, HEADS)
    assert scores.n == 2 and scores.accuracy == 0.5
    assert scores.f1 == pytest.approx(1 / 3)  # classes 0 (right), 2 (answered), 5 (missed)
    assert {name: part.n for name, part in scores.heads.items()} == {"mask": 3, "gender": 3, "age": 2}
    assert scores.heads["mask"].f1 == 1 and scores.heads["gender"].accuracy == pytest.approx(2 / 3)
    assert scores.confusion[5, 2] == 1 and scores.joint.classes[15] == "not_worn/female/<30"


@pytest.mark.parametrize("unknown", [0.0, 0.2, 0.7])
@pytest.mark.parametrize("count", [1, 7, 300])
def test_scores_agree_with_scikit_learn(count, unknown):
    probs, labels = random_case(count, unknown, seed=count)
    scores = score(probs, labels, FLAT)
    whole = (labels >= 0).all(1)
    truth = labels[whole] @ np.array([6, 3, 1])
    assert scores.n == whole.sum()
    if scores.n:
        assert near(scores.f1, f1_score(truth, probs[whole].argmax(1), average="macro", zero_division=0))
        assert near(scores.accuracy, accuracy_score(truth, probs[whole].argmax(1)))
    grid = probs.reshape(-1, 3, 2, 3)
    for column, (name, axes) in enumerate({"mask": (2, 3), "gender": (1, 3), "age": (1, 2)}.items()):
        known, answers = labels[:, column] >= 0, grid.sum(axes).argmax(1)
        if known.any():
            wanted = f1_score(labels[known, column], answers[known], average="macro", zero_division=0)
            assert near(scores.heads[name].f1, wanted)


@given(st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(seed, random):
    probs, labels = random_case(20, 0.2, seed)
    order = list(range(20))
    random.shuffle(order)
    first, second = score(probs, labels, HEADS), score(probs[order], labels[order], HEADS)
    assert (first.confusion == second.confusion).all()
    assert all((first.heads[name].counts == second.heads[name].counts).all() for name in first.heads)


def test_good_answers_score_better_than_bad_ones():
    _, labels = random_case(200)
    noisy = np.where(np.random.default_rng(1).random((200, 1)) < 0.3, 0, labels)
    right, worse = (score(hot(answer), labels, HEADS) for answer in (labels, noisy))
    assert right.f1 == right.accuracy == 1 and 0.5 < worse.f1 < 1


def test_the_joint_answer_may_differ_from_the_heads():
    heads = [HEADS[1], HEADS[2]]
    probs = np.array([[0.3, 0.0, 0.0, 0.25, 0.25, 0.2]])  # likeliest: male/<30, yet female in sum
    scores = score(probs, np.array([[0, 0]]), heads)
    assert scores.accuracy == 1 and scores.heads["gender"].accuracy == 0


def test_selection_falls_back_on_the_heads():
    probs, labels = random_case(50)
    assert score(probs, labels, HEADS).selection == (score(probs, labels, HEADS).f1, "macro_f1")
    labels[:, 1] = -1
    partly = score(probs, labels, HEADS)
    assert math.isnan(partly.f1) and partly.selection[1] == "mean_head_f1"
    assert partly.selection[0] == pytest.approx((partly.heads["mask"].f1 + partly.heads["age"].f1) / 2)
    labels[:] = -1
    assert math.isnan(score(probs, labels, HEADS).selection[0])


def test_by_a_head_and_by_a_column():
    probs, labels = random_case(90, 0.1)
    source = np.array(["a", "b", ""] * 30)
    scores = score(probs, labels, HEADS, {"source": source, "year": np.arange(90) % 2})
    worn = scores.by("mask")["worn"]
    assert list(scores.by("mask")) == ["worn", "incorrect", "not_worn"]
    assert worn.f1 == score(probs[labels[:, 0] == 0], labels[labels[:, 0] == 0], HEADS).f1
    assert {name: len(part.labels) for name, part in scores.by("source").items()} == {"a": 30, "b": 30}
    known = [int((labels[source == "a", column] >= 0).sum()) for column in range(3)]
    assert [part.n for part in scores.by("source")["a"].heads.values()] == known != [30] * 3
    assert list(scores.by("year")) == ["0", "1"]
    assert scores.by("source")["a"].by("year")["1"].n == scores.rows((source == "a") & (np.arange(90) % 2 == 1)).n
    with pytest.raises(
        KeyError, match=r"cannot slice by 'race'; there are \['mask', 'gender', 'age', 'source', 'year'"
    ):
        scores.by("race")


def test_scores_as_plain_data_and_as_text():
    probs, labels = random_case(30, 0.3)
    labels[:, 2] = -1
    scores = score(probs, labels, HEADS)
    plain = scores.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert (
        plain["macro_f1"] is None and plain["n"] == 0 and plain["heads"]["mask"]["macro_f1"] == scores.heads["mask"].f1
    )
    assert set(plain["by_mask"]) == set(MASK.classes)
    lines = str(scores).splitlines()
    assert lines[1].split() == ["joint", "0", "nan", "nan"] and lines[2].split()[0] == "mask" and len(lines) == 5


def test_score_refuses():
    probs, labels = random_case(4)
    with pytest.raises(ValueError, match=r"probs have shape \(4, 17\); expected \(4, 18\)"):
        score(probs[:, :17], labels, HEADS)
    with pytest.raises(ValueError, match=r"probs have shape \(3, 18\); expected \(4, 18\)"):
        score(probs[:3], labels, HEADS)
    probs[2, 5] = np.nan
    with pytest.raises(ValueError, match="row 2 of the probabilities is not finite"):
        score(probs, labels, HEADS)
    probs, labels = random_case(4)
    logits = np.log(probs + 0.01)
    with pytest.raises(ValueError, match="row 0 of the probabilities sums to -.*expected the softmax, joint over"):
        score(logits, labels, HEADS)
    probs[3] *= 1.5
    with pytest.raises(ValueError, match="row 3 of the probabilities sums to 1.5, its least is"):
        score(probs, labels, HEADS)
    with pytest.raises(ValueError, match="row 1: head 'age' has label nan; expected -1 to 2"):
        score(random_case(2)[0], np.array([[0, 1, 2], [0, 1, np.nan]]), HEADS)


def test_lists_and_whole_floats_are_scored_too():
    probs, labels = random_case(30)
    plain = score(probs, labels, HEADS)
    for other in (score(probs.tolist(), labels.tolist(), HEADS), score(probs, labels.astype(float), HEADS)):
        assert other.to_dict() == plain.to_dict() and other.by("mask").keys() == plain.by("mask").keys()


def test_scores_are_told_apart_and_held_in_sets():
    """By identity: arrays have no one answer to ==."""
    one, other = (score(*random_case(9), HEADS) for _ in range(2))
    assert one == one and one != other and len({one, other, one}) == 2 and one.joint != other.joint


def test_soft_answers_are_scored_by_their_argmax():
    parts = {
        "mask": np.array([[0.4, 0.35, 0.25]]),
        "gender": np.array([[0.4, 0.6]]),
        "age": np.array([[0.1, 0.1, 0.8]]),
    }
    assert score(joint(parts), np.array([[0, 1, 2]]), HEADS).accuracy == 1


def test_the_score_of_a_row():
    scored = {"macro_f1": 0.5, "selected_by": "macro_f1", "mask_f1": 0.9}
    heads = {"macro_f1": float("nan"), "selected_by": "mean_head_f1", "mask_f1": 0.9, "age_f1": 0.3}
    assert selection_of(scored) == 0.5 and selection_of(heads) == pytest.approx(0.6)
    assert selection_of(heads | {"age_f1": float("nan")}) == 0.9
    assert np.isnan(selection_of({"epoch": 3})) and np.isnan(selection_of({"selected_by": "mean_head_f1"}))


def test_slices_are_by_one_name():
    with pytest.raises(TypeError, match=r"by\(\) takes one name, got \['mask', 'gender'\]; expected one of \['mask', "):
        score(np.full((2, 18), 1 / 18), np.array([[0, 0, 0], [1, 1, 1]])).by(["mask", "gender"])


def test_a_confusion_prints_as_a_line_and_its_classes_as_a_table():
    found = Confusion(("a", "a longer name"), np.array([[3, 1], [0, 4]]))
    assert repr(found) == "Confusion(2 classes, n 8, macro-F1 0.8730, accuracy 0.8750)"
    header, *rows, last = str(found).splitlines()
    assert header.split() == ["n", "precision", "recall", "F1"] and len({len(row) for row in (header, *rows)}) == 1
    assert rows[0].split() == ["a", "4", "1.0000", "0.7500", "0.8571"]
    assert rows[1].startswith("a longer name ") and last == "macro-F1 0.8730, accuracy 0.8750"
    assert "nan" in repr(Confusion(("a", "b"), np.zeros((2, 2), int)))


def test_slices_are_a_mapping_that_prints_as_a_table():
    probs, labels = random_case(60, 0.1)
    scores = score(probs, labels, HEADS, {"source": np.array(["a", "a source of a long name"] * 30)})
    found = scores.by("source")
    assert isinstance(found, dict) and list(found) == ["a", "a source of a long name"] and len(found) == 2
    title, header, *rows = repr(found).splitlines()
    assert (
        str(found) == repr(found) and title == "macro-F1 by slice" and len({len(row) for row in (header, *rows)}) == 1
    )
    assert header.split() == ["rows", "joint", "mask", "gender", "age"]
    part = found["a"]
    told = [part.f1, *(part.heads[name].f1 for name in ("mask", "gender", "age"))]
    assert rows[0].split() == ["a", "30", *(f"{value:.4f}" for value in told)]
    assert repr(type(found)()).splitlines()[0] == "macro-F1 by slice"


def test_labels_of_a_table_are_scored_by_their_names():
    probs, labels = random_case(40, unknown=0.3)
    table = pd.DataFrame(labels, columns=[head.name for head in HEADS])[["age", "mask", "gender"]]
    found, expected = score(probs, table), score(probs, labels)
    assert found.f1 == expected.f1
    assert {name: head.f1 for name, head in found.heads.items()} == {n: head.f1 for n, head in expected.heads.items()}
    assert score(probs, table.replace(-1, None)).f1 == expected.f1
    with pytest.raises(KeyError, match="none for \\['gender'\\]"):
        score(probs, table[["age", "mask"]])


def test_row_numbers_say_which_photos_were_scored():
    probs = np.full((4, 18), 1 / 18)
    whole = score(probs, np.zeros((4, 3), int))
    assert whole.row_numbers.tolist() == [0, 1, 2, 3]
    assert whole.rows(np.array([False, True, False, True])).row_numbers.tolist() == [1, 3]
    assert whole.rows(np.array([3, 0])).row_numbers.tolist() == [3, 0]


def test_a_row_without_an_answer_is_said_to_be_one():
    probs = np.full((2, 18), 1 / 18)
    probs[1] = np.nan
    with pytest.raises(ValueError, match="row 1 of the probabilities is not finite: of a photo without an answer"):
        score(probs, np.zeros((2, 3), int))
