"""Which mode is chosen, on clocks that are made up; nothing here depends on how fast this machine is."""

import copy
import json
import math
from dataclasses import replace

import pytest
import torch

from multihead import FULL, HEADS, MASK, AdamW, Model, choices, modes, timing
from multihead.choices import Choice, answering_choice, training_choice
from multihead.criteria import criterion
from multihead.losses import CrossEntropy
from multihead.modes import PIN, Mode, Pins
from multihead.prepared import ready
from multihead.timing import Steps, fastest

CROP = FULL.resized(32)
PLAIN, LAST, HALF, HALF_LAST = (Mode(precision, last) for precision in ("f32", "bf16") for last in (False, True))
BARE = Mode(channels_last=False, keep_memory=False)


@pytest.fixture
def model(monkeypatch):
    """A small model, on a machine where nothing is decided or remembered yet."""
    monkeypatch.delenv(PIN, raising=False)
    monkeypatch.setattr(choices, "kept", lambda: False)
    monkeypatch.setattr(modes, "computes", lambda device, precision: True)
    monkeypatch.setattr(modes, "miscomputes", lambda device, precision, crops: False)
    torch.manual_seed(0)
    return Model("test_resnet", [head.on(CROP) for head in HEADS])


@pytest.fixture
def seconds(monkeypatch):
    """Sets what the timing of each mode gives; the passes themselves run once each."""

    def set_(table):
        def pretend(runs, rounds=3):
            for run in runs.values():
                run()
            asked.extend(runs)
            return {mode: table[mode] for mode in runs}

        monkeypatch.setattr(choices, "fastest", pretend)

    asked = []
    set_.asked = asked
    return set_


def chosen(model, steps=1000, book=None, like="", **pins):
    losses = {head.name: criterion(CrossEntropy(), head, torch.ones(len(head.classes))) for head in model.heads}
    return training_choice(model, losses, AdamW(), batch_size=4, steps=steps, pins=Pins(**pins), book=book, like=like)


TABLE = {BARE: 0.05, PLAIN: 0.04, LAST: 0.03, HALF: 0.02, HALF_LAST: 0.01}


def test_the_fastest_mode_is_chosen_and_told(model, seconds):
    seconds(TABLE)
    choice = chosen(model)
    assert choice.mode == HALF_LAST and choice.found == "timed" and seconds.asked == list(TABLE)
    assert str(choice) == "bf16 channels_last keep_memory (timed: 0.01 s against 0.05 s for f32)"


@pytest.mark.parametrize("best", list(TABLE), ids=str)
def test_any_mode_may_win(model, seconds, best):
    seconds(TABLE | {best: 0.005})
    assert chosen(model).mode == best


def test_what_is_pinned_is_not_timed_otherwise(model, seconds):
    seconds(TABLE)
    assert chosen(model, precision="f32").mode == LAST
    assert {mode.precision for mode in seconds.asked} == {"f32"}
    assert chosen(model, precision="f32", channels_last=False, compiled=False) == Choice(PLAIN, "given")


def test_a_choice_is_remembered_by_model_crops_and_batch(model, seconds, cache):
    seconds(TABLE)
    first = chosen(model)
    seconds(TABLE | {LAST: 0.001})
    again = chosen(model)
    assert again.mode == first.mode and again.found == "remembered" and again.seconds == first.seconds
    other = Model("test_resnet", [head.on(FULL.resized(48)) for head in HEADS])
    assert chosen(other).mode == LAST
    assert len(json.loads((cache / "multihead" / "modes.json").read_text())) == 2


def test_what_was_timed_under_pins_does_not_decide_without_them(model, seconds):
    seconds(TABLE)
    assert chosen(model, precision="f32").mode == LAST
    again = chosen(model)
    assert (again.mode, again.found) == (HALF_LAST, "timed")
    assert chosen(model, precision="f32").found == chosen(model).found == "remembered"


def test_a_mode_that_failed_is_not_tried_again(model, monkeypatch):
    inf = float("inf")
    monkeypatch.setattr(
        choices, "fastest", lambda runs, rounds=3: {m: 0.01 if m.precision == "f32" else inf for m in runs}
    )
    assert chosen(model).found == "timed"
    again = chosen(model)
    assert again.found == "remembered" and again.mode.precision == "f32" and again.seconds[HALF] == float("inf")


@pytest.mark.parametrize("text", ["", "[1]", '{"a": 1', "null"])
def test_a_damaged_memory_is_made_anew(model, seconds, cache, text):
    (cache / "multihead").mkdir()
    (cache / "multihead" / "modes.json").write_text(text)
    seconds(TABLE)
    assert chosen(model).found == "timed" and chosen(model).found == "remembered"


def test_a_memory_that_cannot_be_written_costs_only_time(model, seconds, cache, monkeypatch):
    (cache / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "file"))
    seconds(TABLE)
    assert chosen(model).found == "timed" and chosen(model).found == "remembered"  # by this process
    monkeypatch.setattr(choices, "_KNOWN", {})
    assert chosen(model).found == "timed"


def test_a_short_run_is_not_timed(model, seconds):
    seconds(TABLE)
    assert chosen(model, steps=choices.LEAST - 1) == Choice(LAST, "usual") and not seconds.asked
    assert chosen(model, steps=choices.LEAST).found == "timed"
    assert chosen(model, steps=choices.LEAST - 1) == Choice(LAST, "usual")  # also when more is known


@pytest.mark.parametrize("first", [choices.LEAST - 1, choices.LEAST], ids=["short first", "long first"])
def test_the_first_run_of_a_comparison_chooses_for_all(model, seconds, tmp_path, first):
    seconds(TABLE)
    book = tmp_path / "runs" / "modes.json"
    wanted = chosen(model, steps=first, book=book).mode
    assert wanted == (LAST if first < choices.LEAST else HALF_LAST)
    seconds(TABLE | {PLAIN: 0.0001})
    choices._KNOWN.clear()
    for steps in (choices.LEAST - 1, 1000):  # whatever each would have chosen by itself
        assert chosen(model, steps=steps, book=book) == Choice(wanted, "the comparison's")
    other = Model("test_resnet", [head.on(FULL.resized(48)) for head in HEADS])
    assert chosen(other, book=book).mode == PLAIN  # another pass is its own
    assert chosen(model, book=book, like="9 epochs").found != "the comparison's"  # and so is an arm that trains longer
    assert chosen(model, precision="f32", channels_last=False, book=book).mode == PLAIN  # as an arm's --amp says


def test_what_another_machine_chose_is_not_imitated(model, seconds, tmp_path, monkeypatch):
    """Folds on two machines that share a folder, one of which knows no bf16."""
    book = tmp_path / "modes.json"
    seconds(TABLE)
    assert chosen(model, book=book).mode == HALF_LAST
    monkeypatch.setattr(modes, "computes", lambda device, precision: precision == "f32")
    assert chosen(model, book=book).mode == LAST and str(HALF_LAST) in book.read_text()


def test_what_another_machine_chose_is_not_miscomputed(model, seconds, tmp_path, monkeypatch):
    book = tmp_path / "modes.json"
    seconds(TABLE)
    assert chosen(model, book=book).mode == HALF_LAST
    monkeypatch.setattr(modes, "miscomputes", lambda device, precision, crops: precision == "bf16" and bool(crops))
    assert chosen(model, book=book).mode == LAST and str(HALF_LAST) in book.read_text()


def test_answers_that_come_out_wrong_are_not_timed(model, monkeypatch):
    monkeypatch.setattr(modes, "miscomputes", lambda device, precision, crops: precision == "bf16" and bool(crops))
    choice = answering_choice(model, lambda mode: ready(model, mode), 4)
    assert choice.found == "timed" and {mode.precision for mode in choice.seconds} == {"f32"}


def test_processes_agree_on_what_was_written_first(model, seconds, tmp_path, monkeypatch):
    book = tmp_path / "modes.json"
    seconds(TABLE)
    plain = choices._training_choice

    def slow(*args):  # meanwhile another process has chosen
        choice = plain(*args)
        choices._settle(book, key(), PLAIN)
        return choice

    def key():
        return "; ".join([*choices._sizes(model, 4), "cpu", "", *(f"{name} {None}" for name in vars(Pins()))])

    monkeypatch.setattr(choices, "_training_choice", slow)
    assert chosen(model, book=book) == Choice(PLAIN, "the comparison's")


@pytest.mark.parametrize("text", ["", "[1]", '{"a": 1', '{"a": "f99"}'])
def test_a_damaged_book_is_written_anew(model, seconds, tmp_path, text):
    (tmp_path / "modes.json").write_text(text)
    seconds(TABLE)
    assert chosen(model, book=tmp_path / "modes.json").mode == HALF_LAST
    assert list(json.loads((tmp_path / "modes.json").read_text()).values()) == [str(HALF_LAST)]


def test_the_environment_decides_where_the_recipe_does_not(model, seconds, monkeypatch):
    monkeypatch.setenv(PIN, "bf16")
    seconds(TABLE)
    assert chosen(model).mode == Mode("bf16", channels_last=False, keep_memory=False) and not seconds.asked
    assert chosen(model, precision="f32").mode.precision == "f32"


def test_a_long_run_is_compiled_where_that_repays(model, monkeypatch, capsys):
    """Both are timed in turn: the seconds of the first choice are of another moment."""
    compiled = {}

    def pretend(runs, rounds=3, hopeless=10.0):
        asked.append(set(runs))
        return {mode: compiled[mode.compiled] if len(runs) == 2 else TABLE[mode] for mode in runs}

    asked = []
    monkeypatch.setattr(choices, "fastest", pretend)
    both = {HALF_LAST, replace(HALF_LAST, compiled=True)}
    for factor, pays in ((1.06, True), (1.04, False), (0.9, False)):
        compiled |= {False: 0.1 * factor, True: 0.1}  # ten times as slow a moment as before
        del asked[:]
        choices._KNOWN.clear()
        choices._file().unlink(missing_ok=True)
        assert not chosen(model, steps=179_000).mode.compiled and both not in asked  # less than half an hour
        assert "compiling" not in capsys.readouterr().err
        choice = chosen(model, steps=181_000)
        assert choice.mode == replace(HALF_LAST, compiled=pays) and asked[-1] == both
        assert "compiling, to see whether that pays" in capsys.readouterr().err
        assert not pays or "compiled keep_memory (remembered: 0.1 s against 0.05 s for f32)" in str(choice)
        assert chosen(model, steps=181_000).mode == choice.mode and len(asked) == 3  # remembered, whatever it was
        assert not chosen(model, steps=181_000, compiled=False).mode.compiled


@pytest.mark.parametrize(
    "seconds", [{}, {HALF_LAST: 0.1}, {HALF_LAST: 0.1, replace(HALF_LAST, compiled=True): math.inf}]
)
def test_a_long_run_is_not_compiled_where_that_fails(model, monkeypatch, seconds):
    def pretend(runs, rounds=3, hopeless=10.0):
        return seconds if len(runs) == 2 else {mode: TABLE[mode] for mode in runs}

    monkeypatch.setattr(choices, "fastest", pretend)
    assert chosen(model, steps=181_000).mode == HALF_LAST


def test_timing_leaves_model_and_random_numbers_alone(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    choice = chosen(model)
    assert choice.found == "timed" and set(choice.seconds) == set(TABLE) and min(choice.seconds.values()) > 0
    answering_choice(model, lambda mode: ready(model, mode), 4)
    assert torch.equal(torch.rand(3), wanted)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters()) and model.training


def test_answers_are_timed_apart_from_training(model, seconds):
    fused = [replace(mode, fused=True) for mode in (LAST, HALF_LAST)]
    seconds(dict.fromkeys([*TABLE, *fused], 1.0) | {HALF: 0.2})
    made = []

    def copy_in(mode):
        made.append(mode)
        return copy.deepcopy(model)

    assert answering_choice(model, copy_in, 64).mode == HALF and made == [PLAIN, LAST, HALF, HALF_LAST, *fused]
    assert answering_choice(model, copy_in, 64).found == "remembered" and len(made) == 6
    assert answering_choice(model, copy_in, 64, Pins("f32")).mode in (PLAIN, LAST, fused[0])


def test_a_mode_that_a_backbone_cannot_have_is_not_chosen(model, monkeypatch):
    monkeypatch.setattr(modes, "computes", lambda device, precision: precision == "f32")
    choice = answering_choice(model, lambda mode: ready(model, replace(mode, fused=False)), 4)
    assert choice.seconds[replace(LAST, fused=True)] == math.inf and not choice.mode.fused


def test_runs_are_timed_in_turn_and_the_slow_ones_once(monkeypatch):
    clock, order = [0.0], []
    cost = {PLAIN: 5.0, LAST: 1.0, HALF: 1.2}

    def run(mode):
        order.append(mode)
        clock[0] += cost[mode]

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    found = fastest({mode: lambda mode=mode: run(mode) for mode in cost})
    assert found == pytest.approx(cost)
    assert [order.count(mode) for mode in cost] == [2, 4, 4] and order[:6] == [*cost, *cost]


def test_a_mode_that_is_not_supported_is_infinite_and_one_without_memory_is_left_out():
    def fail(error):
        raise error

    runs = {PLAIN: lambda: fail(RuntimeError("no kernel")), LAST: int, HALF: lambda: fail(torch.OutOfMemoryError())}
    found = fastest(runs)
    assert set(found) == {PLAIN, LAST} and found[PLAIN] == float("inf")


def test_memory_that_runs_out_while_timing_leaves_the_mode_out(model):
    calls = []

    def full():
        calls.append(1)
        if len(calls) > 1:
            raise torch.OutOfMemoryError

    assert set(fastest({PLAIN: full, LAST: int})) == {LAST} and len(calls) == 2


def test_a_copy_whose_step_found_no_memory_is_not_kept(model, monkeypatch):
    losses = {head.name: criterion(CrossEntropy(), head, torch.ones(len(head.classes))) for head in model.heads}
    steps = Steps(model, losses, AdamW(), 4)
    steps.of(PLAIN)()
    assert len(steps.copies) == 1
    monkeypatch.setattr(timing, "finish", lambda device: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    with pytest.raises(torch.OutOfMemoryError):
        steps.of(PLAIN)()
    assert not steps.copies


def test_a_mode_that_is_slower_by_far_runs_only_once(monkeypatch):
    """An imitated precision may take minutes a step."""
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    ran = []

    def run(mode, seconds):
        ran.append(mode)
        clock[0] += seconds

    costs = {PLAIN: 1.0, LAST: 0.9, HALF: 90.0, HALF_LAST: 2.0}
    found = fastest({mode: lambda mode=mode: run(mode, costs[mode]) for mode in costs})
    assert found == pytest.approx(costs) and {mode: ran.count(mode) for mode in costs} == {
        PLAIN: 4,
        LAST: 4,
        HALF: 1,
        HALF_LAST: 2,
    }


def test_where_nothing_can_be_timed_the_usual_mode_is_taken(model, monkeypatch):
    monkeypatch.setattr(choices, "fastest", lambda runs, rounds=3: {})
    assert chosen(model) == Choice(LAST, "usual")
    assert answering_choice(model, lambda mode: model, 8) == Choice(LAST, "usual")


def test_a_precision_that_is_not_worth_timing_here_is_given(model):
    """fp16 on a CPU: slow, but what the user asked for."""
    for choice in (chosen(model, precision="fp16"), answering_choice(model, lambda mode: model, 8, Pins("fp16"))):
        assert choice == Choice(Mode("fp16"), "given")


def test_one_head_and_several_crops_are_timed_too(model):
    heads = [MASK.on(CROP), HEADS[1].on(CROP, FULL.resized(48))]
    assert chosen(Model("test_resnet", heads)).mode in TABLE
