import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from multihead.crops import BODY, FACE, FULL, Crop, box_of, crop_text, cut, locate

SHAPE = (512, 384, 3)
places = st.floats(-100, 500, width=32)
boxes = st.tuples(places, places, st.floats(0.25, 400, width=32), st.floats(0.25, 400, width=32)).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# ---- crops


def test_resized_keeps_the_region():
    assert FACE.resized(112, 96) == Crop("face", "face", 0.25, (112, 96))
    assert BODY.resized(64).size == (64, 64)
    assert {FACE.resized(224): 1}[FACE] == 1  # equal crops are one key


def test_which_regions_need_a_box():
    assert [crop.needs_box for crop in (FACE, BODY, FULL)] == [True, True, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"region": "hand"}, "crop 'c' has region 'hand'; expected one of"),
        ({"margin": -0.1}, "crop 'c' has margin -0.1"),
        ({"margin": "0.1"}, "crop 'c' has margin '0.1'; expected a share"),
        ({"size": 224}, r"crop 'c' has size 224; expected \(height, width\)"),
        ({"size": (224,)}, "expected \\(height, width\\)"),
        ({"size": (0, 10)}, "whole numbers >= 1"),
        ({"size": (10.5, 10)}, "whole numbers >= 1"),
    ],
)
def test_a_crop_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Crop(**({"name": "c", "region": "face"} | arguments))


# ---- locate


def test_face_by_hand():
    # 100 x 120 pixels; a quarter of 120 on each side is 160 x 180, widened to a square of 180 around (150, 160)
    assert locate(FACE, (100, 100, 200, 220), SHAPE) == (60, 70, 240, 250)
    # twice as high as wide: 160 pixels wide stay, the height becomes 320
    assert locate(FACE.resized(200, 100), (100, 100, 200, 220), SHAPE) == (70, 0, 230, 320)
    assert locate(Crop("tight", "face", size=(120, 100)), (100, 100, 200, 220), SHAPE) == (100, 100, 200, 220)


def test_body_by_hand():
    # 60 x 80 pixels: 180 wide, from 100 - .75 * 80 down 4.5 * 80
    assert locate(BODY, (150, 100, 210, 180), SHAPE) == (90, 40, 270, 400)
    assert locate(BODY, (150, 100, 210, 180), (300, 384)) == (90, 40, 270, 300)


def test_full_and_no_box_are_the_whole_photo():
    assert locate(FULL, (1, 2, 3, 4), SHAPE) == (0, 0, 384, 512)
    assert locate(FACE, None, SHAPE) == locate(BODY, None, SHAPE) == (0, 0, 384, 512)


def test_a_body_mostly_outside_is_absent_and_a_face_never():
    half_below = (200, 500, 380, 640)  # the body runs from (20, 395) to (560, 1025): an eighth is in the photo
    assert locate(BODY, (0, 0, 384, 512), SHAPE) is None  # a tight face
    portrait = (83, 90, 223, 280)  # of 306 x 345 pixels: a quarter of the body
    assert locate(BODY, portrait, (345, 306)) == (0, 0, 306, 345)
    assert locate(BODY, half_below, SHAPE) is None
    assert locate(FACE, half_below, SHAPE) is not None
    assert locate(BODY, (100, 400, 160, 470), SHAPE) == (40, 348, 220, 512)


@pytest.mark.parametrize("box", [(10, 10, 10, 20), (20, 10, 10, 20), (400, 0, 410, 10), (-20, 0, 0, 10), (np.nan,) * 4])
def test_locate_refuses_a_box_without_area_in_the_photo(box):
    with pytest.raises(ValueError, match="has no area inside a photo of 384 x 512 pixels"):
        locate(FACE, box, SHAPE)


def seen(box, height, width):
    return box[0] < width and box[1] < height and box[2] > 0 and box[3] > 0


@given(boxes, st.integers(1, 300), st.integers(1, 300), st.sampled_from([FACE, BODY, FACE.resized(60, 20)]))
def test_a_region_lies_in_the_photo_and_holds_what_is_seen_of_the_face(box, height, width, crop):
    assume(seen(box, height, width))
    region = locate(crop, box, (height, width))
    if region is None:
        assert crop.region == "body"
        return
    x0, y0, x1, y1 = region
    assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
    assert x0 <= max(box[0], 0) + 0.51 and y0 <= max(box[1], 0) + 0.51
    assert x1 >= min(box[2], width) - 0.51 and y1 >= min(box[3], height) - 0.51


@given(boxes, st.integers(20, 300), st.integers(20, 300))
def test_a_mirrored_photo_has_the_mirrored_region(box, height, width):
    assume(seen(box, height, width))
    there = locate(BODY, box, (height, width))
    back = locate(BODY, (width - box[2], box[1], width - box[0], box[3]), (height, width))
    if there is None or back is None:
        return  # a rounding apart at the threshold
    assert np.allclose((width - back[2], back[1], width - back[0], back[3]), there, atol=1)


@given(boxes, st.sampled_from([FACE.resized(50, 100), FACE.resized(100, 50), FACE]))
def test_a_face_inside_has_the_crops_aspect_and_centre(box, crop):
    x0, y0, x1, y1 = locate(crop, [value + 5000 for value in box], (10000, 10000))
    assert (x1 - x0) / (y1 - y0) == pytest.approx(crop.size[1] / crop.size[0], abs=2 / (y1 - y0) + 2 / (x1 - x0) + 0.02)
    assert (x0 + x1) / 2 == pytest.approx((box[0] + box[2]) / 2 + 5000, abs=1)


# ---- boxes and pixels


def test_box_of():
    assert box_of(np.array([1, 2, 3, 4])) == (1.0, 2.0, 3.0, 4.0)
    assert box_of(np.array([1, 2, np.nan, 4])) is None


def test_cut_at_its_own_size_is_the_slice():
    image = noise(40, 30)
    found = cut(image, (5, 10, 25, 34), (24, 20))
    np.testing.assert_array_equal(found, image[10:34, 5:25])


def test_cut_shrinks_by_area_average():
    image = noise(60, 40)
    found = cut(image, (0, 0, 40, 60), (15, 20))
    means = image.reshape(15, 4, 20, 2, 3).mean((1, 3))
    assert found.dtype == np.uint8 and abs(found - means).max() <= 0.51


@pytest.mark.parametrize("ratio", [1.1, 1.5, 1.6, 1.75, 1.99, 2, 2.3, 2.5, 2.6, 3])
def test_a_fraction_is_nearly_an_area_average_too(ratio):
    """A photo's means come out, not a sample of its pixels, which differs from them by more than two levels."""
    image = cv2.GaussianBlur(noise(160, 160), (0, 0), 0.8)
    sides = round(50 * ratio), round(40 * ratio)
    found = cut(image, (3, 5, 3 + sides[1], 5 + sides[0]), (50, 40)).astype(float)
    part = image[5 : 5 + sides[0], 3 : 3 + sides[1]].astype(float)
    means = np.stack([share(50, sides[0]) @ part[:, :, colour] @ share(40, sides[1]).T for colour in range(3)], 2)
    assert abs(found - means).mean() < 0.5 + (1.6 <= ratio <= 2.5 and ratio != 2) and abs((found - means).mean()) < 0.3


@pytest.mark.parametrize(
    ("sides", "steps"), [((80, 64), 2), ((79, 64), 1), ((100, 80), 1), ((125, 64), 2), ((125, 101), 1), ((80, 100), 2)]
)
def test_the_way_between_is_taken_from_1_6_to_2_5(sides, steps, monkeypatch):
    """OpenCV's means of whole squares are several times as fast as those of fractions."""
    called, resize = [], cv2.resize
    monkeypatch.setattr(cv2, "resize", lambda *given, **options: called.append(given[1]) or resize(*given, **options))
    cut(noise(160, 160), (0, 0, sides[1], sides[0]), (50, 40))
    assert called == [(80, 100), (40, 50)][-steps:]


def share(count, length):
    """How much of each of `length` pixels lies in each of `count` equal parts: rows sum to 1."""
    edges = np.linspace(0, length, count + 1)
    low, high = np.arange(length), np.arange(1, length + 1)
    shared = np.minimum(edges[1:, None], high) - np.maximum(edges[:-1, None], low)
    return shared.clip(min=0) * count / length


def test_cut_enlarges_linearly():
    ramp = np.repeat(np.arange(0, 80, 10, dtype=np.uint8)[None, :, None], 3, 2).repeat(8, 0)
    found = cut(ramp, (0, 0, 8, 8), (16, 16))
    np.testing.assert_allclose(found[4, 1:15, 0], np.arange(2.5, 70, 5)[:14], atol=1)


def test_a_large_copy_of_a_photo_gives_nearly_the_same_crop():
    small = cut(noise(8, 6), (0, 0, 6, 8), (160, 120))  # smooth
    large = small.repeat(3, 0).repeat(3, 1)
    box = (30.0, 40.0, 80.0, 100.0)
    crops = [
        cut(image, locate(FACE, [scale * value for value in box], image.shape), (48, 48))
        for image, scale in ((small, 1), (large, 3))
    ]
    assert abs(crops[0].astype(int) - crops[1]).mean() < 2


@given(st.integers(0, 300), st.integers(0, 200), st.integers(8, 90), st.integers(8, 90), st.floats(0, 1))
def test_a_crop_in_words_is_the_crop(left, top, wide, high, margin):
    """What the words of an exported folder say, done by hand."""
    face, body = Crop("face", "face", margin, (64, 96)), BODY.resized(100, 50)
    box = (left, top, left + wide, top + high)
    assert crop_text(face).startswith(
        f"the face box plus {margin:g} of its longer side on each of its four sides, then "
    )
    assert crop_text(face).endswith(
        "widened about its middle to the aspect of 96 to 64, as 96 x 64 pixels (width x height)"
    )
    pad = margin * max(wide, high)
    width, height = wide + 2 * pad, high + 2 * pad
    width, height = (height * 96 / 64, height) if width * 64 < height * 96 else (width, width * 64 / 96)
    x, y = left + wide / 2, top + high / 2
    wanted = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    photo = (240, 400)
    assert np.abs(np.array(locate(face, box, photo)) - wanted.clip(0, [400, 240, 400, 240])).max() <= 1
    assert crop_text(body).startswith(
        "3 widths of the face box by 4.5 of its heights, from 0.75 of its height above the box"
    )
    wanted = np.array([x - 1.5 * wide, top - 0.75 * high, x + 1.5 * wide, top + 3.75 * high])
    found = locate(body, box, photo)
    assert found is None or np.abs(np.array(found) - wanted.clip(0, [400, 240, 400, 240])).max() <= 1


def test_resized_takes_a_pair():
    assert FACE.resized((96, 64)) == FACE.resized(96, 64) and FACE.resized(96).size == (96, 96)
    with pytest.raises(ValueError, match="has size"):
        FACE.resized((96, 64, 3))


@pytest.mark.parametrize("turned", [False, True])
def test_a_side_that_shrinks_is_averaged_beside_one_that_grows(turned):
    """Lines of black and white, many to a pixel, come out grey."""
    image = np.zeros((2000, 110, 3), np.uint8)
    image[::2] = 255
    if turned:
        image = image.swapaxes(0, 1).copy()
    found = cut(image, (0, 0, image.shape[1], image.shape[0]), (112, 112))
    assert abs(found.astype(int) - 127.5).max() <= 16

    noise = np.random.default_rng(0).integers(0, 256, (3000, 200, 3), np.uint8)
    rows = cv2.resize(noise, (200, 224), interpolation=cv2.INTER_AREA)
    wanted = cv2.resize(rows, (224, 224), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(cut(noise, (0, 0, 200, 3000), (224, 224)), wanted)
