"""Test-time augmentation: the mean of a model's answers over several views of the same photo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multihead.crops import Crop
from multihead.evaluation import Classifier, check_classifier
from multihead.folders import described, save_members
from multihead.heads import Head
from multihead.options import between, near

SHIFT, SCALES = 0.06, (0.9, 1.1)  # where the command line names no number; Gentle training sees as much
WORDS = ("flip", "shift", "scale")


@dataclass(frozen=True)
class View:
    """One look at a photo: mirrored or not, moved down and right by shares of a crop's side, enlarged by scale."""

    flip: bool = False
    down: float = 0.0
    right: float = 0.0
    scale: float = 1.0


class TTA(nn.Module):
    """A model that answers with the mean of another's joint probabilities over views of the photo.

    model: a model, an ensemble, a combination, or another TTA. The views: the photo itself; mirrored, with `flip`;
    moved by `shifts` of the crop's side up, down, left and right; and one per number of `scales`, its middle enlarged
    (above 1) or the photo made smaller (below). Each view changes one thing, and all crops of a photo alike; what
    comes in from outside the crop is its own mirror image. Answers take len(views) times as long as the model's.

    Raises: ValueError for shifts outside 0..0.5, a scale outside 0.5..2, a scale of 1, or a repeated one.

    >>> from multihead.model import Model
    >>> len(TTA(Model("test_resnet"), shifts=0.05, scales=(0.9, 1.1)).views)
    8
    """

    model: Classifier
    space: tuple[Head, ...]
    crops: tuple[Crop, ...]
    prior: tuple[float, ...] | None
    heads: tuple[Head, ...]  # only where the model has its own

    def __init__(
        self, model: Classifier, *, flip: bool = True, shifts: float = 0.0, scales: Sequence[float] = ()
    ) -> None:
        super().__init__()
        check_classifier(model)
        self.views = views(flip, shifts, scales)
        self.settings = {"flip": flip, "shifts": shifts, "scales": list(scales)}
        self.model = model
        self.space, self.crops, self.prior = model.space, model.crops, getattr(model, "prior", None)
        if hasattr(model, "heads"):
            self.heads = model.heads
        self.training = model.training

    def __repr__(self) -> str:
        """A line for itself, and one or more for its model."""
        views = [_named(view) for view in self.views]
        return described("TTA", f"mean of {len(views)} views: {', '.join(views)}", [repr(self.model)])

    def probs(self, images: Mapping[Crop, Tensor], present: Tensor | None = None) -> Tensor:
        """Joint probabilities (B, K) in float64 of uint8 images {Crop: (B, 3, H, W)}; present as in `Model`."""
        total: Tensor | None = None
        for view in self.views:
            seen = {crop: see(pixels, view) for crop, pixels in images.items() if crop in self.crops}
            answer = self.model.probs(seen, present).double()
            total = answer if total is None else total + answer
        assert total is not None
        return total / len(self.views)

    def save(self, folder: str | Path) -> None:
        """Write the model as member0, and the views; `multihead.load` opens it."""
        save_members(folder, "tta", [self.model], {"views": self.settings})


def _named(view: View) -> str:
    """What a view changes."""
    moved = [f"{name} {value:+g}" for name, value in (("down", view.down), ("right", view.right)) if value]
    changes = ["mirrored"] * view.flip + moved + [f"scale {view.scale:g}"] * (view.scale != 1)
    return " ".join(changes) or "the photo"


def views(flip: bool = True, shifts: float = 0.0, scales: Sequence[float] = ()) -> tuple[View, ...]:
    """The views that these settings of `TTA` name, the photo itself first.

    Raises: ValueError as `TTA` does.
    """
    between("tta", "shifts", shifts, 0, 0.5)
    for scale in scales:
        between("tta", "scales", scale, 0.5, 2)
    if 1 in scales or len(set(scales)) < len(scales):
        raise ValueError(f"tta: scales are {tuple(scales)}; expected unlike numbers, none of them 1 (the photo itself)")
    found = [View()]
    if flip:
        found.append(View(flip=True))
    if shifts:
        found += [View(down=-shifts), View(down=shifts), View(right=-shifts), View(right=shifts)]
    return (*found, *(View(scale=scale) for scale in scales))


def see(pixels: Tensor, view: View) -> Tensor:
    """The pixels (B, 3, H, W) uint8 of one crop as the view shows them, of the same size; shifts and margins are whole
    pixels."""
    height, width = pixels.shape[2:]
    if view == View():
        return pixels
    rows, columns = _window(height, view.down, view.scale), _window(width, view.right, view.scale)
    part = pixels[:, :, rows.to(pixels.device)[:, None], columns.to(pixels.device)]  # (B, 3, h, w)
    if view.flip:
        part = part.flip(3)
    if part.shape != pixels.shape:
        resized = F.interpolate(part.float(), (height, width), mode="bilinear", antialias=True)
        part = resized.round().clamp(0, 255).to(torch.uint8)
    channels_last = pixels.is_contiguous(memory_format=torch.channels_last)
    return part.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _window(side: int, shift: float, scale: float) -> Tensor:
    """Which pixels of a side the view shows, in order; those outside are reflected at the edge, as in `Gentle`."""
    margin = round((side / scale - side) / 2)  # the same on both ends, so the middle stays in the middle
    start = -margin - round(shift * side)
    shown = torch.arange(start, start + side + 2 * margin).abs()
    return (side - 1) - (side - 1 - shown).abs()


def from_names(model: Classifier, names: Sequence[str]) -> TTA:
    """The TTA that words of a command line ask for: flip, shift, scale, or with numbers shift=0.06, scale=0.9,1.1.

    Raises: ValueError for an unknown or repeated word, or what is no number.

    >>> from multihead.model import Model
    >>> len(from_names(Model("test_resnet"), ["flip", "scale=1.2"]).views)
    3
    """
    asked: dict[str, str] = {}
    for text in names:
        word, _, value = text.strip().partition("=")
        if word not in WORDS:
            hint = near(word, WORDS) or f"; expected some of {', '.join(WORDS)}"
            raise ValueError(f"tta: unknown view {text!r}{hint}")
        if word in asked:
            raise ValueError(f"tta: {word!r} is named twice; join several scales as scale=0.9,1.1")
        asked[word] = value
    if asked.get("flip"):
        raise ValueError(f"tta: flip takes no value, got {asked['flip']!r}; leave the word out for no mirrored view")
    shifts = _numbers("shift", asked["shift"], (SHIFT,)) if "shift" in asked else (0.0,)
    if len(shifts) != 1:
        raise ValueError(f"tta: shift takes one number, got {asked['shift']!r}; for example shift=0.06")
    scales = _numbers("scale", asked["scale"], SCALES) if "scale" in asked else ()
    return TTA(model, flip="flip" in asked, shifts=shifts[0], scales=scales)


def _numbers(word: str, text: str, default: tuple[float, ...]) -> tuple[float, ...]:
    """The numbers of a text like 0.9,1.1, or the default where there is none."""
    if not text:
        return default
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"tta: {word}={text} is not made of numbers; for example {word}=0.9") from None
