import numpy as np
import torch

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
