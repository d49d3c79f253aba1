"""Settings as text, as people write them on a command line: `focal(gamma=3)`, `0.4*softf1 + 0.6*focal`."""

from __future__ import annotations

import ast
import dataclasses
import typing
from collections.abc import Mapping, Sequence

from multihead.options import dataclasses_in, near, plain_number

if typing.TYPE_CHECKING:
    from multihead.heads import Head

QUOTES = "; a text goes in quotes, as in name('a/file.json')"

_PLAIN: dict[object, tuple[type, ...]] = {float: (int, float), int: (int,), str: (str,), bool: (bool,)}


def parse(text: str, classes: Sequence[type]) -> typing.Any:
    """The object of one of `classes` that a text spells: its class in any case, with arguments as in Python.

    A weighted sum of losses may be written with + and *. Only names, numbers, words, tuples, dictionaries and objects
    of the fields' own classes are read; nothing is run.

    Raises: ValueError that quotes the text and says what was expected, with the nearest name.

    >>> from multihead.optim import SGD, AdamW
    >>> parse("sgd(lr=.1, momentum=0)", [AdamW, SGD])
    SGD(lr=0.1, weight_decay=0.0001, momentum=0)
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        hint = QUOTES if "(" in text else ""
        raise ValueError(f"{text!r} cannot be read; expected a name as in {_example(classes)}{hint}") from None
    return _object(tree, classes, text)


@dataclasses.dataclass(frozen=True)
class Spelled:
    """An object that a text spells, and the fields that the text gives it, be they its defaults."""

    made: typing.Any
    given: tuple[str, ...]

    def __str__(self) -> str:
        return str(self.made)


def spelled(text: str, classes: Sequence[type]) -> Spelled:
    """What `parse` makes of a text, with the fields that the text gives.

    Raises: as `parse` does.

    >>> from multihead.optim import SGD
    >>> spelled("sgd(0.05, momentum=0.9)", [SGD]).given
    ('lr', 'momentum')
    """
    made = parse(text, classes)
    tree, fields = ast.parse(text.strip(), mode="eval").body, [item.name for item in dataclasses.fields(made)]
    if isinstance(tree, ast.Call):
        fields = [*fields[: len(tree.args)], *(word.arg or "" for word in tree.keywords)]
    return Spelled(made, tuple(fields))


def spell(settings: object) -> str:
    """The text that `parse` reads as these settings; fields that hold their default are left out.

    >>> from multihead.optim import SGD
    >>> spell(SGD(0.1))
    'sgd(lr=0.1)'
    """
    given = []
    for item in dataclasses.fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, item.name)
        factory = item.default_factory
        default = item.default if factory is dataclasses.MISSING else factory()
        if value != default:
            given.append(f"{item.name}={_spell(value)}")
    name = type(settings).__name__.lower()
    return f"{name}({', '.join(given)})" if given else name


def parse_head(text: str) -> Head:
    """A head as a command line spells it: name=class,class,..., and @edge,edge,... where these are bands of the number
    in the head's own column, or in that which a second @ names.

    Raises: ValueError that quotes the text.

    >>> parse_head("height=short,middle,tall@160,180").edges
    (160.0, 180.0)
    >>> parse_head("decade=20s,30s,older@30,40@age").number
    'age'
    """
    from multihead.heads import Head  # with numpy, which a --help does not wait for

    name, _, rest = text.partition("=")
    classes, at, bounds = rest.partition("@")
    edges, named, number = bounds.partition("@")
    try:
        return Head(
            name.strip(),
            tuple(part.strip() for part in classes.split(",")),
            edges=tuple(float(edge) for edge in edges.split(",")) if at else None,
            number=number.strip() if named else None,
        )
    except ValueError as error:
        expected = "expected name=class,class or name=low,middle,high@160,180 (@number)"
        raise ValueError(f"head {text!r} cannot be read ({error}); {expected}") from None


def _spell(value: object) -> str:
    if dataclasses.is_dataclass(value):
        return spell(value)
    if isinstance(value, (tuple, list)):
        return "(" + "".join(f"{_spell(part)}, " for part in value).rstrip() + ")"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_spell(part)}" for key, part in value.items()) + "}"
    return repr(plain_number(value))


def _object(node: ast.expr, classes: Sequence[type], text: str) -> typing.Any:
    if isinstance(node, ast.BinOp):
        return _sum(node, classes, text)
    call = node if isinstance(node, ast.Call) else None
    name = call.func if call else node
    if not isinstance(name, ast.Name):
        raise ValueError(f"{text!r} cannot be read; expected a name as in {_example(classes)}")
    kind = _class(name.id, classes, text)
    fields = [item.name for item in dataclasses.fields(kind)]
    hints = typing.get_type_hints(kind)
    given: dict[str, typing.Any] = {}
    pairs = [*zip(fields, call.args), *((word.arg or "", word.value) for word in call.keywords)] if call else []
    if call and len(call.args) > len(fields):
        raise ValueError(f"{text!r}: {name.id} takes {len(fields)} values, got {len(call.args)}")
    for field, value in pairs:
        if field not in fields:
            raise ValueError(f"{text!r}: {name.id} has no {field!r}{near(field, fields)}; it has {', '.join(fields)}")
        if field in given:
            raise ValueError(f"{text!r}: {name.id} is given {field!r} twice")
        given[field] = _value(value, hints[field], text)
        if not isinstance(given[field], _PLAIN.get(hints[field], (object,))):
            raise ValueError(f"{text!r}: {field} is {given[field]!r}; expected {hints[field].__name__}")
    return kind(**given)


def _sum(node: ast.expr, classes: Sequence[type], text: str) -> typing.Any:
    """`a*one + b*two` as Sum((one, two), (a, b))."""
    kind = _class("sum", classes, text)
    terms: list[tuple[float, typing.Any]] = []
    todo = [node]
    while todo:
        part = todo.pop()
        if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Add):
            todo += [part.right, part.left]
        elif isinstance(part, ast.BinOp) and isinstance(part.op, ast.Mult):
            terms.append((_value(part.left, float, text), _object(part.right, classes, text)))
        elif isinstance(part, ast.BinOp):
            raise ValueError(f"{text!r}: only + and * join losses, as in 0.4*softf1 + 0.6*focal")
        else:
            terms.append((1.0, _object(part, classes, text)))
    return kind(tuple(loss for _, loss in terms), tuple(weight for weight, _ in terms))


def _value(node: ast.expr, hint: object, text: str) -> typing.Any:
    classes = dataclasses_in(hint)
    names = {kind.__name__.lower() for kind in classes}
    made = isinstance(node, (ast.Call, ast.BinOp)) and classes
    if made or isinstance(node, ast.Name) and node.id.lower() in names:
        return _object(node, classes, text)
    if isinstance(node, (ast.Tuple, ast.List)):
        return tuple(_value(part, hint, text) for part in node.elts)
    if isinstance(node, ast.Dict) and None not in node.keys:
        keys = [_value(key, str, text) for key in node.keys if key is not None]
        return {key: _value(part, hint, text) for key, part in zip(keys, node.values, strict=True)}
    if isinstance(node, ast.Name):
        return {"true": True, "false": False, "none": None}.get(node.id.lower(), node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _value(node.operand, hint, text)
        if isinstance(number, (int, float)):
            return -number
    if isinstance(node, ast.Constant):
        return node.value
    raise ValueError(f"{text!r}: {ast.unparse(node)} is no number, word, tuple or setting{QUOTES}")


def _class(name: str, classes: Sequence[type], text: str) -> type:
    known = {kind.__name__.lower(): kind for kind in classes}
    plain = name.lower().replace("_", "")
    if plain not in known:
        raise ValueError(f"{text!r}: {name!r} is none of {', '.join(known)}{near(plain, list(known))}")
    return known[plain]


def _example(classes: Sequence[type]) -> str:
    items = [item.name for item in dataclasses.fields(classes[0])]
    return f"{classes[0].__name__.lower()}({items[0]}=...)" if items else classes[0].__name__.lower()
