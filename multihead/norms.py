"""Batch norms folded into the convolutions before them, for answers."""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def folded(backbone: nn.Module, example: Tensor, near: Callable[[Tensor, Tensor], bool]) -> tuple[nn.Module, Tensor]:
    """The backbone with every batch norm that follows a convolution folded into it, if its features stay the same; and
    its features (B, D) of the example.

    backbone: in evaluation mode; it is not changed. example: normalised images (B, 3, H, W). near: whether features
    (B, D) are the expected ones.
    """
    pairs, expected = _pairs(backbone, example)
    if not pairs:
        return backbone, expected
    made = copy.deepcopy(backbone)
    places = {id(part): name for name, part in backbone.named_modules()}
    for conv, norm in pairs:
        _fold(made, places[id(conv)], places[id(norm)])
    with torch.inference_mode():
        found = made(example)
    return (made, found) if near(found, expected) else (backbone, expected)


def _pairs(backbone: nn.Module, example: Tensor) -> tuple[list[tuple[nn.Conv2d, nn.BatchNorm2d]], Tensor]:
    """The convolutions whose result goes straight into a batch norm, each with it, as a pass shows; and its result."""
    results: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # the tensors are held, so that no two share an id
    pairs = []

    def conv_done(conv: Any, inputs: Any, result: Tensor) -> None:
        results[id(result)] = (conv, result)

    def norm_asked(norm: Any, inputs: Any) -> None:
        if id(inputs[0]) in results:
            pairs.append((results[id(inputs[0])][0], norm))

    with contextlib.ExitStack() as hooks, torch.inference_mode():
        for part in backbone.modules():
            if isinstance(part, nn.Conv2d):
                hooks.callback(part.register_forward_hook(conv_done).remove)
            elif isinstance(part, nn.BatchNorm2d) and part.running_mean is not None:
                hooks.callback(part.register_forward_pre_hook(norm_asked).remove)
        features = backbone(example)
    used = Counter(id(part) for pair in pairs for part in pair)  # what runs twice cannot be folded once
    return [pair for pair in pairs if used[id(pair[0])] == used[id(pair[1])] == 1], features


def _fold(backbone: nn.Module, conv_name: str, norm_name: str) -> None:
    conv, norm = backbone.get_submodule(conv_name), backbone.get_submodule(norm_name)
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None and norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    conv.weight, conv.bias = (nn.Parameter(part.detach(), requires_grad=False) for part in (weight, bias))
    parent, _, child = norm_name.rpartition(".")
    # timm's batch norms may hold the activation that follows
    setattr(backbone.get_submodule(parent), child, getattr(norm, "act", nn.Identity()))
