"""Steps of training: the gradient of all batches of a step, on all processes, as one; then the weights move."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from multihead import ranks
from multihead.augment import photo_seed
from multihead.balance import combine, log_variance
from multihead.batches import Batch
from multihead.criteria import Criterion
from multihead.crops import Crop
from multihead.mixing import mix
from multihead.model import Model
from multihead.modes import Mode, autocast
from multihead.optim import create_optimizer
from multihead.recipe import Recipe
from multihead.speed import keep_memory
from multihead.targets import Targets


class Diverged(ValueError):
    """The loss is no number."""


class Part(NamedTuple):
    """A batch that is a part of a step: images and present as `Model.forward` takes them, targets {head: rows (B, C)},
    and the seed of what the model draws."""

    images: Mapping[Crop, torch.Tensor]
    present: torch.Tensor
    targets: Mapping[str, torch.Tensor]
    seed: int


class Stepper:
    """The weights of a run, and what moves them.

    criteria: {head: its criterion}. targets: of all rows of the training table. mode: how passes are computed; it is
    put in force here. `scored` is the model that is scored and saved, `log_variance` what `recipe.balance` learns.
    """

    def __init__(
        self, model: Model, criteria: Mapping[str, Criterion], targets: Targets, recipe: Recipe, mode: Mode
    ) -> None:
        from timm.utils import ModelEmaV3

        self.model, self.criteria, self.recipe, self.mode = model, criteria, recipe, mode
        self.device = next(model.parameters()).device
        self.targets = targets.to(self.device)
        if mode.keep_memory:
            keep_memory()
        if mode.channels_last:
            model.to(memory_format=torch.channels_last)
        if mode.compiled:
            model.backbone.compile()
        # float16 holds no gradient below 6e-8: losses are scaled up before they go back
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=mode.precision == "fp16")
        self.log_variance = log_variance(recipe.balance, [head.name for head in model.heads])
        if self.log_variance is not None:
            self.log_variance.data = self.log_variance.data.to(self.device)
        self.optimizer = create_optimizer(
            model,
            recipe.optim,
            head_lr=recipe.head_lr,
            layer_decay=recipe.layer_decay,
            extra=[] if self.log_variance is None else [self.log_variance],
        )
        self.backbone = [p for p in model.backbone.parameters() if p.requires_grad]
        self.forward = ranks.parallel(model)
        self.ema = ModelEmaV3(model, recipe.ema.model_ema_decay, use_warmup=True) if recipe.ema else None

    @property
    def scored(self) -> Model:
        """The model that is scored and saved: the moving average if there is one."""
        return self.ema.module if self.ema else self.model

    def train(self, frozen: bool = False) -> None:
        """Training mode; frozen: the backbone and its statistics stand still."""
        if any(parameter.requires_grad == frozen for parameter in self.backbone):
            for parameter in self.backbone:
                parameter.requires_grad_(not frozen)
            self.forward = ranks.parallel(self.model)  # it knows the parameters that it averages from the start
        self.model.train()
        if frozen:
            self.model.backbone.eval()

    def thaw(self) -> None:
        """Every parameter that was trained is trained again, whatever `train` froze."""
        for parameter in self.backbone:
            parameter.requires_grad_(True)

    def gradient(
        self, batches: Sequence[Batch], epoch: int, first: int, weights: Mapping[str, float]
    ) -> dict[str, float]:
        """Add up the gradient of a step; its losses: "loss", and "<head>_loss" of the heads that it knows.

        batches: of this process, the epoch's first-th (from 0) and those after it. weights: {head: weight}.

        Raises, on every process: Diverged where the loss is no number; ValueError where a photo cannot be read.
        """
        parts = [self._part(batch, epoch, first + number) for number, batch in enumerate(batches)]
        mass = self._mass(parts, [reason for batch in batches for _, reason in batch.unreadable])
        known = dict(zip(mass, torch.stack([each.sum() > 0 for each in mass.values()]).tolist()))
        losses = []
        for number, part in enumerate(parts):
            quiet = number + 1 < len(parts) and ranks.world() > 1
            with self.forward.no_sync() if quiet else contextlib.nullcontext(), seeded(part.seed, self.device):  # type: ignore[operator]
                with autocast(self.device, self.mode.precision):
                    logits = self.forward(part.images, part.present)
                each = {
                    name: criterion(logits[name], part.targets[name], mass[name])
                    for name, criterion in self.criteria.items()
                }
                loss = combine(each, known, weights, self.log_variance, 1 / len(parts))
                self.scaler.scale(loss).backward()
            losses.append(torch.stack([loss, *each.values()]).detach())
        found = torch.stack(losses).cpu().double()  # (parts, 1 + heads); one wait for the device
        self._check_finite(found[:, 0], epoch, first)
        names = {"loss": True} | {f"{name}_loss": known[name] for name in known}
        return {name: value for (name, there), value in zip(names.items(), found.sum(0).tolist()) if there}

    def _check_finite(self, losses: torch.Tensor, epoch: int, first: int) -> None:
        """Nothing where the losses (parts,) of this step are numbers, on all processes; they stop together."""
        if bool(ranks.mean(losses).isfinite().all()):
            return
        self.optimizer.zero_grad(set_to_none=True)
        text = f"no number in epoch {epoch} on another process"
        if bad := (~losses.isfinite()).nonzero().flatten().tolist():
            text = f"{losses[bad[0]].item()} in epoch {epoch}, batch {first + bad[0] + 1}"
        raise Diverged(f"the loss is {text}; lower lr, or set clip_grad")

    def _part(self, batch: Batch, epoch: int, number: int) -> Part:
        """A batch, the epoch's number-th of this process, with its targets, mixed."""
        place = number * ranks.world() + ranks.rank()  # of this batch among all processes'
        batch = batch.to(self.device, self.mode.channels_last)
        return part_of(batch, self.targets, self.recipe, epoch, place)

    def _mass(self, parts: Sequence[Part], unreadable: Sequence[str]) -> dict[str, torch.Tensor]:
        """{head: what its loss is divided by}, known only when all parts of all processes are."""
        sums = [
            torch.stack([each.mass(part.targets[name]) for part in parts]).sum(0)
            for name, each in self.criteria.items()
        ]
        mine = torch.cat(sums)
        whole = ranks.mean(mine * float("nan") if unreadable else mine)  # as the processes' gradients are averaged
        if bool(whole.isnan().any()):  # so all processes stop together
            reason = unreadable[0] if unreadable else "see another process"
            raise ValueError(f"a photo can no longer be read: {reason}; put it back and resume")
        return dict(zip(self.criteria, whole.split([len(each) for each in sums])))

    def update(self, lr: float, step: int) -> None:
        """Move the weights along the gradient; lr: the rate of groups whose scale is 1. step: of the run, from 1."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        if self.log_variance is not None:
            ranks.average_gradient(self.log_variance)
        if self.recipe.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema:
            self.ema.update(self.model, step=step)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of the weights and of what moves them."""
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema else None,
            "optimizer": self.optimizer.state_dict(),
            "log_variance": self.log_variance,
            "scaler": self.scaler.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a `state`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.log_variance is not None:
            self.log_variance.data.copy_(state["log_variance"])
        if self.ema:
            self.ema.module.load_state_dict(state["ema"])
        self.scaler.load_state_dict(state.get("scaler", {}))


def part_of(batch: Batch, targets: Targets, recipe: Recipe, epoch: int, place: int) -> Part:
    """A batch with its targets, both on one device, mixed as the recipe says; place: of the batch in its epoch, among
    all processes', from 0."""
    images, rows = batch.images, targets.batch(batch.rows.to(batch.present.device), batch.drawn)
    if recipe.mix is not None and not batch.unreadable:
        mixed = {"seed": mix_seed(recipe, epoch, place), "epoch": epoch}
        images, rows = mix(recipe.mix, images, batch.present, rows, targets.heads, **mixed)
    return Part(images, batch.present, rows, photo_seed(recipe.seed + 1, epoch, place))


def mix_seed(recipe: Recipe, epoch: int, place: int) -> int:
    """What the mixing of an epoch's batch is drawn by; place: of the batch among all processes', from 0."""
    return photo_seed(recipe.seed + 2, epoch, place)


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's random numbers from `seed` inside; the caller's own stream is untouched after."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
