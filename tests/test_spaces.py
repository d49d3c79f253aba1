import math

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multihead.spaces import DEFAULT, Span, read_space, spell_axis, suggest


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("lr=1e-4..1e-2:log", Span(1e-4, 1e-2, log=True)),
        ("smoothing=0..0.2", Span(0, 0.2)),
        ("smoothing=0..0.3:0.1", Span(0, 0.3, step=0.1)),
        ("batch_size=16..64:16", Span(16, 64, step=16, whole=True)),
        ("batch-size=8..64:log", Span(8, 64, log=True, whole=True)),
        ("opt=adamw,madgrad", ("adamw", "madgrad")),
        ("model-ema=true,false", (True, False)),
        ("losses=crossentropy,focal(gamma=2, smoothing=.1)", ("crossentropy", "focal(gamma=2, smoothing=.1)")),
        ("lr=1e-3,1e-2", ("1e-3", "1e-2")),
        ("lr=1e-3", ("1e-3",)),
    ],
)
def test_texts(text, found):
    name = text.partition("=")[0].replace("-", "_")
    key = "loss" if name == "losses" else name
    assert read_space(None, [text]) == {key: found}
    assert read_space({text.partition("=")[0]: text.partition("=")[2]}) == {key: found}  # the same in a file


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"low": "1e-4", "high": 1e-2, "log": True}, Span(1e-4, 1e-2, log=True)),  # YAML reads 1e-4 as text
        ({"low": 1, "high": 4, "int": True}, Span(1, 4, whole=True)),
        ([1e-3, 1e-2], (1e-3, 1e-2)),
        ([None, 1e-2], (None, 1e-2)),
    ],
)
def test_values_of_a_file(value, found):
    assert read_space({"lr": value}) == {"lr": found}


def test_lists_and_mappings_become_texts():
    space = read_space({"resize": [[280, 210], 224], "loss": [{"age": "ordinal", "mask": "focal"}, "focal"]})
    assert space == {"resize": ("280 210", 224), "loss": ("age=ordinal mask=focal", "focal")}


def test_the_command_line_wins_and_nothing_is_the_default():
    file = {"lr": [1, 2], "opt": ["adamw", "sgd"]}
    assert read_space(file, ["lr=3,4"]) == {"lr": ("3", "4"), "opt": ("adamw", "sgd")}
    assert read_space(None) == read_space({}) == DEFAULT


@pytest.mark.parametrize(
    ("content", "texts", "message"),
    [
        ([], [], "space holds list; expected flags"),
        ({"lrr": [1, 2]}, [], "space: a model or recipe has no flag 'lrr'; did you mean 'lr'"),
        ({"lr": [1, 2], "seed": [1, 2]}, [], "no flag 'seed'"),
        (None, ["lrr=1,2"], "--space 'lrr=1,2': .* did you mean 'lr'"),
        (None, ["lr"], "--space 'lr'; expected a flag and its values"),
        ({"loss": ["focal"], "losses": ["softf1"]}, [], "space: loss is there twice, once as 'losses'"),
        ({"lr": []}, [], r"space: lr: \[\]; expected a list of unlike choices"),
        ({"lr": [1, 1]}, [], r"space: lr: \[1, 1\]; expected a list of unlike"),
        ({"lr": 3}, [], "space: lr: 3; expected a list"),
        ({"lr": {"low": 1, "hgih": 2}}, [], "space: lr: unknown 'hgih'; expected low, high, log, step, int"),
        ({"lr": {"low": 1}}, [], "space: lr: {'low': 1}; expected low and high"),
        ({"lr": {"low": "a", "high": 1}}, [], "space: lr: low is 'a'; expected a number"),
        ({"lr": {"low": 2, "high": 1}}, [], "space: lr: low is 2.0, high 1.0; expected two numbers that rise"),
        ({"lr": {"low": 0, "high": 1, "log": True}}, [], "space: lr: log needs low > 0 and no step"),
        ({"lr": {"low": 0, "high": 1, "step": 2}}, [], "space: lr: step is 2.0; expected a number > 0 that fits"),
        ({"lr": {"low": 0.5, "high": 2, "int": True}}, [], "space: lr: low 0.5, high 2.0, .*expected whole numbers"),
        ({"opt": {"low": 1, "high": 2}}, [], "space: opt: it takes no number; expected a list of choices"),
        (None, ["epochs=3,5"], "space: epochs is one for all trials, so that their scores compare; leave it out"),
        ({"rows": ["all", "full"]}, [], "space: rows is one for all trials"),
    ],
)
def test_errors(content, texts, message):
    with pytest.raises(ValueError, match=message):
        read_space(content, texts)


def test_what_a_trial_gets():
    space = {
        "rate": Span(1e-4, 1e-2, log=True),
        "count": Span(2, 9, step=3, whole=True),
        "share": Span(0, 1, step=0.25),
        "name": ("a", None, True, 2),
    }
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = [suggest(study.ask(), space) for _ in range(60)]
    assert {one["count"] for one in found} == {2, 5, 8} and all(type(one["count"]) is int for one in found)
    assert {one["share"] for one in found} == {0, 0.25, 0.5, 0.75, 1}
    assert {one["name"] for one in found} == {"a", None, True, 2}
    assert all(1e-4 <= one["rate"] <= 1e-2 for one in found)
    assert abs(sum(math.log10(one["rate"]) for one in found) / 60 + 3) < 0.2  # log: half of them below 1e-3
    assert all(one[key] in space[key] for one in found for key in space)
    fixed = {"rate": 1e-3, "count": 5, "share": 0.5, "name": None}
    study.enqueue_trial(fixed)
    assert suggest(study.ask(), space) == fixed


def test_whole_numbers_of_equal_factors():
    span = Span(1, 100, log=True, whole=True)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = [suggest(study.ask(), {"count": span})["count"] for _ in range(200)]
    assert 70 < sum(number < 10 for number in found) < 130  # evenly it were about 20
    assert 7 in span and 7.5 not in span and 101 not in span


@given(st.floats(-10, 10), st.floats(0.1, 10), st.integers(1, 20), st.integers(0, 20))
def test_the_numbers_of_a_span(low, step, count, place):
    span = Span(low, low + step * (count + 0.5), step=step)
    assert span.ends == pytest.approx((low, low + step * count))
    assert (low + step * place in span) == (place <= count)
    assert low + step * 0.5 not in span and True not in span and "1" not in span


@pytest.mark.parametrize(
    ("low", "high", "step"),
    [(0.1, 0.3, 0.1), (0, 0.3, 0.1), (0, 1, 0.1), (0.1, 0.7, 0.2), (0.05, 0.25, 0.05), (0, 0.9, 0.3)],
)
def test_the_highest_number_is_tried_where_steps_reach_it(low, high, step):
    """However fractions are rounded."""
    span = Span(low, high, step=step)
    assert span.ends == (low, high)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = {round(suggest(study.ask(), {"share": span})["share"], 9) for _ in range(100)}
    assert found == {round(low + step * place, 9) for place in range(round((high - low) / step) + 1)}


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("lr=1e-4..1e-2:log", "0.0001..0.01:log"),
        ("smoothing=0..0.2", "0..0.2"),
        ("batch_size=16..64:16", "16..64:16"),
        ("opt=adamw,sgd", "[adamw, sgd]"),
    ],
)
def test_spelled(text, spelled):
    assert [spell_axis(found) for found in read_space(None, [text]).values()] == [spelled]


@pytest.mark.parametrize(
    ("span", "told"),
    [
        ({"low": [1], "high": 2}, r"low is \[1\]; expected a number"),
        ({"low": True, "high": 2}, "low is True; expected a number"),
        ({"low": 1e-4, "high": 1e-2, "log": "no"}, "log is 'no'; expected true or false"),
        ({"low": 1, "high": 2, "int": 1}, "int is 1; expected true or false"),
    ],
)
def test_spans_of_wrong_types(span, told):
    with pytest.raises(ValueError, match=f"space: lr: {told}"):
        read_space({"lr": span})
