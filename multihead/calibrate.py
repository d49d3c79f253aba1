"""Probabilities that mean what they say: a temperature for each head, and how far confidence is from accuracy.

Everything is fitted on answers to rows that the model never saw: out-of-fold ones, or those of a validation part.

    temperatures = fit_temperatures(oof, labels, heads)
    honest = apply_temperatures(probs, temperatures, heads)

What was fitted on some rows looks too good on them: `multihead.nested` says what it does for people it never saw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from multihead.heads import HEADS, UNKNOWN, Head, base, size
from multihead.labels import Array, aligned, encode, marginals
from multihead.metrics import check_probabilities
from multihead.options import between, near

COLDEST, HOTTEST = 0.05, 20.0  # bounds of a fitted temperature
FLOOR = float(np.finfo(np.float32).tiny)  # below it a softmax in float32 says zero; no probability's logarithm is lower
SWEEPS, EXACT, ROUGH = 200, 1e-9, 1e-6  # of proportional fitting; how near marginals come, in f64 and f32
STEPS = 60  # halvings of the bounds: far below the precision of a float
BINS = 15  # as in the paper

Reliability = tuple[np.ndarray, np.ndarray, np.ndarray]


def fit_temperatures(probs: np.ndarray, labels: np.ndarray, heads: Sequence[Head] = HEADS) -> dict[str, float]:
    """The temperature of each head that makes its known labels likeliest: above 1 where the answers are too sure.

    probs: joint probabilities (N, K). labels: (N, heads), -1 = unknown. A head's temperature T minimises the mean
    negative log-likelihood of its marginal m to the power 1/T, scaled to sum to one; it lies in 0.05..20. A head
    without a known label, or whose likelihood T does not change, keeps 1. To the known rows comes one more that might
    be of any class: of a few rows that are all answered right T would say that no answer is ever wrong.

    Source: Guo et al., On Calibration of Modern Neural Networks, arXiv:1706.04599, 2017, section 4.2; the row more as
    in Platt, Probabilistic Outputs for Support Vector Machines, 1999, section 2.2, who adds one for each class.

    Raises: ValueError for shapes that disagree, a row that is no distribution, or a label outside its head's classes.

    >>> smile = (Head("smile", ("no", "yes")),)
    >>> sure, labels = np.tile([0.1, 0.9], (9, 1)), np.array([[1]] * 7 + [[0]] * 2)  # right 7 times of 9: 7.5 of 10
    >>> round(fit_temperatures(sure, labels, smile)["smile"], 6)
    2.0
    """
    probs, labels = checked(probs, labels, heads)
    parts = questions(probs, labels, heads)
    return {head.name: _temperature(*parts[head.name]) for head in base(heads)}


def apply_temperatures(probs: Array, temperatures: Mapping[str, float], heads: Sequence[Head]) -> Array:
    """Joint probabilities (N, K) at these temperatures {head: T}; a head that is not named keeps its own.

    Each head's marginal m becomes m to the power 1/T, scaled to sum to one, as `fit_temperatures` has it: its likeliest
    class stays. For a product of heads that is softmax(logits / T) of each head; what a flat model or an ensemble knows
    of classes that go together stays (see `with_marginals`). A zero stays zero. numpy or torch, as given.

    Raises: ValueError for a temperature that is not positive, or of an unknown head; or where K does not fit.
    """
    check_temperatures(temperatures, heads)
    given: Any = probs.dtype
    if narrow := str(given).endswith("float16"):  # bfloat16 too: powers of small numbers need more
        probs = probs.astype(np.float32) if isinstance(probs, np.ndarray) else probs.float()
    asked = any(temperature != 1 for temperature in temperatures.values())
    wanted = {name: _tempered(part, temperatures.get(name, 1)) for name, part in marginals(probs, heads).items()}
    found: Any = with_marginals(probs, wanted, heads) if asked else probs
    if not narrow:
        return found
    back: Any = found.astype(given) if isinstance(found, np.ndarray) else found.to(given)
    return back


def _tempered(part: Any, temperature: float) -> Any:
    """Marginals (N, C) at a temperature."""
    if temperature == 1 or not len(part):
        return part
    # relative to the largest, which no power makes zero
    powers = (part.clip(min=FLOOR) / _largest(part)) ** (1 / temperature) * (part > 0)
    return powers / powers.sum(1)[:, None]


def _largest(part: Any) -> Any:
    """The largest probability (N, 1) of each row, of numpy or torch."""
    return part.max(1)[:, None] if isinstance(part, np.ndarray) else part.amax(1)[:, None]


def check_temperatures(temperatures: Mapping[str, float], heads: Sequence[Head]) -> None:
    """Nothing where these are temperatures of some of the heads. Raises: ValueError that says which is not."""
    names = [head.name for head in base(heads)]
    for name, temperature in temperatures.items():
        if name not in names:
            raise ValueError(f"temperatures name {name!r}; expected some of the heads {names}{near(name, names)}")
        between("temperatures", name, temperature, 0, open_low=True)


def with_marginals(probs: Any, wanted: Mapping[str, Any], heads: Sequence[Head]) -> Any:
    """The joint probabilities (N, K) with these marginals {head: (N, C)} that are nearest to the given ones: each is
    multiplied by a factor for its class of each head, so that what is known of classes that go together stays. Of a
    product of heads it is the product of the wanted. numpy or torch, as given.

    A zero stays zero. Where zeros leave no distribution with these marginals, it is one near them.

    Source: iterative proportional fitting, Deming and Stephan 1940; nearest by Kullback and Leibler's divergence,
    Csiszar 1975.
    """
    close = EXACT if str(probs.dtype).endswith("float64") else ROUGH
    for _ in range(SWEEPS):
        for name, target in wanted.items():
            probs = rescale(probs, {name: target / marginals(probs, heads)[name].clip(min=FLOOR)}, heads)
        found = marginals(probs, heads)
        if all(bool((abs(found[name] - target) <= close).all()) for name, target in wanted.items()):
            break
    return probs


def rescale(probs: Array, factors: Mapping[str, Array], heads: Sequence[Head]) -> Array:
    """Joint probabilities (N, K) times a factor (N, C) for each class of some heads, each row scaled to sum to one.

    Without factors the rows come back as they are.
    """
    before, after = 1, size(heads)
    for head in base(heads):
        count = len(head.classes)
        after //= count
        if head.name in factors:
            grid = probs.reshape(len(probs), before, count, after)
            probs = (grid * factors[head.name][:, None, :, None]).reshape(len(probs), before * count * after)
            probs = probs / probs.sum(1)[:, None]  # each time, so that many heads do not overflow
        before *= count
    return probs


def reliability(probs: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Reliability:
    """(mean confidence, accuracy, rows) of each bin (bins,): rows whose likeliest class has a probability in it.

    probs: (N, C). labels: (N,), -1 = unknown and not counted. The bins are equally wide and hold their upper edge; an
    empty one has NaN and 0. `multihead.plots.reliability` draws it.

    Raises: ValueError for shapes that disagree, or bins < 1.
    """
    probs, labels = np.asarray(probs, float), np.asarray(labels)
    if probs.ndim != 2 or labels.shape != probs.shape[:1]:
        raise ValueError(f"probs have shape {probs.shape} and labels {labels.shape}; expected (N, C) and (N,)")
    between("reliability", "bins", bins, 1)
    probs, labels = probs[labels != UNKNOWN], labels[labels != UNKNOWN]
    confidence, right = probs.max(1), probs.argmax(1) == labels
    place = np.clip(np.searchsorted(np.linspace(0, 1, bins + 1), confidence) - 1, 0, bins - 1)  # lower < it <= upper
    counts = np.bincount(place, minlength=bins)

    def mean(values: np.ndarray) -> np.ndarray:
        total = np.bincount(place, weights=values, minlength=bins)
        return np.divide(total, counts, out=np.full(bins, math.nan), where=counts > 0)

    return mean(confidence), mean(right.astype(float)), counts


def expected_calibration_error(probs: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """How far confidence is from accuracy, 0 to 1: the mean over the bins of `reliability`, weighed by their rows.

    NaN without a known label. Few rows in many bins give an error above 0 by chance alone.

    Source: Guo et al. 2017, eq. 3.

    Raises: ValueError as `reliability` does.

    >>> expected_calibration_error(np.array([[0.75, 0.25]] * 4), np.array([0, 0, 0, 1]))
    0.0
    """
    confidence, accuracy, counts = reliability(probs, labels, bins)
    if not counts.any():
        return math.nan
    return float(np.nansum(counts * np.abs(accuracy - confidence)) / counts.sum())


def reliabilities(
    probs: np.ndarray, labels: np.ndarray, heads: Sequence[Head], bins: int = BINS
) -> dict[str, Reliability]:
    """`reliability` of the joint answer, "joint", on rows with all heads known, and of each head on its known rows.

    Raises: ValueError as `fit_temperatures` and `reliability` do.
    """
    parts = questions(*checked(probs, labels, heads), heads)
    return {name: reliability(*part, bins) for name, part in parts.items()}


def calibration_errors(
    probs: np.ndarray, labels: np.ndarray, heads: Sequence[Head], bins: int = BINS
) -> dict[str, float]:
    """`expected_calibration_error` of the joint answer, "joint", and of each head.

    Raises: ValueError as `fit_temperatures` and `reliability` do.
    """
    parts = questions(*checked(probs, labels, heads), heads)
    return {name: expected_calibration_error(*part, bins) for name, part in parts.items()}


def questions(probs: np.ndarray, labels: np.ndarray, heads: Sequence[Head]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{"joint" or a head: (its probabilities (N, C), its labels (N,), -1 = unknown)}."""
    parts, columns = marginals(probs, heads), zip(base(heads), labels.T)
    return {"joint": (probs, encode(labels, heads))} | {head.name: (parts[head.name], one) for head, one in columns}


def checked(probs: np.ndarray, labels: np.ndarray, heads: Sequence[Head]) -> tuple[np.ndarray, np.ndarray]:
    """(probs (N, K) as float64, labels (N, heads)), where they fit each other.

    Raises: ValueError for shapes that disagree, a row that is no distribution, or a label outside its head's classes.
    """
    if np.ndim(probs) != 2:
        told = repr(probs).splitlines()[0][:80]
        raise ValueError(
            f"probs are {told}; expected joint probabilities (N, {size(heads)}), as scores.probs holds them"
        )
    probs, labels = np.asarray(probs, float), np.asarray(aligned(labels, heads))
    encode(labels, heads)
    if probs.shape != (len(labels), size(heads)):
        raise ValueError(f"probs have shape {probs.shape}; expected ({len(labels)}, {size(heads)}), one row a label")
    check_probabilities(probs)
    return probs, labels


def _temperature(probs: np.ndarray, labels: np.ndarray) -> float:
    """The temperature (of 1/T the loss is convex) where the slope of the loss changes its sign."""
    known = labels != UNKNOWN
    logs, truth = np.log(probs[known].clip(min=FLOOR)), labels[known]  # (n, C), (n,)
    possible = probs[known] > 0  # a zero stays zero at every temperature
    any_class = (logs * possible).sum(1) / possible.sum(1)
    count = len(truth)
    told = (count * logs[np.arange(count), truth] + any_class) / (count + 1)

    def slope(temperature: float) -> float:
        """Of the mean loss, by 1/T."""
        shares = np.exp((logs - logs.max(1, keepdims=True)) / temperature)
        return float(((shares / shares.sum(1, keepdims=True) * logs).sum(1) - told).mean())

    if not count or abs(slope(1.0)) < 1e-12:
        return 1.0
    low, high = math.log(COLDEST), math.log(HOTTEST)
    for _ in range(STEPS):
        middle = (low + high) / 2
        if slope(math.exp(middle)) > 0:  # too sure: 1/T must fall
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)
