import itertools
import time

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from multihead import decoding
from multihead.decoding import (
    fit_head_weights,
    fit_joint_weights,
    fit_prior_weights,
    fit_weights,
    prior_joint_weights,
    prior_weights,
    reweight,
)
from multihead.heads import AGE, FLAT, HEADS, Head
from multihead.labels import decode, encode, joint, marginals
from multihead.metrics import confusion

SMILE = (Head("smile", ("no", "yes")),)
GRADE = (Head("grade", ("low", "middle", "high")),)
SEEDS = st.integers(0, 10**6)


def case(rows=200, seed=0, unknown=0.0, share=(0.7, 0.25, 0.05)):
    """(joint probabilities (N, 18), labels (N, 3)) of a model that is fair, and timid about the rare classes."""
    rng, labels, parts = np.random.default_rng(seed), [], {}
    for head in HEADS:
        prior = np.asarray(share[: len(head.classes)]) / sum(share[: len(head.classes)])
        truth = rng.choice(len(prior), rows, p=prior)
        logits = torch.from_numpy(
            np.log(prior) + 1.5 * np.eye(len(prior))[truth] + rng.normal(0, 1, (rows, len(prior)))
        )
        parts[head.name] = logits.softmax(1).numpy()
        labels.append(truth)
    table = np.stack(labels, 1)
    table[rng.random(table.shape) < unknown] = -1
    return joint(parts, HEADS), table


def f1(labels, answers):
    return f1_score(labels, answers, average="macro", zero_division=0)


# ---- weights as such


def test_equal_weights_change_nothing():
    probs, _ = case(20)
    np.testing.assert_allclose(reweight(probs, np.full(18, 0.3)), probs)
    tensor = reweight(torch.from_numpy(probs), torch.arange(1.0, 19))
    np.testing.assert_allclose(tensor.numpy(), reweight(probs, np.arange(1.0, 19)))
    np.testing.assert_allclose(tensor.sum(1).numpy(), 1)


def test_prior_weights_by_hand():
    labels = np.array([[0, 0, 0]] * 5 + [[1, 1, -1], [-1, 1, 2]])  # one more each: mask 6 2 1, gender 6 3, age 6 1 2
    found = prior_weights(labels, HEADS)
    for k, (mask, gender, age) in enumerate(decode(np.arange(18), HEADS)):
        wanted = 1 / ([6, 2, 1][mask] * [6, 3][gender] * [6, 1, 2][age])
        assert found[k] / found[0] == pytest.approx(wanted * 216)
    assert np.log(found).mean() == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(prior_weights(labels, HEADS, 0.5), np.sqrt(found))
    np.testing.assert_allclose(prior_weights(labels, HEADS, 0), 1)
    np.testing.assert_allclose(prior_weights(labels, FLAT), found)
    whole = prior_joint_weights(labels, HEADS)
    assert whole[0] * 6 == pytest.approx(whole[1]) and len(set(whole[1:].round(12))) == 1  # only five rows are whole


def test_prior_weights_take_the_prior_out():
    """Answers by Bayes' rule from unlike shares become, without the shares, those of the evidence alone."""
    rng = np.random.default_rng(0)
    evidence, labels = rng.dirichlet(np.ones(3), 50), np.repeat([0, 1, 2], [59, 29, 9])[:, None]
    shares = np.array([60, 30, 10]) / 100
    answered = evidence * shares / (evidence @ shares)[:, None]
    np.testing.assert_allclose(reweight(answered, prior_weights(labels, GRADE)), evidence)


@pytest.mark.parametrize("unknown", [0.0, 0.3, 1.0])
def test_the_strength_is_the_best_of_those_tried(unknown):
    probs, labels = case(150, 4)
    labels[np.random.default_rng(0).random(150) < unknown, 1] = -1  # at 1 no row is fully known
    found = fit_prior_weights(probs, labels, HEADS)
    scores = []
    for strength in np.arange(31) / 20:
        weighted = reweight(probs, prior_weights(labels, HEADS, strength))
        whole, parts = encode(labels, HEADS) >= 0, marginals(weighted, HEADS)
        if whole.any():
            scores.append(f1(encode(labels, HEADS)[whole], weighted[whole].argmax(1)))
        else:
            scores.append((f1(labels[:, 0], parts["mask"].argmax(1)) + f1(labels[:, 2], parts["age"].argmax(1))) / 2)
    best = int(np.argmax(scores))
    assert best > 0 and scores[best] > scores[0] + 0.02
    np.testing.assert_allclose(found, prior_weights(labels, HEADS, best / 20))
    assert (fit_prior_weights(probs, np.full((150, 3), -1), HEADS) == 1).all()


# ---- fitted weights


@settings(max_examples=15)
@given(SEEDS)
def test_one_weight_is_the_best_there_is(seed):
    """Of two classes the ratio of the weights is all there is: it is tried at every place where an answer flips."""
    rng = np.random.default_rng(seed)
    yes, labels = rng.random(25).round(1 + seed % 3), rng.integers(0, 2, 25)
    probs = np.stack([1 - yes, yes], 1)
    weights = fit_weights(probs, labels[:, None], SMILE)
    tried = np.unique(np.r_[0.0, yes, 1.0])
    cuts = (tried[1:] + tried[:-1]) / 2
    best = max(f1(labels, (yes > cut).astype(int)) for cut in cuts if 1e-3 < (1 - cut) / cut < 1e3)
    assert f1(labels, reweight(probs, weights).argmax(1)) >= best - 1e-9


@settings(max_examples=15)
@given(SEEDS, st.integers(0, 2))
def test_a_coordinate_step_agrees_with_scikit_learn(seed, index):
    rng = np.random.default_rng(seed)
    probs, weights = rng.dirichlet(np.ones(3), 20), rng.uniform(0.5, 2, 3)
    labels = rng.integers(0, 3 - seed % 2, 20)  # a class that no row has counts where it is answered
    found, score = decoding._best_weight(probs, labels, weights, index)
    scores = probs * weights
    ratios = np.delete(scores, index, 1).max(1) / probs[:, index]
    edges = np.sort(np.r_[1e-3, ratios, 1e3])
    tried = {}
    for middle in np.sqrt(edges[1:] * edges[:-1]):
        scores[:, index] = middle * probs[:, index]
        tried[middle] = f1(labels, scores.argmax(1))
    assert score == pytest.approx(max(tried.values()))
    scores[:, index] = found * probs[:, index]
    assert f1(labels, scores.argmax(1)) == pytest.approx(score)


def test_a_weight_stays_where_another_is_no_better():
    probs, labels = np.tile([[0.6, 0.4]], (2, 1)), np.array([1, 0])  # all answer 0, or all 1: as good
    assert decoding._best_weight(probs, labels, np.ones(2), 1) == (1, pytest.approx(1 / 3))
    assert (fit_weights(probs, labels[:, None], SMILE) == 1).all()


def test_three_classes_come_near_a_grid():
    probs, labels = case(120, 3)
    age, truth = marginals(probs, HEADS)["age"], labels[:, 2]
    grid = np.exp(np.linspace(-4, 4, 40))
    answers = ((age * [1, one, two]).argmax(1) for one, two in itertools.product(grid, grid))
    best = max(confusion(truth, each, AGE.classes).f1 for each in answers)
    weights = fit_head_weights(probs, labels, HEADS)["age"]
    plain, found = f1(truth, age.argmax(1)), f1(truth, (age * weights).argmax(1))
    assert found > plain + 0.15 and best + 1e-9 > found > best - 0.04  # one at a time: not always the very best


@settings(max_examples=15)
@given(SEEDS, st.sampled_from([0.0, 0.3]))
def test_fitted_weights_never_score_less_on_their_own_rows(seed, unknown):
    probs, labels = case(60, seed, unknown)
    whole = encode(labels, HEADS)
    seen = whole >= 0
    answers = (probs * fit_joint_weights(probs, labels, HEADS)).argmax(1)
    assert f1(whole[seen], answers[seen]) >= f1(whole[seen], probs.argmax(1)[seen]) - 1e-9
    for column, (name, weights) in enumerate(fit_head_weights(probs, labels, HEADS).items()):
        known, part = labels[:, column] >= 0, marginals(probs, HEADS)[name]
        truth = labels[known, column]
        assert f1(truth, (part * weights).argmax(1)[known]) >= f1(truth, part.argmax(1)[known]) - 1e-9
        assert np.log(weights).mean() == pytest.approx(0, abs=1e-9)


def test_weights_of_the_joint_space_are_the_heads_products():
    probs, labels = case(300)
    each = fit_head_weights(probs, labels, HEADS)
    wanted = [each["mask"][m] * each["gender"][g] * each["age"][a] for m, g, a in decode(np.arange(18), HEADS)]
    np.testing.assert_allclose(fit_weights(probs, labels, HEADS), wanted)
    np.testing.assert_allclose(fit_weights(probs, labels, FLAT), wanted)


def test_right_answers_and_unknown_labels_give_equal_weights():
    probs, labels = case(100)
    blank = np.full_like(labels, -1)
    np.testing.assert_allclose(fit_weights(probs, blank, HEADS), 1)
    np.testing.assert_allclose(fit_joint_weights(probs, blank, HEADS), 1)
    sure = 0.9 * np.eye(18)[encode(labels, HEADS)] + 0.1 / 18
    np.testing.assert_allclose(fit_weights(sure, labels, HEADS), 1)
    np.testing.assert_allclose(fit_joint_weights(sure, labels, HEADS), 1)
    some = labels.copy()
    some[:, 1] = -1
    np.testing.assert_allclose(fit_head_weights(probs, some, HEADS)["gender"], 1)


@settings(max_examples=15)
@given(SEEDS)
def test_the_order_of_rows_does_not_count(seed):
    probs, labels = case(60, seed, 0.2)
    probs = probs.round(2) + 1e-4
    probs /= probs.sum(1, keepdims=True)
    order = np.random.default_rng(seed).permutation(60)
    for fit in (fit_weights, fit_joint_weights):
        np.testing.assert_allclose(fit(probs[order], labels[order], HEADS), fit(probs, labels, HEADS))


def test_votes_of_few_members_and_zeros_are_fitted_too():
    """Hard votes: many ties, and classes of probability zero."""
    rng = np.random.default_rng(1)
    probs = np.eye(18)[rng.integers(0, 18, (5, 200))].mean(0)
    labels = decode(rng.integers(0, 18, 200), HEADS)
    for fit in (fit_weights, fit_joint_weights):
        weights = fit(probs, labels, HEADS)
        assert np.isfinite(weights).all() and (weights > 0).all()
    assert f1(encode(labels, HEADS), (probs * weights).argmax(1)) > f1(encode(labels, HEADS), probs.argmax(1))


def test_twenty_thousand_rows_take_seconds():
    probs, labels = case(20_000)
    start = time.perf_counter()
    fit_joint_weights(probs, labels, HEADS)
    assert time.perf_counter() - start < 30  # about 3 on one core


def test_refusals():
    probs, labels = case(4)
    with pytest.raises(ValueError, match="prior weights: strength is -1; expected a number >= 0"):
        prior_weights(labels, HEADS, -1)
    with pytest.raises(ValueError, match="prior weights: strength is nan"):
        prior_joint_weights(labels, HEADS, float("nan"))
    with pytest.raises(ValueError, match=r"labels have shape \(4, 2\)"):
        prior_weights(labels[:, :2], HEADS)
    for fit in (fit_weights, fit_head_weights, fit_joint_weights, fit_prior_weights):
        with pytest.raises(ValueError, match=r"probs have shape \(3, 18\); expected \(4, 18\)"):
            fit(probs[:3], labels, HEADS)


def test_labels_of_a_table_go_by_their_names():
    _, labels = case(unknown=0.2)
    table = pd.DataFrame(labels, columns=[head.name for head in HEADS])[["age", "mask", "gender"]]
    for made in (prior_weights, prior_joint_weights):
        assert made(table, HEADS).tolist() == made(labels, HEADS).tolist()
