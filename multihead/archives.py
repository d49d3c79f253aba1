"""Graphs of torch.export, opened only where the archive holds tensors and known steps: torch itself trusts its file."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

# what an export writes; anything else in the archive is refused
TENSORS = re.compile(r"data/(weights/weight_\d+|constants/tensor_\d+)")
TABLES = re.compile(r"data/(weights/model_weights|constants/model_constants)_config\.json")
PLAIN = (
    "models/model.json",
    "archive_format",
    "archive_version",
    ".data/version",
    "byteorder",
    ".data/serialization_id",
)
SAMPLES = "data/sample_inputs/model.pt"
SYMBOL = r"Symbol\('[a-z]\d+'(, (positive|integer|nonnegative)=True)*\)"
# sizes as sums and products of the number of rows; torch gives the text to sympify, which evaluates it
SIZE = re.compile(rf"(?:{SYMBOL}|Integer\(-?\d+\)|(?:Mul|Add|Pow|Max|Min)(?=\()|\d+|[\s,()+*-])+")
# tensor operations, but the one that opens (and makes, and writes to) a file that it names
TARGET = re.compile(
    r"torch\.ops\.aten\.(?!from_file\b)\w+\.\w+|"
    r"_operator\.(add|sub|mul|floordiv|mod|neg|eq|ne|lt|le|gt|ge|getitem)|"
)
# the only texts among a step's arguments; a file's name is none of them
WORDS = {"none", "tanh", "floor", "trunc", "constant", "reflect", "replicate", "circular", "same", "valid"}
CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict")


def load(path: str | Path) -> Any:
    """The `torch.export.ExportedProgram` of a file that `torch.export.save` wrote, without its guards, which are code.

    Raises: ValueError where the archive holds pickled objects, code, or anything that an export does not write.
    """
    check(path)
    try:
        program = torch.export.load(path)
    except Exception as error:  # torch has no common class for what it cannot read
        raise ValueError(f"{path} is no graph of torch.export that can be opened: {error}") from error
    program._guards_code = []  # Python text that `module()` would run; the callers check shapes themselves
    return program


def check(path: str | Path) -> None:
    """Nothing where opening the archive runs nothing in it. Raises: ValueError as `load`."""
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive, Path(path))
    except (zipfile.BadZipFile, json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise ValueError(f"{path} is no archive of torch.export: {error}") from error


def _check_members(archive: zipfile.ZipFile, path: Path) -> None:
    names = archive.namelist()
    for name in names:
        inner = name.partition("/")[2]  # the first folder is the file's own name
        if names.count(name) > 1 or not (
            inner in (*PLAIN, SAMPLES) or TENSORS.fullmatch(inner) or TABLES.fullmatch(inner)
        ):
            raise ValueError(f"{path} holds {name!r}, which an export does not write; export the model again")
        if TABLES.fullmatch(inner):
            _check_table(json.loads(archive.read(name)), path)
        elif inner == SAMPLES:
            _check_samples(archive.read(name), path)
        elif inner == "models/model.json":
            _check_graph(json.loads(archive.read(name)), path)


def _check_table(table: dict[str, Any], path: Path) -> None:
    for name, entry in table["config"].items():
        if entry.get("use_pickle") is not False or not re.fullmatch(r"(weight|tensor)_\d+", str(entry["path_name"])):
            raise ValueError(f"{path} holds {name!r} as a pickled object, which could run code; export the model again")


def _check_samples(content: bytes, path: Path) -> None:
    """torch falls back to running pickles where its safe loader refuses them: then nothing is opened."""
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} holds pickled objects, which could run code; export the model again") from error


def _check_graph(graph: dict[str, Any], path: Path) -> None:
    for key, text in _texts(graph):
        if key in KNOWN and not KNOWN[key](text):
            raise ValueError(f"{path} has the step {text[:60]!r}, which is not of a model; export the model again")


def _is_plain(spec: Any) -> bool:
    """True for a description of nested tuples, lists and dictionaries with text keys."""
    if isinstance(spec, list):
        return all(_is_plain(part) for part in spec)
    if not isinstance(spec, dict):
        return isinstance(spec, int)  # the version of its form
    if set(spec) - {"type", "context", "children_spec"} or spec.get("type") not in CONTAINERS:
        return False
    context = json.loads(spec["context"]) if isinstance(spec.get("context"), str) else spec.get("context")
    keys = context is None or isinstance(context, list) and all(isinstance(key, str) for key in context)
    return keys and _is_plain(spec.get("children_spec", []))


# key in the graph -> whether its text may stand there; the specs are JSON inside the JSON, by which torch would import
# what they name
KNOWN: dict[str, Callable[[str], object]] = {
    "expr_str": SIZE.fullmatch,
    "target": TARGET.fullmatch,
    "as_string": WORDS.__contains__,
    "in_spec": lambda text: not text or _is_plain(json.loads(text)),
    "out_spec": lambda text: not text or _is_plain(json.loads(text)),
}


def _texts(part: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a JSON content with the key that it stands under."""
    if isinstance(part, dict):
        for name, value in part.items():
            yield from _texts(value, name)
    elif isinstance(part, list):
        for value in part:
            yield from _texts(value, key)
    elif isinstance(part, str):
        yield key, part
