import json
from dataclasses import FrozenInstanceError, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multihead.augment import Diary, Flip, Gentle, Plain
from multihead.optim import MADGRAD, SGD, Adam, AdamW
from multihead.options import from_dict, option, to_dict, variants
from multihead.recipe import EMA, Recipe
from multihead.schedules import Constant, Cosine, Cyclic, OneCycle, Step

shares = st.floats(0, 1)
recipes = st.builds(
    Recipe,
    epochs=st.integers(1, 99),
    batch_size=st.integers(1, 512),
    optim=st.one_of(*(st.builds(kind, lr=st.floats(1e-6, 1)) for kind in (AdamW, Adam, SGD, MADGRAD))),
    schedule=st.sampled_from([OneCycle(0.3), Cosine(1.5, 1e-6), Step(), Cyclic(cycle_mode="triangular"), Constant(2)]),
    augment=st.one_of(st.builds(Flip, shares), st.builds(Diary, shares, shares), st.builds(Gentle), st.just(Plain())),
    smoothing=st.floats(0, 0.99),
    head_weights=st.dictionaries(st.sampled_from(["mask", "gender", "age"]), st.floats(0, 9)),
    clip_grad=st.none() | st.floats(0.1, 9),
    ema=st.none() | st.builds(EMA, st.floats(0.1, 0.9999)),
    amp=st.booleans(),
    patience=st.none() | st.integers(1, 9),
    missing=st.sampled_from(["full", "skip", "error"]),
)


def test_a_recipe_by_default():
    recipe = Recipe()
    assert recipe.optim == AdamW(1e-3) and recipe.schedule == OneCycle() and recipe.augment == Flip()
    assert recipe.ema is None and recipe.head_weights == {} and recipe.select == "best"
    with pytest.raises(FrozenInstanceError):
        recipe.epochs = 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "recipe: epochs is 0; expected a whole number >= 1"),
        ({"epochs": 1.5}, "recipe: epochs is 1.5"),
        ({"batch_size": -1}, "recipe: batch_size is -1"),
        ({"grad_accum_steps": 0}, "recipe: grad_accum_steps is 0"),
        ({"recovery_interval": 0}, "recipe: recovery_interval is 0"),
        ({"seed": -1}, "recipe: seed is -1; expected a whole number >= 0"),
        ({"smoothing": 1.0}, "recipe: smoothing is 1.0; expected 0 <= smoothing < 1"),
        ({"smoothing": float("nan")}, "recipe: smoothing is nan"),
        ({"select": "first"}, "recipe: select is 'first'; expected one of best, last"),
        ({"missing": "drop"}, "recipe: missing is 'drop'; expected one of full, skip, error"),
        ({"patience": 0}, "recipe: patience is 0; expected >= 1, with select='best'"),
        ({"patience": 3, "select": "last"}, "recipe: patience is 3"),
        ({"optim": "adamw"}, r"recipe: optim is 'adamw'; expected one of AdamW, Adam, SGD, MADGRAD, as in AdamW\(\)"),
        ({"optim": AdamW}, "recipe: optim is <class"),
        ({"schedule": None}, "recipe: schedule is None; expected one of OneCycle"),
        ({"augment": OneCycle()}, "recipe: augment is OneCycle"),
        ({"ema": 0.99}, "recipe: ema is 0.99; expected one of EMA"),
    ],
)
def test_a_recipe_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OneCycle(1.5), "pct_start is 1.5; expected a share from 0 to 1"),
        (lambda: Step(decay_epochs=0), "decay_epochs is 0; expected a whole number >= 1"),
        (lambda: Cyclic(cycle_mode="square"), "cycle_mode is 'square'; expected triangular or triangular2"),
        (lambda: Cyclic(up_epochs=0), "up_epochs 0 and down_epochs 2.0 must be > 0"),
        (lambda: Cyclic(down_epochs=-1.0), "down_epochs -1.0 must be > 0"),
    ],
)
def test_a_schedule_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_variants_are_the_fields_that_hold_objects():
    found = variants(Recipe)
    assert list(found) == ["optim", "schedule", "augment", "ema"]
    assert found["optim"] == (AdamW, Adam, SGD, MADGRAD) and found["ema"] == (EMA,)
    assert variants(AdamW) == {}


def test_to_dict_by_hand():
    plain = to_dict(Recipe(epochs=3, optim=SGD(0.1), ema=EMA(0.9), head_weights={"age": 2.0}))
    assert plain["optim"] == {"name": "SGD", "lr": 0.1, "weight_decay": 1e-4, "momentum": 0.9}
    assert plain["ema"] == {"name": "EMA", "model_ema_decay": 0.9} and plain["augment"] == {
        "name": "Flip",
        "hflip": 0.5,
    }
    assert plain["head_weights"] == {"age": 2.0} and plain["epochs"] == 3 and plain["clip_grad"] is None
    assert set(plain) == {item.name for item in fields(Recipe)}


@given(recipes)
def test_a_recipe_survives_json(recipe):
    assert from_dict(Recipe, json.loads(json.dumps(to_dict(recipe)))) == recipe


def test_from_dict_takes_a_part_and_objects():
    assert from_dict(Recipe, {}) == Recipe() and from_dict(Recipe, {"optim": SGD(0.2)}).optim == SGD(0.2)
    assert from_dict(Recipe, {"optim": {"name": "SGD"}}).optim == SGD()


def test_from_dict_refuses():
    with pytest.raises(ValueError, match=r"recipe: unknown fields \['learning_rate'\]; expected some of"):
        from_dict(Recipe, {"learning_rate": 1})
    with pytest.raises(
        ValueError, match=r"recipe: optim is 'Lion'; expected one of \['Adam', 'AdamW', 'MADGRAD', 'SGD"
    ):
        from_dict(Recipe, {"optim": {"name": "Lion"}})
    with pytest.raises(ValueError, match="recipe: schedule is {.pct_start"):
        from_dict(Recipe, {"schedule": {"pct_start": 0.1}})
    with pytest.raises(ValueError, match="recipe: epochs is 0"):
        from_dict(Recipe, {"epochs": 0})


def test_option_keeps_its_help():
    item = option(3, "how many", "count", short="-n")
    assert item.default == 3 and dict(item.metadata) == {"help": "how many", "flag": "count", "short": "-n"}
    assert all(field.metadata["help"] for field in fields(Recipe))


def test_replace_checks_again():
    with pytest.raises(ValueError, match="epochs is 0"):
        replace(Recipe(), epochs=0)
