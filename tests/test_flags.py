import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from multihead.augment import BoxJitter, Diary, Flip, Gentle, Grey
from multihead.balance import DWA
from multihead.flags import add_flags, build, dest, flag
from multihead.losses import Focal, Ordinal, SoftF1, Sum
from multihead.masks import DrawnMask
from multihead.mixing import CutMix
from multihead.optim import SGD, AdamW
from multihead.options import option, variants
from multihead.parsers import Parser
from multihead.recipe import EMA, Recipe
from multihead.samplers import Weighted
from multihead.schedules import Cosine, OneCycle


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
    chosen = {item.name: item.metadata["flagged"] for item in dataclasses.fields(Recipe)}
    for name, classes in variants(Recipe).items():
        flagged = classes if chosen[name] is None else chosen[name]
        assert {flag(item) for kind in flagged for item in dataclasses.fields(kind)} <= known
    assert chosen["augment"] == (Flip, Diary, Gentle) and chosen["optim"] is None and chosen["losses"] == ()
    assert not {"--gamma", "--prob", "--alpha", "--size", "--share", "--weights", "--temperature"} & known
    assert {"--opt", "--sched", "--aug", "--lr", "--smoothing", "--batch-size", "-b", "--seed"} <= known


def test_flag_and_dest():
    items = {item.name: item for item in dataclasses.fields(Tool)}
    assert (flag(items["size"]), dest(items["size"])) == ("--resize", "resize")
    items = {item.name: item for item in dataclasses.fields(Recipe)}
    assert (flag(items["batch_size"]), dest(items["batch_size"])) == ("--batch-size", "batch_size")


def test_help_names_defaults_and_choices():
    text = " ".join(parser().format_help().split())
    assert "learning rate (default adamw 0.001, adam 0.001, sgd 0.05, madgrad 0.001, timm 0.001)" in text
    assert "optimiser: adamw, adam, sgd, madgrad, timm (default adamw)" in text
    assert "probability of a mirrored photo (default 0.5)" in text and "channels_last (default: timed)" in text
    assert "a name, 100% free (default x)" in " ".join(parser(Tool).format_help().split())


def test_a_flag_of_another_object_is_refused():
    with pytest.raises(ValueError, match="--momentum has no meaning for --opt adamw; it belongs to sgd, madgrad, timm"):
        parse("--momentum 0.9")
    with pytest.raises(ValueError, match="--rotate has no meaning for --aug diary; it belongs to gentle"):
        parse("--aug diary --rotate 5")
    with pytest.raises(ValueError, match="recipe: smoothing is 1.0"):
        parse("--smoothing 1")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "--opt madgrat",
            "argument --opt: 'madgrat' is none of adamw, adam, sgd, madgrad, timm; did you mean 'madgrad'? "
            "(timm's other optimisers: timm with --timm-opt NAME)",
        ),
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


# ---- objects as text


def test_objects_are_spelled():
    recipe = parse(
        "--opt sgd(0.1) --loss focal(gamma=3) --mix CutMix(shape=half) --balance dwa --sampler weighted(by=age)"
    )
    assert recipe.optim == SGD(0.1) and recipe.losses == Focal(3) and recipe.mix == CutMix(shape="half")
    assert recipe.balance == DWA() and recipe.sampler == Weighted("age")
    assert parse("--loss 0.4*softf1+0.6*focal").losses == Sum((SoftF1(), Focal()), (0.4, 0.6))
    assert parse("--loss soft_f1").losses == SoftF1() and parse("--mix none --sampler none") == Recipe()


def test_a_flag_beside_a_spelled_object():
    assert parse("--opt sgd(momentum=0.5) --lr 0.3").optim == SGD(0.3, momentum=0.5)
    assert parse("--opt sgd(lr=0.1) --lr 0.3").optim == SGD(0.3)  # what is named later wins
    assert parse("--lr 0.3 --opt sgd(lr=0.1)").optim == SGD(0.1)
    assert parse("--lr 0.3 --opt sgd(lr=0.05,momentum=0.5)").optim == SGD(0.05, momentum=0.5)  # its default, but named
    assert parse("--lr 0.3 --opt sgd(0.05)").optim == SGD(0.05) and parse("--lr 0.3 --opt sgd()").optim == SGD(0.3)
    assert parse("--rotate 3 --aug grey gentle(rotate=10)").augment == (Grey(), Gentle())
    assert parse("--aug grey gentle(rotate=10) --rotate 3").augment == (Grey(), Gentle(rotate=3.0))
    with pytest.raises(ValueError, match="--momentum has no meaning for --opt adamw"):
        parse("--opt adamw(lr=0.1) --momentum 0.5")


def test_a_loss_a_head():
    losses = parse("--loss age=ordinal(loss=focal) mask=focal gender=0.5*softf1+focal").losses
    gender = Sum((SoftF1(), Focal()), (0.5, 1.0))
    assert losses == {"age": Ordinal(loss=Focal()), "mask": Focal(), "gender": gender}
    assert parse("--loss age=ordinal").losses == {"age": Ordinal()}


def test_several_changes_of_the_photos():
    assert parse("--aug flip grey(0.2) boxjitter").augment == (Flip(), Grey(0.2), BoxJitter())
    assert parse("--aug grey flip --hflip 0.1").augment == (Grey(), Flip(0.1))
    assert parse("--aug gentle flip(hflip=0) --hflip 0.1 --rotate 3").augment == (Gentle(0.1, rotate=3.0), Flip(0.0))
    assert parse("--aug flip gentle --hflip 0").augment == (Flip(0.0), Gentle())  # the first that has the flag
    assert parse("--aug grey").augment == Grey() and parse("--aug drawnmask(1)").augment == DrawnMask(1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--loss focal age=ordinal", "--loss: give one for all, or each as age=NAME"),
        ("--loss focal softf1", "--loss takes one object, or one a head as age=NAME; got 2"),
        ("--loss age=focal age=ordinal", "--loss: age age; expected each head once"),
        ("--opt age=sgd", "--opt: age=... is not to be read"),
        ("--aug age=flip", "--aug: age=... is not to be read; give names, in order"),
        ("--aug flip grey --rotate 3", "--rotate has no meaning for --aug flip grey"),
        ("--aug grey --hflip 0.1", "--hflip has no meaning for --aug grey; it belongs to flip, diary, gentle"),
        ("--aug flip gentle", "which all mirror"),
        ("--sampler shares", "shares: {}; expected {source: share"),
        ("--drop-zones 59-57", "recipe: drop_zones is"),
        ("--age-edges 58 30", "recipe: age_edges is"),
    ],
)
def test_objects_that_do_not_fit(line, message):
    with pytest.raises(ValueError, match=message):
        parse(line)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--loss focl", "argument --loss: 'focl' is none of crossentropy, focal"),
        ("--loss focl(gamma=3)", "'focl' is none of crossentropy, focal, softf1"),
        ("--loss age=focl", "'focl' is none of crossentropy, focal"),
        ("--loss focal(gama=3)", "focal has no 'gama'; did you mean 'gamma'?"),
        ("--loss focal(gamma=-1)", "focal: gamma is -1; expected a number >= 0"),
        ("--loss none", "'none' is none of"),
        ("--mix __import__('os').system('x')", "cannot be read; expected a name as in cutmix(prob=...)"),
        ("--mix=age=cutmix(off=1)", "cutmix has no 'off'"),
        ("--drop-zones old", "'old'; expected years as 57-59"),
        ("--gamma 3", "unrecognized arguments: --gamma 3"),  # losses are spelled, without flags of their own
    ],
)
def test_wrong_objects_end_with_status_2_and_one_line(line, message, capsys):
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(line.split())
    said = capsys.readouterr().err
    assert ended.value.code == 2 and message in said and said.count("\n") == 2


def test_ages_and_zones():
    recipe = parse("--age-edges 30 58 --drop-zones 57-59 28.5-29 40 --soft-bands 2 --epoch-photos 100")
    assert recipe.age_edges == (30, 58) and recipe.drop_zones == ((57, 59), (28.5, 29), (40, 40))
    assert recipe.soft_bands == 2 and recipe.epoch_photos == 100
