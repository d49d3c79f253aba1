import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields

import pytest
from hypothesis import given
from test_recipe import recipes

from multihead.augment import Cutout, Flip, Grey
from multihead.balance import DWA
from multihead.losses import CrossEntropy, Focal, Ordinal, SoftF1, Sum
from multihead.mixing import CutMix, InvertedCutMix, MixUp
from multihead.optim import MADGRAD, SGD, Adam, AdamW, Timm
from multihead.options import between, choice, dataclasses_in, from_dict, near, option, takes_many, to_dict, variants
from multihead.recipe import EMA, Recipe
from multihead.samplers import Shares, Weighted


@dataclass(frozen=True)
class Nut:
    """A part."""

    size: int = option(3, "size")


@dataclass(frozen=True)
class Bolt:
    """A part that holds another."""

    nut: Nut | None = option(None, "its nut")


@dataclass(frozen=True)
class Box:
    """A dataclass that holds parts in every way."""

    one: Nut = option(None, "one", "", Nut)
    many: Nut | tuple[Bolt, ...] = option((), "many")
    named: Mapping[str, Bolt | Nut] = option(None, "named", "", dict)
    sizes: tuple[int, ...] = option((), "numbers")


# ---- fields


def test_option_keeps_its_help():
    item = option(3, "how many", "count", short="-n")
    wanted = {"help": "how many", "flag": "count", "short": "-n", "flagged": None}
    assert item.default == 3 and dict(item.metadata) == wanted
    assert option(None, "part", flagged=(Nut,)).metadata["flagged"] == (Nut,)
    assert option("a", "which", metavar="{a,b}").metadata["metavar"] == "{a,b}"
    assert all(field.metadata["help"] for field in fields(Recipe))


def test_a_factory_makes_a_new_default_each_time():
    assert Box().named is not Box().named and Box().one == Nut()
    assert option(None, "x", "", dict).default is dataclasses.MISSING


def test_every_setting_of_a_recipe_has_a_help():
    for classes in variants(Recipe).values():
        assert all(item.metadata["help"] for kind in classes for item in fields(kind))


def test_variants_are_the_fields_that_hold_objects():
    found = variants(Recipe)
    assert list(found) == ["optim", "schedule", "augment", "mix", "losses", "balance", "sampler", "ema"]
    assert found["optim"] == (AdamW, Adam, SGD, MADGRAD, Timm) and found["ema"] == (EMA,)
    assert found["mix"] == (CutMix, MixUp, InvertedCutMix) and found["sampler"] == (Weighted, Shares)
    assert found["losses"][:3] == (CrossEntropy, Focal, SoftF1) and len(found["losses"]) == 7
    assert variants(AdamW) == {} and variants(Ordinal)["loss"] == found["losses"]
    assert variants(Box) == {"one": (Nut,), "many": (Nut, Bolt), "named": (Bolt, Nut)}


@pytest.mark.parametrize(
    ("hint", "classes", "many"),
    [
        (Nut, (Nut,), False),
        (Nut | None, (Nut,), False),
        (Nut | tuple[Nut, ...], (Nut,), True),
        (tuple[Bolt, ...], (Bolt,), True),
        (Mapping[str, Nut | Bolt], (Nut, Bolt), False),
        (tuple[int, ...] | None, (), True),
        (int, (), False),
    ],
)
def test_what_a_hint_holds(hint, classes, many):
    assert dataclasses_in(hint) == classes and takes_many(hint) == many


# ---- checks


def test_choice():
    assert choice("box", "lid", "open", ("open", "shut")) is None
    with pytest.raises(ValueError, match="box: lid is 'ajar'; expected one of open, shut"):
        choice("box", "lid", "ajar", ("open", "shut"))


@pytest.mark.parametrize(
    ("value", "bounds", "options", "message"),
    [
        (0, (0, 1), {}, None),
        (1, (0, 1), {}, None),
        (1e9, (0,), {}, None),
        (1.01, (0, 1), {}, "box: size is 1.01; expected a number >= 0 and <= 1"),
        (-0.1, (0,), {}, "box: size is -0.1; expected a number >= 0$"),
        (0, (0,), {"open_low": True}, "box: size is 0; expected a number > 0$"),
        (float("nan"), (0,), {}, "box: size is nan"),
        ("1", (0, 1), {}, "box: size is '1'"),
        (None, (0, 1), {}, "box: size is None"),
    ],
)
def test_between(value, bounds, options, message):
    if message is None:
        assert between("box", "size", value, *bounds, **options) is None
        return
    with pytest.raises(ValueError, match=message):
        between("box", "size", value, *bounds, **options)


# ---- plain data


def test_to_dict_by_hand():
    plain = to_dict(Recipe(epochs=3, optim=SGD(0.1), ema=EMA(0.9), head_weights={"age": 2.0}))
    assert plain["optim"] == {"name": "SGD", "lr": 0.1, "weight_decay": 1e-4, "momentum": 0.9}
    assert plain["ema"] == {"name": "EMA", "model_ema_decay": 0.9}
    assert plain["augment"] == {"name": "Flip", "hflip": 0.5}
    assert plain["head_weights"] == {"age": 2.0} and plain["epochs"] == 3 and plain["clip_grad"] is None
    assert set(plain) == {item.name for item in fields(Recipe)}


def test_objects_within_objects_by_hand():
    recipe = Recipe(
        augment=(Flip(), Grey(0.2)),
        losses={"age": Ordinal(0.1, Sum((SoftF1(), Focal(1.0)), (0.4, 0.6)))},
        sampler=Shares({"a": 0.5}),
        drop_zones=((57, 59),),
        balance=DWA(1.5),
    )
    plain = to_dict(recipe)
    assert plain["augment"] == [{"name": "Flip", "hflip": 0.5}, {"name": "Grey", "prob": 0.2}]
    added = plain["losses"]["age"]["loss"]
    assert added["name"] == "Sum" and added["weights"] == [0.4, 0.6] and added["losses"][0] == {"name": "SoftF1"}
    assert plain["sampler"] == {"name": "Shares", "shares": {"a": 0.5}} and plain["drop_zones"] == [[57, 59]]
    assert plain["balance"] == {"name": "DWA", "temperature": 1.5}
    assert from_dict(Recipe, plain) == recipe


@given(recipes)
def test_a_recipe_survives_json(recipe):
    again = from_dict(Recipe, json.loads(json.dumps(to_dict(recipe))))
    assert again == recipe and to_dict(again) == to_dict(recipe)


def test_from_dict_takes_a_part_and_objects():
    assert from_dict(Recipe, {}) == Recipe() and from_dict(Recipe, {"optim": SGD(0.2)}).optim == SGD(0.2)
    assert from_dict(Recipe, {"optim": {"name": "SGD"}}).optim == SGD()
    assert from_dict(Recipe, {"augment": [Flip(), {"name": "Cutout"}]}).augment == (Flip(), Cutout())
    assert from_dict(Recipe, {"losses": {"age": {"name": "Focal", "gamma": 3}}}).losses == {"age": Focal(3)}
    box = from_dict(Box, {"named": {"a": {"name": "Bolt", "nut": {"name": "Nut", "size": 5}}}, "sizes": [1, 2]})
    assert box == Box(named={"a": Bolt(Nut(5))}, sizes=(1, 2))


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"learning_rate": 1}, r"recipe: unknown fields \['learning_rate'\]; expected some of"),
        (
            {"optim": {"name": "Lion"}},
            r"recipe: optim is 'Lion'; expected one of \['Adam', 'AdamW', 'MADGRAD', 'SGD', 'T",
        ),
        ({"schedule": {"pct_start": 0.1}}, "recipe: schedule is {.pct_start"),
        ({"epochs": 0}, "recipe: epochs is 0"),
        ({"mix": {"name": "Flip"}}, "recipe: mix is 'Flip'; expected one of"),
        ({"losses": {"age": {"name": "SGD"}}}, "recipe: losses is 'SGD'; expected one of"),
        ({"losses": {"name": "Focal", "gama": 1}}, r"focal: unknown fields \['gama'\]"),
        ({"augment": [{"name": "Flip"}, {"name": "Gentle"}]}, "which all mirror"),
    ],
)
def test_from_dict_refuses(plain, message):
    with pytest.raises(ValueError, match=message):
        from_dict(Recipe, plain)


def test_importing_the_settings_loads_nothing_heavy():
    code = (
        "import sys, multihead.recipe, multihead.spelling, multihead.flags, multihead.settings\n"
        "print(sorted({'torch', 'numpy', 'pandas', 'cv2', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_near():
    assert near("focl", ["focal", "sum"]) == "; did you mean 'focal'?" and near("zzz", iter(["focal"])) == ""
