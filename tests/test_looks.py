import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multihead.decoders import REDUCTIONS, Encoded
from multihead.looks import Look, as_photos, fitted, halved, pixels


def test_looks_by_hand():
    assert halved((1024, 768), 144, 1280) == Look(4, (256, 192))
    assert halved((287, 6000), 144, 1280) == Look(2, (61, 1280)) and halved((286, 600), 144, 1280) == Look(
        1, (286, 600)
    )
    assert halved((3000, 4000), 144, 1280) == Look(8, (375, 500))
    assert halved((1300, 20000), 144, 1280) == Look(8, (83, 1280))
    assert fitted((3000, 4000), 1280) == Look(2, (960, 1280)) and fitted((400, 300), 1280) == Look(1, (400, 300))


def test_a_small_photo_is_decoded_in_full_for_all_looks():
    """Its crops and finer looks need that anyway."""
    assert halved((512, 384), 144, 1280) == Look(1, (256, 192)) and halved((480, 640), 96, 1280) == Look(1, (120, 160))
    assert halved((481, 640), 96, 1280) == Look(4, (121, 160))
    asked = []

    def decode(reduction):
        asked.append(reduction)
        return np.full((512, 384, 3), 7, np.uint8)

    photo = Encoded("a", (512, 384), decode)
    assert pixels(photo, halved(photo.size, 96, 1280)).shape == (128, 96, 3)
    assert pixels(photo, fitted(photo.size, 1280)).shape == (512, 384, 3) and asked == [1]


@given(st.integers(40, 700), st.integers(40, 700), st.integers(0, 9))
def test_pixels_made_small_are_the_means_of_what_they_stand_for(height, width, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    (photo,) = as_photos([image])
    planned = halved((height, width), 40, 1280)
    expected = cv2.resize(image, planned.size[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(pixels(photo, planned).astype(int) - expected).max() <= 2  # halved step by step, rounded each time


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
