"""What a user's own module holds, by its name: "module:name", which can be stored, typed and looked up again."""

from __future__ import annotations

import functools
import importlib
import os
import re
import sys
from typing import Any

_NAME = re.compile(r"[\w.]+:[\w.]+")


def named(thing: object, what: str) -> str:
    """The name of a function or class that a module defines; a text must be one already.

    what: what it is for, which errors begin with. Raises: ValueError for anything else.

    >>> named(os.path.join, "example"), named("losses:poly", "example")
    ('posixpath:join', 'losses:poly')
    """
    expected = 'expected a function that a module defines, or the name of any object of one, as "__main__:my_loss"'
    if isinstance(thing, str):
        if not _NAME.fullmatch(thing):
            raise ValueError(f"{what}: {thing!r} is no name; {expected}")
        return thing
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if module is None or name is None or _inside(sys.modules.get(module), name) is not thing:
        raise ValueError(f"{what}: {thing!r} has no name by which another process could find it; {expected}")
    return f"{module}:{name}"


def looked_up(name: str, what: str) -> Any:
    """The object of a name. Its module is imported, from the current folder where Python does not find it elsewhere.

    Raises: ValueError where there is none, or its module cannot be imported.

    >>> looked_up("math:sqrt", "example")(9.0)
    3.0
    """
    module, _, inner = name.partition(":")
    try:
        held = _imported(module)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{what}: {name!r}: module {module!r} cannot be imported ({reason})") from error
    found = _inside(held, inner)
    if found is None:
        raise ValueError(f"{what}: {name!r}: module {module!r} ({getattr(held, '__file__', None)}) has no {inner!r}")
    return found


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        here = os.getcwd()
        if error.name != module.partition(".")[0] or here in sys.path:
            raise
        sys.path.append(here)  # last, so that it hides nothing; it stays for what the module imports later
        return importlib.import_module(module)


def _inside(held: object, name: str) -> object:
    return functools.reduce(lambda part, word: getattr(part, word, None), name.split("."), held)
