import functools

import pytest

from multihead import cli, flag_files
from multihead.arms import build_arms, changes
from multihead.losses import CrossEntropy, Focal, SoftF1, Sum
from multihead.mixing import CutMix, MixUp
from multihead.optim import MADGRAD, SGD, AdamW
from multihead.recipe import Recipe
from multihead.schedules import Constant

SMALL = ["--model", "test_resnet", "--resize", "32"]


def arms_of(*argv):
    """The arms of a command line `multihead compare DATA ...`."""
    tokens = ["compare", "DATA", *map(str, argv)]
    parser = cli._parser(tokens)
    verb, content = cli._parse(parser, tokens), {}
    if verb.config:
        content = flag_files.read_yaml(verb.config)
        verb = cli._with_config(parser, verb, tokens)
    return build_arms(changes(content, verb.vary), functools.partial(cli._again, parser, tokens))


def recipes(*argv):
    return {name: arm.recipe for name, arm in arms_of(*argv).items()}


# ---- --vary


def test_a_grid_in_order():
    found = recipes("--vary", "opt=adamw,sgd", "lr=0.1,0.01", "--epochs", "3")
    assert list(found) == ["opt adamw, lr 0.1", "opt adamw, lr 0.01", "opt sgd, lr 0.1", "opt sgd, lr 0.01"]
    assert [one.optim for one in found.values()] == [AdamW(0.1), AdamW(0.01), SGD(0.1), SGD(0.01)]
    assert all(one.epochs == 3 for one in found.values())


@pytest.mark.parametrize(
    ("vary", "names"),
    [
        ("opt=adamw,madgrad", ["adamw", "madgrad"]),
        ("lr=1e-3,0.01", ["lr 1e-3", "lr 0.01"]),
        ("flat=false,true", ["flat false", "flat true"]),
        ("amp=False,True", ["amp false", "amp true"]),
        ("model=hf-hub:a/b,test_resnet", ["hf-hub:a-b", "test_resnet"]),
        ("loss=crossentropy,Focal(gamma=3)", ["crossentropy", "focal(gamma=3)"]),
    ],
)
def test_names(vary, names):
    assert list(changes({}, [vary])) == names


def test_commas_within_brackets_belong_to_the_value():
    found = recipes("--vary", "loss=sum((softf1, focal(gamma=1, smoothing=.1)), weights=(.4, .6)),focal,crossentropy")
    mixed = Sum((SoftF1(), Focal(gamma=1, smoothing=0.1)), (0.4, 0.6))
    assert [one.losses for one in found.values()] == [mixed, Focal(), CrossEntropy()]
    both = recipes("--vary", "mix=cutmix(alpha=.5, shape=half),mixup(prob=1)", "--epochs", "2")
    assert [one.mix for one in both.values()] == [CutMix(alpha=0.5, shape="half"), MixUp(prob=1)]


def test_switches_and_what_may_be_none():
    found = arms_of("--vary", "flat=true,false", "model_ema=false,true", *SMALL)
    assert [(len(arm.model().heads), arm.recipe.ema is not None) for arm in found.values()] == [
        (1, False),
        (1, True),
        (3, False),
        (3, True),
    ]
    assert [one.mix for one in recipes("--vary", "mix=none,cutmix").values()] == [None, CutMix()]
    assert [one.amp for one in recipes("--vary", "amp=True,false").values()] == [True, False]


@pytest.mark.parametrize(
    ("field", "flag"),
    [("optim", "opt"), ("schedule", "sched"), ("augment", "aug"), ("losses", "loss"), ("batch-size", "batch_size")],
)
def test_field_names_are_as_good_as_flags(field, flag):
    value = {"opt": "sgd", "sched": "constant", "aug": "plain", "loss": "focal", "batch_size": "7"}[flag]
    by_field, by_flag = (changes({}, [f"{name}={value}"]) for name in (field, flag))
    assert by_field == by_flag and list(by_flag.values()) == [{flag: value}]
    assert recipes("--vary", f"{field}={value}") == recipes("--vary", f"{flag}={value}")


# ---- YAML


@pytest.fixture
def file(tmp_path):
    def write(text):
        (tmp_path / "study.yaml").write_text(text)
        return tmp_path / "study.yaml"

    return write


def test_an_arm_wins_over_the_command_line_over_the_file(file):
    path = file("lr: 0.1\nepochs: 5\nbatch_size: 4\narms:\n  one: {}\n  two: {lr: 0.3}\n  three: {epochs: 9}\n")
    found = recipes("-c", path, "--lr", "0.2", "--epochs", "6")
    assert [(one.optim.lr, one.epochs, one.batch_size) for one in found.values()] == [
        (0.2, 6, 4),
        (0.3, 6, 4),
        (0.2, 9, 4),
    ]
    assert list(found) == ["one", "two", "three"]


def test_values_as_yaml_has_them(file):
    path = file(
        "model: test_resnet\nresize: [32, 24]\narms:\n"
        "  plain: {opt: madgrad, flat: false, amp: true, head_weights: {age: 2, mask: 0.5}, rows: full}\n"
        "  7: {loss: {age: focal, mask: crossentropy}, sched: constant, crops: ['full:16x24'], cutmix: 0.7}\n"
    )
    found = arms_of("-c", path)
    plain, seven = found["plain"], found["7"]
    assert plain.recipe == Recipe(optim=MADGRAD(), amp=True, head_weights={"age": 2, "mask": 0.5})
    assert (plain.rows, seven.rows) == ("full", "all")
    wanted = {"losses": {"age": Focal(), "mask": CrossEntropy()}, "schedule": Constant(), "mix": CutMix(alpha=0.7)}
    assert seven.recipe == Recipe(**wanted) and seven.recipe.optim == AdamW()
    assert [arm.model().crops[0].size for arm in (plain, seven)] == [(32, 24), (16, 24)]


def test_arms_are_told_apart_by_their_network(file):
    found = arms_of("-c", file("model: test_resnet\narms:\n  a: {}\n  b: {drop: 0.2}\n"))
    assert found["a"].about != found["b"].about and found["b"].about["drop"] == 0.2
    assert found["a"].about["model"] == "test_resnet"


def test_an_arm_without_changes_may_be_left_blank(file):
    found = recipes("-c", file("lr: 0.5\narms:\n  plain:\n  adam: {opt: adam}\n"))
    assert list(found) == ["plain", "adam"] and found["plain"].optim.lr == 0.5


def test_one_shared_flag_may_change_all_arms(file):
    path = file("opt: sgd\nmomentum: 0.5\narms:\n  one: {}\n  two: {momentum: 0.8}\n")
    assert [one.optim for one in recipes("-c", path).values()] == [SGD(momentum=0.5), SGD(momentum=0.8)]


def test_a_blank_flag_of_an_arm_is_its_default(file):
    """Else an arm that says "no mixing" would be mixed as the others are."""
    shared = "mix: mixup\nclip_grad: 1\nlr: 0.5\narms:\n"
    found = recipes("-c", file(shared + "  as it is: {}\n  none: {mix: null, clip-grad: }\n  rate: {lr: ~}\n"))
    assert [one.mix for one in found.values()] == [MixUp(), None, MixUp()]
    assert [one.clip_grad for one in found.values()] == [1, None, 1]
    assert [one.optim for one in found.values()] == [AdamW(0.5), AdamW(0.5), AdamW()]


def test_none_is_nothing_whatever_is_shared(file):
    found = recipes("-c", file("clip_grad: 2\npatience: 3\n"), "--patience", "none", "--vary", "clip-grad=none,1")
    assert [(one.clip_grad, one.patience) for one in found.values()] == [(None, None), (1, None)]
    with pytest.raises(ValueError, match="arm 'nil': argument --clip-grad: invalid float value: 'nil'"):
        recipes("--vary", "clip-grad=nil")
    with pytest.raises(ValueError, match="argument --lr: invalid float value: 'none'"):
        recipes("--vary", "lr=none")


def test_arms_may_change_what_a_shared_object_spells(file):
    """Else they would be one and the same arm under several names."""
    found = recipes("-c", file("opt: sgd(lr=0.1)\naug: gentle(rotate=5)\n"), "--vary", "lr=0.01,1")
    assert [one.optim for one in found.values()] == [SGD(0.01), SGD(1.0)]
    assert [one.augment.rotate for one in found.values()] == [5, 5]
    found = recipes("--lr", "0.3", "--vary", "opt=sgd,sgd(lr=0.05)")  # 0.05 is its default
    assert [one.optim for one in found.values()] == [SGD(0.3), SGD(0.05)]
    found = recipes("--mixup-prob", "0.3", "--vary", "mix=mixup,cutmix(prob=0.5)")
    assert [one.mix for one in found.values()] == [MixUp(0.3), CutMix(0.5)]
    found = recipes("--mix", "mixup(prob=1)", "--vary", "mixup-prob=0.3,0.6")
    assert [one.mix for one in found.values()] == [MixUp(0.3), MixUp(0.6)]
    found = recipes("-c", file("opt: sgd(lr=0.1)\narms:\n  file: {}\n"), "--lr", "0.2")
    assert [one.optim for one in found.values()] == [SGD(0.2)]


# ---- wrong arms


@pytest.mark.parametrize(
    ("text", "vary", "told"),
    [
        ("lr: 0.1", [], "name the arms: either 'arms:' in the file of -c, or --vary"),
        ("arms: {a: {}}", ["lr=1,2"], "name the arms: either"),
        ("arms: [a, b]", [], "arms: expected a name and flags for each, as 'adam: {opt: adam}'"),
        ("arms: {a: 3}", [], "arms: expected a name and flags for each"),
        ("arms: {1: {}, '1': {lr: 1}}", [], "two arms are named '1'"),
        ("arms: {a: {}, b: {epoch: 3}}", [], "arm 'b': unknown key 'epoch'; did you mean 'epochs'?"),
        ("arms: {a: {}, b: {lr: fast}}", [], "arm 'b': argument --lr: invalid float value: 'fast'"),
        ("arms: {a: {}, b: {opt: adamm}}", [], "arm 'b': argument --opt: 'adamm' is none of"),
        ("arms: {a: {}, b: {amp: perhaps}}", [], "arm 'b': amp is 'perhaps'; expected true or false"),
        ("arms: {a: {}, b: {epochs: 0}}", [], "arm 'b': recipe: epochs is 0; expected a whole number >= 1"),
        ("arms: {a: {}, b: {momentum: 0.5}}", [], "arm 'b': --momentum has no meaning for --opt adamw"),
        ("arms: {a: {}, b: {patience: 2}}", [], "arm 'b': arm: patience stops on the rows that score the arm"),
        ("arms: {a: {}, b: {heads: [mouth]}}", [], "arm 'b': unknown head 'mouth'"),
        ("arms: {a: {}, b: {cutmix: 1, mixup: 1}}", [], "arm 'b': --cutmix and --mixup: choose one"),
        ("arms: {a: {}, b: {rows: some}}", [], "arm 'b': training: rows is 'some'; expected one of all, full"),
        ("arms: {a: {}, b: {folds: 5}}", [], "arm 'b': unknown key 'folds'"),
        ("arms: {a: {}, b: {seed: 5}}", [], "arm 'b' sets a seed; all arms have the seeds of --seeds"),
        ("arms: {a: {}, b: {data: x}}", [], "arm 'b': unknown key 'data'"),
        ("arms: {a: {}, b: {output: x}}", [], "arm 'b': unknown key 'output'"),
        (None, ["lr"], "--vary 'lr'; expected a flag and its values, as in opt=adamw,adam,madgrad"),
        (None, ["lr="], "--vary 'lr='; expected a flag and its values"),
        (None, ["lr=1,,2"], "--vary 'lr=1,,2'; expected a flag and its values"),
        (None, ["epoch=1,2"], "--vary 'epoch=1,2': a model or recipe has no flag 'epoch'; did you mean 'epochs'?"),
        (None, ["seeds=1,2"], "--vary 'seeds=1,2': a model or recipe has no flag 'seeds'"),
        (None, ["seed=1,2"], "--vary 'seed=1,2': a model or recipe has no flag 'seed'"),
        (None, ["opt=sgd,adamw,sgd"], "two arms are named 'sgd'; expected unlike names, and each value once"),
        (None, ["opt=adamw,adamm"], "arm 'adamm': argument --opt: 'adamm' is none of"),
        (None, ["epochs=3,x"], "arm 'x': argument --epochs: invalid int value: 'x'"),
        (None, [], "name the arms: either"),
    ],
)
def test_wrong_arms(file, text, vary, told, capsys):
    argv = (["-c", file(text)] if text else []) + (["--vary", *vary] if vary else [])
    with pytest.raises(ValueError) as error:
        arms_of(*argv)
    assert str(error.value).startswith(told), error.value
    assert capsys.readouterr() == ("", "")


def test_the_shared_flags_are_checked_as_always(file):
    with pytest.raises(ValueError, match="arm 'a': --momentum has no meaning for --opt adamw"):
        arms_of("-c", file("arms: {a: {}, b: {}}"), "--momentum", "0.5")
    with pytest.raises(ValueError, match="unknown key 'epoch'; did you mean 'epochs'"):
        arms_of("-c", file("epoch: 3\narms: {a: {}}"))


def test_a_flag_that_is_varied_twice():
    with pytest.raises(ValueError, match="--vary names 'opt' twice; expected all its values at once"):
        changes({}, ["opt=adamw", "opt=sgd,adam"])
