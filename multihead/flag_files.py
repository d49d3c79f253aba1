"""Flags in a YAML file: read, checked as those of a command line, and written."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from multihead.flags import dest, flagged, is_switch
from multihead.options import near, variants
from multihead.spelling import spell


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file of flags. Raises: FileNotFoundError; ValueError for a file that is no YAML or no mapping."""
    import yaml

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no settings file {path}")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _unique_keys()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds {type(content).__name__}; expected lines such as 'epochs: 10'")
    return content


def _unique_keys() -> Any:
    """yaml's safe loader, which also refuses a key that is there twice (it would keep the last)."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            """As yaml's own, after a look at the keys."""
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            for place, key in enumerate(keys):
                if key in keys[:place]:
                    line = node.value[place][0].start_mark.line + 1
                    raise yaml.YAMLError(f"line {line} repeats the key {key!r}; give every key once")
            return super().construct_mapping(node, deep)

    return Loader


def yaml_tokens(
    content: Mapping[Any, Any], parser: argparse.ArgumentParser, path: str | Path
) -> tuple[list[str], dict[str, list[str]]]:
    """A mapping of flags (of the file `path`) as command-line tokens, checked the same way: (flags, positionals).

    Raises: ValueError for an unknown key, with the nearest one.
    """
    actions = {action.dest: action for action in parser._actions if action.dest not in ("help", "config")}
    tokens: list[str] = []
    positionals: dict[str, list[str]] = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in actions:
            raise ValueError(f"{path}: unknown key {key!r}{near(name, actions, 0.6)}")
        if not actions[name].option_strings:
            positionals[name] = [str(part) for part in (value if isinstance(value, list) else [value])]
        else:
            tokens += _tokens(actions[name], value, f"{path}: {key}")
    return tokens, positionals


def _tokens(action: argparse.Action, value: Any, where: str) -> Iterator[str] | list[str]:
    long = next(name for name in action.option_strings if name.startswith("--"))
    if value is None:
        return []
    if isinstance(action, (argparse.BooleanOptionalAction, argparse._StoreTrueAction)):
        if not isinstance(value, bool):
            raise ValueError(f"{where} is {value!r}; expected true or false")
        return [long] if value else ([f"--no-{long[2:]}"] if isinstance(action, argparse.BooleanOptionalAction) else [])
    if isinstance(value, dict):
        return [long, *(f"{name}={part}" for name, part in value.items())]
    if isinstance(value, list):
        return [long, *(str(part) for part in value)]
    return [long, str(value)] if action.nargs else [f"{long}={value}"]


def effective(kind: type, settings: Any) -> dict[str, Any]:
    """The flags (by their keys in a YAML file) that make these settings again; None and empty ones left out."""
    plain: dict[str, Any] = {}
    objects, hints = variants(kind), typing.get_type_hints(kind)
    for item in dataclasses.fields(kind):
        value = getattr(settings, item.name)
        if dataclasses.is_dataclass(value) and type(value) in flagged(item, objects[item.name]):
            plain[dest(item)] = (
                True if is_switch(item, hints[item.name], objects[item.name]) else type(value).__name__.lower()
            )
            plain |= effective(type(value), value)
        elif item.name in objects and value is not None and value != {}:
            plain[dest(item)] = _texts(value)
        elif isinstance(value, Mapping):
            plain |= {dest(item): dict(value)} if value else {}
        elif value is not None and value != ():
            spans = isinstance(value, tuple) and isinstance(value[0], tuple)
            texts = ["-".join(str(years) for years in span) for span in value] if spans else value
            plain[dest(item)] = list(texts) if isinstance(value, tuple) else value
    return plain


def _texts(value: Any) -> Any:
    """Objects as text: one, a list in order, or {head: text}."""
    if isinstance(value, Mapping):
        return {name: spell(part) for name, part in value.items()}
    return [spell(part) for part in value] if isinstance(value, tuple) else spell(value)
