import numpy as np
import pytest

from multihead.spots import spots


def patches(found, labels):
    return [(x, y, x + wide, y + high) for (x, y), (high, wide) in zip(found, labels, strict=True)]


def shared(one, other):
    """Pixels that two boxes have in common, counted one by one."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(0, wide) * max(0, high)


def test_a_label_stands_below_its_box_or_above_where_there_is_no_room():
    assert spots([(10.0, 10.0, 30.0, 30.0)], [(8, 20)], (70, 70)) == ([(10.0, 32.0)], True)
    assert spots([(10.0, 40.0, 30.0, 66.0)], [(8, 20)], (70, 70)) == ([(10.0, 30.0)], True)
    assert spots([(60.0, 10.0, 70.0, 30.0)], [(8, 20)], (70, 70)) == ([(50.0, 32.0)], True)  # moved into the picture


def test_without_a_box_it_stands_in_the_corner():
    assert spots([None], [(8, 20)], (70, 70)) == ([(4.0, 4.0)], True)
    assert spots([None], [(80, 90)], (70, 70)) == ([(0.0, 0.0)], True)
    assert spots([None, (0.0, 0.0, 70.0, 70.0)], [(8, 20), (8, 20)], (70, 70))[1] is False
    assert spots([], [], (70, 70)) == ([], True)


@pytest.mark.parametrize("seed", range(8))
def test_free_means_that_no_label_lies_on_a_box_or_a_label(seed):
    rng = np.random.default_rng(seed)
    count, size = 2 + 3 * seed, (300, 400)
    corners = rng.uniform((0, 0), (370, 270), (count, 2))
    boxes = [(x, y, x + w, y + w) for (x, y), w in zip(corners.tolist(), rng.uniform(10, 30, count).tolist())]
    labels = [(12, 25)] * count
    found, free = spots(boxes, labels, size)
    placed = patches(found, labels)
    assert all(min(patch) >= 0 and patch[2] <= size[1] and patch[3] <= size[0] for patch in placed)
    on_boxes = sum(shared(patch, box) for patch in placed for box in boxes)
    on_labels = sum(shared(one, two) for place, one in enumerate(placed) for two in placed[:place])
    assert free == (on_boxes + on_labels == 0)


def test_where_nothing_is_free_a_label_hides_its_own_face_not_anothers():
    boxes = [(x, y, x + 20.0, y + 20.0) for y in (0.0, 20.0, 40.0) for x in (0.0, 20.0, 40.0)]  # all of the picture
    found, free = spots(boxes, [(6, 10)] * 9, (60, 60))
    assert not free
    for number, patch in enumerate(patches(found, [(6, 10)] * 9)):
        assert [shared(patch, box) for box in boxes] == [60.0 * (number == each) for each in range(9)]


def test_as_many_labels_as_boxes_are_expected():
    with pytest.raises(ValueError, match="zip"):
        spots([None], [], (70, 70))
