"""Models that answered the same rows, compared: differences of macro-F1, with intervals from resampled people.

Photos of one person are answered alike, so people are drawn, not photos: intervals from single photos are too narrow.
The intervals say how far scores move with the people asked; how far they move with the training is the spread over
seeds. Source: Field and Welsh 2007 (resampling whole clusters), Efron and Tibshirani 1993, 13.3 (percentiles). How
often they hold the truth is measured by benchmarks/coverage.py: with few people in a class, a score's is too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from multihead.heads import UNKNOWN, Head, base, size
from multihead.labels import aligned, encode, marginals

if TYPE_CHECKING:
    import pandas as pd

RESAMPLES = 2000  # of people, behind an interval
CHUNK = 2**21  # numbers drawn at a time: 16 MiB


def compare(
    probs: Mapping[str, Sequence[np.ndarray]],
    labels: np.ndarray,
    groups: np.ndarray,
    heads: Sequence[Head],
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """One row an arm and metric: its score, and its difference to the first arm, with intervals over people.

    probs: {arm: joint probabilities (N, K) of each of its seeds}; a row of NaN was not answered, and is left out.
    labels: (N, heads), -1 = unknown. groups: (N,) person of each row, as of `Photos.groups`; -1 is one of its own.

    Metrics are macro_f1 (joint) and <head>_f1, as `multihead.metrics.score` counts them. Columns: arm, metric, mean
    (over the seeds) and mean_low, mean_high (its interval); low_seed, high_seed (lowest and highest seed); difference
    (of means) and low, high (its interval); seeds; people and rows that the metric counts. An interval holds the
    middle `level` of the resamples that have a row to score, the same for all arms; NaN with fewer than two people.

    Raises: ValueError for no arm, seed or answered row, shapes that disagree, arms that answered unlike rows,
    probabilities that are not finite, or groups that are no person numbers.
    """
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"compare needs resamples >= 1 and 0 < level < 1, got {resamples!r} and {level!r}")
    space, labels = base(heads), np.asarray(aligned(labels, heads))
    answered = _answered(probs, (len(labels), size(space)))
    people, labels = number_people(groups, answered), labels[answered]
    truth = {"macro_f1": encode(labels, space)}
    truth |= {f"{head.name}_f1": labels[:, column] for column, head in enumerate(space)}
    answers = [_answers(np.asarray(each)[answered], space) for seeds in probs.values() for each in seeds]
    seeds = {arm: len(each) for arm, each in probs.items()}
    rows = []
    for metric, known in truth.items():
        counts = tally(people, known, np.stack([each[metric] for each in answers]))  # (G, A, 2, C)
        once = macro_f1(counts.sum(0))  # (A,): an entry an arm and seed
        again = np.concatenate([_rescored(drawn, counts) for drawn in draws(len(counts), resamples, seed)])  # (R, A)
        asked = people[known != UNKNOWN]
        sizes = {"people": len(np.unique(asked)), "rows": len(asked)}
        rows += [{**row, "metric": metric, **sizes} for row in _rows(seeds, once, again, level, sizes["people"])]
    return _frame(rows, list(probs))


def table(frame: pd.DataFrame) -> str:
    """The answer of `compare` as a Markdown table: one line an arm, two columns a metric.

    The first holds the mean and, where there are several seeds, the lowest and highest; the second the difference to
    the first arm and its interval. What there is no number for is a dash.
    """
    arms, metrics = list(dict.fromkeys(frame["arm"])), list(dict.fromkeys(frame["metric"]))
    cells: dict[tuple[str, str], Any] = {(row["arm"], row["metric"]): row for row in frame.to_dict("records")}
    titles = ["arm"]
    for metric in metrics:
        row = cells[arms[0], metric]
        titles += [f"{metric} ({row['rows']} rows, {row['people']} people)", f"difference to {arms[0]}"]
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)]]
    for arm in arms:
        lines.append([arm])
        for metric in metrics:
            lines[-1] += [_mean(cells[arm, metric]), "-" if arm == arms[0] else _difference(cells[arm, metric])]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def draws(people: int, resamples: int, seed: int = 0) -> Iterator[np.ndarray]:
    """How often each person is drawn in each resample: arrays (r, people) whose r add up to `resamples`.

    A resample draws as many people as there are, with replacement. The same seed gives the same numbers.

    >>> [each.sum(1).tolist() for each in draws(5, 3)]
    [[5.0, 5.0, 5.0]]
    """
    rng, step = np.random.default_rng(seed), max(1, CHUNK // people)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(people, size=(rows, people)) + people * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * people).reshape(rows, people).astype(float)


def tally(people: np.ndarray, labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """What macro-F1 needs of each person, and adds up over people: (G, A, 2, C).

    Of each class, first its right answers, then its labelled and its answered rows together; rows of unknown label
    are left out. people: (N,), 0..G-1. labels: (N,), -1 = unknown. answers: (A, N). C is the highest class + 1.

    >>> tally(np.array([0, 0, 1]), np.array([0, 1, -1]), np.array([[0, 0, 0]])).tolist()
    [[[[1.0, 0.0], [3.0, 1.0]]], [[[0.0, 0.0], [0.0, 0.0]]]]
    """
    known, number = labels != UNKNOWN, int(people.max()) + 1
    classes = int(max(labels.max(), answers.max())) + 1
    people, labels, answers = people[known], labels[known], answers[:, known]

    def count(rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        return np.bincount(rows * classes + chosen, minlength=number * classes).reshape(number, classes)

    counts = np.empty((number, len(answers), 2, classes))
    counts[:, :, 1] = count(people, labels)[:, None]
    for arm, row in enumerate(answers):
        counts[:, arm, 0] = count(people[row == labels], row[row == labels])
        counts[:, arm, 1] += count(people, row)
    return counts


def macro_f1(counts: np.ndarray) -> np.ndarray:
    """Macro-F1 (...) of counts (..., 2, C) as of `tally`, added up over people; NaN where nothing was counted.

    As in `multihead.metrics`: the mean over the classes that occur among labels or answers.

    >>> float(macro_f1(np.array([[1, 0, 0], [3, 1, 0]])))
    0.3333333333333333
    """
    f1 = class_f1(counts)
    seen = (~np.isnan(f1)).sum(-1)
    return np.divide(np.nansum(f1, -1), seen, out=np.full(seen.shape, math.nan), where=seen > 0)


def class_f1(counts: np.ndarray) -> np.ndarray:
    """F1 (..., C) of each class, of counts (..., 2, C) as of `tally`; NaN where a class does not occur.

    >>> class_f1(np.array([[1, 0, 0], [3, 1, 0]])).round(3).tolist()
    [0.667, 0.0, nan]
    """
    right, total = counts[..., 0, :], counts[..., 1, :]
    return np.divide(2 * right, total, out=np.full(total.shape, math.nan), where=total > 0)


def number_people(groups: np.ndarray, answered: np.ndarray) -> np.ndarray:
    """Person number (n,) of each answered row, from 0 without gaps; a row of unknown person is a person of its own.

    groups: (N,) as of `Photos.groups`, -1 = unknown. answered: (N,) of bool.

    Raises: ValueError for groups that are no person numbers.

    >>> number_people(np.array([7, -1, 3, 7, -1]), np.array([True, True, False, True, True]))
    array([0, 1, 0, 2])
    """
    groups = np.asarray(groups)
    if groups.dtype.kind not in "iu":
        raise ValueError(f"groups are {groups.dtype}; multihead.splits.groups numbers people by their names")
    if groups.shape != answered.shape:
        raise ValueError(
            f"groups have shape {groups.shape}, the answers {len(answered)} rows; expected a person a row: photos that "
            "could not be read have none (photos.groups()[scores.row_numbers])"
        )
    if groups.min() < UNKNOWN:
        raise ValueError(f"groups hold {groups.min()}; expected person numbers from 0, or -1 where unknown")
    numbers = np.unique(groups, return_inverse=True)[1]
    numbers = np.where(groups == UNKNOWN, len(groups) + np.arange(len(groups)), numbers)
    return np.unique(numbers[answered], return_inverse=True)[1]


def _rescored(drawn: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Macro-F1 (r, A) of the people as drawn (r, G)."""
    added = drawn @ counts.reshape(len(counts), -1)  # (r, A * 2 * C)
    return macro_f1(added.reshape(len(drawn), *counts.shape[1:]))


def _rows(
    seeds: Mapping[str, int], once: np.ndarray, again: np.ndarray, level: float, people: int
) -> Iterator[dict[str, object]]:
    """One row an arm, from the score of each of its seeds (A,) and of each resample (R, A)."""
    ends = np.cumsum(list(seeds.values()))[:-1]
    scores, spread = np.split(once, ends), [each.mean(1) for each in np.split(again, ends, 1)]  # (R,) an arm
    for arm, own, drawn in zip(seeds, scores, spread):
        mean_low, mean_high = _interval(drawn, level, people)
        low, high = _interval(drawn - spread[0], level, people)
        yield {
            "arm": arm,
            "mean": own.mean(),
            "mean_low": mean_low,
            "mean_high": mean_high,
            "low_seed": own.min(),
            "high_seed": own.max(),
            "difference": own.mean() - scores[0].mean(),
            "low": low,
            "high": high,
            "seeds": len(own),
        }


def _interval(drawn: np.ndarray, level: float, people: int) -> tuple[float, float]:
    drawn = drawn[np.isfinite(drawn)]
    if people < 2 or not len(drawn):  # one person says nothing about the others
        return math.nan, math.nan
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _answers(probs: np.ndarray, heads: Sequence[Head]) -> dict[str, np.ndarray]:
    """The likeliest class (N,) of each metric: of the joint space, and of each head after summing over the others."""
    parts = marginals(probs, heads)
    return {"macro_f1": probs.argmax(1)} | {f"{name}_f1": part.argmax(1) for name, part in parts.items()}


def _answered(probs: Mapping[str, Sequence[np.ndarray]], shape: tuple[int, int]) -> np.ndarray:
    """Which rows (N,) were answered, by all arms and seeds or by none."""
    if not probs or not all(len(seeds) for seeds in probs.values()):
        raise ValueError(f"compare needs arms with one matrix a seed, got { ({k: len(v) for k, v in probs.items()}) }")
    found: np.ndarray | None = None
    for arm, seeds in probs.items():
        for number, each in enumerate(seeds):
            rows = _rows_answered(np.asarray(each), shape, f"arm {arm!r}, seed {number}")
            found = rows if found is None else found
            if (rows != found).any():
                row = int(np.flatnonzero(rows != found)[0])
                raise ValueError(
                    f"arm {arm!r}, seed {number}: row {row} is {'' if rows[row] else 'not '}answered, unlike in "
                    f"arm {next(iter(probs))!r}, seed 0; all must answer the same rows"
                )
    if found is None or not found.any():
        raise ValueError(f"no row of {shape[0]} is answered; nothing can be compared")
    return found


def _rows_answered(probs: np.ndarray, shape: tuple[int, int], where: str) -> np.ndarray:
    if probs.shape != shape:
        raise ValueError(f"{where}: probs have shape {probs.shape}; expected {shape}, one row a label")
    answered = ~np.isnan(probs).all(1)
    wrong = answered & ~np.isfinite(probs).all(1)
    if wrong.any():
        raise ValueError(f"{where}: row {int(np.flatnonzero(wrong)[0])} of the probabilities is not finite")
    return answered


def _frame(rows: list[dict[str, object]], arms: list[str]) -> pd.DataFrame:
    import pandas as pd

    first = ["arm", "metric"]
    rows = sorted(rows, key=lambda row: arms.index(str(row["arm"])))  # stable: metrics keep their order
    return pd.DataFrame(rows)[first + [name for name in rows[0] if name not in first]]


def _mean(row: Mapping[str, float]) -> str:
    if math.isnan(row["mean"]):
        return "-"
    return f"{row['mean']:.4f}" + (f" ({row['low_seed']:.4f}-{row['high_seed']:.4f})" if row["seeds"] > 1 else "")


def _difference(row: Mapping[str, float]) -> str:
    if math.isnan(row["difference"]):
        return "-"
    return f"{row['difference']:+.4f}" + ("" if math.isnan(row["low"]) else f" [{row['low']:+.4f}, {row['high']:+.4f}]")


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
