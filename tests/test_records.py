import importlib.util
import io
import subprocess
import sys

import pandas as pd
import pytest
from test_event_files import number, version, write

from multihead.cli import VERBS, main
from multihead.event_logs import read_logs, wide
from multihead.logs import write_rows

ARROW = importlib.util.find_spec("pyarrow") is not None


def run(*argv):
    """The exit status of a call, argparse's own included."""
    try:
        return main([str(part) for part in argv])
    except SystemExit as leave:
        return leave.code


@pytest.fixture
def runs(tmp_path):
    """Two runs: one with events, one with metrics.csv."""
    found = [number(tag, step, 10.0 * step, step / 4) for step in (1, 2) for tag in ("train/loss", "macro_f1")]
    write(tmp_path / "runs" / "a" / "tfevents.1", version(), *found)
    write_rows(tmp_path / "runs" / "b" / "metrics.csv", [{"epoch": 1, "macro_f1": 0.5, "selected_by": "macro_f1"}])
    return tmp_path / "runs"


def test_a_table_and_pictures(runs, tmp_path, capsys):
    assert run("logs", runs, "-o", tmp_path / "deep" / "logs.csv", "--plot", tmp_path / "plots") == 0
    said = [
        "2 runs, 2 tags, 5 values",
        f"wrote {tmp_path / 'deep' / 'logs.csv'}",
        f"2 pictures in {tmp_path / 'plots'}",
    ]
    assert capsys.readouterr() == ("\n".join(said) + "\n", "")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "deep" / "logs.csv"), read_logs(runs), check_dtype=False)
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == ["macro_f1.png", "train_loss.png"]


def test_without_output_the_table_is_printed(runs, tmp_path, capsys):
    assert run("logs", runs, "--plot", tmp_path / "plots", "--tags", "macro_f1") == 0
    printed = capsys.readouterr()
    table = read_logs(runs)
    expected = table[table.tag == "macro_f1"].reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(printed.out)), expected, check_dtype=False)
    assert printed.err == f"2 runs, 1 tags, 3 values\n1 pictures in {tmp_path / 'plots'}\n"
    assert run("logs", runs, "-q") == 0
    printed = capsys.readouterr()
    assert printed.err == "" and printed.out.count("\n") == 6


def test_wide(runs, capsys):
    assert run("logs", runs, "--wide", "-q") == 0
    found = pd.read_csv(io.StringIO(capsys.readouterr().out))
    pd.testing.assert_frame_equal(found, wide(read_logs(runs)), check_dtype=False, check_column_type=False)


def test_source(runs, capsys):
    assert run("logs", runs / "b", "--source", "metrics", "-q") == 0
    assert capsys.readouterr().out == "run,tag,step,wall_time,value\nb,macro_f1,1,,0.5\n"


def test_what_was_not_read_is_told_even_if_quiet(runs, capsys):
    (runs / "a" / "tfevents.2").write_bytes(b"not an event file")
    assert run("logs", runs, "-q") == 0
    assert capsys.readouterr().err == f"note: {runs / 'a' / 'tfevents.2'}: is no event file; not read\n"


def test_logs_without_a_number(tmp_path, capsys):
    write(tmp_path / "a" / "tfevents.1", version())
    assert run("logs", tmp_path / "a", "-o", tmp_path / "logs.csv") == 1
    assert f"no numbers in the logs of {tmp_path / 'a'}: nothing to write" in capsys.readouterr().err
    assert not (tmp_path / "logs.csv").exists()


@pytest.mark.skipif(not ARROW, reason="no pyarrow here")
def test_parquet(runs, tmp_path):
    assert run("logs", runs, "-o", tmp_path / "logs.parquet", "-q") == 0
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "logs.parquet"), read_logs(runs), check_dtype=False)


def test_parquet_by_the_ending(runs, tmp_path, monkeypatch):
    """What is asked of pandas, where pyarrow may be absent."""
    asked = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)

    def to_parquet(table, path, **options):
        asked.append((len(table), options))
        path.write_bytes(b"PAR1")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", to_parquet)
    assert run("logs", runs, "-o", tmp_path / "logs.Parquet", "-q") == 0
    assert asked == [(5, {"engine": "pyarrow", "index": False})] and (tmp_path / "logs.Parquet").read_bytes() == b"PAR1"


def test_parquet_without_pyarrow(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("multihead.event_logs.read_logs", None)  # told before anything is read
    assert run("logs", runs, "-o", tmp_path / "logs.parquet") == 2
    told = f"{tmp_path / 'logs.parquet'} needs pyarrow: pip install 'multihead[parquet]', or write a .csv"
    assert told in capsys.readouterr().err and not (tmp_path / "logs.parquet").exists()


WRONG = {
    "ending": (["{runs}", "-o", "{tmp}/logs.xlsx"], "logs.xlsx ends in '.xlsx'; expected .csv or .parquet"),
    "no ending": (["{gone}", "-o", "{tmp}/logs"], "ends in ''; expected .csv or .parquet"),
    "folder": (["{runs}", "-o", "{tmp}/table.csv"], "it is a folder; name a file in it"),
    "gone": (["{gone}"], "no such file or folder: {gone}"),
    "no logs": (["{tmp}/table.csv"], "no logs under {tmp}/table.csv; looked for files with 'tfevents'"),
    "tag": (["{runs}", "--tags", "macrof1"], "no tag 'macrof1'; did you mean 'macro_f1'?"),
    "source": (["{runs}", "--source", "event"], "'event' is none of auto, events, metrics; did you mean 'events'?"),
    "nothing": ([], "required: PATH"),
}


@pytest.mark.parametrize(("argv", "told"), WRONG.values(), ids=WRONG)
def test_wrong_input(runs, tmp_path, capsys, argv, told):
    (tmp_path / "table.csv").mkdir()
    places = {"runs": runs, "tmp": tmp_path, "gone": tmp_path / "gone"}
    assert run("logs", *[part.format(**places) for part in argv]) == 2
    printed = capsys.readouterr()
    assert told.format(**places) in printed.err and printed.out == ""


def test_the_help_is_light(capsys):
    assert "logs" in VERBS
    code = (
        "import sys\nfrom multihead.cli import main\ntry:\n    main(['logs', '--help'])\nexcept SystemExit:\n    pass\n"
    )
    code += "print({'torch', 'pandas', 'tensorboard', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "--wide" in done.stdout and done.stdout.endswith("set()\n") and done.stderr == ""
