"""Settings as frozen dataclasses: a field's help and flag, what objects it may hold, and settings as plain data."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from numbers import Integral, Number, Real


def option(
    default: object,
    help: str,
    flag: str = "",
    factory: object = None,
    short: str = "",
    flagged: Sequence[type] | None = None,
    metavar: str = "",
) -> typing.Any:
    """A dataclass field with its help and, where it differs from the field's name, its command-line flag.

    flagged: for a field that holds an object, the classes whose own fields become flags too (default: all of them).
    metavar: what the flag's help calls its value (default: INT or FLOAT for a number, else the flag's name).
    """
    metadata = {"help": help, "flag": flag, "short": short, "flagged": flagged}
    if metavar:
        metadata["metavar"] = metavar
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)  # type: ignore[call-overload]
    return field(default=default, metadata=metadata)


def variants(kind: type) -> dict[str, tuple[type, ...]]:
    """The fields of a dataclass that hold an object, each with the dataclasses that it may be an object of."""
    found: dict[str, tuple[type, ...]] = {}
    for name, hint in typing.get_type_hints(kind).items():
        classes = dataclasses_in(hint)
        if classes:
            found[name] = classes
    return found


def dataclasses_in(hint: object) -> tuple[type, ...]:
    """The dataclasses among a type hint's members, however deep: of unions, tuples and mappings."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return (hint,)
    inner = [found for member in typing.get_args(hint) for found in dataclasses_in(member)]
    return tuple(dict.fromkeys(inner))


def takes_many(hint: object) -> bool:
    """True for a hint that allows a tuple of objects, as `Flip | tuple[Flip, ...]`."""
    members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return any(typing.get_origin(member) is tuple for member in members)


def choice(owner: str, name: str, value: object, allowed: Sequence[object]) -> None:
    """Nothing where a setting is one of the allowed. Raises: ValueError that names it, its value and what may be."""
    if value not in allowed:
        raise ValueError(f"{owner}: {name} is {value!r}; expected one of {', '.join(map(str, allowed))}")


def between(
    owner: str, name: str, value: float, low: float, high: float = float("inf"), *, open_low: bool = False
) -> None:
    """Nothing where low <= value <= high (low < value with `open_low`). Raises: ValueError with the bounds."""
    finite = isinstance(value, Real) and math.isfinite(value)
    fits = finite and value <= high and (value > low if open_low else value >= low)
    if not fits:
        sign = ">" if open_low else ">="
        text = f"{sign} {low:g}" + ("" if high == float("inf") else f" and <= {high:g}")
        raise ValueError(f"{owner}: {name} is {value!r}; expected a number {text}")


def whole(owner: str, name: str, value: object, least: int) -> int:
    """A whole number of `least` or more, numpy's too. Raises: ValueError that names it."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{owner}: {name} is {value!r}; expected a whole number >= {least}")
    return int(value)


def numbers(owner: str, name: str, values: object) -> tuple[float, ...]:
    """A tuple of finite numbers, of a list or array too. Raises: ValueError that names it.

    >>> numbers("recipe", "age_edges", [30, 58])
    (30, 58)
    """
    known = isinstance(values, Iterable) and not isinstance(values, str)
    found: list[typing.Any] = [plain_number(each) for each in values] if known else [None]  # type: ignore[attr-defined]
    if not all(isinstance(each, Real) and math.isfinite(each) for each in found):
        raise ValueError(f"{owner}: {name} is {values!r}; expected numbers")
    return tuple(found)


def near(name: str, known: Iterable[str], likeness: float = 0.5) -> str:
    """ "; did you mean ...?" with the nearest known name, "" where none is near (likeness: 0 to 1)."""
    found = difflib.get_close_matches(name, list(known), 1, likeness)
    return f"; did you mean {found[0]!r}?" if found else ""


def to_dict(settings: object) -> dict[str, object]:
    """A dataclass of settings as plain data; an object inside it becomes {"name": its class, field: value, ...}."""
    return {item.name: _plain(getattr(settings, item.name)) for item in dataclasses.fields(settings)}  # type: ignore[arg-type]


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value):
        return {"name": type(value).__name__, **to_dict(value)}
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    return plain_number(value)


def plain_number(value: object) -> object:
    """A number of numpy's as Python's, which every file holds; anything else as it is."""
    if isinstance(value, Number) and hasattr(value, "item"):
        return value.item()
    return value


def from_dict(kind: type, plain: Mapping[str, object]) -> typing.Any:
    """The settings of class `kind` that `to_dict` wrote.

    Raises: ValueError for a field or an object that is not known.
    """
    hints = typing.get_type_hints(kind)
    title = kind.__name__.lower()
    known = {item.name for item in dataclasses.fields(kind)}
    if unknown := sorted(set(plain) - known):
        raise ValueError(f"{title}: unknown fields {unknown}; expected some of {sorted(known)}")
    return kind(**{name: _object(value, hints[name], f"{title}: {name}") for name, value in plain.items()})


def _object(value: object, hint: object, where: str) -> object:
    """A plain value as what its hint says: objects rebuilt, lists as tuples."""
    if isinstance(value, (list, tuple)):
        return tuple(_object(part, hint, where) for part in value)
    if not isinstance(value, Mapping):
        return value
    classes = {found.__name__: found for found in dataclasses_in(hint)}
    if "name" not in value:
        return {key: _object(part, hint, where) for key, part in value.items()}
    if value["name"] not in classes:
        raise ValueError(f"{where} is {value['name']!r}; expected one of {sorted(classes)}")
    return from_dict(classes[str(value["name"])], {key: part for key, part in value.items() if key != "name"})
