"""MTCNN's cascade for many photos at once: facenet-pytorch's three nets, run on batches of levels and of candidates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from multihead.sums import Sums

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from multihead.nets import Nets

FACTOR = 0.709  # from one level of the pyramid to the next, as in facenet-pytorch

_CELL, _STRIDE = 12, 2  # the first net's window and its step, in pixels of a level
_PASS_PIXELS = 400_000  # at most so many pixels of a level go through the first net together
_PASS_CROPS = 256  # at most so many candidates go through the other nets together
_TOGETHER = 256  # about so many candidates are compared with each other at once; each costs time, and so does each call


class Candidates(NamedTuple):
    """Boxes (N, 4) in pixels, scores (N,), the photo each is of (N,), what the net would move them by (N, 4), and
    five points (N, 5, 2), zero until the last net has set them."""

    boxes: Tensor
    scores: Tensor
    photo: Tensor
    shifts: Tensor
    points: Tensor

    def at(self, rows: Tensor) -> Candidates:
        """Only these rows: indices, or a mask."""
        return Candidates(*(column[rows] for column in self))

    def moved(self, extra: int) -> Candidates:
        """Each box moved by its shifts, which are shares of its sides plus extra pixels."""
        sides = self.boxes[:, 2:] - self.boxes[:, :2] + extra
        return self._replace(boxes=self.boxes + self.shifts * sides.repeat(1, 2))

    def squared(self) -> Candidates:
        """Each box made a square about its middle, its side the longer one."""
        import torch

        middle = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2
        half = (self.boxes[:, 2:] - self.boxes[:, :2]).amax(1, keepdim=True) / 2
        return self._replace(boxes=torch.cat([middle - half, middle + half], 1))

    def best(self, group: Tensor, keep: Callable[[Tensor, Tensor], Tensor]) -> Candidates:
        """The rows that keep(boxes, scores) chooses in each group (N,) of rows by itself, best first.

        keep sees several groups at once, in f64, one beside the other: none of their boxes meet.
        """
        import torch

        if not len(group):
            return self
        group, order = group.sort(stable=True)
        boxes, scores = self.boxes[order], self.scores[order]
        if boxes.device.type == "mps":  # it knows no f64
            boxes, scores, group, order = boxes.cpu(), scores.cpu(), group.cpu(), order.cpu()
        boxes, scores = boxes.double(), scores.double()
        wide = (boxes.max() - boxes.min()).ceil() + 2
        boxes[:, ::2] += (group * wide)[:, None]
        first = torch.searchsorted(group, group)  # of each row, the first row of its group
        sizes = (first // _TOGETHER).unique_consecutive(return_counts=True)[1].tolist()
        kept, start = [], 0
        for part, score in zip(boxes.split(sizes), scores.split(sizes), strict=True):
            kept.append(keep(part, score) + start)
            start += len(part)
        rows = torch.cat(kept)
        return self.at(order[rows[group[rows].argsort(stable=True)]].to(self.boxes.device))


def detect(
    nets: Nets,
    images: Sequence[np.ndarray],
    min_face: float,
    thresholds: tuple[float, float, float],
    *,
    overlap: float = 0.7,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each photo, boxes with scores (N, 5) and points (N, 5, 2) in its pixels, not clipped to it.

    Steps, windows and suppression are those of facenet_pytorch.models.utils.detect_face. After them each face is looked
    at once more, and where that does not decide again, mirrored; its score is the mean. No photo's faces depend on the
    others.

    Args:
        images: RGB uint8 (H, W, 3), all of one size.
        min_face: side in pixels of the smallest face looked for, 12 or more.
        thresholds: least scores of the first net, the second, and of the mean of the last one's three looks.
        overlap: candidates that share more of their union than this are one; less of it is faster, and overlooks more.

    >>> from multihead.nets import build_nets
    >>> detect(build_nets(), [np.zeros((40, 30, 3), np.uint8)], 20, (0.6, 0.7, 0.5))[0][0].shape
    (0, 5)

    Source: Zhang et al. 2016, Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks.
    """
    import torch

    device = next(nets.first.parameters()).device
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        sums = Sums(images, device)
        found = _proposed(nets.first, sums, min_face, thresholds[0], overlap)
        last = max(0.1, thresholds[2] - 0.2)  # a candidate may gain as much by the looks that follow
        for step, net, *settings in (
            (_refined, nets.second, thresholds[1], overlap),
            (_settled, nets.last, last),
            (_confirmed, nets.last, thresholds[2]),
        ):
            found = _visible(found, sums.size)
            found = step(net, sums, found, *settings) if len(found.boxes) else found
    return list(_per_photo(found, len(images)))


def scales(size: tuple[int, int], min_face: float) -> list[float]:
    """The scales of the levels, finest first; in the first one a face of min_face pixels fills the first net's window.

    >>> [round(scale, 3) for scale in scales((40, 30), 20)]
    [0.6, 0.425]
    """
    count, least = 0, min(size) * _CELL / min_face
    while least * FACTOR**count >= _CELL:
        count += 1
    return [_CELL / min_face * FACTOR**level for level in range(count)]


def _proposed(net: nn.Module, sums: Sums, min_face: float, threshold: float, overlap: float) -> Candidates:
    """The first net's windows on all levels, as squares."""
    import torch

    found, groups = [_none(sums.device)], []
    for number, scale in enumerate(scales(sums.size, min_face)):
        size = (int(sums.size[0] * scale + 1), int(sums.size[1] * scale + 1))
        step = max(1, _PASS_PIXELS // math.prod(size))
        for start in range(0, sums.count, step):
            shifts, probs = net(sums.level(size, slice(start, start + step)))  # (B, 4, h, w), (B, 2, h, w)
            found.append(_windows(shifts, probs[:, 1], scale, threshold, start))
            groups.append(found[-1].photo + number * sums.count)
    together = Candidates(*map(torch.cat, zip(*found, strict=True)))
    if not groups:
        return together
    together = together.best(torch.cat(groups), _apart(0.5))
    return together.best(together.photo, _apart(overlap)).moved(0).squared()


def _windows(shifts: Tensor, probs: Tensor, scale: float, threshold: float, start: int) -> Candidates:
    """The windows of one level whose score in probs (B, h, w) is high enough; shifts (B, 4, h, w)."""
    import torch

    sure = probs >= threshold
    photo, row, column = sure.nonzero(as_tuple=True)
    corner = torch.stack([column, row], 1) * _STRIDE
    boxes = torch.cat([((corner + 1) / scale).floor(), ((corner + _CELL) / scale).floor()], 1)
    return Candidates(
        boxes, probs[sure], photo + start, shifts.permute(0, 2, 3, 1)[sure], boxes.new_zeros(len(boxes), 5, 2)
    )


def _refined(net: nn.Module, sums: Sums, found: Candidates, threshold: float, overlap: float) -> Candidates:
    """What the second net leaves, moved, as squares."""
    shifts, probs = _run(net, sums, _inside(found.boxes, sums.size), found.photo, 24)
    found = found._replace(scores=probs[:, 1], shifts=shifts)
    found = found.at(found.scores > threshold)
    return found.best(found.photo, _apart(overlap)).moved(1).squared()


def _settled(net: nn.Module, sums: Sums, found: Candidates, threshold: float) -> Candidates:
    """What the last net leaves, moved, with points."""
    shifts, points, probs = _run(net, sums, _inside(found.boxes, sums.size), found.photo, 48)
    sides = found.boxes[:, 2:] - found.boxes[:, :2] + 1
    points = points.view(-1, 2, 5).transpose(1, 2) * sides[:, None] + found.boxes[:, None, :2] - 1  # (N, 5, 2)
    found = Candidates(found.boxes, probs[:, 1], found.photo, shifts, points)
    found = found.at(found.scores > threshold).moved(1)
    return found.best(found.photo, _uncovered)


def _confirmed(net: nn.Module, sums: Sums, found: Candidates, threshold: float) -> Candidates:
    """Those whose mean of three scores is high enough: as found, looked at again in a wider square, and it mirrored.

    Real faces, masked ones above all, keep their score under a second look; chance patterns lose it. The mirror is
    asked only where it decides: the score of the others is the mean of two.
    """
    import torch

    side = (1.15 * (found.boxes[:, 2:] - found.boxes[:, :2]).amax(1, keepdim=True)).round().clamp(min=1)
    corner = ((found.boxes[:, :2] + found.boxes[:, 2:] - side) / 2).round()
    squares = torch.cat([corner, corner + side], 1).long()
    total = found.scores + _run(net, sums, squares, found.photo, 48)[-1][:, 1]
    scores = torch.where(total >= 3 * threshold, total / 2, 0.0)
    asked = ((total < 3 * threshold) & (total + 1 >= 3 * threshold)).nonzero()[:, 0]
    if len(asked):
        *_, probs = _run(lambda crops: net(crops.flip(3)), sums, squares[asked], found.photo[asked], 48)
        scores[asked] = (total[asked] + probs[:, 1]) / 3
    return found._replace(scores=scores).at(scores >= threshold)


def _run(
    net: Callable[[Tensor], tuple[Tensor, ...]], sums: Sums, boxes: Tensor, photo: Tensor, side: int
) -> tuple[Tensor, ...]:
    """What a net gives for these boxes (N, 4), cut out at side x side pixels."""
    import torch

    parts = zip(boxes.split(_PASS_CROPS), photo.split(_PASS_CROPS), strict=True)
    return tuple(map(torch.cat, zip(*(net(sums.cut(*part, side)) for part in parts), strict=True)))


def _inside(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Whole half-open pixels (N, 4) of the part of each box within the photo, as facenet-pytorch rounds them."""
    import torch

    whole = boxes.trunc().long()
    limit = torch.tensor(size[::-1], device=boxes.device)
    return torch.cat([whole[:, :2].clamp(min=1) - 1, whole[:, 2:].minimum(limit)], 1)


def _visible(found: Candidates, size: tuple[int, int]) -> Candidates:
    """Those that lie in the photo, if only in part."""
    boxes = _inside(found.boxes, size)
    return found.at((boxes[:, 2:] > boxes[:, :2]).all(1))


def _apart(threshold: float) -> Callable[[Tensor, Tensor], Tensor]:
    """The rows to keep, best first, of boxes whose intersection over union with a better one is at most threshold."""
    from torchvision.ops import nms

    return lambda boxes, scores: nms(boxes, scores, threshold)


def _uncovered(boxes: Tensor, scores: Tensor) -> Tensor:
    """The rows to keep, best first, of boxes that share at most 0.7 of the smaller area with a better one."""
    import torch

    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order]
    low, high = torch.maximum(boxes[:, None, :2], boxes[:, :2]), torch.minimum(boxes[:, None, 2:], boxes[:, 2:])
    shared, area = (high - low + 1).clamp(min=0).prod(2), (boxes[:, 2:] - boxes[:, :2] + 1).prod(1)
    covered = (shared / torch.minimum(area[:, None], area) > 0.7).cpu().numpy()
    kept = np.ones(len(boxes), bool)
    for row in range(len(boxes)):
        if kept[row]:
            kept[row + 1 :] &= ~covered[row, row + 1 :]
    return order[torch.from_numpy(kept).to(order.device)]


def _none(device: torch.device) -> Candidates:
    import torch

    numbers = torch.zeros(0, 5, 2, device=device)
    return Candidates(numbers[:, :4, 0], numbers[:, 0, 0], numbers[:, 0, 0].long(), numbers[:, :4, 0], numbers)


def _per_photo(found: Candidates, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    boxes, scores, photo, _, points = (column.cpu().numpy() for column in found)
    scored = np.concatenate([boxes, scores[:, None]], 1).astype(float)
    return ((scored[photo == number], points[photo == number].astype(float)) for number in range(count))
