"""Target rows of training photos: labels as rows with mass, age bands of years, a teacher's answers.

A target row (C,) sums to its mass: 1 for a known label, 0 for an unknown one. Nothing here touches validation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from multihead.labels import UNKNOWN, Head, bands, base, marginals

Rows = dict[str, Tensor]


def targets(labels: Tensor, heads: Sequence[Head], smoothing: float = 0.0) -> Rows:
    """Target rows {head: (B, C)} of labels (B, base heads); a flat head's row is the product of its parts' rows.

    smoothing spreads that share of each row's mass evenly over its head's classes.
    """
    rows = {head.name: one_hot(labels[:, column], head) for column, head in enumerate(base(heads))}
    return products({name: smooth(row, smoothing) for name, row in rows.items()}, heads)


def one_hot(label: Tensor, head: Head) -> Tensor:
    """Rows (B, C) of one head's labels (B,); an unknown label gives a row of zeros."""
    return F.one_hot(label.clamp(min=0), len(head.classes)).float() * (label != UNKNOWN)[:, None]


def smooth(rows: Tensor, smoothing: float) -> Tensor:
    """Rows (B, C) with that share of each row's mass spread evenly over the classes."""
    return rows * (1 - smoothing) + smoothing / rows.shape[1] * rows.sum(1, keepdim=True)


def products(rows: Mapping[str, Tensor], heads: Sequence[Head]) -> Rows:
    """Rows of a table of heads from the rows of its base heads: a flat head's is the product of its parts'."""
    found = {}
    for head in heads:
        row = rows[(head.parts or (head,))[0].name]
        for part in head.parts[1:]:
            row = (row[:, :, None] * rows[part.name][:, None, :]).flatten(1)  # (B, C so far)
        found[head.name] = row
    return found


def band_rows(
    years: np.ndarray,
    label: np.ndarray,
    head: Head,
    *,
    edges: Sequence[float] | None = None,
    drop: Sequence[tuple[float, float]] = (),
    width: float | None = None,
) -> Tensor:
    """Rows (N, C) of a head that bands a number: from years (N,), NaN = unknown, else from label (N,), -1 = unknown.

    edges: bands of training, in place of the head's own. drop: rows with low <= years <= high become unknown. width:
    each row is a Gaussian of that many years, integrated over the bands; whole years stand for the middle of the year
    that they name. Rows that know only their band keep it.

    Raises: ValueError where there are not as many edges as the head has.
    """
    edges = tuple(edges or head.edges or ())
    if len(edges) != len(head.classes) - 1:
        raise ValueError(f"head {head.name!r} has {len(head.classes)} classes; got the edges {edges}")
    given = ~np.isnan(years)
    rows = one_hot(torch.from_numpy(np.where(given, bands(years, edges), label)), head)
    if width:
        rows[torch.from_numpy(given)] = _gaussian(years[given], edges, width)
    for low, high in drop:
        rows[torch.from_numpy(given & (years >= low) & (years <= high))] = 0
    return rows


def _gaussian(years: np.ndarray, edges: Sequence[float], width: float) -> Tensor:
    middle = np.where(years == np.floor(years), years + 0.5, years)
    bounds = [np.zeros_like(middle)]
    bounds += [np.array([_below((edge - age) / width) for age in middle]) for edge in edges]
    bounds += [np.ones_like(middle)]
    return torch.from_numpy(np.diff(np.stack(bounds, 1), axis=1)).float()  # (n, C)


def _below(deviations: float) -> float:
    return 0.5 * (1 + math.erf(deviations / math.sqrt(2)))


@dataclass(frozen=True)
class Targets:
    """The target rows of all training photos: {base head: (N, C)}, and for a flat head taught by a teacher its own
    rows (N, K), which are no product."""

    heads: tuple[Head, ...]
    rows: Rows
    taught: Tensor | None = None

    def batch(self, rows: Tensor, drawn: Tensor | None = None, masked: str = "mask") -> Rows:
        """Rows {head: (B, C)} of some photos (B,); drawn (B,): the new class of head `masked`, -1 = as it was."""
        found = {name: table[rows] for name, table in self.rows.items()}
        changed = None if drawn is None or not bool((drawn >= 0).any()) else drawn >= 0
        if changed is not None:
            head = next(head for head in base(self.heads) if head.name == masked)
            found[masked] = torch.where(changed[:, None], one_hot(drawn, head), found[masked])  # type: ignore[arg-type]
        whole = products(found, self.heads)
        if self.taught is not None:
            name = self.heads[0].name
            own = self.taught[rows]
            whole[name] = own if changed is None else torch.where(changed[:, None], whole[name], own)
        return whole

    def to(self, device: torch.device) -> Targets:
        """The same rows on a device."""
        taught = None if self.taught is None else self.taught.to(device)
        rows = {name: table.to(device) for name, table in self.rows.items()}
        return Targets(self.heads, rows, taught)

    def mass(self, rows: np.ndarray) -> dict[str, Tensor]:
        """Each head's training mass of each class {head: (C,)} over some photos (n,)."""
        return {name: table.sum(0) for name, table in self.batch(torch.from_numpy(rows)).items()}


def teach(targets: Targets, probs: np.ndarray, share: float) -> Targets:
    """The targets with `share` of each row from a teacher's joint probabilities (N, K), NaN = none.

    A known label keeps 1 - share of its row; where a label is unknown, the teacher's answer is the row.

    Raises: ValueError where K is not the heads' joint space.
    """
    there = torch.from_numpy(~np.isnan(probs).any(1))
    answers = torch.from_numpy(np.nan_to_num(probs)).float()
    mixed = {}
    for head in base(targets.heads):
        own, taught = targets.rows[head.name], marginals(answers, targets.heads)[head.name]
        known = own.sum(1, keepdim=True) > 0
        blend = torch.where(known, (1 - share) * own + share * own.sum(1, keepdim=True) * taught, taught)
        mixed[head.name] = torch.where(there[:, None], blend, own)
    if not any(head.parts for head in targets.heads):
        return Targets(targets.heads, mixed)
    label, product = (next(iter(products(rows, targets.heads).values())) for rows in (targets.rows, mixed))
    full = there & (label.sum(1) > 0)
    joint = torch.where(full[:, None], (1 - share) * label + share * label.sum(1, keepdim=True) * answers, product)
    return Targets(targets.heads, mixed, joint)
