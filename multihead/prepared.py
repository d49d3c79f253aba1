"""Copies of models made for answering: batch norms folded into convolutions, the backbone in 16 bits, in its layout."""

from __future__ import annotations

import contextlib
import copy
import sys
import weakref
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from multihead.choices import Choice, answering_choice
from multihead.convolutions import SEVERAL, Chain
from multihead.fusing import Plan, fused, planned
from multihead.logs import tell
from multihead.model import Model
from multihead.modes import Mode, Pins, autocast, pinned
from multihead.norms import folded
from multihead.runtimes import Exported
from multihead.timing import pixels

ENOUGH = 32  # photos from which a prepared copy repays its making
CLOSE = 1e-3  # of the features' norm: how far folded features may be from the model's own in f32
LARGEST = 15 << 22  # bytes: glibc's threads have heaps of 64 MB, and what is larger is mapped anew each time
ROUGH = 0.05  # the same for weights in 16 bits; beyond it only the passes are, under autocast


def prepared(classifier: Any, batch_size: int = 32, pins: Pins = Pins(), callers: int = 1) -> tuple[Any, list[Choice]]:
    """(a copy of the classifier that answers as fast as it can here, the choice for each model inside it).

    classifier: a model, or an ensemble, combination or other module made of models. What is no torch module is given
    back as it is. The classifier itself is not changed. callers: threads that will ask at once, each with as many
    threads for its passes as torch has now; exported members are opened for them (`Exported.shared`).
    """
    if not isinstance(classifier, nn.Module):
        return classifier, []
    made: dict[int, Any] = {}
    choices = []
    for part in classifier.modules():
        if isinstance(part, Model) and isinstance(part.backbone, Lowered):
            made[id(part)] = part  # prepared already
        elif isinstance(part, Model):
            choice = answering_choice(part, lambda mode, part=part: ready(part, mode), batch_size, pins)  # type: ignore[misc]
            made[id(part)] = ready(part, choice.mode)
            got = getattr(made[id(part)].backbone, "mode", choice.mode)
            if got != choice.mode:
                tell(f"answers in mode {got}: {part.backbone_name} cannot be in {choice.mode}")
            choices.append(replace(choice, mode=got))
        elif isinstance(part, Exported):
            made[id(part)] = part.shared(callers, torch.get_num_threads())
        elif next(part.parameters(), None) is None and next(part.children(), None) is None:
            made[id(part)] = part  # nothing of torch's, that could not be copied
    return copy.deepcopy(classifier, made).eval(), choices


def is_asked(pins: Pins) -> bool:
    """Whether somebody decided how passes are computed: then also few photos are answered so."""
    mode = pinned()
    return pins != Pins() or mode is not None and mode.precision != "f32"


def ready(model: Model, mode: Mode) -> Model:
    """A copy of the model in evaluation mode that answers in a mode; its inputs and outputs are as the model's.

    The last copy is kept as long as the model lives and its weights stay as they are.
    """
    stand = (mode, *_stand(model))
    if model not in _READY or _READY[model][0] != stand:
        device = next(model.parameters()).device.type
        # whatever the caller's contexts are: they pass, and the copy stays
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(device, enabled=False):
            made = copy.deepcopy(model).eval().requires_grad_(False)
            if made.absent.dtype != torch.float64:  # which somebody wants for its digits
                examples = _examples(made.float())  # a mode begins with weights in f32
                made.backbone, features = folded(made.backbone, examples[0], _close)
                made.backbone = Lowered(made.backbone, examples, features, mode)
        _READY[model] = (stand, made)
    return _READY[model][1]


# model -> (the mode and what its weights are like, its copy)
_READY: weakref.WeakKeyDictionary[Model, tuple[Any, Model]] = weakref.WeakKeyDictionary()


def _stand(model: Model) -> tuple[Any, ...]:
    """What changes when weights, statistics, layers or hooks do: torch's own counts miss what is written through
    `.data`."""
    state = [value for value in (*model.parameters(), *model.buffers()) if value.is_floating_point()]
    hooks = [key for part in model.modules() for key in (*part._forward_pre_hooks, *part._forward_hooks)]
    layers = [*map(id, model.modules()), *map(repr, model.children())]  # the text tells settings, as that of dropout
    return (*hooks, *layers, *((value.device, value.dtype, _digest(value)) for value in state))


def _digest(value: Tensor) -> int:
    return zlib.crc32(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


class Lowered(nn.Module):
    """A backbone whose passes are computed in a mode; features come out in f32.

    examples: normalised images (B, 3, H, W) of each size that it will see. features: the backbone's (B, D) of the first
    in f32, by which weights and passes in 16 bits are judged. Its attribute `mode` says what became of the mode: not
    every backbone can be fused, or computed in 16 bits.
    """

    def __init__(self, backbone: nn.Module, examples: Sequence[Tensor], features: Tensor, mode: Mode) -> None:
        super().__init__()
        if mode.channels_last:
            backbone.to(memory_format=torch.channels_last)
        self.mode, self.dtype = mode, torch.float32
        self.backbone = backbone
        seen = [each.contiguous(memory_format=torch.channels_last) for each in examples]
        found = planned(backbone, seen, _close) if mode.fused and mode.channels_last and not mode.compiled else None
        if mode.precision != "f32":
            self._lower(examples[0], features)
        self._fuse(found, seen[0], features)
        if mode.precision != "f32" and self.dtype == torch.float32:
            self._judge(examples[0], features)
        self.rows = self._rows(max(examples, key=Tensor.numel))
        if mode.compiled:
            self.backbone.compile()

    def _lower(self, example: Tensor, features: Tensor) -> None:
        """Hold the weights in 16 bits where the features stay near; statistics of batch norms never are."""
        if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in self.backbone.modules()):
            return
        kind = _held(self.mode.precision)
        with torch.inference_mode(), contextlib.suppress(RuntimeError, NotImplementedError):
            low = copy.deepcopy(self.backbone).to(kind)
            if _apart(low(example.to(kind)).float(), features) < ROUGH:
                self.backbone, self.dtype = low, kind

    def _fuse(self, found: tuple[Plan, nn.Module] | None, example: Tensor, features: Tensor) -> None:
        """Let convolutions compute activations: what was planned in f32, also where weights are held in 16 bits. Not
        where passes are cast on their way."""
        made = None
        if found is not None and self.mode.precision == "f32":
            made = found[1]
        elif found is not None and self.dtype != torch.float32:
            with torch.inference_mode(), contextlib.suppress(RuntimeError, NotImplementedError, AttributeError):
                low = fused(self.backbone, replace(found[0], chains=()))  # whose sums would be rounded on the way
                if _apart(low(example.to(self.dtype)).float(), features) < ROUGH:
                    made = low
        self.backbone, self.mode = made or self.backbone, replace(self.mode, fused=made is not None)

    def _judge(self, example: Tensor, features: Tensor) -> None:
        """Passes under autocast where the features stay near, else in f32."""
        with torch.inference_mode():
            if not _apart(self._pass(example), features) < ROUGH:
                self.mode = replace(self.mode, precision="f32")

    def _rows(self, example: Tensor) -> int:
        """How many images are computed together: on processors, as many as leave what each module gives below `LARGEST`
        bytes."""
        if example.device.type != "cpu":
            return sys.maxsize
        parts = list(self.backbone.modules())
        inside = [conv for part in parts if isinstance(part, Chain) for conv in part.convs()]
        for count in (SEVERAL, 1) if inside else (1,):  # chains give less at a time of several
            rows = LARGEST // self._largest((*parts, *inside), example[:1].expand(count, -1, -1, -1))
            if rows >= count:
                return rows
        return 1

    def _largest(self, parts: Sequence[nn.Module], images: Tensor) -> int:
        """Bytes an image of the largest result that these parts give."""
        sizes = [1]

        def done(part: Any, inputs: Any, result: Any) -> None:
            sizes.append(result.nbytes // len(images) if isinstance(result, Tensor) else 0)

        with contextlib.ExitStack() as hooks, torch.inference_mode():
            for part in parts:
                hooks.callback(part.register_forward_hook(done).remove)
            self._pass(images)
        return max(sizes)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, D) of normalised images (B, 3, H, W)."""
        parts = -(-len(images) // self.rows)
        return self._pass(images) if parts < 2 else torch.cat([self._pass(part) for part in images.chunk(parts)])

    def _pass(self, images: Tensor) -> Tensor:
        form = torch.channels_last if self.mode.channels_last else torch.contiguous_format
        if self.dtype != torch.float32:
            return self.backbone(images.to(self.dtype, memory_format=form)).float()
        whole = self.mode.precision == "f32"  # whatever the caller's autocast is: layouts and weights are made for it
        kind = images.device.type
        with torch.autocast(kind, enabled=False) if whole else autocast(images.device, self.mode.precision):
            return self.backbone(images.contiguous(memory_format=form)).float()


def _held(precision: str) -> torch.dtype:
    """The type that holds weights of a precision."""
    return {"f32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _examples(model: Model) -> list[Tensor]:
    """A made-up normalised photo (1, 3, H, W) of each size of the model's crops, the first crop's first."""
    device = next(model.parameters()).device
    sizes = {crop.size: crop for crop in model.crops}.values()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        images = [model.normalise(each) for each in pixels(list(sizes), 1, device).values()]
    # brighter to the right and downwards: noise alone would look much the same in a mirror
    return [each * _ramp(each.shape[2], each)[:, None] * _ramp(each.shape[3], each) for each in images]


def _ramp(count: int, like: Tensor) -> Tensor:
    return torch.linspace(0.2, 1.8, count, device=like.device, dtype=like.dtype)


def _close(found: Tensor, expected: Tensor) -> bool:
    """Whether features are the same, but for the last digits of f32."""
    return _apart(found, expected) < CLOSE


def _apart(found: Tensor, expected: Tensor) -> float:
    """The distance of features from the expected ones, as a share of these; infinite where a number is missing."""
    apart = float((found - expected).norm() / expected.norm().clamp_min(1e-12))
    return apart if apart == apart else float("inf")
