import argparse
import functools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from multihead import cli, flags, logs
from multihead.cli import main
from multihead.crops import FULL
from multihead.files import growing
from multihead.heads import HEADS, MASK
from multihead.joined import Ensemble, load
from multihead.model import Model
from multihead.reading import read
from multihead.settings import Network, build_heads

ROOT = Path(__file__).parents[1]
QUICK = ["--model", "test_resnet", "--resize", "32", "24", "--epochs", "2", "-b", "16", "-j", "0"]


def run(*argv):
    """The exit status, whether it comes by return or by argparse."""
    try:
        return main([str(part) for part in argv])
    except SystemExit as leave:
        return leave.code


def outside(*argv, **options):
    """The command line in a process of its own, without a terminal."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "multihead", *map(str, argv)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, **options)


@pytest.fixture(scope="module")
def data(people):
    return people / "train"


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A run folder."""
    folder = tmp_path_factory.mktemp("runs") / "a"
    assert run("train", data, *QUICK, "--seed", "3", "--output", folder, "-q") == 0
    return folder


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A model with unlike answers and no prior."""
    torch.manual_seed(0)
    model = Model("test_resnet", [head.on(FULL.resized(32)) for head in HEADS])
    for head in model.head.values():
        torch.nn.init.normal_(head.weight, std=2)
    folder = tmp_path_factory.mktemp("models") / "m"
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def photos(tmp_path):
    """Three photos, the second unreadable."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a", "b", "c"):
        Image.fromarray(np.full((40, 30, 3), ord(name), np.uint8)).save(folder / f"{name}.png")
    (folder / "b.png").write_bytes(b"")
    return folder


# ---- train


def test_the_files_of_a_run(trained):
    names = {path.relative_to(trained).as_posix() for path in trained.rglob("*") if path.is_file()}
    assert {name for name in names if "tfevents" not in name} == {
        *["args.yaml", "metrics.csv", "metrics.json", "splits.csv", "checkpoints/best.pt", "checkpoints/last.pt"],
        *["model/config.json", "model/model.safetensors", "model/README.md"],
    }
    assert sum("tfevents" in name for name in names) == 1
    table = pd.read_csv(trained / "metrics.csv")
    assert table.epoch.tolist() == [1, 2] and {"loss", "lr", "macro_f1", "mask_f1", "photos_per_s"} <= set(table)
    model = load(trained)
    assert model.crops == (FULL.resized(32, 24),) and model.prior is not None
    parts = pd.read_csv(trained / "splits.csv").split.value_counts()
    assert parts.sum() == 84 and 7 <= parts["val"] <= 28


def check_metrics(found, rows):
    assert {"n", "macro_f1", "accuracy", "heads", "by_mask"} <= set(found) and found["n"] == rows
    assert list(found["heads"]) == ["mask", "gender", "age"]
    for head in HEADS:
        part = found["heads"][head.name]
        assert {"n", "macro_f1", "accuracy", "classes"} <= set(part) and list(part["classes"]) == list(head.classes)
        assert all(set(row) == {"n", "precision", "recall", "f1"} for row in part["classes"].values())
    assert list(found["by_mask"]) == ["worn", "incorrect", "not_worn"]
    assert sum(part["n"] for part in found["by_mask"].values()) == rows


def test_metrics_json_holds_what_the_contract_says(trained):
    rows = (pd.read_csv(trained / "splits.csv").split == "val").sum()
    check_metrics(json.loads((trained / "metrics.json").read_text()), rows)


def test_events_hold_every_number(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained)).Reload()
    assert {"loss", "lr", "macro_f1", "mask_f1"} <= set(events.Tags()["scalars"])
    table = pd.read_csv(trained / "metrics.csv")
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(table.loss.tolist(), rel=1e-5)
    assert [event.step for event in events.Scalars("loss")] == [1, 2]


def test_args_yaml_makes_the_same_run_again(data, tmp_path):
    flags = [
        *["--opt", "madgrad", "--lr", "0.002", "--sched", "cosine", "--warmup-epochs", "0.5", "--aug", "gentle"],
        *["--model-ema", "--model-ema-decay", "0.9", "--smoothing", "0.1", "--head-weights", "age=2", "mask=0.5"],
        *["--clip-grad", "1", "--drop", "0.1", "--drop-path", "0.1", "--amp", "--no-channels-last", "--seed", "4"],
        *[
            "--crops",
            "full:80x72",
            "mask=full:96x80",
            "--val-share",
            "0.3",
            "--patience",
            "5",
            "--heads",
            "mask",
            "age",
        ],
    ]
    assert run("train", data, *QUICK, *flags, "--output", tmp_path / "one", "-q") == 0
    assert run("train", "-c", tmp_path / "one" / "args.yaml", "--output", tmp_path / "two", "-q") == 0
    for name in ("model/model.safetensors", "model/config.json", "metrics.json", "splits.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    one, two = (yaml.safe_load((tmp_path / name / "args.yaml").read_text()) for name in ("one", "two"))
    assert one.pop("output") != two.pop("output") and one == two
    assert one["head_weights"] == {"age": 2.0, "mask": 0.5} and one["opt"] == "madgrad" and one["data"] == [str(data)]


@pytest.mark.parametrize("order", ["config last", "config first"])
def test_a_yaml_that_ends_in_a_list_leaves_the_data_alone(data, tmp_path, order):
    settings = {"model": "test_resnet", "epochs": 1, "workers": 0, "batch_size": 16, "resize": [32, 24]}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    config = ["-c", tmp_path / "s.yaml"]
    argv = [data, *config] if order == "config last" else [*config, data]
    assert run("train", *argv, "--output", tmp_path / "run", "--epochs", "2", "-q") == 0
    assert load(tmp_path / "run").crops == (FULL.resized(32, 24),)
    assert len(pd.read_csv(tmp_path / "run" / "metrics.csv")) == 2  # the command line wins


@pytest.mark.parametrize("given, size", [(["280", "210"], (280, 210)), (["224"], (224, 224)), (["96", "64"], (96, 64))])
def test_resize_is_height_and_width(given, size, monkeypatch, data, tmp_path):
    built = []
    plain = Model.__init__

    def spy(self, *args, **kwargs):
        plain(self, *args, **kwargs)
        built.append(self.crops)
        raise ValueError("enough")

    monkeypatch.setattr(Model, "__init__", spy)
    assert run("train", data, "--model", "test_resnet", "--resize", *given, "--output", tmp_path / "r") == 2
    assert [crop.size for crop in built[0]] == [size]


def test_crops_by_head():
    network = flags.build(Network, {"resize": [64, 48], "crops": ["body", "mask=face", "age=face,body:96"]})
    mask, gender, age = build_heads(network)
    assert [(c.name, c.size) for c in mask.crops] == [("face", (64, 48))]
    assert [(c.name, c.size) for c in gender.crops] == [("body", (64, 48))]
    assert [(c.name, c.size) for c in age.crops] == [("face", (64, 48)), ("body", (96, 96))]
    (flat,) = build_heads(flags.build(Network, {"flat": True, "resize": [64]}))
    assert len(flat.classes) == 18


def test_a_split_column_is_honoured_unless_told_otherwise(trained, data, tmp_path, capsys):
    table = pd.read_csv(trained / "splits.csv")
    people = sorted(table.person.unique())
    table["split"] = table.person.map(
        lambda person: "val" if person in people[:2] else "test" if person == people[2] else "train"
    )
    table.to_csv(tmp_path / "table.csv", index=False)
    assert run("train", tmp_path / "table.csv", *QUICK, "--output", tmp_path / "a") == 0
    printed = capsys.readouterr().out
    assert "training on Photos(63 rows" in printed and "validating on Photos(14 rows" in printed
    found = pd.read_csv(tmp_path / "a" / "splits.csv")
    assert set(found.person[found.split == "val"]) == set(people[:2]) and people[2] not in set(found.person)
    assert run("train", tmp_path / "table.csv", *QUICK, "--ignore-split", "--output", tmp_path / "b", "-q") == 0
    assert len(pd.read_csv(tmp_path / "b" / "splits.csv")) == 84
    table.loc[table.person == people[0], "split"] = ["val"] * 3 + ["train"] * 4
    table.to_csv(tmp_path / "leak.csv", index=False)
    assert run("train", tmp_path / "leak.csv", *QUICK, "--output", tmp_path / "c") == 2
    assert "people are on both sides" in capsys.readouterr().err


def test_extra_photos_that_their_table_holds_out_do_not_train(data, photos, tmp_path, capsys):
    table = pd.DataFrame({"path": ["a.png", "c.png"], "mask": "worn", "split": ["train", "val"]})
    table.to_csv(photos / "more.csv", index=False)
    command = ["train", data, "--extra", photos / "more.csv", *QUICK, "--output"]
    assert run(*command, tmp_path / "r") == 0
    assert (
        "more.csv the 1 rows that its split column does not hold out; --ignore-split takes" in capsys.readouterr().err
    )
    assert run(*command, tmp_path / "all", "--ignore-split", "-q") == 0
    table.assign(split="test").to_csv(photos / "more.csv", index=False)
    assert run(*command, tmp_path / "test", "-q") == 0  # nothing of it is for training: it is named for that
    for name, wanted in {"r": {"a"}, "all": {"a", "c"}, "test": {"a", "c"}}.items():
        splits = pd.read_csv(tmp_path / name / "splits.csv")
        mine = splits[splits.path.str.startswith(str(photos))]
        assert {Path(path).stem for path in mine.path} == wanted and set(mine.split) == {"train"}


def test_extra_photos_only_train(data, photos, tmp_path):
    (photos / "b.png").unlink()
    table = pd.DataFrame({"path": ["a.png", "c.png"], "mask": ["worn", "not_worn"]})
    table.to_csv(photos / "more.csv", index=False)
    assert run("train", data, "--extra", photos / "more.csv", *QUICK, "--output", tmp_path / "r", "-q") == 0
    found = pd.read_csv(tmp_path / "r" / "splits.csv")
    assert set(found.split[found.source == "more"]) == {"train"} and len(found) == 86


def test_start_from_a_checkpoint_is_reported(trained, data, tmp_path, capsys):
    start = ["--initial-checkpoint", trained / "model", "--output", tmp_path / "r"]
    assert run("train", data, *QUICK, *start) == 0
    told = capsys.readouterr()
    assert "0 missing; 0 unexpected; 0 mismatched" in told.out
    assert f"photos trained {trained / 'model'}, which this model began from, so the scores flatter it" in told.err
    assert run("folds", data, *QUICK, *start[:2], "--folds", "2", "--fold", "0", "-o", tmp_path / "f", "-q") == 0
    assert f"photos trained {trained / 'model'}, which this model began from" in capsys.readouterr().err


def test_a_run_is_not_overwritten_but_resumed(data, trained, capsys, tmp_path):
    shutil.copytree(trained, tmp_path / "r")
    before = (tmp_path / "r" / "args.yaml").read_bytes()
    assert run("train", data, *QUICK, "--seed", "4", "--output", tmp_path / "r") == 2
    assert "holds a run; pass resume=True (--resume) to go on, or name another folder" in capsys.readouterr().err
    assert run("train", data, *QUICK, "--seed", "4", "--output", tmp_path / "r", "--resume") == 2
    told = capsys.readouterr().err
    assert "seed: 3, now 4" in told and "cannot be resumed" in told
    assert run("train", "--seed", "4", "--output", tmp_path / "r", "--resume") == 2
    assert "seed: 3, now 4" in capsys.readouterr().err
    assert run("train", "--output", tmp_path / "none", "--resume") == 2
    assert "holds no args.yaml of a run to go on with; name its folder" in capsys.readouterr().err
    assert (tmp_path / "r" / "args.yaml").read_bytes() == before  # a refused run changes nothing
    assert run("train", data, *QUICK, "--seed", "3", "--output", tmp_path / "r", "--resume") == 0
    again = ["train", data, "--output", tmp_path / "r", "--resume", "-q"]  # with the flags of its args.yaml
    assert run(*again) == run(*again, "--recovery-interval", "2") == 0  # which changes nothing of the result


def test_a_folder_of_another_kind_is_not_trained_into(data, trained, capsys, tmp_path):
    assert run("ensemble", trained, "--output", tmp_path / "e", "-q") == 0
    before = sorted(path.name for path in (tmp_path / "e").iterdir())
    assert run("train", data, *QUICK, "--output", tmp_path / "e") == 2
    assert "e holds an ensemble; name another folder (--output) for a run" in capsys.readouterr().err
    assert run("folds", data, *QUICK, "--folds", "2", "--output", trained) == 2
    assert "holds a run; name another folder (--output) for folds" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == before


def test_a_head_that_no_photo_has_a_label_for_is_told(data, capsys, tmp_path):
    photos = read(data).table
    photos.assign(mask=photos["mask"].map(dict(enumerate(MASK.classes))), split="train")[
        ["path", "person", "mask", "split"]
    ].to_csv(tmp_path / "masks.csv", index=False)
    assert run("train", tmp_path / "masks.csv", *QUICK, "--output", tmp_path / "r") == 0
    told = capsys.readouterr().err
    assert "no training photo has a label for gender, age: the model will answer by chance there" in told
    assert "note: the split column names no val: 0.2 of its people validate; --val-share 0 for none" in told
    assert run("train", tmp_path / "masks.csv", *QUICK, "--val-share", "0", "--output", tmp_path / "all") == 0
    assert "names no val" not in capsys.readouterr().err
    assert run("evaluate", tmp_path / "all", tmp_path / "masks.csv", "--part", "all") == 0
    told = capsys.readouterr().err
    assert "photos trained this model, so the scores flatter it\n" in told and "holds the people" not in told


@pytest.mark.slow
def test_without_a_terminal_there_are_no_control_characters_and_quiet_is_silent(data, tmp_path):
    loud = outside("train", data, *QUICK, "--output", tmp_path / "loud")
    told = loud.stderr.splitlines()  # of the training photos, and of the others
    assert loud.returncode == 0 and len(told) == 2
    assert all(line.startswith("keeping crops, ") and "--no-cache" in line for line in told)
    assert not set("\r\x1b\b\x07") & set(loud.stdout)
    lines = loud.stdout.splitlines()
    assert lines[-1].startswith(f"wrote {tmp_path / 'loud'}: model, ") and "macro-F1" in lines[-2]
    assert [line.split()[:2] for line in lines if line.startswith("epoch")] == [["epoch", "1"], ["epoch", "2"]]
    kept = ["--cache-folder", tmp_path / "crops"]
    quiet = outside("train", data, *QUICK, "--output", tmp_path / "quiet", "-q", *kept)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "") and list((tmp_path / "crops").glob("*/*.pack"))
    again = outside("train", data, *QUICK, "--output", tmp_path / "again", *kept)
    none = outside("train", data, *QUICK, "--output", tmp_path / "none", "--no-cache")
    assert (again.returncode, again.stderr) == (none.returncode, none.stderr) == (0, "")
    scores = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("loud", "quiet", "again", "none")]
    assert all(each == scores[0] for each in scores)


@pytest.mark.slow
def test_interrupted_and_resumed(data, tmp_path):
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    flags = ["train", str(data), *QUICK[:-4], "-b", "4", "-j", "1", "--epochs", "9", "--output", str(tmp_path / "r")]
    command = [sys.executable, "-m", "multihead", *flags]
    child = subprocess.Popen(
        command,
        env=env,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        # a shell that starts the tests in the background has told them to ignore it
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "r" / "metrics.csv").exists() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does: the loader's processes get it too
    told = child.communicate(timeout=60)[1].decode()
    assert child.returncode == 130, told
    assert f"interrupted; what was written stays, and `multihead train --resume -o {tmp_path / 'r'}` goes on" in told
    assert "Traceback" not in told
    done = len(pd.read_csv(tmp_path / "r" / "metrics.csv"))
    assert done < 9 and not (tmp_path / "r" / "model").exists()
    assert run("train", "--resume", "-o", tmp_path / "r", "-q") == 0  # with the flags and photos of its args.yaml
    assert pd.read_csv(tmp_path / "r" / "metrics.csv").epoch.tolist() == list(range(1, 10))
    assert run("train", data, *flags[2:-1], tmp_path / "whole", "-q") == 0
    assert (tmp_path / "r/model/model.safetensors").read_bytes() == (
        tmp_path / "whole/model/model.safetensors"
    ).read_bytes()


def test_a_run_goes_on_from_another_folder(data, tmp_path, monkeypatch, capsys):
    there, elsewhere = tmp_path / "there", tmp_path / "elsewhere"
    there.mkdir()
    elsewhere.mkdir()
    (there / "photos").symlink_to(data)
    monkeypatch.chdir(there)
    assert run("train", "photos", *QUICK, "-o", "r", "-q") == 0
    (there / "r" / "model" / "model.safetensors").unlink()
    monkeypatch.chdir(elsewhere)
    capsys.readouterr()
    assert run("train", "--resume", "-o", "../there/r", "-q") == 0
    assert (there / "r" / "model" / "model.safetensors").is_file() and not list(elsewhere.iterdir())
    assert run("train", str(data), "--resume", "-o", "../there/r", "-q") == 2  # by another path these are other photos
    assert "cannot be resumed (photos" in capsys.readouterr().err
    Image.fromarray(np.full((40, 30, 3), 9, np.uint8)).save(there / "more.png")
    pd.DataFrame({"path": ["more.png"], "mask": ["worn"]}).to_csv(there / "more.csv", index=False)
    monkeypatch.chdir(there)
    assert run("train", str(data), "--extra", "more.csv", *QUICK, "--val-share", "0", "-o", "e", "-q") == 0
    monkeypatch.chdir(elsewhere)
    assert (
        run("train", "--resume", "-o", "../there/e", "-q") == 0
    )  # of which only the extra photos are named from there
    assert run("train", "-c", "../there/r/args.yaml", str(data), "-o", "again", "-q") == 0  # here, as flags say
    assert yaml.safe_load((elsewhere / "again" / "args.yaml").read_text())["started_in"] == str(elsewhere)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_process_that_is_told_to_end_keeps_what_it_wrote(number, tmp_path, monkeypatch, capsys):
    def work(args):
        """Answer."""
        with growing(tmp_path / "answers.csv") as stream:
            stream.write("a row\n")
            os.kill(os.getpid(), number)
            time.sleep(10)

    monkeypatch.setitem(cli.VERBS, "predict", (work, lambda parser: None))
    before = signal.signal(number, signal.SIG_DFL)
    try:
        assert run("predict") == 128 + number and signal.getsignal(number) == signal.SIG_DFL
        assert (tmp_path / "answers.csv").read_text() == "a row\n"
        assert "interrupted; what was written stays" in capsys.readouterr().err
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        signal.signal(number, signal.SIG_IGN)  # as nohup does
        assert run("predict") == 0
    finally:
        signal.signal(number, before)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGKILL, -9)])
def test_folds_of_several_processes_end_with_their_parent(data, tmp_path, number, status):
    """Only a terminal tells all of them, and one that is killed can tell none."""
    command = [sys.executable, "-m", "multihead", "folds", str(data), *QUICK[:-4], "--epochs", "5000", "-j", "0"]
    command += ["--folds", "2", "--processes", "2", "-o", str(tmp_path / "f")]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("f/fold?/metrics.csv"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        child.send_signal(number)
        try:
            assert child.wait(60) == status
        finally:
            child.kill()
    time.sleep(5)
    done = [len(pd.read_csv(path)) for path in sorted(tmp_path.glob("f/fold?/metrics.csv"))]
    time.sleep(2)
    assert len(done) == 2 and done == [len(pd.read_csv(path)) for path in sorted(tmp_path.glob("f/fold?/metrics.csv"))]


# ---- evaluate


def test_evaluate_json(trained, data, capsys):
    assert run("evaluate", trained, data, "--json", "-j", "0") == 0
    out = capsys.readouterr().out
    check_metrics(json.loads(out), 84)
    assert run("evaluate", trained, data, "--json", "-j", "0", "--by", "person", "mask") == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["by_person"]) == 12 and sum(part["n"] for part in found["by_person"].values()) == 84
    assert {key: value for key, value in found.items() if key != "by_person"} == json.loads(out)


def test_evaluate_takes_the_val_part_unless_told(trained, capsys):
    table = trained / "splits.csv"
    counts = pd.read_csv(table).split.value_counts()
    for part, rows in (([], counts["val"]), (["--part", "train"], counts["train"]), (["--part", "all"], 84)):
        assert run("evaluate", trained, table, "--json", "-j", "0", *part) == 0
        printed = capsys.readouterr()
        assert json.loads(printed.out)["n"] == rows
        assert ("scoring the val part" in printed.err) == (not part)
    wanted = json.loads((trained / "metrics.json").read_text())
    assert run("evaluate", trained, table, "--json", "-j", "0", "-q", "-b", "3") == 0
    assert json.loads(capsys.readouterr().out)["macro_f1"] == pytest.approx(wanted["macro_f1"], abs=1e-9)


def test_slices_of_very_many_values_are_cut_short(trained, data, capsys, monkeypatch):
    monkeypatch.setattr("multihead.scoring.SLICED", 5)
    assert run("evaluate", trained, data, "-j", "0", "--by", "person") == 0
    printed = capsys.readouterr()
    assert printed.out.count("person = ") == 5 and "person has 12 values; the 5 most frequent are shown" in printed.err


def test_evaluate_as_text_with_slices(trained, data, capsys):
    assert run("evaluate", trained, data, "-j", "0", "--by", "gender", "person") == 0
    out = capsys.readouterr().out
    assert "macro-F1" in out and "gender = female" in out and out.count("person = ") == 12
    assert run("evaluate", trained, data, "-j", "0", "--by", "years") == 2
    told = capsys.readouterr().err
    assert (
        "cannot slice by 'years'; did you mean 'person'?; there are ['mask', 'gender', 'age', 'source', 'person', 'split', 'race']"
        in told
    )
    assert run("evaluate", trained, data, "-j", "0", "--by", "hat") == 2
    assert "cannot slice by 'hat'" in capsys.readouterr().err


def test_evaluate_names_what_it_did_not_count(model_folder, photos, capsys):
    table = pd.DataFrame({"path": ["a.png", "b.png", "c.png"], "mask": 0, "gender": 1, "age": 40})
    table.to_csv(photos / "t.csv", index=False)
    assert run("evaluate", model_folder, photos / "t.csv", "--json", "-j", "0") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["n"] == 2
    assert "not counted: " in printed.err and "b.png" in printed.err and "empty file" in printed.err


def test_evaluate_says_where_labels_are_expected_when_there_are_none(model_folder, photos, capsys):
    assert run("evaluate", model_folder, photos, "-j", "0") == 0
    told = "nothing is scored; expected one of the columns mask, gender, age, age_band: map others with columns="
    printed = capsys.readouterr().err
    assert told in printed and '--labels "mask:FOLDER=worn"' in printed


# ---- predict


def test_predict_writes_the_table(model_folder, photos, tmp_path, capsys):
    assert run("predict", model_folder, photos, "-o", tmp_path / "t.csv") == 0
    printed = capsys.readouterr()
    assert f"3 rows; wrote {tmp_path / 't.csv'}" in printed.out
    assert "no answer: " in printed.err and "b.png" in printed.err and "1 of 3 rows have no answer" in printed.err
    table = pd.read_csv(tmp_path / "t.csv", keep_default_na=False)
    heads = [f"{head.name}:{name}" for head in HEADS for name in head.classes]
    joint = [f"joint:{index}" for index in range(18)]
    assert list(table) == ["path", "box", "face", "mask", "gender", "age", "label", *heads, *joint, "error"]
    assert table.label.tolist()[1] == "" and "empty file" in table.error[1] and table.error[0] == ""
    assert table.label[0] == str(np.argmax(table[joint].to_numpy()[0].astype(float)))


@pytest.mark.parametrize("names, flags, status", [("ac", [], 0), ("abc", [], 0), ("abc", ["--strict"], 1), ("b", [], 1),
                                                  ("ac", ["--strict"], 0), ("", [], 1)])  # fmt: skip
def test_exit_status_of_predict(model_folder, photos, tmp_path, names, flags, status, capsys):
    sources = [photos / f"{name}.png" for name in names] or [tmp_path / "gone.jpg"]
    assert run("predict", model_folder, *sources, "-o", tmp_path / "t.csv", *flags) == status
    assert len(pd.read_csv(tmp_path / "t.csv")) == len(sources)


def test_predict_prints_into_a_pipe(model_folder, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("predict", model_folder, photos, "-o", "-", "-q") == 0
    assert capsys.readouterr().out.startswith("path,box,face,mask") and not (tmp_path / "-").exists()
    assert run("predict", model_folder, photos, "-o", "a.xlsx") == 2
    assert "-o a.xlsx: answers are a table in CSV; expected a name in .csv" in capsys.readouterr().err


def test_wrong_paths_are_not_all_listed(tmp_path, capsys):
    table = pd.DataFrame({"path": [f"C:/photos/{number}.jpg" for number in range(30)], "mask": "worn"})
    table.to_csv(tmp_path / "t.csv", index=False)
    assert run("train", tmp_path / "t.csv", *QUICK, "--val-share", "0", "--output", tmp_path / "r") == 2
    told = capsys.readouterr().err
    assert told.count("no such file") == 3 and "training: left out: 27 more, 30 in all" in told


def test_predict_prints_without_output_and_is_quiet_with_it(model_folder, photos, tmp_path, capsys):
    (photos / "b.png").unlink()
    assert run("predict", model_folder, photos) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("path,box,face,mask,") and len(printed.out.splitlines()) == 3 and printed.err == ""
    assert run("predict", model_folder, photos, "-o", tmp_path / "t.csv", "-q") == 0
    assert capsys.readouterr() == ("", "")
    assert (tmp_path / "t.csv").read_text() == printed.out


@pytest.mark.parametrize("quiet", [True, False])
def test_what_goes_on_is_told_unless_quiet(quiet, model_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # no timing is remembered
    monkeypatch.delenv("MULTIHEAD_MODE", raising=False)
    photo = Image.fromarray(np.full((40, 30, 3), 99, np.uint8))
    (tmp_path / "many").mkdir()
    for number in range(33):
        photo.save(tmp_path / "many" / f"{number:02}.png")
    flags = ["-q"] if quiet else []
    assert run("predict", model_folder, tmp_path / "many", "-o", tmp_path / "t.csv", *flags) == 0
    told = capsys.readouterr().err
    assert told == "" if quiet else "speed of answers: " in told, told
    assert run("predict", model_folder, tmp_path / "gone.png", "-o", tmp_path / "t.csv", *flags) == 1
    assert "gone.png" in capsys.readouterr().err  # an error, always
    logs.tell("and after it as before")
    assert capsys.readouterr().err == "and after it as before\n"


def test_predict_draws(model_folder, photos, tmp_path, capsys):
    assert run("predict", model_folder, photos, "-o", tmp_path / "t.csv", "--draw", tmp_path / "drawn") == 0
    assert f"pictures in {tmp_path / 'drawn'}" in capsys.readouterr().out
    assert len(list((tmp_path / "drawn").glob("*.jpg"))) == 2


def test_predict_opens_run_folders_and_ensembles(trained, model_folder, photos, tmp_path):
    Ensemble([load(trained), load(model_folder)]).save(tmp_path / "both")
    for folder in (trained, trained / "model", tmp_path / "both"):
        assert run("predict", folder, photos / "a.png", "-o", tmp_path / "t.csv", "-q") == 0


def test_predict_names_photos_of_a_folder_alike_with_boxes_and_without(model_folder, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").symlink_to(photos)
    assert run("scan", "in", "-o", "boxes.csv", "-q") == 0
    assert run("predict", model_folder, "in", "-o", "plain.csv", "-q") == 0
    assert run("predict", model_folder, "in", "--boxes", "boxes.csv", "-o", "answers/boxed.csv", "-q") == 0
    plain, boxed = pd.read_csv("plain.csv"), pd.read_csv("answers/boxed.csv")
    assert boxed.path.tolist() == plain.path.tolist() == [f"in/{name}" for name in sorted(os.listdir(photos))]
    assert run("predict", model_folder, "answers/boxed.csv", "-o", "again.csv", "-q") == 0
    pd.testing.assert_frame_equal(pd.read_csv("again.csv"), boxed)


def test_predict_reads_its_own_table(model_folder, photos, tmp_path, capsys):
    assert run("predict", model_folder, photos, "-o", photos / "t.csv") == 0
    assert run("predict", model_folder, photos / "t.csv", "-o", tmp_path / "u.csv") == 0
    assert (tmp_path / "u.csv").read_text() == (photos / "t.csv").read_text()


def test_submission(trained, model_folder, people, tmp_path, capsys):
    info = people / "eval" / "info.csv"
    assert run("predict", trained, info, "--submission", tmp_path / "s.csv") == 0
    assert f"14 rows, 0 by the training prior; wrote {tmp_path / 's.csv'}" in capsys.readouterr().out
    found, listed = pd.read_csv(tmp_path / "s.csv"), pd.read_csv(info)
    assert list(found) == ["ImageID", "ans"] and found.ImageID.equals(listed.ImageID) and found.ans.between(0, 17).all()
    listed = pd.concat([listed, pd.DataFrame({"ImageID": ["gone.jpg"], "ans": [0]})])
    listed.to_csv(tmp_path / "info.csv", index=False)
    more = ["--images", people / "eval" / "images", "--submission", tmp_path / "s.csv"]
    assert run("predict", trained, tmp_path / "info.csv", *more) == 0
    assert "answered by the training prior: gone.jpg: " in capsys.readouterr().err
    assert run("predict", trained, tmp_path / "info.csv", *more, "--strict") == 1
    assert run("predict", model_folder, tmp_path / "info.csv", *more) == 2
    assert "knows no training prior" in capsys.readouterr().err
    assert run("predict", trained, info, info, "--submission", tmp_path / "s.csv") == 2


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--submission", "s.csv", "--missing", "error"], "--missing has no meaning for --submission, which answers"),
        (["--submission", "s.csv", "--labels", "mask:?="], "--labels has no meaning for --submission"),
        (["--submission", "s.csv", "--people", "global"], "--people has no meaning for --submission"),
        (["--images", "photos"], "--images photos is where the photos of a --submission lie"),
        (["-o", "answers.parquet"], "-o answers.parquet: answers are a table in CSV"),
    ],
)
def test_flags_that_would_be_ignored_are_refused_before_the_model_is_opened(
    people, tmp_path, monkeypatch, capsys, more, told
):
    monkeypatch.chdir(tmp_path)
    assert run("predict", tmp_path / "no model", people / "eval" / "info.csv", *more) == 2
    assert told in capsys.readouterr().err


# ---- scan and split


def test_scan(photos, people, tmp_path, capsys):
    source = next((people / "train" / "images").iterdir())
    shutil.copy(next(source.glob("normal*")), photos / "d.jpg")
    assert run("scan", photos, "-o", tmp_path / "boxes.csv") == 0
    printed = capsys.readouterr()
    table = pd.read_csv(tmp_path / "boxes.csv", keep_default_na=False)
    assert list(table) == ["path", "x0", "y0", "x1", "y1", "score", "status"]
    assert dict(zip(table.path, table.status)) == {
        "a.png": "none",
        "b.png": "unreadable",
        "c.png": "none",
        "d.jpg": "found",
    }
    assert "unreadable: " in printed.err and "b.png" in printed.err and "empty file" in printed.err
    assert "1 with a face, 2 without, 1 unreadable, 0 known before" in printed.out
    assert printed.out.splitlines()[-1] == f"wrote {tmp_path / 'boxes.csv'}" and "anew" not in printed.out
    assert run("scan", photos, "-o", tmp_path / "boxes.csv", "--faces", "all") == 0
    assert "those known before stand as they were found; to search anew, with other flags" in capsys.readouterr().out
    (photos / "b.png").unlink()
    assert run("scan", photos, "-o", tmp_path / "boxes.csv", "-q") == 0
    assert capsys.readouterr() == ("", "")


def test_split(data, tmp_path, capsys):
    assert run("split", data, "-o", tmp_path / "s.csv", "--val-share", "0.25", "--seed", "2") == 0
    out = capsys.readouterr().out
    assert f"wrote {tmp_path / 's.csv'}: 63 rows train, 21 validate, nobody on both sides" in out
    table = pd.read_csv(tmp_path / "s.csv")
    assert not set(table.person[table.split == "train"]) & set(table.person[table.split == "val"])
    assert run("split", data, "-o", tmp_path / "t.csv", "--val-share", "0.25", "--seed", "2", "-q") == 0
    assert capsys.readouterr().out == "" and (tmp_path / "t.csv").read_bytes() == (tmp_path / "s.csv").read_bytes()
    table.assign(split=["test"] * 7 + ["train"] * 77).to_csv(tmp_path / "old.csv", index=False)
    assert run("split", tmp_path / "old.csv", "-o", tmp_path / "new.csv") == 0
    told = capsys.readouterr().err
    assert "divided anew, whatever their split column says (7 test, 77 train)" in told and "none of the" not in told
    table[["path"]].to_csv(tmp_path / "bare.csv", index=False)
    assert run("split", tmp_path / "bare.csv", "-o", tmp_path / "new.csv") == 0
    assert "none of the photos has a label; expected one of the columns mask, gender, age" in capsys.readouterr().err
    for name in ("old.csv", "bare.csv"):
        assert run("split", tmp_path / name, "-o", tmp_path / "new.csv", "-q") == 0
        assert capsys.readouterr() == ("", "")


# ---- wrong input

WRONG = {
    "no verb": ([], "required: VERB"),
    "unknown verb": (["trane"], "unknown verb 'trane'"),
    "no data": (["train"], "DATA is missing"),
    "data that is not there": (["train", "{tmp}/nothing"], "no such file or folder: {tmp}/nothing"),
    "empty folder": (["train", "{tmp}"], "no images under {tmp}"),
    "misspelt flag": (["train", "{data}", "--epoch", "3"], "unknown argument '--epoch'; did you mean --epochs?"),
    "flag of another optimiser": (["train", "{data}", "--momentum", ".9"], "--momentum has no meaning for --opt adamw"),
    "unknown optimiser": (["train", "{data}", "--opt", "adamm"], "did you mean 'adam"),
    "backbone": (["train", "{data}", "--model", "resnet181"], "did you mean"),
    "three sizes": (["train", "{data}", "--resize", "1", "2", "3"], "expected height and width"),
    "no size": (["train", "{data}", "--resize", "0"], "expected height and width"),
    "head": (["train", "{data}", "--heads", "mouth"], "unknown head 'mouth'; expected some of mask, gender, age"),
    "crop": (["train", "{data}", "--crops", "nose"], "unknown crop 'nose'"),
    "crop of unknown head": (["train", "{data}", "--crops", "mouth=face"], "--crops of unknown head 'mouth'"),
    "epochs": (["train", "{data}", "--epochs", "0"], "epochs is 0; expected a whole number >= 1"),
    "no number": (["train", "{data}", "--lr", "fast"], "invalid float value: 'fast'"),
    "weights": (["train", "{data}", "--pretrained-path", "{tmp}/w.pth"], "no weights at {tmp}/w.pth"),
    "start": (
        ["train", "{data}", "--model", "test_resnet", "--initial-checkpoint", "{tmp}/text"],
        "cannot be opened safely",
    ),
    "device": (["train", "{data}", "--model", "test_resnet", "--device", "tpu"], "--device tpu is not to be had here"),
    "device of another machine": (["train", "{data}", "--device", "mps"], "--device mps is not to be had here"),
    "share": (["train", "{data}", "--val-share", "1.5"], "val_share is 1.5; expected a number >= 0 and <= 0.99"),
    "output is a file": (["train", "{data}", *QUICK, "--output", "{tmp}/text"], "{tmp}/text"),
    "no settings": (["train", "-c", "{tmp}/gone.yaml"], "no settings file {tmp}/gone.yaml"),
    "unknown key": (["train", "{data}", "-c", "{tmp}/key.yaml"], "unknown key 'epoch'; did you mean 'epochs'?"),
    "no mapping": (["train", "{data}", "-c", "{tmp}/list.yaml"], "holds list; expected lines such as 'epochs: 10'"),
    "no yaml": (["train", "{data}", "-c", "{tmp}/bad.yaml"], "is no YAML"),
    "not true or false": (["train", "{data}", "-c", "{tmp}/bool.yaml"], "expected true or false"),
    "no model": (["evaluate", "{tmp}", "{data}"], "is no model folder"),
    "model of others": (["predict", "{tmp}/other", "{data}"], "not of a multihead model"),
    "damaged model": (["predict", "{tmp}/cut", "{data}"], "does not hold the weights"),
    "table without path": (["scan", "{tmp}/table.csv", "-o", "{tmp}/b.csv"], "no 'path' column"),
    "table is a folder": (["predict", "{tmp}/whole", "{data}", "-o", "{tmp}"], "error:"),
    "part that is not there": (["evaluate", "{tmp}/whole", "{data}", "--part", "test"], "no photo has split 'test'"),
    "faces": (["predict", "{tmp}/whole", "{data}", "--faces", "every"], "'every' is none of largest, central, all"),
    "too few people": (["split", "{tmp}/one.csv", "-o", "{tmp}/s.csv"], "cannot be dealt into 2 parts"),
}


@pytest.mark.parametrize("argv, told", WRONG.values(), ids=WRONG)
def test_wrong_input_is_one_line_and_status_2(argv, told, tmp_path, data, model_folder, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("no checkpoint")
    (tmp_path / "key.yaml").write_text("epoch: 3\n")
    (tmp_path / "list.yaml").write_text("- epochs\n")
    (tmp_path / "bad.yaml").write_text("a: [b\n")
    (tmp_path / "bool.yaml").write_text("amp: sometimes\n")
    (tmp_path / "table.csv").write_text("name,mask\na.jpg,worn\n")
    (tmp_path / "one.csv").write_text("path,person\na.jpg,1\nb.jpg,1\n")
    shutil.copytree(model_folder, tmp_path / "whole")
    shutil.copytree(model_folder, tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors").write_bytes(b"\0" * 50)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"architecture": "resnet18"}')
    argv = [part.format(tmp=tmp_path, data=data) for part in argv]
    assert run(*argv) == 2
    printed = capsys.readouterr()
    assert told.format(tmp=tmp_path) in printed.err, printed.err
    assert "Traceback" not in printed.err and len(printed.err.splitlines()) <= 8
    assert not (tmp_path / "runs").exists()


# ---- help


@pytest.mark.parametrize(
    "argv",
    [
        *[["--help"], ["train", "--help"], ["predict", "--help"], ["--version"]],
        *[[verb, "--help"] for verb in ("compare", "preview", "lr-range", "label")],
    ],
    ids=str,
)
def test_help_loads_nothing_heavy(argv):
    script = f"""
import sys
from multihead.cli import main
try:
    main({argv!r})
except SystemExit as leave:
    assert not leave.code
heavy = {{"torch", "pandas", "numpy", "timm", "PIL", "cv2", "sklearn", "yaml"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "multihead" in done.stdout and done.stderr == ""


def flags_of(verb):
    """The verb's optional flags, without those that are off unless given."""
    parser = cli._parser([verb])._subparsers._group_actions[0].choices[verb]
    off = (argparse._HelpAction, argparse._StoreTrueAction)
    return [action for action in parser._actions if action.option_strings and not isinstance(action, off)]


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_flag_tells_what_holds_without_it(verb):
    untold = [action.option_strings[0] for action in flags_of(verb) if "default" not in (action.help or "")]
    assert set(untold) <= {"--cutmix", "--mixup"}  # each is short for a part of --mix, which tells


@pytest.mark.parametrize("verb", cli.VERBS)
def test_a_default_that_is_told_is_the_one_that_holds(verb):
    for action in flags_of(verb):
        told = re.search(r"\(default (\S+)\)$", action.help)
        if told and action.default not in (None, [], True):
            first = action.default[0] if isinstance(action.default, list) else action.default
            assert type(first)(told[1]) == first, action.option_strings


def test_flags_of_one_kind_are_called_alike(capsys):
    assert run("train", "--help") == 0
    text = capsys.readouterr().out
    assert "STR" not in text and "-o OUTPUT" in text and "-j INT" in text and "--lr FLOAT" in text
    for verb in ("predict", "evaluate", "train"):
        assert run(verb, "--help") == 0
        text = capsys.readouterr().out
        assert "--missing {full,skip,error}" in text and "--device DEVICE" in text and "--boxes FILE" in text
    for verb in ("predict", "scan"):
        assert run(verb, "--help") == 0
        assert "--faces {largest,central,all}" in capsys.readouterr().out


def test_help_names_every_verb_and_flag(capsys):
    assert run("--help") == 0
    out = capsys.readouterr().out
    assert all(verb in out for verb in ("demo", "scan", "split", "train", "evaluate", "predict"))
    assert run("train", "--help") == 0
    out = capsys.readouterr().out
    for flag in ("--pretrained-path", "--initial-checkpoint", "--resize", "--opt", "--sched", "--lr", "--epochs", "--seed",
                 "--smoothing", "--resume", "-c", "-j", "--model-ema", "--grad-accum-steps", "--quiet"):  # fmt: skip
        assert flag in out


def test_a_note_is_told_once_a_command(capsys):
    """Each run of folds, or of a comparison, checks its recipe and warns anew."""
    for _ in range(2):
        with cli.notes(quiet=False):
            for text in ("one", "two", "one"):
                with warnings.catch_warnings():  # what is inside forgets what was warned of
                    warnings.warn_explicit(text, UserWarning, cli.__file__, 1, "multihead.train")
        assert capsys.readouterr().err == "note: one\nnote: two\n"


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_closed_streams_stop_nothing(tmp_path, closed):
    Model("test_resnet", [MASK.on(FULL.resized(32))]).save_pretrained(tmp_path / "model")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "photos" / "a.png")
    Path(os.fsdecode(bytes(tmp_path / "photos") + b"/\xff.png")).touch()  # its name, no UTF-8, is told
    command = f"{shlex.quote(sys.executable)} -m multihead predict model photos -o answers.csv {closed}"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run(["sh", "-c", command], cwd=tmp_path, env=env, timeout=300).returncode == 0
    assert len((tmp_path / "answers.csv").read_bytes().splitlines()) == 3


def test_processes_that_are_started_have_streams_too(tmp_path):
    """As a compiler's, which would take its first file for its standard error."""
    program = (
        "import subprocess, sys\n"
        "from multihead import cli\n"
        "cli._fill_streams()\n"
        "inner = 'import os; [os.fstat(number) for number in range(3)]'\n"
        "sys.exit(subprocess.run([sys.executable, '-c', inner]).returncode)\n"
    )
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(program)} <&- >&- 2>&-"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run(["sh", "-c", command], cwd=tmp_path, env=env, timeout=300).returncode == 0


def test_python_without_docstrings_has_the_verbs():
    """As PYTHONOPTIMIZE=2 in a container."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-OO", "-m", "multihead", "split", "--help"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "--val-share" in done.stdout, done.stderr
