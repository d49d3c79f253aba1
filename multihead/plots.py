"""Pictures of numbers: lines, courses over epochs, differences with their intervals, and confidence against accuracy;
PNG, about 900 pixels wide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from multihead import sheets

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DASHES = ("-", "--", ":", "-.")
MARKERS = ("", "o", "s", "^")


def lines(
    path: str | Path,
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    log_x: bool = False,
    mark: float | None = None,
) -> None:
    """Write a PNG of several lines, {name: (places on x, values)}, with a legend below; not finite points are skipped.

    log_x: a logarithmic x axis. mark: a place on x that a vertical line shows. Places that are all of type int, such
    as epochs, get whole numbers on the axis.

    Raises: ValueError where there is no series, where places and values differ in number, and for a place <= 0 on a
    logarithmic axis.
    """
    figure, axes = sheets.panel(series, title, xlabel, ylabel)
    for number, (name, (places, values)) in enumerate(series.items()):
        if len(places) != len(values):
            raise ValueError(f"series {name!r} has {len(places)} places on x and {len(values)} values")
        if log_x and min(places, default=1) <= 0:
            raise ValueError(f"series {name!r} has the place {min(places)!r}; a logarithmic axis needs places > 0")
        points = [(x, y) for x, y in zip(places, values, strict=True) if math.isfinite(x) and math.isfinite(y)]
        _line(axes, number, [x for x, _ in points], [y for _, y in points])
    if log_x:
        axes.set_xscale("log")
    elif all(isinstance(place, int) for places, _ in series.values() for place in places):
        sheets.whole_places(axes)
    if mark is not None:
        axes.axvline(mark, color="#666666", linewidth=1)
    sheets.legend(figure, axes, [*series] if mark is None else [*series, f"{xlabel} {mark:.4g}"])
    sheets.save(figure, path)


def curves(path: str | Path, runs: Mapping[str, Sequence[Sequence[float]]], *, title: str, ylabel: str) -> None:
    """Write a PNG of {arm: its runs, each the values of epochs 1, 2, ...}: an arm's mean, in a band from its lowest to
    its highest run.

    An epoch counts the runs that have a finite value there; runs may differ in length.

    Raises: ValueError where there is no arm.
    """
    figure, axes = sheets.panel(runs, title, "epoch", ylabel)
    for number, values in enumerate(runs.values()):
        epochs, means, lows, highs = _band(values)
        _line(axes, number, epochs, means)
        axes.fill_between(
            epochs, lows, highs, color=sheets.COLOURS[number % len(sheets.COLOURS)], alpha=0.15, linewidth=0
        )
    sheets.whole_places(axes)
    sheets.legend(figure, axes, list(runs))
    sheets.save(figure, path)


def differences(path: str | Path, rows: Sequence[tuple[str, str, float, float, float]], *, title: str) -> None:
    """Write a PNG of rows (metric, arm, difference, low, high): a panel for each metric, in it a line for each arm.

    A dot is the difference, its bar runs from low to high, and is grey where it holds zero. NaN leaves a line empty.

    Raises: ValueError where there is no row, two of one metric and arm, or a low above its high.
    """
    metrics = list(dict.fromkeys(row[0] for row in rows))
    arms = list(dict.fromkeys(row[1] for row in rows))
    if not rows or len({row[:2] for row in rows}) < len(rows):
        raise ValueError(f"{len(rows)} differences; expected at least one, and one for each metric and arm")
    labels = [sheets.words(arm, 36) for arm in arms]
    deepest = max(label.count("\n") + 1 for label in labels)  # lines of text
    figure = sheets.blank(max(sheets.WIDTH, 2.5 + 2.2 * len(metrics)), 1.5 + (0.22 + 0.18 * deepest) * len(arms))
    figure.suptitle(sheets.words(title, 90), fontsize=12)
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for panel, metric in zip(panels, metrics, strict=True):
        _zero(panel, metric)
        for _, arm, *numbers in (row for row in rows if row[0] == metric):
            _interval(panel, arms.index(arm), arm, numbers)
    panels[0].set_yticks(range(len(arms)), labels, fontsize=9)
    panels[0].set_ylim(len(arms) - 0.5, -0.5)  # the first arm on top
    sheets.save(figure, path)


def reliability(
    path: str | Path, bins: Mapping[str, tuple[Sequence[float], Sequence[float], Sequence[int]]], *, title: str
) -> None:
    """Write a PNG of {name: (confidence, accuracy, rows) of each bin}: a panel for each name, four beside each other.

    A dot is a bin, at the mean of its confidence and its accuracy; the stick from it to the diagonal is what the model
    is too sure (below) or not sure enough (above). The bars beneath are the rows of each bin, the number in the title
    the expected calibration error. `multihead.calibrate.reliabilities` counts the bins; one without rows has no dot.

    Raises: ValueError where there is no name, or the three differ in number.
    """
    if not bins:
        raise ValueError(f"nothing to draw for {title!r}; expected at least one series")
    columns, rows = min(4, len(bins)), math.ceil(len(bins) / 4)
    figure = sheets.blank(max(sheets.WIDTH / 2, 2.25 * columns), 0.6 + 3.4 * rows)
    figure.suptitle(sheets.words(title, 22 * max(2, columns)), fontsize=12)
    panels = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[4, 1] * rows)
    for number, (name, counted) in enumerate(bins.items()):
        row, column = divmod(number, 4)
        _reliability(panels[2 * row][column], panels[2 * row + 1][column], name, *counted)
    for number in range(len(bins), rows * columns):
        row, column = divmod(number, 4)
        panels[2 * row][column].set_axis_off()
        panels[2 * row + 1][column].set_axis_off()
    sheets.save(figure, path)


def _reliability(
    upper: Axes, lower: Axes, name: str, confidence: Sequence[float], accuracy: Sequence[float], rows: Sequence[int]
) -> None:
    """One panel of `reliability`, and its bars beneath."""
    if not len(confidence) == len(accuracy) == len(rows):
        raise ValueError(f"{name!r} has {len(confidence)} confidences, {len(accuracy)} accuracies, {len(rows)} counts")
    dots = [(x, y, n) for x, y, n in zip(confidence, accuracy, rows, strict=True) if n]
    total = sum(n for *_, n in dots)
    error = f"{sum(n * abs(x - y) for x, y, n in dots) / total:.3f}" if total else "-"
    upper.set_title(f"{sheets.words(name, 24)}\nerror {error}", fontsize=10)
    upper.plot([0, 1], [0, 1], color="#666666", linewidth=1)
    for x, y, _ in dots:
        upper.plot([x, x], [x, y], color=sheets.COLOURS[1], linewidth=2.5, solid_capstyle="butt")
    upper.plot(
        [x for x, *_ in dots], [y for _, y, _ in dots], color=sheets.COLOURS[0], marker="o", markersize=4, linewidth=0
    )
    middles = [(place + 0.5) / len(rows) for place in range(len(rows))]
    lower.bar(middles, rows, width=0.9 / len(rows), color=sheets.COLOURS[0])
    lower.locator_params(axis="y", nbins=2)
    upper.set_ylim(-0.02, 1.02)
    upper.set_ylabel("accuracy", fontsize=9)
    lower.set_ylabel("rows", fontsize=9)
    lower.set_xlabel("confidence", fontsize=9)
    for axes in (upper, lower):
        axes.set_xlim(-0.02, 1.02)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)


def scatter(
    path: str | Path,
    points: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    line: tuple[str, Sequence[float], Sequence[float]] | None = None,
) -> None:
    """Write a PNG of several kinds of points, {name: (places on x, values)}, with a legend below; not finite values are
    skipped.

    line: the name, places and values of steps drawn through the points, each value holding until the next place.

    Raises: ValueError where there is no kind of point.
    """
    names = [*points] if line is None else [*points, line[0]]
    figure, axes = sheets.panel(dict.fromkeys(names) if points else {}, title, xlabel, ylabel)
    for number, (places, values) in enumerate(points.values()):
        marker = "oxs^"[number % 4]
        axes.plot(
            places, values, linestyle="", marker=marker, color=sheets.COLOURS[number % len(sheets.COLOURS)], alpha=0.8
        )
    if line is not None:
        axes.step(line[1], line[2], where="post", color=sheets.COLOURS[-1], linewidth=1.2)
    sheets.whole_places(axes)
    sheets.legend(figure, axes, names)
    sheets.save(figure, path)


def bars(path: str | Path, values: Mapping[str, float], *, title: str, xlabel: str) -> None:
    """Write a PNG of one bar a name, from the left, in the given order from the top, each with its value.

    Raises: ValueError where there is no bar or a value is no finite number.
    """
    if not values or not all(math.isfinite(value) for value in values.values()):
        raise ValueError(f"bars of {dict(values)}; expected at least one, and finite numbers")
    labels = [sheets.words(name, 36) for name in values]
    deepest = max(label.count("\n") + 1 for label in labels)  # lines of text
    figure = sheets.blank(sheets.WIDTH, 1.5 + (0.22 + 0.18 * deepest) * len(values))
    axes = figure.subplots()
    axes.set_title(sheets.words(title, 90), fontsize=12)
    drawn = axes.barh(range(len(values)), list(values.values()), color=sheets.COLOURS[0], height=0.6)
    axes.bar_label(drawn, fmt="%.3f", padding=3, fontsize=9)
    axes.set_yticks(range(len(values)), labels, fontsize=9)
    axes.set_ylim(len(values) - 0.5, -0.5)  # the first on top
    axes.margins(x=0.1)
    axes.set_xlabel(sheets.words(xlabel, 90))
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    sheets.save(figure, path)


def _band(values: Sequence[Sequence[float]]) -> tuple[list[int], list[float], list[float], list[float]]:
    """The epochs that any run has a value for, and the mean, lowest and highest value of each."""
    columns: dict[int, list[float]] = {}
    for run in values:
        for epoch, value in enumerate(run, 1):
            if math.isfinite(value):
                columns.setdefault(epoch, []).append(value)
    epochs = sorted(columns)
    found = [columns[epoch] for epoch in epochs]
    return epochs, [math.fsum(c) / len(c) for c in found], [min(c) for c in found], [max(c) for c in found]


def _line(axes: Axes, number: int, places: Sequence[float], values: Sequence[float]) -> None:
    """A line whose colour, dashes and marker no other of the first 112 has; a lone point is dotted."""
    turn = number // len(sheets.COLOURS)
    marker = MARKERS[turn // len(DASHES) % len(MARKERS)] or ("." if len(places) == 1 else "")
    axes.plot(
        places,
        values,
        color=sheets.COLOURS[number % len(sheets.COLOURS)],
        linestyle=DASHES[turn % len(DASHES)],
        marker=marker,
        markersize=5,
        markevery=max(1, len(places) // 30),
        linewidth=1.6,
    )


def _zero(panel: Axes, metric: str) -> None:
    panel.set_title(sheets.words(metric, 24), fontsize=10)
    panel.axvline(0, color="#666666", linewidth=1)
    panel.grid(axis="x", alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
    panel.locator_params(axis="x", nbins=4)
    panel.set_xlabel("difference", fontsize=9)
    panel.tick_params(axis="x", labelsize=8)


def _interval(panel: Axes, place: int, arm: str, numbers: Sequence[float]) -> None:
    value, low, high = numbers
    if low > high:
        raise ValueError(f"arm {arm!r} has an interval from {low!r} to {high!r}; expected low <= high")
    colour = "#888888" if low <= 0 <= high else sheets.COLOURS[0]
    panel.plot([low, high], [place, place], color=colour, linewidth=2.5, solid_capstyle="butt")
    panel.plot([value], [place], color=colour, marker="o", markersize=6)
