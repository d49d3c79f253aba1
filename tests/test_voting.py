import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multihead import voting
from multihead.heads import FLAT, HEADS, Head, size
from multihead.labels import decode, encode, joint, marginals
from multihead.voting import fit_vote_weights, person_vote

SMILE = (Head("smile", ("no", "yes")),)
SEEDS = st.integers(0, 10**6)


def any_joint(rows=30, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(18) / 3, rows)


def members_of(skills, rows=300, unknown=0.0, seed=0):
    """(probabilities of members who know the labels by so much, labels)"""
    rng = np.random.default_rng(seed)
    labels = decode(rng.integers(0, 18, rows), HEADS)
    right = np.eye(18)[encode(labels, HEADS)]
    found = [rng.dirichlet(np.ones(18) / 2, rows) + skill * rng.random((rows, 1)) * right for skill in skills]
    labels[rng.random(labels.shape) < unknown] = -1
    return [each / each.sum(1, keepdims=True) for each in found], labels


def likelihood(members, weights, labels):
    """The mean log-likelihood of the known labels under the weighted mean, in loops."""
    logs = []
    for row, known in enumerate(labels):
        agreeing = [k for k in range(18) if all(w in (-1, c) for w, c in zip(known, decode(np.array([k]), HEADS)[0]))]
        if (known >= 0).any():
            logs.append(np.log(sum(w * each[row, agreeing].sum() for w, each in zip(weights, members))))
    return np.mean(logs)


# ---- weights of members


@pytest.mark.parametrize("unknown", [0.0, 0.5])
def test_weights_of_two_and_three_are_the_best_of_a_grid(unknown):
    for skills in ((0.5, 0.4), (0.5, 0.3, 0.6)):
        members, labels = members_of(skills, 60, unknown, seed=2)
        steps = np.linspace(0, 1, 21)
        grid = [(*each, 1 - sum(each)) for each in itertools.product(steps, repeat=len(skills) - 1) if sum(each) <= 1]
        told = np.stack([voting._agreeing(each, labels, HEADS) for each in members], 1)[(labels >= 0).any(1)]
        scores = [np.log(told @ np.maximum(each, 0)).mean() for each in grid]
        found = fit_vote_weights(members, labels, HEADS)
        best = grid[int(np.argmax(scores))]
        assert likelihood(members, found, labels) >= max(scores) - 1e-7
        assert likelihood(members, best, labels) == pytest.approx(max(scores))
        assert sum(found) == pytest.approx(1) and np.abs(np.subtract(found, best)).max() < 0.1


def test_the_likelihood_never_falls(monkeypatch):
    members, labels = members_of((0.5, 0.2, 0.6), 80, 0.3)
    scores = []
    for rounds in range(12):
        monkeypatch.setattr(voting, "ROUNDS", rounds)
        scores.append(likelihood(members, fit_vote_weights(members, labels, HEADS), labels))
    assert (np.diff(scores) >= -1e-12).all() and scores[-1] > scores[0] + 1e-3
    told = np.stack([voting._agreeing(each, labels, HEADS) for each in members], 1)[(labels >= 0).any(1)]
    monkeypatch.setattr(voting, "ROUNDS", 1)
    shares = told / told.sum(1, keepdims=True)  # how likely each member is the one that made the label
    np.testing.assert_allclose(fit_vote_weights(members, labels, HEADS), shares.mean(0))


def test_a_useless_member_gets_nothing_and_equal_ones_share():
    members, labels = members_of((3.0, 0.0, 3.0))
    weights = fit_vote_weights(members, labels, HEADS)
    assert 0 < weights[1] < 0.01 and min(weights[0], weights[2]) > 0.2
    assert fit_vote_weights([members[0]] * 4, labels, HEADS) == pytest.approx((0.25,) * 4)
    assert fit_vote_weights([members[0]], labels, HEADS) == (1,)
    right = np.eye(18)[encode(labels, HEADS)]
    alone = fit_vote_weights([right, np.roll(right, 1, 1), right], labels, HEADS)  # zeros at the labels
    assert alone == pytest.approx((0.5, 0, 0.5), abs=1e-6) and alone[1] > 0


@settings(max_examples=10)
@given(SEEDS)
def test_the_order_of_members_and_rows_does_not_count(seed):
    members, labels = members_of((0.5, 0.3, 0.6), 60, 0.2, seed)
    order = np.random.default_rng(seed).permutation(60)
    found = fit_vote_weights(members, labels, HEADS)
    again = fit_vote_weights([each[order] for each in members[::-1]], labels[order], FLAT)
    assert found == pytest.approx(again[::-1], abs=1e-6)


def test_what_is_known_of_a_row_is_what_counts():
    """Only gender is known: a member that knows nothing else is as good as one that does."""
    male, female = np.zeros(18), np.zeros(18)
    male[decode(np.arange(18), HEADS)[:, 1] == 0], female[3] = 1 / 9, 1
    labels = np.array([[-1, 0, -1], [-1, 1, -1], [-1, -1, -1]])
    spread, sharp = np.stack([male, female, male]), np.stack([np.eye(18)[0], female, female])
    assert fit_vote_weights([spread, sharp], labels, HEADS) == pytest.approx((0.5, 0.5))


def test_vote_weights_refuse():
    members, labels = members_of((1, 1), 5)
    with pytest.raises(ValueError, match="fit_vote_weights needs the probabilities of at least one member"):
        fit_vote_weights([], labels, HEADS)
    with pytest.raises(ValueError, match="none of 5 rows has a known label; nothing tells the members apart"):
        fit_vote_weights(members, np.full((5, 3), -1), HEADS)
    with pytest.raises(ValueError, match=r"probs have shape \(4, 18\); expected \(5, 18\)"):
        fit_vote_weights([members[0], members[1][:4]], labels, HEADS)


# ---- one person's photos


def fitted_by_hand(row, wanted):
    """A joint distribution (K,) with these marginals, by loops: proportional fitting."""
    classes = decode(np.arange(18), HEADS)
    for _ in range(2000):
        for at, head in enumerate(HEADS):
            for index in range(len(head.classes)):
                inside = classes[:, at] == index
                row = np.where(inside, row * wanted[head.name][index] / row[inside].sum(), row)
    return row


@pytest.mark.parametrize("shared", [("gender", "age"), ("age",), (), ("mask", "gender", "age")])
def test_the_vote_agrees_with_loops(shared):
    probs, groups = any_joint()[:12], np.random.default_rng(3).integers(-1, 3, 12) * 7
    groups[groups < 0] = -1
    parts = marginals(probs, HEADS)
    found = person_vote(probs, groups, HEADS, shared)
    for row, group in enumerate(groups):
        mean = {name: part[groups == group].mean(0) if name in shared and group >= 0 else part[row] for name, part in parts.items()}  # fmt: skip
        np.testing.assert_allclose(found[row], fitted_by_hand(probs[row], mean), rtol=1e-5, atol=1e-8)
    assert (found[groups == -1] == probs[groups == -1]).all()
    np.testing.assert_allclose(person_vote(probs, groups, FLAT, shared), found)


@pytest.mark.parametrize("least", [1e-15, 1e-18, 1e-20, 0.0])
def test_photos_that_are_very_sure_do_not_swap_answers(least):
    """Two of three say female and 60 or more, each as sure as can be."""
    sure = lambda at, of: np.where(np.arange(of) == at, 1 - (of - 1) * least, least)  # noqa: E731
    told = [(0, 0, 0), (1, 1, 2), (2, 1, 2)]
    probs = np.concatenate(
        [joint({h.name: sure(at, len(h.classes))[None] for h, at in zip(HEADS, each)}, HEADS) for each in told]
    )
    found = marginals(person_vote(probs, np.zeros(3, int), HEADS), HEADS)
    np.testing.assert_allclose(found["gender"], np.tile([[1 / 3, 2 / 3]], (3, 1)), atol=1e-9)
    np.testing.assert_allclose(found["age"], np.tile([[1 / 3, 0, 2 / 3]], (3, 1)), atol=1e-9)
    np.testing.assert_allclose(found["mask"], np.eye(3), atol=1e-9)


def test_photos_of_a_person_agree_for_a_vote_of_models_too():
    rng = np.random.default_rng(1)
    members = [joint({h.name: rng.dirichlet(np.ones(len(h.classes)) / 3, 70) for h in HEADS}, HEADS) for _ in range(3)]
    probs, groups = np.mean(members, 0), np.repeat(np.arange(10), 7)
    before, after = marginals(probs, HEADS), marginals(person_vote(probs, groups, HEADS), HEADS)
    for name in ("gender", "age"):
        mean = before[name].reshape(10, 7, -1).mean(1)
        np.testing.assert_allclose(after[name], np.repeat(mean, 7, 0), atol=1e-6)
    np.testing.assert_allclose(after["mask"], before["mask"], atol=1e-6)


def test_heads_of_a_person_agree_and_the_mask_stays():
    rng = np.random.default_rng(0)
    parts = {head.name: rng.dirichlet(np.ones(len(head.classes)), 12) for head in HEADS}
    groups = np.repeat([5, 2, 9], 4)
    found = marginals(person_vote(joint(parts, HEADS), groups, HEADS), HEADS)
    np.testing.assert_allclose(found["mask"], parts["mask"])
    for name in ("gender", "age"):
        np.testing.assert_allclose(found[name], np.repeat(parts[name].reshape(3, 4, -1).mean(1), 4, 0))


def test_a_vote_mends_a_photo_that_is_surely_wrong():
    """Zeros too: what a photo says cannot be, its person's others may say."""
    right, wrong = np.eye(18)[encode(np.array([[0, 1, 2]]), HEADS)], np.eye(18)[encode(np.array([[1, 0, 2]]), HEADS)]
    found = person_vote(np.concatenate([right, right, wrong]), np.zeros(3, int), HEADS)
    assert found.argmax(1).tolist() == encode(np.array([[0, 1, 2], [0, 1, 2], [1, 1, 2]]), HEADS).tolist()
    np.testing.assert_allclose(marginals(found, HEADS)["gender"], np.tile([[1 / 3, 2 / 3]], (3, 1)), atol=1e-9)


@given(SEEDS)
def test_votes_are_distributions_and_know_no_order(seed):
    rng, probs = np.random.default_rng(seed), any_joint(20, seed)
    groups, order = rng.integers(-1, 5, 20), rng.permutation(20)
    found = person_vote(probs, groups, HEADS)
    np.testing.assert_allclose(found.sum(1), 1)
    assert (found >= 0).all()
    np.testing.assert_allclose(person_vote(probs[order], groups[order], HEADS), found[order])
    renamed = np.where(groups < 0, -1, 40 - 3 * groups)
    np.testing.assert_allclose(person_vote(probs, renamed, HEADS), found)
    alone = person_vote(probs, np.arange(20), HEADS)
    np.testing.assert_allclose(alone, probs, rtol=1e-6, atol=1e-9)


def test_nobody_votes():
    assert person_vote(np.zeros((0, 18)), np.zeros(0, int), HEADS).shape == (0, size(HEADS))
    probs = any_joint(3)
    assert (person_vote(probs, np.full(3, -1), HEADS) == probs).all()


@pytest.mark.parametrize(
    ("groups", "shared", "message"),
    [
        (np.zeros(3, int), ("gendre",), r"shared names 'gendre'; expected some of the heads .*; did you mean 'gender'"),
        (np.zeros(2, int), ("age",), r"groups have shape \(2,\), the answers 3 rows; .*scores.row_numbers"),
        (np.zeros(3), ("age",), "groups are float64; multihead.splits.groups numbers people by their names"),
        (np.array([0, -2, 1]), ("age",), "groups hold -2; expected person numbers from 0, or -1 where unknown"),
    ],
)
def test_votes_refused(groups, shared, message):
    with pytest.raises(ValueError, match=message):
        person_vote(any_joint(3), groups, HEADS, shared)


def test_one_head_may_be_named_alone():
    probs = any_joint(3)
    np.testing.assert_array_equal(
        person_vote(probs, np.zeros(3, int), HEADS, "age"), person_vote(probs, np.zeros(3, int), HEADS, ("age",))
    )


def test_votes_of_no_distribution_are_refused():
    with pytest.raises(ValueError, match="row 0 of the probabilities sums to .*; expected the softmax"):
        person_vote(np.zeros((2, 18)), np.zeros(2, int), HEADS)


def test_labels_of_a_table_go_by_their_names():
    members, labels = members_of([0.5, 1.0], unknown=0.2)
    table = pd.DataFrame(labels, columns=[head.name for head in HEADS])[["age", "mask", "gender"]]
    assert fit_vote_weights(members, table, HEADS) == fit_vote_weights(members, labels, HEADS)
