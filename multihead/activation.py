"""Where a model looked: for each head and crop, how much each place of the picture spoke for the answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from multihead.crops import Crop
from multihead.evaluation import Classifier, evaluating
from multihead.heads import Head
from multihead.labels import decode, encode, marginals
from multihead.model import Model

Maps = dict[str, dict[Crop, Tensor]]
Answers = dict[str, Tensor]


def activation_maps(
    model: Classifier,
    images: Mapping[Crop, Tensor],
    present: Tensor | None = None,
    classes: Mapping[str, int | Sequence[int] | Tensor] | None = None,
) -> Maps:
    """Class activation maps {head: {Crop: (B, H, W)}} in 0..1, of each crop that the head reads.

    images: uint8 {Crop: (B, 3, H, W)}. present: (B, crops), as for `Model.forward`; the map of an absent crop is zero.
    classes: {head: one class, or one a photo} to ask about; by default the model's own answer, which for a flat head
    is its joint class. A photo's largest value over the crops of a head is 1, unless nothing spoke for the class. Of
    an ensemble the maps are the mean of its members' that have the head and crop.

    A map is Grad-CAM on the last spatial features. Where the backbone answers from its class token only, whose last
    layer no other place reaches, these are the tokens that enter the last block. No gradient is left behind.

    Source: Selvaraju et al., Grad-CAM, arXiv:1610.02391, equations 1 and 2.

    Raises: ValueError for a backbone without a grid of features, or an unknown head in `classes`.

    >>> from multihead.crops import FULL
    >>> from multihead.heads import MASK
    >>> crop = FULL.resized(32)
    >>> pixels = {crop: torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)}
    >>> activation_maps(Model("resnet10t", [MASK.on(crop)]), pixels)["mask"][crop].shape
    torch.Size([2, 32, 32])
    """
    members = list(_models(model, list(range(len(model.crops)))))
    names = {head.name for member, _ in members for head in member.heads}
    if unknown := set(classes or {}) - names:
        raise ValueError(f"classes name the heads {sorted(unknown)}; the model has {sorted(names)}")
    with torch.inference_mode(False), evaluating(model):
        answers = _answers(model, images, present)
        found = [
            _member_maps(member, images, present if present is None else present[:, columns], answers, classes or {})
            for member, columns in members
        ]
    return _mean(found)


def _models(model: Any, columns: list[int]) -> Any:
    """The models of an ensemble, each with the columns of `present` that are its crops."""
    if isinstance(model, Model):
        yield model, columns
        return
    inner = getattr(model, "members", None) or ([model.model] if hasattr(model, "model") else [])
    if not inner:
        raise ValueError(
            f"{type(model).__name__} has no backbone to look into; expected a Model or an Ensemble of them"
        )
    for member in inner:
        yield from _models(member, [columns[model.crops.index(crop)] for crop in member.crops])


def _answers(model: Classifier, images: Mapping[Crop, Tensor], present: Tensor | None) -> tuple[Answers, Answers]:
    """What the whole model answers, {head: class (B,)}: by its likeliest joint class, and head by head."""
    with torch.no_grad():
        probs = model.probs(images, present)
    joint = decode(probs.argmax(1), model.space).unbind(1)
    alone = {name: part.argmax(1) for name, part in marginals(probs, model.space).items()}
    return {head.name: column for head, column in zip(model.space, joint)}, alone


def _chosen(head: Head, answers: tuple[Answers, Answers], given: Mapping[str, Any], count: int) -> Tensor:
    """The class (B,) of the head to ask about."""
    if head.name in given:
        return torch.as_tensor(given[head.name]).expand(count)
    joint, alone = answers
    if head.parts:
        return encode(torch.stack([joint[part.name] for part in head.parts], 1), head.parts)
    return alone[head.name]


def _member_maps(
    model: Model,
    images: Mapping[Crop, Tensor],
    present: Tensor | None,
    answers: tuple[Answers, Answers],
    given: Mapping[str, Any],
) -> Maps:
    with torch.enable_grad():
        spatial, features = {}, {}
        for column, crop in enumerate(model.crops):
            spatial[crop], pooled = _features(model.backbone, model.normalise(images[crop]))
            if present is not None:  # an absent crop's features are a learned vector, which no pixel reaches
                there = present[:, column, None].to(pooled.device)
                pooled = torch.where(there, pooled, model.absent[column])
            features[crop] = pooled  # (B, D)
        found = {}
        for head in model.heads:
            logits = model.head[head.name](torch.cat([features[crop] for crop in head.crops], 1))  # (B, C)
            chosen = _chosen(head, answers, given, len(logits)).to(logits.device)
            total = logits.gather(1, chosen[:, None]).sum()
            slopes = torch.autograd.grad(total, [spatial[crop] for crop in head.crops], retain_graph=True)
            maps = {
                crop: _map(model.backbone, spatial[crop].detach(), slope, crop)
                for crop, slope in zip(head.crops, slopes)
            }
            found[head.name] = _scaled(maps)
    return found


def _features(backbone: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Features with a place in the picture, and the pooled ones (B, D) that follow from them."""
    if getattr(backbone, "global_pool", None) == "token" and hasattr(backbone, "blocks"):
        held: list[Tensor] = []

        def cut(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            held.append(inputs[0].detach().requires_grad_())
            return (held[0], *inputs[1:])

        handle = backbone.blocks[-1].register_forward_pre_hook(cut)  # type: ignore[index, union-attr]
        try:
            pooled = backbone(pixels)
        finally:
            handle.remove()
        return held[0], pooled
    with torch.no_grad():
        spatial = backbone.forward_features(pixels)  # type: ignore[operator]
    if not isinstance(spatial, Tensor) or spatial.ndim not in (3, 4):
        raise ValueError(f"{type(backbone).__name__} gives no single grid of features; it has no activation map")
    spatial = spatial.detach().requires_grad_()
    return spatial, backbone.forward_head(spatial.clone(), pre_logits=True)  # type: ignore[operator]  # clone: some work in place


def _map(backbone: nn.Module, spatial: Tensor, slope: Tensor, crop: Crop) -> Tensor:
    """The map (B, H, W), not negative, not yet scaled."""
    features, slopes = _grid(backbone, spatial, crop), _grid(backbone, slope, crop)  # (B, D, h, w)
    weights = slopes.mean((2, 3), keepdim=True)  # equation 1
    found = (weights * features).sum(1, keepdim=True).relu()  # equation 2
    return nn.functional.interpolate(found.float(), crop.size, mode="bilinear")[:, 0]


def _grid(backbone: nn.Module, features: Tensor, crop: Crop) -> Tensor:
    """Features as (B, D, h, w): channels last or first, or tokens after those that have no place."""
    if features.ndim == 4:
        return features.permute(0, 3, 1, 2) if str(getattr(backbone, "output_fmt", "")).endswith("NHWC") else features
    step = backbone.feature_info[-1]["reduction"]  # type: ignore[index]  # pixels a token
    high, wide = (math.ceil(side / step) for side in crop.size)
    if features.shape[1] < high * wide:
        raise ValueError(
            f"{type(backbone).__name__} gives {features.shape[1]} tokens for {crop.size}, fewer than {high} x {wide}; "
            "it has no activation map"
        )
    return features[:, features.shape[1] - high * wide :].mT.unflatten(2, (high, wide))


def _scaled(maps: Mapping[Crop, Tensor]) -> dict[Crop, Tensor]:
    """The maps over the largest value of each photo, over all crops."""
    most = torch.stack([rows.amax((1, 2)) for rows in maps.values()]).amax(0)  # (B,)
    return {crop: rows / most.where(most > 0, 1)[:, None, None] for crop, rows in maps.items()}


def _mean(found: Sequence[Maps]) -> Maps:
    """The mean over the members that have a head and crop."""
    every: dict[str, dict[Crop, list[Tensor]]] = {}
    for maps in found:
        for name, crops in maps.items():
            for crop, rows in crops.items():
                every.setdefault(name, {}).setdefault(crop, []).append(rows)
    return {name: {crop: torch.stack(rows).mean(0) for crop, rows in crops.items()} for name, crops in every.items()}
