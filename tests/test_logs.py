import csv
import math
import time

import pytest

from multihead.cli import main
from multihead.logs import Events, bar, line, watched, write_rows

ROWS = [{"epoch": 1, "loss": 0.5, "note": "a, b"}, {"epoch": 2, "loss": float("nan"), "f1": 0.25}]


def test_rows_read_back(tmp_path):
    write_rows(tmp_path / "m.csv", ROWS)
    with open(tmp_path / "m.csv", newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == ["epoch", "loss", "note", "f1"]
    assert found[0] == {"epoch": "1", "loss": "0.5", "note": "a, b", "f1": ""}
    assert math.isnan(float(found[1]["loss"])) and found[1]["f1"] == "0.25"
    write_rows(tmp_path / "m.csv", ROWS[:1])
    assert (tmp_path / "m.csv").read_text() == 'epoch,loss,note\n1,0.5,"a, b"\n'


def read_events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(e.step, round(e.value, 6)) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_events_read_back(tmp_path):
    events = Events(tmp_path, 1)
    for row in ROWS:
        events.add(row | {"loss": row["epoch"] / 2})
    events.close()
    assert read_events(tmp_path) == {"loss": [(1, 0.5), (2, 1.0)], "f1": [(2, 0.25)]}


@pytest.mark.parametrize("again", [1, 2])  # 1: killed after the events of its first epoch, before their checkpoint
def test_events_of_epochs_trained_again_replace_the_old(tmp_path, again):
    for first, value in ((1, 0.1), (again, 0.9)):
        events = Events(tmp_path, first)
        for epoch in range(first, 4):
            events.add({"epoch": epoch, "loss": value})
        events.close()
        time.sleep(1.1)  # event files are read in the order of the second in their names
    assert read_events(tmp_path) == {"loss": [(1, 0.1 if again > 1 else 0.9), (2, 0.9), (3, 0.9)]}


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("shown", [False, True])
def test_a_bar_is_shown_where_it_is_asked_for(shown, terminal, capsys, monkeypatch):
    """Also where standard error is no terminal, as in a notebook."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    assert watched() == terminal
    with bar(3, "epoch 1", shown) as found:
        found.update(3)
    assert ("epoch 1" in capsys.readouterr().err) == shown


def test_the_command_line_shows_bars_on_terminals_only(people, tmp_path, monkeypatch, capsys):
    for terminal in (False, True):
        monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)  # noqa: B023
        train = ["train", str(people / "train"), "--model", "test_resnet.r160_in1k", "--resize", "64", "--epochs", "1"]
        assert main([*train, "--output", str(tmp_path / str(terminal)), "-j", "0"]) == 0
        assert ("epoch 1/1" in capsys.readouterr().err) == terminal


def test_line():
    row = {"epoch": 3, "lr": 0.00123456, "rows": 40, "f1": 0.5, "seconds": 1.5, "selection": "macro_f1"}
    assert line(row) == "epoch 3  lr 0.001235  f1 0.5"
