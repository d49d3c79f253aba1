import pytest
import yaml
from hypothesis import given
from test_flags import Tool, parser
from test_recipe import recipes

from multihead.augment import Diary, Flip, Grey, Plain
from multihead.flag_files import effective, read_yaml, yaml_tokens
from multihead.flags import build
from multihead.losses import Ordinal
from multihead.mixing import CutMix
from multihead.optim import MADGRAD, AdamW
from multihead.recipe import EMA, Recipe
from multihead.schedules import Step


def tokens(settings, tmp_path, made=None):
    path = tmp_path / "settings.yaml"
    path.write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings), encoding="utf-8")
    return yaml_tokens(read_yaml(path), made or parser(), path)


def test_effective_by_hand():
    plain = effective(Recipe, Recipe(optim=MADGRAD(0.1), augment=Plain(), ema=EMA(), head_weights={"age": 2.0}))
    assert plain["opt"] == "madgrad" and plain["lr"] == 0.1 and plain["momentum"] == 0.9 and plain["aug"] == "plain"
    assert plain["model_ema"] is True and plain["model_ema_decay"] == 0.999 and plain["head_weights"] == {"age": 2.0}
    assert "clip_grad" not in plain and "hflip" not in plain
    plain = effective(Recipe, Recipe(losses={"age": Ordinal(0.3)}, augment=(Flip(), Grey(0.2)), mix=CutMix()))
    assert plain["loss"] == {"age": "ordinal(share=0.3)"} and plain["aug"] == ["flip", "grey(prob=0.2)"]
    assert plain["mix"] == "cutmix" and "hflip" not in plain and "sampler" not in plain and plain["balance"] == "fixed"
    plain = effective(Recipe, Recipe(augment=Grey(), drop_zones=((57, 59), (28.1234567, 29)), age_edges=(30, 58)))
    assert (
        plain["aug"] == "grey" and plain["drop_zones"] == ["57-59", "28.1234567-29"] and plain["age_edges"] == [30, 58]
    )
    assert effective(Tool, Tool(size=(1, 2))) == {"name": "x", "resize": [1, 2], "fast": True}


def test_no_loss_of_any_head_is_the_default_loss(tmp_path):
    found, _ = tokens(effective(Recipe, Recipe(losses={})), tmp_path)
    assert build(Recipe, vars(parser().parse_args(found))) == Recipe()


@pytest.fixture(scope="module")
def folder_and_parser(tmp_path_factory):
    return tmp_path_factory.mktemp("yaml"), parser()


@given(recipes)
def test_every_recipe_survives_yaml(folder_and_parser, recipe):
    folder, made = folder_and_parser
    found, positionals = tokens(effective(Recipe, recipe), folder, made)
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
        read_yaml(tmp_path / "none.yaml")
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


def test_a_key_given_twice_is_refused(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("epochs: 3\narms:\n  a: {opt: adam}\n  b: {}\n  a: {opt: sgd}\n")
    with pytest.raises(ValueError, match="line 5 repeats the key 'a'"):
        read_yaml(path)
