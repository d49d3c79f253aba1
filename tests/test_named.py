import math
import sys

import pytest

from multihead.named import looked_up, named


def poly():
    return 1


class Holder:
    @staticmethod
    def inner():
        return 2


def test_a_function_has_the_name_by_which_it_is_found():
    assert named(poly, "loss") == "test_named:poly" and looked_up("test_named:poly", "loss") is poly
    assert looked_up(named(Holder.inner, "loss"), "loss") is Holder.inner
    assert looked_up(named(math.sqrt, "loss"), "loss") is math.sqrt


def test_what_no_module_holds_is_refused():
    def local():
        return 3

    for thing in (lambda: 1, local, Holder(), 3, None, functools_like(poly)):
        with pytest.raises(ValueError, match="loss: .* has no name by which another process could find it"):
            named(thing, "loss")
    for text in ("", "poly", "a/b:poly", "module:", ":poly", "a:b:c", "module: poly"):
        with pytest.raises(
            ValueError, match="is no name; expected a function that a module defines, or the name of any object of one"
        ):
            named(text, "loss")


def functools_like(function):
    """A copy that bears the name of another function."""

    def copy():
        return function()

    copy.__qualname__, copy.__module__ = function.__qualname__, function.__module__
    return copy


def test_a_module_may_lie_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "my_losses.py").write_text("from my_parts import one\n")
    (tmp_path / "my_parts.py").write_text("def one():\n    return 1\n")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    with pytest.raises(ValueError, match="loss: 'my_losses:one': module 'my_losses' cannot be imported"):
        looked_up("my_losses:one", "loss")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert looked_up("my_losses:one", "loss")() == 1
    assert sys.path[: len(before)] == before  # what lies there hides nothing
    with pytest.raises(ValueError, match="module 'my_losses' .*my_losses.py. has no 'two'"):
        looked_up("my_losses:two", "loss")


def test_a_broken_module_is_named_with_its_error(tmp_path, monkeypatch):
    (tmp_path / "broken_losses.py").write_text("import nothing_like_this\n")
    (tmp_path / "odd_losses.py").write_text("def one(:\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="'broken_losses' cannot be imported .*No module named 'nothing_like_this'"):
        looked_up("broken_losses:one", "loss")
    with pytest.raises(ValueError, match="'odd_losses' cannot be imported .SyntaxError"):
        looked_up("odd_losses:one", "loss")
