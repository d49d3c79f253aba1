"""Chunks of work in order on several threads, each of which does a chunk from end to end on its share of the cores."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import repeat
from typing import Any

LANES = 8  # at most, where nothing else is asked for
WORTH_HALVING = 16  # pieces of work in a chunk from which one half does not cost more than it saves


def lane_count() -> int:
    """How many lanes are used by default: as many as cores may be used, at most 8."""
    return min(LANES, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def in_lanes(work: Callable[[Any], Any], chunks: Iterable[Any], lanes: int, threads: int = 1) -> Iterator[Any]:
    """What `work` makes of each chunk, in order, by `lanes` threads whose passes in torch use `threads` cores each;
    never more than one chunk a lane, and one that waits, is taken ahead; with no lanes none is. An error of a chunk, or
    of what gives the chunks, comes in its turn: after what was made before it.

    >>> list(in_lanes(len, ["a", "bc", ""], lanes=2))
    [1, 2, 0]
    """
    import torch

    start = lambda: torch.set_num_threads(threads)  # noqa: E731 (torch keeps it for each thread)
    pool = ThreadPoolExecutor(max(1, lanes), thread_name_prefix="lane", initializer=start)
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


def evenly(count: int, lanes: int, most: int) -> int:
    """How many of `count` pieces of work a lane takes at a time, `most` at most, so that all lanes end together.

    >>> evenly(100, 2, 48), evenly(1, 2, 48), evenly(0, 2, 48)
    (25, 1, 1)
    """
    rounds = max(1, -(-count // (lanes * most)))
    return max(1, -(-count // (lanes * rounds)))


def portions(count: int | None, lanes: int, each: int) -> Iterator[int]:
    """How many pieces of work each chunk takes, without end: `each`, but every other lane begins with a half, so that
    some lanes search while others answer (a search is many short steps, for which lanes wait for one another). Of
    `count` pieces the last are halves too, so that all lanes end together.

    >>> sizes = portions(200, 2, 50)
    >>> [next(sizes) for _ in range(5)]
    [25, 50, 50, 50, 25]
    """
    halves = [-(-each // 2)] * (lanes // 2 if each >= WORTH_HALVING else 0)
    yield from halves
    left = math.inf if count is None else count - sum(halves)
    while left > sum(halves):
        yield each
        left -= each
    yield from halves
    yield from repeat(each)


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
