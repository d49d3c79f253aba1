"""Timed passes of a model: training steps on copies of it and answers, with made-up photos and labels."""

from __future__ import annotations

import contextlib
import copy
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from multihead.criteria import Criterion
from multihead.crops import Crop
from multihead.model import Model
from multihead.modes import Mode, autocast
from multihead.optim import Optim, create_optimizer
from multihead.targets import targets

ROUNDS = 3
WORSE = 1.3  # times the fastest one's seconds from which a mode is not timed further
HOPELESS = 10.0  # times the fastest first run from which a mode is not timed at all
SEED = 20_260_102  # of the made-up photos and labels that are timed


def fastest(
    runs: Mapping[Mode, Callable[[], object]], rounds: int = ROUNDS, hopeless: float = HOPELESS
) -> dict[Mode, float]:
    """{mode: median seconds} of what the runs do, in their order; each runs once to warm up, then in turn with the
    others, those that are much slower only once, and not at all where the first run was `hopeless` times slower.
    Infinite for a run that is not supported; one that finds no memory now is left out."""
    times: dict[Mode, list[float]] = {}
    failed: dict[Mode, float] = {}
    first: dict[Mode, float] = {}
    for mode, run in runs.items():
        started = time.perf_counter()
        try:
            run()
        except torch.OutOfMemoryError:
            continue
        except (RuntimeError, NotImplementedError):
            failed[mode] = math.inf
            continue
        first[mode] = time.perf_counter() - started
    for mode, seconds in first.items():
        if seconds > hopeless * min(first.values()):
            failed[mode] = seconds
        else:
            times[mode] = []
    for number in range(rounds):
        best = min((statistics.median(each) for each in times.values() if each), default=float("inf"))
        for mode, each in list(times.items()):
            if number == 0 or statistics.median(each) <= WORSE * best:
                started = time.perf_counter()
                try:
                    runs[mode]()
                except torch.OutOfMemoryError:  # what the other modes hold may be what is missing
                    del times[mode]
                    continue
                each.append(time.perf_counter() - started)
    return {mode: statistics.median(each) for mode, each in times.items()} | failed


class Steps:
    """Training steps on copies of a model, with made-up photos and labels; one copy for each memory format."""

    def __init__(self, model: Model, criteria: Mapping[str, Criterion], optim: Optim, batch_size: int) -> None:
        self.model, self.criteria, self.optim, self.rows = model, criteria, optim, batch_size
        self.device = next(model.parameters()).device
        self.images = pixels(model.crops, batch_size, self.device)
        sizes = [len(head.classes) for head in model.space]
        labels = torch.stack([torch.randint(0, classes, (batch_size,)) for classes in sizes], 1)
        self.targets = {name: row.to(self.device) for name, row in targets(labels, model.heads).items()}
        self.copies: dict[tuple[bool, bool], tuple[Model, torch.optim.Optimizer]] = {}

    def of(self, mode: Mode) -> Callable[[], None]:
        """One step in a mode."""

        def step() -> None:
            trained, optimizer = self._copy(mode)
            form = torch.channels_last if mode.channels_last else torch.contiguous_format
            images = {crop: part.contiguous(memory_format=form) for crop, part in self.images.items()}
            with autocast(self.device, mode.precision):
                logits = trained(images)
            loss = sum(self.criteria[name](logits[name], self.targets[name]) for name in logits)
            loss.backward()  # type: ignore[union-attr]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            finish(self.device)

        def kept_step() -> None:
            try:
                step()
            except torch.OutOfMemoryError:  # its copy must not take the memory of the others
                self.copies.pop((mode.channels_last, mode.compiled), None)
                raise

        return kept_step

    def _copy(self, mode: Mode) -> tuple[Model, torch.optim.Optimizer]:
        key = (mode.channels_last, mode.compiled)
        if key not in self.copies:
            trained = copy.deepcopy(self.model).train()
            if mode.channels_last:
                trained.to(memory_format=torch.channels_last)
            if mode.compiled:
                trained.backbone.compile()
            self.copies[key] = (trained, create_optimizer(trained, self.optim))
        return self.copies[key]


def answers(
    mode: Mode, ready: Callable[[Mode], Model], images: Mapping[Crop, torch.Tensor], device: torch.device
) -> Callable[[], None]:
    held: list[Model] = []

    def run() -> None:
        if not held:
            made = ready(mode)
            if getattr(made.backbone, "mode", mode) != mode:
                raise NotImplementedError(f"{mode} is not possible for this backbone")
            held.append(made)
        form = torch.channels_last if mode.channels_last else torch.contiguous_format
        with torch.inference_mode():
            held[0].probs({crop: part.contiguous(memory_format=form) for crop, part in images.items()})
        finish(device)

    return run


@contextlib.contextmanager
def apart(device: torch.device) -> Iterator[None]:
    """Random numbers of their own, and gradients, inside; nothing of it is felt outside."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.enable_grad():
        torch.manual_seed(SEED)
        yield


def pixels(crops: Sequence[Crop], rows: int, device: torch.device) -> dict[Crop, torch.Tensor]:
    """Made-up photos {crop: uint8 (rows, 3, H, W)} on a device."""
    return {crop: torch.randint(0, 256, (rows, 3, *crop.size), dtype=torch.uint8).to(device) for crop in crops}


def finish(device: torch.device) -> None:
    """Return when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
