"""Multi-head classifiers of faces and people: mask, gender and age from one backbone, as one joint distribution.

Names are imported when they are first used, so `import multihead` loads neither torch nor pandas.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_NAMES = {
    "heads": ["Head", "MASK", "GENDER", "AGE", "HEADS", "FLAT", "flat"],
    "labels": ["encode", "decode", "joint", "marginals"],
    "crops": ["Crop", "FACE", "BODY", "FULL"],
    "data": ["Photos"],
    "leaks": ["LeakError"],
    "reading": ["read"],
    "model": ["Model"],
    "recipe": ["Recipe", "EMA"],
    "optim": ["AdamW", "Adam", "SGD", "MADGRAD", "Timm"],
    "schedules": ["OneCycle", "Cosine", "CosineRestarts", "Step", "Cyclic", "Plateau", "Constant"],
    "augment": [
        "Flip",
        "Diary",
        "Gentle",
        "Plain",
        "RandAugment",
        "Cutout",
        "CLAHE",
        "Grey",
        "BoxJitter",
        "Albumentations",
    ],
    "masks": ["DrawnMask"],
    "mixing": ["CutMix", "MixUp", "InvertedCutMix"],
    "losses": ["CrossEntropy", "Focal", "SoftF1", "SymmetricCrossEntropy", "Ordinal", "Sum", "Custom"],
    "balance": ["Fixed", "Uncertainty", "DWA"],
    "samplers": ["Weighted", "Shares"],
    "train": ["epochs", "fit"],
    "by_hand": ["Batches"],
    "evaluation": ["evaluate"],
    "metrics": ["Scores", "score"],
    "prediction": ["predict", "stream", "submission"],
    "tta": ["TTA"],
    "teaching": ["pseudo_label", "soften"],
    "calibrate": ["fit_temperatures"],
    "voting": ["person_vote"],
    "adjusted": ["Adjusted"],
    "joined": ["Ensemble", "combine", "load"],
    "ways": ["Arm"],
    "comparison": ["compare"],
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}
__all__ = ["__version__", *sorted(_HOME)]

if TYPE_CHECKING:
    from multihead import calibrate, checkpoint, decoding, ensemble, export, nested, paired, plots, soup, splits
    from multihead.adjusted import Adjusted
    from multihead.augment import (
        CLAHE,
        Albumentations,
        BoxJitter,
        Cutout,
        Diary,
        Flip,
        Gentle,
        Grey,
        Plain,
        RandAugment,
    )
    from multihead.balance import DWA, Fixed, Uncertainty
    from multihead.by_hand import Batches
    from multihead.calibrate import fit_temperatures
    from multihead.comparison import compare
    from multihead.crops import BODY, FACE, FULL, Crop
    from multihead.data import Photos
    from multihead.evaluation import evaluate
    from multihead.heads import AGE, FLAT, GENDER, HEADS, MASK, Head, flat
    from multihead.joined import Ensemble, combine, load
    from multihead.labels import decode, encode, joint, marginals
    from multihead.leaks import LeakError
    from multihead.losses import CrossEntropy, Custom, Focal, Ordinal, SoftF1, Sum, SymmetricCrossEntropy
    from multihead.masks import DrawnMask
    from multihead.metrics import Scores, score
    from multihead.mixing import CutMix, InvertedCutMix, MixUp
    from multihead.model import Model
    from multihead.optim import MADGRAD, SGD, Adam, AdamW, Timm
    from multihead.prediction import predict, stream, submission
    from multihead.reading import read
    from multihead.recipe import EMA, Recipe
    from multihead.samplers import Shares, Weighted
    from multihead.schedules import Constant, Cosine, CosineRestarts, Cyclic, OneCycle, Plateau, Step
    from multihead.teaching import pseudo_label, soften
    from multihead.train import epochs, fit
    from multihead.tta import TTA
    from multihead.voting import person_vote
    from multihead.ways import Arm


if not TYPE_CHECKING:  # else a misspelled name would be anything

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            if name.startswith("_") or not name.isidentifier() or importlib.util.find_spec(f"multihead.{name}") is None:
                raise AttributeError(f"module 'multihead' has no name {name!r}")
            return importlib.import_module(f"multihead.{name}")  # as multihead.export
        value = getattr(importlib.import_module(f"multihead.{_HOME[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__
