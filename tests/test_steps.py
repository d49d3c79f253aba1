import copy
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_train import SMALL, small_model, state_of

from multihead.augment import Plain
from multihead.balance import Uncertainty
from multihead.criteria import criterion
from multihead.crops import FULL
from multihead.heads import AGE, HEADS, MASK
from multihead.losses import CrossEntropy, Focal, Ordinal, Sum
from multihead.modes import Mode
from multihead.optim import SGD
from multihead.reading import read
from multihead.recipe import EMA, Recipe
from multihead.sides import Ready, target_rows
from multihead.steps import Diverged, Stepper, seeded
from multihead.train import fit

ROOT = Path(__file__).parents[1]
RECIPE = Recipe(epochs=1, batch_size=8, optim=SGD(0.05), augment=Plain(), select="last")


@pytest.fixture(scope="module")
def photos(people):
    return read(people / "train")


def stepper(photos, model, recipe=RECIPE):
    """A stepper, and its first batches."""
    side = Ready(model.heads, photos, recipe, training=True)
    targets = target_rows(photos, HEADS, recipe)
    criteria = {head.name: criterion(CrossEntropy(), head, np.ones(len(head.classes))) for head in HEADS}
    batches = [side.held.batch([(1, row) for row in range(start, start + 8)]) for start in (0, 8)]
    return Stepper(model, criteria, targets, recipe, Mode(channels_last=False)), batches


def test_a_step_by_hand(photos):
    """The gradient of the mean of both batches' losses, and a step of plain SGD along it."""
    model, plain = small_model(), small_model()
    steps, batches = stepper(photos, model, replace(RECIPE, optim=SGD(0.05, momentum=0.0, weight_decay=0.0)))
    steps.train()
    losses = steps.gradient(batches, 1, 0, {"age": 2.0})
    plain.train()
    for batch in batches:
        logits = plain({SMALL: batch.images[SMALL]})
        each = [F.cross_entropy(logits[head.name], batch.labels[:, at]) for at, head in enumerate(HEADS)]
        ((each[0] + each[1] + 2 * each[2]) / 4 / 2).backward()
    assert list(losses) == ["loss", "mask_loss", "gender_loss", "age_loss"]
    assert losses["loss"] == pytest.approx((losses["mask_loss"] + losses["gender_loss"] + 2 * losses["age_loss"]) / 4)
    for mine, its in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, its.grad, rtol=1e-4, atol=1e-6)
    before = [each.detach().clone() for each in model.parameters()]
    steps.update(0.5, 1)
    for old, new, its in zip(before, model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(new, old - 0.5 * its.grad, rtol=1e-4, atol=1e-6)
        assert new.grad is None


def test_a_state_is_all_that_a_step_needs(photos):
    recipe = replace(RECIPE, balance=Uncertainty(), ema=EMA(0.5), clip_grad=1.0)
    first, batches = stepper(photos, small_model(), recipe)

    def step(steps, number):
        steps.train()
        steps.gradient(batches, 1, 2 * number, {})
        steps.update(0.05, number + 1)

    step(first, 0)
    state = copy.deepcopy(first.state())
    step(first, 1)
    second, _ = stepper(photos, small_model(), recipe)
    torch.nn.init.normal_(second.model.head["age"].weight)
    second.load_state(state)
    step(second, 1)
    assert torch.equal(first.log_variance, second.log_variance)
    for mine, its in ((first.model, second.model), (first.scored, second.scored)):
        for key, value in mine.state_dict().items():
            assert torch.equal(value, its.state_dict()[key]), key


def test_what_is_frozen_thaws(photos):
    model = small_model()
    model.backbone.conv1[0].weight.requires_grad_(False)  # the user's own choice
    steps, _ = stepper(photos, model)
    for frozen in (True, False, True):
        steps.train(frozen)
        assert {each.requires_grad for each in steps.backbone} == {not frozen}
        assert model.backbone.training != frozen and model.head.training
    steps.thaw()
    assert [name for name, each in model.named_parameters() if not each.requires_grad] == ["backbone.conv1.0.weight"]


def test_a_loss_that_is_no_number(photos):
    model = small_model()
    steps, batches = stepper(photos, model)
    with torch.no_grad():
        batches[1].labels[0] = 0
        model.head["mask"].bias.fill_(float("nan"))
    with pytest.raises(Diverged, match="the loss is nan in epoch 3, batch 7; lower lr, or set clip_grad"):
        steps.gradient(batches, 3, 6, {})
    assert all(each.grad is None for each in model.parameters())


def test_a_batch_with_a_photo_that_cannot_be_read(photos):
    steps, batches = stepper(photos, small_model())
    bad = replace(batches[1], unreadable=((3, "'a.jpg': empty file"),))
    with pytest.raises(ValueError, match="a photo can no longer be read: 'a.jpg': empty file; put it back and resume"):
        steps.gradient([batches[0], bad], 1, 0, {})


STOPS = """
import sys
sys.path.insert(0, {tests!r})
import torch
from test_steps import RECIPE, small_model
from multihead import batches, ranks
from multihead.cache import Cache
from multihead.reading import read
from multihead.train import prepare

what, plain, count = sys.argv[2], batches.open_image, iter(range(9999))
run = prepare(small_model(), read(sys.argv[1]), None, RECIPE, workers=0, cache=Cache(memory=0))
if ranks.rank() == 1 and what == "nan":
    run.steps.model.head["age"].bias.data.fill_(float("nan"))

def gone(path):
    if next(count) == 9:
        raise ValueError("it has gone")
    return plain(path)

if ranks.rank() == 1 and what == "gone":
    batches.open_image = gone
try:
    list(run.epochs(False))
except ValueError as error:
    print(f"<{{ranks.rank()}} {{error}}>")
ranks.wait()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "told", "others"),
    [
        ("gone", "a photo can no longer be read: it has gone; put it back", "read: see another process; put it back"),
        ("nan", "the loss is nan in epoch 1, batch 1; lower lr", "the loss is no number in epoch 1 on another process"),
    ],
)
def test_processes_stop_together(people, tmp_path, what, told, others):
    """What only one of them meets would leave the other waiting for it."""
    script = tmp_path / "stops.py"
    script.write_text(STOPS.format(tests=str(ROOT / "tests")))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, str(script), str(people / "train"), what]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = sorted(part for part in done.stdout.split("<") if part)
    assert one.startswith("0 ") and others in one and two.startswith("1 ") and told in two


AS_ONE = {
    "plain": {},
    "weighed": {"losses": CrossEntropy("inverse")},
    "two of unlike weights": {"losses": Sum((CrossEntropy("inverse"), Focal(2.0, (1.0, 0.0, 3.0))), (0.7, 0.3))},
    "uncertainty": {"balance": Uncertainty(), "losses": {"age": Ordinal(loss=CrossEntropy("effective", 0.1))}},
}


@pytest.mark.parametrize("hidden", [0.0, 0.7])
@pytest.mark.parametrize("choice", AS_ONE.values(), ids=AS_ONE)
def test_accumulated_batches_are_one_large_batch(photos, choice, hidden):
    """Also where labels are known, or weigh, unlike much in each of them, and a batch has none of a head."""
    train, _ = photos.split(0.2, seed=0)
    heads = [MASK, AGE] if isinstance(choice.get("losses"), Sum) else HEADS
    chance = np.random.default_rng(0)
    gone = {name: chance.random(len(train)) < hidden for name in ("mask", "gender", "years")}
    train = train.with_columns(
        **{name: train.table[name].mask(rows, np.nan if name == "years" else -1) for name, rows in gone.items()}
    )
    recipe = Recipe(epochs=1, batch_size=16, optim=SGD(0.05), augment=Plain(), select="last", **choice)
    large, small = (small_model(heads, backbone="test_vit", crop=FULL.resized(32)) for _ in range(2))
    one = fit(large, train, None, recipe, workers=0)
    four = fit(small, train, None, replace(recipe, batch_size=4, grad_accum_steps=4), workers=0)
    for key, value in state_of(large).items():
        torch.testing.assert_close(value, state_of(small)[key], rtol=0, atol=1e-6, msg=key)
    for key in ("loss", "mask_loss", "age_loss"):
        assert one[0][key] == pytest.approx(four[0][key], abs=1e-6), key


def test_seeded_leaves_the_outer_stream_alone():
    device = torch.device("cpu")
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    with seeded(7, device):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), wanted)
    with seeded(7, device):
        assert torch.equal(torch.rand(3), inside)
