"""One process or many: what torchrun's environment says, and the few exchanges that training needs."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from multihead import logs

Result = TypeVar("Result")


def start() -> None:
    """Join the other processes if torchrun started several; else nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        gpus = torch.cuda.is_available()
        if gpus:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo")  # by where the model is, not the machine
        if not gpus:  # its threads now and then abort a process that exits with the group alive
            atexit.register(dist.destroy_process_group)


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def first() -> bool:
    """True for the one process that writes and reports."""
    return rank() == 0


def say(text: str) -> None:
    """Tell the user, on standard error, once for all processes of a run."""
    if first():
        print(text, file=sys.stderr)


def tell(text: str) -> None:
    """Tell what goes on, once for all processes of a run, unless the user wants to hear of errors only."""
    if first():
        logs.tell(text)


def wait() -> None:
    """Return when every process is here."""
    if world() > 1:
        dist.barrier()


def first_then_rest(work: Callable[[], Result]) -> Result:
    """The result of `work`, done by the first process before the others, who find its files."""
    if not first():
        wait()
    try:
        return work()
    finally:
        if first():
            wait()


def gather(mine: Result) -> list[Result]:
    """Every process's object, in order of rank, on every process."""
    if world() == 1:
        return [mine]
    found: list[Any] = [None] * world()
    dist.all_gather_object(found, mine)
    return found


def parallel(model: nn.Module) -> nn.Module:
    """The model, averaging gradients over the processes if there are several."""
    if world() == 1:
        return model
    # a body that no row of a batch shows leaves the backbone unused on that process
    absent = all(crop.region == "body" for crop in model.crops)  # type: ignore[union-attr]
    return nn.parallel.DistributedDataParallel(model, find_unused_parameters=absent)


def share_buffers(model: nn.Module) -> None:
    """Give every process the first one's buffers (running statistics of batch norms)."""
    if world() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def mean(values: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over the processes."""
    if world() == 1:
        return values
    found = values.clone()
    dist.all_reduce(found)
    return found / world()


def average_gradient(parameter: nn.Parameter) -> None:
    """Make the parameter's gradient the mean over the processes; for what is not part of the parallel model."""
    if world() > 1:
        parameter.grad = mean(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
