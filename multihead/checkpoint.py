"""Checkpoints that open without running code, and starts from weights of other models."""

from __future__ import annotations

import argparse
import contextlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multihead.configs import read_config
from multihead.crops import Crop
from multihead.files import replace_file
from multihead.heads import Head, crops, flat
from multihead.model import Model

# the moving averages first: they are what is scored and kept
WRAPPERS = ("state_dict_ema", "ema", "state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.")


def save(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint in one step: the old one stays until the new one is whole.

    Raises: OSError where it cannot be written, as on a full disk.
    """
    try:
        replace_file(path, lambda fresh: torch.save(dict(state), fresh))
    except RuntimeError as error:  # torch's own, which names neither file nor reason
        first = str(error).strip().splitlines()[0]
        raise OSError(
            f"{path} cannot be written ({first}); is the disk full? a resume goes on from what is there"
        ) from error


def load(path: str | Path) -> Any:
    """A checkpoint's content on the CPU; only tensors and plain data are accepted.

    Raises: FileNotFoundError; ValueError for a file that is damaged or would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        if path.suffix == ".safetensors":
            import safetensors.torch

            return safetensors.torch.load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):  # timm's training script stores its arguments
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "weights_only" in first:  # torch's advice, to open it all the same, is none
            first = "it holds something else than tensors and plain data"
        raise ValueError(
            f"{path} cannot be opened safely: {first}; expected tensors written by torch.save or safetensors"
        ) from error


def kept_weights(path: Path, epoch: int) -> dict[str, Tensor]:
    """The weights that a run has kept so far, those of `epoch`.

    Raises: FileNotFoundError, ValueError where they are gone, damaged or something else.
    """
    try:
        content = load(path)
        if not isinstance(content, Mapping) or "model" not in content:
            raise ValueError(f"{path} is not what a run keeps")
        return dict(content["model"])
    except (FileNotFoundError, ValueError) as error:
        advice = "put the file back, or train anew in another folder, from model/ or last.pt by --initial-checkpoint"
        raise type(error)(f"{error}; it is to hold the weights of epoch {epoch}, the best so far: {advice}") from error


@dataclass(frozen=True)
class Report:
    """Which of the model's entries a start took from a file: loaded and converted (18-way classifier to heads), not in
    the file, in the file but unknown, and of another shape or, as far as they are known, of other classes."""

    loaded: tuple[str, ...]
    converted: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]

    def __str__(self) -> str:
        parts = []
        for name in ("loaded", "converted", "missing", "unexpected", "mismatched"):
            keys = getattr(self, name)
            shown = (
                "" if name == "loaded" or not keys else f" ({', '.join(keys[:4])}{', ...' if len(keys) > 4 else ''})"
            )
            parts.append(f"{len(keys)} {name}{shown}")
        return "; ".join(parts)


def start_from(model: Model, path: str | Path) -> Report:
    """Fill the model with what fits of a checkpoint or model folder, and say what did and did not.

    Reads timm checkpoints, this library's folders (of a model or a run) and checkpoints, and state dicts within them. A
    classifier over all joint classes becomes the heads' layers: each head's row is the mean of the rows of its class,
    which is the classifier's main effect. Of this library's folders, whose heads are known, the rows of a head go by
    the names of its classes and its columns by its crops, in whatever order the two have them; a head of other classes
    is left as it is, but bands of a number, which keep their order, are taken for others.

    Warns where no layer of the backbone is among what fits.

    Raises: FileNotFoundError; ValueError where nothing fits, naming a few keys of both.
    """
    path = _weights(Path(path))
    heads = _heads_near(path)
    found, strange = _in_order(_state(load(path), path), heads, model)
    own = model.state_dict()
    renamed = _align(found, own)
    fit = {key for key in own.keys() & renamed.keys() - strange if own[key].shape == renamed[key].shape}
    taken = {key: value for key, value in renamed.items() if key in fit}
    mismatched = tuple(key for key in renamed if key in own and key not in fit)
    unexpected = {key: value for key, value in renamed.items() if key not in own}
    read = {_layer(head)[0]: head.crops for head in heads if head.parts}
    converted = _classifier(model, {key: value for key, value in unexpected.items() if key not in strange}, own, read)
    if not taken:
        raise ValueError(
            f"nothing in {path} fits {model.backbone_name}: it has {list(found)[:3]}, the model {list(own)[:3]}"
        )
    if not any(key.startswith("backbone.") and value.ndim > 1 for key, value in taken.items()):
        warnings.warn(f"no layer in {path} fits backbone {model.backbone_name}, which stays as it was", stacklevel=2)
    model.load_state_dict(taken | converted, strict=False)
    missing = tuple(key for key in own if key not in taken and key not in converted)
    used = {
        key for key in unexpected if converted and key.rsplit(".", 1)[-1] in ("weight", "bias") and _is_classifier(key)
    }
    return Report(
        tuple(taken), tuple(converted), missing, tuple(key for key in unexpected if key not in used), mismatched
    )


def _weights(path: Path) -> Path:
    """The file of weights of a folder of a model or a run; a file as it is. Raises: FileNotFoundError."""
    if not path.is_dir():
        return path
    places = [path / "model.safetensors", path / "model" / "model.safetensors"]
    for place in places:
        if place.is_file():
            return place
    held = "an ensemble: name one of its members" if (path / "ensemble.json").is_file() else "no model.safetensors"
    raise FileNotFoundError(f"{path} holds {held}; expected the folder of a model or a run, or a file of weights")


def _state(content: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping) and (inner := next((k for k in WRAPPERS if _holds_weights(content.get(k))), "")):
        content = content[inner]
    state = (
        {key: value for key, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not state:
        raise ValueError(f"{path} holds no weights; expected a state dict, or one under {', '.join(WRAPPERS)}")
    return state


def _heads_near(path: Path) -> Sequence[Head]:
    """The heads of the model folder or run that a file of weights lies in; none where nothing tells."""
    folder = path.parent.parent / "model" if path.parent.name == "checkpoints" else path.parent
    with contextlib.suppress(FileNotFoundError, ValueError):
        heads: Any = read_config(folder)["heads"]
        return heads
    return ()


def _in_order(state: Mapping[str, Tensor], heads: Sequence[Head], model: Model) -> tuple[dict[str, Tensor], set[str]]:
    """The state of a model with these heads, in the order of the other model's classes and crops, and the keys of the
    layers whose classes are others."""
    own = {head.name: head for head in model.heads}
    joint = flat(model.space)[0]
    placed, strange = dict(state), set()
    for head in heads:
        wanted = own.get(head.name, joint)
        if (rows := _rows(head, wanted)) is None:
            strange |= set(_layer(head))
            continue
        weight, bias = _layer(head)
        placed |= {key: state[key][rows] for key in (weight, bias) if key in state}
        if weight in placed and head.name in own:
            placed[weight] = _in_blocks(placed[weight], head.crops, wanted.crops)
    if heads and "absent" in state:  # a vector a crop
        placed["absent"] = state["absent"][_blocks(crops(heads), model.crops)]
    return placed, strange


def _rows(head: Head, wanted: Head) -> list[int] | None:
    """Where the classes of a head are among those of another; None where they are not the same."""
    if head.edges and wanted.edges and len(head.edges) == len(wanted.edges):
        return list(range(len(wanted.classes)))
    same = sorted(head.classes) == sorted(wanted.classes)
    return [head.classes.index(name) for name in wanted.classes] if same else None


def _blocks(found: Sequence[Crop], wanted: Sequence[Crop]) -> list[int]:
    """Where crops are among others: equal ones, else those of one region; else as they stand."""
    sides: Any = (found, wanted)
    for theirs, ours in (sides, [[crop.region for crop in side] for side in sides]):
        if len(set(theirs)) == len(theirs) == len(ours) and set(theirs) == set(ours):
            return [theirs.index(crop) for crop in ours]
    return list(range(len(found)))


def _in_blocks(weight: Tensor, found: Sequence[Crop], wanted: Sequence[Crop]) -> Tensor:
    """The columns (C, D * crops) of a layer, those of each crop where the wanted order has it."""
    return weight.unflatten(1, (len(found), -1))[:, _blocks(found, wanted)].flatten(1)


def _layer(head: Head) -> tuple[str, str]:
    return f"head.{head.name}.weight", f"head.{head.name}.bias"


def _holds_weights(content: Any) -> bool:
    """Whether something is a state dict, or wraps one: other things are called ema or model too."""
    return isinstance(content, Mapping) and (
        any(isinstance(value, Tensor) for value in content.values())
        or any(_holds_weights(content.get(name)) for name in WRAPPERS)
    )


def _align(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The file's entries under the model's names: known prefixes off, `backbone.` on where that fits."""
    renamed = {}
    for key, value in found.items():
        bare = key
        while (prefix := next((p for p in PREFIXES if bare.startswith(p)), "")) and bare not in own:
            bare = bare.removeprefix(prefix)
        renamed[f"backbone.{bare}" if f"backbone.{bare}" in own else bare] = value
    return renamed


def _is_classifier(key: str) -> bool:
    return key.removeprefix("backbone.").rsplit(".", 1)[0] in (
        "fc",
        "classifier",
        "head",
        "head.fc",
        "last_linear",
    ) or (key.startswith("head.") and key.count(".") == 2)


def _classifier(
    model: Model, rest: Mapping[str, Tensor], own: Mapping[str, Tensor], read: Mapping[str, Sequence[Crop]]
) -> dict[str, Tensor]:
    """The heads' layers from a classifier over all joint classes, or a flat model's from the same classifier; read:
    {its weight: the crops that its columns are of}, as far as they are known."""
    sizes = [len(head.classes) for head in model.space]
    joint = int(torch.tensor(sizes).prod())
    made: dict[str, Tensor] = {}
    for key, value in rest.items():
        kind = key.rsplit(".", 1)[-1]
        if not _is_classifier(key) or kind not in ("weight", "bias") or value.shape[0] != joint:
            continue
        for head in model.heads:
            name = f"head.{head.name}.{kind}"
            rows = _main_effect(value, head, [h.name for h in model.space], sizes)
            if key in read:
                rows = _in_blocks(rows, read[key], head.crops)
            if own[name].shape == rows.shape:
                made[name] = rows
    return made


def _main_effect(value: Tensor, head: Head, names: list[str], sizes: list[int]) -> Tensor:
    if head.parts:
        return value
    grid = value.float().reshape(*sizes, *value.shape[1:])
    others = [axis for axis, name in enumerate(names) if name != head.name]
    return grid.mean(others) if others else grid
