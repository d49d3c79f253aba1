"""Backbones of timm, or registered with it: made for crops of given sizes, with weights from files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from multihead.crops import Crop

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
BLANK = 20_260_101  # seed of the weights that a file must replace


def check_backbone(name: str) -> None:
    """Nothing for a name that timm knows. Raises: ValueError with the nearest names."""
    import timm

    if not timm.is_model(name.removeprefix("timm/").split(".")[0]):
        import difflib

        near = difflib.get_close_matches(name, timm.list_models(), 3, 0.5)
        raise ValueError(f"unknown backbone {name!r}; did you mean {', '.join(near) or 'one of timm.list_models()'}?")


def create_backbone(name: str, crops: Sequence[Crop], pretrained: bool | str | Path, drop_path: float) -> nn.Module:
    """A timm backbone without classifier that takes the crops' sizes.

    Raises: ValueError for an unknown name or a file of other weights, FileNotFoundError where weights can neither be
    read nor downloaded.
    """
    check_backbone(name)
    options: dict[str, Any] = {"num_classes": 0, "pretrained": bool(pretrained)}
    if drop_path:
        options["drop_path_rate"] = drop_path
    try:
        if isinstance(pretrained, (str, Path)):
            return _from_file(name, crops, options, Path(pretrained))
        return _create(name, crops, options)
    except Exception as error:
        if isinstance(error, TypeError) and "drop_path_rate" in str(error):
            raise ValueError(f"backbone {name} has no stochastic depth; leave drop_path (--drop-path) at 0") from error
        if pretrained is not True or not isinstance(error, OSError) and "Hub" not in type(error).__name__:
            raise
        raise FileNotFoundError(
            f"the weights of {name} could not be downloaded ({type(error).__name__}); "
            "pass a file instead: pretrained='weights.safetensors', or --pretrained-path on the command line"
        ) from error


def feature_width(backbone: nn.Module, crop: Crop) -> int:
    """How many features a backbone gives; one that does not say so is asked with a black photo."""
    said: Any = getattr(backbone, "head_hidden_size", None)  # num_features is smaller in some backbones (mobilenetv3)
    if said is not None:
        return int(said)
    try:
        with torch.no_grad():
            found = backbone.eval()(torch.zeros(1, 3, *crop.size))
    except RuntimeError as error:
        shape = (1, 3, *crop.size)
        raise ValueError(f"backbone {type(backbone).__name__} cannot read an RGB photo {shape}: {error}") from error
    backbone.train()
    if not isinstance(found, Tensor) or found.dim() != 2:
        what = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"backbone {type(backbone).__name__} gives {what} for a photo; expected features (1, D)")
    return found.shape[1]


def statistic(backbone: nn.Module, name: str, given: Sequence[float] | None) -> tuple[float, ...]:
    """The mean or std of pixels in 0..1, red, green and blue: as given, else the weights' own, else ImageNet's.

    Raises: ValueError for anything but three numbers of 0..1, or a std of 0.
    """
    config: Any = getattr(backbone, "pretrained_cfg", None) or {}
    chosen: Any = (config.get(name) or IMAGENET[name]) if given is None else given
    found: Any = tuple(chosen) if isinstance(chosen, Iterable) else ()
    least = 1e-9 if name == "std" else 0  # pixels are divided by it
    if len(found) != 3 or not all(isinstance(each, Real) and least <= float(each) <= 1 for each in found):
        raise ValueError(
            f"{name} is {chosen!r}; expected three numbers of pixels in 0..1, as {IMAGENET[name]}: those of 0..255 "
            "divided by 255"
        )
    return found


def _from_file(name: str, crops: Sequence[Crop], options: dict[str, Any], path: Path) -> nn.Module:
    """The timm model with a file's weights; timm itself says nothing of weights that the file lacks."""
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; expected a file of timm weights for {name}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(BLANK)
        blank = _create(name, crops, options | {"pretrained": False}).state_dict()
        torch.manual_seed(BLANK)
        try:
            model = _create(name, crops, options | {"pretrained_cfg_overlay": {"file": str(path)}})
        except Exception as error:
            first = " ".join(str(error).split("\n")[:2])
            if "weights_only" in first:  # torch's advice is to run what the file holds
                first = "it holds something else than tensors"
            other = "; they look like another backbone's" if "size mismatch" in first else ""
            raise ValueError(f"{path} cannot be read as timm weights of {name}{other}: {first}") from error
    state = model.state_dict()
    # still as drawn at random (a constant start says nothing)
    lacking = [key for key, start in blank.items() if start.ndim > 1 and start.std() > 0 and start.equal(state[key])]
    if lacking:
        raise ValueError(
            f"{path} lacks {len(lacking)} weights of {name}, for one {lacking[0]}; expected a file of timm weights "
            "(other files: checkpoint.start_from, or --initial-checkpoint on the command line)"
        )
    return model


def _create(name: str, crops: Sequence[Crop], options: Mapping[str, Any]) -> nn.Module:
    """The timm model; one of fixed input size is told to take any size if it can, else the one size there is."""
    import timm

    known = timm.get_pretrained_cfg(name, allow_unregistered=True)  # None: a user's own, without a cfg
    if known is None or not known.fixed_input_size:
        return timm.create_model(name, **options)
    try:
        return timm.create_model(name, **options, dynamic_img_size=True, dynamic_img_pad=True)
    except TypeError as error:
        if "dynamic_img" not in str(error):
            raise
    sizes = sorted({crop.size for crop in crops})
    if len(sizes) > 1:
        raise ValueError(f"backbone {name} takes one input size, the crops have {sizes}; give them one size")
    return timm.create_model(name, **options, img_size=sizes[0])
