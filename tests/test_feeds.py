import numpy as np
import pytest

from multihead.crops import BODY, FACE, FULL, Crop
from multihead.cutting import read_crops
from multihead.feeds import feed
from multihead.images import ImageError, open_image

CROPS = {"near": Crop("face", "face", 0.0, (2, 4)), "body": BODY.resized(6, 4), "all": FULL.resized(8)}


def test_inputs_by_hand():
    image = np.zeros((40, 30, 3), np.uint8)
    image[8:10, 4:8] = [1, 2, 3]
    made = feed(image, CROPS, (4, 8, 8, 10))
    assert list(made) == ["near", "body", "all", "present"]
    assert made["near"].tolist() == [[[[value] * 4] * 2 for value in (1, 2, 3)]]
    assert made["present"].tolist() == [[True, True, True]]
    assert [array.dtype for array in made.values()] == [np.uint8, np.uint8, np.uint8, bool]
    assert all(array.flags.c_contiguous for array in made.values())


@pytest.mark.parametrize(
    ("box", "whole"), [(None, False), (None, True), ((1, 1, 29, 39), False), (np.array([3.3, 4, 9, 11.5]), False)]
)
def test_inputs_are_the_crops_of_a_photo(box, whole):
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    made = feed(image, CROPS, box, whole)
    cuts, regions = read_crops(open_image(image), list(CROPS.values()), box, whole)
    for name, pixels in zip(CROPS, cuts):
        assert np.array_equal(made[name][0].transpose(1, 2, 0), pixels)
    assert made["present"].tolist() == [[region is not None for region in regions]]
    assert made["present"].all() == (box is None and not whole or box is not None and box[0] > 3)


def test_photos_and_boxes_that_cannot_be():
    image = np.zeros((40, 30, 3), np.uint8)
    with pytest.raises(ValueError, match=r"box \(1, 2, 3\) has 3 numbers; expected \(x0, y0, x1, y1\)"):
        feed(image, CROPS, (1, 2, 3))
    with pytest.raises(ValueError, match="no area inside a photo of 30 x 40"):
        feed(image, {"face": FACE}, (50, 50, 60, 60))
    with pytest.raises(ImageError, match="no such file"):
        feed("nowhere.jpg", CROPS)
