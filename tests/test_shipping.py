import pandas as pd
import pytest
import torch

from multihead.cli import main
from multihead.crops import FULL
from multihead.heads import HEADS
from multihead.joined import Ensemble, load
from multihead.model import Model


@pytest.fixture
def run(tmp_path, people):
    """A run folder: model/ and splits.csv, in which the first two people validate."""
    torch.manual_seed(0)
    Model("test_resnet", [head.on(FULL.resized(32)) for head in HEADS]).save_pretrained(tmp_path / "run" / "model")
    assert main(["split", str(people / "train"), "-o", str(tmp_path / "run" / "splits.csv"), "-q"]) == 0
    return tmp_path / "run"


def test_a_run_is_exported_scored_and_answers(run, tmp_path, people, capsys):
    assert main(["export", str(run), "-o", str(tmp_path / "x"), "--format", "torch"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("to torch in f32") and said[1].startswith("f32: 72 rows, largest difference ")
    assert said[2].startswith("wrote ") and load(tmp_path / "x").runtime == "torch"
    assert main(["evaluate", str(tmp_path / "x"), str(people / "train"), "-j", "0", "--amp"]) == 0
    told = capsys.readouterr()
    assert "macro-F1" in told.out and "--amp and --torchcompile change nothing" in told.err
    assert main(["predict", str(tmp_path / "x"), str(people / "eval"), "-o", str(tmp_path / "table.csv"), "-q"]) == 0
    assert pd.read_csv(tmp_path / "table.csv").label.notna().all()


def test_an_ensemble_is_exported_member_by_member(tmp_path, capsys):
    models = [Model("test_resnet", [head.on(FULL.resized(32)) for head in HEADS]) for _ in range(2)]
    Ensemble(models).save(tmp_path / "e")
    assert main(["export", str(tmp_path / "e"), "-o", str(tmp_path / "x"), "--format", "torch"]) == 0
    said = capsys.readouterr().out
    assert "member0: f32: 72 rows" in said and "member1: f32: 72 rows" in said
    assert [member.runtime for member in load(tmp_path / "x").members] == ["torch"] * 2


def test_photos_that_test_the_model_do_not_calibrate(run, tmp_path, monkeypatch, capsys):
    from multihead import export

    given = {}

    def openvino(model, folder, precision, *, photos, max_drop, limit, say):
        given.update(photos=photos, precision=precision, max_drop=max_drop, limit=limit)
        return {}

    monkeypatch.setattr(export, "openvino", openvino)
    base = [
        "export",
        str(run / "model"),
        "--format",
        "openvino",
        "--precision",
        "int8",
        "--data",
        str(run / "splits.csv"),
    ]
    table = pd.read_csv(run / "splits.csv")
    trained = int((table.split == "train").sum())
    assert main([*base, "--max-drop", "0.03", "--limit", "40"]) == 0
    assert len(given["photos"]) == trained < len(table) and given["max_drop"] == 0.03 and given["limit"] == 40
    told = capsys.readouterr().out
    assert f"{len(table) - trained} photos that validate or test are left out" in told
    assert "knows them by heart, and the bound that is controlled on them hides a part of what int8 costs" in told
    assert main([*base, "--held-out"]) == 0
    assert len(given["photos"]) == len(table)
    table.drop(columns="split")[table.split == "val"].to_csv(run / "val.csv", index=False)
    assert main([*base[:-1], str(run / "val.csv")]) == 2  # known by the run's own table
    assert "validate or test; int8 that is calibrated on them would be scored too" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--format", "onnx", "--precision", "int8"], "--format onnx has no precision int8"),
        (["--format", "openvino", "--precision", "int8"], "name them, --data"),
        (["--format", "torch", "--opset", "18"], "--opset has no meaning for --format torch"),
        (["--format", "openvino", "--max-drop", "1.5"], "--max-drop 1.5 --limit 300; expected a share"),
    ],
    ids=["onnx int8", "no photos", "opset", "drop"],
)
def test_flags_that_do_not_go_together(run, tmp_path, more, text, capsys):
    assert main(["export", str(run), "-o", str(tmp_path / "x"), *more]) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_help_and_unknown_words(run, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["export", "--help"])
    assert stopped.value.code == 0 and "--max-drop" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["export", str(run), "--format", "onxn"])
    assert "onnx" in capsys.readouterr().err
