import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from multihead.optim import MADGRAD, SGD, Adam, AdamW, create_optimizer
from multihead.schedules import Constant, Cosine, Cyclic, OneCycle, Step, rate

OPTIMS = [AdamW(0.01, 0.1), Adam(0.01, 0.1), SGD(0.05, 0.1), SGD(0.05, 0.1, momentum=0.0), MADGRAD(0.01, 0.1)]


def network():
    torch.manual_seed(0)
    parts = (torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))
    return torch.nn.Sequential(*parts).double()  # rounding does not steer Adam's small gradients


def theirs(model, optim):
    """The library's own optimiser with the same settings."""
    import madgrad

    groups = [
        {"params": [model[0].weight, model[3].weight], "weight_decay": optim.weight_decay},
        {"params": [model[0].bias, model[2].weight, model[2].bias, model[3].bias], "weight_decay": 0.0},
    ]
    kinds = {
        AdamW: lambda: torch.optim.AdamW(groups, optim.lr),
        Adam: lambda: torch.optim.Adam(groups, optim.lr),
        SGD: lambda: torch.optim.SGD(groups, optim.lr, optim.momentum, nesterov=optim.momentum > 0),
        MADGRAD: lambda: madgrad.MADGRAD(groups, optim.lr, optim.momentum),
    }
    return kinds[type(optim)]()


def run(model, optimizer, steps=4):
    pixels = torch.randn(6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for _ in range(steps):
        optimizer.zero_grad()
        (model(pixels) - pixels[:, :2]).square().mean().backward()
        optimizer.step()


# ---- optimisers


@pytest.mark.parametrize("optim", OPTIMS, ids=repr)
def test_steps_are_those_of_the_library(optim):
    ours = network()
    other = copy.deepcopy(ours)
    run(ours, create_optimizer(ours, optim))
    run(other, theirs(other, optim))
    for left, right in zip(ours.parameters(), other.parameters()):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize("optim", OPTIMS, ids=repr)
def test_only_matrices_decay(optim):
    model = network()
    before = copy.deepcopy(model.state_dict())
    optimizer = create_optimizer(model, optim)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = {name: (value - before[name]).abs().max().item() for name, value in model.named_parameters()}
    assert {name for name, distance in moved.items() if distance > 1e-6} == {"0.weight", "3.weight"}
    assert model[0].weight.norm() < before["0.weight"].norm()


def test_frozen_parameters_are_left_out():
    model = network()
    model[0].requires_grad_(False)
    optimizer = create_optimizer(model, AdamW())
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4


def test_create_optimizer_refuses():
    with pytest.raises(TypeError, match="'adam' is no optimiser; expected AdamW, Adam, SGD or MADGRAD"):
        create_optimizer(network(), "adam")


# ---- rates


def rates(schedule, steps, epochs, lr=0.1):
    return [rate(schedule, lr, step, steps, epochs) for step in range(steps)]


def followed(make, steps, lr=0.1, every=1):
    """The rates of one of torch's schedulers, stepped after every so many steps."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr)
    scheduler, found = make(optimizer), []
    for step in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % every == 0 and step + 1 < steps:
            scheduler.step()
    return found


@pytest.mark.parametrize(("steps", "epochs"), [(12, 1), (37, 3), (200, 5)])
@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.9])
def test_one_cycle_is_torchs(steps, epochs, share):
    wanted = followed(
        lambda optimizer: lr_scheduler.OneCycleLR(
            optimizer, 0.1, total_steps=steps, pct_start=share, cycle_momentum=False
        ),
        steps,
    )
    assert rates(OneCycle(share), steps, epochs) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("mode", ["triangular", "triangular2"])
@pytest.mark.parametrize(("up", "down"), [(1, 2), (2, 1), (0.5, 0.5), (3, 3)])
def test_cyclic_is_torchs(mode, up, down):
    wanted = followed(
        lambda optimizer: lr_scheduler.CyclicLR(
            optimizer, 1e-3, 0.1, step_size_up=up * 10, step_size_down=down * 10, mode=mode, cycle_momentum=False
        ),
        90,
    )
    assert rates(Cyclic(1e-3, up, down, mode), 90, 9) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("lowest", [0.0, 0.01])
def test_cosine_is_torchs(lowest):
    wanted = followed(lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 60, lowest), 60)
    assert rates(Cosine(min_lr=lowest), 60, 6) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(("epochs", "per_epoch"), [(6, 10), (7, 3), (10, 7)])
def test_step_is_torchs(epochs, per_epoch):
    wanted = followed(lambda optimizer: lr_scheduler.StepLR(optimizer, 2, 0.3), epochs * per_epoch, every=per_epoch)
    assert rates(Step(decay_epochs=2, decay_rate=0.3), epochs * per_epoch, epochs) == pytest.approx(wanted)


def test_rates_by_hand():
    assert rates(Constant(), 4, 2) == [0.1] * 4
    assert rates(Constant(warmup_epochs=1), 6, 2) == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])
    assert rates(Cosine(warmup_epochs=1), 8, 2) == pytest.approx(
        [0.02, 0.04, 0.06, 0.08, 0.1, 0.0853553, 0.05, 0.0146447], rel=1e-5
    )
    assert rates(Step(warmup_epochs=1, decay_epochs=1, decay_rate=0.5), 4, 2) == pytest.approx(
        [0.1 / 3, 0.2 / 3, 0.05, 0.05]
    )


SCHEDULES = [
    OneCycle(),
    OneCycle(0.0),
    OneCycle(1.0),
    Cosine(0.5, 1e-4),
    Step(1.0),
    Cyclic(),
    Cyclic(cycle_mode="triangular"),
    Constant(2),
]


@given(st.sampled_from(SCHEDULES), st.integers(1, 20), st.integers(1, 30), st.floats(1e-4, 1))
def test_a_rate_is_positive_and_at_most_lr(schedule, epochs, per_epoch, lr):
    if isinstance(schedule, Cyclic):
        schedule = replace(schedule, min_lr=lr / 100)
    found = rates(schedule, epochs * per_epoch, epochs, lr)
    assert all(-1e-12 <= value <= lr * (1 + 1e-9) for value in found) and max(found) > 0


def test_rate_refuses():
    with pytest.raises(TypeError, match="'cosine' is no schedule; expected OneCycle, Cosine, Step, Cyclic or Constant"):
        rate("cosine", 0.1, 0, 10, 1)
