"""Benchmarks run in small and print one JSON line with what was measured, where and with what."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import f1_score

from multihead.heads import HEADS
from multihead.labels import encode

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load(name, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_heads_vs_flat_leaves_tables_and_a_picture_that_say_the_same(people, monkeypatch, tmp_path):
    small = ["--model", "test_resnet", "--resize", "32", "--epochs", "1", "--folds", "2", "--pairs", "2"]
    places = ["--output", str(tmp_path / "runs"), "--results", str(tmp_path / "results"), "--name", "few"]
    bench = load("heads_vs_flat", monkeypatch)

    def here(arm):  # a process of its own could not import what was loaded by its path
        return max(bench.cost._peak(arm, number) for number in range(len(arm.models())))

    monkeypatch.setattr(bench.cost, "_memory", here)
    line = bench.main(["--data", str(people / "train"), *small, *places, "--epoch-photos", "24"])
    assert {"benchmark", "commit", "machine", "versions", "settings", "numbers"} <= set(line)
    scores, costs = line["numbers"]["scores"], line["numbers"]["costs"]
    arms = ["flat", "heads", "three models", "heads with crops"]
    assert {(row["arm"], row["hidden"]) for row in scores} == {
        *((arm, 0.0) for arm in arms), *((arm, 0.5) for arm in arms[:3]),
    }  # fmt: skip
    assert {row["slice"] for row in scores} == {
        "all", "mask worn", "mask incorrect", "mask not_worn", "gender male", "gender female",
    }  # fmt: skip
    assert [costs[arm]["passes"] for arm in arms] == [1, 1, 3, 2]
    assert costs["three models"]["parameters"] > 2.9 * costs["heads"]["parameters"]
    assert costs["flat"]["train_step"]["ratio"] == 1 and all(costs[arm]["memory_mb"] >= 0 for arm in arms)
    left = {path.name for path in (tmp_path / "results").iterdir()}
    assert left == {"few.json", "few.md", "few.png"}
    mean = next(row["mean"] for row in scores if row["arm"] == "heads" and row["metric"] == "macro_f1")
    assert f"| heads | {mean:.3f} |" in (tmp_path / "results" / "few.md").read_text()


@pytest.mark.slow
def test_the_memory_of_a_step_grows_with_the_photo():
    lines = ["import sys", f"sys.path.insert(0, {str(BENCHMARKS)!r})", "import cost, multihead as mh"]
    lines += ["size = int(sys.argv[1])", "heads = [head.on(mh.FULL.resized(size)) for head in mh.HEADS]"]
    lines += ["print(cost._peak(mh.Arm(lambda: mh.Model('test_resnet', heads=heads)), 0))"]
    command = [sys.executable, "-c", "\n".join(lines)]
    peaks = [
        float(subprocess.run([*command, size], capture_output=True, text=True, check=True).stdout)
        for size in ("64", "192")
    ]
    assert peaks[1] > peaks[0] + 20  # of 32 photos: 14 MB of pixels as floats, and what layers keep


def test_the_tables_of_the_readmes_are_the_results(monkeypatch):
    made = load("readme", monkeypatch)
    assert {path.parent.name for path in made.MADE} >= {"studies"}
    for path, tables in made.MADE.items():
        text = path.read_text()
        assert made.filled(text, tables) == text, "python benchmarks/readme.py writes it anew"


@pytest.mark.slow
def test_five_folds_reports_what_was_fitted_out_of_fold(people, monkeypatch, tmp_path):
    from multihead.reading import read

    train, valid = read(people / "train").split(0.5, seed=0)
    from multihead.data import write_splits

    write_splits(tmp_path / "s.csv", {"train": train, "val": valid})
    small = ["--model", "test_resnet", "--resize", "32", "--epochs", "1", "--folds", "2", "--rounds", "1"]
    places = ["--output", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    line = load("five_folds", monkeypatch).main(["--data", str(tmp_path / "s.csv"), *small, *places])
    numbers = line["numbers"]
    arms = {row["arm"] for row in numbers["validation"]}
    assert {"single fold", "ensemble", "soup", "hard vote", "ensemble, person vote"} <= arms
    assert [row["part"] for row in numbers["folds"]] == ["fold 0", "fold 1", "pooled"]
    assert set(numbers["calibration validation"]["ensemble"]) == {"joint", "mask", "gender", "age"}
    assert numbers["cost"]["ensemble"]["ratio"] > 0 and (tmp_path / "results" / "five_folds-reliability.png").is_file()


def test_every_result_names_its_commit_and_machine():
    assert list((BENCHMARKS / "results" / "speed").glob("*/*.json"))
    for path in [*(BENCHMARKS / "results").glob("*.json*"), *(BENCHMARKS / "results" / "speed").glob("*/*.json")]:
        for line in path.read_text().splitlines():
            assert {"benchmark", "machine", "versions", "numbers"} <= set(json.loads(line)), path


def test_bench_refuses_a_benchmark_that_there_is_not(monkeypatch, capsys):
    bench = load("bench", monkeypatch)
    monkeypatch.setattr(bench, "run", None)  # nothing is measured, or written anew
    monkeypatch.setattr(sys, "argv", ["bench.py", "--only", "train", "foward"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "--only foward: expected some of faces, loader, startup, forward" in capsys.readouterr().err


def test_mixing_weights_are_the_pixels(monkeypatch, capsys):
    load("mixing", monkeypatch).main(["--seeds", "20", "--out", ""])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["numbers"]["box, 3 heads, 2 crops"]["correlation"] >= 0.999
    assert line["numbers"]["inverted, 3 heads, 1 crop"]["correlation"] < -0.9


def test_coverage_knows_the_true_scores_and_counts_intervals_that_hold_them(monkeypatch, capsys):
    coverage = load("coverage", monkeypatch)
    monkeypatch.setattr(coverage, "POPULATION", 900)
    labels, answers = coverage.population(np.random.default_rng(3))
    truth = coverage.true_scores(labels, answers)
    joint = encode(labels.reshape(-1, 3), HEADS)
    scores = [f1_score(joint, each.ravel(), average="macro") for each in answers]
    assert truth["macro_f1"] == [pytest.approx(scores[1]), pytest.approx(scores[1] - scores[0])]
    assert 0.3 < scores[0] < scores[1] < 0.9  # the second errs less
    args = ["--people", "30", "--samples", "8", "--resamples", "50"]
    found = coverage.main(args)["numbers"]["30"]
    assert json.loads(capsys.readouterr().out)["numbers"]["30"] == found
    for each in found.values():
        assert all(0.3 < one["covered"] <= 1 and one["width"] > 0 for one in each.values())
    far = {metric: [2.0, 2.0] for metric in truth}
    asked = SimpleNamespace(seed=0, samples=2, resamples=20)
    missed = coverage.covered(labels, answers, far, 30, asked)
    assert all(one["covered"] == 0 for each in missed.values() for one in each.values())


@pytest.mark.slow
def test_a_study_leaves_table_and_pictures(people, monkeypatch, tmp_path):
    small = "--model test_resnet --resize 32 --epochs 1 --folds 2 --epoch-photos 32"
    arguments = ["--data", str(people / "train"), "--only", "heads_vs_flat", "--more", small]
    arguments += ["--output", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    (line,) = load("studies", monkeypatch).main(arguments)
    assert {row["arm"] for row in line["numbers"]["arms"]} == {"heads", "flat", "flat on full rows"}
    left = {path.name for path in (tmp_path / "results").iterdir()}
    assert left == {f"heads_vs_flat{end}" for end in (".csv", ".md", ".json", "-curves.png", "-differences.png")}


@pytest.mark.slow
def test_export_measures_every_runtime(people, tmp_path):
    from multihead.data import write_splits
    from multihead.reading import read

    train, valid = read(people / "train").split(0.2, seed=0)
    write_splits(tmp_path / "s.csv", {"train": train, "val": valid})
    small = ["--model", "test_resnet", "--resize", "32", "--epochs", "1", "--limit", "8", "--rounds", "2", "-b", "4"]
    arguments = ["--data", str(tmp_path / "s.csv"), *small, "--output", str(tmp_path / "out"), "--repeats", "1"]
    # a process of its own, as it is run: it loads every runtime there is
    # not as a script: that asserts what so small a model does not keep
    command = [sys.executable, "-c", "import sys, export; export.main(sys.argv[1:])", *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (BENCHMARKS.parent, BENCHMARKS)))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])["numbers"]
    rows = found["contenders"]
    assert len(rows) in (6, 7) and rows["openvino f32"]["ratio"] == 1 and rows["onnxruntime f32"]["agreement"] == 1
    assert rows["openvino int8, no bound"]["precision"] == "int8" and set(found["claims"].values()) <= {True, False}
    assert all(row["photos_a_second"] > 0 and len(row["difference"]) == 3 for row in rows.values())


@pytest.mark.parametrize("count", [1, 2, 5, 6, 30])
def test_pairs_give_the_ratio_with_its_interval(count, monkeypatch):
    """Beside scipy: the order statistics that hold the median with 95 %, as few as there are."""
    stats = pytest.importorskip("scipy.stats")
    pairs = load("pairs", monkeypatch)
    ours, theirs = [1.0] * count, [float(number) for number in range(1, count + 1)]
    found = pairs.faster(ours, theirs)
    assert found["ratio"] == pytest.approx((count + 1) / 2) and found["pairs"] == count
    low, high = found["interval"]
    if count >= 6:  # fewer cannot hold it with 95 %
        assert stats.binom(count, 0.5).cdf(low - 1) <= 0.025 < stats.binom(count, 0.5).cdf(low)
        assert low + high == count + 1
    else:
        assert (low, high) == (1, count)


def test_the_picture_of_limits_is_drawn_from_a_result(tmp_path, monkeypatch):
    limits = load("limits", monkeypatch)
    limits.draw(tmp_path)
    assert not (tmp_path / "limits.png").exists()  # nothing measured yet
    stages = {"open": 0.5, "search": 6, "cut": 0.5, "answer": 4, "raw decode": 0.4, "memory copy": 0.02}
    numbers = {"sides": {"glue": {"ms": 60}, "ours, mtcnn": {"ms": 11}}, "stages": {"ours, mtcnn": {"ms": stages}}}
    (tmp_path / "predict.json").write_text(json.dumps({"numbers": numbers}))
    limits.draw(tmp_path)
    assert (tmp_path / "limits.png").stat().st_size > 10_000
    rows = limits.bars(numbers)
    assert rows[2] == ("mtcnn: open", 2000, 2500) and rows[3] == ("mtcnn: search", 1000 / 6, None)
