"""Command-line flags made from dataclasses of settings, and the settings made from flags or a YAML file."""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from multihead.options import takes_many, variants
from multihead.parsers import Last, one_of, or_none, pair, span
from multihead.spelling import Spelled, spelled


def add_flags(parser: argparse.ArgumentParser, kind: type, title: str) -> None:
    """One flag per field of a dataclass (its name, or its metadata's flag), without a default: unset is None.

    A field that may hold one of several dataclasses becomes a flag for the name and one for each of their fields.
    """
    group = parser.add_argument_group(title)
    hints, objects = typing.get_type_hints(kind), variants(kind)
    for item in dataclasses.fields(kind):
        if item.name not in objects:
            _add(group, item, hints[item.name], item.default if item.default is not dataclasses.MISSING else None)
            continue
        classes = objects[item.name]
        if is_switch(item, hints[item.name], classes):
            group.add_argument(
                flag(item),
                dest=dest(item),
                action=argparse.BooleanOptionalAction,
                default=None,
                help=f"{_help(item)} (default {'off' if _standard(item) == 'none' else 'on'})",
            )
        else:
            text = (
                f"{_help(item)}: {', '.join(found.__name__.lower() for found in classes)} (default {_standard(item)})"
            )
            many = "+" if _plural(hints[item.name]) else None
            take = _spelled(item, classes)
            group.add_argument(
                flag(item), dest=dest(item), type=take, nargs=many, metavar="NAME", help=text, action=Last
            )
        _add_fields(group, flagged(item, classes))


def is_switch(item: dataclasses.Field[Any], hint: Any, classes: Sequence[type]) -> bool:
    """True for a setting that is on or off, with flags of its own, as --model-ema."""
    return types.NoneType in typing.get_args(hint) and len(classes) == 1


def _plural(hint: Any) -> bool:
    """True where several objects may be given: in order, or one a head."""
    return takes_many(hint) or _by_name(hint)


def _by_name(hint: Any) -> bool:
    return any(typing.get_origin(member) is typing.get_origin(Mapping[str, int]) for member in typing.get_args(hint))


def _standard(item: dataclasses.Field[Any]) -> str:
    made = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
    return "none" if made is None else type(made).__name__.lower()


def flagged(item: dataclasses.Field[Any], classes: Sequence[type]) -> Sequence[type]:
    """Those of a setting's classes whose fields are flags too."""
    chosen = item.metadata.get("flagged")
    return classes if chosen is None else chosen


def _spelled(item: dataclasses.Field[Any], classes: Sequence[type]) -> Callable[[str], Any]:
    """A flag's type: a name among the classes, or an object as text; (head, either) for head=text."""
    names = [found.__name__.lower() for found in classes]
    optional = item.default is None and item.default_factory is dataclasses.MISSING

    def take(text: str) -> Any:
        head, mark, rest = text.partition("=")
        if mark and head.isidentifier() and "(" not in head:
            return head, take(rest)
        plain = text.strip().lower().replace("_", "")
        if plain in names or plain == "none" and optional:
            return plain
        if plain.replace("-", "").isalnum() and not plain[:1].isdigit():
            return one_of(names)(text)
        try:
            return spelled(text, classes)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return take


def _add_fields(group: Any, classes: Sequence[type]) -> None:
    for found in classes:
        hints = typing.get_type_hints(found)
        for item in dataclasses.fields(found):
            if not any(flag(item) in action.option_strings for action in group._actions):
                defaults = {
                    c.__name__.lower(): f.default for c in classes for f in dataclasses.fields(c) if f.name == item.name
                }
                same = len(set(defaults.values())) == 1
                shown = item.default if same else ", ".join(f"{name} {value}" for name, value in defaults.items())
                _add(group, item, hints[item.name], shown)


def _add(group: Any, item: dataclasses.Field[Any], hint: Any, default: object) -> None:
    text = _help(item) + ("" if default in (None, "", ()) else f" (default {_shown(default)})".replace("%", "%%"))
    names = [name for name in (item.metadata.get("short"), flag(item)) if name]
    plain = _plain(hint)
    if plain is bool:
        group.add_argument(*names, dest=dest(item), action=argparse.BooleanOptionalAction, default=None, help=text)
    elif typing.get_origin(plain) is tuple:
        of = typing.get_args(plain)[0]
        spans = typing.get_origin(of) is tuple
        take, metavar = (span, "FROM-TO") if spans else (of, item.metadata.get("metavar"))
        group.add_argument(*names, dest=dest(item), type=take, nargs="+", help=text, metavar=metavar)
    elif plain is Mapping or typing.get_origin(plain) in (Mapping, typing.get_origin(Mapping[str, float])):
        of = typing.get_args(plain)[1]
        group.add_argument(*names, dest=dest(item), type=pair(of), nargs="+", help=text, metavar="NAME=VALUE")
    else:
        metavar = item.metadata.get("metavar")
        if plain in (int, float) and item.default is None:
            plain, metavar = or_none(plain), metavar or plain.__name__.upper()
        group.add_argument(*names, dest=dest(item), type=plain, help=text, metavar=metavar, action=Last)


def build(kind: type, values: Mapping[str, Any]) -> Any:
    """The dataclass from parsed flags; what was not given keeps its default.

    Raises: ValueError where a flag does not belong to the chosen object, as --momentum with --opt adamw.
    """
    chosen: dict[str, Any] = {}
    objects, hints = variants(kind), typing.get_type_hints(kind)
    for item in dataclasses.fields(kind):
        value = values.get(dest(item))
        if item.name in objects:
            made = _objects(item, objects[item.name], hints[item.name], value, values)
            if made is not _UNSET:
                chosen[item.name] = made
        elif value is not None:
            pairs = isinstance(value, list) and typing.get_origin(_plain(hints[item.name])) is not tuple
            chosen[item.name] = dict(value) if pairs else tuple(value) if isinstance(value, list) else value
    return kind(**chosen)


_UNSET = object()


def _objects(
    item: dataclasses.Field[Any], classes: Sequence[type], hint: Any, value: Any, values: Mapping[str, Any]
) -> Any:
    """The object of a flag, a tuple of them in order, or {head: object}."""
    if isinstance(value, tuple):
        value = [value]
    if not isinstance(value, list):
        return _object(item, classes, value, values)
    named = [part for part in value if isinstance(part, tuple)]
    if named and (len(named) < len(value) or not _by_name(hint)):
        raise ValueError(
            f"{flag(item)}: give one for all, or each as {named[0][0]}=NAME"
            if _by_name(hint)
            else f"{flag(item)}: {named[0][0]}=... is not to be read; give names, in order"
        )
    if len(dict(named)) < len(named):
        raise ValueError(f"{flag(item)}: {' '.join(head for head, _ in named)}; expected each head once")
    if named:
        return {head: _object(item, classes, part, {}) for head, part in named}
    if len(value) == 1:
        return _object(item, classes, value[0], values)
    if not takes_many(hint):
        raise ValueError(f"{flag(item)} takes one object, or one a head as age=NAME; got {len(value)}")
    # a flag such as --hflip belongs to the first object that has it
    taken: set[str] = set()
    made = []
    for part in value:
        kind = _kind(part, classes)
        own = {dest(f) for f in dataclasses.fields(kind)} - taken if kind in flagged(item, classes) else set()
        taken |= own
        made.append(_object(item, classes, part, {key: values[key] for key in values if key in {*own, dest(item)}}))
    kinds = flagged(item, classes)
    idle = {dest(f) for c in kinds for f in dataclasses.fields(c) if values.get(dest(f)) is not None} - taken
    if idle:
        raise ValueError(f"--{min(idle).replace('_', '-')} has no meaning for {flag(item)} {' '.join(map(str, value))}")
    return tuple(made)


def _kind(value: Any, classes: Sequence[type]) -> Any:
    """The class of an object, or of a class's name."""
    made = value.made if isinstance(value, Spelled) else value
    return next(found for found in classes if made == found.__name__.lower() or isinstance(made, found))


def _object(item: dataclasses.Field[Any], classes: Sequence[type], value: Any, values: Mapping[str, Any]) -> Any:
    """The object of a flag and of the flags of its fields; of two that say the same, the later wins."""
    having = flagged(item, classes)
    given = {f.name for found in having for f in dataclasses.fields(found) if values.get(dest(f)) is not None}
    if value is False or value == "none":
        return None
    text: dict[str, Any] = {}
    found: Any
    if isinstance(value, str):
        found = _kind(value, classes)
    elif isinstance(value, Spelled):
        if not given:
            return value.made
        found = _kind(value, classes)
        text = {name: getattr(value.made, name) for name in value.given}
    elif value is True or given and item.default_factory is dataclasses.MISSING:
        found = classes[0]
    elif given:
        found = item.default_factory().__class__  # type: ignore[misc, operator]
    else:
        return _UNSET
    own = {f.name: f for f in dataclasses.fields(found)} if found in having else {}
    if foreign := sorted(given - set(own)):
        owners = [c.__name__.lower() for c in having if foreign[0] in {f.name for f in dataclasses.fields(c)}]
        raise ValueError(
            f"--{foreign[0].replace('_', '-')} has no meaning for {flag(item)} {found.__name__.lower()}; "
            f"it belongs to {', '.join(owners)}"
        )
    flags = {name: values[dest(f)] for name, f in own.items() if values.get(dest(f)) is not None}
    places = list(values)
    later = {name for name in flags if places.index(dest(own[name])) > places.index(dest(item))} if text else set()
    return found(**(flags | {name: part for name, part in text.items() if name not in later}))


def flag(item: dataclasses.Field[Any]) -> str:
    """A field's flag, as --batch-size."""
    return "--" + (item.metadata.get("flag") or item.name.replace("_", "-"))


def dest(item: dataclasses.Field[Any]) -> str:
    """A field's key among parsed flags and in YAML, as batch_size."""
    return flag(item)[2:].replace("-", "_")


def _help(item: dataclasses.Field[Any]) -> str:
    return str(item.metadata.get("help", "")).replace("%", "%%")  # argparse fills in %(default)s and the like


def _plain(hint: Any) -> Any:
    """The type without `| None`."""
    members = [member for member in typing.get_args(hint) if member is not types.NoneType]
    return members[0] if isinstance(hint, types.UnionType) and len(members) == 1 else hint


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
