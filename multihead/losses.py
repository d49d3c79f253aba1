"""Losses on target rows with mass, and the targets they read.

A target row (C,) sums to its mass: 1 for a known label, 0 for an unknown one, between them when mixed with unknown.
A head's loss is sum(mass * loss(row / mass)) / sum(mass), so an unknown row has no part in it and no gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from multihead.labels import UNKNOWN, Head, base

if TYPE_CHECKING:
    import torch


def targets(labels: torch.Tensor, heads: Sequence[Head], smoothing: float = 0.0) -> dict[str, torch.Tensor]:
    """Target rows {head: (B, C)} of labels (B, base heads); a flat head's row is the product of its parts' rows.

    smoothing spreads that share of each row's mass evenly over its head's classes.
    """
    import torch.nn.functional as F

    rows = {}
    for column, head in enumerate(base(heads)):
        label = labels[:, column]
        known = (label != UNKNOWN)[:, None]
        hot = F.one_hot(label.clamp(min=0), len(head.classes)).float()  # (B, C)
        rows[head.name] = (hot * (1 - smoothing) + smoothing / len(head.classes)) * known
    return {head.name: _row(head, rows) for head in heads}


def _row(head: Head, rows: Mapping[str, torch.Tensor]) -> torch.Tensor:
    if not head.parts:
        return rows[head.name]
    product = rows[head.parts[0].name]
    for part in head.parts[1:]:
        product = (product[:, :, None] * rows[part.name][:, None, :]).flatten(1)  # (B, C so far)
    return product


def cross_entropy(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Cross-entropy (scalar) of logits (B, C) against target rows (B, C) with mass; 0 where no row has mass.

    Cross-entropy is linear in the row, so mass * loss(row / mass) is the loss of the row itself.

    Raises: ValueError where the shapes differ.
    """
    if logits.shape != rows.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and target rows {tuple(rows.shape)} differ in shape")
    known = rows.sum(1) > 0
    # masked before the softmax: an unknown row's gradient is exactly zero, even where its logits are not finite
    log_probs = logits.float().masked_fill(~known[:, None], 0).log_softmax(1)
    return -(rows * log_probs).sum() / rows.sum().clamp(min=1e-12)


def total(
    logits: Mapping[str, torch.Tensor], rows: Mapping[str, torch.Tensor], weights: Mapping[str, float]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss (scalar) and the loss of each head: the weighted mean over the heads that have mass in this batch.

    weights: {head: weight}, 1 for heads not named.

    Raises: ValueError for a weight of a head that the model lacks.
    """
    if unknown := sorted(set(weights) - set(logits)):
        raise ValueError(f"head_weights names {unknown}; the model's heads are {sorted(logits)}")
    each = {name: cross_entropy(logits[name], rows[name]) for name in logits}
    shares = {name: weights.get(name, 1.0) * float(rows[name].sum() > 0) for name in logits}
    whole = sum(shares.values()) or 1.0
    # a head without mass enters with factor 0: its parameters keep a gradient, as distributed training needs
    return sum(each[name] * (shares[name] / whole) for name in logits), each  # type: ignore[return-value]
