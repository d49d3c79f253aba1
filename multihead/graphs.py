"""A model as one graph of fixed steps: uint8 crops in, probabilities out, for runtimes that know no Python."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from multihead import labels as algebra
from multihead.crops import Crop
from multihead.feeds import PRESENT
from multihead.heads import Head
from multihead.model import Model

JOINT, BATCH = "joint", "batch"  # an output, and the axis of rows
BATCHES = (1, 2, 5, 64)  # rows of the batches that an export is checked with


class Graph(nn.Module):
    """The model with plain tensors in and out; nothing depends on which crops are there.

    forward: uint8 (B, 3, H, W) of each crop in the order of `model.crops`, then present (B, crops) bool. Returns the
    probabilities (B, C) of each head of `model.space`, then the joint ones (B, K). An absent crop's pixels pass the
    backbone too and are then replaced by the learned vector, so the answer is that of `Model`.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Probabilities of the heads and of the joint classes."""
        model, present = self.model, inputs[-1]
        features = {}
        for column, (crop, pixels) in enumerate(zip(model.crops, inputs)):
            seen = model.backbone(model.normalise(pixels))
            features[crop] = torch.where(present[:, column : column + 1], seen, model.absent[column])  # (B, D)
        probs = {
            head.name: model.head[head.name](torch.cat([features[crop] for crop in head.crops], 1)).softmax(1)
            for head in model.heads
        }
        joint = algebra.joint(probs, model.heads)
        return (*algebra.marginals(joint, model.space).values(), joint)


def input_names(crops: Sequence[Crop]) -> list[str]:
    """The graph's inputs: a name a crop, with its size where two crops share the name, then `present`.

    >>> from multihead.crops import BODY, FACE
    >>> input_names([FACE.resized(32), FACE.resized(64, 48), BODY])
    ['face_32x32', 'face_64x48', 'body', 'present']
    """
    names = [crop.name for crop in crops]
    shared = {name for name in names if names.count(name) > 1 or name in (PRESENT, JOINT)}
    found = [f"{crop.name}_{crop.size[0]}x{crop.size[1]}" if crop.name in shared else crop.name for crop in crops]
    return [*_unlike(found, [PRESENT]), PRESENT]


def output_names(crops: Sequence[Crop], space: Sequence[Head]) -> list[str]:
    """The graph's outputs: the heads of the joint space, then `joint`; a head named as an input gets `_probs`."""
    taken = [*input_names(crops), JOINT]
    return [*_unlike([f"{head.name}_probs" if head.name in taken else head.name for head in space], taken), JOINT]


def _unlike(names: Sequence[str], taken: Sequence[str]) -> list[str]:
    """The names, with a number behind those that are taken."""
    found: list[str] = []
    for name in names:
        number, made = 1, name
        while made in found or made in taken:
            number, made = number + 1, f"{name}_{number + 1}"
        found.append(made)
    return found


def trace(model: Model) -> Any:
    """The `torch.export.ExportedProgram` of a model, on the CPU, for any number of rows; the model stays as it is.

    Raises: ValueError for a model that is no `Model`, or whose backbone cannot be traced.
    """
    if not isinstance(model, Model):
        raise ValueError(f"a graph is made of a Model, got {type(model).__name__}; export its members one by one")
    own = copy.deepcopy(model).cpu().eval().to(memory_format=torch.contiguous_format)
    inputs = examples(own.crops, 2)
    rows = torch.export.Dim(BATCH, min=1, max=65536)
    shapes = (tuple({0: rows} for _ in inputs),)
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(Graph(own), inputs, dynamic_shapes=shapes)
    except Exception as error:  # torch names no common class for what it cannot trace
        first = str(error).strip().split("\n")[0]
        raise ValueError(
            f"backbone {model.backbone_name} cannot be exported ({first}); "
            "keep the model folder, or train with another backbone"
        ) from error


def examples(crops: Sequence[Crop], rows: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Random inputs of a graph: uint8 (rows, 3, H, W) a crop, and present (rows, crops), of which some are False."""
    generator = torch.Generator().manual_seed(seed)
    images = [torch.randint(0, 256, (rows, 3, *crop.size), dtype=torch.uint8, generator=generator) for crop in crops]
    present = torch.rand(rows, len(crops), generator=generator) < 0.7
    return (*images, present)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings that torch's own exporters raise about themselves inside."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(torch|onnx|copyreg|onnxscript)\b")
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(torch|onnx|copyreg|onnxscript)\b")
        warnings.filterwarnings("ignore", category=UserWarning, module=r"(torch|onnxscript)\b")
        yield
