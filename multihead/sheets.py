"""The sheets of plots: matplotlib without its pyplot, so that nothing global changes and any thread may draw."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from multihead.files import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, DPI = 9.0, 100  # inches, pixels an inch
# Okabe and Ito's colours, which people with any colour vision can tell apart, without the yellow
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")


def blank(width: float, height: float) -> Figure:
    """An empty figure of this many inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panel(series: Mapping[str, object], title: str, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """A figure of one panel with room for the legend of these series. Raises: ValueError where there is none."""
    if not series:
        raise ValueError(f"nothing to draw for {title!r}; expected at least one series")
    texts = 1 + sum(words(name, 100).count("\n") + 1 for name in series)  # lines of the legend, and one for a mark
    figure = blank(WIDTH, 5.0 + 0.25 * math.ceil(texts / _columns(list(series))))
    axes = figure.subplots()
    axes.set_title(words(title, 90), fontsize=12)
    axes.set_xlabel(words(xlabel, 90))
    axes.set_ylabel(words(ylabel, 50))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def whole_places(axes: Axes) -> None:
    """Whole numbers on the x axis, also where it has room for one only."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def legend(figure: Figure, axes: Axes, names: Sequence[str]) -> None:
    """A legend below the panel: these names for its lines."""
    labels = [words(name, 100) for name in names]
    columns = _columns(names)
    figure.legend(axes.get_lines(), labels, loc="outside lower center", ncols=columns, fontsize=9, frameon=False)


def _columns(names: Sequence[str]) -> int:
    """How many legend entries fit beside each other: a character takes about .08 inches, the line before it .6."""
    return max(1, min(len(names), int(WIDTH / (0.6 + 0.08 * max(map(len, names))))))


def words(text: str, width: int) -> str:
    """Text as it stands, in lines of at most so many characters: a dollar sign starts no formula."""
    drawable = text.encode(errors="replace").decode()  # of a file's name that is not UTF-8, as ?
    return textwrap.fill(drawable, width).replace("$", r"\$")


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, in one step."""
    replace_file(path, lambda fresh: figure.savefig(fresh, format="png"))
