import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from multihead.heads import AGE, FLAT, GENDER, HEADS, MASK, Head, flat, size
from multihead.labels import encode, joint
from multihead.targets import Targets, band_rows, one_hot, products, smooth, targets, teach

PAIR = (Head("a", ("p", "q")), Head("b", ("r", "s", "t")))
FLAT_PAIR = (Head("a_b", tuple("uvwxyz"), parts=PAIR),)


def random_labels(count, unknown, seed=0, heads=HEADS):
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.integers(0, len(head.classes), count) for head in heads], 1)
    labels[rng.random(labels.shape) < unknown] = -1
    return torch.from_numpy(labels)


def close(found, wanted):
    torch.testing.assert_close(found, torch.as_tensor(wanted, dtype=torch.float32))


def made(labels, heads=PAIR):
    labels = torch.tensor(labels)
    parts = heads[0].parts or heads
    return Targets(heads, targets(labels, parts))


# ---- rows of labels


def test_targets_by_hand():
    rows = targets(torch.tensor([[1, -1], [0, 2]]), PAIR, smoothing=0.3)
    close(rows["a"], [[0.15, 0.85], [0.85, 0.15]])
    close(rows["b"], [[0.0, 0.0, 0.0], [0.1, 0.1, 0.8]])


@given(st.integers(0, 10**6), st.floats(0, 0.9))
def test_a_known_row_has_mass_one_and_an_unknown_row_none(seed, smoothing):
    labels = random_labels(12, 0.4, seed)
    rows = targets(labels, HEADS, smoothing)
    for column, head in enumerate(HEADS):
        close(rows[head.name].sum(1), (labels[:, column] >= 0).float())
    known = labels.ge(0).all(1)
    close(targets(labels, FLAT, smoothing)["mask_gender_age"].sum(1), known.float())


def test_a_flat_row_is_the_product_of_its_parts():
    labels = random_labels(30, 0.2)
    parts, whole = targets(labels, HEADS, 0.1), targets(labels, FLAT, 0.1)["mask_gender_age"]
    for row in range(30):
        product = [m * g * a for m in parts["mask"][row] for g in parts["gender"][row] for a in parts["age"][row]]
        close(whole[row], torch.stack(product))
    close(whole, joint(parts, HEADS))
    plain, codes = targets(labels, FLAT)["mask_gender_age"], encode(labels)
    close(plain, F.one_hot(codes.clamp(min=0), size(HEADS)).float() * (codes >= 0)[:, None])


def test_one_hot_smooth_and_products_by_hand():
    rows = one_hot(torch.tensor([1, -1]), PAIR[1])
    close(rows, [[0, 1, 0], [0, 0, 0]])
    close(smooth(rows * 0.5, 0.3), [[0.05, 0.4, 0.05], [0, 0, 0]])  # the mass stays
    found = products({"a": torch.tensor([[0.25, 0.75]]), "b": torch.tensor([[0.5, 0.5, 0.0]])}, FLAT_PAIR)
    assert list(found) == ["a_b"]
    close(found["a_b"], [[0.125, 0.125, 0, 0.375, 0.375, 0]])


# ---- bands of a number


def test_band_rows_by_hand():
    years, label = np.array([29.0, 30.0, 60.0, np.nan, np.nan]), np.array([0, 1, 2, 2, -1])
    close(band_rows(years, label, AGE), [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0]])


def test_bands_of_training_take_the_place_of_the_heads_own():
    years, label = np.array([57.0, 58.0, np.nan]), np.array([1, 1, 1])
    close(band_rows(years, label, AGE, edges=(30, 58)), [[0, 1, 0], [0, 0, 1], [0, 1, 0]])


def test_drop_zones_take_both_ends_and_spare_rows_that_know_only_their_band():
    years, label = np.array([27.0, 28.0, 30.0, 30.5, 59.0, np.nan]), np.array([0, 0, 1, 1, 1, 1])
    rows = band_rows(years, label, AGE, drop=((28, 30), (58, 61)))
    close(rows, [[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 1, 0]])
    assert band_rows(years, label, AGE, drop=((28, 30),), width=5.0)[1:3].sum() == 0


def test_soft_bands_are_the_integrals_of_a_gaussian():
    years, width = np.array([3.0, 29.0, 30.0, 44.25, 59.0, 100.0]), 4.0
    rows = band_rows(years, np.zeros(6, int), AGE, width=width)
    for row, middle in zip(rows, [3.5, 29.5, 30.5, 44.25, 59.5, 100.5]):  # a whole year stands for its middle
        density = norm(middle, width).pdf
        reach = (middle - 60, middle + 60)
        bounds = [min(reach[0], 0), 30, 60, max(reach[1], 61)]
        wanted = [
            quad(density, low, high, points=[np.clip(middle, low, high)])[0] for low, high in zip(bounds, bounds[1:])
        ]
        np.testing.assert_allclose(row.numpy(), wanted, atol=1e-6)


def test_soft_bands_leave_a_known_band_as_it_is():
    rows = band_rows(np.array([np.nan, np.nan, 30.0]), np.array([1, -1, 1]), AGE, width=6.0)
    close(rows[:2], [[0, 1, 0], [0, 0, 0]])
    assert 0.4 < float(rows[2, 0]) < 0.5


@given(st.lists(st.integers(0, 1100), min_size=1, max_size=8), st.floats(0.1, 20))
def test_soft_bands_sum_to_one_and_age_with_the_years(tenths, width):
    ages = np.sort(tenths) / 10 + 0.05  # none is a whole year
    rows = band_rows(ages, np.zeros(len(ages), int), AGE, width=width)
    close(rows.sum(1), torch.ones(len(ages)))
    older = rows[:, 1:].flip(1).cumsum(1)  # the share at or above each edge
    assert bool((older[1:] >= older[:-1] - 1e-6).all())


def test_a_narrow_gaussian_is_the_band():
    years = np.array([5.0, 29.0, 30.0, 59.0, 60.0])
    close(band_rows(years, np.zeros(5, int), AGE, width=0.01), band_rows(years, np.zeros(5, int), AGE))


def test_bands_need_as_many_edges_as_the_head_has():
    for head, edges in ((AGE, (30,)), (HEADS[0], None)):
        with pytest.raises(ValueError, match=f"head '{head.name}' has 3 classes; got the edges"):
            band_rows(np.array([1.0]), np.array([0]), head, edges=edges)


# ---- the rows of all photos


def test_a_batch_is_its_photos_rows():
    labels = random_labels(10, 0.3)
    picked = torch.tensor([7, 2, 2])
    for heads in (HEADS, FLAT):
        table = Targets(heads, targets(labels, HEADS))
        found, wanted = table.batch(picked), targets(labels[picked], heads)
        assert list(found) == list(wanted)
        for name in found:
            close(found[name], wanted[name])


@pytest.mark.parametrize("heads", [HEADS, FLAT], ids=["heads", "flat"])
def test_a_drawn_mask_is_a_new_label(heads):
    labels = random_labels(10, 0.2)
    table = Targets(heads, targets(labels, HEADS))
    before = {name: rows.clone() for name, rows in table.rows.items()}
    picked, drawn = torch.tensor([7, 2, 0, 1]), torch.tensor([-1, 1, 0, -1])
    changed = labels[picked]
    changed[1, 0], changed[2, 0] = 1, 0
    found, wanted = table.batch(picked, drawn), targets(changed, heads)
    for name in wanted:
        close(found[name], wanted[name])
    assert all(torch.equal(table.rows[name], rows) for name, rows in before.items())
    nothing = table.batch(picked, torch.full((4,), -1))
    assert all(torch.equal(rows, nothing[name]) for name, rows in table.batch(picked).items())


def test_a_drawn_mask_takes_the_place_of_a_teachers_joint_row():
    table = teach(made([[0, 1], [1, 2]], FLAT_PAIR), np.full((2, 6), 1 / 6), 0.5)
    found = table.batch(torch.tensor([0, 1]), torch.tensor([-1, 0]), masked="a")["a_b"]
    close(found[0], table.taught["a_b"][0])
    close(found[1], [1 / 6, 1 / 6, 4 / 6, 0, 0, 0])  # a is 0 for sure, b as taught


def test_a_drawn_mask_leaves_what_the_teacher_thinks_of_the_others():
    answers = np.zeros((1, 3, 2, 3))
    answers[0, 2, 0, 0] = answers[0, 1, 1, 2] = 0.5
    labels, drawn = torch.tensor([[2, -1, -1]]), torch.tensor([0])
    wanted = np.zeros((2, 3))
    wanted[0, 0] = wanted[1, 2] = 0.5
    apart = (MASK, *flat((GENDER, AGE)))
    found = teach(Targets(apart, targets(labels, HEADS)), answers.reshape(1, 18), 1.0).batch(torch.tensor([0]), drawn)
    close(found["gender_age"][0], wanted.ravel())
    close(found["mask"], [[1, 0, 0]])
    whole = teach(Targets(FLAT, targets(labels, HEADS)), answers.reshape(1, 18), 1.0).batch(torch.tensor([0]), drawn)
    close(whole["mask_gender_age"][0], np.concatenate([wanted.ravel(), np.zeros(12)]))


@pytest.mark.parametrize("least", [0, 1e-38, 1e-32, 1e-30])
def test_a_teacher_that_is_all_but_sure_takes_no_mass(least):
    answers = np.array([[least, least, least, 0.2, 0.3, 0.5]])
    for share in (0.3, 1.0):
        close(teach(made([[0, -1]], FLAT_PAIR), answers, share).batch(torch.arange(1))["a_b"].sum(1), [1])


def test_mass_by_hand():
    table = made([[0, 1], [0, -1], [1, 1]])
    mass = table.mass(np.array([0, 1, 1]))
    close(mass["a"], [3, 0])
    close(mass["b"], [0, 1, 0])
    close(made([[0, 1], [0, -1], [1, 1]], FLAT_PAIR).mass(np.arange(3))["a_b"], [0, 1, 0, 0, 1, 0])


def test_targets_move_whole():
    table = teach(made([[0, 1]], FLAT_PAIR), np.full((1, 6), 1 / 6), 0.5)
    moved = table.to(torch.device("meta"))
    assert moved.taught["a_b"].is_meta and all(rows.is_meta for rows in moved.rows.values())
    assert moved.heads == table.heads
    assert made([[0, 1]]).to(torch.device("cpu")).taught == {}


# ---- a teacher

# a: (.3, .7); b: (.25, .35, .4); no product of the two
TEACHER = np.array([[0.1, 0.1, 0.1, 0.15, 0.25, 0.3]])


def test_a_known_label_keeps_its_share_and_an_unknown_one_takes_the_teachers_row():
    table = teach(made([[0, -1]]), TEACHER, 0.4)
    close(table.rows["a"], [[0.6 + 0.4 * 0.3, 0.4 * 0.7]])
    close(table.rows["b"], [[0.25, 0.35, 0.4]])
    assert table.taught == {}


def test_a_photo_without_a_teacher_keeps_its_labels():
    before = made([[0, -1], [1, 2]])
    table = teach(before, np.full((2, 6), np.nan), 0.4)
    for name in ("a", "b"):
        assert torch.equal(table.rows[name], before.rows[name])


def test_a_flat_head_learns_what_the_teacher_thinks_of_the_unknown_given_the_known():
    answers = np.concatenate([TEACHER, TEACHER, TEACHER, np.full((2, 6), np.nan), [[0, 0, 0, 0, 0.5, 0.5]]])
    labels = [[0, 1], [1, -1], [-1, -1], [1, 2], [-1, 2], [0, -1]]
    found = teach(made(labels, FLAT_PAIR), answers, 0.4).batch(torch.arange(6))["a_b"]
    close(found[0], 0.6 * np.eye(6)[1] + 0.4 * TEACHER[0])
    close(found[1], 0.6 * np.array([0, 0, 0, 0.15, 0.25, 0.3]) / 0.7 + 0.4 * TEACHER[0])
    close(found[2], TEACHER[0])
    close(found[3:5], np.stack([np.eye(6)[5], np.zeros(6)]))
    close(found[5], [0, 0.3, 0.3, 0, 0.2, 0.2])  # it holds a = 0 impossible


@given(st.integers(0, 10**6), st.floats(0, 1))
@settings(deadline=None)
def test_a_table_with_flat_heads_among_others_is_taught(seed, share):
    """Against loops over classes: each flat head by the teacher's own joint answer for its parts."""
    labels, rng = random_labels(8, 0.4, seed), np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(18), 8)
    heads = (*flat((MASK, GENDER)), AGE)
    table = teach(Targets(heads, targets(labels, HEADS)), probs, share).batch(torch.arange(8))
    for row, (mask, gender, age) in enumerate(labels.tolist()):
        joint = probs[row].reshape(3, 2, 3).sum(2)
        given = joint.copy()
        for axis, known in enumerate((mask, gender)):
            if known >= 0:
                given = given * (np.arange(given.shape[axis]) == known).reshape((-1, 1) if axis == 0 else (1, -1))
        wanted = (1 - share) * given / given.sum() + share * joint
        close(table["mask_gender"][row], wanted.ravel())
        years = probs[row].reshape(6, 3).sum(0)
        close(table["age"][row], years if age < 0 else (1 - share) * np.eye(3)[age] + share * years)


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_taught_rows_have_mass_one(seed, share):
    labels, rng = random_labels(8, 0.4, seed), np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(18), 8)
    for heads in (HEADS, FLAT):
        table = teach(Targets(heads, targets(labels, HEADS)), probs, share)
        for rows in table.batch(torch.arange(8)).values():
            close(rows.sum(1), torch.ones(8))


def test_a_teacher_of_another_space_is_refused():
    with pytest.raises(ValueError, match=r"shape \(1, 5\); expected \(N, 6\)"):
        teach(made([[0, 1]]), np.full((1, 5), 0.2), 0.5)


@pytest.mark.parametrize("edges", [(25, 50), (30, 60), (20, 70)])
def test_soft_bands_are_those_of_the_edges_that_train(edges):
    years = np.array([24.0, 31.0, 49.5, 66.0])
    middle = np.where(years % 1 == 0, years + 0.5, years)
    below = [norm.cdf(edge, middle, 2.0) for edge in edges]
    zero = norm.cdf(0, middle, 2.0)
    wanted = np.stack([below[0] - zero, below[1] - below[0], 1 - below[1]], 1)
    found = band_rows(years, np.full(4, -1), AGE, edges=edges, width=2.0)
    np.testing.assert_allclose(found, wanted / wanted.sum(1, keepdims=True), atol=1e-4)
