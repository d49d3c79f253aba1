import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multihead.balance import DWA, Fixed, Uncertainty, combine, epoch_weights, log_variance
from multihead.heads import HEADS

NAMES = ("mask", "gender", "age")
KNOWN = dict.fromkeys(NAMES, True)


def parts(*values):
    """Losses {head: scalar} and the leaves (heads,) that they come from."""
    leaves = torch.tensor(values or (1.0, 2.0, 6.0), dtype=torch.float64, requires_grad=True)
    return dict(zip(NAMES, leaves.unbind())), leaves


def numbers(count):
    return st.lists(st.floats(0.01, 100), min_size=count, max_size=count)


# ---- combine


def test_the_weighted_mean_by_hand():
    losses, leaves = parts()
    assert combine(losses, KNOWN, {}).item() == 3
    total = combine(losses, KNOWN, {"age": 2.0})
    total.backward()
    assert total.item() == (1 + 2 + 2 * 6) / 4 and leaves.grad.tolist() == [0.25, 0.25, 0.5]


@given(numbers(3), numbers(3), st.floats(0.01, 100))
def test_only_the_ratios_of_weights_count(values, weights, factor):
    losses, _ = parts(*values)
    total = combine(losses, KNOWN, dict(zip(NAMES, weights)))
    torch.testing.assert_close(total, combine(losses, KNOWN, {k: factor * w for k, w in zip(NAMES, weights)}))
    assert min(values) * (1 - 1e-12) <= total.item() <= max(values) * (1 + 1e-12)


@pytest.mark.parametrize("learned", [False, True])
def test_a_head_without_mass_drops_out_but_keeps_a_gradient(learned):
    losses, leaves = parts(2.0, 0.0, 6.0)
    s = torch.tensor([0.0, 3.0, 0.0], dtype=torch.float64, requires_grad=True) if learned else None
    total = combine(losses, KNOWN | {"gender": False}, {"gender": 100.0}, s)
    total.backward()
    assert total.item() == (2 if learned else 4)
    assert leaves.grad[1] == 0 and (leaves.grad[[0, 2]] > 0).all()
    if learned:
        assert s.grad[1] == 0 and (s.grad[[0, 2]] != 0).all()


def test_a_head_of_weight_zero_does_not_train():
    losses, leaves = parts()
    total = combine(losses, KNOWN, {"mask": 0.0})
    total.backward()
    assert total.item() == 4 and leaves.grad.tolist() == [0, 0.5, 0.5]


@pytest.mark.parametrize("known", [dict.fromkeys(NAMES, False), {"mask": True, "gender": False, "age": False}])
def test_a_batch_without_any_mass_costs_nothing(known):
    losses, leaves = parts(0.0, 0.0, 0.0)
    s = torch.ones(3, dtype=torch.float64, requires_grad=True)
    total = combine(losses, known, {"mask": 0.0}, s)
    total.backward()
    assert total.item() == 0 and (leaves.grad == 0).all() and (s.grad == 0).all()


def test_uncertainty_by_hand():
    losses, leaves = parts()
    s = torch.tensor([0.0, math.log(2), -1.0], dtype=torch.float64, requires_grad=True)
    total = combine(losses, KNOWN, {"age": 2.0}, s)
    terms = [1 / 2, 2 / 4 + math.log(2) / 2, 6 * math.e / 2 - 0.5]
    assert total.item() == pytest.approx((terms[0] + terms[1] + 2 * terms[2]) / 4)
    total.backward()
    assert leaves.grad.tolist() == pytest.approx([1 / 8, 1 / 16, math.e / 4])
    assert s.grad.tolist() == pytest.approx([0, 0, (1 - 6 * math.e) / 4])  # the best s is the log of the loss


def test_uncertainty_learns_the_logs_of_the_losses():
    values = [0.2, 1.0, 5.0]
    s = log_variance(Uncertainty(), NAMES)
    optimizer = torch.optim.SGD([s], lr=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        combine(dict(zip(NAMES, torch.tensor(values))), KNOWN, {}, s).backward()
        optimizer.step()
    assert s.tolist() == pytest.approx([math.log(value) for value in values], abs=1e-3)


def test_the_gradients_are_right():
    def total(leaves, s):
        return combine(dict(zip(NAMES, leaves)), KNOWN | {"mask": False}, {"age": 3.0}, s)

    leaves = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(total, (leaves, (leaves.detach() / 5).requires_grad_()))


def test_combine_refuses_weights_that_make_no_sense():
    losses, _ = parts()
    with pytest.raises(
        ValueError, match=r"head_weights names \['smile'\]; the model's heads are \['age', 'gender', 'm"
    ):
        combine(losses, KNOWN, {"smile": 1.0})
    for weight in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"head_weights: age is {weight}; expected a number >= 0"):
            combine(losses, KNOWN, {"age": weight})
    with pytest.raises(ValueError, match=r"head_weights {'mask': 0, .* leave nothing to learn; expected a number > 0"):
        combine(losses, KNOWN, dict.fromkeys(("mask", "gender", "age"), 0))
    with pytest.raises(ValueError, match=r"log_variance has shape \(2,\); expected \(3,\), one a head"):
        combine(losses, KNOWN, {}, torch.zeros(2))


# ---- what is learned or measured


def test_log_variance():
    s = log_variance(Uncertainty(), HEADS)
    assert isinstance(s, torch.nn.Parameter) and s.requires_grad and s.tolist() == [-0.5] * 3
    assert log_variance(Fixed(), HEADS) is None and log_variance(DWA(), HEADS) is None
    with pytest.raises(TypeError, match="'dwa' is no balance; expected Fixed, Uncertainty or DWA"):
        log_variance("dwa", HEADS)


def history(**losses):
    return [{f"{name}_loss": row for name, row in zip(losses, rows)} for rows in zip(*losses.values())]


def test_epoch_weights_by_hand():
    rows = history(mask=[9.0, 1.0, 0.5], age=[9.0, 2.0, 2.0])  # ratios of the last two: .5 and 1
    found = epoch_weights(DWA(temperature=0.5), rows, ["mask", "age"])
    assert found == pytest.approx({"mask": 2 / (1 + math.e), "age": 2 * math.e / (1 + math.e)})


@given(numbers(6), st.floats(0.1, 10))
def test_epoch_weights_agree_with_softmax(values, temperature):
    rows = history(**{name: values[2 * place : 2 * place + 2] for place, name in enumerate(NAMES)})
    ratios = torch.tensor([values[1] / values[0], values[3] / values[2], values[5] / values[4]], dtype=torch.float64)
    found = epoch_weights(DWA(temperature), rows, NAMES)
    assert list(found) == list(NAMES) and sum(found.values()) == pytest.approx(3)
    assert list(found.values()) == pytest.approx((3 * (ratios / temperature).softmax(0)).tolist())


@pytest.mark.parametrize("rows", [[], history(mask=[1.0], age=[5.0]), [{"epoch": 1.0}, {"epoch": 2.0}]])
def test_weights_are_even_before_two_epochs_are_known(rows):
    assert epoch_weights(DWA(), rows, ["mask", "age"]) == {"mask": 1.0, "age": 1.0}


def test_a_head_that_was_missing_keeps_its_last_two_losses():
    nan = float("nan")
    rows = history(mask=[4.0, 2.0, 1.0, 0.25], age=[4.0, nan, 2.0, nan])
    del rows[1]["age_loss"]
    wanted = epoch_weights(DWA(), history(mask=[1.0, 0.25], age=[4.0, 2.0]), ["mask", "age"])
    assert epoch_weights(DWA(), rows, ["mask", "age"]) == wanted
    never = epoch_weights(DWA(), rows, ["mask", "smile"])  # a head of no loss yet neither rises nor falls
    assert never == epoch_weights(DWA(), history(mask=[1.0, 0.25], smile=[1.0, 1.0]), ["mask", "smile"])


def test_extreme_losses_give_finite_weights():
    found = epoch_weights(DWA(), history(mask=[0.0, 1.0], gender=[1e-9, 1e9], age=[1.0, 0.0]), NAMES)
    assert all(map(math.isfinite, found.values())) and found["gender"] == pytest.approx(3)


def test_other_balances_weigh_all_heads_alike():
    rows = history(mask=[4.0, 2.0], gender=[1.0, 3.0], age=[1.0, 1.0])
    for balance in (Fixed(), Uncertainty()):
        assert epoch_weights(balance, rows, NAMES) == dict.fromkeys(NAMES, 1.0)
    with pytest.raises(TypeError, match="None is no balance"):
        epoch_weights(None, rows, NAMES)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_dwa_refuses_a_temperature_that_is_not_positive(temperature):
    with pytest.raises(ValueError, match="dwa: temperature is .*; expected a number > 0"):
        DWA(temperature)


def test_settings_load_no_heavy_package():
    code = "import sys, multihead.balance as b; b.DWA(); print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
