import argparse

import pytest
import yaml

from multihead import cli, parts
from multihead.cli import main
from multihead.data import write_splits
from multihead.losses import CrossEntropy, Focal, Ordinal, SoftF1, Sum
from multihead.mixing import CutMix
from multihead.optim import SGD, AdamW
from multihead.reading import read
from multihead.searching import arm_of, check_space, unchanged
from multihead.spaces import Span, read_space

SMALL = ["--model", "test_resnet", "--resize", "32"]


def args_of(*argv):
    """The arguments of `multihead tune DATA ...`."""
    tokens = ["tune", "DATA", *map(str, argv)]
    return cli._parse(cli._parser(tokens), tokens)


def maker(*argv):
    args = args_of(*SMALL, *argv)
    return lambda changes: arm_of(args, changes)


def run(*argv):
    try:
        return main([str(part) for part in argv])
    except SystemExit as leave:
        return leave.code


# ---- an arm of flags


def test_changes_win_over_the_flags():
    make = maker("--epochs", 3, "--lr", 0.1, "--cutmix", 0.5)
    assert make({}).recipe.optim == AdamW(0.1) and make({"lr": 0.2}).recipe.optim == AdamW(0.2)
    found = make({"opt": "sgd", "lr": "0.3", "smoothing": 0.1, "amp": True, "mixup_prob": 0.5})
    assert found.recipe.optim == SGD(0.3) and found.recipe.epochs == 3 and found.recipe.amp
    assert found.recipe.mix == CutMix(alpha=0.5, prob=0.5) and found.recipe.smoothing == 0.1
    assert make({"lr": None}).recipe == make({}).recipe  # none: as given


def test_changes_win_over_the_words_of_an_object():
    make = maker("--opt", "sgd(lr=.1)", "--mix", "cutmix(prob=.3)")
    assert make({"lr": 0.2}).recipe.optim == SGD(0.2) and make({"opt": "sgd(lr=.4)"}).recipe.optim == SGD(0.4)
    assert make({"mixup_prob": 0.9}).recipe.mix == CutMix(prob=0.9)


@pytest.mark.parametrize(
    ("text", "losses"),
    [
        ("0.4*softf1 + 0.6*focal", Sum((SoftF1(), Focal()), (0.4, 0.6))),
        ("focal(gamma=3, smoothing=.1)", Focal(gamma=3, smoothing=0.1)),
        ("age=ordinal mask=focal(gamma=3, smoothing=.1)", {"age": Ordinal(), "mask": Focal(gamma=3, smoothing=0.1)}),
        ("crossentropy", CrossEntropy()),
    ],
)
def test_texts_of_losses(text, losses):
    assert maker()({"loss": text}).recipe.losses == losses


def test_texts_of_crops_and_sizes():
    make = maker()
    found = make({"crops": "mask=face gender=face,body age=face", "resize": "40 32"}).model()
    assert [[crop.name for crop in head.crops] for head in found.heads] == [["face"], ["face", "body"], ["face"]]
    assert {crop.size for head in found.heads for crop in head.crops} == {(40, 32)}
    assert [crop.name for crop in make({"crops": "face"}).model().crops] == ["face"]


def test_about_is_what_train_reads(tmp_path):
    made = maker("--epochs", 3)({"opt": "sgd", "loss": "0.4*softf1 + 0.6*focal", "crops": "mask=face age=face,body"})
    (tmp_path / "best.yaml").write_text(yaml.safe_dump(dict(made.about)))
    tokens = ["train", "DATA", "-c", str(tmp_path / "best.yaml")]
    parser = cli._parser(tokens)
    args = cli._with_config(parser, cli._parse(parser, tokens), tokens)
    again = arm_of(args, {})
    assert again.identity() == made.identity() and not {"data", "output"} & set(made.about)


# ---- the space is checked before the first trial


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"lr": ("a",)}, "space: lr: argument --lr: invalid float value: 'a'"),
        ({"smoothing": Span(0, 1)}, "space: smoothing: recipe: smoothing is 1.0"),
        ({"opt": ("adamw", "madgard")}, "space: opt: argument --opt: 'madgard' is none of .*did you mean 'madgrad'"),
        ({"loss": ("focal(gama=1)",)}, "space: loss: .*focal has no 'gama'; did you mean 'gamma'"),
        ({"crops": ("full", "faec")}, "space: crops: unknown crop 'faec'; did you mean 'face'"),
        ({"lr": (1e-3,), "momentum": (0.8, 0.9)}, "space: momentum: --momentum has no meaning for --opt adamw"),
        ({"amp": ("yes",)}, "space: amp is 'yes'; expected true or false"),
    ],
)
def test_what_a_flag_refuses(space, message):
    with pytest.raises(ValueError, match=message):
        check_space(space, maker())


def test_what_goes_with_another_choice_is_allowed():
    check_space({"momentum": (0.8, 0.9), "opt": ("adamw", "sgd")}, maker())
    check_space({"batch_size": Span(8, 32, step=10, whole=True), "lr": Span(1e-4, 1e-2, log=True)}, maker())
    with pytest.raises(ValueError, match="--momentum has no meaning"):  # the flags themselves
        check_space({"lr": (1e-3,)}, maker("--momentum", 0.9))


# ---- the settings as they are


def test_the_parameters_that_change_nothing():
    space = read_space(
        {
            "lr": {"low": 1e-4, "high": 1e-2, "log": True},
            "loss": ["0.4*softf1 + 0.6*focal", "crossentropy"],
            "crops": ["face", "mask=full gender=full age=full", "full"],
            "resize": ["48", [32, 32], 32],
            "mix": ["cutmix", "none"],
            "batch_size": "8..64:8",
        }
    )
    expected = {"lr": 1e-3, "loss": "crossentropy", "mix": "none", "batch_size": 32}
    found, outside = unchanged(space, maker())
    assert outside == [] and {key: found[key] for key in expected} == expected
    assert found["resize"] == 32 and found["crops"] == "full"
    found, outside = unchanged(space, maker("--lr", 0.5, "--mix", "mixup", "-b", 30))
    assert outside == ["lr", "mix", "batch_size"] and "loss" in found


def test_the_default_space_holds_the_default_settings():
    found, outside = unchanged(read_space(None), maker())
    assert outside == [] and found["lr"] == 1e-3 and found["aug"] == "flip"
    check_space(read_space(None), maker())


# ---- the verb


class Reached(Exception):
    """The search itself would start now."""


@pytest.fixture
def begun(monkeypatch):
    """What the verb gave to multihead.tune.search, which is not run."""
    calls = []

    def stop(*args, **options):
        calls.append((args, options))
        raise Reached

    monkeypatch.setattr("multihead.tune.search", stop)
    return calls


def test_a_file_and_flags(people, begun, tmp_path, capsys):
    config = {"space": {"lr": [1e-3, 1e-2], "opt": ["adamw", "sgd"]}, "epochs": 4, "folds": 4, "minutes": 2}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    argv = ["tune", people / "train", "-c", tmp_path / "c.yaml", *SMALL, "--epochs", "5", "--seed", "3"]
    with pytest.raises(Reached):
        run(*argv, "--space", "lr=1e-3..1e-1:log", "-o", tmp_path / "t", "--study", "mine")
    (arm, photos, out), options = begun[0]
    plan = options["plan"]
    assert (plan.folds, plan.minutes, plan.trials, plan.study, options["seed"]) == (4, 2, None, "mine", 3)
    assert options["first"] == {"lr": 1e-3, "opt": "adamw"} and out == str(tmp_path / "t") and len(photos) == 84
    about = options["about"]
    assert about["space: lr"] == "0.001..0.1:log" and about["space: opt"] == "[adamw, sgd]"
    assert about["epochs"] == 5 and about["model"] == "test_resnet"
    (tmp_path / "c.yaml").write_text("epochs: 9")  # what is read once counts for all trials
    trial = argparse.Namespace(suggest_categorical=lambda key, choices: choices[-1], suggest_float=lambda *a, **k: 0.01)
    made = arm(trial)
    assert made.recipe.optim == SGD(0.01) and (made.recipe.epochs, made.recipe.seed) == (5, 3)
    assert capsys.readouterr().out.startswith(
        "searching lr 0.001..0.1:log, opt [adamw, sgd]; 4 folds of Photos(84 rows"
    )


def test_photos_that_trained_the_weights_that_trials_begin_with_are_told_of(people, begun, tmp_path, capsys):
    write_splits(tmp_path / "old" / "splits.csv", {"train": read(people / "train")[:7]})
    with pytest.raises(Reached):
        run("tune", people / "train", *SMALL, "--initial-checkpoint", tmp_path / "old")
    assert f"note: 7 of these 84 photos trained {tmp_path / 'old'}, which this model" in capsys.readouterr().err


def test_settings_outside_the_space_are_told(people, begun, capsys):
    with pytest.raises(Reached):
        run("tune", people / "train", *SMALL, "--space", "lr=0.01,0.1", "opt=adamw,sgd")
    assert begun[0][1]["first"] is None
    assert "lr as given is not in the space, so no trial shows the score of the settings" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--space", "lrr=1,2"], "has no flag 'lrr'; did you mean 'lr'"),
        (["--space", "opt=adamw,sdg"], "space: opt: argument --opt: 'sdg' is none of"),
        (["--folds", "1"], "plan: folds is 1"),
        (["--spaec", "lr=1,2"], "unknown argument '--spaec'; did you mean --space?"),
        (["--patience", "2"], "patience"),
    ],
)
def test_errors_before_any_photo_is_read(begun, monkeypatch, tmp_path, argv, message, capsys):
    monkeypatch.setattr(parts, "read_sources", lambda *args: pytest.fail("read"))
    assert run("tune", tmp_path, *SMALL, *argv) == 2
    assert message in capsys.readouterr().err and not begun


def test_data_is_needed(capsys):
    assert run("tune") == 2 and "DATA is missing" in capsys.readouterr().err
