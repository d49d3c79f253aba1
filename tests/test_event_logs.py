import itertools
import math
import re
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_event_files import number, record, start, tensor, version, write

from multihead import event_logs
from multihead.event_logs import chosen, draw, draw_all, read_logs, wide
from multihead.logs import Events, write_rows

ROWS = [{"epoch": 1, "loss": 0.5, "selected_by": "macro_f1"}, {"epoch": 2, "loss": 0.25, "macro_f1": 0.75}]


def event_file(folder, *found, name="events.out.tfevents.1.host.1.0"):
    return write(folder / name, version(), *found)


def rows(table):
    return [tuple(row) for row in table[["run", "tag", "step", "value"]].to_numpy().tolist()]


def tensorboard(folder):
    """{(tag, step): value} that TensorBoard shows of a folder; the last of several at one step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return {(tag, event.step): event.value for tag in found.Tags()["scalars"] for event in found.Scalars(tag)}


@pytest.fixture
def told():
    """What is warned of."""
    with warnings.catch_warnings(record=True) as noticed:
        warnings.simplefilter("always")
        yield noticed


# ---- events


def test_what_torch_writes_reads_back(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    times = {}
    with SummaryWriter(str(tmp_path / "a" / "fold0")) as writer:
        for step in (3, 1, 2):
            times[step] = 1e9 + 10 * step + 0.125
            writer.add_scalar("train/loss", step / 8, step, walltime=times[step])
            writer.add_scalar("new", step / 3, step, new_style=True, double_precision=True)
        writer.add_scalar("nan", math.nan, 1)
        writer.add_scalars("f1", {"mask": 0.5, "age": 0.25}, 7)
        writer.add_hparams({"lr": 0.1}, {"best": 0.75}, run_name="tried")
    table = read_logs(tmp_path)
    assert list(table.columns) == ["run", "tag", "step", "wall_time", "value"]
    assert table.dtypes.astype(str).tolist()[2:] == ["int64", "float64", "float64"]
    assert rows(table[table.tag != "nan"]) == [
        *[("a/fold0", "train/loss", step, step / 8) for step in (1, 2, 3)],
        *[("a/fold0", "new", step, step / 3) for step in (1, 2, 3)],
        ("a/fold0/f1_age", "f1", 7, 0.25),
        ("a/fold0/f1_mask", "f1", 7, 0.5),
        ("a/fold0/tried", "best", 0, 0.75),
    ]
    assert table.wall_time[table.tag == "train/loss"].tolist() == [times[1], times[2], times[3]]
    assert math.isnan(table.value[table.tag == "nan"].item())


ITEMS = st.one_of(
    st.tuples(st.sampled_from(["loss", "f1"]), st.integers(-2, 6), st.floats(width=32, allow_nan=False)),
    st.tuples(st.just("start"), st.integers(-2, 6)),
)


@given(st.lists(st.lists(ITEMS, max_size=8), min_size=1, max_size=4))
def test_several_files_of_a_run_are_what_tensorboard_shows(tmp_path_factory, files):
    """Restarts and steps written again, in files whose names stand in the order of writing."""
    folder, clock, expected = tmp_path_factory.mktemp("run"), itertools.count(1.0), {}
    for place, items in enumerate(files):
        written = []
        for name, step, *value in items:
            if name == "start":
                written.append(start(step, next(clock)))
                expected = {key: old for key, old in expected.items() if key[1] < step}
            else:
                written.append(number(name, step, next(clock), value[0]))
                expected[name, step] = value[0]
        write(folder / f"tfevents.{place}", version(next(clock)), *written)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = read_logs(folder)
    found = {(row.tag, row.step): row.value for row in table.itertuples()}
    assert found == expected == tensorboard(folder) and len(found) == len(table)


def test_a_resumed_run_of_ours(tmp_path, monkeypatch):
    # TensorBoard's reader takes files of one second in the order of their names, the writer counts them: 9 before 10
    counter = pytest.importorskip("tensorboard.summary.writer.event_file_writer")
    monkeypatch.setattr(counter, "_global_uid", counter.AtomicCounter(100))
    for first, epochs, value in ((1, 3, 0.5), (3, 4, 0.75), (3, 3, 0.25)):  # the last one stopped early
        log = Events(tmp_path, first)
        for epoch in range(first, epochs + 1):
            log.add({"epoch": epoch, "loss": value})
        log.close()
    table = read_logs(tmp_path)
    assert rows(table) == [(tmp_path.name, "loss", epoch, value) for epoch, value in ((1, 0.5), (2, 0.5), (3, 0.25))]
    assert {(row.tag, row.step): row.value for row in table.itertuples()} == tensorboard(tmp_path)


def test_the_value_written_last_counts(tmp_path, told):
    """By its time, not by the name of its file: two processes that write in one second."""
    event_file(tmp_path, number("loss", 1, 10.0, 0.5), number("loss", 2, 11.0, 0.5), name="tfevents.1.host.9.0")
    write(tmp_path / "tfevents.1.host.10.0", version(20.0), start(2, 20.0), number("loss", 2, 21.0, 0.25))
    assert rows(read_logs(tmp_path)) == [(tmp_path.name, "loss", 1, 0.5), (tmp_path.name, "loss", 2, 0.25)]
    assert not told
    write(tmp_path / "tfevents.2", version(5.0), number("loss", 1, 30.0, 0.75), number("loss", 1, 29.0, 0.9))
    assert read_logs(tmp_path).value.tolist() == [0.75, 0.25]
    again = f"run '{tmp_path.name}': 2 values were written again for their tag and step; the last ones count"
    assert [str(notice.message) for notice in told] == [again]


def test_a_killed_run_and_its_neighbours(tmp_path):
    path = event_file(tmp_path / "a", number("loss", 1, 1.0, 0.5), number("loss", 2, 2.0, 0.25))
    path.write_bytes(path.read_bytes()[:-3])
    event_file(tmp_path / "b", number("loss", 1, 1.0, 0.75))
    with pytest.warns(UserWarning, match=re.escape(f"{path}: ends within a record")):
        assert rows(read_logs(tmp_path)) == [("a", "loss", 1, 0.5), ("b", "loss", 1, 0.75)]
    assert tensorboard(tmp_path / "a") == {("loss", 1): 0.5}


def test_wrong_event_files_are_named_and_the_others_read(tmp_path, told):
    for name, content in (("tfevents.empty", b""), ("tfevents.wrong", b"not at all an event file")):
        (tmp_path / "a" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "a" / name).write_bytes(content)
    event_file(tmp_path / "a", number("loss", 1, 1.0, 0.5))
    (tmp_path / "a" / "tfevents.profile-empty").touch()  # marks a folder with profiles
    assert rows(read_logs(tmp_path)) == [("a", "loss", 1, 0.5)]
    assert sorted(str(notice.message) for notice in told) == [
        f"{tmp_path}/a/tfevents.empty: empty file",
        f"{tmp_path}/a/tfevents.wrong: is no event file; not read",
    ]


def test_events_without_a_scalar(tmp_path, told):
    event_file(tmp_path, tensor("words", 1, b"text"))
    table = read_logs(tmp_path)
    assert len(table) == 0 and list(table.columns) == list(event_logs.COLUMNS) and table.step.dtype == "int64"
    assert [str(notice.message) for notice in told] == [f"run '{tmp_path.name}': no scalar in its event files"]
    write_rows(tmp_path / "metrics.csv", ROWS)
    assert len(read_logs(tmp_path)) == 3 and str(told[1].message).endswith("event files; metrics.csv is read")


# ---- metrics


def test_metrics(tmp_path):
    write_rows(tmp_path / "run" / "metrics.csv", [{"epoch": 0, "loss": math.nan}, *ROWS])
    table = read_logs(tmp_path)
    assert rows(table)[1:] == [("run", "loss", 1, 0.5), ("run", "loss", 2, 0.25), ("run", "macro_f1", 2, 0.75)]
    assert rows(table)[0][:3] == ("run", "loss", 0) and math.isnan(table.value[0])
    assert table.wall_time.isna().all()


def test_a_comparisons_curves(tmp_path):
    for arm in ("plain", "mixed"):
        write_rows(tmp_path / "runs" / arm / "fold0-seed1" / "curve.csv", ROWS[:1])
    (tmp_path / "results.csv").write_text("arm,score\nplain,1\n")
    runs = ["runs/mixed/fold0-seed1", "runs/plain/fold0-seed1"]
    assert rows(read_logs(tmp_path)) == [(run, "loss", 1, 0.5) for run in runs]


def test_a_folds_two_tables_are_one(tmp_path):
    for name in ("metrics.csv", "curve.csv"):
        write_rows(tmp_path / "fold0" / name, ROWS)
    assert len(read_logs(tmp_path)) == 3  # and warns of nothing


def test_a_folder_with_both_counts_once(tmp_path):
    event_file(tmp_path / "a", number("loss", 1, 1.0, 0.125))
    write_rows(tmp_path / "a" / "metrics.csv", ROWS)
    write_rows(tmp_path / "b" / "metrics.csv", ROWS[:1])
    assert rows(read_logs(tmp_path)) == [("a", "loss", 1, 0.125), ("b", "loss", 1, 0.5)]
    assert rows(read_logs(tmp_path, source="events")) == [("a", "loss", 1, 0.125)]
    assert len(read_logs(tmp_path, source="metrics")) == 4
    assert len(read_logs(tmp_path / "a" / "metrics.csv")) == 3


def test_a_run_of_ours_gives_the_same_by_both_ways(tmp_path):
    found = [{"epoch": epoch, "lr": 0.1 / epoch, "rows": 40, "note": "a", "f1": 1 / 3} for epoch in (1, 2, 3)]
    log = Events(tmp_path, 1)
    for row in found:
        log.add(row)
    log.close()
    write_rows(tmp_path / "metrics.csv", found)
    events, metrics = read_logs(tmp_path), read_logs(tmp_path, source="metrics")
    keys = ["run", "tag", "step"]
    assert events[keys].equals(metrics[keys]) and np.allclose(events.value, metrics.value, rtol=1e-6)


ODD = {
    "no epoch": ("step,loss\n1,2\n", 0, "no column 'epoch' among ['step', 'loss']; not read"),
    "empty": ("", 0, "no column 'epoch' among []; not read"),
    "header only": ("epoch,loss\n", 0, None),
    "half an epoch": ("epoch,loss\n1.5,2\nnan,2\n,2\nx,2\n2.0,3\n", 1, "4 rows without a whole number as epoch"),
    "too long": ("epoch,loss\n1,2,3\n2,3\n", 1, "1 rows without a whole number as epoch, or too long, are left out"),
    "cut off": ("epoch,loss,f1\n1,2,3\n2,3", 3, None),
    "a word": ("epoch,loss\n1,2\n2,two\n", 1, "1 cells of column 'loss' are no numbers, for example 'two'; left out"),
    "text": ("epoch,loss,by\n1,2,f1\n", 1, None),
    "no table": ("epoch,loss\n1," + "2" * 200_000, 0, "metrics.csv: is no CSV (field larger than field limit"),
    "twice": ("epoch,loss\n1,2\n1,3\n", 1, "1 values were written again"),
    "byte order mark": ("\ufeffepoch,loss\n1,2\n", 1, None),
}


@pytest.mark.parametrize(("text", "count", "warned"), ODD.values(), ids=ODD)
def test_odd_metrics(tmp_path, told, text, count, warned):
    (tmp_path / "metrics.csv").write_text(text, encoding="utf-8")
    assert len(read_logs(tmp_path)) == count
    assert len(told) == (warned is not None) and all(warned in str(notice.message) for notice in told)


# ---- names and places


def test_the_given_folder_stands_under_its_own_name(tmp_path, monkeypatch):
    write_rows(tmp_path / "job" / "metrics.csv", ROWS[:1])
    write_rows(tmp_path / "job" / "sub" / "metrics.csv", ROWS[:1])
    assert list(read_logs(tmp_path / "job").run) == ["job", "sub"]
    monkeypatch.chdir(tmp_path / "job")
    assert list(read_logs(".").run) == ["job", "sub"]
    assert list(read_logs("metrics.csv").run) == ["job"]


def test_runs_that_would_share_a_name_stand_as_they_were_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for run in ("a/fold0", "a/fold1", "b/fold0", "c/x"):
        write_rows(f"{run}/metrics.csv", ROWS[:1])
    assert list(read_logs(["a", "c"]).run) == ["fold0", "fold1", "x"]
    assert list(read_logs(["b", "a"]).run) == ["b/fold0", "a/fold0", "a/fold1"]
    assert list(read_logs(["a/fold0", "b/fold0", "c"]).run) == ["a/fold0", "b/fold0", "c/x"]


def test_what_is_named_twice_counts_once(tmp_path, monkeypatch):
    path = event_file(tmp_path / "a", number("loss", 1, 1.0, 0.5))
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "round").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    for paths in (["a", "./a", path], [".", "a"], "link", [path, path]):
        assert len(read_logs(paths)) == 1
    assert list(read_logs("link").run) == ["a"]


def test_one_file_of_several(tmp_path):
    event_file(tmp_path, number("loss", 1, 1.0, 0.5), name="tfevents.1")
    other = event_file(tmp_path, number("loss", 2, 2.0, 0.5), name="tfevents.2")
    assert rows(read_logs(other)) == [(tmp_path.name, "loss", 2, 0.5)]
    assert len(read_logs([other, tmp_path / "tfevents.1"])) == 2


def test_a_name_that_is_not_utf8(tmp_path):
    name = b"r\xff".decode("utf-8", "surrogateescape")
    write_rows(tmp_path / name / "metrics.csv", ROWS[:1])
    assert list(read_logs(tmp_path).run) == [name]


@pytest.mark.parametrize(
    ("path", "source", "error", "match"),
    [
        ("gone", "auto", FileNotFoundError, "no such file or folder: .*gone; expected event files"),
        (
            "empty",
            "auto",
            FileNotFoundError,
            "no logs under .*empty; looked for .*tfevents.*metrics.csv and curve.csv$",
        ),
        ("empty", "events", FileNotFoundError, "no logs under .*; looked for files with 'tfevents' in their name$"),
        ("a", "events", FileNotFoundError, "looked for files with 'tfevents' in their name$"),
        ("empty", "metrics", FileNotFoundError, "looked for metrics.csv and curve.csv$"),
        (
            "a/notes.txt",
            "auto",
            ValueError,
            "notes.txt is no log; expected 'tfevents' in its name, or one of metrics.csv",
        ),
        ("a", "tables", ValueError, "read_logs: source is 'tables'; expected one of auto, events, metrics"),
    ],
)
def test_wrong_paths(tmp_path, path, source, error, match):
    write_rows(tmp_path / "a" / "metrics.csv", ROWS)
    (tmp_path / "a" / "notes.txt").touch()
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    with pytest.raises(error, match=match):
        read_logs([tmp_path / "a", tmp_path / path], source=source)


# ---- the table in other forms


@pytest.fixture
def table():
    parts = [
        ("b", "loss", 1, 0.5),
        ("b", "loss", 2, 0.25),
        ("b", "f1", 2, 0.75),
        ("a", "f1", 1, 1.0),
        ("a", "x[1]", 10, 2.0),
    ]
    return pd.DataFrame(parts, columns=["run", "tag", "step", "value"]).assign(wall_time=0.0)


def test_chosen(table):
    assert rows(chosen(table, ["f1"])) == [("b", "f1", 2, 0.75), ("a", "f1", 1, 1.0)]
    assert rows(chosen(table, ["x[1]", "lo*"])) == [row for row in rows(table) if row[1] != "f1"]
    with pytest.raises(ValueError, match="no tag 'los'; did you mean 'loss'\\?; expected some of loss, f1, x\\[1\\]"):
        chosen(table, ["f1", "los"])


def test_wide_by_hand(table):
    found = wide(table)
    assert list(found.columns) == ["run", "step", "loss", "f1", "x[1]"] and found.columns.name is None
    nan = math.nan
    expected = [["b", 1, 0.5, nan, nan], ["b", 2, 0.25, 0.75, nan], ["a", 1, nan, 1.0, nan], ["a", 10, nan, nan, 2.0]]
    pd.testing.assert_frame_equal(found, pd.DataFrame(expected, columns=found.columns), check_dtype=False)


@given(
    st.dictionaries(
        st.tuples(st.sampled_from("cab"), st.sampled_from("yxz"), st.integers(0, 12)), st.floats(0, 1), min_size=1
    )
)
def test_wide_and_back(values):
    table = pd.DataFrame([(*key, 0.0, value) for key, value in values.items()], columns=list(event_logs.COLUMNS))
    found = wide(table).melt(["run", "step"], var_name="tag").dropna()
    assert {(row.run, row.tag, row.step): row.value for row in found.itertuples()} == values


def test_wide_with_a_tag_named_as_a_column(table):
    with pytest.raises(ValueError, match="the tag 'step' has the name of a column; leave it out"):
        wide(table.replace("loss", "step"))


# ---- pictures


def test_draw(table, tmp_path, monkeypatch):
    drawn = []
    lines = event_logs.plots.lines
    monkeypatch.setattr(
        event_logs.plots, "lines", lambda *given, **labels: (drawn.append((given, labels)), lines(*given, **labels))
    )
    draw(table, "loss", tmp_path / "deep" / "loss.png")
    (_, series), labels = drawn[0]
    assert series == {"b": ([1, 2], [0.5, 0.25])} and labels["title"] == labels["ylabel"] == "loss"
    with Image.open(tmp_path / "deep" / "loss.png") as picture:
        picture.load()
        assert picture.format == "PNG"
    paths = draw_all(table, tmp_path / "all")
    assert [path.name for path in paths] == ["loss.png", "f1.png", "x_1.png"] and all(path.is_file() for path in paths)
    assert list(drawn[2][0][1]) == ["b", "a"] and drawn[3][1]["title"] == "x[1]"


def test_a_tag_that_is_not_there(table, tmp_path):
    with pytest.raises(ValueError, match="nothing to draw for '\\*'"):
        draw(table, "*", tmp_path / "a.png")


def test_file_names_by_hand():
    tags = ["train/loss", "train_loss", "Train/Loss", "..", "a b", "é", "x" * 300, "macro_f1", "-f"]
    names = ["train_loss", "train_loss-2", "Train_Loss-3", "tag", "a_b", "tag-2", "x" * 100, "macro_f1", "-f"]
    assert event_logs._file_names(tags) == names


@given(st.lists(st.text(max_size=8), unique=True))
def test_file_names_are_safe_and_differ(tags):
    names = event_logs._file_names(tags)
    assert len({name.lower() for name in names}) == len(tags)
    assert all(re.fullmatch(r"[A-Za-z0-9+=_-][A-Za-z0-9.+=_-]*", name) for name in names)


def test_records_are_framed_as_tensorboard_expects(tmp_path):
    """The tests' own writer is right: TensorBoard reads what it writes."""
    path = event_file(tmp_path, number("loss", 1, 1.0, 0.5))
    assert tensorboard(tmp_path) == {("loss", 1): 0.5} and path.read_bytes().endswith(
        record(number("loss", 1, 1.0, 0.5))
    )
