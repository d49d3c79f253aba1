import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multihead.crops import FULL
from multihead.orders import Key, Shuffled, in_order, times

SMALL = FULL.resized(24, 20)


def test_shuffled_gives_every_row_once_and_follows_seed_and_epoch():
    order = Shuffled(range(10, 22), 4, seed=1)
    first = list(order)
    assert len(order) == len(first) == 3
    assert sorted(row for batch in first for _, row, *_ in batch) == list(range(10, 22))
    assert first == list(Shuffled(range(10, 22), 4, seed=1)) != list(Shuffled(range(10, 22), 4, seed=2))
    order.epoch = 2
    assert [row for batch in order for _, row, *_ in batch] != [row for batch in first for _, row, *_ in batch]
    assert {epoch for batch in order for epoch, *_ in batch} == {2}


def test_skip_leaves_the_rest_as_it_was():
    order = Shuffled(range(20), 3, accumulate=2, seed=1)
    whole = list(order)
    order.skip = 4
    assert list(order) == whole[4:] and len(order) == len(whole) - 4


@pytest.mark.parametrize("rows, batch_size, accumulate", [(24, 3, 1), (25, 4, 2), (5, 32, 2), (1, 8, 4)])
def test_two_processes_see_what_one_sees_with_twice_the_accumulation(rows, batch_size, accumulate):
    one = list(Shuffled(range(rows), batch_size, accumulate=2 * accumulate, seed=3))
    two = [list(Shuffled(range(rows), batch_size, accumulate=accumulate, seed=3, rank=r, world=2)) for r in (0, 1)]
    assert [batch for pair in zip(*two) for batch in pair] == one


def test_rows_over_are_fewer_than_a_step_and_change_with_the_epoch():
    order = Shuffled(range(11), 4, seed=0)
    left = []
    for epoch in (1, 2):
        order.epoch = epoch
        seen = [row for batch in order for _, row, *_ in batch]
        left.append(set(range(11)) - set(seen))
        assert len(seen) == len(set(seen)) == 8
    assert left[0] != left[1]


def test_fewer_rows_than_a_batch_still_make_a_step():
    order = Shuffled([4, 7, 9], 32)
    assert order.steps == 1 and sorted(row for batch in order for _, row, *_ in batch) == [4, 7, 9]


@pytest.mark.parametrize(("accumulate", "world"), [(4, 1), (2, 2), (1, 4)])
def test_few_rows_are_divided_among_the_batches_of_a_step(accumulate, world):
    """Not each of them read in every batch."""
    orders = [Shuffled(range(10), 32, accumulate=accumulate, rank=rank, world=world) for rank in range(world)]
    seen = [row for order in orders for batch in order for _, row, *_ in batch]
    assert orders[0].steps == 1 and len(seen) == 12 and set(seen) == set(range(10))


def test_in_order_leaves_nothing_out():
    assert in_order([5, 6, 7], 2) == [[Key(0, 5), Key(0, 6)], [Key(0, 7)]]
    assert in_order([], 2) == []


def test_shuffled_with_weights_draws_rows_as_often_as_they_weigh():
    order = Shuffled([3, 5, 8, 9], 5, seed=1, weights=np.array([0.5, 0.3, 0.2, 0.0]), count=20)
    for epoch in (1, 2):
        order.epoch = epoch
        drawn = [row for batch in order for at, row, *_ in batch if at == epoch]
        assert len(order) == 4 and np.bincount(drawn, minlength=10)[[3, 5, 8, 9]].tolist() == [10, 6, 4, 0]
    assert list(order) != list(Shuffled([3, 5, 8, 9], 5, seed=1, weights=order.weights, count=20))  # epoch 1 again


def test_shuffled_with_a_count_goes_round_the_rows():
    drawn = [row for batch in Shuffled([3, 5, 8], 2, seed=1, count=8) for _, row, *_ in batch]
    assert len(drawn) == 8 and sorted(drawn[:3]) == sorted(drawn[3:6]) == [3, 5, 8]
    fewer = [row for batch in Shuffled(range(10), 2, seed=1, count=4) for _, row, *_ in batch]
    assert len(set(fewer)) == 4


@given(st.lists(st.integers(0, 5), max_size=30))
def test_times_are_how_often_a_number_came_before(numbers):
    assert times(np.array(numbers, int)).tolist() == [numbers[:place].count(n) for place, n in enumerate(numbers)]


def test_two_processes_share_a_weighted_epoch_too():
    settings = {"seed": 3, "weights": np.arange(1, 11) / 55, "count": 26}
    one = list(Shuffled(range(10), 3, accumulate=2, **settings))
    two = [list(Shuffled(range(10), 3, rank=rank, world=2, **settings)) for rank in (0, 1)]
    assert [batch for pair in zip(*two) for batch in pair] == one
