import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from multihead.calibrate import (
    apply_temperatures,
    calibration_errors,
    check_temperatures,
    checked,
    expected_calibration_error,
    fit_temperatures,
    questions,
    reliabilities,
    reliability,
    rescale,
    with_marginals,
)
from multihead.heads import FLAT, HEADS, Head
from multihead.labels import decode, encode, joint, marginals

SMILE = (Head("smile", ("no", "yes")),)
SEEDS = st.integers(0, 10**6)
WARM = {"mask": 2.0, "gender": 0.5, "age": 1.3}


def softmax(logits):
    return torch.softmax(torch.as_tensor(logits), 1).numpy()


def logits_of(rows=50, seed=0, heads=HEADS):
    rng = np.random.default_rng(seed)
    return {head.name: rng.normal(0, 2, (rows, len(head.classes))) for head in heads}


def product(logits, temperatures=None, heads=HEADS):
    """Joint probabilities (N, K) of a model of several heads."""
    return joint({name: softmax(each / (temperatures or {}).get(name, 1)) for name, each in logits.items()}, heads)


def any_joint(rows=30, seed=0):
    """Joint probabilities (N, 18) of no product, as a flat model's or an ensemble's."""
    return np.random.default_rng(seed).dirichlet(np.ones(18) / 3, rows)


def drawn(probs, seed=0):
    """Labels (N, heads) drawn from the probabilities: these are calibrated by definition."""
    rng = np.random.default_rng(seed)
    return decode((rng.random((len(probs), 1)) > probs.cumsum(1)).sum(1).clip(max=probs.shape[1] - 1), HEADS)


# ---- temperatures


@pytest.mark.parametrize("temperatures", [WARM, {"age": 0.05}, {"mask": 20.0}, {}])
def test_temperatures_of_a_product_divide_its_logits(temperatures):
    logits = logits_of()
    found = apply_temperatures(product(logits), temperatures, HEADS)
    np.testing.assert_allclose(found, product(logits, temperatures), rtol=1e-9, atol=1e-15)


def powers(part, temperature):
    found = part ** (1 / temperature)
    return found / found.sum(1, keepdims=True)


def is_a_factor_a_class(found, probs):
    """Whether each row was multiplied by a number for its class of each head: nothing else is left of its logarithm."""
    classes = decode(np.arange(18), HEADS)
    design = np.concatenate([np.eye(len(head.classes))[classes[:, at]] for at, head in enumerate(HEADS)], 1)  # (K, 8)
    change = np.log(found / probs).T  # (K, N)
    return np.abs(change - design @ np.linalg.lstsq(design, change, rcond=None)[0]).max() < 1e-6


def test_temperatures_of_any_joint_distribution():
    """Its marginals are those that fit_temperatures looked at, and what goes together stays: there is one such."""
    probs = any_joint()
    found = apply_temperatures(probs, WARM, HEADS)
    for name, part in marginals(probs, HEADS).items():
        np.testing.assert_allclose(marginals(found, HEADS)[name], powers(part, WARM[name]), atol=1e-8)
    assert is_a_factor_a_class(found, probs)
    np.testing.assert_allclose(apply_temperatures(probs, WARM, FLAT), found)
    np.testing.assert_allclose(apply_temperatures(torch.from_numpy(probs), WARM, HEADS).numpy(), found)


def test_a_head_that_is_not_named_keeps_its_own():
    probs = any_joint()
    found = apply_temperatures(probs, {"age": 3.0}, HEADS)
    for name in ("mask", "gender"):
        np.testing.assert_allclose(marginals(found, HEADS)[name], marginals(probs, HEADS)[name], atol=1e-8)


def test_what_is_applied_to_a_vote_is_what_was_fitted():
    """The likelihood of every head of an ensemble's answers is the fitted one, and no answer changes."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 18, 600)
    labels = decode(truth, HEADS)
    logits = [{h.name: rng.normal(0, 1, (600, len(h.classes))) for h in HEADS} for _ in range(3)]
    members = [
        joint({h.name: powers(np.exp(3 * (each[h.name] + np.eye(len(h.classes))[labels[:, at]])), 1.0) for at, h in enumerate(HEADS)})
        for each in logits
    ]  # fmt: skip
    probs = np.mean(members, 0)
    temperatures = fit_temperatures(probs, labels, HEADS)
    assert max(temperatures.values()) < 0.8  # a mean is less sure than its members
    before, after = marginals(probs, HEADS), marginals(apply_temperatures(probs, temperatures, HEADS), HEADS)
    for at, head in enumerate(HEADS):
        wanted = powers(before[head.name], temperatures[head.name])
        np.testing.assert_allclose(after[head.name], wanted, atol=1e-6)
        assert (after[head.name].argmax(1) == before[head.name].argmax(1)).all()
        told = -np.log(after[head.name][np.arange(600), labels[:, at]]).mean()
        assert told < -np.log(before[head.name][np.arange(600), labels[:, at]]).mean()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("temperature", [1e-3, 0.05, 20.0, 1e3])
def test_extreme_temperatures_are_numbers(kind, temperature):
    smile = (Head("smile", ("no", "yes", "maybe")),)
    rows = np.array([[0.34, 0.33, 0.33], [1, 0, 0], [0.5, 0.5, 0]], kind)
    found = apply_temperatures(rows, {"smile": temperature}, smile)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    assert (found[rows == 0] == 0).all() and (found.argmax(1) == 0).all()


def test_marginals_that_zeros_do_not_allow():
    """What comes nearest is a distribution, and zeros stay."""
    heads = (Head("a", ("no", "yes")), Head("b", ("no", "yes")))
    wanted = {"a": np.array([[0.5, 0.5]]), "b": np.array([[0.4, 0.6]])}
    found = with_marginals(np.array([[0.6, 0.0, 0.1, 0.3]]), wanted, heads)
    assert found[0, 1] == 0 and found.sum() == pytest.approx(1) and np.isfinite(found).all()
    assert with_marginals(np.zeros((0, 4)), {}, heads).shape == (0, 4)


@given(SEEDS, st.tuples(*[st.floats(0.05, 20)] * 3))
def test_temperatures_keep_a_distribution_and_a_products_answers(seed, each):
    temperatures = dict(zip(WARM, each))
    for probs in (product(logits_of(8, seed)), any_joint(8, seed)):
        found = apply_temperatures(probs, temperatures, HEADS)
        np.testing.assert_allclose(found.sum(1), 1)
        assert (found >= 0).all()
    probs = product(logits_of(8, seed))
    before, after = marginals(probs, HEADS), marginals(apply_temperatures(probs, temperatures, HEADS), HEADS)
    for name in WARM:
        assert (before[name].argmax(1) == after[name].argmax(1)).all()


@given(SEEDS)
def test_a_temperature_of_one_changes_nothing(seed):
    probs = any_joint(5, seed)
    assert (apply_temperatures(probs, dict.fromkeys(WARM, 1.0), HEADS) == probs).all()
    assert (apply_temperatures(probs, {}, HEADS) == probs).all()


@pytest.mark.parametrize("temperature", [0.05, 0.5, 3.0, 20.0])
def test_zeros_stay_zeros(temperature):
    probs = np.stack([np.eye(18)[7], np.r_[np.full(6, 1 / 6), np.zeros(12)], np.r_[1e-300, 1 - 1e-12, np.zeros(16)]])
    found = apply_temperatures(probs, dict.fromkeys(WARM, temperature), HEADS)
    assert np.isfinite(found).all() and (found[probs == 0] == 0).all()
    np.testing.assert_allclose(found.sum(1), 1)
    np.testing.assert_allclose(found[:2], probs[:2])  # nothing to temper: one class, and even ones
    assert np.isfinite(fit_temperatures(probs, np.array([[0, 0, 0]] * 3), HEADS)["mask"])


def test_many_heads_do_not_overflow():
    heads = tuple(Head(f"h{number}", ("a", "b")) for number in range(10))
    probs = np.full((1, 1024), 0.0)
    probs[0, 0], probs[0, -1] = 1, 1e-200
    found = apply_temperatures(probs, {head.name: 20.0 for head in heads}, heads)
    assert np.isfinite(found).all() and found.sum() == pytest.approx(1)


def test_no_rows_are_no_rows():
    assert apply_temperatures(np.zeros((0, 18)), WARM, HEADS).shape == (0, 18)
    assert apply_temperatures(torch.zeros(0, 18), WARM, HEADS).shape == (0, 18)


def test_rescale_by_hand():
    heads = (Head("a", ("x", "y")), Head("b", ("x", "y")))
    found = rescale(np.full((1, 4), 0.25), {"b": np.array([[3.0, 1.0]]), "a": np.array([[1.0, 0.0]])}, heads)
    np.testing.assert_allclose(found, [[0.75, 0.25, 0, 0]])


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_the_temperature_that_made_the_answers_is_found(true):
    logits = logits_of(20_000)
    labels = drawn(product(logits))
    found = fit_temperatures(product({k: v * true for k, v in logits.items()}), labels, HEADS)
    assert found == {name: pytest.approx(true, rel=0.05) for name in WARM}


@given(SEEDS, st.sampled_from([0.0, 0.4]))
def test_the_temperature_is_scipys(seed, unknown):
    rng, probs = np.random.default_rng(seed), any_joint(30, seed)
    labels = decode(rng.integers(0, 18, 30), HEADS)
    labels[rng.random(labels.shape) < unknown] = -1
    found = fit_temperatures(probs, labels, HEADS)
    for column, head in enumerate(HEADS):
        known = labels[:, column] >= 0
        logs = torch.log(torch.from_numpy(marginals(probs, HEADS)[head.name][known]))
        truth = torch.from_numpy(labels[known, column])

        def loss(log_t):
            more = 1 / (len(truth) + 1)  # noqa: B023
            return float(torch.nn.functional.cross_entropy(logs / math.exp(log_t), truth, label_smoothing=more))  # noqa: B023

        best = minimize_scalar(loss, bounds=(math.log(0.05), math.log(20)), method="bounded", options={"xatol": 1e-10})
        assert loss(math.log(found[head.name])) <= best.fun + 1e-9


def test_a_head_that_cannot_be_fitted_keeps_one_and_the_wrong_run_to_the_bound():
    labels = np.array([[0, -1, 0], [1, -1, 1]])
    probs = np.full((2, 18), 1 / 18)
    assert fit_temperatures(probs, labels, HEADS) == {
        "mask": 1,
        "gender": 1,
        "age": 1,
    }  # even answers: any T is as good
    assert fit_temperatures(np.zeros((0, 18)), np.zeros((0, 3), int), HEADS) == {"mask": 1, "gender": 1, "age": 1}
    tilted = np.tile([[0.6, 0.4]], (2, 1))
    assert fit_temperatures(tilted, np.array([[1], [1]]), SMILE)["smile"] == pytest.approx(20)


@pytest.mark.parametrize("count", [1, 7, 300])
@pytest.mark.parametrize("sure", [0.6, 0.9, 0.9999])
def test_rows_that_are_all_right_leave_room_for_an_error(count, sure):
    """As sure as if of one row more half were right."""
    probs, labels = np.tile([[1 - sure, sure]], (count, 1)), np.ones((count, 1), int)
    after = apply_temperatures(probs, fit_temperatures(probs, labels, SMILE), SMILE)
    np.testing.assert_allclose(after[:, 1], (count + 0.5) / (count + 1), rtol=1e-9)


def test_classes_that_cannot_be_do_not_count_in_the_row_more():
    """A vote that is counted gives zeros, which stay zeros."""
    rng = np.random.default_rng(0)
    two = rng.dirichlet([1, 1], 40)
    labels = (rng.random(40) < two[:, 1]).astype(int)[:, None]
    three = np.concatenate([two, np.zeros((40, 1))], 1)
    wanted = fit_temperatures(two, labels, SMILE)["smile"]
    assert fit_temperatures(three, labels, (Head("age", ("a", "b", "c")),))["age"] == pytest.approx(wanted, rel=1e-9)


def test_the_order_of_rows_does_not_count():
    probs, order = any_joint(200), np.random.default_rng(1).permutation(200)
    labels = drawn(any_joint(200, 5))
    first, second = fit_temperatures(probs, labels, HEADS), fit_temperatures(probs[order], labels[order], HEADS)
    assert first == {name: pytest.approx(value, rel=1e-9) for name, value in second.items()}


# ---- reliability


def test_reliability_by_hand():
    probs = np.array([[0.5, 0.5], [0.6, 0.4], [0.2, 0.8], [0.1, 0.9], [0.0, 1.0], [0.0, 1.0]])
    labels = np.array([0, 1, 1, 1, 1, -1])
    confidence, accuracy, counts = reliability(probs, labels, 5)
    assert counts.tolist() == [0, 0, 2, 1, 2]  # .6 and .8 belong to the bin that they end
    np.testing.assert_allclose(confidence, [np.nan, np.nan, 0.55, 0.8, 0.95])
    np.testing.assert_allclose(accuracy, [np.nan, np.nan, 0.5, 1, 1])
    assert expected_calibration_error(probs, labels, 5) == pytest.approx((2 * 0.05 + 0.2 + 2 * 0.05) / 5)


@given(SEEDS, st.integers(1, 20), st.sampled_from([2, 5, 18]))
def test_the_error_agrees_with_loops(seed, bins, classes):
    rng = np.random.default_rng(seed)
    probs, labels = rng.dirichlet(np.ones(classes) / 2, 40), rng.integers(-1, classes, 40)
    total, known = 0.0, [row for row in range(40) if labels[row] >= 0]
    found = reliability(probs, labels, bins)
    for number in range(bins):
        inside = [row for row in known if number / bins < probs[row].max() <= (number + 1) / bins]
        assert found[2][number] == len(inside)
        if inside:
            accuracy = sum(probs[row].argmax() == labels[row] for row in inside) / len(inside)
            confidence = sum(probs[row].max() for row in inside) / len(inside)
            assert (found[0][number], found[1][number]) == (pytest.approx(confidence), pytest.approx(accuracy))
            total += len(inside) / len(known) * abs(accuracy - confidence)
    assert expected_calibration_error(probs, labels, bins) == pytest.approx(total)


def test_drawn_labels_are_calibrated_and_temperatures_mend_what_is_not():
    logits = logits_of(20_000)
    labels = drawn(product(logits))
    assert max(calibration_errors(product(logits), labels, HEADS).values()) < 0.015
    sure = product(logits, dict.fromkeys(WARM, 0.4))
    before = calibration_errors(sure, labels, HEADS)
    after = calibration_errors(apply_temperatures(sure, fit_temperatures(sure, labels, HEADS), HEADS), labels, HEADS)
    assert list(before) == ["joint", *WARM] and all(before[name] > 0.04 and after[name] < 0.015 for name in before)


def test_joint_and_heads_count_their_own_known_rows():
    probs, labels = any_joint(60), drawn(any_joint(60, 3))
    labels[:10, 1], labels[5:20, 0] = -1, -1
    found = reliabilities(probs, labels, HEADS, 7)
    assert {name: int(part[2].sum()) for name, part in found.items()} == {"joint": 40, "mask": 45, "gender": 50, "age": 60}  # fmt: skip
    wanted = reliability(probs, encode(labels, HEADS), 7)
    for left, right in zip(found["joint"], wanted):
        np.testing.assert_array_equal(left, right)
    wanted = reliability(marginals(probs, HEADS)["gender"], labels[:, 1], 7)
    for left, right in zip(found["gender"], wanted):
        np.testing.assert_array_equal(left, right)
    assert list(questions(probs, labels, FLAT)) == ["joint", *WARM]


def test_no_known_row_has_no_error():
    assert math.isnan(expected_calibration_error(np.full((2, 2), 0.5), np.array([-1, -1])))
    assert math.isnan(calibration_errors(np.zeros((0, 18)), np.zeros((0, 3), int), HEADS)["joint"])
    assert expected_calibration_error(np.array([[1 + 1e-7, -1e-7]]), np.array([0])) == pytest.approx(0, abs=1e-6)


# ---- refusals


@pytest.mark.parametrize(
    ("temperatures", "message"),
    [
        (
            {"aeg": 2.0},
            r"temperatures name 'aeg'; expected some of the heads \['mask', 'gender', 'age'\]; did you mean",
        ),
        ({"age": 0.0}, "temperatures: age is 0.0; expected a number > 0"),
        ({"age": -1.0}, "temperatures: age is -1.0"),
        ({"age": math.inf}, "temperatures: age is inf"),
        ({"age": math.nan}, "temperatures: age is nan"),
    ],
)
def test_temperatures_refused(temperatures, message):
    for call in (lambda: check_temperatures(temperatures, HEADS), lambda: apply_temperatures(any_joint(), temperatures, HEADS)):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize(
    ("probs", "labels", "message"),
    [
        (np.full((2, 17), 1 / 17), np.zeros((2, 3), int), r"probs have shape \(2, 17\); expected \(2, 18\)"),
        (np.full((3, 18), 1 / 18), np.zeros((2, 3), int), r"probs have shape \(3, 18\); expected \(2, 18\)"),
        (np.full((2, 18), 1 / 18), np.zeros((2, 2), int), r"labels have shape \(2, 2\)"),
        ("a model", np.zeros((2, 3), int), r"probs are 'a model'; expected joint probabilities \(N, 18\), as scores.pr"),
        (np.full((2, 18), 1 / 18), np.array([[0, 0, 0], [0, 2, 0]]), "row 1: head 'gender' has label 2"),
        (np.vstack([np.full(18, 1 / 18), np.full(18, np.nan)]), np.zeros((2, 3), int), "row 1 of the probabilities is not finite"),
        (np.full((2, 18), 0.5), np.zeros((2, 3), int), "row 0 of the probabilities sums to .*; expected the softmax"),
        (np.vstack([np.full(18, 1 / 18), np.r_[1.5, -0.5, np.zeros(16)]]), np.zeros((2, 3), int), "row 1 of the prob"),
    ],
)  # fmt: skip
def test_what_is_no_distribution_is_refused(probs, labels, message):
    for call in (checked, fit_temperatures, reliabilities, calibration_errors):
        with pytest.raises(ValueError, match=message):
            call(probs, labels, HEADS)


def test_reliability_refuses():
    with pytest.raises(ValueError, match=r"probs have shape \(2, 3\) and labels \(3,\); expected \(N, C\) and \(N,\)"):
        reliability(np.zeros((2, 3)), np.zeros(3, int))
    with pytest.raises(ValueError, match="reliability: bins is 0; expected a number >= 1"):
        expected_calibration_error(np.full((2, 2), 0.5), np.zeros(2, int), 0)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 3.0])
def test_half_precision_is_tempered_in_single(temperature):
    probs, warm = product(logits_of(50, 3)).astype(np.float16), dict.fromkeys(WARM, temperature)
    wanted = apply_temperatures(probs.astype(np.float32), warm, HEADS)
    found = apply_temperatures(probs, warm, HEADS)
    assert found.dtype == np.float16 and np.isfinite(found).all()
    np.testing.assert_array_equal(found, wanted.astype(np.float16))
    for kind in (torch.float16, torch.bfloat16):
        given = torch.from_numpy(probs).to(kind)
        found = apply_temperatures(given, warm, HEADS)
        assert found.dtype == kind and torch.equal(found, apply_temperatures(given.float(), warm, HEADS).to(kind))


def test_labels_of_a_table_go_by_their_names():
    rng = np.random.default_rng(0)
    probs, labels = rng.dirichlet(np.ones(18), 60), decode(rng.integers(0, 18, 60), HEADS)
    table = pd.DataFrame(labels, columns=[head.name for head in HEADS])[["age", "mask", "gender"]]
    assert fit_temperatures(probs, table) == fit_temperatures(probs, labels)
