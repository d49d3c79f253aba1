"""Optimisers of a recipe, and its learning rate as a function of the step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from multihead.recipe import SGD, Adam, AdamW, Cosine, Cyclic, OneCycle, Optim, Schedule, Step

if TYPE_CHECKING:
    import torch


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


def rate(schedule: Schedule, lr: float, step: int, steps: int, epochs: int) -> float:
    """The learning rate of optimiser step `step` (from 0) of `steps` in `epochs` epochs; `lr` is the highest.

    A function of the step alone: nothing to save, and no optimiser's momentum is touched.

    Raises: TypeError for what is no schedule of `multihead.recipe`.
    """
    if not isinstance(schedule, Schedule):
        raise TypeError(f"{schedule!r} is no schedule; expected OneCycle, Cosine, Step, Cyclic or Constant")
    per_epoch = steps / epochs
    if isinstance(schedule, OneCycle):
        rise = max(schedule.pct_start * steps - 1, 1e-9)
        if step <= rise:
            return _anneal(lr / 25, lr, step / rise)
        return _anneal(lr, lr / 25e4, (step - rise) / max(steps - 1 - rise, 1e-9))
    if isinstance(schedule, Cyclic):
        return _triangle(schedule, lr, step / per_epoch)
    warm = schedule.warmup_epochs * per_epoch
    if step < warm:
        return lr * (step + 1) / (math.ceil(warm) + 1)
    if isinstance(schedule, Cosine):
        return _anneal(lr, schedule.min_lr, (step - warm) / max(steps - warm, 1))
    if isinstance(schedule, Step):
        return lr * schedule.decay_rate ** (int(step / per_epoch + 1e-9) // schedule.decay_epochs)
    return lr


def _anneal(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _triangle(schedule: Cyclic, lr: float, epoch: float) -> float:
    length = schedule.up_epochs + schedule.down_epochs
    cycle, place = divmod(epoch, length)
    up = place / schedule.up_epochs
    height = up if up <= 1 else 1 - (place - schedule.up_epochs) / schedule.down_epochs
    halved = 2.0**-cycle if schedule.cycle_mode == "triangular2" else 1.0
    return schedule.min_lr + (lr - schedule.min_lr) * height * halved
