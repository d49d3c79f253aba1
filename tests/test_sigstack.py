import ctypes
import sys

import pytest

from multihead.sigstack import _Stack, kept_signal_stack

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sigaltstack as on Linux")
SIZE = 1 << 16


def stack_now():
    found = _Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found))
    return found.start, found.size


def set_stack(memory):
    stack = _Stack(ctypes.addressof(memory), 0, SIZE)
    assert ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None) == 0


@pytest.fixture
def two():
    return [ctypes.create_string_buffer(SIZE) for _ in range(2)]


def test_the_stack_is_what_it_was(two):
    with kept_signal_stack():  # and pytest's own after this test
        set_stack(two[0])
        mine = (ctypes.addressof(two[0]), SIZE)
        assert stack_now() == mine
        with pytest.raises(KeyError), kept_signal_stack() as put_back:
            set_stack(two[1])
            assert stack_now() == (ctypes.addressof(two[1]), SIZE)
            put_back()
            assert stack_now() == mine
            set_stack(two[1])
            raise KeyError
        assert stack_now() == mine


def test_none_is_kept_too(two):
    with kept_signal_stack():
        off = _Stack(None, 2, 0)  # SS_DISABLE
        ctypes.CDLL(None).sigaltstack(ctypes.byref(off), None)
        with kept_signal_stack():
            set_stack(two[0])
        assert stack_now()[0] is None


def test_int8_leaves_the_stack_alone(two, people, tmp_path):
    """nncf opens and ends several of OpenVINO's plugins."""
    from multihead import FULL, MASK, Model, export
    from multihead.reading import read

    model, photos = Model("test_resnet", [MASK.on(FULL.resized(32))]).eval(), read(people / "train")[:12]
    export.openvino(model, tmp_path / "first")  # the plugin that stays has set its stack
    with kept_signal_stack():
        set_stack(two[0])
        export.openvino(model, tmp_path / "int8", "int8", photos=photos, max_drop=1.0, limit=4)
        assert stack_now() == (ctypes.addressof(two[0]), SIZE)
