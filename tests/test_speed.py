import ctypes

import pytest

from multihead import speed


class Library:
    """A C library that notes what it is asked for."""

    def __init__(self, taken=1):
        self.asked = {}
        self.taken = taken

    def mallopt(self, name, value):
        self.asked[name] = value
        return self.taken


@pytest.fixture
def ask(monkeypatch):
    """keep_memory anew, on a made-up library and platform; this process's memory is left alone."""

    def call(library, platform="linux"):
        monkeypatch.setattr(ctypes, "CDLL", library)
        monkeypatch.setattr(speed.sys, "platform", platform)
        return speed.keep_memory.__wrapped__()

    return call


def test_glibc_is_told_to_keep_memory(ask):
    library = Library()
    assert ask(lambda name: library) is True
    # malloc.h: M_TRIM_THRESHOLD -1, M_TOP_PAD -2, M_MMAP_THRESHOLD -3, all as C integers
    assert set(library.asked) == {-1, -2, -3} and max(library.asked.values()) < 2**31


def test_where_the_threshold_is_refused_the_others_stay(ask):
    """Any of them would end glibc's own raising of the threshold."""
    library = Library(taken=0)
    assert ask(lambda name: library) is False and set(library.asked) == {-3}


def test_an_older_glibc_takes_half_a_heap(ask):
    class Older(Library):
        def mallopt(self, name, value):
            super().mallopt(name, value)
            return int(name != -3 or value <= 32 * 2**20)  # HEAP_MAX_SIZE / 2 of malloc/arena.c on 64 bits

    library = Older()
    assert ask(lambda name: library) is True and library.asked[-3] == 32 * 2**20 and set(library.asked) == {-1, -2, -3}


def test_elsewhere_nothing_happens(ask):
    def missing(name):
        raise OSError("no libc.so.6")

    assert ask(missing) is False and ask(lambda name: object()) is False
    assert ask(lambda name: pytest.fail("asked"), platform="darwin") is False
