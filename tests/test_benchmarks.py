"""Benchmarks run in small and print one JSON line with what was measured, where and with what."""

import importlib.util
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load(name, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_heads_vs_flat_prints_both_sides_of_one_run(people, monkeypatch, capsys):
    arguments = ["--data", str(people / "train"), "--model", "test_resnet", "--resize", "32", "--epochs", "1"]
    load("heads_vs_flat", monkeypatch).main([*arguments, "--pairs", "2"])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {"benchmark", "commit", "machine", "versions", "settings", "numbers"} <= set(line)
    for side in ("heads", "flat"):
        assert 0 <= line["numbers"][side]["macro_f1"] <= 1
    assert line["numbers"]["flat"]["parameters"] > line["numbers"]["heads"]["parameters"]
    assert line["numbers"]["ratios"]["train_step"]["median"] > 0


def test_every_result_names_its_commit_and_machine():
    for path in (BENCHMARKS / "results").glob("*.json*"):
        for line in path.read_text().splitlines():
            assert {"benchmark", "machine", "versions", "numbers"} <= set(json.loads(line)), path


def test_mixing_weights_are_the_pixels(monkeypatch, capsys):
    load("mixing", monkeypatch).main(["--seeds", "20", "--out", ""])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["numbers"]["box, 3 heads, 2 crops"]["correlation"] >= 0.999
    assert line["numbers"]["inverted, 3 heads, 1 crop"]["correlation"] < -0.9


@pytest.mark.slow
def test_a_study_leaves_table_and_pictures(people, monkeypatch, tmp_path):
    small = "--model test_resnet --resize 32 --epochs 1 --folds 2 --epoch-photos 32"
    arguments = ["--data", str(people / "train"), "--only", "heads_vs_flat", "--more", small]
    arguments += ["--output", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    (line,) = load("studies", monkeypatch).main(arguments)
    assert {row["arm"] for row in line["numbers"]["arms"]} == {"heads", "flat", "flat on full rows"}
    left = {path.name for path in (tmp_path / "results").iterdir()}
    assert left == {f"heads_vs_flat{end}" for end in (".csv", ".md", ".json", "-curves.png", "-differences.png")}
