import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import multihead as mh

MODULES = sorted(module.name for module in pkgutil.iter_modules(mh.__path__) if module.name != "__main__")
HEAVY = ("torch", "pandas", "cv2", "timm", "albumentations", "sklearn", "yaml")


def loaded_by(statement):
    """Which heavy packages a statement loads in a fresh interpreter."""
    code = f"import sys\n{statement}\nprint([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    return ast.literal_eval(done.stdout)


@pytest.mark.parametrize(
    "statement",
    [
        "import multihead",
        "import multihead as mh; mh.HEADS, mh.FACE, mh.Recipe(), mh.Photos, mh.score, dir(mh)",
        "import multihead.cli",
        "import multihead.losses, multihead.optim, multihead.augment, multihead.logs, multihead.flags",
    ],
)
def test_an_import_loads_nothing_heavy(statement):
    assert loaded_by(statement) == []


@pytest.mark.parametrize("name", mh.__all__)
def test_every_public_name_is_there_and_explained(name):
    value = getattr(mh, name)
    assert name in dir(mh)
    if callable(value):
        assert inspect.getdoc(value), name
        own = vars(mh)[name]
        assert own is value  # looked up once
    else:
        assert name == "__version__" or isinstance(value, (tuple, mh.Head, mh.Crop))


def test_public_names_are_the_modules_own():
    for name, module in mh._HOME.items():
        value = getattr(mh, name)
        assert value is getattr(importlib.import_module(f"multihead.{module}"), name)
        assert getattr(value, "__module__", f"multihead.{module}") == f"multihead.{module}", name


def test_type_checkers_see_the_same_names():
    tree = ast.parse(inspect.getsource(mh))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    modules, *named = block.body
    assert modules.module == "multihead"  # which are asked of the package by name
    assert all(getattr(mh, alias.name).__name__ == f"multihead.{alias.name}" for alias in modules.names)
    shown = re.findall(r"`multihead\.([a-z_]+)", (Path(mh.__file__).parents[1] / "README.md").read_text())
    lazy = set(shown) - set(mh._HOME) - {"models"}
    assert lazy and lazy <= {alias.name for alias in modules.names}, (
        "README names modules that type checkers do not see"
    )
    seen = {alias.name: node.module for node in named for alias in node.names}
    assert seen == {name: f"multihead.{module}" for name, module in mh._HOME.items()}


def test_no_name_is_hidden_by_a_module():
    importlib.import_module("multihead.prediction")
    importlib.import_module("multihead.evaluation")
    assert isinstance(mh.predict, types.FunctionType) and isinstance(mh.evaluate, types.FunctionType)
    assert not set(mh.__all__) & set(MODULES)


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="module 'multihead' has no name 'Modle'"):
        mh.Modle  # noqa: B018
    with pytest.raises(ImportError):
        exec("from multihead import Modle")


@pytest.mark.parametrize("name", sorted(name for name in mh._HOME if inspect.isclass(getattr(mh, name))))
def test_every_public_method_is_explained(name):
    own = {item: value for item, value in vars(getattr(mh, name)).items() if not item.startswith("_")}
    called = {item: value for item, value in own.items() if inspect.isfunction(value) or isinstance(value, property)}
    assert not [item for item, value in called.items() if not (value.__doc__ or "").strip()]


@pytest.mark.parametrize("name", MODULES)
def test_every_module_is_explained(name):
    assert (importlib.import_module(f"multihead.{name}").__doc__ or "").strip()


@pytest.mark.parametrize("name", MODULES)
def test_what_a_module_names_of_others_is_there(name):
    text = inspect.getsource(importlib.import_module(f"multihead.{name}"))
    for module, _, rest in (found.partition(".") for found in re.findall(r"`multihead\.(\w+(?:\.\w+)*)[`(]", text)):
        value = importlib.import_module(f"multihead.{module}") if module in MODULES else getattr(mh, module)
        for part in filter(None, rest.split(".")):
            value = getattr(value, part)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_docstrings_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"multihead.{name}")
    failed, tried = doctest.testmod(module)
    assert not failed, f"{failed} of {tried} examples in multihead.{name}; see the output"


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    modules = [importlib.import_module(f"multihead.{name}") for name in MODULES]
    examples = sum(len(test.examples) for module in modules for test in finder.find(module))
    assert examples > 20
