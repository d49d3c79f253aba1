"""The loss of one head on target rows with mass, from its settings (`multihead.losses`).

A target row (C,) sums to its mass: 1 for a known label, 0 for an unknown one, between them when mixed with unknown.
A head's loss is sum(mass * loss(row / mass)) / sum(mass), so an unknown row has no part in it and no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from multihead.losses import CrossEntropy, Custom, Focal, Loss, Ordinal, SoftF1, Sum, SymmetricCrossEntropy
from multihead.named import looked_up

if TYPE_CHECKING:
    import numpy as np
    import torch

    from multihead.heads import Head

Leaf = CrossEntropy | Focal | SoftF1 | SymmetricCrossEntropy | Custom


def criterion(loss: Loss, head: Head, counts: np.ndarray | torch.Tensor, smoothing: float = 0.0) -> Criterion:
    """The head's loss: from logits (B, C) and target rows (B, C) with mass to a scalar.

    counts: training mass (C,) of each class, which the class weights "inverse" and "effective" read. smoothing: label
    smoothing of the whole loss, over that of its parts; like theirs it comes after the class weights. The result is 0
    with a zero gradient where no row has mass, at least in single precision, and raises ValueError where shapes differ.

    Raises: ValueError for counts or class weights that are not one a class, Ordinal on a flat head none of whose parts
    has edges, or a Custom function that cannot be found or gives no loss a photo; what that function itself raises.
    """
    import torch

    classes = len(head.classes)
    if tuple(counts.shape) != (classes,):
        raise ValueError(f"head {head.name!r} has {classes} classes; got counts of shape {tuple(counts.shape)}")
    mass = counts.detach().cpu().numpy() if isinstance(counts, torch.Tensor) else counts
    terms = [
        (factor, leaf, _class_weights(leaf, head, mass)[:, None] * matrix)
        for factor, leaf, matrix in _leaves(loss, head, _matrix(head, smoothing=smoothing))
    ]

    made = Criterion(head.name, classes, terms)
    if any(isinstance(leaf, Custom) for _, leaf, _ in terms):
        with torch.no_grad():  # else what is wrong with the user's own function shows after the photos are prepared
            made(torch.zeros(classes, classes), torch.eye(classes))
    return made


class Criterion:
    """The loss of one head, on target rows that go through a matrix (C, C) for each of its terms (factor, plain loss,
    matrix)."""

    def __init__(self, name: str, classes: int, terms: list[tuple[float, Leaf, np.ndarray]]) -> None:
        self.name, self.classes, self.terms = name, classes, terms
        self._spreads: dict[tuple[torch.device, torch.dtype], list[torch.Tensor]] = {}

    def __call__(self, logits: torch.Tensor, rows: torch.Tensor, mass: torch.Tensor | None = None) -> torch.Tensor:
        """The loss (scalar) of logits (B, C) for target rows (B, C) with mass.

        mass: what `mass` gives for all rows of a step that these are a part of: the sum of its parts' losses, and of
        their gradients, is then the step's, however it is divided. SoftF1, which is no sum over rows, looks at each
        part by itself and counts it by its mass.
        """
        import torch

        if logits.shape != rows.shape or logits.shape[1:] != (self.classes,):
            shapes = f"logits {tuple(logits.shape)} and target rows {tuple(rows.shape)}"
            raise ValueError(f"head {self.name!r} expects (B, {self.classes}) twice, got {shapes}")
        logits = logits if logits.dtype == torch.float64 else logits.float()
        spread = self._spread(rows.to(logits.dtype))
        whole = [None] * len(spread) if mass is None else mass.to(logits.dtype).unbind()
        each = zip(self.terms, spread, whole, strict=True)
        return torch.stack(
            [factor * _value(leaf, logits, part, of, rows) for (factor, leaf, _), part, of in each]
        ).sum()

    def mass(self, rows: torch.Tensor) -> torch.Tensor:
        """The mass (terms,) of target rows (B, C) after class weights."""
        import torch

        return torch.stack([part.sum(1).sum() for part in self._spread(rows)])

    def _spread(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """The rows (B, C) of each term."""
        import torch

        place = rows.device, rows.dtype
        if place not in self._spreads:
            self._spreads[place] = [
                torch.as_tensor(matrix, device=place[0], dtype=place[1]) for *_, matrix in self.terms
            ]
        # a sum of products, not a matrix product, which autocast would take in half precision
        return [(rows[:, :, None] * matrix).sum(1) for matrix in self._spreads[place]]


def _leaves(loss: Loss, head: Head, matrix: np.ndarray) -> Iterator[tuple[float, Leaf, np.ndarray]]:
    """The plain losses in a loss: factor, loss, and the row-stochastic matrix (C, C) that its target rows go through.

    Class weights come before the matrix: a photo that is there w times is w times the same smoothed row.
    """
    if isinstance(loss, Sum):
        for weight, part in zip(loss.weights, loss.losses):
            yield from ((weight * factor, leaf, through) for factor, leaf, through in _leaves(part, head, matrix))
    elif isinstance(loss, Ordinal):
        if head.parts and not any(part.edges for part in head.parts):
            raise ValueError(f"head {head.name!r} has no part with edges, so Ordinal has no neighbours to share with")
        yield from _leaves(loss.loss, head, matrix @ _matrix(head, share=loss.share))
    else:
        yield 1.0, loss, matrix @ _matrix(head, smoothing=getattr(loss, "smoothing", 0.0))


def _matrix(head: Head, smoothing: float = 0.0, share: float = 0.0) -> np.ndarray:
    """Where the mass of each class goes (C, C), each row of sum 1; of a flat head the Kronecker product of its parts'.

    smoothing: goes to all classes alike. share: goes to the neighbours, in a flat head only of parts that have edges.
    """
    import numpy as np

    matrix: np.ndarray = np.eye(1)
    for part in head.parts or (head,):
        classes = len(part.classes)
        given = (np.eye(classes, k=1) + np.eye(classes, k=-1)) * (share / 2 if part.edges or part is head else 0)
        own = given + np.diag(1 - given.sum(1))
        matrix = np.kron(matrix, (1 - smoothing) * own + smoothing / classes)
    return matrix


def _class_weights(loss: Leaf, head: Head, counts: np.ndarray) -> np.ndarray:
    """The weight (C,) of each class, the largest 1."""
    import numpy as np

    given = getattr(loss, "class_weights", None)
    if given is None:
        return np.ones(len(counts))
    if not isinstance(given, str):
        if len(given) != len(counts):
            raise ValueError(f"head {head.name!r} expects {len(counts)} class_weights, got {len(given)}: {given}")
        return np.asarray(given, dtype=float) / max(given)
    there = np.asarray(counts, dtype=float) > 0
    rows = np.maximum(counts, 1.0)  # soft bands and teachers leave dust, which would outweigh all photos
    number = rows if given == "inverse" else -np.expm1(rows * math.log(0.999))  # (1 - b ** rows), without the (1 - b)
    weights = there / number
    return weights / (weights.max() or 1.0)


def _value(
    loss: Leaf, logits: torch.Tensor, rows: torch.Tensor, whole: torch.Tensor | None, given: torch.Tensor
) -> torch.Tensor:
    """whole: the mass (scalar) of all rows of the step that these are a part of; None where these are all. given: the
    target rows (B, C) before class weights, smoothing and neighbours made these of them."""
    mass = rows.sum(1)
    whole = (mass.sum() if whole is None else whole).clamp(min=1e-30)
    known = mass > 0
    # masked before the softmax: an unknown row's gradient is exactly zero, even where its logits are not finite
    log_probs = logits.masked_fill(~known[:, None], 0).log_softmax(1)
    if isinstance(loss, SoftF1):
        return _soft_f1(log_probs.exp(), rows, given) * (mass.sum() / whole)
    if isinstance(loss, Custom):
        return _custom(loss, logits, rows, known) / whole
    if isinstance(loss, SymmetricCrossEntropy):
        q = rows / mass.masked_fill(~known, 1)[:, None]
        reverse = -(log_probs.exp() * q.clamp(min=1e-4).log()).sum(1)
        summed = -loss.alpha * (rows * log_probs).sum() + loss.beta * (mass * reverse).sum()
    elif isinstance(loss, Focal):
        # the bound keeps the slope of the power finite where p is 1 and gamma below 1
        missing = (-log_probs.expm1()).clamp(min=1e-12)  # 1 - p
        summed = -(rows * missing**loss.gamma * log_probs).sum()
    else:
        summed = -(rows * log_probs).sum()
    return summed / whole


def _custom(loss: Custom, logits: torch.Tensor, rows: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """The sum over the known rows of their mass times what the user's own function makes of them."""
    import torch

    if not known.any():
        return logits.masked_fill(~known[:, None], 0).sum()
    function = looked_up(loss.function, "custom")
    function = function.to(logits.device) if isinstance(function, torch.nn.Module) else function
    mass = rows[known].sum(1)
    each = function(logits[known], rows[known] / mass[:, None])
    if not isinstance(each, torch.Tensor) or each.shape != mass.shape:
        found = f"shape {tuple(each.shape)}" if isinstance(each, torch.Tensor) else type(each).__name__
        raise ValueError(f"custom: {loss.function!r} gave {found} for {len(mass)} photos; expected a loss for each of "
                         f"them, shape ({len(mass)},), as of torch's losses with reduction='none'")  # fmt: skip
    return (mass * each).sum()


def _soft_f1(probs: torch.Tensor, rows: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    held = rows.sum(0)  # (C,): tp + fn
    answered = (rows.sum(1, keepdim=True) * probs).sum(0)  # (C,): tp + fp
    f1 = 2 * (rows * probs).sum(0) / (held + answered).clamp(min=1e-30)
    # of a class that is there some row holds an even share; what smoothing gives the others is not looked at
    shares = given / given.sum(1, keepdim=True).clamp(min=1e-30)
    present = (shares * rows.shape[1] > 1 - 1e-6).any(0)
    return ((1 - f1) * present).sum() / present.sum().clamp(min=1)
