import json
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multihead.augment import (
    CLAHE,
    BoxJitter,
    Cutout,
    Diary,
    DrawnMask,
    Flip,
    Gentle,
    Grey,
    Plain,
    RandAugment,
    members,
)
from multihead.balance import DWA, Fixed, Uncertainty
from multihead.losses import CrossEntropy, Focal, Ordinal, SoftF1, Sum, SymmetricCrossEntropy
from multihead.mixing import CutMix, InvertedCutMix, MixUp
from multihead.optim import MADGRAD, SGD, Adam, AdamW, Timm
from multihead.options import to_dict
from multihead.recipe import EMA, Recipe
from multihead.samplers import Shares, Weighted
from multihead.schedules import Constant, Cosine, CosineRestarts, Cyclic, OneCycle, Plateau, Step

shares, rates, epochs = st.floats(0, 1), st.floats(1e-6, 1), st.floats(0, 9)
names = st.sampled_from(["mask", "gender", "age"])
interval = st.sampled_from(["batch", "epoch"])
weights = st.none() | st.sampled_from(["inverse", "effective"]) | st.tuples(epochs, st.floats(0.1, 9), epochs)
smoothing = st.floats(0, 0.99)
mixed = {"prob": shares, "alpha": st.floats(0.1, 9), "off_epoch": st.integers(0, 9)}
plain_losses = st.one_of(
    st.builds(CrossEntropy, class_weights=weights, smoothing=smoothing),
    st.builds(Focal, gamma=epochs, class_weights=weights, smoothing=smoothing),
    st.just(SoftF1()),
    st.builds(SymmetricCrossEntropy, alpha=epochs, beta=epochs, class_weights=weights),
)


def sum_of(losses, most):
    """Weighted sums of one to so many of these losses, of which some has a weight."""
    parts = st.lists(st.tuples(losses, epochs), min_size=1, max_size=most)
    return parts.filter(lambda drawn: any(weight for _, weight in drawn)).map(lambda drawn: Sum(*zip(*drawn)))


sums = sum_of(plain_losses, 3)

# every class of settings that a recipe may hold, with any values: {class: strategy}
settings = {
    **{kind: st.builds(kind, lr=rates, weight_decay=shares) for kind in (AdamW, Adam)},
    **{kind: st.builds(kind, lr=rates, weight_decay=shares, momentum=shares) for kind in (SGD, MADGRAD)},
    Timm: st.builds(Timm, st.sampled_from(["lamb", "lookahead_adamw"]), rates, shares, shares),
    OneCycle: st.builds(OneCycle, shares, interval),
    Cosine: st.builds(Cosine, epochs, rates, interval),
    CosineRestarts: st.builds(CosineRestarts, st.floats(0.5, 9), st.floats(1, 3), rates, rates, epochs, interval),
    Step: st.builds(Step, epochs, st.integers(1, 9), rates),
    Plateau: st.builds(Plateau, decay_rate=rates, patience_epochs=st.integers(0, 9), threshold=shares),
    Cyclic: st.builds(Cyclic, cycle_mode=st.sampled_from(["triangular", "exp_range"]), up_epochs=st.floats(0.1, 9)),
    Constant: st.builds(Constant, epochs),
    Flip: st.builds(Flip, shares),
    Diary: st.builds(Diary, shares, shares),
    Gentle: st.builds(Gentle, shares, rotate=st.floats(0, 40), color_jitter=shares),
    Plain: st.just(Plain()),
    RandAugment: st.builds(RandAugment, st.integers(1, 9), st.floats(0, 10), shares),
    Cutout: st.builds(Cutout, shares, rates),
    CLAHE: st.builds(CLAHE, shares, st.floats(0.1, 9)),
    Grey: st.builds(Grey, shares),
    BoxJitter: st.builds(BoxJitter, shares, st.floats(0, 0.9)),
    DrawnMask: st.builds(DrawnMask, shares, shares),
    CutMix: st.builds(CutMix, shape=st.sampled_from(["box", "strip", "half"]), **mixed),
    MixUp: st.builds(MixUp, **mixed),
    InvertedCutMix: st.builds(InvertedCutMix, **mixed),
    **{kind: plain_losses.filter(lambda loss, kind=kind: isinstance(loss, kind)) for kind in (CrossEntropy, Focal)},
    SoftF1: st.just(SoftF1()),
    SymmetricCrossEntropy: plain_losses.filter(lambda loss: isinstance(loss, SymmetricCrossEntropy)),
    Ordinal: st.builds(Ordinal, shares, plain_losses | sums),
    Sum: sum_of(plain_losses | sums, 2),
    Fixed: st.just(Fixed()),
    Uncertainty: st.just(Uncertainty()),
    DWA: st.builds(DWA, st.floats(0.1, 9)),
    Weighted: st.builds(Weighted, names | st.just("joint"), epochs),
    Shares: st.dictionaries(st.text(min_size=1), st.floats(0, 0.3), min_size=1, max_size=3).map(Shares),
    EMA: st.builds(EMA, st.floats(0.1, 0.9999)),
}


def one_of(*kinds):
    return st.one_of(*(settings[kind] for kind in kinds))


def together(parts):
    """Changes as a tuple that a recipe takes: one of each kind, and only the first that mirrors does."""
    found, mirrors = [], False
    for part in {type(part): part for part in parts}.values():
        if mirrors and getattr(part, "hflip", 0):
            part = replace(part, hflip=0.0)
        mirrors = mirrors or bool(getattr(part, "hflip", 0))
        found.append(part)
    return tuple(found) if len(found) > 1 else found[0]


augments = one_of(Flip, Diary, Gentle, Plain, RandAugment, Cutout, CLAHE, Grey, BoxJitter, DrawnMask)
losses = plain_losses | settings[Ordinal] | settings[Sum]
years = st.integers(0, 400).map(lambda quarters: quarters / 4)
recipes = st.builds(
    Recipe,
    epochs=st.integers(1, 99),
    batch_size=st.integers(1, 512),
    epoch_photos=st.none() | st.integers(1, 9999),
    optim=one_of(AdamW, Adam, SGD, MADGRAD, Timm),
    head_lr=st.floats(0.1, 99),
    layer_decay=st.none() | rates,
    schedule=one_of(OneCycle, Cosine, CosineRestarts, Step, Plateau, Cyclic, Constant),
    augment=augments | st.lists(augments, min_size=2, max_size=4).map(together),
    mix=st.none() | one_of(CutMix, MixUp, InvertedCutMix),
    losses=losses | st.dictionaries(names, losses, min_size=1),
    balance=one_of(Fixed, Uncertainty, DWA),
    head_weights=st.dictionaries(names, epochs),
    smoothing=smoothing,
    sampler=st.none() | one_of(Weighted, Shares),
    freeze_epochs=st.integers(0, 9),
    crop_drop=shares,
    age_edges=st.none() | st.lists(years, min_size=1, max_size=4, unique=True).map(lambda found: tuple(sorted(found))),
    drop_zones=st.lists(st.lists(years, min_size=2, max_size=2).map(lambda zone: tuple(sorted(zone)))).map(tuple),
    soft_bands=st.none() | st.floats(0.1, 9),
    distill=shares,
    grad_accum_steps=st.integers(1, 9),
    clip_grad=st.none() | st.floats(0.1, 9),
    ema=st.none() | settings[EMA],
    amp=st.none() | st.booleans(),
    amp_dtype=st.sampled_from(["bfloat16", "float16"]),
    torchcompile=st.none() | st.booleans(),
    channels_last=st.none() | st.booleans(),
    val_interval=st.none() | st.integers(1, 9),
    patience=st.none() | st.integers(1, 9),
    missing=st.sampled_from(["full", "skip", "error"]),
    recovery_interval=st.integers(1, 999),
    seed=st.integers(0, 2**32),
)


def test_a_recipe_by_default():
    recipe = Recipe()
    assert recipe.optim == AdamW(1e-3) and recipe.schedule == OneCycle() and recipe.augment == Flip()
    assert recipe.losses == CrossEntropy() and recipe.balance == Fixed()
    assert (recipe.ema, recipe.mix, recipe.sampler) == (None, None, None)
    assert recipe.head_weights == {} and recipe.select == "best"
    with pytest.raises(FrozenInstanceError):
        recipe.epochs = 3


@given(recipes)
def test_a_recipe_takes_what_its_fields_say(recipe):
    assert replace(recipe) == recipe
    assert replace(recipe, augment=members(recipe.augment)).augment == members(recipe.augment)


def test_the_strategy_draws_every_field():
    """`select` alone is left out: patience goes with "best" only."""
    drawn = recipes.wrapped_strategy.kwargs if hasattr(recipes, "wrapped_strategy") else recipes.kwargs
    assert set(drawn) == {item.name for item in fields(Recipe)} - {"select"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "recipe: epochs is 0; expected a whole number >= 1"),
        ({"epochs": 1.5}, "recipe: epochs is 1.5"),
        ({"batch_size": -1}, "recipe: batch_size is -1"),
        ({"epoch_photos": 0}, "recipe: epoch_photos is 0; expected a whole number >= 1"),
        ({"epoch_photos": 2.0}, "recipe: epoch_photos is 2.0"),
        ({"grad_accum_steps": 0}, "recipe: grad_accum_steps is 0"),
        ({"recovery_interval": 0}, "recipe: recovery_interval is 0"),
        ({"val_interval": 0}, "recipe: val_interval is 0; expected a whole number >= 1"),
        ({"freeze_epochs": -1}, "recipe: freeze_epochs is -1; expected a whole number >= 0"),
        ({"seed": -1}, "recipe: seed is -1; expected a whole number >= 0"),
        ({"smoothing": 1.0}, "recipe: smoothing is 1.0; expected 0 <= smoothing < 1"),
        ({"smoothing": float("nan")}, "recipe: smoothing is nan"),
        ({"smoothing": "0.1"}, "recipe: smoothing is '0.1'; expected 0 <= smoothing < 1"),
        ({"head_lr": None}, "recipe: head_lr is None; expected a number > 0"),
        ({"select": "first"}, "recipe: select is 'first'; expected one of best, last"),
        ({"missing": "drop"}, "recipe: missing is 'drop'; expected one of full, skip, error"),
        ({"distill": 1.1}, "recipe: distill is 1.1; expected a number >= 0 and <= 1"),
        ({"crop_drop": -0.1}, "recipe: crop_drop is -0.1; expected a number >= 0 and <= 1"),
        ({"head_lr": 0}, "recipe: head_lr is 0; expected a number > 0"),
        ({"layer_decay": 0.0}, "recipe: layer_decay is 0.0; expected a number > 0"),
        ({"soft_bands": -2}, "recipe: soft_bands is -2; expected a number > 0"),
        ({"drop_zones": ((59, 57),)}, r"recipe: drop_zones is \(\(59, 57\),\); expected pairs of years"),
        ({"drop_zones": ((57,),)}, r"recipe: drop_zones is \(\(57,\),\)"),
        ({"drop_zones": (57, 59)}, r"recipe: drop_zones is \(57, 59\); expected pairs of years, as \(\(57, 59\),\)"),
        ({"age_edges": (30, float("nan"))}, r"recipe: age_edges is \(30, nan\); expected numbers"),
        ({"age_edges": ("30", "58")}, r"recipe: age_edges is \('30', '58'\); expected numbers"),
        ({"drop_zones": None}, r"recipe: drop_zones is None; expected pairs of years"),
        ({"drop_zones": (("57", "59"),)}, r"recipe: drop_zones is \('57', '59'\); expected numbers"),
        ({"age_edges": (60, 30)}, r"recipe: age_edges is \(60, 30\); expected rising numbers of years"),
        ({"age_edges": (30, 30)}, r"recipe: age_edges is \(30, 30\)"),
        ({"patience": 0}, "recipe: patience is 0; expected a whole number >= 1"),
        ({"patience": 3, "select": "last"}, "recipe: patience is 3"),
        ({"amp": "yes"}, "recipe: amp is 'yes'; expected True, False or None"),
        ({"layer_decay": 2.0}, "recipe: layer_decay is 2.0; expected a number > 0 and <= 1"),
        ({"head_weights": [1, 2]}, r"recipe: head_weights is \[1, 2\]; expected them by head"),
        ({"optim": "adamw"}, r"optim is 'adamw'; expected one of AdamW, Adam, SGD, MADGRAD, Timm, as in AdamW\(\)"),
        ({"optim": AdamW}, "recipe: optim is <class"),
        ({"schedule": None}, "recipe: schedule is None; expected one of OneCycle"),
        ({"augment": OneCycle()}, "augment is OneCycle.*; expected one of Flip, Diary"),
        ({"augment": (Flip(), Gentle())}, "which all mirror; expected hflip=0 in all but one"),
        ({"ema": 0.99}, "recipe: ema is 0.99; expected one of EMA"),
        ({"mix": 0.5}, r"recipe: mix is 0.5; expected one of CutMix, MixUp, InvertedCutMix, as in CutMix\(\)"),
        ({"sampler": "joint"}, "recipe: sampler is 'joint'; expected one of Weighted, Shares"),
        ({"balance": None}, "recipe: balance is None; expected one of Fixed, Uncertainty, DWA"),
        ({"losses": None}, "recipe: losses: None is no loss; expected one of CrossEntropy, Focal"),
        ({"losses": {"age": "focal"}}, "recipe: losses: 'focal' is no loss; expected one of CrossEntropy"),
        ({"losses": {"age": max}}, r"losses: <built-in function max> is no loss; .*function of your own as Custom\("),
        ({"losses": {"age": None}}, "recipe: losses: None is no loss"),
    ],
)
def test_a_recipe_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OneCycle(1.5), "pct_start is 1.5; expected a number >= 0 and <= 1"),
        (lambda: Step(decay_epochs=0), "decay_epochs is 0; expected a whole number >= 1"),
        (lambda: Cyclic(cycle_mode="square"), "cycle_mode is 'square'; expected one of triangular, triangular2, exp_"),
        (lambda: Cyclic(up_epochs=float("nan")), "cyclic: up_epochs is nan; expected a number > 0"),
        (lambda: Step(decay_epochs=1.5), "step: decay_epochs is 1.5; expected a whole number >= 1"),
        (lambda: Cyclic(up_epochs=0), "cyclic: up_epochs is 0; expected a number > 0"),
        (lambda: Cyclic(down_epochs=-1.0), "cyclic: down_epochs is -1.0; expected a number > 0"),
    ],
)
def test_a_schedule_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_lists_and_arrays_are_tuples():
    """A checkpoint holds them, and knows its run by them."""
    loss = Sum([SoftF1(), Focal()], np.array([0.4, 0.6]))
    recipe = Recipe(age_edges=np.array([30, 58]), drop_zones=[[57, 59]], losses=loss)
    assert recipe == Recipe(age_edges=(30, 58), drop_zones=((57, 59),), losses=Sum((SoftF1(), Focal()), (0.4, 0.6)))
    assert json.loads(json.dumps(to_dict(recipe))) == to_dict(recipe)
    assert Recipe(age_edges=()) == Recipe()
    assert Recipe(drop_zones=(zone for zone in [(57, 59)])) == Recipe(drop_zones=((57, 59),))


def test_replace_checks_again():
    with pytest.raises(ValueError, match="epochs is 0"):
        replace(Recipe(), epochs=0)
    with pytest.raises(ValueError, match="mix is 3"):
        replace(Recipe(), mix=3)


@pytest.mark.parametrize("nothing", [None, (), []])
def test_no_augmentation(nothing):
    assert Recipe(augment=nothing) == Recipe(augment=Plain())
