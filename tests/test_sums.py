import numpy as np
import pytest
import torch

from multihead import sums as module
from multihead.sums import Sums, _at


def test_levels_and_crops_equal_adaptive_pooling():
    random = np.random.default_rng(1)
    photos = random.integers(0, 256, (2, 37, 53, 3), np.uint8)
    sums, batch = Sums(list(photos), torch.device("cpu")), torch.from_numpy(photos).permute(0, 3, 1, 2).float()
    for size in ((37, 53), (20, 31), (5, 60), (1, 1)):
        expected = torch.nn.functional.interpolate(batch, size=size, mode="area")
        torch.testing.assert_close(sums.level(size, slice(0, 2))[:, :3], expected)
    boxes, photo = torch.tensor([[0, 0, 53, 37], [3, 4, 40, 11], [7, 7, 8, 8]]), torch.tensor([0, 1, 1])
    for box, number, crop in zip(boxes.tolist(), photo.tolist(), sums.cut(boxes, photo, 24), strict=True):
        inside = batch[number : number + 1, :, box[1] : box[3], box[0] : box[2]]
        torch.testing.assert_close(crop[:3], torch.nn.functional.interpolate(inside, size=(24, 24), mode="area")[0])


@pytest.mark.parametrize("part", [1, 2, 8])
def test_a_level_of_some_photos_in_parts(part, monkeypatch):
    """Sums that have run over 32 bits give the same differences."""
    monkeypatch.setattr(module, "_PART", part * 13 * 41)
    photos = np.random.default_rng(2).integers(0, 256, (5, 30, 40, 3), np.uint8)
    sums, batch = Sums(list(photos), torch.device("cpu")), torch.from_numpy(photos).permute(0, 3, 1, 2).float()
    sums._sums += 2**31 - 1000
    expected = torch.nn.functional.interpolate(batch, size=(13, 17), mode="area")
    torch.testing.assert_close(sums.level((13, 17), slice(1, 5))[:, :3], expected[1:])
    whole = sums.cut(torch.tensor([[0, 0, 40, 30]]), torch.tensor([3]), 12)[:, :3]
    torch.testing.assert_close(whole, torch.nn.functional.interpolate(batch[3:4], size=(12, 12), mode="area"))


def test_crops_are_black_outside_of_the_photo():
    sums = Sums([np.full((10, 10, 3), 200, np.uint8)], torch.device("cpu"))
    crop = sums.cut(torch.tensor([[-10, 0, 10, 20]]), torch.tensor([0]), 4)[0]  # (4, 4, 4)
    expected = torch.zeros(4, 4)
    expected[:2, 2:] = 200
    torch.testing.assert_close(crop[:3], expected.expand(3, 4, 4))
    assert not sums.cut(torch.tensor([[30, 30, 50, 50]]), torch.tensor([0]), 4).any()


def test_sums_are_taken_as_torch_takes_them():
    numbers = torch.randint(-(2**31), 2**31 - 1, (3, 11, 4), dtype=torch.int32)
    places = torch.tensor([10, 0, 0, 7])
    assert torch.equal(_at(numbers, places), numbers.index_select(-2, places))
    assert torch.equal(_at(numbers[0], places), numbers[0].index_select(-2, places))
