"""Convolutions on processors that compute the activation after them too, with weights that lie as oneDNN wants them.

The operations are those that torch.compile calls (`torch._inductor.fx_passes.mkldnn_fusion`); here without a compiler.
TensorFlow's padding, which timm's `tf_` models imitate with a copy of each padded tensor, costs nothing: a network of
such convolutions is mirrored, and its padding is then a convolution's own.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn

from multihead.convolutions import ACTIVATIONS, SEVERAL, Chain, FusedConv, chain_parts, padding

Step = tuple[str, str | None, tuple[int, ...]]


@dataclass(frozen=True)
class Plan:
    """What becomes of a backbone.

    steps: (name of a convolution, name of the activation that alone reads its result or None, shape of its input).
    mirrored: whether all is seen in a mirror. chains: the names of three convolutions each that become a `Chain`.
    """

    steps: tuple[Step, ...]
    mirrored: bool
    chains: tuple[tuple[str, str, str], ...] = ()


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
        steps, chains = _steps(backbone, examples[0])
        mirrors = (True, False) if _mirrors(backbone) and len(steps) == len(_convs(backbone)) else (False,)
        for mirrored, chained in itertools.product(mirrors, (chains, ()) if chains else ((),)):
            plan = Plan(steps, mirrored, chained)
            with contextlib.suppress(RuntimeError, NotImplementedError, AttributeError):  # operations that are private
                made = fused(backbone, plan)
                if steps and all(_same(made, *each, near) for each in zip(examples, expected, strict=True)):
                    return plan, made
    return None


def _same(made: nn.Module, example: Tensor, expected: Tensor, near: Callable[[Tensor, Tensor], bool]) -> bool:
    """Whether the features of the example, alone and as several, are the expected ones."""
    if not near(made(example), expected):
        return False
    several = (image[:1].expand(SEVERAL, *image.shape[1:]) for image in (example, expected))
    chained = any(isinstance(part, Chain) for part in made.modules())
    return not chained or near(made(next(several).contiguous(memory_format=torch.channels_last)), next(several))


def fused(backbone: nn.Module, plan: Plan) -> nn.Module:
    """A copy of a backbone whose convolutions compute their activations, by a plan for it or for what it is a copy of.

    Raises: RuntimeError, NotImplementedError or AttributeError where torch or the processor cannot do it.
    """
    parts: dict[int, Any] = {}  # what deepcopy takes instead of what it would copy
    found: dict[str, tuple[Any, Any, tuple[int, ...]]] = {}
    for conv_name, activation_name, shape in plan.steps:
        activation = None if activation_name is None else backbone.get_submodule(activation_name)
        found[conv_name] = backbone.get_submodule(conv_name), activation, shape
        if activation is not None:
            parts[id(activation)] = nn.Identity()
    for chain in plan.chains:
        wide, deep, narrow = (found.pop(name) for name in chain)
        parts |= {id(wide[0]): nn.Identity(), id(deep[0]): nn.Identity()}
        parts[id(narrow[0])] = Chain((wide, deep, narrow), plan.mirrored, chain_parts(deep[0], deep[2]))
    for conv, activation, shape in found.values():
        parts[id(conv)] = FusedConv(conv, activation, shape, plan.mirrored)
    made = copy.deepcopy(backbone, parts)
    return Mirrored(made) if plan.mirrored else made


class Mirrored(nn.Module):
    """A backbone whose convolutions are mirrored, on images that are not."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, D) of normalised images (B, 3, H, W)."""
        return self.backbone(images.flip(2, 3).contiguous(memory_format=torch.channels_last))


def _steps(backbone: nn.Module, example: Tensor) -> tuple[tuple[Step, ...], tuple[tuple[str, str, str], ...]]:
    """The plain convolutions that run once, each with the activation that alone reads its result, as a pass shows; and
    those in a row that are worth a chain."""
    results: dict[int, tuple[nn.Module, Tensor, int]] = {}  # the tensors are held, so that no two share an id
    shapes: dict[nn.Module, tuple[int, ...]] = {}
    follows: dict[nn.Module, nn.Module] = {}
    before: dict[nn.Module, nn.Module] = {}  # convolution -> the one whose result, after its activation, it reads
    runs: Counter[nn.Module | None] = Counter()

    def made(inputs: Any) -> nn.Module | None:
        conv, _, version = results.get(id(inputs[0]) if inputs else 0, (None, None, 0))
        return conv if conv is not None and inputs[0]._version == version else None  # else added to in place

    def conv_asked(conv: nn.Module, inputs: Any) -> None:
        if (source := made(inputs)) is not None:
            before[conv] = source

    def conv_done(conv: nn.Module, inputs: Any, result: Any) -> None:
        runs[conv] += 1
        if inputs and inputs[0].dim() == 4:
            results[id(result)] = (conv, result, result._version)
            shapes[conv] = tuple(inputs[0].shape)

    def activation_asked(activation: nn.Module, inputs: Any) -> None:
        runs[activation] += 1
        if (conv := made(inputs)) is not None:
            follows[conv] = activation
            results.pop(id(inputs[0]))

    def activation_done(activation: nn.Module, inputs: Any, result: Any) -> None:
        for conv, other in follows.items():
            if other is activation:
                results[id(result)] = (conv, result, result._version)

    with contextlib.ExitStack() as hooks:
        for part in backbone.modules():
            if _is_plain(part):
                hooks.callback(part.register_forward_pre_hook(conv_asked).remove)
                hooks.callback(part.register_forward_hook(conv_done).remove)
            elif type(part) in ACTIVATIONS:
                hooks.callback(part.register_forward_pre_hook(activation_asked).remove)
                hooks.callback(part.register_forward_hook(activation_done).remove)
        backbone(example)
    names = {part: name for name, part in backbone.named_modules() if part is not backbone}
    steps: dict[nn.Module, Step] = {}
    for conv, shape in shapes.items():
        if runs[conv] == 1 and conv in names:
            activation = follows.get(conv)
            steps[conv] = (names[conv], names.get(activation) if runs[activation] == 1 else None, shape)  # type: ignore[arg-type]
    return tuple(steps.values()), tuple(_chains(steps, before))


def _chains(steps: Mapping[nn.Module, Step], before: Mapping[nn.Module, nn.Module]) -> Iterator[tuple[str, str, str]]:
    """The names of three convolutions in a row: to many channels, of each by itself, and to few."""
    free = set(steps)  # that are in no chain yet
    for narrow, deep in before.items():
        wide = before.get(deep)
        if wide is None or not {wide, deep, narrow} <= free or steps[narrow][1] is not None:
            continue
        assert isinstance(deep, nn.Conv2d) and isinstance(wide, nn.Conv2d) and isinstance(narrow, nn.Conv2d)
        depthwise = deep.groups == deep.in_channels == deep.out_channels > 1
        if depthwise and _is_point(wide) and _is_point(narrow) and chain_parts(deep, steps[deep][2]) > 1:
            free -= {wide, deep, narrow}
            yield steps[wide][0], steps[deep][0], steps[narrow][0]


def _is_point(conv: nn.Conv2d) -> bool:
    """Whether each pixel of a convolution's result is of one pixel."""
    return conv.kernel_size == conv.stride == (1, 1) and conv.groups == 1 and padding(conv) == (0, 0)


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
