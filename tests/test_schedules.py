import math
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.scheduler import CosineLRScheduler
from torch.optim import lr_scheduler

from multihead.schedules import Constant, Cosine, CosineRestarts, Cyclic, OneCycle, Plateau, Schedule, Step, rate

NAN = float("nan")
KINDS = Schedule.__args__


def rates(schedule, steps, epochs, lr=0.1, history=()):
    return [rate(schedule, lr, step, steps, epochs, history=history) for step in range(steps)]


def plain():
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)


def followed(make, steps, every=1):
    """The rates of one of torch's schedulers, stepped after every so many steps."""
    optimizer = plain()
    scheduler, found = make(optimizer), []
    for step in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % every == 0 and step + 1 < steps:
            scheduler.step()
    return found


def one_cycle(steps, share):
    return lambda optimizer: lr_scheduler.OneCycleLR(
        optimizer, 0.1, total_steps=steps, pct_start=share, cycle_momentum=False
    )


def cyclic(up, down, mode, gamma=1.0):
    return lambda optimizer: lr_scheduler.CyclicLR(
        optimizer, 1e-3, 0.1, step_size_up=up, step_size_down=down, mode=mode, gamma=gamma, cycle_momentum=False
    )


# ---- step by step beside torch's


@pytest.mark.parametrize(("steps", "epochs"), [(4, 1), (12, 1), (37, 3), (200, 5)])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.5, 0.9])
def test_one_cycle_is_torchs(steps, epochs, share):
    assert rates(OneCycle(share), steps, epochs) == pytest.approx(followed(one_cycle(steps, share), steps), rel=1e-9)


@pytest.mark.parametrize(("mode", "gamma"), [("triangular", 1.0), ("triangular2", 1.0), ("exp_range", 0.98)])
@pytest.mark.parametrize(("up", "down"), [(1, 2), (2, 1), (0.5, 0.5), (3, 3)])
def test_cyclic_is_torchs(mode, gamma, up, down):
    wanted = followed(cyclic(up * 10, down * 10, mode, gamma), 90)
    assert rates(Cyclic(1e-3, up, down, mode, gamma), 90, 9) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("lowest", [0.0, 0.01])
def test_cosine_is_torchs(lowest):
    wanted = followed(lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 60, lowest), 60)
    assert rates(Cosine(min_lr=lowest), 60, 6) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("lowest", [0.0, 0.01])
@pytest.mark.parametrize(("first", "mul"), [(1, 1), (3, 1), (0.5, 1), (0.4, 1), (1, 2), (2, 3), (0.5, 2)])
def test_cosine_restarts_is_torchs(first, mul, lowest):
    wanted = followed(
        lambda optimizer: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, round(first * 10), mul, lowest), 150
    )
    assert rates(CosineRestarts(first, mul, min_lr=lowest), 150, 15) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("per_epoch", [3, 7, 11])
def test_cosine_restarts_at_the_very_step(per_epoch):
    wanted = followed(
        lambda optimizer: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, per_epoch, 3), per_epoch * 122
    )
    found = rates(CosineRestarts(1, 3), per_epoch * 122, 122)
    assert found == pytest.approx(wanted, rel=1e-6, abs=1e-12)
    assert [step for step, value in enumerate(found) if value == 0.1] == [per_epoch * n for n in (0, 1, 4, 13, 40, 121)]


@pytest.mark.parametrize(("mul", "decay"), [(1.0, 0.5), (2.0, 0.8), (1.5, 0.9)])
def test_restarts_that_decay_are_timms(mul, decay):
    theirs = CosineLRScheduler(
        plain(), t_initial=20, lr_min=1e-4, cycle_mul=mul, cycle_decay=decay, cycle_limit=99, warmup_t=0
    )
    wanted = [theirs._get_lr(step)[0] for step in range(150)]
    found = rates(CosineRestarts(2, mul, decay, 1e-4), 150, 15)
    assert found == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(("epochs", "per_epoch"), [(6, 10), (7, 3), (10, 7)])
def test_step_is_torchs(epochs, per_epoch):
    wanted = followed(lambda optimizer: lr_scheduler.StepLR(optimizer, 2, 0.3), epochs * per_epoch, every=per_epoch)
    assert rates(Step(decay_epochs=2, decay_rate=0.3), epochs * per_epoch, epochs) == pytest.approx(wanted)


def plateau(schedule, scores, per_epoch):
    """The rates of torch's ReduceLROnPlateau, told an epoch's score when it ends."""
    optimizer = plain()
    scheduler = lr_scheduler.ReduceLROnPlateau(
        optimizer,
        "max",
        schedule.decay_rate,
        schedule.patience_epochs,
        schedule.threshold,
        threshold_mode="abs",
        min_lr=schedule.min_lr,
        eps=0,
    )
    found = []
    for score in scores:
        found += [optimizer.param_groups[0]["lr"]] * per_epoch
        if not math.isnan(score):
            scheduler.step(score)
    return found


scores = st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.30001, 0.4, NAN]) | st.floats(-1, 1), min_size=1, max_size=20)


@given(scores, st.integers(0, 3), st.sampled_from([0.0, 1e-4, 0.05]), st.sampled_from([0.0, 2e-3, 0.5]))
def test_plateau_is_torchs(history, patience, threshold, lowest):
    schedule = Plateau(patience, 0.3, lowest, threshold)
    found = rates(schedule, 3 * len(history), len(history), history=history)
    assert found == pytest.approx(plateau(schedule, history, 3), rel=1e-9)


@pytest.mark.parametrize("epochs", [5, 12])
@pytest.mark.parametrize(
    ("schedule", "make"),
    [
        (OneCycle(0.3, "epoch"), lambda epochs: one_cycle(epochs, 0.3)),
        (Cosine(0, 0.01, "epoch"), lambda epochs: lambda o: lr_scheduler.CosineAnnealingLR(o, epochs, 0.01)),
        (
            CosineRestarts(2, 2, min_lr=0.01, interval="epoch"),
            lambda epochs: lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2, 2, 0.01),
        ),
        (Cyclic(1e-3, 1, 2, interval="epoch"), lambda epochs: cyclic(1, 2, "triangular2")),
        (Cyclic(1e-3, 1, 2, "exp_range", 0.9, "epoch"), lambda epochs: cyclic(1, 2, "exp_range", 0.9)),
    ],
    ids=["onecycle", "cosine", "restarts", "triangular2", "exp_range"],
)
def test_an_interval_of_epochs_is_torchs_stepped_once_an_epoch(schedule, make, epochs):
    wanted = followed(make(epochs), 7 * epochs, every=7)
    assert rates(schedule, 7 * epochs, epochs) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("kind", [Cosine, CosineRestarts, Step, Plateau, Constant])
def test_the_warm_up_is_torchs(kind):
    wanted = followed(lambda optimizer: lr_scheduler.LinearLR(optimizer, 1 / 16, total_iters=15), 15)
    assert rates(kind(warmup_epochs=1.5), 60, 6)[:15] == pytest.approx(wanted, rel=1e-9)


# ---- by hand


def test_rates_by_hand():
    assert rates(Constant(), 4, 2) == [0.1] * 4
    assert rates(Constant(warmup_epochs=1), 6, 2) == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])
    assert rates(Constant(warmup_epochs=0.5), 6, 2) == pytest.approx([0.1 / 3, 0.2 / 3, 0.1, 0.1, 0.1, 0.1])
    assert rates(Cosine(warmup_epochs=1), 8, 2) == pytest.approx(
        [0.02, 0.04, 0.06, 0.08, 0.1, 0.0853553, 0.05, 0.0146447], rel=1e-5
    )
    assert rates(Step(warmup_epochs=1, decay_epochs=1, decay_rate=0.5), 4, 2) == pytest.approx(
        [0.1 / 3, 0.2 / 3, 0.05, 0.05]
    )


def test_restarts_by_hand():
    assert rates(CosineRestarts(2, 1, 0.5, 0.02), 6, 6) == pytest.approx([0.1, 0.06, 0.05, 0.035, 0.025, 0.0225])
    # a cycle is counted from the end of the warm-up
    half = 0.05 + 0.05 * 0.5**0.5
    found = rates(CosineRestarts(2, warmup_epochs=1), 8, 4)
    assert found == pytest.approx([0.1 / 3, 0.2 / 3, 0.1, half, 0.05, 0.1 - half, 0.1, half])
    # a height that has decayed below the lowest rate
    assert rates(CosineRestarts(1, 1, 0.1, 0.05), 4, 2) == pytest.approx([0.1, 0.075, 0.05, 0.05])


def test_plateau_by_hand():
    history = [0.5, NAN, 0.5, 0.5001, 0.4, 0.6, NAN, 0.6]
    found = rates(Plateau(1, 0.5, 0.02, threshold=0.01), 9, 9, history=history)
    #                epoch 3 and 4 are no better, so the 5th is trained lower; 5, then 6 better; 8 is no better
    assert found == [0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.05]
    falling = rates(Plateau(0, 0.5, 0.02), 5, 5, history=[0.5, 0.4, 0.3, 0.2])
    assert falling == pytest.approx([0.1, 0.1, 0.05, 0.025, 0.02])
    assert rates(Plateau(0), 4, 4) == [0.1] * 4  # never scored


def test_a_warm_up_in_epochs_has_one_rate_an_epoch():
    found = rates(Cosine(3, interval="epoch"), 12, 6)
    assert found[::2] == found[1::2] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.075, 0.025])


# ---- properties

SCHEDULES = [
    OneCycle(),
    OneCycle(0.0),
    OneCycle(1.0, "epoch"),
    Cosine(0.5, 1e-4),
    Cosine(1.5, 1e-4, "epoch"),
    CosineRestarts(1.3, 1.7, 0.6, 1e-4, 0.5),
    CosineRestarts(0.3, interval="epoch"),
    Step(1.0),
    Plateau(1, min_lr=1e-4, warmup_epochs=1),
    Cyclic(),
    Cyclic(cycle_mode="triangular"),
    Cyclic(cycle_mode="exp_range", cycle_gamma=0.9, interval="epoch"),
    Constant(2),
]


@given(st.sampled_from(SCHEDULES), st.integers(1, 20), st.integers(1, 30), st.floats(1e-4, 1), scores)
def test_a_rate_is_positive_and_at_most_lr(schedule, epochs, per_epoch, lr, history):
    if isinstance(schedule, Cyclic):
        schedule = replace(schedule, min_lr=lr / 100)
    found = rates(schedule, epochs * per_epoch, epochs, lr, history)
    assert all(-1e-12 <= value <= lr * (1 + 1e-9) for value in found) and max(found) > 0


@given(st.sampled_from(SCHEDULES), st.integers(1, 20), st.integers(1, 30))
def test_an_interval_of_epochs_holds_the_rate(schedule, epochs, per_epoch):
    found = rates(schedule, epochs * per_epoch, epochs)
    if getattr(schedule, "interval", "batch") == "epoch":
        assert found == [value for value in found[::per_epoch] for _ in range(per_epoch)]
    if not isinstance(schedule, (Step, Plateau, Constant)):  # one step an epoch: there is no difference
        assert rates(replace(schedule, interval="epoch"), epochs, epochs) == rates(
            replace(schedule, interval="batch"), epochs, epochs
        )


@given(scores, scores)
def test_later_scores_do_not_change_an_earlier_rate(history, later):
    schedule = Plateau(1)
    steps = 2 * len(history)
    assert rates(schedule, steps, len(history), history=history) == rates(
        schedule, steps, len(history), history=history + later
    )


# ---- refusals


def test_fields_of_one_meaning_have_one_help_and_flag():
    described = {}
    for kind in KINDS:
        for item in fields(kind):
            described.setdefault(item.name, set()).add((item.metadata["help"], item.metadata["flag"]))
    assert {name: len(found) for name, found in described.items()} == dict.fromkeys(described, 1)
    for kind in KINDS:  # the help of a shared flag names, or rules out, the schedules that have it
        for item in fields(kind):
            named = kind.__name__.lower() in item.metadata["help"]
            assert named != item.metadata["help"].endswith("(all but onecycle and cyclic)")
    assert described["interval"].pop()[1] == "sched-interval"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OneCycle(1.5), "onecycle: pct_start is 1.5; expected a number >= 0 and <= 1"),
        (lambda: OneCycle("0.1"), "onecycle: pct_start is '0.1'; expected a number"),
        (lambda: OneCycle(interval="step"), "onecycle: interval is 'step'; expected one of batch, epoch"),
        (lambda: Cosine(interval="Epoch"), "cosine: interval is 'Epoch'; expected one of batch, epoch"),
        (lambda: CosineRestarts(0), "cosinerestarts: cycle_epochs is 0; expected a number > 0"),
        (lambda: CosineRestarts(cycle_mul=0.5), "cycle_mul is 0.5; expected a number >= 1"),
        (lambda: CosineRestarts(cycle_decay=0), "cycle_decay is 0; expected a number > 0 and <= 1"),
        (lambda: CosineRestarts(cycle_decay=1.1), "cycle_decay is 1.1; expected a number > 0 and <= 1"),
        (lambda: CosineRestarts(interval=""), "cosinerestarts: interval is ''"),
        (lambda: Step(decay_epochs=0), "step: decay_epochs is 0; expected a whole number >= 1"),
        (lambda: Plateau(-1), "plateau: patience_epochs is -1; expected a whole number >= 0"),
        (lambda: Plateau(1.5), "plateau: patience_epochs is 1.5; expected a whole number >= 0"),
        (lambda: Plateau(decay_rate=1.5), "plateau: decay_rate is 1.5; expected a number > 0 and <= 1"),
        (lambda: Plateau(decay_rate=0), "plateau: decay_rate is 0; expected a number > 0 and <= 1"),
        (lambda: Plateau(min_lr=-1.0), "plateau: min_lr is -1.0; expected a number >= 0"),
        (lambda: Plateau(threshold=NAN), "plateau: threshold is nan; expected a number >= 0"),
        (lambda: Cyclic(cycle_mode="square"), "'square'; expected one of triangular, triangular2, exp_range"),
        (lambda: Cyclic(cycle_gamma=1.01), "cyclic: cycle_gamma is 1.01; expected a number > 0 and <= 1"),
        (lambda: Cyclic(cycle_gamma=0), "cyclic: cycle_gamma is 0; expected a number > 0 and <= 1"),
        (lambda: Cyclic(interval=None), "cyclic: interval is None; expected one of batch, epoch"),
        (lambda: Cyclic(up_epochs=0), "cyclic: up_epochs is 0; expected a number > 0"),
        (lambda: Cyclic(down_epochs=-1.0), "cyclic: down_epochs is -1.0; expected a number > 0"),
    ],
)
def test_a_schedule_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_rate_refuses():
    message = "'cosine' is no schedule; expected OneCycle, Cosine, CosineRestarts, Step, Plateau, Cyclic or Constant"
    with pytest.raises(TypeError, match=message):
        rate("cosine", 0.1, 0, 10, 1)
