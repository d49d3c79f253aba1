"""The arms of `multihead compare`: what a YAML file or --vary changes of the flags that all arms share."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import io
import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from multihead import flag_files, flags, parsers
from multihead.options import near
from multihead.recipe import Recipe
from multihead.settings import Network, Training, add_mix_flags, build_heads, build_model, build_recipe, device, silent

if TYPE_CHECKING:
    from multihead.model import Model
    from multihead.ways import Arm

Changes = Mapping[str, Any]
KINDS = (Network, Training, Recipe)  # what arms may differ in


def changes(content: Mapping[str, Any], vary: Sequence[str]) -> dict[str, Changes]:
    """{arm: {flag: value}} of the `arms` of a YAML file, or of --vary, every combination of the values.

    Raises: ValueError where there is neither or both, an arm is no mapping, a value is missing, or two arms would have
    one name.
    """
    named = content.get("arms")
    if (named is None) == (not vary):
        raise ValueError("name the arms: either 'arms:' in the file of -c, or --vary, as in --vary opt=adamw,madgrad")
    if named is not None:
        if not isinstance(named, dict) or not all(isinstance(value, dict | None) for value in named.values()):
            raise ValueError("arms: expected a name and flags for each, as 'adam: {opt: adam}' or 'plain: {}'")
        if seeded := [name for name, value in named.items() if "seed" in (value or {})]:
            raise ValueError(f"arm {seeded[0]!r} sets a seed; all arms have the seeds of --seeds, as --seeds 0 1 2")
        return _unlike([(str(name), value or {}) for name, value in named.items()])
    found = [axis(text) for text in vary]
    if twice := [key for key, _ in found if sum(key == other for other, _ in found) > 1]:
        raise ValueError(f"--vary names {twice[0]!r} twice; expected all its values at once, as --vary opt=adamw,sgd")
    axes = [[(key, value) for value in values] for key, values in found]
    grid = itertools.product(*axes)
    return _unlike([(", ".join(_title(key, value, len(axes)) for key, value in one), dict(one)) for one in grid])


def _unlike(named: Sequence[tuple[str, Changes]]) -> dict[str, Changes]:
    names = [name for name, _ in named]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two arms are named {twice!r}; expected unlike names, and each value once")
    return dict(named)


def axis(text: str, name: str = "--vary") -> tuple[str, list[Any]]:
    """The flag and the values of a text such as opt=adamw,madgrad; commas within brackets belong to a value.

    Raises: ValueError that names the argument `name`, for a text without values or an unknown flag.
    """
    key, mark, rest = text.partition("=")
    values = split(rest)
    if not mark or not all(values):
        raise ValueError(f"{name} {text!r}; expected a flag and its values, as in opt=adamw,adam,madgrad")
    return known_key(key, f"{name} {text!r}"), [{"true": True, "false": False}.get(v.lower(), v) for v in values]


def known_key(key: str, where: str) -> str:
    """The flag that a key names: its own name, or a field's. Raises: ValueError with the nearest flag."""
    fields = {item.name: flags.dest(item) for kind in KINDS for item in dataclasses.fields(kind)}
    key = fields.get(key.replace("-", "_"), key.replace("-", "_"))
    known = [action.dest for action in arm_parser()._actions]
    if key not in known:
        raise ValueError(f"{where}: a model or recipe has no flag {key!r}{near(key, known)}")
    return key


def split(text: str, at: str = ",") -> list[str]:
    """The parts of a text between commas (or another mark) that are within no bracket."""
    parts, depth = [""], 0
    for mark in text:
        depth += (mark in "([{") - (mark in ")]}")
        if mark == at and depth == 0:
            parts.append("")
        else:
            parts[-1] += mark
    return [part.strip() for part in parts]


def arm_parser() -> argparse.ArgumentParser:
    """The flags that arms may differ in: a seed is the comparison's, and so are photos and folds."""
    parser = parsers.Parser(add_help=False)
    for kind in KINDS:
        flags.add_flags(parser, kind, kind.__name__)
    add_mix_flags(parser)
    parser._remove_action(next(action for action in parser._actions if action.dest == "seed"))
    return parser


def _title(key: str, value: Any, axes: int) -> str:
    plain = str(value).lower().replace("/", "-")
    return plain if axes == 1 and not re.fullmatch(r"[\d.e-]+|true|false", plain) else f"{key} {plain}"


def build_arms(named: Mapping[str, Changes], parse: Callable[[Sequence[str]], argparse.Namespace]) -> dict[str, Arm]:
    """The arms, in their order; parse: the shared flags with an arm's tokens after them. A flag that an arm leaves
    blank (null) has its default there, whatever is shared.

    Raises: ValueError that names the arm whose flags are wrong, or two that train alike.
    """
    made = dict(_arms(named, parse))
    texts = {name: repr(arm.identity()) for name, arm in made.items()}
    for first, second in itertools.combinations(made, 2):
        if texts[first] == texts[second]:
            raise ValueError(f"arms {first!r} and {second!r} train alike; leave one out")
    return made


def _arms(
    named: Mapping[str, Changes], parse: Callable[[Sequence[str]], argparse.Namespace]
) -> Iterator[tuple[str, Arm]]:
    for name, change in named.items():
        tokens, _ = flag_files.yaml_tokens(change, arm_parser(), f"arm {name!r}")
        blank = [str(key).replace("-", "_") for key, value in change.items() if value is None]
        try:
            yield name, build_arm(vars(complaining(parse, tokens)) | dict.fromkeys(blank))
        except ValueError as error:
            raise ValueError(f"arm {name!r}: {error}") from error


def build_arm(values: Mapping[str, Any]) -> Arm:
    """The arm of parsed flags, which knows the flags of its model. Raises: ValueError where they do not fit."""
    from multihead.ways import Arm

    network, training = flags.build(Network, values), flags.build(Training, values)
    build_heads(network)  # complains of them now, not when the arm's turn comes
    _check_network(network)
    model, about = functools.partial(_model, network, values["device"]), flag_files.effective(Network, network)
    return Arm(model, build_recipe(values), training.rows, about=about)


def _check_network(network: Network) -> None:
    from multihead.backbones import check_backbone

    check_backbone(network.model)
    for name in ("pretrained_path", "initial_checkpoint"):
        path = getattr(network, name)
        if path is not None and not os.path.exists(path):
            raise ValueError(f"--{name.replace('_', '-')} {path} is not there")


def complaining(parse: Callable[[Sequence[str]], argparse.Namespace], tokens: Sequence[str]) -> argparse.Namespace:
    """What `parse` makes of the tokens. Raises: ValueError with its complaint, where it would leave with one."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            return parse(tokens)
    except SystemExit:
        raise ValueError(told.getvalue().partition("error: ")[2].splitlines()[0]) from None


def _model(network: Network, name: str) -> Model:
    return build_model(network, silent).to(device(name))
