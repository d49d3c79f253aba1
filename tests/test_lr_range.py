import copy
import math
import random
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from multihead import lr_range as module
from multihead.crops import FULL
from multihead.heads import HEADS
from multihead.lr_range import RangeTest, lr_range, smooth
from multihead.model import Model
from multihead.optim import SGD
from multihead.reading import read
from multihead.recipe import EMA, Recipe
from multihead.schedules import Plateau
from multihead.steps import Diverged
from multihead.train import fit

RECIPE = Recipe(batch_size=4, seed=1, optim=SGD(momentum=0.0))


@pytest.fixture(scope="module")
def photos(people):
    return read(people / "train")[:30]


@pytest.fixture
def model():
    torch.manual_seed(5)
    return Model("test_resnet", [head.on(FULL.resized(32, 24)) for head in HEADS], drop=0.1)


def test_the_rate_rises_by_equal_factors(model, photos):
    found = lr_range(model, photos, RECIPE, low=1e-5, high=1e-2, steps=31, workers=0)
    assert found.rates == pytest.approx([1e-5 * 10 ** (step / 10) for step in range(31)])
    assert len(found.losses) == len(found.smoothed) == 31 and np.isfinite(found.losses).all()
    assert found.smoothed == tuple(smooth(found.losses))
    assert found.steepest in found.rates and found.lowest == found.rates[int(np.argmin(found.smoothed))]


def test_nothing_of_the_callers_changes(model, photos):
    model.eval()
    before, prior = copy.deepcopy(model.state_dict()), model.prior
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    one = lr_range(model, photos, RECIPE, low=1e-4, high=1, steps=10, workers=0)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]
    after = model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items()) and len(before) == len(after)
    assert not model.training and model.prior == prior
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert lr_range(model, photos, RECIPE, low=1e-4, high=1, steps=10, workers=0) == one


def test_the_losses_are_those_of_training(model, photos):
    """A run whose rate hardly rises is a run at a constant rate."""
    found = lr_range(model, photos, RECIPE, low=0.05, high=0.05 * (1 + 1e-12), steps=12, workers=0)
    constant = replace(RECIPE, epochs=1, epoch_photos=48, optim=SGD(0.05, momentum=0.0), schedule=module.Constant())
    row = fit(model, photos, None, constant, workers=0)[0]
    assert np.mean(found.losses) == pytest.approx(row["loss"], abs=1e-6)


def test_it_stops_where_the_loss_explodes(model, photos):
    found = lr_range(model, photos, RECIPE, low=1e-2, high=1e6, steps=60, workers=0)
    assert 10 <= len(found.losses) < 60 and found.rates[-1] < 1e5
    highest = max(found.smoothed[:-2])
    assert highest <= 4 * min(found.smoothed) or not math.isfinite(found.losses[-1])
    assert found.steepest <= found.lowest < found.rates[-1]


def test_it_stops_four_times_above_the_lowest(model, photos, monkeypatch):
    """A made-up course: nine losses of 2, then of 1, then higher ones."""
    course = iter([2.0] * 9 + [1.0] * 20 + [50.0] * 99)

    def counted(run, losses):
        run.taken.append((run._rate(run.batch // run.recipe.grad_accum_steps - 1), next(course)))

    monkeypatch.setattr("multihead.runs.Run._count", counted)
    found = lr_range(model, photos, RECIPE, steps=60, workers=0)
    assert found.losses == (2.0,) * 9 + (1.0,) * 20 + (50.0,)


def test_a_loss_below_zero_has_no_multiple(model, photos, monkeypatch):
    course = iter([-1.0] * 15 + [3.0] * 99)

    def counted(run, losses):
        run.taken.append((run._rate(run.batch // run.recipe.grad_accum_steps - 1), next(course)))

    monkeypatch.setattr("multihead.runs.Run._count", counted)
    assert len(lr_range(model, photos, RECIPE, steps=30, workers=0).losses) == 30


@pytest.mark.parametrize(("moment", "kind"), [(15, Diverged), (3, Diverged), (15, ValueError)])
def test_a_loss_that_is_no_number_ends_the_range(model, photos, monkeypatch, moment, kind):
    count = iter(range(100))

    def failing(steps, batches, *more):
        number = next(count)
        if number == moment:
            raise kind("the loss is nan")
        return {"loss": 3.0 - 0.1 * number}

    monkeypatch.setattr("multihead.steps.Stepper.gradient", failing)
    monkeypatch.setattr("multihead.runs.Run._step", lambda run: None)
    if (moment, kind) == (15, Diverged):
        assert len(lr_range(model, photos, RECIPE, steps=40, workers=0).losses) == 15
        return
    with pytest.raises(kind, match="the loss is nan"):  # too early; or of another kind: a photo has gone, say
        lr_range(model, photos, RECIPE, steps=40, workers=0)


def test_weights_that_are_no_numbers(model, photos):
    torch.nn.init.constant_(model.head["mask"].weight, math.nan)
    with pytest.raises(ValueError, match="the loss is nan in epoch 1, batch 1"):
        lr_range(model, photos, RECIPE, steps=20, workers=0)


def test_a_step_of_several_batches_counts_once(model, photos):
    recipe = replace(RECIPE, batch_size=2, grad_accum_steps=4)
    found = lr_range(model, photos, recipe, low=1e-3, high=1e-1, steps=11, workers=0)
    assert found.rates == pytest.approx([1e-3 * 10 ** (step / 5) for step in range(11)])
    assert len(found.losses) == 11
    first = fit(model, photos, None, replace(recipe, epochs=1, epoch_photos=8), workers=0)[0]["loss"]
    assert found.losses[0] == pytest.approx(first, abs=1e-6)  # the mean of its four batches


def test_what_a_recipe_asks_of_a_whole_run_is_left_aside(model, photos):
    recipe = replace(RECIPE, ema=EMA(), schedule=Plateau(), patience=3, freeze_epochs=2)
    found, plain = (lr_range(model, photos, one, low=1e-3, high=1, steps=10, workers=0) for one in (recipe, RECIPE))
    assert found == plain


@pytest.mark.parametrize("bounds", [{"low": 0.0}, {"low": 1.0}, {"low": -1.0}, {"high": 1e-9}, {"steps": 9}])
def test_bounds_that_do_not_rise(model, photos, bounds):
    with pytest.raises(ValueError, match="expected 0 < low < high and 10 steps or more"):
        lr_range(model, photos, RECIPE, **bounds)


# ---- the course


def test_smoothing_by_hand():
    assert smooth([1.0]) == pytest.approx([1.0])
    assert smooth([1.0, 0.0, 2.0], 0.5) == pytest.approx([1.0, 1 / 3, (0.125 + 1.0) / 0.875])


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30))
def test_smoothing_is_a_weighted_mean(losses):
    for number, mean in enumerate(smooth(losses), 1):
        weights = 0.9 ** np.arange(number)[::-1]
        assert mean == pytest.approx(np.average(losses[:number], weights=weights), abs=1e-9)


def test_steepest_and_lowest_by_hand(monkeypatch):
    monkeypatch.setattr(module, "smooth", list)
    rates = [10.0**power for power in range(-6, 1)]
    found = module._result(rates, [5.0, 5.0, 4.5, 3.0, 2.8, 2.7, 9.0])
    assert (found.steepest, found.lowest) == (pytest.approx(1e-4), pytest.approx(1e-1))  # from 5 to 3
    rising = module._result(rates, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    assert (rising.steepest, rising.lowest) == (rates[1], rates[0])


@given(st.lists(st.floats(0.1, 10), min_size=10, max_size=40))
def test_steepest_and_lowest_by_numpy(losses):
    rates = np.geomspace(1e-5, 1, len(losses))
    found = module._result(rates.tolist(), losses)
    means = np.array(smooth(losses))
    bottom = int(means.argmin())
    slopes = np.gradient(means, np.log(rates))[1 : max(2, bottom)]
    assert found.lowest == rates[bottom]
    assert slopes[list(rates).index(found.steepest) - 1] == pytest.approx(slopes.min(), abs=1e-9)


def test_the_table_and_the_picture(tmp_path, monkeypatch):
    drawn, plain = {}, module.plots.lines

    def lines(path, series, **options):
        drawn.update({name: values for name, (_, values) in series.items()})
        plain(path, series, **options)

    monkeypatch.setattr(module.plots, "lines", lines)
    found = RangeTest((0.1, 1.0, 10.0), (3.0, 2.0, 9.0), (3.0, 2.5, 5.0), 1.0, 1.0)
    found.write(tmp_path / "deep" / "range.csv")
    table = pd.read_csv(tmp_path / "deep" / "range.csv")
    assert table.to_dict("list") == {"lr": [0.1, 1, 10], "loss": [3, 2, 9], "smoothed": [3, 2.5, 5]}
    assert drawn == {"each step": [3, 2, 4.5], "smoothed": [3, 2.5, 4.5]}  # cut at half above the first, highest loss
    with Image.open(tmp_path / "deep" / "range.png") as picture:
        picture.load()
        assert picture.format == "PNG" and picture.width > 600
