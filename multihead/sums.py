"""Photos as sums of their pixels, from which any rectangle's mean is had at once: levels and crops of all photos.

Pixels have four channels here, red, green, blue and one without a meaning: 16 bytes are moved faster than 12.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor


_PART = 160_000  # sums of 16 bytes that are resized at once: what lies between stays in the cache of a core


class Sums:
    """Photos as sums over all pixels above and to the left, from which the mean of any rectangle takes four of them."""

    def __init__(self, images: Sequence[np.ndarray], device: torch.device) -> None:
        import torch

        self.count, self.size, self.device = len(images), images[0].shape[:2], device
        # int32 runs over for photos of more than 8 million pixels, and the difference is right all the same
        sums = np.empty((self.count, self.size[0] + 1, self.size[1] + 1, 4), np.int32)
        for place, image in enumerate(images):
            sums[place] = cv2.integral(cv2.cvtColor(image, cv2.COLOR_RGB2RGBA))
        self._sums = torch.from_numpy(sums).to(device)

    def level(self, size: tuple[int, int], photos: slice) -> Tensor:
        """Some photos resized to (height, width) as interpolate(mode="area") does it: (B, 4, height, width)."""
        import torch

        (top, bottom), (left, right) = (
            _line_ends(whole, side, self.device) for whole, side in zip(self.size, size, strict=True)
        )
        area = _four((bottom - top)[:, None] * (right - left))
        made = torch.empty(len(self._sums[photos]), *size, 4, device=self.device)
        step = max(1, _PART // (size[0] * self._sums.shape[2])) if self.device.type == "cpu" else len(made)
        for few, part in zip(made.split(step), self._sums[photos].split(step), strict=True):
            lines = part.index_select(1, bottom).sub_(part.index_select(1, top))  # (B, height, W + 1, 4)
            torch.div(_at(lines, right).sub_(_at(lines, left)), area, out=few)
        return made.permute(0, 3, 1, 2)

    def cut(self, boxes: Tensor, photo: Tensor, side: int) -> Tensor:
        """Boxes (N, 4), half-open whole pixels, as crops (N, 4, side, side) of means, black outside of the photo.

        The rectangle of each mean is adaptive_avg_pool2d's, so that crops equal facenet-pytorch's.
        """
        import torch

        low, high = _ends(boxes.view(-1, 2, 2).transpose(1, 2), side)  # (N, 2, side) each: x, y
        (wide, tall), limit = (high - low).unbind(1), torch.tensor(self.size[::-1], device=boxes.device)[:, None]
        (left, top), (right, bottom) = (ends.clamp(min=0).minimum(limit).unbind(1) for ends in (low, high))
        height, width = self.size
        first = (photo * ((height + 1) * (width + 1)))[:, None]
        top, bottom = (first + row * (width + 1) for row in (top, bottom))
        total = self._take(bottom, right).sub_(self._take(bottom, left))
        total.add_(self._take(top, left)).sub_(self._take(top, right))
        return (total / _four(tall[:, :, None] * wide[:, None, :])).permute(0, 3, 1, 2)

    def _take(self, line: Tensor, column: Tensor) -> Tensor:
        """The sums (N, side, side, 4) at each column (N, side) of each line (N, side), by their places among all."""
        index = line[:, :, None] + column[:, None, :]
        return _at(self._sums.view(-1, 4), index.flatten()).view(*index.shape, 4)


def _four(area: Tensor) -> Tensor:
    """Areas (...) as (..., 4) numbers: torch divides by these faster than by one for each four."""
    import torch

    return area.to(torch.get_default_dtype())[..., None].expand(*area.shape, 4).contiguous()


def _at(sums: Tensor, places: Tensor) -> Tensor:
    """The sums (..., M, 4) of int32 at some places (M,) of (..., L, 4)."""
    import torch

    if sums.device.type != "cpu":
        return sums.index_select(-2, places)
    # four numbers as one of 16 bytes: numpy takes these several times as fast as torch
    wide = np.take(sums.numpy().view(np.complex128)[..., 0], places.numpy(), axis=-1)
    return torch.from_numpy(wide[..., None].view(np.int32))


@functools.lru_cache(maxsize=256)
def _line_ends(length: int, count: int, device: torch.device) -> Tensor:
    """`_ends` of a whole line (2, count): photos of one size have the same at each level."""
    import torch

    return _ends(torch.tensor([0, length], device=device), count)


def _ends(spans: Tensor, count: int) -> Tensor:
    """First and last end (2, N, M, count) of the parts that adaptive_avg_pool2d makes of spans (N, M, 2) of pixels."""
    import torch

    steps, length = torch.arange(count, device=spans.device), spans[..., 1:] - spans[..., :1]
    return torch.stack([spans[..., :1] + steps * length // count, spans[..., :1] - (-(steps + 1) * length // count)])
