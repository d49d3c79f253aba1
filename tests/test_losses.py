import subprocess
import sys
from functools import reduce

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score
from sklearn.utils.class_weight import compute_class_weight

from multihead.criteria import criterion
from multihead.heads import AGE, FLAT, GENDER, HEADS, MASK, Head, flat
from multihead.losses import (
    CrossEntropy,
    Custom,
    Focal,
    Ordinal,
    SoftF1,
    Sum,
    SymmetricCrossEntropy,
    per_head,
)
from multihead.targets import band_rows

FOUR = Head("four", ("a", "b", "c", "d"))
COUNTS = np.array([100.0, 10.0, 1.0, 4.0])


def own(logits, rows):
    """Cross-entropy of each photo, as a user may write it."""
    return F.cross_entropy(logits, rows, reduction="none")


EVERY = [
    Custom(own),
    CrossEntropy(),
    CrossEntropy((3.0, 1.0, 0.0, 2.0), smoothing=0.1),
    CrossEntropy("inverse"),
    Focal(),
    Focal(0.5, "effective", 0.2),
    SoftF1(),
    SymmetricCrossEntropy(),
    SymmetricCrossEntropy(0.5, 0.3, "effective"),
    Ordinal(),
    Ordinal(0.4, SoftF1()),
    Sum((SoftF1(), Focal()), (0.4, 0.6)),
    Ordinal(0.3, Sum((CrossEntropy("inverse"), SymmetricCrossEntropy()), (2.0, 0.5))),
]


def loss_of(loss, logits, rows, head=FOUR, counts=COUNTS):
    counts = counts if len(counts) == len(head.classes) else np.ones(len(head.classes))
    return criterion(loss, head, counts)(logits, rows)


def logits_of(count, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, classes, generator=generator, dtype=torch.float64) * 2


def rows_of(count, classes=4, seed=0):
    """Soft rows with masses from 0 to 1, every third row unknown."""
    rng = np.random.default_rng(seed)
    mass = rng.random(count) * (np.arange(count) % 3 > 0)
    return torch.from_numpy(rng.dirichlet(np.ones(classes), count) * mass[:, None])


def hot(labels, classes=4):
    labels = torch.as_tensor(labels)
    return F.one_hot(labels.clamp(min=0), classes).double() * (labels >= 0)[:, None]


def labels_of(count, seed=0, classes=4):
    return np.random.default_rng(seed).integers(0, classes, count)


# ---- by hand: logits are the logs of easy probabilities


def test_cross_entropy_by_hand():
    logits = torch.tensor([[0.25, 0.75], [0.5, 0.5], [9.0, 1.0]]).log()
    rows = torch.tensor([[0.0, 1.0], [0.25, 0.25], [0.0, 0.0]])  # masses 1, a half, 0
    found = loss_of(CrossEntropy(), logits, rows, GENDER)
    assert found.item() == pytest.approx((-np.log(0.75) - 0.5 * np.log(0.5)) / 1.5)
    weighted = loss_of(CrossEntropy((1.0, 3.0)), logits, rows, GENDER)
    assert weighted.item() == pytest.approx((-3 * np.log(0.75) - (0.25 + 0.75) * np.log(0.5)) / 4)
    smoothed = loss_of(CrossEntropy(smoothing=0.2), logits[:1], rows[:1], GENDER)
    assert smoothed.item() == pytest.approx(-0.9 * np.log(0.75) - 0.1 * np.log(0.25))


def test_focal_by_hand():
    logits, rows = torch.tensor([[0.25, 0.75]]).log(), torch.tensor([[0.0, 0.3]])
    assert loss_of(Focal(2.0), logits, rows, GENDER).item() == pytest.approx(-(0.25**2) * np.log(0.75))
    assert loss_of(Focal(0.0), logits, rows, GENDER).item() == pytest.approx(-np.log(0.75))


def test_soft_f1_by_hand():
    logits = torch.tensor([[0.8, 0.1, 0.1], [0.4, 0.6, 0.0 + 1e-30], [1 / 3, 1 / 3, 1 / 3]]).log()
    rows = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    first, second = 2 * 0.8 / (1 + 0.8 + 0.4), 2 * 0.6 / (1 + 0.1 + 0.6)  # the third class is not in the batch
    assert loss_of(SoftF1(), logits, rows, MASK).item() == pytest.approx(1 - (first + second) / 2)


@pytest.mark.parametrize("smoothing", [0.0, 0.01, 0.1, 0.5])
def test_soft_f1_leaves_classes_out_that_only_smoothing_holds(smoothing):
    """Good answers on a batch without the last class; its F1 would be 0 however good they are."""
    logits, rows = 20 * hot([0, 0, 1, 1], 3), hot([0, 0, 1, 1], 3)
    found = loss_of(SoftF1(), logits, (1 - smoothing) * rows + smoothing / 3, AGE, np.ones(3)).item()
    met, held = 2 * (1 - smoothing * 2 / 3), 2 * (1 - smoothing) + 4 * smoothing / 3
    assert found == pytest.approx(1 - 2 * met / (held + 2), abs=1e-3)
    whole = hot([0, 0, 1, 1, 2], 3)
    missed = loss_of(SoftF1(), 20 * hot([0, 0, 1, 1, 0], 3), (1 - smoothing) * whole + smoothing / 3, AGE, np.ones(3))
    assert missed > found + 0.1  # where there is such a photo it counts


@given(st.data())
def test_the_parts_of_a_step_sum_to_its_loss_and_gradient(data):
    """However its rows are divided, known or not, and however classes weigh."""
    loss = data.draw(st.sampled_from([
        CrossEntropy("inverse", 0.1), Focal(1.5, (1.0, 0.0, 2.0, 5.0)), SymmetricCrossEntropy(), Ordinal(0.3),
        Sum((CrossEntropy("effective"), Focal()), (0.3, 2.0)),
    ]))  # fmt: skip
    count = data.draw(st.integers(1, 12))
    seeded = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    logits = torch.randn(count, 4, generator=seeded, dtype=torch.float64, requires_grad=True)
    rows = torch.rand(count, 4, generator=seeded, dtype=torch.float64) * (torch.rand(count, 1, generator=seeded) < 0.6)
    head_loss = criterion(loss, FOUR, COUNTS, 0.05)
    (whole,) = torch.autograd.grad(head_loss(logits, rows), logits)
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=3)))
    places = list(zip([0, *cuts], [*cuts, count]))
    mass = sum(head_loss.mass(rows[start:stop]) for start, stop in places)
    torch.testing.assert_close(mass, head_loss.mass(rows))
    parts = sum(head_loss(logits[start:stop], rows[start:stop], mass) for start, stop in places)
    torch.testing.assert_close(parts, head_loss(logits, rows))
    torch.testing.assert_close(torch.autograd.grad(parts, logits)[0], whole)


def test_soft_f1_counts_halves():
    """Two classes mixed half and half are both there."""
    rows = torch.full((4, 2), 0.5)
    assert loss_of(SoftF1(), torch.zeros(4, 2), rows, GENDER, np.ones(2)).item() == pytest.approx(0.5)


def test_what_weighs_nothing_has_no_mass():
    never = criterion(CrossEntropy((0.0, 1.0, 1.0)), MASK, np.ones(3))
    assert never.mass(hot([0, 0], 3)) == 0 and never.mass(hot([0, 1], 3)) == 1


def test_a_part_counts_in_soft_f1_by_its_mass():
    logits, rows = logits_of(6), hot([0, 1, 1, 0, 2, 3])
    head_loss = criterion(SoftF1(), FOUR, COUNTS)
    mass = head_loss.mass(rows)
    parts = [head_loss(logits[:4], rows[:4]) * 4 / 6, head_loss(logits[4:], rows[4:]) * 2 / 6]
    found = head_loss(logits[:4], rows[:4], mass) + head_loss(logits[4:], rows[4:], mass)
    assert found.item() == pytest.approx(sum(parts).item())


def test_symmetric_cross_entropy_by_hand():
    logits, rows = torch.tensor([[0.25, 0.75]]).log(), torch.tensor([[0.0, 0.4]])
    wanted = -0.1 * np.log(0.75) - 1.0 * 0.25 * np.log(1e-4)
    assert loss_of(SymmetricCrossEntropy(), logits, rows, GENDER).item() == pytest.approx(wanted)


def test_ordinal_by_hand():
    probs = np.array([0.1, 0.2, 0.3, 0.4])
    logits = torch.from_numpy(probs).log()[None]
    shared = np.array([[0.8, 0.2, 0, 0], [0.2, 0.6, 0.2, 0], [0, 0.2, 0.6, 0.2], [0, 0, 0.2, 0.8]])  # ends keep more
    for label in range(4):
        for loss, row in [
            (Ordinal(0.4), shared[label]),
            (Ordinal(0.4, CrossEntropy(smoothing=0.2)), 0.8 * shared[label] + 0.05),
            (Ordinal(0.4, Ordinal(0.4)), shared[label] @ shared),
        ]:
            assert loss_of(loss, logits, hot([label])).item() == pytest.approx(-(row * np.log(probs)).sum())


def test_sum_by_hand():
    logits, rows = logits_of(9), rows_of(9)
    parts = [loss_of(loss, logits, rows) for loss in (SoftF1(), Focal())]
    torch.testing.assert_close(
        loss_of(Sum((SoftF1(), Focal()), (0.4, 0.6)), logits, rows), 0.4 * parts[0] + 0.6 * parts[1]
    )
    nested = Sum((Sum((CrossEntropy(),), (3.0,)), SoftF1()), (2.0, 0.0))
    torch.testing.assert_close(loss_of(nested, logits, rows), 6 * loss_of(CrossEntropy(), logits, rows))


@pytest.mark.parametrize(
    ("word", "wanted"),
    [("inverse", [0.01, 0.1, 1, 0.25]), ("effective", [0.001 / (1 - 0.999**n) for n in (100, 10, 1, 4)])],
)
def test_weights_of_a_word_by_hand(word, wanted):
    logits, rows = logits_of(20), rows_of(20)
    torch.testing.assert_close(
        loss_of(CrossEntropy(word), logits, rows), loss_of(CrossEntropy(tuple(wanted)), logits, rows)
    )


# ---- against torch, scikit-learn and loops


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("unknown", [0.0, 0.3])
def test_cross_entropy_agrees_with_torch(smoothing, unknown):
    labels, logits = labels_of(40), logits_of(40).requires_grad_()
    labels[np.random.default_rng(1).random(40) < unknown] = -1
    found = loss_of(CrossEntropy(smoothing=smoothing), logits, hot(labels))
    wanted = F.cross_entropy(logits, torch.from_numpy(labels), ignore_index=-1, label_smoothing=smoothing)
    torch.testing.assert_close(found, wanted)
    ours, theirs = (torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (found, wanted))
    torch.testing.assert_close(ours, theirs)


def test_class_weights_agree_with_torch():
    labels, logits = labels_of(40), logits_of(40)
    labels[::7] = -1
    wanted = F.cross_entropy(
        logits, torch.from_numpy(labels), torch.tensor([3.0, 1.0, 0.5, 2.0]).double(), ignore_index=-1
    )
    torch.testing.assert_close(loss_of(CrossEntropy((3.0, 1.0, 0.5, 2.0)), logits, hot(labels)), wanted)


def test_cross_entropy_agrees_with_torch_on_mixed_rows():
    logits, rows = logits_of(20), rows_of(20)
    q, mass = rows / rows.sum(1, keepdim=True).clamp(min=1e-12), rows.sum(1)
    wanted = (F.cross_entropy(logits, q, reduction="none") * mass).sum() / mass.sum()
    torch.testing.assert_close(loss_of(CrossEntropy(), logits, rows), wanted)


def loops(loss, logits, rows, weights):
    """Focal and symmetric cross-entropy, photo by photo and class by class; weights are shares of a photo's row."""
    top, bottom = 0.0, 0.0
    for logit, row in zip(logits.numpy(), rows.numpy()):
        row = row * weights
        mass = row.sum()
        if mass == 0:
            continue
        p = np.exp(logit) / np.exp(logit).sum()
        value = 0.0
        for c, share in enumerate(row / mass):
            if isinstance(loss, Focal):
                share = share * (1 - loss.smoothing) + loss.smoothing / len(row)
                value += share * (1 - p[c]) ** loss.gamma * -np.log(p[c])
            else:
                value += loss.alpha * share * -np.log(p[c]) + loss.beta * p[c] * -np.log(max(share, 1e-4))
        top, bottom = top + mass * value, bottom + mass
    return top / bottom


@pytest.mark.parametrize("weights", [None, (3.0, 1.0, 0.0, 2.0)])
@pytest.mark.parametrize(
    "kind", [lambda w: Focal(2.0, w), lambda w: Focal(0.7, w, 0.1), lambda w: SymmetricCrossEntropy(0.4, 0.7, w)]
)
def test_losses_agree_with_loops(kind, weights):
    logits, rows = logits_of(30), rows_of(30)
    rows[1] = torch.tensor([0.0, 0, 0.5, 0])  # a row of the class of weight 0, and of zeros to clamp
    rows[2] = torch.tensor([0.3, 0, 0, 0])
    wanted = loops(kind(weights), logits, rows, np.array(weights or np.ones(4)))
    assert loss_of(kind(weights), logits, rows).item() == pytest.approx(wanted)


def test_soft_f1_agrees_with_loops():
    logits, rows = logits_of(30), rows_of(30)
    rows[:, 2] = 0
    probs, scores = logits.softmax(1).numpy(), []
    for c in (0, 1, 3):
        tp = fp = fn = 0.0
        for p, row in zip(probs[:, c], rows.numpy()):
            tp, fp, fn = tp + row[c] * p, fp + (row.sum() - row[c]) * p, fn + row[c] * (1 - p)
        scores.append(2 * tp / (2 * tp + fp + fn))
    assert loss_of(SoftF1(), logits, rows).item() == pytest.approx(1 - np.mean(scores))


@pytest.mark.parametrize("absent", [None, 2])
def test_soft_f1_of_certain_answers_is_that_of_scikit_learn(absent):
    labels, pred = labels_of(60), labels_of(60, seed=1)
    labels[labels == absent] = 0
    logits = hot(pred) * 200  # probabilities of 0 and 1
    wanted = f1_score(labels, pred, average="macro", labels=np.unique(labels))
    assert loss_of(SoftF1(), logits, hot(labels)).item() == pytest.approx(1 - wanted)
    known = np.arange(60) % 3 > 0
    wanted = f1_score(labels[known], pred[known], average="macro", labels=np.unique(labels))
    partial = hot(np.where(known, labels, -1))
    assert loss_of(SoftF1(), logits, partial).item() == pytest.approx(1 - wanted)


# ---- mass


@pytest.mark.parametrize("loss", EVERY, ids=repr)
def test_the_gradient_is_right(loss):
    rows = rows_of(7)
    rows[4] = torch.tensor([0.0, 0.6, 0.0, 0.0])
    compute = criterion(loss, FOUR, COUNTS)
    assert torch.autograd.gradcheck(lambda logits: compute(logits, rows), logits_of(7).requires_grad_())


@pytest.mark.parametrize("value", [0.0, 1e30, float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("loss", EVERY, ids=repr)
def test_an_unknown_row_has_no_part_and_exactly_no_gradient(loss, value):
    logits, rows = logits_of(8), rows_of(8)
    unknown = rows.sum(1) == 0
    logits[unknown] = value
    logits.requires_grad_()
    found = loss_of(loss, logits, rows)
    found.backward()
    torch.testing.assert_close(found, loss_of(loss, logits.detach()[~unknown], rows[~unknown]))
    assert unknown.sum() == 3 and (logits.grad[unknown] == 0).all()
    assert torch.isfinite(logits.grad).all() and (logits.grad[~unknown] != 0).all()


@pytest.mark.parametrize("loss", EVERY, ids=repr)
def test_no_known_row_is_a_loss_of_zero_with_a_gradient(loss):
    logits = torch.full((4, 4), float("nan"), requires_grad=True)
    found = loss_of(loss, logits, torch.zeros(4, 4))
    found.backward()
    assert found.item() == 0 and (logits.grad == 0).all()


@pytest.mark.parametrize("loss", EVERY, ids=repr)
def test_only_the_ratios_of_masses_count(loss):
    logits, rows = logits_of(8), rows_of(8)
    torch.testing.assert_close(loss_of(loss, logits, rows / 50), loss_of(loss, logits, rows))


@pytest.mark.parametrize(
    ("loss", "first", "second"),
    [
        (CrossEntropy(), 1, 1),
        (CrossEntropy((3.0, 1.0, 0.0, 2.0), 0.1), 1, 2),
        (Focal(), 1, 1),
        (SymmetricCrossEntropy(class_weights=(3.0, 1.0, 0.0, 2.0)), 1, 2),
        (Ordinal(), 1, 1),
    ],
)
def test_a_photo_mixed_with_an_unknown_one_counts_by_its_share(loss, first, second):
    """lambda * one_hot + 0 has mass lambda: its part in the loss is lambda times that of a whole photo."""
    logits, rows = logits_of(2), hot([1, 3])
    one, other = (loss_of(loss, logits[[row]], rows[[row]]) for row in (0, 1))
    mixed = rows * torch.tensor([[0.25], [1.0]])
    wanted = (0.25 * first * one + second * other) / (0.25 * first + second)
    torch.testing.assert_close(loss_of(loss, logits, mixed), wanted)
    torch.testing.assert_close(loss_of(loss, logits[:1], mixed[:1]), one)  # alone, the mass does not matter


def test_a_mixed_photo_counts_by_its_share_in_soft_f1():
    logits, probs = torch.tensor([[0.25, 0.75], [0.5, 0.5]]).log(), 0.5 * 0.75
    rows = torch.tensor([[0.0, 0.5], [1.0, 0.0]])
    first, second = 2 * 0.5 / (1 + 0.125 + 0.5), 2 * probs / (0.5 + probs + 0.5)
    assert loss_of(SoftF1(), logits, rows, GENDER).item() == pytest.approx(1 - (first + second) / 2)


@given(
    st.integers(0, 10**6), st.lists(st.integers(0, 4), min_size=4, max_size=4).filter(any), st.sampled_from([0.0, 0.2])
)
def test_a_class_weight_is_a_photo_that_is_there_so_many_times(seed, weights, smoothing):
    labels, logits = labels_of(9, seed), logits_of(9, seed=seed % 1000)
    times = torch.tensor(weights)[labels]
    repeated = logits.repeat_interleave(times, 0), hot(labels).repeat_interleave(times, 0)
    numbers = tuple(map(float, weights))
    for weighted, plain in [
        (CrossEntropy(numbers, smoothing), CrossEntropy(smoothing=smoothing)),
        (Focal(2.0, numbers, smoothing), Focal(2.0, smoothing=smoothing)),
        (SymmetricCrossEntropy(0.3, 0.7, numbers), SymmetricCrossEntropy(0.3, 0.7)),
        (Ordinal(0.3, CrossEntropy(numbers)), Ordinal(0.3)),
    ]:
        torch.testing.assert_close(loss_of(weighted, logits, hot(labels)), loss_of(plain, *repeated))


@pytest.mark.parametrize("kind", [CrossEntropy, lambda weights: Focal(2.0, weights)])
@pytest.mark.parametrize("factor", [1e-40, 0.3, 1e9])
def test_only_the_ratios_of_class_weights_count(kind, factor):
    weights = (3.0, 1.0, 0.0, 2.0)
    scaled = loss_of(kind(tuple(factor * weight for weight in weights)), logits_of(9), rows_of(9))
    torch.testing.assert_close(scaled, loss_of(kind(weights), logits_of(9), rows_of(9)))


@pytest.mark.parametrize("word", ["inverse", "effective"])
def test_a_class_without_training_rows_weighs_nothing(word):
    labels, logits = np.array([0, 1, 3, 2]), logits_of(4).requires_grad_()
    counts = np.array([5.0, 1e-9, 0.0, 2.0])
    found = loss_of(CrossEntropy(word, 0.1), logits, hot(labels), counts=counts)
    found.backward()
    torch.testing.assert_close(
        found, loss_of(CrossEntropy(word, 0.1), logits[:3], hot(labels[:3]), counts=counts).detach()
    )
    assert found.isfinite() and (logits.grad[3] == 0).all() and (logits.grad[1] != 0).all()
    assert loss_of(CrossEntropy(word), logits, hot(labels), counts=np.zeros(4)).item() == 0
    tensor = torch.tensor(counts, requires_grad=True)
    torch.testing.assert_close(
        loss_of(CrossEntropy(word), logits, hot(labels), counts=tensor),
        loss_of(CrossEntropy(word), logits, hot(labels), counts=counts),
    )


@pytest.mark.parametrize("word", ["inverse", "effective"])
def test_dust_in_a_class_outweighs_no_photo(word):
    """Nobody is near 60, and the class of those who are weighs no more than one photo would make it."""
    years = np.random.default_rng(0).integers(18, 48, 500).astype(float)
    rows = band_rows(years, np.full(500, -1), AGE, width=2.0)
    mass = rows.sum(0)
    assert 0 < mass[2] < 1e-6
    logits = logits_of(500, 3)
    found, one = (
        loss_of(CrossEntropy(word), logits, rows, AGE, np.array([*mass[:2], last])) for last in (mass[2], 1.0)
    )
    torch.testing.assert_close(found, one, rtol=1e-6, atol=0)
    without = loss_of(
        CrossEntropy(word), logits, torch.cat([rows[:, :2], 0 * rows[:, 2:]], 1), AGE, np.array([*mass[:2], 0.0])
    )
    torch.testing.assert_close(found, without, rtol=1e-6, atol=0)


def test_frequent_classes_weigh_less():
    logits, rows = torch.tensor([[2.0, 0, 0, 0], [2.0, 0, 0, 0]]), hot([0, 2]).float()  # the rare one is wrong
    plain, effective, inverse = (
        loss_of(CrossEntropy(weights), logits, rows) for weights in (None, "effective", "inverse")
    )
    assert plain < effective < inverse


@pytest.mark.parametrize("loss", EVERY, ids=repr)
def test_better_answers_cost_less(loss):
    rows = hot([0, 1, 3])
    costs = [loss_of(loss, rows * strength, rows).item() for strength in (-1, 0, 1, 2)]
    assert costs == sorted(costs, reverse=True) and costs[0] > costs[-1] > 0


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0])
def test_focal_keeps_a_finite_gradient_where_the_answer_is_certain(gamma):
    logits = torch.tensor([[200.0, 0, 0, 0], [0.0, 200, 0, 0]], requires_grad=True)
    loss = loss_of(Focal(gamma), logits, hot([0, 0]))
    loss.backward()
    assert loss.item() == pytest.approx(100) and logits.grad.isfinite().all()


def test_half_precision_is_summed_in_single():
    logits, rows = logits_of(64).bfloat16(), rows_of(64).float()
    for loss in EVERY:
        found = loss_of(loss, logits, rows)
        with torch.autocast("cpu", torch.bfloat16):
            inside = loss_of(loss, logits, rows)
        assert found.dtype == inside.dtype == torch.float32
        torch.testing.assert_close(found, loss_of(loss, logits.double(), rows).float())
        torch.testing.assert_close(inside, found)


# ---- flat heads


def flat_case(heads, count=12):
    """Logits and rows of heads, and those of the flat head that says the same."""
    logits = [logits_of(count, len(head.classes), seed) for seed, head in enumerate(heads)]
    rows = [hot(labels_of(count, seed, len(head.classes)), len(head.classes)) for seed, head in enumerate(heads)]
    add, times = (
        (lambda a, b: (a[:, :, None] + b[:, None]).flatten(1)),
        (lambda a, b: (a[:, :, None] * b[:, None]).flatten(1)),
    )
    return logits, rows, reduce(add, [part.log_softmax(1) for part in logits]), reduce(times, rows)


def test_the_flat_cross_entropy_is_the_sum_of_the_heads_for_a_product_model():
    logits, rows, whole, product = flat_case(HEADS)
    for smoothing in (0.0, 0.2):
        loss = CrossEntropy(smoothing=smoothing)
        each = [loss_of(loss, *pair, head) for *pair, head in zip(logits, rows, HEADS)]
        torch.testing.assert_close(loss_of(loss, whole, product, FLAT[0]), sum(each))


def test_a_flat_head_shares_between_bands_only():
    logits, rows, whole, product = flat_case(HEADS)
    each = [loss_of(CrossEntropy(), *pair, head) for *pair, head in zip(logits[:2], rows[:2], HEADS)]
    shared = loss_of(Ordinal(0.4), logits[2], rows[2], AGE)
    torch.testing.assert_close(loss_of(Ordinal(0.4), whole, product, FLAT[0]), sum(each) + shared)
    assert not torch.allclose(shared, loss_of(CrossEntropy(), logits[2], rows[2], AGE))


def test_a_plain_head_shares_between_its_classes_without_edges_too():
    logits, rows = logits_of(5, 3), hot(labels_of(5, classes=3), 3)
    torch.testing.assert_close(loss_of(Ordinal(), logits, rows, MASK), loss_of(Ordinal(), logits, rows, AGE))


# ---- settings and errors


def test_per_head():
    assert per_head(Focal(), HEADS) == dict.fromkeys(("mask", "gender", "age"), Focal())
    mixed = per_head({"age": Ordinal()}, HEADS)
    assert mixed == {"mask": CrossEntropy(), "gender": CrossEntropy(), "age": Ordinal()}
    assert list(mixed) == ["mask", "gender", "age"] and per_head({}, FLAT) == {FLAT[0].name: CrossEntropy()}
    with pytest.raises(ValueError, match=r"losses name \['aeg'\]; the heads are \['mask', .* did you mean 'age'\?"):
        per_head({"aeg": Focal()}, HEADS)
    with pytest.raises(ValueError, match=r"the heads are \['mask', 'gender', 'age'\]$"):
        per_head({"xyz": Focal()}, HEADS)
    with pytest.raises(ValueError, match="losses: 'focal' is no loss; expected one of CrossEntropy, Focal, SoftF1, S"):
        per_head({"age": "focal"}, HEADS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CrossEntropy("invers"), "crossentropy: class_weights is 'invers'; expected one of inverse, effective"),
        (lambda: Focal(class_weights="x"), "focal: class_weights is 'x'"),
        (lambda: SymmetricCrossEntropy(class_weights=(-1.0, 2.0)), "symmetriccrossentropy: class_weights is .-1.0, 2"),
        (lambda: CrossEntropy((float("nan"), 1.0)), "class_weights is .nan, 1.0.; expected a tuple of numbers >= 0"),
        (lambda: CrossEntropy((float("inf"), 1.0)), "class_weights is .inf, 1.0.; expected a tuple of numbers >= 0"),
        (lambda: CrossEntropy((0.0, 0.0)), "class_weights is .0.0, 0.0.; .* not all 0"),
        (lambda: CrossEntropy(()), r"class_weights is \(\)"),
        (lambda: CrossEntropy({"a": 1.0}), r"class_weights is \{'a': 1.0\}; expected a tuple"),
        (lambda: CrossEntropy(("a", "b")), "expected a tuple of numbers"),
        (lambda: CrossEntropy(smoothing=1.0), "crossentropy: smoothing is 1.0; expected 0 <= smoothing < 1"),
        (lambda: Focal(smoothing=-0.1), "focal: smoothing is -0.1"),
        (lambda: Focal(gamma=-1.0), "focal: gamma is -1.0; expected a number >= 0"),
        (lambda: SymmetricCrossEntropy(alpha=-1.0), "alpha is -1.0"),
        (lambda: SymmetricCrossEntropy(beta=float("nan")), "beta is nan"),
        (lambda: Ordinal(1.1), "ordinal: share is 1.1; expected a number >= 0 and <= 1"),
        (lambda: Ordinal(0.2, "focal"), "ordinal: 'focal' is no loss"),
        (lambda: Sum((SoftF1(),), (0.4, 0.6)), "sum: 1 losses and 2 weights; expected one weight a loss"),
        (lambda: Sum((), ()), "sum: 0 losses"),
        (lambda: Sum((SoftF1(),), (-0.4,)), "sum: weight is -0.4"),
        (lambda: Sum((SoftF1(), Focal()), (0, 0.0)), r"sum: weights are \(0, 0.0\); expected a number > 0 for some"),
        (lambda: Sum((SoftF1,), (1.0,)), "is no loss; expected one of .*, as in CrossEntropy"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_criterion_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"head 'four' expects \(B, 4\) twice, got logits \(2, 4\) and .* \(2, 3\)"):
        criterion(CrossEntropy(), FOUR, COUNTS)(torch.zeros(2, 4), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"head 'four' expects \(B, 4\) twice, got logits \(2, 3\) and .* \(2, 3\)"):
        criterion(CrossEntropy(), FOUR, COUNTS)(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="head 'four' expects 4 class_weights, got 2"):
        criterion(Sum((CrossEntropy((1.0, 2.0)),), (1.0,)), FOUR, COUNTS)
    with pytest.raises(ValueError, match=r"head 'four' has 4 classes; got counts of shape \(3,\)"):
        criterion(CrossEntropy(), FOUR, np.ones(3))
    with pytest.raises(ValueError, match="head 'mask_gender' has no part with edges"):
        criterion(Ordinal(), flat((MASK, GENDER))[0], np.ones(6))


def test_settings_load_no_heavy_package():
    code = "import sys, multihead.losses as l; l.Ordinal(0.1, l.Focal()); print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("head", [MASK, FLAT[0]], ids=["head", "flat"])
def test_smoothing_of_the_recipe_is_that_of_the_loss(head):
    """Over class weights too: a photo that counts w times is w times the same smoothed row."""
    generator = torch.Generator().manual_seed(0)
    classes = len(head.classes)
    logits = torch.randn(6, classes, generator=generator)
    rows = torch.eye(classes)[torch.randint(0, classes, (6,), generator=generator)]
    counts = np.arange(1.0, classes + 1)
    outer = criterion(CrossEntropy(class_weights="inverse"), head, counts, 0.1)
    inner = criterion(CrossEntropy(class_weights="inverse", smoothing=0.1), head, counts)
    torch.testing.assert_close(outer(logits, rows), inner(logits, rows))
    assert not torch.isclose(
        outer(logits, rows), criterion(CrossEntropy(class_weights="inverse"), head, counts)(logits, rows)
    )


MODULE = torch.nn.CrossEntropyLoss(reduction="none")


@pytest.mark.parametrize("function", [own, "test_losses:own", "test_losses:MODULE"])
@pytest.mark.parametrize("weights", [None, "inverse"])
def test_a_function_of_ones_own_is_as_the_loss_that_it_computes(function, weights):
    found, wanted = logits_of(12).requires_grad_(), logits_of(12).requires_grad_()
    loss = Ordinal(0.3, Sum((Custom(function, weights), Focal()), (2.0, 1.0)))
    value = loss_of(loss, found, rows_of(12))
    same = loss_of(Ordinal(0.3, Sum((CrossEntropy(weights), Focal()), (2.0, 1.0))), wanted, rows_of(12))
    torch.testing.assert_close(value, same)
    value.backward()
    same.backward()
    torch.testing.assert_close(found.grad, wanted.grad)
    assert not found.grad[::3].any()


def test_a_function_of_ones_own_sees_known_photos_alone(monkeypatch):
    seen = []
    monkeypatch.setattr(sys.modules[__name__], "own", lambda logits, rows: seen.append(rows) or rows.sum(1))
    rows = rows_of(9)
    loss_of(Custom("test_losses:own"), logits_of(9), rows)
    torch.testing.assert_close(seen[-1], rows[rows.sum(1) > 0] / rows.sum(1, keepdim=True)[rows.sum(1) > 0])


@pytest.mark.parametrize(
    "result, told",
    [(lambda logits, rows: logits.sum(), r"gave shape \(\) for 4"), (lambda logits, rows: 1.0, "gave float for 4")],
)
def test_a_function_of_ones_own_gives_a_loss_a_photo(result, told, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "own", result)
    with pytest.raises(ValueError, match=f"custom: 'test_losses:own' {told} photos; expected a loss for each"):
        criterion(Custom("test_losses:own"), FOUR, COUNTS)


@pytest.mark.parametrize("kind", [CrossEntropy, Focal, SymmetricCrossEntropy, lambda **given: Custom(own, **given)])
def test_class_weights_come_as_others_give_them(kind):
    weights = compute_class_weight("balanced", classes=np.arange(4), y=[0, 0, 0, 1, 2, 3])
    made = kind(class_weights=weights)
    assert made == kind(class_weights=weights.tolist()) == kind(class_weights=tuple(weights.tolist()))
    assert all(type(weight) is float for weight in made.class_weights)


@pytest.mark.parametrize("smoothing", [0.15, 0.2, 0.5])
def test_soft_f1_of_a_flat_head_counts_no_class_that_smoothing_or_neighbours_hold(smoothing):
    """Of 18 classes smoothing gives those that share all but a part more than an even share."""
    head, rows = FLAT[0], torch.eye(18)[[0, 0, 17, 17]]
    for found in (
        criterion(SoftF1(), head, np.ones(18), smoothing),
        criterion(Ordinal(smoothing, SoftF1()), head, np.ones(18)),
        criterion(
            Ordinal(smoothing, SoftF1()),
            Head("ten", tuple("abcdefghij") + tuple("klmnopqr"), edges=range(17)),
            np.ones(18),
        ),
    ):
        held, answered = found.terms[0][2][[0, 0, 17, 17]], rows.numpy()
        f1 = 2 * (held * answered).sum(0) / (held.sum(0) + answered.sum(0)).clip(1e-30)
        assert found(200 * rows, rows).item() == pytest.approx(1 - f1[[0, 17]].mean(), abs=1e-5)


@pytest.mark.parametrize("word", ["inverse", "effective"])
def test_dust_does_not_outweigh_photos(word):
    """Soft bands leave a class that no photo has a little mass: it counts as one photo, not as thousandths."""
    logits, rows = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.eye(3)[[0, 1, 2, 0]]
    dust, one = (criterion(CrossEntropy(word), AGE, np.array([90.0, 10.0, least])) for least in (1e-6, 1.0))
    assert dust(logits, rows) == one(logits, rows)
