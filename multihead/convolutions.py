"""Convolutions that oneDNN computes with the activation after them, one by one and three in a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.layers import Conv2dSame, pad_same
from torch import Tensor, nn

ROWS = 16  # photos in a batch for which oneDNN chooses the order of weights; for others it may have to change it

# activation -> oneDNN's name of it and the numbers that it takes
ACTIVATIONS: dict[type[nn.Module], Callable[[Any], tuple[str, list[float], str]]] = {
    nn.ReLU: lambda act: ("relu", [], ""),
    nn.ReLU6: lambda act: ("hardtanh", [0.0, 6.0], ""),
    nn.SiLU: lambda act: ("swish", [], ""),
    nn.Hardswish: lambda act: ("hardswish", [], ""),
    nn.Sigmoid: lambda act: ("sigmoid", [], ""),
    nn.Tanh: lambda act: ("tanh", [], ""),
    nn.LeakyReLU: lambda act: ("leaky_relu", [act.negative_slope], ""),
    nn.GELU: lambda act: ("gelu", [], act.approximate),
}

# of chains, found on a Zen 3
NEAR = 56 << 10  # bytes of pixels that a depthwise convolution reads together, and that a core's nearest caches hold
MOST = 4  # parts of the channels: more passes over what is before and after them cost more than they save
LEAST = 32  # channels of a part, for the convolutions before and after
WIDE = 28  # pixels a row from which parts pay
SEVERAL = 4  # photos from which they do


class FusedConv(nn.Module):
    """A convolution with the activation after it. x: (B, C, H, W), in the weights' precision.

    shape: of the x for which the weights are laid out. read, made: which channels of x, not of a depthwise convolution,
    and of the result it is to compute, by default all. mirrored: x and result are upside down and left to right. Its
    weights are no parameters: they are not in `state_dict`, `to` does not move them, and copies share them.
    """

    def __init__(
        self,
        conv: nn.Conv2d,
        activation: nn.Module | None,
        shape: Sequence[int],
        mirrored: bool,
        read: slice = slice(None),
        made: slice = slice(None),
    ) -> None:
        super().__init__()
        weight = conv.weight.detach()[made, read]
        self.kernel, self.stride, self.dilation = conv.kernel_size, conv.stride, conv.dilation
        self.groups = conv.groups if conv.groups == 1 else len(weight) * conv.groups // conv.out_channels
        self.bias = None if conv.bias is None else conv.bias.detach()[made].clone()
        self.pads = type(conv) is Conv2dSame and not mirrored and max(conv.kernel_size) > 1
        self.padding = padding(conv)
        self.what = ACTIVATIONS[type(activation)](activation) if activation is not None else ("none", [], "")
        weight = weight.flip(2, 3) if mirrored else weight
        height, width = shape[2:]
        if self.pads:
            self.padding = (0, 0)
            height, width = pad_same(torch.empty(1, 1, height, width, device="meta"), *self._window()).shape[2:]
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(
            weight.contiguous(memory_format=torch.channels_last),
            self.padding, self.stride, self.dilation, self.groups, [ROWS, weight.shape[1] * self.groups, height, width],
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """The activation of the convolution."""
        x = pad_same(x, *self._window()) if self.pads else x
        name, numbers, kind = self.what
        return torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups, name, numbers, kind
        )

    def add_to(self, sums: Tensor, x: Tensor) -> None:
        """Add the convolution, without its bias and activation, to `sums`."""
        torch.ops.mkldnn._convolution_pointwise_.binary(
            sums, x, self.weight, None, self.padding, self.stride, self.dilation, self.groups,
            "add", 1.0, None, [], None,
        )  # fmt: skip

    def __deepcopy__(self, memo: dict[int, Any]) -> FusedConv:
        return self  # it never changes, and torch does not copy tensors in oneDNN's order

    def _window(self) -> tuple[Any, Any, Any]:
        return self.kernel, self.stride, self.dilation


Three = tuple[FusedConv, FusedConv, FusedConv]


class Chain(nn.Module):
    """Three convolutions in a row: to many channels, of each of these by itself, and to few; with their activations.

    Of several photos some of the many channels are computed at a time, from end to end, so that what a depthwise
    convolution reads together lies in a core's nearest caches.

    convs: (convolution, activation or None, shape of its x) of the three; the last has no activation.
    """

    def __init__(
        self, convs: Sequence[tuple[nn.Conv2d, nn.Module | None, Sequence[int]]], mirrored: bool, count: int
    ) -> None:
        super().__init__()
        (wide, first, seen), (deep, second, held), (narrow, _, found) = convs
        step = deep.out_channels // count

        def some(part: slice) -> Three:
            return (
                FusedConv(wide, first, seen, mirrored, made=part),
                FusedConv(deep, second, held, mirrored, made=part),
                FusedConv(narrow, None, found, mirrored, read=part),
            )

        self.whole = some(slice(None))
        self.parts = [some(slice(start, start + step)) for start in range(0, deep.out_channels, step)]

    def forward(self, x: Tensor) -> Tensor:
        """The last convolution's result (B, C, H, W)."""
        (wide, deep, narrow), *others = self.parts if len(x) >= SEVERAL else [self.whole]
        sums = narrow(deep(wide(x)))
        for wide, deep, narrow in others:
            narrow.add_to(sums, deep(wide(x)))
        return sums

    def convs(self) -> list[FusedConv]:
        """Those of which some run in a pass, which are no modules of its own."""
        return [conv for row in (self.whole, *self.parts) for conv in row]

    def __deepcopy__(self, memo: dict[int, Any]) -> Chain:
        return self  # as its convolutions


def chain_parts(deep: nn.Conv2d, shape: Sequence[int]) -> int:
    """In how many parts the channels of a depthwise convolution are best computed, of x of such a shape."""
    if shape[3] < WIDE:
        return 1
    read = deep.kernel_size[0] * shape[3] * shape[1] * deep.weight.element_size()
    counts = [count for count in range(1, MOST + 1) if shape[1] % (8 * count) == 0 and shape[1] >= LEAST * count]
    return next((count for count in counts if read <= count * NEAR), counts[-1] if counts else 1)


def padding(conv: nn.Conv2d) -> tuple[int, int]:
    """Pixels of zeros on each side, (rows, columns); of TensorFlow's padding, in the mirror."""
    if type(conv) is Conv2dSame or conv.padding == "same":
        height, width = ((size - 1) // 2 * gap for size, gap in zip(conv.kernel_size, conv.dilation, strict=True))
        return (height, width)
    return (0, 0) if isinstance(conv.padding, str) else (int(conv.padding[0]), int(conv.padding[1]))
