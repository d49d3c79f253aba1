"""Convolutions on processors that compute the activation after them too, with weights that lie as oneDNN wants them.

The operations are those that torch.compile calls (`torch._inductor.fx_passes.mkldnn_fusion`); here without a compiler.
TensorFlow's padding, which timm's `tf_` models imitate with a copy of each padded tensor, costs nothing: a network of
such convolutions is mirrored, and its padding is then a convolution's own.
"""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Plan:
    """What becomes of a backbone.

    steps: (name of a convolution, name of the activation that alone reads its result or None, shape of its input).
    mirrored: whether all is seen in a mirror.
    """

    steps: tuple[tuple[str, str | None, tuple[int, ...]], ...]
    mirrored: bool


def planned(
    backbone: nn.Module, examples: Sequence[Tensor], near: Callable[[Tensor, Tensor], bool]
) -> tuple[Plan, nn.Module] | None:
    """How a backbone can be fused, and it fused; None where it has no plain convolutions, this processor or torch
    cannot do it, or the features would change.

    backbone: in evaluation mode, in f32, on a CPU, batch norms folded; it is not changed. examples: normalised images
    (B, 3, H, W) of each size that it will see. near: whether features (B, D) are the backbone's.
    """
    plain = all(each.device.type == "cpu" and each.dtype == torch.float32 for each in (*examples, *_weights(backbone)))
    if not plain or not torch.backends.mkldnn.is_available() or not getattr(torch.backends.mkldnn, "enabled", True):
        return None
    with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False):
        expected = [backbone(example) for example in examples]
        steps = _steps(backbone, examples[0])
        for mirrored in (True, False) if _mirrors(backbone) and len(steps) == len(_convs(backbone)) else (False,):
            plan = Plan(steps, mirrored)
            with contextlib.suppress(RuntimeError, NotImplementedError, AttributeError):  # operations that are private
                made = fused(backbone, plan)
                if steps and all(near(made(each), found) for each, found in zip(examples, expected, strict=True)):
                    return plan, made
    return None


def fused(backbone: nn.Module, plan: Plan) -> nn.Module:
    """A copy of a backbone whose convolutions compute their activations, by a plan for it or for what it is a copy of.

    Raises: RuntimeError, NotImplementedError or AttributeError where torch or the processor cannot do it.
    """
    parts: dict[int, Any] = {}  # what deepcopy takes instead of what it would copy
    for conv_name, activation_name, shape in plan.steps:
        conv: Any = backbone.get_submodule(conv_name)
        activation = None if activation_name is None else backbone.get_submodule(activation_name)
        parts[id(conv)] = FusedConv(conv, activation, shape, plan.mirrored)
        if activation is not None:
            parts[id(activation)] = nn.Identity()
    made = copy.deepcopy(backbone, parts)
    return Mirrored(made) if plan.mirrored else made


class FusedConv(nn.Module):
    """A convolution with the activation after it. x: (B, C, H, W), in the weights' precision.

    shape: of the x for which the weights are laid out. mirrored: x and result are upside down and left to right. Its
    weights are no parameters: they are not in `state_dict`, `to` does not move them, and copies share them.
    """

    def __init__(self, conv: nn.Conv2d, activation: nn.Module | None, shape: Sequence[int], mirrored: bool) -> None:
        super().__init__()
        self.kernel, self.stride, self.dilation, self.groups = conv.kernel_size, conv.stride, conv.dilation, conv.groups
        self.bias = None if conv.bias is None else conv.bias.detach()
        self.pads = type(conv) is Conv2dSame and not mirrored and max(conv.kernel_size) > 1
        self.padding = _padding(conv)
        self.what = ACTIVATIONS[type(activation)](activation) if activation is not None else ("none", [], "")
        weight = conv.weight.detach()
        weight = weight.flip(2, 3) if mirrored else weight
        height, width = shape[2:]
        if self.pads:
            self.padding = (0, 0)
            height, width = pad_same(torch.empty(1, 1, height, width, device="meta"), *self._window()).shape[2:]
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(
            weight.contiguous(memory_format=torch.channels_last),
            self.padding, self.stride, self.dilation, self.groups, [ROWS, shape[1], height, width],
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """The activation of the convolution."""
        x = pad_same(x, *self._window()) if self.pads else x
        name, numbers, kind = self.what
        return torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups, name, numbers, kind
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> FusedConv:
        return self  # it never changes, and torch does not copy tensors in oneDNN's order

    def _window(self) -> tuple[Any, Any, Any]:
        return self.kernel, self.stride, self.dilation


class Mirrored(nn.Module):
    """A backbone whose convolutions are mirrored, on images that are not."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, D) of normalised images (B, 3, H, W)."""
        return self.backbone(images.flip(2, 3).contiguous(memory_format=torch.channels_last))


def _steps(backbone: nn.Module, example: Tensor) -> tuple[tuple[str, str | None, tuple[int, ...]], ...]:
    """The plain convolutions that run once, each with the activation that alone reads its result, as a pass shows."""
    results: dict[int, tuple[nn.Module, Tensor, int]] = {}  # the tensors are held, so that no two share an id
    shapes: dict[nn.Module, tuple[int, ...]] = {}
    follows: dict[nn.Module, nn.Module] = {}
    runs: Counter[nn.Module | None] = Counter()

    def conv_done(conv: nn.Module, inputs: Any, result: Any) -> None:
        runs[conv] += 1
        if inputs and inputs[0].dim() == 4:
            results[id(result)] = (conv, result, result._version)
            shapes[conv] = tuple(inputs[0].shape)

    def activation_asked(activation: nn.Module, inputs: Any) -> None:
        runs[activation] += 1
        conv, _, version = results.get(id(inputs[0]) if inputs else 0, (None, None, 0))
        if conv is not None and inputs[0]._version == version:  # else something was added to it in place
            follows[conv] = activation

    with contextlib.ExitStack() as hooks:
        for part in backbone.modules():
            if _is_plain(part):
                hooks.callback(part.register_forward_hook(conv_done).remove)
            elif type(part) in ACTIVATIONS:
                hooks.callback(part.register_forward_pre_hook(activation_asked).remove)
        backbone(example)
    names = {part: name for name, part in backbone.named_modules() if part is not backbone}
    steps = []
    for conv, shape in shapes.items():
        if runs[conv] == 1 and conv in names:
            activation = follows.get(conv)
            steps.append((names[conv], names.get(activation) if runs[activation] == 1 else None, shape))  # type: ignore[arg-type]
    return tuple(steps)


def _mirrors(backbone: nn.Module) -> bool:
    """Whether TensorFlow's padding is felt, and convolutions with mirrored weights give mirrored results.

    Of an even size, a stride of 2 under TensorFlow's padding reads one pixel more on the right than on the left; seen
    in a mirror this is what a symmetric padding gives. Other strided convolutions begin on the left, mirrored or not.
    Weights elsewhere may belong to places, as position embeddings do.
    """
    convs = _convs(backbone)
    for part in backbone.modules():
        if not isinstance(part, nn.Conv2d | nn.Linear) and next(part.parameters(recurse=False), None) is not None:
            return False
    return any(type(conv) is Conv2dSame and max(conv.stride) > 1 for conv in convs) and all(map(_turns, convs))


def _convs(backbone: nn.Module) -> list[nn.Conv2d]:
    return [part for part in backbone.modules() if isinstance(part, nn.Conv2d)]


def _weights(backbone: nn.Module) -> list[Tensor]:
    return [value for value in backbone.state_dict().values() if value.is_floating_point()]


def _turns(conv: nn.Conv2d) -> bool:
    if not _is_plain(conv) or any(size % 2 == 0 for size in conv.kernel_size):
        return False
    if type(conv) is Conv2dSame:
        windows = zip(conv.kernel_size, conv.stride, conv.dilation, strict=True)
        return all(stride <= min(size, 2) and dilation == 1 for size, stride, dilation in windows)
    return max(conv.stride) == 1


def _is_plain(part: nn.Module) -> bool:
    """Whether a module is a convolution that is computed with its weights as they are."""
    if not isinstance(part, nn.Conv2d) or type(part) not in (nn.Conv2d, Conv2dSame) or part.padding_mode != "zeros":
        return False
    uneven = any((size - 1) * gap % 2 for size, gap in zip(part.kernel_size, part.dilation, strict=True))
    return part.padding != "same" or not uneven


def _padding(conv: nn.Conv2d) -> tuple[int, int]:
    """Pixels of zeros on each side, (rows, columns); of TensorFlow's padding, in the mirror."""
    if type(conv) is Conv2dSame or conv.padding == "same":
        height, width = ((size - 1) // 2 * gap for size, gap in zip(conv.kernel_size, conv.dilation, strict=True))
        return (height, width)
    return (0, 0) if isinstance(conv.padding, str) else (int(conv.padding[0]), int(conv.padding[1]))
