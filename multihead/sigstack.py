"""The stack that a thread's signals are handled on, kept through code that would leave the thread a freed one."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterator


class _Stack(ctypes.Structure):
    """stack_t of Linux, see sigaltstack(2)."""

    _fields_ = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


@contextlib.contextmanager
def kept_signal_stack() -> Iterator[Callable[[], None]]:
    """The alternate signal stack of this thread is afterwards what it was; so it is after each call of the function
    that is given.

    OpenVINO's CPU plugin sets one where it starts and, where it ends, sets again the one it found, though that may be
    of a plugin that has ended before: the next signal that Python handles, as the end of a child process where a
    DataLoader has had workers, would then end the process. Without effect elsewhere than on Linux.
    """
    if not sys.platform.startswith("linux"):
        yield lambda: None
        return
    libc, before = ctypes.CDLL(None), _Stack()
    libc.sigaltstack(None, ctypes.byref(before))

    def put_back() -> None:
        libc.sigaltstack(ctypes.byref(before), None)

    try:
        yield put_back
    finally:
        put_back()
