"""Answers for macro-F1: weights of the classes, from their shares or fitted, under which the likeliest is chosen.

Macro-F1 counts a rare class as much as a common one, the likeliest class does not. A decoder here is a vector of
weights (K,) over the joint classes: the answer is the class k of the largest w(k) p(k).

    weights = fit_prior_weights(oof, labels, heads)      # or fit_weights, fit_joint_weights: more numbers to fit
    answers = reweight(probs, weights).argmax(1)

Weights that were fitted on some rows look too good on them: `multihead.nested.nested_gain` is the honest number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from multihead.calibrate import checked, questions
from multihead.heads import UNKNOWN, Head, base, size
from multihead.labels import Array, aligned, encode, joint
from multihead.metrics import score
from multihead.options import between
from multihead.paired import macro_f1

LIMIT = 1e3  # a fitted weight lies within 1/LIMIT..LIMIT of where it started
STRENGTHS = tuple(step / 20 for step in range(31))
SWEEPS = 20  # over all classes; a fit rarely needs more than five
GAIN = 1e-9  # of macro-F1, below which a change is none


def reweight(probs: Array, weights: Array) -> Array:
    """Joint probabilities (N, K) in proportion to w(k) p(k), rows sum to one; numpy or torch, as given.

    >>> reweight(np.array([[0.6, 0.4]]), np.array([1.0, 2.25])).round(3).tolist()
    [[0.4, 0.6]]
    """
    weighted = probs * weights
    return weighted / weighted.sum(1)[:, None]


def prior_weights(labels: np.ndarray, heads: Sequence[Head], strength: float = 1.0) -> np.ndarray:
    """Weights (K,) that take the training shares of each head's classes out of the answers: their product, each share
    to the power -strength.

    labels: (N, heads) of the training rows, -1 = unknown. Each class counts one row more than it has, so that one that
    was never seen has a weight too. strength: 0 changes nothing, 1 answers as if all classes were as common.

    Source: Menon et al., Long-tail learning via logit adjustment, arXiv:2007.07314, 2021, eq. 9 (post-hoc).

    Raises: ValueError for a strength below zero, or labels that do not fit the heads.

    >>> smile = (Head("smile", ("no", "yes")),)
    >>> prior_weights(np.array([[0], [0], [0], [1], [-1]]), smile).round(3).tolist()
    [0.707, 1.414]
    """
    labels = np.asarray(aligned(labels, heads))
    encode(labels, heads)  # refuses what does not fit
    columns = zip(base(heads), labels.T)
    return _product({head.name: _prior(column, len(head.classes), strength) for head, column in columns}, heads)


def prior_joint_weights(labels: np.ndarray, heads: Sequence[Head], strength: float = 1.0) -> np.ndarray:
    """As `prior_weights`, of the shares of the joint classes among the rows with all heads known.

    Raises: ValueError as `prior_weights` does.
    """
    return _prior(np.asarray(encode(labels, heads)), size(heads), strength)


def fit_prior_weights(probs: np.ndarray, labels: np.ndarray, heads: Sequence[Head]) -> np.ndarray:
    """`prior_weights` of the strength 0, 0.05, ..., 1.5 whose answers have the largest macro-F1: one number is fitted.

    Macro-F1 is the joint one, or the mean of the heads' where no row is fully known. Of equal strengths the least.

    Raises: ValueError for shapes that disagree, a row that is no distribution, or a label outside its head's classes.
    """
    probs, labels = checked(probs, labels, heads)
    tried = [prior_weights(labels, heads, strength) for strength in STRENGTHS]
    scores = [score(reweight(probs, weights), labels, heads).selection[0] for weights in tried]
    return tried[int(np.argmax(np.nan_to_num(scores)))]  # NaN: no label at all


def fit_weights(probs: np.ndarray, labels: np.ndarray, heads: Sequence[Head]) -> np.ndarray:
    """Weights (K,) fitted for macro-F1: the products of those of each head, as `fit_head_weights` finds them.

    These are few numbers (8 for mask, gender and age) and so the ones to begin with: the 18 of `fit_joint_weights`
    learn the rare classes of few people by heart.

    Raises: ValueError as `fit_head_weights` does.
    """
    return _product(fit_head_weights(probs, labels, heads), heads)


def fit_head_weights(probs: np.ndarray, labels: np.ndarray, heads: Sequence[Head]) -> dict[str, np.ndarray]:
    """Weights {head: (C,)} that make macro-F1 of each head's own answers as large as one weight at a time can.

    probs: joint probabilities (N, K) of rows that the model never saw. labels: (N, heads), -1 = unknown. A head is
    fitted on its marginals and known rows, and has ones where it knows none. The geometric mean of a head's weights
    is one. The same rows give the same weights, whatever their order.

    Raises: ValueError for shapes that disagree, a row that is no distribution, or a label outside its head's classes.

    >>> smile = (Head("smile", ("no", "yes")),)
    >>> timid = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    >>> weights = fit_weights(timid, np.array([[0], [0], [1], [1]]), smile)
    >>> reweight(timid, weights).argmax(1).tolist()
    [0, 0, 1, 1]
    """
    parts = questions(*checked(probs, labels, heads), heads)
    return {head.name: _fit(*parts[head.name]) for head in base(heads)}


def fit_joint_weights(probs: np.ndarray, labels: np.ndarray, heads: Sequence[Head]) -> np.ndarray:
    """Weights (K,), one a joint class, fitted for joint macro-F1 on the rows with all heads known.

    Raises: ValueError as `fit_head_weights` does.
    """
    return _fit(*questions(*checked(probs, labels, heads), heads)["joint"])


def _prior(column: np.ndarray, classes: int, strength: float) -> np.ndarray:
    """The shares (C,) of a column's classes to the power -strength, of geometric mean one."""
    between("prior weights", "strength", strength, 0)
    counts = np.bincount(column[column != UNKNOWN], minlength=classes) + 1
    return _centred(counts.astype(float) ** -strength)


def _product(weights: dict[str, np.ndarray], heads: Sequence[Head]) -> np.ndarray:
    return joint({name: each[None] for name, each in weights.items()}, base(heads))[0]


def _centred(weights: np.ndarray) -> np.ndarray:
    return weights / np.exp(np.log(weights).mean())


def _fit(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Coordinate ascent: class by class, the weight that gives the best macro-F1 while the others stay."""
    probs, labels = probs[labels != UNKNOWN], labels[labels != UNKNOWN]
    weights, best = np.ones(probs.shape[1]), -math.inf
    for _ in range(SWEEPS if len(labels) else 0):
        before = best
        for index in range(len(weights)):
            weights[index], best = _best_weight(probs, labels, weights, index)
        if best <= before + GAIN:
            break
    return _centred(weights)


def _best_weight(probs: np.ndarray, labels: np.ndarray, weights: np.ndarray, index: int) -> tuple[float, float]:
    """(weight of one class, macro-F1 with it): the best there is, of equal ones the nearest to the present weight.

    A row turns to the class where the weight passes the ratio of the best other score to the class's probability, so
    macro-F1 changes at these ratios only; a weight is the middle between two of them.
    """
    scores = probs * weights
    scores[:, index] = -1
    others = scores.argmax(1)  # (N,): the answer as long as the weight is small
    highest = scores[np.arange(len(scores)), others]
    ratios = np.divide(highest, probs[:, index], out=np.full(len(probs), math.inf), where=probs[:, index] > 0)
    order = np.argsort(ratios, kind="stable")
    edges = np.concatenate([[1 / LIMIT], ratios[order].clip(1 / LIMIT, LIMIT), [LIMIT]])
    f1 = _f1_by_turned(labels[order], others[order], index, probs.shape[1])  # (N + 1,)
    middles = np.sqrt(edges[:-1] * edges[1:])
    f1[edges[1:] <= edges[:-1] * (1 + 1e-9)] = -math.inf  # rows of one ratio turn together
    near = np.abs(np.log(middles / weights[index]))
    inside = (edges[:-1] < weights[index]) & (weights[index] < edges[1:])
    near[inside] = 0
    chosen = int(np.lexsort((near, -f1.round(12)))[0])
    return float(weights[index] if inside[chosen] else middles[chosen]), float(f1[chosen])


def _f1_by_turned(labels: np.ndarray, others: np.ndarray, index: int, classes: int) -> np.ndarray:
    """Macro-F1 (N + 1,) when the first 0, 1, ..., N rows answer the class `index`, and the rest what `others` says."""
    each = np.arange(classes)
    right, answered = np.zeros((2, len(labels) + 1, classes))
    leaving = others[:, None] == each  # (N, C)
    answered[1:] = -leaving.cumsum(0)
    right[1:] = -(leaving & (labels == others)[:, None]).cumsum(0)
    answered += leaving.sum(0)
    right += (leaving & (labels == others)[:, None]).sum(0)
    answered[1:, index] = np.arange(1, len(labels) + 1)
    right[1:, index] = (labels == index).cumsum()
    return macro_f1(np.stack([right, answered + np.bincount(labels, minlength=classes)], 1))  # of (N + 1, 2, C)
