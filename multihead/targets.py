"""Target rows of training photos: labels as rows with mass, age bands of years, a teacher's answers.

A target row (C,) sums to its mass: 1 for a known label, 0 for an unknown one. Nothing here touches validation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from multihead.heads import UNKNOWN, Head, base
from multihead.labels import bands, marginals

Rows = dict[str, Tensor]
TINY = 1e-30  # what a teacher holds less likely it holds impossible


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
    """The target rows of all training photos: {base head: (N, C)}, and for each flat head taught by a teacher its own
    rows {flat head: (N, K)}, which are no product."""

    heads: tuple[Head, ...]
    rows: Rows
    taught: Rows = field(default_factory=dict)

    def batch(self, rows: Tensor, drawn: Tensor | None = None, masked: str = "mask") -> Rows:
        """Rows {head: (B, C)} of some photos (B,); drawn (B,): the new class of head `masked`, -1 = as it was."""
        found = {name: table[rows] for name, table in self.rows.items()}
        changed = None if drawn is None or not bool((drawn >= 0).any()) else drawn >= 0
        if changed is not None:
            head = next(head for head in base(self.heads) if head.name == masked)
            found[masked] = torch.where(changed[:, None], one_hot(drawn, head), found[masked])  # type: ignore[arg-type]
        whole = products(found, self.heads)
        for flat in (head for head in self.heads if head.name in self.taught):
            own = self.taught[flat.name][rows]
            axis = 1 + next((place for place, part in enumerate(flat.parts) if part.name == masked), -1)
            if changed is not None and axis:  # what the teacher thinks of the others stays
                wide = own.unflatten(1, [len(part.classes) for part in flat.parts])
                put = found[masked].unflatten(1, _along(axis, wide.dim())) * wide.sum(axis, keepdim=True)
                own = torch.where(changed[:, None], put.flatten(1), own)
            whole[flat.name] = own
        return whole

    def to(self, device: torch.device) -> Targets:
        """The same rows on a device."""
        rows, taught = ({name: table.to(device) for name, table in all_.items()} for all_ in (self.rows, self.taught))
        return Targets(self.heads, rows, taught)

    def mass(self, rows: np.ndarray, drawn: int = UNKNOWN) -> dict[str, Tensor]:
        """Each head's training mass of each class {head: (C,)} over some photos (n,); drawn: the mask's class that all
        of them get."""
        masks = torch.full((len(rows),), drawn)
        return {name: table.sum(0) for name, table in self.batch(torch.from_numpy(rows), masks).items()}


def teach(targets: Targets, probs: np.ndarray, share: float) -> Targets:
    """The targets with `share` of each row from a teacher's joint probabilities (N, K), NaN = none.

    A known label keeps 1 - share of its row; where a label is unknown, the teacher's answer is the row. A flat head
    whose parts are known in part keeps 1 - share of what the teacher thinks of the others, given these.

    Raises: ValueError where K is not the heads' joint space.
    """
    there = torch.from_numpy(~np.isnan(probs).any(1))[:, None]
    answers = torch.from_numpy(np.nan_to_num(probs)).float()
    parts, table = marginals(answers, targets.heads), base(targets.heads)
    blends = {head.name: _blend(targets.rows[head.name], parts[head.name], share) for head in table}
    mixed = {name: torch.where(there, blend, targets.rows[name]) for name, blend in blends.items()}
    wide = answers.unflatten(1, [len(head.classes) for head in table])  # (N, C1, C2, ...)
    taught = {}
    for head in targets.heads:
        if head.parts:
            others = [axis for axis, part in enumerate(table, 1) if part not in head.parts]
            own = wide.sum(others) if others else wide
            blend = _blend_flat([targets.rows[part.name] for part in head.parts], own, share).flatten(1)
            taught[head.name] = torch.where(there, blend, products(targets.rows, [head])[head.name])
    return Targets(targets.heads, mixed, taught)


def _blend(own: Tensor, taught: Tensor, share: float) -> Tensor:
    """Rows (N, C) of labels, and a teacher's, as one; where there is no label the teacher's."""
    mass = own.sum(1, keepdim=True)
    return torch.where(mass > 0, (1 - share) * own + share * mass * taught, taught)


def _blend_flat(rows: Sequence[Tensor], taught: Tensor, share: float) -> Tensor:
    """As `_blend`, of a flat head: the rows (N, C) of each of its parts, a teacher's joint rows (N, C1, C2, ...)."""
    mixed = taught.clone()
    known = torch.stack([row.sum(1) > 0 for row in rows], 1)  # (N, parts)
    for pattern in known.unique(dim=0):
        if not pattern.any():
            continue
        chosen = (known == pattern).all(1)
        answers = taught[chosen]
        shut = [axis for axis, there in enumerate(pattern.tolist(), 1) if there]
        rest = [axis for axis in range(1, answers.dim()) if axis not in shut]
        given = answers.sum(rest, keepdim=True) if rest else answers
        # what the teacher holds impossible says nothing of the others: they are as it thinks without it
        label = torch.where(given > TINY, answers / given.clamp(min=TINY), answers.sum(shut, keepdim=True))
        for axis in shut:
            label = label * rows[axis - 1][chosen].unflatten(1, _along(axis, answers.dim()))
        mass = label.flatten(1).sum(1, keepdim=True).unflatten(1, [1] * (answers.dim() - 1))
        mixed[chosen] = (1 - share) * label + share * mass * answers
    return mixed


def _along(axis: int, dims: int) -> list[int]:
    """The shape without the first of `dims` axes in which a row lies along one of them."""
    return [-1 if other == axis else 1 for other in range(1, dims)]
