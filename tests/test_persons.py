import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from multihead.heads import AGE, GENDER, HEADS, MASK
from multihead.labels import encode
from multihead.paired import draws
from multihead.persons import agreement, class_intervals


def case(seed, rows=60, people=9, classes=4, unknown=0.2):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    answers = np.where(rng.random(rows) < 0.6, labels, rng.integers(0, classes, rows))
    labels[rng.random(rows) < unknown] = -1
    return rng.integers(0, people, rows) * 3, labels, answers


@given(st.integers(0, 10**6), st.integers(2, 6))
def test_f1_is_that_of_scikit_learn(seed, classes):
    people, labels, answers = case(seed, classes=classes)
    known = labels >= 0
    wanted = f1_score(labels[known], answers[known], labels=range(classes), average=None, zero_division=np.nan)
    found = class_intervals(people, labels, answers, classes, resamples=3)
    np.testing.assert_allclose(found[:, 0], wanted)
    assert (found[:, 1] <= found[:, 2]).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_intervals_are_those_of_resampling_person_by_person(seed):
    people, labels, answers = case(seed)
    found = class_intervals(people, labels, answers, 5, resamples=200, level=0.9, seed=7)
    names = np.unique(people[labels >= 0])
    again = []
    for counts in np.concatenate(list(draws(len(names), 200, 7))):
        rows = [
            row for name, count in zip(names, counts) for row in np.flatnonzero(people == name).tolist() * int(count)
        ]
        rows = [row for row in rows if labels[row] >= 0]
        again.append(f1_score(labels[rows], answers[rows], labels=range(4), average=None, zero_division=np.nan))
    wanted = np.nanquantile(np.array(again), [0.05, 0.95], axis=0)
    np.testing.assert_allclose(found[:4, 1:], wanted.T)
    assert np.isnan(found[4]).all()  # a class that does not occur


def test_class_intervals_by_hand():
    people, labels = np.array([5, 5, 9, 9]), np.array([0, 0, 1, 1])
    found = class_intervals(people, labels, np.array([0, 0, 1, 0]), 2, resamples=500)
    # person 5 twice: class 0 all right, class 1 nowhere; person 9 twice: class 0 never right, class 1 two of three
    assert found == pytest.approx(np.array([[4 / 5, 0, 1], [2 / 3, 2 / 3, 2 / 3]]))
    gap = class_intervals(people, 2 * labels, 2 * labels, 3, resamples=5)  # nothing is of the class between
    assert np.isnan(gap[1]).all() and gap[[0, 2], 0].tolist() == [1, 1]
    alone = class_intervals(people * 0, labels, labels, 2)
    assert alone[:, 0].tolist() == [1, 1] and np.isnan(alone[:, 1:]).all()
    assert np.isnan(class_intervals(people, labels * 0 - 1, labels, 2)).all()


def test_a_photo_of_nobody_known_is_a_person_of_its_own():
    _, labels, answers = case(3)
    apart = class_intervals(np.arange(60), labels, answers, 4, resamples=50)
    found = class_intervals(np.full(60, -1), labels, answers, 4, resamples=50)
    np.testing.assert_array_equal(found, apart)
    assert np.isfinite(found).all()


def hot(labels):
    return np.eye(18)[encode(np.array(labels), HEADS)]


def test_agreement_by_hand():
    people = ["ann", "ann", "ann", "bo", "bo", "cy", "", ""]
    labels = np.array([[0, 1, 0], [1, 1, 0], [2, 1, -1], [0, 0, 2], [0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
    answers = [[0, 1, 0], [1, 1, 1], [2, 0, 2], [0, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    table = agreement(people, labels, hot(answers), HEADS).set_index("head")
    # mask: ann's states differ, so only bo counts; gender: both, bo's photos agree on a wrong answer
    assert table.loc["mask"].tolist() == [1, 2, 1, 1]
    assert table.loc["gender"].tolist() == [2, 5, 0.5, pytest.approx((2 / 3 + 1) / 2)]
    # age: ann with two photos of known age, answered apart; bo's labels differ
    assert table.loc["age"].tolist() == [1, 2, 0, 0.5]


@given(st.integers(0, 10**6))
def test_agreement_against_loops(seed):
    rng = np.random.default_rng(seed)
    people = rng.choice(["", "a", "b", "c", "d"], 25).tolist()
    labels = np.stack([rng.integers(-1, 1 + (rng.random() < 0.1), 25) for _ in HEADS], 1)
    probs = rng.dirichlet(np.ones(18), 25)
    table = agreement(people, labels, probs, HEADS).set_index("head")
    grid = probs.reshape(25, 3, 2, 3)
    for column, head in enumerate((MASK, GENDER, AGE)):
        axes = tuple(axis for axis in (1, 2, 3) if axis != column + 1)
        answers, shares = grid.sum(axes).argmax(1), []
        for name in "abcd":
            rows = [r for r in range(25) if people[r] == name and labels[r, column] >= 0]
            if len(rows) > 1 and len({labels[r, column] for r in rows}) == 1:
                given_ = [answers[r] for r in rows]
                shares.append(max(given_.count(a) for a in given_) / len(rows))
        row = table.loc[head.name]
        assert row.people == len(shares)
        assert row.majority == pytest.approx(np.mean(shares) if shares else math.nan, nan_ok=True)
        assert row.unanimous == pytest.approx(np.mean([s == 1 for s in shares]) if shares else math.nan, nan_ok=True)


def test_nobody_to_agree():
    table = agreement(["", ""], np.zeros((2, 3), int), hot([[0, 0, 0]] * 2), HEADS)
    assert table.people.tolist() == [0, 0, 0] and table.majority.isna().all() and table.unanimous.isna().all()
