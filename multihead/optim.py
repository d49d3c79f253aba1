"""Optimisers: their settings, and the optimiser of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from multihead.options import between, option

if TYPE_CHECKING:
    import torch
    from torch.nn import Parameter

_DECAY = "weight decay; never on biases and norms"


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay. Source: Loshchilov and Hutter 2019, arXiv 1711.05101."""

    lr: float = option(1e-3, "learning rate")
    weight_decay: float = option(0.05, _DECAY)

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class Adam:
    """Adam. Source: Kingma and Ba 2015, arXiv 1412.6980."""

    lr: float = option(1e-3, "learning rate")
    weight_decay: float = option(0.0, _DECAY)

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with Nesterov momentum."""

    lr: float = option(0.05, "learning rate")
    weight_decay: float = option(1e-4, _DECAY)
    momentum: float = option(0.9, "momentum (sgd, madgrad, and timm's that have one)")

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class MADGRAD:
    """MADGRAD of the madgrad package; its rates are not comparable with Adam's. Source: arXiv 2101.11075."""

    lr: float = option(1e-3, "learning rate")
    weight_decay: float = option(0.0, _DECAY)
    momentum: float = option(0.9, "momentum (sgd, madgrad, and timm's that have one)")

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class Timm:
    """Any optimiser of `timm.optim.list_optimizers()` by its name, alone or as lookahead_NAME; its rates and decay
    mean what that optimiser makes of them.

    The default is LAMB (You et al. 2020, arXiv 1904.00962).
    """

    timm_opt: str = option(
        "lamb", "name of one of timm's optimisers, as lamb or lookahead_adamw (timm)", metavar="NAME"
    )
    lr: float = option(1e-3, "learning rate")
    weight_decay: float = option(0.02, _DECAY)
    momentum: float = option(0.9, "momentum (sgd, madgrad, and timm's that have one)")

    def __post_init__(self) -> None:
        _check(self)


Optim = AdamW | Adam | SGD | MADGRAD | Timm


def _check(optim: Optim) -> None:
    name = type(optim).__name__.lower()
    between(name, "lr", optim.lr, 0)
    between(name, "weight_decay", optim.weight_decay, 0)
    between(name, "momentum", getattr(optim, "momentum", 0), 0, 1)


def create_optimizer(
    model: torch.nn.Module,
    optim: Optim,
    *,
    head_lr: float = 1.0,
    layer_decay: float | None = None,
    extra: Sequence[Parameter] = (),
) -> torch.optim.Optimizer:
    """The optimiser of `optim` over the parameters of the model that require a gradient, and `extra` ones.

    Each group has an "lr_scale": its rate is always `optim.lr`, or the schedule's, times that. head_lr: the scale of
    everything outside `model.backbone`. layer_decay: the backbone's last layer has scale 1, each one before it
    layer_decay times that of the next, in timm's division into layers. extra: parameters of scale 1 without decay, as
    of a balance of losses. Biases, norms, the vectors of absent crops and what the backbone spares (`no_weight_decay`)
    do not decay.

    Raises: TypeError for what is no optimiser of `multihead.optim`; ValueError for a name that timm does not know, an
    optimiser that needs more than gradients or that is not installed, a head_lr or layer_decay that is not > 0, and a
    model whose parameters are all frozen.
    """
    import torch

    if not isinstance(optim, Optim):
        raise TypeError(f"{optim!r} is no optimiser; expected AdamW, Adam, SGD, MADGRAD or Timm")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("no parameter of the model is to be trained; give some of them requires_grad_(True)")
    scales = _scales(model, head_lr, layer_decay)
    groups = _groups(model, optim, scales, extra)
    if isinstance(optim, AdamW):
        return torch.optim.AdamW(groups, lr=optim.lr, fused=True)
    if isinstance(optim, Adam):
        return torch.optim.Adam(groups, lr=optim.lr, fused=True)
    if isinstance(optim, SGD):
        return _sgd(optim, groups)
    if isinstance(optim, Timm):
        return _of_timm(optim, groups)
    import madgrad

    return madgrad.MADGRAD(groups, lr=optim.lr, momentum=optim.momentum)


def _sgd(optim: SGD, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    import torch

    made = torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, nesterov=optim.momentum > 0, fused=True)
    if optim.momentum:  # zeros give the same first step; torch's fused one fails where only some have a buffer
        for parameter in (one for group in groups for one in group["params"]):
            made.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return made


def _scales(model: torch.nn.Module, head_lr: float, layer_decay: float | None) -> dict[Parameter, float]:
    """The multiple of the rate for each parameter that requires a gradient, in the model's order."""
    between("create_optimizer", "head_lr", head_lr, 0, open_low=True)
    if layer_decay is not None:
        between("create_optimizer", "layer_decay", layer_decay, 0, open_low=True)
    scales = dict.fromkeys((parameter for parameter in model.parameters() if parameter.requires_grad), float(head_lr))
    if head_lr == 1 and layer_decay is None:
        return scales
    backbone: Any = getattr(model, "backbone", None)
    if backbone is None:
        raise ValueError(f"{type(model).__name__} has no backbone; head_lr and layer_decay need a multihead.Model")
    if layer_decay is None:
        return scales | dict.fromkeys((parameter for parameter in backbone.parameters() if parameter in scales), 1.0)
    from timm.optim import param_groups_layer_decay

    for group in param_groups_layer_decay(backbone, layer_decay=layer_decay):
        scales |= dict.fromkeys(group["params"], group["lr_scale"])
    return scales


def _groups(
    model: torch.nn.Module, optim: Optim, scales: dict[Parameter, float], extra: Sequence[Parameter]
) -> list[dict[str, Any]]:
    """Parameter groups, one for each scale with decay, then one for each without; the highest scale first."""
    spared = {getattr(model, "absent", None), *_spared(model)}
    members: dict[tuple[bool, float], list[Parameter]] = {}
    for parameter, scale in [*scales.items(), *((parameter, 1.0) for parameter in extra)]:
        decays = parameter.ndim > 1 and parameter not in spared and parameter in scales
        members.setdefault((decays, scale), []).append(parameter)
    return [
        {
            "params": members[decays, scale],
            "weight_decay": optim.weight_decay if decays else 0.0,
            "lr": optim.lr * scale,
            "lr_scale": scale,
        }
        for decays, scale in sorted(members, reverse=True)
    ]


def _spared(model: torch.nn.Module) -> list[Parameter]:
    """Biases of any shape, and what the backbone itself says should not decay, as tables of position biases."""
    backbone: Any = getattr(model, "backbone", model)
    own = set(backbone.no_weight_decay()) if hasattr(backbone, "no_weight_decay") else set()
    inside = [parameter for name, parameter in backbone.named_parameters() if name in own]
    return inside + [parameter for name, parameter in model.named_parameters() if name.endswith(".bias")]


def _of_timm(optim: Timm, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    import difflib

    from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers

    name = optim.timm_opt.lower()
    if name.removeprefix("lookahead_") not in list_optimizers():
        near = difflib.get_close_matches(name, map(str, list_optimizers()), 3, 0.5)
        hint = ", ".join(near) or "one of timm.optim.list_optimizers()"
        raise ValueError(f"timm has no optimiser {optim.timm_opt!r}; did you mean {hint}?")
    if get_optimizer_info(name.removeprefix("lookahead_")).second_order:
        raise ValueError(f"timm's {name} needs second derivatives, which the training loop does not take")
    try:
        return create_optimizer_v2(groups, name, lr=optim.lr, weight_decay=optim.weight_decay, momentum=optim.momentum)
    except (ImportError, AssertionError) as error:  # of apex and bitsandbytes
        raise ValueError(f"timm's {name} cannot be had here: {error}") from error
