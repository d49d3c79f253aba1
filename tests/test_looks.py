import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multihead.decoders import REDUCTIONS, Encoded
from multihead.looks import Look, as_photos, fitted, halved, pixels


def test_looks_by_hand():
    assert halved((512, 384), 144, 1280) == Look(2, (256, 192))
    assert halved((287, 600), 144, 1280) == Look(2, (144, 300)) and halved((286, 600), 144, 1280) == Look(1, (286, 600))
    assert halved((3000, 4000), 144, 1280) == Look(8, (375, 500))
    assert halved((1300, 20000), 144, 1280) == Look(8, (83, 1280))
    assert fitted((3000, 4000), 1280) == Look(2, (960, 1280)) and fitted((400, 300), 1280) == Look(1, (400, 300))


@given(st.integers(1, 9000), st.integers(1, 9000))
def test_looks_fit_and_never_enlarge(height, width):
    for look in (halved((height, width), 144, 1280), fitted((height, width), 1280)):
        assert look.reduction in REDUCTIONS and min(look.size) >= 1 and max(look.size) <= 1280
        assert all(small <= -(-side // look.reduction) for small, side in zip(look.size, (height, width), strict=True))


def test_pixels_are_decoded_no_further_than_needed():
    asked = []

    def decode(reduction):
        asked.append(reduction)
        return np.full((-(-3000 // reduction), -(-4000 // reduction), 3), 7, np.uint8)

    photo = Encoded("a", (3000, 4000), decode)
    assert pixels(photo, halved(photo.size, 144, 1280)).shape == (375, 500, 3)
    assert pixels(photo, fitted(photo.size, 1280)).shape == (960, 1280, 3) and asked == [8, 2]


def test_other_formats_are_made_small_all_the_same():
    (photo,) = as_photos([np.full((512, 384, 3), 9, np.uint8)])
    image = pixels(photo, halved(photo.size, 144, 1280))
    assert image.shape == (256, 192, 3) and (image == 9).all()


def test_arrays_of_other_kinds_are_refused():
    with pytest.raises(ValueError, match=r"images\[1\]: expected RGB uint8 \(H, W, 3\), got float64 \(4, 4, 3\)"):
        as_photos([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3))])
