import numpy as np
import pytest

from multihead.calibrate import apply_temperatures, fit_temperatures
from multihead.decoding import fit_joint_weights, fit_prior_weights, fit_weights, reweight
from multihead.heads import FLAT, HEADS, Head
from multihead.labels import decode, encode, joint, marginals
from multihead.metrics import score
from multihead.nested import held_out, nested_calibration, nested_gain
from multihead.paired import compare, number_people
from multihead.splits import deal

SMILE = (Head("smile", ("no", "yes")),)


def noise(people=60, photos=5, seed=0):
    """(probabilities that know nothing, labels (N, 3), groups (N,)): one label in all photos of a person."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(decode(rng.integers(0, 18, people), HEADS), photos, 0)
    parts = {head.name: rng.dirichlet(np.ones(len(head.classes)), people * photos) for head in HEADS}
    return joint(parts, HEADS), labels, np.repeat(rng.permutation(people), photos)


def timid(people=400, photos=3, seed=0, shift=2.0):
    """A model that knows something of each head, and is too shy of the rare classes by a factor."""
    rng, labels, parts = np.random.default_rng(seed), [], {}
    for head in HEADS:
        share = np.array([0.7, 0.2, 0.1])[: len(head.classes)]
        truth = np.repeat(rng.choice(len(share), people, p=share / share.sum()), photos)
        logits = 2.5 * np.eye(len(share))[truth] + rng.normal(0, 1, (people * photos, len(share)))
        logits[:, 0] += shift
        parts[head.name] = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        labels.append(truth)
    return joint(parts, HEADS), np.stack(labels, 1), np.repeat(np.arange(people), photos)


def gain(frame, metric="macro_f1"):
    return frame[(frame.arm == "fitted") & (frame.metric == metric)].iloc[0]


@pytest.mark.parametrize(
    ("fit", "metric"), [(fit_weights, "age_f1"), (fit_joint_weights, "macro_f1")], ids=["heads", "joint"]
)
def test_noise_gains_nothing_though_its_own_rows_say_so(fit, metric):
    probs, labels, groups = noise()
    arms = {"argmax": [probs], "fitted": [reweight(probs, fit(probs, labels, HEADS))]}
    flattering = gain(compare(arms, labels, groups, HEADS, resamples=10), metric).difference
    honest = gain(nested_gain(probs, labels, groups, HEADS, fit, resamples=500), metric)
    assert flattering > 0.02
    assert honest.low <= 0 <= honest.high and honest.difference < flattering / 2


def test_what_is_there_to_gain_is_gained():
    probs, labels, groups = timid()
    frame = nested_gain(probs, labels, groups, HEADS, resamples=300)
    found = gain(frame)
    assert found.low > 0.05 and found.people == 400 and found.rows == 1200
    assert set(frame.arm) == {"argmax", "fitted"}
    assert set(frame.metric) == {"macro_f1", "mask_f1", "gender_f1", "age_f1"}
    plain = frame[(frame.arm == "argmax") & (frame.metric == "macro_f1")].iloc[0]
    assert plain["mean"] == pytest.approx(score(probs, labels, HEADS).f1) and plain.difference == 0
    again = nested_gain(probs, labels, groups, FLAT, resamples=300)
    assert gain(again).difference == pytest.approx(found.difference)
    assert gain(nested_gain(probs, labels, groups, HEADS, fit_prior_weights, resamples=300)).low > 0.05


def test_each_person_is_corrected_by_the_others_only():
    probs, labels, groups = timid(20)
    asked = []

    def correct(seen, told, rows):
        asked.append((seen, told, rows))
        return reweight(rows, fit_weights(seen, told, HEADS))

    found = held_out(probs, labels, groups, correct, folds=4, seed=3)
    fold = deal(groups, labels, [0.25] * 4, 3)
    for number, (seen, told, rows) in enumerate(asked):
        here = fold == number
        assert not set(groups[here]) & set(groups[~here]) and here.any()
        assert (rows == probs[here]).all() and (seen == probs[~here]).all() and (told == labels[~here]).all()
        np.testing.assert_allclose(found[here], reweight(probs[here], fit_weights(seen, told, HEADS)))
    assert len(asked) == 4


def test_unknown_people_are_people_of_their_own():
    probs, labels, groups = timid(12)
    groups = np.where(groups < 6, -1, groups * 10)
    labels[::5, 1] = -1
    found = held_out(probs, labels, groups, lambda s, t, r: r, folds=6)
    np.testing.assert_array_equal(found, probs)
    assert number_people(groups, np.ones(36, bool)).max() == 18 + 6 - 1
    assert gain(nested_gain(probs, labels, groups, HEADS, folds=6, resamples=20)).people <= 24


def test_calibration_of_other_people():
    probs, labels, groups = timid(shift=0.0)
    sure = apply_temperatures(probs, dict.fromkeys(("mask", "gender", "age"), 0.15), HEADS)
    rows = nested_calibration(sure, labels, groups, HEADS)
    assert [row["part"] for row in rows] == ["joint", "mask", "gender", "age"] and {row["n"] for row in rows} == {1200}
    flattering = apply_temperatures(sure, fit_temperatures(sure, labels, HEADS), HEADS)
    for row in rows:
        assert row["ece_after"] < row["ece"] and row["loss_after"] < row["loss"]
        if row["part"] != "joint":
            column = [head.name for head in HEADS].index(row["part"])
            told = marginals(flattering, HEADS)[row["part"]][np.arange(1200), labels[:, column]]
            assert row["loss_after"] == pytest.approx(-np.log(told).mean(), abs=0.01)
    told = sure[np.arange(1200), encode(labels, HEADS)]
    assert rows[0]["loss"] == pytest.approx(-np.log(told).mean())


def test_a_part_without_labels_is_nan():
    probs, labels, groups = timid(10)
    labels[:, 2] = -1
    rows = {row["part"]: row for row in nested_calibration(probs, labels, groups, HEADS)}
    assert np.isnan(rows["age"]["ece"]) and np.isnan(rows["joint"]["loss_after"]) and rows["age"]["n"] == 0
    assert rows["mask"]["n"] == 30 and np.isfinite(rows["mask"]["ece_after"])


def test_what_was_held_impossible_has_a_finite_loss():
    labels, groups = np.tile([[0], [1]], (10, 1)), np.arange(20)
    probs = np.eye(2)[np.where(np.arange(20) == 3, 0, labels[:, 0])]  # surely wrong once
    rows = nested_calibration(probs, labels, groups, SMILE)
    assert rows[0]["loss"] == pytest.approx(-np.log(np.finfo(np.float32).tiny) / 20)
    assert all(np.isfinite(row["loss_after"]) for row in rows)


def test_refusals():
    probs, labels, groups = timid(3)
    with pytest.raises(
        ValueError, match="nested: 3 people are too few; expected 5 or more, some of whom are left out in turn"
    ):
        nested_gain(probs, labels, groups, HEADS)
    with pytest.raises(ValueError, match="nested: folds is 1; expected a number >= 2"):
        nested_calibration(probs, labels, groups, HEADS, folds=1)
    with pytest.raises(ValueError, match=r"groups have shape \(8,\), the answers 9 rows"):
        nested_gain(probs, labels, groups[:8], HEADS, folds=2)
    with pytest.raises(ValueError, match=r"probs have shape \(8, 18\); expected \(9, 18\)"):
        nested_gain(probs[:8], labels, groups, HEADS)
