"""Search spaces: what a YAML file or --space says of the flags of `multihead train`, and what a trial gets of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from multihead.arms import arm_parser, axis, known_key

if TYPE_CHECKING:
    from optuna import Trial

# what all trials have alike, or their scores would not compare
ALIKE = ("epochs", "select", "val_interval", "patience", "missing", "rows")


@dataclass(frozen=True)
class Span:
    """Numbers from low to high, both included. log: equal factors are equally likely. step: only low, low + step, ...
    whole: whole numbers only.

    Raises: ValueError for bounds that do not rise, or a step or log that do not go with them.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"low is {self.low!r}, high {self.high!r}; expected two numbers that rise")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError(f"log needs low > 0 and no step; got low {self.low!r}, step {self.step!r}")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError(f"step is {self.step!r}; expected a number > 0 that fits between low and high")
        if self.whole and any(value != int(value) for value in (self.low, self.high, self.step or 1)):
            raise ValueError(f"low {self.low!r}, high {self.high!r}, step {self.step!r}; expected whole numbers")

    def __contains__(self, value: object) -> bool:
        """True for a number that a trial may get."""
        if not isinstance(value, int | float) or isinstance(value, bool) or not self.low <= value <= self.high:
            return False
        step = self.step or (1 if self.whole else None)
        return step is None or math.isclose((value - self.low) / step, round((value - self.low) / step), abs_tol=1e-9)

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest number that a trial may get, as such."""
        high = self.high
        if self.step is not None and high not in self:
            high = self.low + self.step * ((high - self.low) // self.step)
        return (int(self.low), int(high)) if self.whole else (self.low, high)


Axis = Span | tuple[Any, ...]  # numbers, or choices: none, true, false, numbers, texts
DEFAULT: Mapping[str, Axis] = {
    "lr": Span(1e-4, 5e-3, log=True),
    "weight_decay": Span(1e-3, 0.3, log=True),
    "head_lr": Span(1, 10, log=True),
    "smoothing": Span(0, 0.2),
    "aug": ("flip", "gentle", "randaugment"),
    "loss": ("crossentropy", "focal(gamma=2)", "0.4*softf1 + 0.6*focal"),
}


def read_space(content: object, texts: Sequence[str] = ()) -> dict[str, Axis]:
    """The search space of a YAML file's `space` and of --space, whose flags win; the default one without either.

    A value is a list of choices, {low, high, log, step, int}, or a text as on the command line: adamw,madgrad or
    1e-4..1e-2:log or 16..64:16.

    Raises: ValueError that names the key, for what is no flag of a model or recipe, or no choices and no bounds.

    >>> read_space({"opt": ["adamw", "madgrad"]}, ["lr=1e-4..1e-2:log"])["lr"]
    Span(low=0.0001, high=0.01, log=True, step=None, whole=False)
    """
    if not isinstance(content, Mapping | None):
        raise ValueError(f"space holds {type(content).__name__}; expected flags, as 'lr: {{low: 1e-4, high: 1e-2}}'")
    space: dict[str, Axis] = {}
    for name, value in (content or {}).items():
        text = isinstance(value, str)
        key, values = axis(f"{name}={value}", "space") if text else (known_key(str(name), "space"), value)
        if key in space:
            raise ValueError(f"space: {key} is there twice, once as {name!r}; give every flag once")
        space[key] = _axis(key, values)
    space |= {key: _axis(key, values) for key, values in (axis(text, "--space") for text in texts)}
    for key in ALIKE:
        if key in space:
            raise ValueError(f"space: {key} is one for all trials, so that their scores compare; leave it out")
    return space or dict(DEFAULT)


def _axis(key: str, given: object) -> Axis:
    """The choices or the span of one key. Raises: ValueError that names it."""
    if isinstance(given, list) and len(given) == 1 and isinstance(given[0], str):
        given = _span_of(given[0]) or given
    try:
        if isinstance(given, Mapping):
            return _span(key, given)
        if not isinstance(given, list) or len({str(value) for value in given}) < max(1, len(given)):
            raise ValueError(f"{given!r}; expected a list of unlike choices, or {{low: 1e-4, high: 1e-2, log: true}}")
    except ValueError as error:
        raise ValueError(f"space: {key}: {error}") from None
    return tuple(_choice(value) for value in given)


def _span_of(text: str) -> dict[str, Any] | None:
    """The settings of a span's text, as 1e-4..1e-2:log or 16..64:16; None for a text that is a choice."""
    found = re.fullmatch(r"([-\d.e+]+?)\.\.([-\d.e+]+)(?::(log|[\d.e+-]+))?", text)
    if found is None:
        return None
    low, high, rest = found.groups()
    return {"low": low, "high": high} | ({} if rest is None else {"log": True} if rest == "log" else {"step": rest})


def _span(key: str, given: Mapping[Any, Any]) -> Span:
    if unknown := [name for name in given if name not in ("low", "high", "log", "step", "int")]:
        raise ValueError(f"unknown {unknown[0]!r}; expected low, high, log, step, int")
    if "low" not in given or "high" not in given:
        raise ValueError(f"{dict(given)}; expected low and high")
    action = next(action for action in arm_parser()._actions if action.dest == key)
    if action.type not in (int, float):
        raise ValueError("it takes no number; expected a list of choices")
    numbers = {name: _number(name, given[name]) for name in ("low", "high", "step") if given.get(name) is not None}
    asked = {"log": given.get("log", False), "int": given.get("int", action.type is int)}
    if wrong := [name for name, value in asked.items() if not isinstance(value, bool)]:
        raise ValueError(f"{wrong[0]} is {asked[wrong[0]]!r}; expected true or false")
    return Span(**numbers, log=asked["log"], whole=asked["int"])  # type: ignore[arg-type]


def _number(name: str, value: object) -> float:
    """A bound; YAML reads 1e-4, without a point, as text. Raises: ValueError that names it."""
    try:
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            return float(value)
    except ValueError:
        pass
    raise ValueError(f"{name} is {value!r}; expected a number")


def _choice(value: object) -> object:
    """A choice as what a study can keep: none, true or false, a number or a text."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, Mapping):
        return " ".join(f"{name}={part}" for name, part in value.items())
    return value


def suggest(trial: Trial, space: Mapping[str, Axis]) -> dict[str, Any]:
    """The value of every flag of the space that the trial is to try."""
    return {key: _suggest(trial, key, found) for key, found in space.items()}


def _suggest(trial: Trial, key: str, found: Axis) -> Any:
    if not isinstance(found, Span):
        return trial.suggest_categorical(key, found)
    low, high = found.ends
    if found.whole:
        return trial.suggest_int(key, int(low), int(high), step=int(found.step or 1), log=found.log)
    return trial.suggest_float(key, low, high, step=found.step, log=found.log)


def spell_axis(found: Axis) -> str:
    """Choices or a span as text."""
    if isinstance(found, Span):
        rest = ":log" if found.log else f":{found.step:g}" if found.step else ""
        return f"{found.low:g}..{found.high:g}{rest}"
    return "[" + ", ".join(map(str, found)) + "]"
