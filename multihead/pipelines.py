"""Pipelines of albumentations: those of Diary and RandAugment, and a user's own, which is kept as text."""

from __future__ import annotations

import json
import os
import random
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

EXPECTED = "expected an albumentations pipeline, as A.Compose([...]), or a JSON or YAML file that A.save wrote of one"


def written(pipeline: object) -> str:
    """A pipeline or single transform of albumentations, a file of one, or its JSON, as JSON.

    Raises: ValueError that says what is wrong with it: no file, no pipeline, a part that has no name to be found by.
    """
    if isinstance(pipeline, str | os.PathLike):
        text = os.fspath(pipeline)
        if not text:
            raise ValueError(f"albumentations: there is no pipeline; {EXPECTED}")
        return _of_text(text, "its text") if text.lstrip().startswith("{") else _of_file(Path(text))
    try:
        text = json.dumps(_albumentations().to_dict(pipeline)["transform"], sort_keys=True)
    except Exception as error:  # whatever a transform says of itself
        what = f"{_short(pipeline)} cannot be written down ({_first(error)})"
        raise ValueError(f"albumentations: {what}; {EXPECTED}") from None
    built(text)
    return text


def built(text: str) -> Any:
    """The pipeline that `written` wrote, as an A.Compose.

    Raises: ValueError where this version of albumentations has no such transform or argument.
    """
    A = _albumentations()
    what = f"this pipeline cannot be made by version {A.__version__}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # also of what albumentations itself wrote
        try:
            made = A.from_dict({"transform": json.loads(text)})
            again = A.to_dict(made)["transform"]
        except Exception as error:  # whatever a transform says of its arguments
            raise ValueError(f"albumentations: {what} ({_first(error)}): {_short(text)}; {EXPECTED}") from error
    if ignored := sorted(_words(json.loads(text)) - _words(again)):  # albumentations only warns of those
        raise ValueError(f"albumentations: {what} (it does not know {', '.join(ignored)}): {_short(text)}")
    return made if isinstance(made, A.Compose) else A.Compose([made])


def run(pipeline: Any, crops: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """The crops (H, W, 3) uint8 of one photo after a pipeline, each changed by the same numbers.

    Every part draws numbers of its own from the seed; `set_random_seed` would give all the same, and parts of equal
    probability would then come together or not at all.

    Raises: ValueError where a crop comes out in another size or type.
    """
    import numpy as np

    parts = list(_parts(pipeline))
    seeds = np.random.default_rng(seed).integers(2**32, size=len(parts)).tolist()
    changed = []
    for crop in crops:
        for part, own in zip(parts, seeds, strict=True):
            part.random_generator, part.py_random = np.random.default_rng(own), random.Random(own)
        result = pipeline(image=crop)["image"]
        if getattr(result, "shape", None) != crop.shape or result.dtype != np.uint8:
            found = f"{getattr(result, 'dtype', type(result).__name__)} {tuple(getattr(result, 'shape', ()))}"
            raise ValueError(
                f"albumentations: a crop of uint8 {crop.shape} became {found}; expected its size and type again: "
                "leave resizing, normalising and tensors to the model"
            )
        changed.append(result)
    return changed


def diary(probability: float) -> Any:
    """One of brightness, contrast, saturation and hue, strongly, in a share of the photos."""
    A = _albumentations()
    still: dict[str, Any] = {"brightness": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "hue": (0, 0)}
    moves = {"brightness": (0.2, 3), "contrast": (0.2, 3), "saturation": (0.2, 3), "hue": (-0.3, 0.3)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jitters = [A.ColorJitter(**(still | {name: reach}), p=1) for name, reach in moves.items()]
        return A.Compose([A.OneOf(jitters, p=probability)])


def rand_augment(num_ops: int, magnitude: float) -> Any:
    """So many unlike operations of RandAugment's list, at a magnitude of 0 to 10."""
    A = _albumentations()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return A.Compose([A.SomeOf(_operations(magnitude / 10), n=num_ops, replace=False, p=1)])


def _operations(strength: float) -> list[Any]:
    """RandAugment's ten operations at a strength of 0 to 1; those with a direction go either way, along one axis."""
    A = _albumentations()
    still = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0}
    ways = (-strength, strength)
    blur = A.GaussianBlur(blur_limit=(3, 3), sigma_limit=(max(strength, 0.01),) * 2, p=1)  # 0 would mean any
    operations = [
        [_fixed(A.ColorJitter, still | {name: 1 + 0.9 * way}) for way in ways]
        for name in ("brightness", "contrast", "saturation")
    ]
    operations += [[blur, A.Sharpen(alpha=(0.3 * strength,) * 2, lightness=(1, 1), p=1)]]
    operations += [[A.AutoContrast(method="pil", p=1)], [A.Equalize(by_channels=False, p=1)]]
    operations += [[A.Posterize(num_bits=8 - round(4 * strength), p=1)] if strength >= 0.125 else [A.NoOp()]]
    operations += [[_affine(rotate=(20 * way,) * 2) for way in ways]]
    for name, most in (("shear", 15.0), ("translate_percent", 0.15)):
        turned = [{"x": most * way, "y": 0.0} for way in ways] + [{"x": 0.0, "y": most * way} for way in ways]
        operations += [[_affine(**{name: {axis: (v, v) for axis, v in one.items()}}) for one in turned]]
    return [A.OneOf(group, p=1) for group in operations]


def _fixed(kind: Any, values: dict[str, float]) -> Any:
    """An albumentations change that draws nothing."""
    return kind(**{name: (value, value) for name, value in values.items()}, p=1)


def _affine(**ranges: Any) -> Any:
    """An albumentations move that fills what it uncovers with the photo's mirror image."""
    import cv2

    return _albumentations().Affine(**ranges, border_mode=cv2.BORDER_REFLECT_101, p=1)


def _words(plain: Any) -> set[str]:
    """The names of all arguments in a pipeline as plain data, with their transforms."""
    if isinstance(plain, list):
        return {word for part in plain for word in _words(part)}
    if not isinstance(plain, dict):
        return set()
    own = {f"{plain.get('__class_fullname__', '')}.{name}" for name in plain}
    return own | {word for part in plain.values() for word in _words(part)}


def _parts(pipeline: Any) -> Iterator[Any]:
    """A pipeline and all that is in it, in order."""
    yield pipeline
    for part in getattr(pipeline, "transforms", ()):
        yield from _parts(part)


def _of_file(path: Path) -> str:
    try:
        return _of_text(path.read_text(encoding="utf-8"), repr(str(path)))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise ValueError(f"albumentations: {str(path)!r} cannot be read ({reason}); {EXPECTED}") from None


def _of_text(text: str, where: str) -> str:
    import yaml

    try:
        found = json.loads(text)  # YAML would read its 1e-05 as a word
    except json.JSONDecodeError:
        try:
            found = yaml.safe_load(text)
        except yaml.YAMLError as error:
            what = f"{where} is neither JSON nor YAML ({_first(error)})"
            raise ValueError(f"albumentations: {what}; {EXPECTED}") from None
    found = found.get("transform", found) if isinstance(found, dict) else None
    if not isinstance(found, dict) or "__class_fullname__" not in found:
        raise ValueError(f"albumentations: {where} holds no pipeline; {EXPECTED}")
    return json.dumps(found, sort_keys=True)


def _first(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _short(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 120 else f"{text[:120]}..."


def _albumentations() -> Any:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the network for news
    import albumentations

    return albumentations
