import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from multihead.labels import FLAT, HEADS, Head, encode, size
from multihead.losses import cross_entropy, targets, total

PAIR = (Head("a", ("p", "q")), Head("b", ("r", "s", "t")))


def random_labels(count, unknown, seed=0, heads=HEADS):
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.integers(0, len(head.classes), count) for head in heads], 1)
    labels[rng.random(labels.shape) < unknown] = -1
    return torch.from_numpy(labels)


def random_logits(count, classes, seed=0):
    return torch.randn(count, classes, generator=torch.Generator().manual_seed(seed)).requires_grad_()


# ---- targets


def test_targets_by_hand():
    rows = targets(torch.tensor([[1, -1], [0, 2]]), PAIR, smoothing=0.3)
    torch.testing.assert_close(rows["a"], torch.tensor([[0.15, 0.85], [0.85, 0.15]]))
    torch.testing.assert_close(rows["b"], torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.1, 0.8]]))


@given(st.integers(0, 10**6), st.floats(0, 0.9))
def test_a_known_row_has_mass_one_and_an_unknown_row_none(seed, smoothing):
    labels = random_labels(12, 0.4, seed)
    rows = targets(labels, [*HEADS, *FLAT][:3], smoothing)
    for column, head in enumerate(HEADS):
        torch.testing.assert_close(rows[head.name].sum(1), (labels[:, column] >= 0).float())
    known = labels.ge(0).all(1)
    flat_row = targets(labels, FLAT, smoothing)["mask_gender_age"]
    torch.testing.assert_close(flat_row.sum(1), known.float())


def test_a_flat_row_is_the_product_of_its_parts():
    labels = random_labels(30, 0.2)
    parts, whole = targets(labels, HEADS, 0.1), targets(labels, FLAT, 0.1)["mask_gender_age"]
    for row in range(30):
        product = torch.tensor(
            [m * g * a for m in parts["mask"][row] for g in parts["gender"][row] for a in parts["age"][row]]
        )
        torch.testing.assert_close(whole[row], product)
    plain = targets(labels, FLAT)["mask_gender_age"]
    codes = encode(labels)
    torch.testing.assert_close(plain, F.one_hot(codes.clamp(min=0), size(HEADS)).float() * (codes >= 0)[:, None])


# ---- cross-entropy


def test_cross_entropy_by_hand():
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0], [9.0, 9.0]]).log_softmax(1)
    rows = torch.tensor([[1.0, 0.0], [0.25, 0.25], [0.0, 0.0]])  # masses 1, a half, 0
    assert cross_entropy(logits, rows).item() == pytest.approx(np.log(2))
    uneven = torch.tensor([[0.25, 0.75]]).log()
    assert cross_entropy(uneven, torch.tensor([[0.0, 0.3]])).item() == pytest.approx(-np.log(0.75))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("unknown", [0.0, 0.3])
def test_cross_entropy_agrees_with_torch(smoothing, unknown):
    labels, logits = random_labels(40, unknown), random_logits(40, 3)
    found = cross_entropy(logits, targets(labels, HEADS, smoothing)["mask"])
    wanted = F.cross_entropy(logits, labels[:, 0], ignore_index=-1, label_smoothing=smoothing)
    torch.testing.assert_close(found, wanted)
    ours, theirs = (torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (found, wanted))
    torch.testing.assert_close(ours, theirs)


def test_cross_entropy_agrees_with_torch_on_mixed_rows():
    logits = random_logits(20, 3)
    rows = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(3), 20)).float()
    torch.testing.assert_close(cross_entropy(logits, rows), F.cross_entropy(logits, rows))
    mass = torch.rand(20, 1, generator=torch.Generator().manual_seed(1))
    each = F.cross_entropy(logits, rows, reduction="none")
    torch.testing.assert_close(cross_entropy(logits, rows * mass), (each * mass[:, 0]).sum() / mass.sum())


def test_the_gradient_is_right():
    logits, rows = random_logits(6, 4), torch.rand(6, 4, generator=torch.Generator().manual_seed(2))
    rows[3] = 0
    cross_entropy(logits, rows).backward()
    wanted = (logits.softmax(1) * rows.sum(1, keepdim=True) - rows) / rows.sum()
    torch.testing.assert_close(logits.grad, wanted)
    with torch.no_grad():  # and by differences of the loss itself
        step = torch.zeros(6, 4)
        step[2, 1] = 1e-2
        slope = (cross_entropy(logits + step, rows) - cross_entropy(logits - step, rows)) / 2e-2
    assert slope.item() == pytest.approx(logits.grad[2, 1].item(), abs=1e-4)


@pytest.mark.parametrize("value", [0.0, 1e30, float("inf"), float("-inf"), float("nan")])
def test_an_unknown_row_has_no_part_and_exactly_no_gradient(value):
    start = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    start[[1, 4]] = value
    logits = start.requires_grad_()
    rows = targets(torch.tensor([0, -1, 2, 1, -1])[:, None], HEADS[:1], 0.1)["mask"]
    loss = cross_entropy(logits, rows)
    loss.backward()
    known = [0, 2, 3]
    torch.testing.assert_close(loss, cross_entropy(start.detach()[known], rows[known]))
    assert (logits.grad[[1, 4]] == 0).all() and torch.isfinite(logits.grad).all() and (logits.grad[known] != 0).all()


def test_no_known_row_is_a_loss_of_zero_with_a_gradient():
    logits = torch.full((4, 3), float("nan"), requires_grad=True)
    loss = cross_entropy(logits, torch.zeros(4, 3))
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()


def test_half_precision_is_summed_in_single():
    logits = random_logits(64, 3).detach().bfloat16()
    assert cross_entropy(logits, targets(random_labels(64, 0), HEADS)["mask"]).dtype == torch.float32


def test_cross_entropy_refuses_unlike_shapes():
    with pytest.raises(ValueError, match=r"logits \(2, 3\) and target rows \(2, 2\) differ in shape"):
        cross_entropy(torch.zeros(2, 3), torch.zeros(2, 2))


# ---- total


def heads_and_logits(labels):
    logits = {head.name: random_logits(len(labels), len(head.classes), seed) for seed, head in enumerate(HEADS)}
    return logits, targets(labels, HEADS)


def test_total_is_the_weighted_mean():
    logits, rows = heads_and_logits(random_labels(10, 0))
    loss, each = total(logits, rows, {"age": 2.0})
    assert list(each) == ["mask", "gender", "age"]
    torch.testing.assert_close(loss, (each["mask"] + each["gender"] + 2 * each["age"]) / 4)
    torch.testing.assert_close(each["mask"], cross_entropy(logits["mask"], rows["mask"]))
    equal, _ = total(logits, rows, {})
    torch.testing.assert_close(total(logits, rows, dict.fromkeys(logits, 7.0))[0], equal)  # only ratios count


def test_a_head_without_mass_drops_out_but_keeps_a_gradient():
    labels = random_labels(10, 0)
    labels[:, 1] = -1
    logits, rows = heads_and_logits(labels)
    loss, each = total(logits, rows, {"gender": 100.0})
    torch.testing.assert_close(loss, (each["mask"] + each["age"]) / 2)
    loss.backward()
    assert logits["gender"].grad is not None and (logits["gender"].grad == 0).all()
    assert logits["mask"].grad.abs().sum() > 0


def test_a_head_of_weight_zero_does_not_train():
    logits, rows = heads_and_logits(random_labels(10, 0))
    loss, each = total(logits, rows, {"mask": 0.0})
    torch.testing.assert_close(loss, (each["gender"] + each["age"]) / 2)
    loss.backward()
    assert (logits["mask"].grad == 0).all()


def test_a_batch_without_any_label_costs_nothing():
    logits, rows = heads_and_logits(torch.full((4, 3), -1))
    loss, _ = total(logits, rows, {})
    loss.backward()
    assert loss.item() == 0 and all((part.grad == 0).all() for part in logits.values())


def test_the_flat_loss_is_the_sum_of_the_heads_for_a_product_model():
    logits, rows = heads_and_logits(random_labels(10, 0))
    grid = [logits[name].log_softmax(1) for name in logits]
    whole = (grid[0][:, :, None, None] + grid[1][:, None, :, None] + grid[2][:, None, None, :]).flatten(1)
    flat_loss = cross_entropy(whole, targets(random_labels(10, 0), FLAT)["mask_gender_age"])
    torch.testing.assert_close(flat_loss, sum(cross_entropy(logits[name], rows[name]) for name in logits))


def test_total_refuses_the_weight_of_a_head_that_is_not_there():
    logits, rows = heads_and_logits(random_labels(2, 0))
    with pytest.raises(
        ValueError, match=r"head_weights names \['smile'\]; the model's heads are \['age', 'gender', 'm"
    ):
        total(logits, rows, {"smile": 1.0})
