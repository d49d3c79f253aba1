"""Multi-head classifiers of faces and people: mask, gender and age from one backbone, as one joint distribution.

Names are imported when they are first used, so `import multihead` loads neither torch nor pandas.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_NAMES = {
    "labels": ["Head", "MASK", "GENDER", "AGE", "HEADS", "FLAT", "flat", "encode", "decode", "joint", "marginals"],
    "crops": ["Crop", "FACE", "BODY", "FULL"],
    "data": ["Photos", "LeakError"],
    "reading": ["read"],
    "model": ["Model"],
    "recipe": ["Recipe", "EMA"],
    "optim": ["AdamW", "Adam", "SGD", "MADGRAD"],
    "schedules": ["OneCycle", "Cosine", "Step", "Cyclic", "Constant"],
    "augment": ["Flip", "Diary", "Gentle", "Plain"],
    "train": ["epochs", "fit"],
    "evaluation": ["evaluate"],
    "metrics": ["Scores", "score"],
    "prediction": ["predict", "submission"],
    "ensemble": ["Ensemble", "combine", "load"],
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}
__all__ = ["__version__", *sorted(_HOME)]

if TYPE_CHECKING:
    from multihead.augment import Diary, Flip, Gentle, Plain
    from multihead.crops import BODY, FACE, FULL, Crop
    from multihead.data import LeakError, Photos
    from multihead.ensemble import Ensemble, combine, load
    from multihead.evaluation import evaluate
    from multihead.labels import AGE, FLAT, GENDER, HEADS, MASK, Head, decode, encode, flat, joint, marginals
    from multihead.metrics import Scores, score
    from multihead.model import Model
    from multihead.optim import MADGRAD, SGD, Adam, AdamW
    from multihead.prediction import predict, submission
    from multihead.reading import read
    from multihead.recipe import EMA, Recipe
    from multihead.schedules import Constant, Cosine, Cyclic, OneCycle, Step
    from multihead.train import epochs, fit


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'multihead' has no name {name!r}")
    value = getattr(importlib.import_module(f"multihead.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
