"""Optimisers: their settings, and the optimiser of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from multihead.options import option

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay. Source: Loshchilov and Hutter 2019, arXiv 1711.05101."""

    lr: float = option(1e-3, "learning rate")
    weight_decay: float = option(0.05, "weight decay; never on biases and norms")


@dataclass(frozen=True)
class Adam:
    """Adam. Source: Kingma and Ba 2015, arXiv 1412.6980."""

    lr: float = option(1e-3, "learning rate")
    weight_decay: float = option(0.0, "weight decay; never on biases and norms")


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with Nesterov momentum."""

    lr: float = option(0.05, "learning rate")
    weight_decay: float = option(1e-4, "weight decay; never on biases and norms")
    momentum: float = option(0.9, "momentum")


@dataclass(frozen=True)
class MADGRAD:
    """MADGRAD of the madgrad package; its rates are not comparable with Adam's. Source: arXiv 2101.11075."""

    lr: float = option(1e-3, "learning rate")
    weight_decay: float = option(0.0, "weight decay; never on biases and norms")
    momentum: float = option(0.9, "momentum")


Optim = AdamW | Adam | SGD | MADGRAD


def create_optimizer(model: torch.nn.Module, optim: Optim) -> torch.optim.Optimizer:
    """The optimiser of `optim` over the model's parameters; biases, norms and the vectors of absent crops do not
    decay.

    Raises: TypeError for what is no optimiser of `multihead.recipe`.
    """
    import torch

    if not isinstance(optim, Optim):
        raise TypeError(f"{optim!r} is no optimiser; expected AdamW, Adam, SGD or MADGRAD")
    decay = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": optim.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    if isinstance(optim, AdamW):
        return torch.optim.AdamW(groups, lr=optim.lr, fused=True)
    if isinstance(optim, Adam):
        return torch.optim.Adam(groups, lr=optim.lr, fused=True)
    if isinstance(optim, SGD):
        return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, nesterov=optim.momentum > 0, fused=True)
    import madgrad

    return madgrad.MADGRAD(groups, lr=optim.lr, momentum=optim.momentum)
