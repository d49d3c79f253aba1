"""What a model is asked with: the pixels of its crops, and which crops a photo has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from multihead.configs import crop_texts
from multihead.crops import Crop


def check_given(images: Mapping[Crop, Tensor], present: Tensor | None, crops: Sequence[Crop]) -> Tensor | None:
    """Which crops are there, as bools (B, crops), None for all of them: a table of 0 and 1 would pick rows by number.

    images: uint8 {Crop: (B, 3, H, W)}. present: (B, crops), in the order of `crops`, or None.

    Raises: TypeError for images that are no mapping; KeyError for a missing crop; ValueError for images that are not
    uint8 (B, 3, H, W) of the crop's size, or `present` of another shape.
    """
    if not isinstance(images, Mapping):
        raise TypeError(
            f"images is {type(images).__name__}; expected {{crop: uint8 (B, 3, H, W)}}, crops of model.crops; "
            "multihead.predict(model, photos) answers for photos"
        )
    if lacking := [crop for crop in crops if crop not in images]:
        needed, there, gone = map(crop_texts, (crops, images, lacking))
        raise KeyError(
            f"model needs crops {needed}, batch has {there}, not {gone}; pass crops=model.crops to the data set"
        )
    for crop in crops:
        _check_pixels(images[crop], crop)
    if present is None:
        return None
    expected = (images[crops[0]].shape[0], len(crops))  # no len(): a graph is traced for any number of rows
    if tuple(present.shape) != expected:
        raise ValueError(
            f"present has shape {tuple(present.shape)}; expected {expected}, a row a photo and a column for each of "
            f"the crops {crop_texts(crops)}"
        )
    return present.bool()


def _check_pixels(pixels: Tensor, crop: Crop) -> None:
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or tuple(pixels.shape[1:]) != (3, *crop.size):
        raise ValueError(
            f"crop {crop.name!r} expects uint8 (B, 3, {crop.size[0]}, {crop.size[1]}), "
            f"got {pixels.dtype} {tuple(pixels.shape)}; pass pixels of 0..255, normalisation happens inside"
        )
