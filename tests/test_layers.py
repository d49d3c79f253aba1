"""Imports run downwards only: a module may use its own layer and those below it, and there are no cycles."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import multihead

LAYERS = (
    "files options named sources heads labels crops headers decoders images looks sums lanes metrics fabrics figures spots splits logs speed sigstack canvas cells written sheets plots event_files event_logs "
    "gentle pipelines outputs wholes augment masks mixing losses criteria balance optim schedules samplers orders calibrate pages modes convolutions fusing norms nets",
    "backbones recipe spelling cascade faces mtcnn yunet features configs given model drawing box_files synthetic ranks scanning targets paired decoding voting folders study trials "
    "cutting feeds carry graphs archives runtimes",
    "leaks data rounding columns layouts pseudo reading contents packs cache boxes points batches loading checkpoint identity drawn persons dealing choices prepared timing trained",
    "evaluation quantised inputs pictures pipeline prediction answer_files teaching tta sides nested adjusted hiding activation fitting steps",
    "runs train by_hand",
    "joined cards export ways crossval ensemble demo comparison lr_range preview soup tune report findings compared sections mistakes",
    "parsers flags flag_files settings parts arms workbench records answering scoring folding panel spaces searching shipping training gathering cli __main__",
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names.split()}
FOLDER = Path(multihead.__file__).parent
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


def imports(source):
    """The names of this package that a module's source imports, wherever it does: "" is the package itself."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "multihead" + (f".{node.module}" if node.module else "") if node.level else node.module
            names = [alias.name for alias in node.names]
            of_package = [f"multihead.{name}" if name in MODULES else f"multihead:{name}" for name in names]
            found += of_package if module == "multihead" else [module]
    return [name for name in found if name == "multihead" or name.startswith(("multihead.", "multihead:"))]


def used(name):
    return [found.partition(".")[2] for found in imports((FOLDER / f"{name}.py").read_text()) if "." in found]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f():\n    from multihead.labels import Head", ["multihead.labels"]),
        ("from multihead import ranks, Head", ["multihead.ranks", "multihead:Head"]),
        ("import multihead, multihead.data as d, numpy", ["multihead", "multihead.data"]),
        ("from . import labels\nfrom .data import Photos", ["multihead.labels", "multihead.data"]),
        ("'import multihead'", []),
    ],
)
def test_imports_are_found_everywhere(source, found):
    assert imports(source) == found


def test_every_module_has_its_layer():
    assert set(MODULES) <= set(LAYER)
    assert sum(len(names.split()) for names in LAYERS) == len(LAYER)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_downwards_only(name):
    upwards = [other for other in used(name) if LAYER[other.partition(".")[0]] > LAYER[name]]
    assert not upwards, f"{name} (layer {LAYER[name]}) imports {upwards} from above"


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_imported_from_the_package_itself(name):
    itself = [found for found in imports((FOLDER / f"{name}.py").read_text()) if "." not in found]
    assert itself == (["multihead:__version__"] if name == "cli" else [])


def test_there_are_no_cycles():
    order = list(TopologicalSorter({name: used(name) for name in MODULES}).static_order())
    assert set(order) == set(MODULES)
