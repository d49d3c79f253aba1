import argparse
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import yaml
from hypothesis import given
from test_recipe import recipes

from multihead.augment import Diary, Gentle, Plain
from multihead.flags import Parser, add_flags, build, dest, effective, flag, one_of, yaml_tokens
from multihead.optim import MADGRAD, SGD, AdamW
from multihead.options import option, variants
from multihead.recipe import EMA, Recipe
from multihead.schedules import Cosine, OneCycle, Step


@dataclass(frozen=True)
class Tool:
    """A small dataclass with every kind of field."""

    name: str = option("x", "a name, 100% free")
    size: tuple[int, ...] = option((224,), "sizes", "resize")
    parts: tuple[str, ...] = option((), "parts")
    share: float | None = option(None, "share", short="-s")
    fast: bool = option(True, "speed")
    weights: Mapping[str, float] = option(None, "weights", "", dict)


def parser(*kinds, positional=False):
    made = Parser(prog="tool")
    if positional:
        made.add_argument("data", nargs="*")
    made.add_argument("-c", "--config")
    for kind in kinds or (Recipe,):
        add_flags(made, kind, kind.__name__)
    return made


def parse(line, kind=Recipe):
    return build(kind, vars(parser(kind).parse_args(line.split())))


def tokens(settings, tmp_path, made=None):
    path = tmp_path / "settings.yaml"
    path.write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings), encoding="utf-8")
    return yaml_tokens(path, made or parser())


# ---- flags to settings


def test_nothing_given_is_the_default():
    assert parse("") == Recipe() and parse("", Tool) == Tool()
    assert set(vars(parser().parse_args([])).values()) == {None}


def test_flags_of_every_kind():
    found = parse("--name b --resize 280 210 --parts a b --share 0.5 --no-fast --weights age=2 mask=.5", Tool)
    assert found == Tool("b", (280, 210), ("a", "b"), 0.5, False, {"age": 2.0, "mask": 0.5})
    assert parse("-s 1 --fast", Tool).share == 1.0


def test_flags_of_objects():
    recipe = parse(
        "-b 8 --opt sgd --momentum 0.5 --lr 0.3 --sched cosine --min-lr 1e-4 --aug GENTLE --rotate 3 --hflip 0"
    )
    assert recipe.optim == SGD(0.3, momentum=0.5) and recipe.schedule == Cosine(min_lr=1e-4) and recipe.batch_size == 8
    assert recipe.augment == Gentle(hflip=0.0, rotate=3.0)


def test_a_field_alone_changes_the_default_object():
    assert parse("--lr 0.01").optim == AdamW(0.01) and parse("--pct-start 0.1").schedule == OneCycle(0.1)


def test_an_optional_object():
    assert parse("--model-ema").ema == EMA() and parse("--model-ema-decay 0.9").ema == EMA(0.9)
    assert parse("--no-model-ema").ema is None and parse("").ema is None


def test_every_field_has_a_flag():
    known = {name for action in parser()._actions for name in action.option_strings}
    assert {flag(item) for item in dataclasses.fields(Recipe)} <= known
    for classes in variants(Recipe).values():
        assert {flag(item) for kind in classes for item in dataclasses.fields(kind)} <= known
    assert {"--opt", "--sched", "--aug", "--lr", "--smoothing", "--batch-size", "-b", "--seed"} <= known


def test_flag_and_dest():
    items = {item.name: item for item in dataclasses.fields(Tool)}
    assert (flag(items["size"]), dest(items["size"])) == ("--resize", "resize")
    items = {item.name: item for item in dataclasses.fields(Recipe)}
    assert (flag(items["batch_size"]), dest(items["batch_size"])) == ("--batch-size", "batch_size")


def test_help_names_defaults_and_choices():
    text = " ".join(parser().format_help().split())
    assert "learning rate (default adamw 0.001, adam 0.001, sgd 0.05, madgrad 0.001)" in text
    assert "optimiser: adamw, adam, sgd, madgrad (default adamw)" in text
    assert "probability of a mirrored photo (default 0.5)" in text and "channels_last (default on)" in text
    assert "a name, 100% free (default x)" in " ".join(parser(Tool).format_help().split())


def test_a_flag_of_another_object_is_refused():
    with pytest.raises(ValueError, match="--momentum has no meaning for --opt adamw; it belongs to sgd, madgrad"):
        parse("--momentum 0.9")
    with pytest.raises(ValueError, match="--rotate has no meaning for --aug diary; it belongs to gentle"):
        parse("--aug diary --rotate 5")
    with pytest.raises(ValueError, match="recipe: smoothing is 1.0"):
        parse("--smoothing 1")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--opt madgrat", "argument --opt: 'madgrat' is none of adamw, adam, sgd, madgrad; did you mean 'madgrad'?"),
        ("--opt rprop", "'rprop' is none of"),
        ("--epochs ten", "argument --epochs: invalid int value: 'ten'"),
        ("--head-weights age", "'age'; expected NAME=VALUE"),
        ("--head-weights age=much", "'age=much': 'much' is no float"),
        ("--epoch 3", "unrecognized arguments: --epoch 3"),  # no guessing from beginnings
    ],
)
def test_wrong_values_end_with_status_2_and_one_line(line, message, capsys):
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(line.split())
    said = capsys.readouterr().err
    assert ended.value.code == 2 and message in said and said.endswith("(see tool --help)\n") and said.count("\n") == 2


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("--epoch=3", "unknown argument '--epoch=3'; did you mean --epochs?"),
        ("--zzz", "unknown argument '--zzz'\n"),
        ("photos", "unknown argument 'photos'\n"),
    ],
)
def test_unknown_arguments_suggest_the_nearest(token, message, capsys):
    made = parser()
    _, rest = made.parse_known_args([token])
    with pytest.raises(SystemExit) as ended:
        made.refuse_unknown(rest)
    assert ended.value.code == 2 and message in capsys.readouterr().err
    assert made.refuse_unknown([]) is None


def test_one_of():
    assert one_of(["full", "face"])("FACE") == "face"
    with pytest.raises(argparse.ArgumentTypeError, match="'fase' is none of full, face; did you mean 'face'"):
        one_of(["full", "face"])("fase")


# ---- settings to flags and YAML


def test_effective_by_hand():
    plain = effective(Recipe, Recipe(optim=MADGRAD(0.1), augment=Plain(), ema=EMA(), head_weights={"age": 2.0}))
    assert plain["opt"] == "madgrad" and plain["lr"] == 0.1 and plain["momentum"] == 0.9 and plain["aug"] == "plain"
    assert plain["model_ema"] is True and plain["model_ema_decay"] == 0.999 and plain["head_weights"] == {"age": 2.0}
    assert "clip_grad" not in plain and "hflip" not in plain
    assert effective(Tool, Tool(size=(1, 2))) == {"name": "x", "resize": [1, 2], "fast": True}


@given(recipes)
def test_every_recipe_survives_yaml(tmp_path_factory, recipe):
    made = parser()
    found, positionals = tokens(effective(Recipe, recipe), tmp_path_factory.mktemp("yaml"), made)
    assert build(Recipe, vars(made.parse_args(found))) == recipe and positionals == {}


def test_yaml_is_read_as_flags(tmp_path):
    made = parser(Recipe, Tool, positional=True)
    text = "data: [a, b c]\nepochs: 3\nbatch-size: 4\nlr: 1e-3\nfast: false\nresize: 224\nparts:\nname: '-x'\n"
    found, positionals = tokens(text, tmp_path, made)
    values = vars(made.parse_args(found))
    assert positionals == {"data": ["a", "b c"]}
    assert build(Tool, values) == Tool(name="-x", fast=False)
    recipe = build(Recipe, values)
    assert recipe.epochs == 3 and recipe.batch_size == 4 and recipe.optim == AdamW(0.001)
    assert tokens("data: photos", tmp_path, made) == ([], {"data": ["photos"]})
    assert tokens("", tmp_path) == ([], {})


def test_yaml_that_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no settings file"):
        yaml_tokens(tmp_path / "none.yaml", parser())
    with pytest.raises(ValueError, match="is no YAML"):
        tokens("a: [", tmp_path)
    with pytest.raises(ValueError, match="holds list; expected lines such as 'epochs: 10'"):
        tokens("- epochs", tmp_path)
    with pytest.raises(ValueError, match="unknown key 'epoch'; did you mean 'epochs'?"):
        tokens("epoch: 3", tmp_path)
    with pytest.raises(ValueError, match="unknown key 'config'"):
        tokens("config: a.yaml", tmp_path)
    with pytest.raises(ValueError, match="amp is 'maybe'; expected true or false"):
        tokens("amp: maybe", tmp_path)


def test_yaml_values_are_checked_as_flags_are(tmp_path, capsys):
    found, _ = tokens({"epochs": "ten"}, tmp_path)
    with pytest.raises(SystemExit):
        parser().parse_args(found)
    assert "argument --epochs: invalid int value: 'ten'" in capsys.readouterr().err


def test_flags_after_the_files_win(tmp_path):
    found, _ = tokens({"opt": "sgd", "epochs": 3, "sched": "step", "aug": "diary"}, tmp_path)
    recipe = build(Recipe, vars(parser().parse_args([*found, "--epochs", "5", "--opt", "adamw"])))
    assert recipe == Recipe(epochs=5, optim=AdamW(), schedule=Step(), augment=Diary())
