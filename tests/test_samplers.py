import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multihead.heads import FLAT, HEADS
from multihead.labels import encode
from multihead.samplers import Shares, Weighted, draw, row_weights

# three men, one woman, one unknown; masks and ages all known
LABELS = np.array([[0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 1, 0], [0, -1, 0]])
SOURCES = ["a", "a", "a", "b", "c"]


def test_weighted_by_a_head_by_hand():
    weights = row_weights(Weighted("gender"), LABELS, HEADS, SOURCES)
    np.testing.assert_allclose(weights, [0.4 / 3, 0.4 / 3, 0.4 / 3, 0.4, 0.2])


def test_weighted_by_the_joint_class_by_hand():
    weights = row_weights(Weighted(), LABELS, HEADS, SOURCES)  # classes of 2, 1 and 1 known rows
    np.testing.assert_allclose(weights, [0.8 / 6, 0.8 / 6, 0.8 / 3, 0.8 / 3, 0.2])
    np.testing.assert_array_equal(row_weights(Weighted(), LABELS, FLAT, SOURCES), weights)


def test_half_the_power_is_between():
    weights = row_weights(Weighted("gender", 0.5), LABELS, HEADS, SOURCES)
    assert weights[3] / weights[0] == pytest.approx(3**0.5)


def test_power_zero_changes_nothing():
    np.testing.assert_allclose(row_weights(Weighted(power=0), LABELS, HEADS, SOURCES), np.full(5, 0.2))


def test_where_no_class_is_known_there_is_nothing_to_even_out():
    labels = np.array([(0, -1, -1), (-1, 1, -1)])  # masks of one source, genders of another
    with pytest.raises(ValueError, match="weighted: nothing says all of mask, gender, age of any one training photo"):
        row_weights(Weighted(), labels, HEADS, SOURCES[:2])
    with pytest.raises(ValueError, match="nothing says age of any training photo; expected by to be joint or one of"):
        row_weights(Weighted("age"), labels, HEADS, SOURCES[:2])
    np.testing.assert_allclose(row_weights(Weighted("mask"), labels, HEADS, SOURCES[:2]), [0.5, 0.5])
    assert row_weights(Weighted(), labels[:0], HEADS, []).shape == (0,)


@given(st.integers(0, 10**6), st.sampled_from(["joint", "mask", "gender", "age"]))
def test_classes_become_even_and_unknown_rows_keep_their_share(seed, by):
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.integers(-1, len(head.classes), 40) for head in HEADS], 1)
    weights = row_weights(Weighted(by), labels, HEADS, [""] * 40)
    names = [head.name for head in HEADS]
    classes = encode(labels) if by == "joint" else labels[:, names.index(by)]
    unknown = (classes == -1).mean()
    assert weights[classes == -1].sum() == pytest.approx(unknown)
    present = [weights[classes == one].sum() for one in set(classes.tolist()) - {-1}]
    np.testing.assert_allclose(present, np.full(len(present), (1 - unknown) / max(1, len(present))))


def test_shares_by_hand():
    weights = row_weights(Shares({"a": 0.6}), LABELS, HEADS, SOURCES)
    np.testing.assert_allclose(weights, [0.2, 0.2, 0.2, 0.2, 0.2])
    weights = row_weights(Shares({"a": 0.3, "b": 0.7}), LABELS, HEADS, SOURCES)
    np.testing.assert_allclose(weights, [0.1, 0.1, 0.1, 0.7, 0.0], atol=1e-12)
    weights = row_weights(Shares({"b": 0.2}), LABELS, HEADS, SOURCES)  # a and c by their size
    np.testing.assert_allclose(weights, [0.2, 0.2, 0.2, 0.2, 0.2])


def test_a_source_without_a_share_is_never_drawn():
    rng = np.random.default_rng(0)
    weights = row_weights(Shares({"a": 0.5, "b": 0.5, "c": 0.0}), LABELS, HEADS, SOURCES)
    assert all(4 not in draw(weights, 7, rng) for _ in range(50))


def test_shares_that_sum_a_rounding_above_one_give_no_negative_weight():
    weights = row_weights(Shares({"a": 0.5, "b": 0.5 + 5e-10}), LABELS, HEADS, SOURCES)
    assert (weights >= 0).all()


@given(st.integers(0, 10**6), st.integers(1, 200))
def test_draw_gives_each_row_its_expectation_within_one(seed, count):
    rng = np.random.default_rng(seed)
    weights = rng.random(12) ** 3 * (rng.random(12) < 0.8) + 1e-6
    expected = count * weights / weights.sum()
    found = np.bincount(draw(weights, count, rng), minlength=12)
    assert found.sum() == count and (abs(found - expected) < 1 + 1e-6).all()


def test_draw_on_average_is_what_the_weights_say():
    rng = np.random.default_rng(0)
    weights = np.array([0.05, 0.15, 0.3, 0.5])
    found = sum(np.bincount(draw(weights, 3, rng), minlength=4) for _ in range(3000)) / 9000
    np.testing.assert_allclose(found, weights, atol=0.02)


def test_draw_of_even_weights_is_a_shuffle_that_follows_the_seed():
    one, again, other = (draw(np.full(20, 0.05), 20, np.random.default_rng(seed)).tolist() for seed in (1, 1, 2))
    assert sorted(one) == sorted(other) == list(range(20))
    assert one == again != other and one != sorted(one)


def test_draw_spreads_a_row_that_comes_often_over_the_epoch():
    """Not its copies side by side, in one batch."""
    drawn = draw(np.array([0.5, *[0.01] * 50]), 100, np.random.default_rng(0))
    batches = [(part == 0).sum() for part in np.split(drawn, 10)]
    assert sum(batches) == 50 and max(batches) < 10 and min(batches) > 0


def test_draw_takes_neighbours_of_a_table_no_more_often_apart_than_others():
    """Rows with half a photo each: any two may come together, those that stand side by side too."""
    rng = np.random.default_rng(0)
    drawn = [set(draw(np.full(6, 1 / 6), 3, rng).tolist()) for _ in range(400)]
    both = [sum({0, other} <= rows for rows in drawn) for other in range(1, 6)]
    assert min(both) > 40 and max(both) < 130  # a fifth of 400 is 80


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Weighted(power=-1), "power"),
        (lambda: Shares(), "expected {source: share >= 0}"),
        (lambda: Shares({"web": float("nan")}), r"shares: {'web': nan}; expected {source: share >= 0}"),
        (lambda: Shares({"web": "half"}), r"shares: {'web': 'half'}; expected {source: share >= 0}"),
        (lambda: Shares(["web"]), r"shares: \['web'\]; expected {source: share >= 0}"),
        (lambda: Shares({}), "expected {source: share >= 0}"),
        (lambda: Shares({"a": -0.1}), "together at most 1"),
        (lambda: Shares({"a": 0.6, "b": 0.6}), "together at most 1"),
        (lambda: row_weights(Weighted("colour"), LABELS, HEADS, SOURCES), "'colour'; expected joint or one of mask"),
        (lambda: row_weights(Shares({"d": 0.5}), LABELS, HEADS, SOURCES), r"of source \['d'\]; there are \['a', 'b'"),
        (
            lambda: row_weights(Shares({"a": 0.5, "b": 0.2, "c": 0.1}), LABELS, HEADS, SOURCES),
            "sum to 0.8 and name every source; expected 1",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
