"""Votes: how much each member of an ensemble should count, and one person's photos that answer together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from multihead.calibrate import FLOOR, checked, with_marginals
from multihead.heads import UNKNOWN, Head, base, size
from multihead.labels import aligned, decode, marginals
from multihead.options import near
from multihead.paired import number_people

SHARED = ("gender", "age")  # what does not change from photo to photo of a person
ROUNDS, ENOUGH = 10_000, 1e-7  # of EM; how far from the best mean log-likelihood it may stop
LEAST = 1e-12  # a weight is never zero, which an ensemble would refuse
BLUR = 1e-12  # a class of probability zero could not be raised by what the person's other photos show


def fit_vote_weights(members: Sequence[np.ndarray], labels: np.ndarray, heads: Sequence[Head]) -> tuple[float, ...]:
    """The weight of each member, summing to one, under which their weighted mean makes the labels likeliest.

    members: out-of-fold joint probabilities (N, K) of each, in the same row order: of whole recipes that answered all
    rows. (The models of one folds folder answered unlike rows each, so there is nothing to weigh them by.)
    labels: (N, heads), -1 = unknown; a row counts by the probability of all joint classes that agree with what is known
    of it, and not at all where nothing is. A useless member gets about 0 and may be left out.

    It is the maximum over all weights (the likelihood is concave), to 1e-7 of the mean log-likelihood or, of members
    that are nearly equal, as near as 10,000 rounds come. Equal members
    keep equal weights. Source: expectation maximisation of mixture proportions, Dempster, Laird and Rubin 1977.

    Raises: ValueError for no member, shapes that disagree, a row that is no distribution, a label outside its head's
    classes, or where no label is known.

    >>> smile, labels = (Head("smile", ("no", "yes")),), np.array([[0], [1], [1]])
    >>> right, wrong = np.eye(2)[[0, 1, 1]], np.eye(2)[[1, 0, 0]]
    >>> [round(weight, 3) for weight in fit_vote_weights([right, wrong], labels, smile)]
    [1.0, 0.0]
    """
    if not len(members):
        raise ValueError("fit_vote_weights needs the probabilities of at least one member")
    labels = np.asarray(aligned(labels, heads))
    told = np.stack(
        [_agreeing(checked(probs, labels, heads)[0], labels, heads) for probs in members], 1
    )  # (N, members)
    told = told[(labels != UNKNOWN).any(1)].clip(min=FLOOR)
    if not len(told):
        raise ValueError(f"none of {len(labels)} rows has a known label; nothing tells the members apart")
    weights = np.full(len(members), 1 / len(members))
    for _ in range(ROUNDS):
        gains = (told / (told @ weights)[:, None]).mean(0)  # (members,): 1 where a weight stays
        if gains.max() <= 1 + ENOUGH:  # an upper bound of what the mean log-likelihood can still gain
            break
        weights = (weights * gains).clip(min=LEAST)
        weights /= weights.sum()
    return tuple(weights.tolist())


def person_vote(
    probs: np.ndarray, groups: np.ndarray, heads: Sequence[Head], shared: Sequence[str] = SHARED
) -> np.ndarray:
    """Joint probabilities (N, K) after the photos of each person have voted on the heads that they share.

    groups: (N,) person of each row, as of `Photos.groups`; a row of -1 stays as it is. shared: the heads that do not
    change from photo to photo, whose marginal becomes the plain mean over the person's photos; the others, such as the
    mask, stay each photo's own, and so does what a photo's answer knows of classes that go together (see
    `multihead.calibrate.with_marginals`).

    The mean is of probabilities, not of logarithms, as in `Ensemble`: under a product one photo that is surely wrong
    outvotes all the others, and errors on photos of one face go together, which a product takes for independent news.
    Source: Kittler et al., On Combining Classifiers, IEEE TPAMI 20 (3), 1998 (the sum rule bears errors best).

    Use it where identity is known when the model is asked; the people must not be looked up from the answers.

    Raises: ValueError for an unknown head, groups that are no person numbers, or a row that is no distribution.
    """
    names, shared = [head.name for head in base(heads)], (shared,) if isinstance(shared, str) else shared
    for name in shared:
        if name not in names:
            raise ValueError(f"shared names {name!r}; expected some of the heads {names}{near(name, names)}")
    probs, _ = checked(probs, np.full((len(probs), len(names)), UNKNOWN), heads)
    if not len(probs):
        return probs
    voted = _vote(probs, number_people(groups, np.ones(len(probs), bool)), heads, shared)
    return np.where(np.asarray(groups)[:, None] == UNKNOWN, probs, voted)


def _agreeing(probs: np.ndarray, labels: np.ndarray, heads: Sequence[Head]) -> np.ndarray:
    """Probability (N,) of the joint classes that agree with the known labels of a row."""
    places = decode(np.arange(size(heads)), heads)  # (K, heads)
    agree = np.ones(probs.shape, bool)
    for column, place in zip(labels.T, places.T):
        agree &= (column[:, None] == UNKNOWN) | (column[:, None] == place)
    return (probs * agree).sum(1)


def _vote(probs: np.ndarray, people: np.ndarray, heads: Sequence[Head], shared: Sequence[str]) -> np.ndarray:
    """The vote of people numbered from 0 without gaps."""
    sizes = np.bincount(people)[:, None]  # (people, 1)
    probs = _blurred(probs, heads, shared)
    wanted = marginals(probs, heads)
    for name in shared:
        total = np.zeros((len(sizes), wanted[name].shape[1]))
        np.add.at(total, people, wanted[name])
        wanted[name] = (total / sizes)[people]
    return with_marginals(probs, wanted, heads)


def _blurred(probs: np.ndarray, heads: Sequence[Head], shared: Sequence[str]) -> np.ndarray:
    """The rows with a little of every class of these heads, each by itself: a product of heads stays one."""
    grid = probs.reshape(len(probs), *(len(head.classes) for head in base(heads)))  # (N, C1, C2, ...)
    for axis, head in enumerate(base(heads), 1):
        if head.name in shared:
            grid = (1 - BLUR) * grid + BLUR / len(head.classes) * grid.sum(axis, keepdims=True)
    return grid.reshape(probs.shape)


def shared_heads(heads: Sequence[Head]) -> tuple[str, ...]:
    """The names among these heads that all photos of one person share: gender and age.

    Raises: ValueError where there is neither.
    """
    found = tuple(head.name for head in base(heads) if head.name in SHARED)
    if not found:
        names = [head.name for head in base(heads)]
        raise ValueError(f"heads {names}: none of {', '.join(SHARED)} is there for the photos of a person to share")
    return found
