"""Settings of the process that make long runs faster; asked for when a run starts, never at import."""

from __future__ import annotations

import ctypes
import functools
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h of glibc


@functools.cache
def keep_memory() -> bool:
    """True if glibc was told to keep freed memory, which it else gives back to the kernel with every large tensor.

    Worth a factor of 2 to 3 on CPU passes with large activations; without effect elsewhere than on Linux with glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    # an older glibc takes half a heap, 32 MB, at most. Where it takes nothing the others stay as they are, too: any of
    # them would end its own raising of the threshold.
    if not (mallopt(M_MMAP_THRESHOLD, 1 << 30) or mallopt(M_MMAP_THRESHOLD, 1 << 25)):
        return False
    taken = [mallopt(name, value) for name, value in ((M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 1 << 28))]
    return all(taken)


def kept() -> bool:
    """Whether `keep_memory` was asked for in this process."""
    return keep_memory.cache_info().currsize > 0
