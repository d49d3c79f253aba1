import math
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from PIL import Image

from multihead import plots, sheets

NAN = float("nan")
LONG = "a name that says all that there is to be said of an arm, and of its settings, its rates and its seeds too"


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were written."""
    found, save = [], sheets.save
    monkeypatch.setattr(sheets, "save", lambda figure, path: (found.append(figure), save(figure, path)))
    return found


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def looks(axes):
    return [(line.get_color(), line.get_linestyle(), line.get_marker()) for line in axes.get_lines()]


def is_whole(figure, path):
    """Whether all texts lie on the page, and none reaches its edge."""
    legends = [text for part in figure.legends for text in part.get_texts()]
    titles = [text for axes in figure.axes for text in (axes.title, axes.xaxis.label, axes.yaxis.label)]
    boxes = [text.get_window_extent() for text in (*legends, *titles, *figure.texts) if text.get_text()]
    page = figure.bbox
    inside = [page.x0 <= b.x0 and b.x1 <= page.x1 and page.y0 <= b.y0 and b.y1 <= page.y1 for b in boxes]
    pixels = np.asarray(Image.open(path).convert("L"))
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    tops = [part.get_window_extent().y1 for part in figure.legends]
    clear = all(top <= axes.get_tightbbox().y0 for top in tops for axes in figure.axes)  # the legend hides nothing
    return len(boxes) > 0 and all(inside) and clear and (edge == 255).all()


SERIES = {"loss": ([1e-4, 1e-3, 1e-2], [2.0, NAN, 3.0]), "smooth": ([1e-4, 1e-3, 1e-2], [2.0, 1.0, math.inf])}


@pytest.mark.parametrize(("places", "whole"), [([1, 2], True), ([3], True), ([1.0, 2.0], False)])
def test_places_of_type_int_get_whole_numbers(tmp_path, drawn, places, whole):
    series = {"a": (places, [0.5] * len(places)), "b": ([2], [1.0])}
    plots.lines(tmp_path / "a.png", series, title="Loss", xlabel="step", ylabel="loss")
    ticks = drawn[0].axes[0].get_xticks()
    assert all(float(tick).is_integer() for tick in ticks) == whole


@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 7, 30])
def test_epochs_are_whole_numbers_however_few(tmp_path, drawn, epochs):
    values = [0.5] * epochs
    numbers = list(range(1, epochs + 1))
    plots.curves(tmp_path / "a.png", {"a": [values], "b": [values[:1]]}, title="Scores", ylabel="f1")
    plots.lines(tmp_path / "a.png", {"a": (numbers, values)}, title="Loss", xlabel="step", ylabel="loss")
    plots.scatter(tmp_path / "a.png", {"a": (numbers, values)}, title="Trials", xlabel="trial", ylabel="f1")
    for figure in drawn:
        low, high = figure.axes[0].get_xlim()
        seen = [float(tick) for tick in figure.axes[0].get_xticks() if low <= tick <= high]
        assert seen and all(tick.is_integer() for tick in seen)
        texts = [label.get_text() for label in figure.axes[0].get_xticklabels()]
        assert not any("." in text for text in texts)


def test_a_name_that_is_not_utf8_is_drawn(tmp_path, drawn):
    series = {b"r\xff$".decode(errors="surrogateescape"): ([1, 2], [1.0, 2.0])}
    plots.lines(tmp_path / "a.png", series, title="Loss", xlabel="step", ylabel="loss")
    assert legend(drawn[0]) == ["r?\\$"]


def test_lines_by_hand(tmp_path, drawn):
    plots.lines(tmp_path / "new" / "a.png", SERIES, title="Range", xlabel="rate", ylabel="loss", log_x=True, mark=2e-3)
    axes = drawn[0].axes[0]
    first, second, mark = axes.get_lines()
    assert first.get_xydata().tolist() == [[1e-4, 2], [1e-2, 3]]
    assert second.get_xydata().tolist() == [[1e-4, 2], [1e-3, 1]]
    assert list(mark.get_xdata()) == [2e-3, 2e-3]
    assert legend(drawn[0]) == ["loss", "smooth", "rate 0.002"]
    assert axes.get_xscale() == "log" and axes.get_yscale() == "linear"
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("Range", "rate", "loss")


def test_a_plain_axis_and_no_mark(tmp_path, drawn):
    plots.lines(tmp_path / "a.png", {"a": ([-1, 0, 1], [1, 2, 3])}, title="", xlabel="", ylabel="")
    assert drawn[0].axes[0].get_xscale() == "linear" and legend(drawn[0]) == ["a"]


def test_the_picture_shows_the_lines(tmp_path):
    values = {"up": ([0, 1], [0, 1]), "down": ([0, 1], [1, 0])}
    plots.lines(tmp_path / "a.png", values, title="t", xlabel="x", ylabel="y")
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG" and image.width == 900 and 500 <= image.height <= 650
        pixels = np.asarray(image.convert("RGB"))
    for colour in sheets.COLOURS[:3]:
        seen = (pixels == [int(colour[at : at + 2], 16) for at in (1, 3, 5)]).all(2).sum()
        assert (seen > 200) == (colour != sheets.COLOURS[2])
    assert not any(tmp_path.glob(".*"))


def test_many_lines_differ(tmp_path, drawn):
    series = {f"arm {number}": (range(60), [number] * 60) for number in range(112)}
    plots.lines(tmp_path / "a.png", series, title="t", xlabel="x", ylabel="y")
    seen = looks(drawn[0].axes[0])
    assert len(set(seen)) == 112
    assert len({(to_hex(colour), dash) for colour, dash, _ in seen[:28]}) == 28
    assert len({colour for colour, _, _ in seen[:7]}) == 7 and legend(drawn[0]) == list(series)


def test_a_lone_point_is_seen(tmp_path, drawn):
    plots.lines(tmp_path / "a.png", {"a": ([1], [2])}, title="t", xlabel="x", ylabel="y")
    assert drawn[0].axes[0].get_lines()[0].get_marker() == "."


def test_names_are_shown_as_they_are(tmp_path, drawn):
    names = ["_hidden", "$x^", "a $b$ c", "", "100 %"]
    plots.lines(tmp_path / "a.png", {name: ([0], [0]) for name in names}, title="$", xlabel="$_", ylabel="_$^$")
    assert [text.replace(r"\$", "$") for text in legend(drawn[0])] == names
    plots.curves(tmp_path / "b.png", {name: [[1.0]] for name in names}, title="$^", ylabel="$_")
    plots.differences(tmp_path / "c.png", [("$^", name, 0.0, -1.0, 1.0) for name in names], title="$_$")


@pytest.mark.parametrize("count", [1, 3, 20])
def test_nothing_is_cut_off(tmp_path, drawn, count):
    names = [f"{number} {(LONG + LONG)[: 30 * (number % 8)]}" for number in range(count)]
    words = {"title": f"{LONG} {LONG}", "ylabel": LONG}
    plots.lines(tmp_path / "a.png", {n: ([1, 2], [1e6, 2e6]) for n in names}, xlabel=LONG, mark=1.5, **words)
    plots.curves(tmp_path / "b.png", {n: [[1e-9, 2e-9]] for n in names}, **words)
    rows = [(f"metric_{m}", n, 0.1, 0.0, 0.2) for m in range(5) for n in names]
    plots.differences(tmp_path / "c.png", rows, title=f"{LONG} {LONG}")
    for figure, name in zip(drawn, "abc", strict=True):
        assert is_whole(figure, tmp_path / f"{name}.png")
        labels = [text.get_window_extent() for text in figure.axes[0].get_yticklabels()]
        below = sorted((box.y0, box.y1) for box in labels)
        assert all(lower[1] < upper[0] for lower, upper in zip(below, below[1:], strict=False))
        sizes = [axes.get_window_extent() for axes in figure.axes]
        assert min(box.width for box in sizes) > 100 and min(box.height for box in sizes) > 25 * min(count, 6)


def test_a_long_legend_has_its_room(tmp_path, drawn):
    names = [f"{number} {LONG} {LONG} {LONG}" for number in range(40)]  # four lines each
    plots.curves(tmp_path / "a.png", {name: [[0.1, 0.2]] for name in names}, title="t", ylabel="y")
    assert is_whole(drawn[0], tmp_path / "a.png") and drawn[0].axes[0].get_window_extent().height > 200


# ---- curves


def test_curves_by_hand(tmp_path, drawn):
    runs = {"heads": [[0.1, NAN, 0.5], [0.3, NAN, 0.4, 0.9]], "flat": [[NAN, 0.2]], "none": [[NAN], []]}
    plots.curves(tmp_path / "a.png", runs, title="Score", ylabel="macro-F1")
    axes = drawn[0].axes[0]
    heads, flat, none = (line.get_xydata() for line in axes.get_lines())
    np.testing.assert_allclose(heads, [[1, 0.2], [3, 0.45], [4, 0.9]])
    np.testing.assert_allclose(flat, [[2, 0.2]])
    assert len(none) == 0 and legend(drawn[0]) == ["heads", "flat", "none"] and axes.get_xlabel() == "epoch"
    corners = axes.collections[0].get_paths()[0].vertices
    for corner in ([1, 0.1], [1, 0.3], [3, 0.4], [3, 0.5], [4, 0.9]):
        assert np.isclose(corners, corner).all(1).any()
    assert [to_hex(band.get_facecolor()[0]) for band in axes.collections[:2]] == [c.lower() for c in sheets.COLOURS[:2]]
    assert all(float(tick).is_integer() for tick in axes.get_xticks())


@given(st.lists(st.lists(st.floats(-1, 1) | st.just(NAN), max_size=6), max_size=4))
def test_a_band_is_numpys(runs):
    table = np.full((len(runs) + 1, 6), NAN)
    for row, run in zip(table, runs, strict=False):
        row[: len(run)] = run
    scored = np.flatnonzero(~np.isnan(table).all(0))
    epochs, mean, low, high = plots._band(runs)
    assert epochs == (scored + 1).tolist()
    for ours, theirs in ((mean, np.nanmean), (low, np.nanmin), (high, np.nanmax)):
        np.testing.assert_allclose(ours, theirs(table[:, scored], 0) if len(scored) else [])


# ---- differences


def test_differences_by_hand(tmp_path, drawn):
    rows = [("f1", "focal", 0.02, 0.01, 0.03), ("f1", "cutmix", -0.01, -0.02, 0.0), ("age", "cutmix", -2.0, -3.0, -1.0)]
    plots.differences(tmp_path / "a.png", [*rows, ("age", "focal", NAN, NAN, NAN)], title="Against the baseline")
    left, right = drawn[0].axes
    assert (left.get_title(), right.get_title()) == ("f1", "age")
    assert drawn[0].get_suptitle() == "Against the baseline"
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["focal", "cutmix"]
    zero, bar, dot, other, _ = left.get_lines()
    assert list(zero.get_xdata()) == [0, 0] and bar.get_xydata().tolist() == [[0.01, 0], [0.03, 0]]
    assert dot.get_xydata().tolist() == [[0.02, 0]] and other.get_xydata().tolist() == [[-0.02, 1], [0.0, 1]]
    assert right.get_lines()[1].get_xydata().tolist() == [[-3, 1], [-1, 1]]
    assert bar.get_color() == dot.get_color() == right.get_lines()[1].get_color() != other.get_color() == "#888888"
    assert left.get_ylim()[0] > left.get_ylim()[1]  # the first arm on top
    for axes in (left, right):
        assert axes.get_xlim()[0] <= 0 <= axes.get_xlim()[1]


# ---- reliability


BINS = {"joint": ([NAN, 0.4, 0.9], [NAN, 0.6, 0.5], [0, 10, 30]), "age": ([0.2, NAN, 0.9], [0.2, NAN, 0.9], [1, 0, 1])}


def test_reliability_by_hand(tmp_path, drawn):
    plots.reliability(tmp_path / "a.png", BINS, title="Before")
    joint, age, rows, _ = drawn[0].axes
    assert joint.get_title() == "joint\nerror 0.350" and age.get_title() == "age\nerror 0.000"
    diagonal, too_shy, too_sure, dots = (line.get_xydata().tolist() for line in joint.get_lines())
    assert diagonal == [[0, 0], [1, 1]] and dots == [[0.4, 0.6], [0.9, 0.5]]
    assert too_shy == [[0.4, 0.4], [0.4, 0.6]] and too_sure == [[0.9, 0.9], [0.9, 0.5]]
    assert [bar.get_height() for bar in rows.patches] == [0, 10, 30]
    np.testing.assert_allclose([bar.get_x() + bar.get_width() / 2 for bar in rows.patches], [1 / 6, 1 / 2, 5 / 6])
    assert drawn[0].get_suptitle() == "Before"
    assert (joint.get_ylabel(), rows.get_ylabel(), rows.get_xlabel()) == ("accuracy", "rows", "confidence")


@pytest.mark.parametrize("count", [1, 4, 5, 8])
def test_reliability_of_many(tmp_path, drawn, count):
    names = [f"{number} {LONG[: 12 * number]}$" for number in range(count)]
    plots.reliability(tmp_path / "a.png", dict.fromkeys(names, BINS["joint"]), title=f"{LONG} {LONG} $")
    assert is_whole(drawn[0], tmp_path / "a.png")
    shown = [axes for axes in drawn[0].axes if axes.axison]
    assert len(shown) == 2 * count and min(axes.get_window_extent().height for axes in shown) > 25
    titled = [axes for axes in shown if axes.get_title()]
    assert [axes.get_title().replace("\n", " ")[:1] for axes in titled] == [name[0] for name in names]


def test_no_rows_have_no_error(tmp_path, drawn):
    plots.reliability(tmp_path / "a.png", {"age": ([NAN], [NAN], [0])}, title="t")
    assert drawn[0].axes[0].get_title() == "age\nerror -"


def test_reliability_refuses(tmp_path):
    with pytest.raises(ValueError, match="nothing to draw for 't'; expected at least one series"):
        plots.reliability(tmp_path / "a.png", {}, title="t")
    with pytest.raises(ValueError, match="'age' has 2 confidences, 1 accuracies, 1 counts"):
        plots.reliability(tmp_path / "a.png", {"age": ([0.5, 0.6], [0.5], [1])}, title="t")
    assert not list(tmp_path.iterdir())


# ---- files, threads, refusals


def test_an_old_picture_survives_a_failure(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    path = tmp_path / "a.png"
    plots.lines(path, SERIES, title="t", xlabel="x", ylabel="y")
    old = path.read_bytes()

    def fail(self, fresh, **options):
        fresh.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plots.lines(path, SERIES, title="other", xlabel="x", ylabel="y")
    assert path.read_bytes() == old and list(tmp_path.iterdir()) == [path]


def test_threads_draw_the_same_picture_without_pyplot(tmp_path, monkeypatch):
    monkeypatch.delattr("matplotlib.pyplot", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # an import fails

    def draw(name):
        plots.curves(tmp_path / name, {"a": [[0.1, 0.2], [0.3, 0.1]]}, title="t", ylabel="y")

    threads = [threading.Thread(target=draw, args=(f"{number}.png",)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({(tmp_path / f"{number}.png").read_bytes() for number in range(3)}) == 1


@pytest.mark.parametrize(
    ("series", "message"),
    [
        ({}, "nothing to draw for 'Range'; expected at least one series"),
        ({"loss": ([1, 2], [1])}, "series 'loss' has 2 places on x and 1 values"),
        ({"loss": ([0, 1], [1, 1])}, "series 'loss' has the place 0; a logarithmic axis needs places > 0"),
    ],
)
def test_lines_refuse(tmp_path, series, message):
    with pytest.raises(ValueError, match=message):
        plots.lines(tmp_path / "a.png", series, title="Range", xlabel="x", ylabel="y", log_x=True)
    assert not list(tmp_path.iterdir())


def test_curves_refuse(tmp_path):
    with pytest.raises(ValueError, match="nothing to draw for 'Score'"):
        plots.curves(tmp_path / "a.png", {}, title="Score", ylabel="y")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "0 differences; expected at least one"),
        ([("f1", "a", 0.0, -1.0, 1.0)] * 2, "2 differences; expected at least one, and one for each metric and arm"),
        ([("f1", "a", 0.0, 1.0, -1.0)], "arm 'a' has an interval from 1.0 to -1.0; expected low <= high"),
    ],
)
def test_differences_refuse(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        plots.differences(tmp_path / "a.png", rows, title="t")


def test_scatter_by_hand(tmp_path, drawn):
    points = {"complete": ([0, 2], [0.1, 0.3]), "pruned": ([1], [NAN])}
    line = ("best so far", [0, 2], [0.1, 0.3])
    plots.scatter(tmp_path / "a.png", points, title="Trials", xlabel="trial", ylabel="macro-F1", line=line)
    complete, pruned, best = drawn[0].axes[0].get_lines()
    assert complete.get_xydata().tolist() == [[0, 0.1], [2, 0.3]] and complete.get_linestyle() == "None"
    assert best.get_drawstyle() == "steps-post" and best.get_xydata().tolist() == [[0, 0.1], [2, 0.3]]
    assert complete.get_marker() != pruned.get_marker() and complete.get_color() != pruned.get_color()
    assert legend(drawn[0]) == ["complete", "pruned", "best so far"]
    assert is_whole(drawn[0], tmp_path / "a.png")
    with pytest.raises(ValueError, match="nothing to draw for 'T'"):
        plots.scatter(tmp_path / "b.png", {}, title="T", xlabel="x", ylabel="y", line=line)


def test_bars_by_hand(tmp_path, drawn):
    plots.bars(tmp_path / "a.png", {"lr": 0.75, LONG: 0.25}, title="Importance $", xlabel="share")
    axes = drawn[0].axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.75, 0.25]
    assert [text.get_text() for text in axes.texts] == ["0.750", "0.250"]
    names = [text.get_text().replace("\n", " ") for text in axes.get_yticklabels()]
    assert names == ["lr", LONG] and axes.get_ylim()[0] > axes.get_ylim()[1]
    assert is_whole(drawn[0], tmp_path / "a.png")


@pytest.mark.parametrize("values", [{}, {"lr": NAN}, {"lr": 1.0, "opt": math.inf}])
def test_bars_without_numbers(tmp_path, values):
    with pytest.raises(ValueError, match="expected at least one, and finite numbers"):
        plots.bars(tmp_path / "a.png", values, title="T", xlabel="x")
