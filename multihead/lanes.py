"""Chunks of work in order on several threads, each of which does a chunk from end to end on its share of the cores."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

LANES = 8  # at most, where nothing else is asked for


def lane_count() -> int:
    """How many lanes are used by default: as many as cores may be used, at most 8."""
    return min(LANES, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def in_lanes(work: Callable[[Any], Any], chunks: Iterable[Any], lanes: int, threads: int = 1) -> Iterator[Any]:
    """What `work` makes of each chunk, in order, by `lanes` threads whose passes in torch use `threads` cores each;
    never more than one chunk a lane, and one that waits, is taken ahead. An error of a chunk, or of what gives the
    chunks, comes in its turn: after what was made before it.

    >>> list(in_lanes(len, ["a", "bc", ""], lanes=2))
    [1, 2, 0]
    """
    import torch

    start = lambda: torch.set_num_threads(threads)  # noqa: E731 (torch keeps it for each thread)
    pool = ThreadPoolExecutor(lanes, thread_name_prefix="lane", initializer=start)
    waiting: deque[Future[Any]] = deque()
    broken: Exception | None = None
    rest = iter(chunks)
    try:
        while True:
            try:
                waiting.append(pool.submit(work, next(rest)))
            except StopIteration:
                break
            except Exception as error:
                broken = error
                break
            if len(waiting) > lanes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        if broken is not None:
            raise broken
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(torch.get_num_threads())  # for threads to come: the lanes have changed it


_COUNTING = threading.Lock()
_USERS: list[int] = []  # OpenCV's threads before, once for each block that shares the cores


@contextlib.contextmanager
def shared_cores(lanes: int) -> Iterator[int]:
    """How many threads each of the lanes gets of those that torch has here. OpenCV's, one number for the process, are
    theirs as long as anybody shares the cores, then as before."""
    import cv2
    import torch

    each = max(1, torch.get_num_threads() // lanes)
    with _COUNTING:
        _USERS.append(_USERS[0] if _USERS else cv2.getNumThreads())
        cv2.setNumThreads(each)
    try:
        yield each
    finally:
        with _COUNTING:
            before = _USERS.pop()
            if not _USERS:
                cv2.setNumThreads(before)
