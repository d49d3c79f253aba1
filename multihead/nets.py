"""facenet-pytorch's three nets with maps laid out channels-last, and what torch is slow at there put otherwise.

Its pools also write the place of each maximum, its slopes run over a few channels at a time, and its convolutions to 2
or 4 channels are none of oneDNN's.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_WIDTH = 8  # numbers of a vector, and the channels of a convolution that oneDNN takes whole


class Nets(NamedTuple):
    """The three nets, each for pixels 0..255 (N, 4, H, W), the fourth channel without a meaning."""

    first: nn.Module
    second: nn.Module
    last: nn.Module


def build_nets(device: str = "cpu") -> Nets:
    """facenet-pytorch's nets with the weights of its package; nothing is downloaded."""
    import facenet_pytorch

    with torch.random.fork_rng(devices=[]):  # new layers draw numbers: a first search must not shift a seed
        plain = facenet_pytorch.MTCNN(keep_all=True)
        nets = Windows(plain.pnet), plain.rnet, plain.onet
    return Nets(*(_on_pixels(net).to(device) for net in nets))


class Windows(nn.Module):
    """The first net, its two last convolutions as one: pixels (B, 4, H, W) to shifts (B, 4, h, w) and the scores of no
    face and of a face (B, 2, h, w), as of facenet-pytorch's PNet."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        for name in ("conv1", "prelu1", "pool1", "conv2", "prelu2", "conv3", "prelu3"):  # in order
            setattr(self, name, getattr(net, name))
        ends = net.conv4_1, net.conv4_2
        self.ends = nn.Conv2d(ends[0].in_channels, _WIDTH, 1)  # two channels more than it needs
        pad = nn.functional.pad
        self.ends.weight = nn.Parameter(pad(torch.cat([end.weight for end in ends]), (0, 0, 0, 0, 0, 0, 0, 2)), False)
        self.ends.bias = nn.Parameter(pad(torch.cat([end.bias for end in ends]), (0, 2)), False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(shifts, scores)"""
        maps = pixels
        for part in self.children():
            maps = part(maps)
        return maps[:, 2:6], maps[:, :2].softmax(1)


class Pool(nn.Module):
    """Maxima of (B, C, H, W) as max_pool2d(size, stride=2, ceil_mode=True) gives them, size 2 or 3."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w)"""
        if maps.device.type != "cpu":
            return nn.functional.max_pool2d(maps, self.size, 2, ceil_mode=True)
        rows = maps.permute(0, 2, 3, 1)  # (B, H, W, C)
        return self._along(self._along(rows, 1), 2).permute(0, 3, 1, 2)

    def _along(self, rows: Tensor, axis: int) -> Tensor:
        """The maxima of each window along one axis; the last one may lack an end."""
        length, shape = rows.shape[axis], list(rows.shape)
        whole = (length - self.size) // 2 + 1
        shape[axis] = -((self.size - length) // 2) + 1
        made = rows.new_empty(shape)
        _maxima([_every_other(rows, axis, start, whole) for start in range(self.size)], made.narrow(axis, 0, whole))
        if shape[axis] > whole:
            rest = [rows.narrow(axis, place, 1) for place in range(2 * whole, length)]
            _maxima(rest, made.narrow(axis, whole, 1))
        return made


class Slopes(nn.Module):
    """prelu of channels-last maps (B, C, H, W) whose channels fill no vectors: along whole lines."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach(), False)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W)"""
        if maps.device.type != "cpu":
            return nn.functional.prelu(maps, self.weight)
        lines = maps.permute(0, 2, 3, 1)
        lines = lines.reshape(-1, lines.shape[2] * lines.shape[3])  # (B * H, W * C)
        made = nn.functional.prelu(lines, self.weight.repeat(maps.shape[3]))
        return made.view(maps.shape[0], maps.shape[2], maps.shape[3], maps.shape[1]).permute(0, 3, 1, 2)


def _every_other(rows: Tensor, axis: int, start: int, count: int) -> Tensor:
    """`count` of each two, from start."""
    return rows[(slice(None),) * axis + (slice(start, start + 2 * count - 1, 2),)] if count else rows.narrow(axis, 0, 0)


def _maxima(parts: list[Tensor], made: Tensor) -> None:
    """The greatest of all parts at each place, written to made."""
    if len(parts) == 1:
        made.copy_(parts[0])
        return
    torch.maximum(parts[0], parts[1], out=made)
    for part in parts[2:]:
        torch.maximum(made, part, out=made)


def _on_pixels(net: nn.Module) -> nn.Module:
    """A copy for pixels 0..255: the first convolution, which has no padding, takes up (pixel - 127.5) / 128."""
    made: Any = copy.deepcopy(net).eval().requires_grad_(False)
    with torch.no_grad():
        made.conv1.bias.sub_(made.conv1.weight.sum((1, 2, 3)) * (127.5 / 128))
        made.conv1.weight = nn.Parameter(nn.functional.pad(made.conv1.weight / 128, (0, 0, 0, 0, 0, 1)), False)
    made.conv1.in_channels = 4
    for name, part in list(made.named_children()):
        if isinstance(part, nn.MaxPool2d):
            setattr(made, name, Pool(int(part.kernel_size)))  # type: ignore[arg-type]
        elif isinstance(part, nn.PReLU) and part.num_parameters % _WIDTH:
            setattr(made, name, Slopes(part.weight))
    return made.to(memory_format=torch.channels_last)
