"""Argument parsers that suggest the nearest flag, and how the text of a flag is read."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from multihead.options import near


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints suggest the nearest flag and end with exit status 2."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options | {"allow_abbrev": False, "formatter_class": _Help})

    def refuse_unknown(self, rest: Sequence[str]) -> None:
        """Complain about arguments that nothing took. Raises: SystemExit."""
        known = [flag for action in self._actions for flag in action.option_strings]
        for token in rest:
            hint = near(token.split("=")[0], known, 0.6) if token.startswith("-") else ""
            self.error(f"unknown argument {token!r}{hint.replace(chr(39), '')}")

    def error(self, message: str) -> NoReturn:
        """Print one line and the way to the help. Raises: SystemExit with status 2."""
        self.exit(2, f"{self.prog}: error: {message}\n(see {self.prog} --help)\n")


class Last(argparse.Action):
    """Stores a value as argparse does, and moves it to the end: the values stand in the order in which flags did."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        """As `argparse.Action` calls it."""
        vars(namespace).pop(self.dest, None)
        setattr(namespace, self.dest, values)


class _Help(argparse.HelpFormatter):
    """Help in which numbers are INT and FLOAT, and other values are called as their flag is."""

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        return action.type.__name__.upper() if action.type in (int, float) else action.dest.upper()  # type: ignore[union-attr]


def one_of(names: Sequence[str]) -> Callable[[str], str]:
    """A flag's type: one of these names, else a complaint with the nearest."""

    def name(text: str) -> str:
        if text.lower() in names:
            return text.lower()
        more = " (timm's other optimisers: timm with --timm-opt NAME)" if "timm" in names else ""
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(names)}{near(text.lower(), names)}{more}")

    return name


def or_none(of: type) -> Callable[[str], Any]:
    """A flag's type: a number of a type, or the word none for nothing, as where a file of settings says otherwise."""

    def number(text: str) -> Any:
        return None if text.lower() == "none" else of(text)

    number.__name__ = of.__name__  # as argparse's complaints call it
    return number


def span(text: str) -> tuple[float, float]:
    """A flag's type: years as 57-59, or one of them. Raises: argparse.ArgumentTypeError."""
    low, _, high = text.partition("-")
    try:
        return float(low), float(high or low)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; expected years as 57-59") from None


def pair(of: type) -> Callable[[str], tuple[str, Any]]:
    """A flag's type: NAME=VALUE, the value of a type."""

    def both(text: str) -> tuple[str, Any]:
        name, mark, value = text.partition("=")
        if not mark or not name:
            raise argparse.ArgumentTypeError(f"{text!r}; expected NAME=VALUE")
        try:
            return name, of(value)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r}: {value!r} is no {of.__name__}") from None

    return both
