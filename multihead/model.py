"""The multi-head model: one timm backbone, one pass per distinct crop, one linear layer per head."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from multihead import heads as tables
from multihead import labels as algebra
from multihead.backbones import create_backbone, feature_width, statistic
from multihead.configs import card, config_text, read_config, reads
from multihead.crops import Crop
from multihead.files import replace_file
from multihead.given import check_given
from multihead.heads import HEADS, Head

PASSES = ("forward", "features", "normalise", "probs")  # what a subclass that answers otherwise has its own of


class Model(nn.Module, PyTorchModelHubMixin):
    """A backbone that reads each distinct crop once and answers every head from the features of its crops.

    backbone: any timm model name. heads: a table of heads (`multihead.HEADS`, `multihead.FLAT`, your own).
    pretrained: True downloads timm's weights, a path reads them from a file (.safetensors, .pth), False starts at
    random. drop: dropout before the heads; drop_path: stochastic depth in the backbone. mean, std: statistics of
    pixels in 0..1, by default the weights' own. prior: share of each joint class (K,) among the training photos, set by
    training; the answer where a photo cannot be read.

    What starts at random, the heads always, is drawn by torch: `torch.manual_seed` before makes two models alike.
    `save_pretrained(folder)` writes it, `multihead.load` opens it again.

    `forward` takes uint8 images {Crop: (B, 3, H, W)} and returns {head name: logits (B, classes)}.

    Raises: ValueError for an unknown backbone (with the nearest names) or statistics that are none of 0..1,
    FileNotFoundError for missing weights.

    >>> from multihead.crops import FULL
    >>> crop = FULL.resized(64)
    >>> model = Model("resnet10t", heads=[HEADS[0].on(crop)])
    >>> model({crop: torch.zeros(2, 3, 64, 64, dtype=torch.uint8)})["mask"].shape
    torch.Size([2, 3])
    """

    _mean: Tensor
    _std: Tensor

    def __init__(
        self,
        backbone: str = "resnet18",
        heads: Sequence[Head] = HEADS,
        pretrained: bool | str | Path = False,
        *,
        drop: float = 0.0,
        drop_path: float = 0.0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        prior: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(backbone, str):
            what = "a backbone of your own is registered with timm (timm.models.register_model)"
            raise TypeError(f"backbone is {type(backbone).__name__}; expected the name of a timm model; {what}")
        if not tables.base(heads := [heads] if isinstance(heads, Head) else heads):
            raise ValueError("a model needs at least one head; multihead.HEADS are mask, gender and age")
        self.heads = tuple(heads)
        if taken := [head.name for head in self.heads if hasattr(nn.ModuleDict(), head.name)]:
            name = f"my_{taken[0]}"
            raise ValueError(
                f"head name {taken[0]!r} is what torch calls something of its own in every group of layers; take "
                f"another, as {name!r} with columns={{{name!r}: {taken[0]!r}}} (--columns {name}={taken[0]})"
            )
        self.space = tables.space(self.heads)
        self.crops = tables.crops(self.heads)
        self.backbone_name = backbone
        self.rates = {"drop": drop, "drop_path": drop_path}
        self.backbone = create_backbone(backbone, self.crops, pretrained, drop_path)
        width = feature_width(self.backbone, self.crops[0])
        self.drop = nn.Dropout(drop)
        self.head = nn.ModuleDict(
            {head.name: nn.Linear(width * len(head.crops), len(head.classes)) for head in self.heads}
        )
        self.absent = nn.Parameter(torch.zeros(len(self.crops), width))
        self.mean, self.std = (statistic(self.backbone, name, each) for name, each in (("mean", mean), ("std", std)))
        self.prior = None if prior is None else tuple(prior)
        self.register_buffer("_mean", torch.tensor(self.mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("_std", torch.tensor(self.std).view(1, 3, 1, 1) * 255, persistent=False)
        self._made = _shapes(self)  # what config.json describes

    def __repr__(self) -> str:
        """One line; print(model.backbone) shows the layers."""
        numbers = sum(parameter.numel() for parameter in self.parameters())
        return f"Model({self.backbone_name!r}, {reads(self.heads)}; {numbers / 1e6:.2f} million parameters)"

    def forward(self, images: Mapping[Crop, Tensor], present: Tensor | None = None) -> dict[str, Tensor]:
        """Logits {head: (B, classes)} of uint8 images {Crop: (B, 3, H, W)}.

        present: (B, crops) in the order of `model.crops`; an absent crop's pixels are not read, its features are a
        learned vector. None means that every crop is there.

        Raises: KeyError for a missing crop; ValueError for images that are not uint8 (B, 3, H, W) of the crop's size,
        or `present` of another shape.
        """
        features = self.features(images, present)
        logits = {}
        for head in self.heads:
            joined = torch.cat([features[crop] for crop in head.crops], 1)  # (B, D * crops of the head)
            logits[head.name] = self.head[head.name](self.drop(joined))
        return logits

    def features(self, images: Mapping[Crop, Tensor], present: Tensor | None = None) -> dict[Crop, Tensor]:
        """Features {Crop: (B, D)}: the backbone runs once per distinct crop, on the rows that have it."""
        there = check_given(images, present, self.crops)
        found = {}
        for column, crop in enumerate(self.crops):
            pixels = images[crop]
            rows = None if there is None else there[:, column].to(pixels.device)
            if rows is None or bool(rows.all()):
                seen = self._seen(pixels)
                found[crop] = seen + 0 * self.absent[column].to(seen.dtype)  # keeps a gradient on every process
                continue
            vector = self.absent[column].expand(len(pixels), -1)
            if bool(rows.any()):
                shown = pixels[rows]
                if self.training and len(shown) == 1:
                    shown = shown.expand(2, -1, -1, -1)  # batch norm cannot train on one row
                seen = self._seen(shown)[: int(rows.sum())]
                vector = vector.to(seen.dtype).index_put((rows.nonzero()[:, 0],), seen)
            found[crop] = vector  # (B, D)
        return found

    def _seen(self, pixels: Tensor) -> Tensor:
        try:
            return self.backbone(self.normalise(pixels))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            high, wide = pixels.shape[2:]
            raise ValueError(
                f"{self.backbone_name} cannot learn from a batch of one photo of {high}x{wide}: its batch norms see "
                "one number a channel; expected 2 photos a batch or more (-b), or larger crops (--resize)"
            ) from error

    def normalise(self, pixels: Tensor) -> Tensor:
        """Float images of uint8 ones, by the mean and std of the weights; keeps the memory format."""
        images = pixels.to(self._mean.dtype)
        if images.device.type != "cpu" or not images.is_contiguous(memory_format=torch.channels_last):
            return (images - self._mean) / self._std
        # whole rows of (W * 3) numbers: a processor takes several times as long for three at a time
        lines = images.permute(0, 2, 3, 1).flatten(2)
        mean, std = (part.flatten().repeat(images.shape[3]) for part in (self._mean, self._std))
        return ((lines - mean) / std).view(images.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)

    def probs(self, images: Mapping[Crop, Tensor], present: Tensor | None = None) -> Tensor:
        """Joint probabilities (B, K), in float64 so that a product of heads sums to one."""
        logits = self(images, present)
        return algebra.joint({name: row.double().softmax(1) for name, row in logits.items()}, self.heads)

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write config.json, model.safetensors and README.md; `multihead.load` opens the folder. options: as
        huggingface_hub's `PyTorchModelHubMixin.save_pretrained` takes them, as push_to_hub=True.

        Raises: ValueError for a model that a folder does not describe (see `check_described`); OSError of the file
        system. What an older model of the folder needs is then as it was.
        """
        check_described(self)
        config, weights = (Path(save_directory) / name for name in ("config.json", "model.safetensors"))
        before = (config.read_bytes(), weights.stat()) if config.is_file() and weights.is_file() else None
        try:
            found: str | None = super().save_pretrained(save_directory, **options)  # which removes config.json first
            return found
        except BaseException:
            if before is not None and not config.exists() and os.path.samestat(before[1], weights.stat()):
                config.write_bytes(before[0])
            raise

    def _save_pretrained(self, save_directory: Path) -> None:

        settings = {**self.rates, "mean": list(self.mean), "std": list(self.std), "prior": self.prior}
        text = config_text(self.backbone_name, self.heads, settings)
        state = {name: value.detach().contiguous() for name, value in self.state_dict().items()}
        weights = save_directory / "model.safetensors"
        replace_file(weights, lambda fresh: _write_weights(state, fresh))
        replace_file(save_directory / "config.json", lambda fresh: fresh.write_text(text))

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: object) -> Model:  # type: ignore[override]
        import safetensors.torch

        folder = Path(model_id)
        hub: dict[str, Any] = {name: options.pop(name, None) for name in ("revision", "cache_dir", "token")}
        local: dict[str, Any] = {
            name: bool(options.pop(name, False)) for name in ("force_download", "local_files_only")
        }
        options.pop("proxies", None), options.pop("resume_download", None), options.pop("config", None)
        if not folder.is_dir():
            from huggingface_hub import hf_hub_download

            folder = Path(hf_hub_download(model_id, "config.json", **hub, **local)).parent  # type: ignore[arg-type]
            hf_hub_download(model_id, "model.safetensors", **hub, **local)  # type: ignore[arg-type]
        model = cls(**(read_config(folder) | {"pretrained": False}))  # type: ignore[arg-type]
        weights = folder / "model.safetensors"
        try:
            model.load_state_dict(safetensors.torch.load_file(weights))
        except (safetensors.SafetensorError, RuntimeError) as error:
            raise ValueError(f"{weights} does not hold the weights that config.json describes: {error}") from error
        return model.eval()

    def generate_model_card(self, *args: object, **kwargs: object):  # type: ignore[no-untyped-def]
        """The model card: what it answers, what it reads, how to use it, and what it must not be used for."""
        from huggingface_hub import ModelCard

        return ModelCard(card(self.backbone_name, self.heads))


def _write_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Raises: OSError of the file system, which safetensors tells of by an error of its own."""
    import safetensors.torch

    try:
        safetensors.torch.save_file(dict(state), path, metadata={"format": "pt"})
    except safetensors.SafetensorError as error:
        if (found := re.search(r"\(os error (\d+)\)", str(error))) is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1]))) from error


def check_described(model: Model) -> None:
    """Nothing where a model folder describes the model, which opens as `Model` of the same layers then.

    Raises: ValueError for a head that is not linear, other layers than the backbone's own, or a class that answers in
    its own way.
    """
    keep = "keep a network of your own by torch.save"
    if changed := [name for name, part in model.head.items() if type(part) is not nn.Linear]:
        kind = type(model.head[changed[0]]).__name__
        raise ValueError(
            f"head {changed[0]!r} is a {kind}; a model folder describes linear heads, and would not open: {keep}"
        )
    if own := [name for name in PASSES if getattr(type(model), name) is not getattr(Model, name)]:
        raise ValueError(
            f"{type(model).__name__} has its own {own[0]}; a model folder opens as multihead.Model, which would answer "
            f"otherwise: {keep}"
        )
    found = _shapes(model)
    made = getattr(model, "_made", found)
    if unlike := [name for name in {**made, **found} if made.get(name) != found.get(name)]:
        raise ValueError(
            f"{unlike[0]} and {len(unlike) - 1} other weights are not those of {model.backbone_name} as timm makes it; "
            f"a model folder describes that one, and would not open: {keep}"
        )


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}
