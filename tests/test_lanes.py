"""Lanes: order, bounds, errors in their turn, shared cores; on made-up work."""

import threading
import time
from itertools import islice

import cv2
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multihead.lanes import WORTH_HALVING, evenly, in_lanes, lane_count, portions, shared_cores


@pytest.mark.parametrize("lanes", [0, 1, 2, 5])
def test_results_come_in_order_whoever_is_done_first(lanes):
    def work(number):
        time.sleep(0.002 * (number % 3))
        return number

    assert list(in_lanes(work, range(30), lanes)) == list(range(30))


@pytest.mark.parametrize("lanes", [0, 1, 3])
def test_no_more_than_a_chunk_a_lane_and_one_that_waits_is_taken(lanes):
    taken = []

    def source():
        for number in range(50):
            taken.append(number)
            yield number

    for got, _ in enumerate(in_lanes(int, source(), lanes), 1):
        assert len(taken) - got <= lanes
    assert len(taken) == 50


def test_an_error_comes_in_its_turn_and_ends_the_rest():
    done = []

    def work(number):
        if number == 2:
            raise ValueError("two")
        done.append(number)
        return number

    found = in_lanes(work, range(1000), 2)
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(found)
    assert len(done) < 10


def test_a_consumer_that_leaves_stops_the_lanes():
    before = threading.active_count()
    found = in_lanes(int, range(1000), 3)
    next(found)
    found.close()
    assert threading.active_count() == before


def test_lanes_compute_on_their_share_of_the_cores():
    before = torch.get_num_threads()
    seen = list(in_lanes(lambda _: torch.get_num_threads(), range(6), 3, 5))
    assert seen == [5] * 6 and torch.get_num_threads() == before


def test_an_error_of_the_source_comes_after_what_was_made():
    def source():
        yield from range(5)
        raise PermissionError("a folder")

    found = in_lanes(int, source(), 2)
    assert [next(found) for _ in range(5)] == list(range(5))
    with pytest.raises(PermissionError, match="a folder"):
        next(found)


@pytest.mark.parametrize("threads, lanes, each", [(6, 3, 2), (2, 2, 1), (2, 5, 1), (7, 1, 7)])
def test_cores_are_shared_and_given_back(threads, lanes, each):
    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        with pytest.raises(KeyError), shared_cores(lanes) as share:
            assert share == each == cv2.getNumThreads() and torch.get_num_threads() == threads
            raise KeyError
        assert torch.get_num_threads() == cv2.getNumThreads() == threads
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def test_two_that_share_the_cores_give_them_back_in_any_order():
    before = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        first, second = shared_cores(2), shared_cores(3)
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert cv2.getNumThreads() < 4
        second.__exit__(None, None, None)
        assert cv2.getNumThreads() == 4
    finally:
        cv2.setNumThreads(before)


def test_as_many_lanes_as_cores_up_to_a_bound(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(3), raising=False)
    assert lane_count() == 3
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(96), raising=False)
    assert lane_count() == 8


@given(st.integers(0, 2000), st.integers(1, 16), st.integers(1, 64))
def test_portions_are_whole_or_halves(count, lanes, each):
    halved = lanes // 2 if each >= WORTH_HALVING else 0
    for given_count in (count, None):
        sizes = list(islice(portions(given_count, lanes, each), 300))
        halves = [place for place, size in enumerate(sizes) if size != each]
        assert {sizes[place] for place in halves} <= {-(-each // 2)}
        assert each == 1 or len(halves) == halved * (1 if given_count is None else 2)
        assert halves[:halved] == list(range(halved)) or each == 1


@pytest.mark.parametrize(("count", "lanes", "each", "expected"), [
    (200, 2, 50, [25, 50, 50, 50, 25]), (400, 8, 50, [25] * 4 + [50] * 4 + [25] * 4), (90, 3, 30, [15, 30, 30, 15]),
    (50, 1, 25, [25, 25]), (20, 2, 10, [10, 10]), (97, 2, 49, [25, 49, 23]),
])  # fmt: skip
def test_lanes_that_begin_with_half_a_portion_end_with_one(count, lanes, each, expected):
    sizes = portions(count, lanes, each)
    found = []
    while sum(found) < count:
        found.append(min(next(sizes), count - sum(found)))
    assert found == expected


@given(st.integers(1, 500), st.integers(1, 16), st.integers(1, 64))
def test_even_shares(count, lanes, most):
    share = evenly(count, lanes, most)
    chunks = -(-count // share)
    assert 1 <= share <= most
    assert chunks <= lanes * -(-count // (lanes * most))  # no more rounds than the longest chunks take
    assert share - 1 < count / (lanes * -(-count // (lanes * most)))  # and no longer than that needs
