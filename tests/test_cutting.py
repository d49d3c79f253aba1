import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multihead.crops import BODY, FACE, FULL, cut, locate
from multihead.cutting import crop_regions, cut_at, cut_regions, read_crops, reduction_for
from multihead.decoders import Encoded
from multihead.images import open_image, read_image


def photo_of(height, width, seed=0):
    """A smooth photo with detail, as a JPEG's bytes."""
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(0, 256, (height // 24 + 2, width // 24 + 2, 3), np.uint8), (width, height))
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


class Asked:
    """A photo that notes the reductions it was decoded at."""

    def __init__(self, source):
        self.photo, self.reductions = open_image(source), []
        self.size, self.name, self.lead = self.photo.size, self.photo.name, self.photo.lead

    def pixels(self, reduction=1):
        self.reductions.append(reduction)
        return self.photo.pixels(reduction)


def test_crops_by_hand():
    image = np.zeros((40, 30, 3), np.uint8)
    image[10:20, 10:20] = 200
    face = FACE.resized(10)
    bare = type(face)("bare", "face", 0.0, (10, 10))
    (found,), regions = cut_regions(image, [bare], (10, 10, 20, 20))
    assert regions == [(10, 10, 20, 20)] and (found == 200).all()
    (found,), _ = cut_regions(image, [bare], None, whole=True)
    assert 0 < (found == 200).mean() < 0.2  # the whole photo is the face
    (found,), _ = cut_regions(image, [bare], None)
    assert np.array_equal(found, cut(image, (0, 0, 30, 40), (10, 10)))


def test_an_absent_crop_is_black_and_says_so():
    image = np.full((40, 30, 3), 255, np.uint8)
    cuts, regions = cut_regions(image, [FULL.resized(8), BODY.resized(12, 8)], (1, 1, 29, 39))
    assert regions[0] and regions[1] is None and (cuts[1] == 0).all() and (cuts[0] == 255).all()


def test_cut_regions_by_hand():
    image = np.full((40, 30, 3), 255, np.uint8)
    cuts, regions = cut_regions(image, [FULL.resized(8), BODY.resized(12, 8)], (1, 1, 29, 39))
    assert regions == [(0, 0, 30, 40), None] and not cuts[1].any()
    assert cut_regions(image, [FACE.resized(8)], (1, 1, 2, 2), whole=True)[1] == [(0, 0, 30, 40)]


@pytest.mark.parametrize(
    "side, reduction", [(99, 1), (160, 1), (319, 1), (320, 2), (639, 2), (640, 4), (1279, 4), (1280, 8), (6400, 8)]
)
def test_the_reduction_leaves_every_region_1_6_times_its_crops_size(side, reduction):
    crop = FULL.resized(100, 50)
    assert reduction_for([crop], [(0, 0, side, side)]) == reduction
    assert reduction_for([crop, FACE.resized(80)], [(0, 0, 10_000, side), None]) == reduction  # an absent one asks none
    assert reduction_for([crop, FACE.resized(200)], [(0, 0, side, side), (0, 0, 200, 300)]) == 1


sides = st.integers(1, 900)


@given(st.tuples(sides, sides), st.tuples(st.integers(1, 40), st.integers(1, 40)), st.tuples(sides, sides))
def test_a_reduced_region_stays_where_it_is(start, size, length):
    """On a photo whose grey rises with the column, or the row, a crop's mean tells where it lies."""
    region, crop = (start[0], start[1], start[0] + length[0], start[1] + length[1]), FULL.resized(*size)
    reduction = reduction_for([crop], [region])
    assert all(length[1 - axis] >= 1.6 * reduction * size[axis] for axis in (0, 1)) or reduction == 1
    assert reduction == 8 or any(length[1 - axis] < 3.2 * reduction * size[axis] for axis in (0, 1))

    class Ramp(Encoded):
        def __init__(self):
            super().__init__("ramp", (2000, 2000), self.pixels)

        def pixels(self, reduction):
            middles = (np.arange(2000 // reduction, dtype=np.float32) + 0.5) * reduction
            shown = np.zeros((len(middles), len(middles), 3), np.float32)  # whole steps of grey would hide the place
            shown[:, :, 0], shown[:, :, 1] = middles[None], middles[:, None]
            return shown

    middle = [(region[axis] + region[axis + 2]) / 2 for axis in (0, 1)]
    for decode in {1, reduction // 2 or 1, reduction}:  # the finer ones, as other crops ask for them, are averaged
        (found,) = cut_at(Ramp(), [crop], [region], decode)
        assert found.mean((0, 1))[:2] == pytest.approx(middle, abs=0.3 * reduction)


@pytest.mark.parametrize("size", [(241, 187), (640, 480)])
@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_pixels_that_are_there_in_full_are_averaged_as_whole_squares(size, reduction):
    """By hand: squares from the photo's corner, those beyond its end filled up with its last pixels."""
    image = read_image(photo_of(*size))
    crop = FULL.resized(*(int(side / (1.6 * reduction)) for side in size))
    region = (0, 0, size[1], size[0])
    assert reduction_for([crop], [region]) == reduction
    padded = np.pad(image, [(0, -side % reduction) for side in size] + [(0, 0)], "edge")
    high, wide = (side // reduction for side in padded.shape[:2])
    small = np.rint(padded.reshape(high, reduction, wide, reduction, 3).mean((1, 3))).astype(np.uint8)

    class Reduced(Encoded):
        def __init__(self):
            super().__init__("reduced", size, self.pixels)

        def pixels(self, asked):
            assert asked == reduction
            return small

    (found,), _ = read_crops(open_image(image), [crop], None)
    wanted = cut_at(Reduced(), [crop], [region], reduction)[0]
    assert np.abs(found.astype(int) - wanted).max() <= 2


@pytest.mark.parametrize("crop", [FULL.resized(60), FACE.resized(40), BODY.resized(90, 60)])
def test_a_crop_is_the_same_whatever_it_comes_in_and_whoever_asks_too(crop):
    """As a JPEG, as its pixels, and beside a crop for which the JPEG is decoded in full: up to rounding."""
    data, box = photo_of(1203, 901, seed=3), (211.0, 187.0, 455.0, 503.0)
    (plain,), _ = read_crops(open_image(data), [crop], box)
    (pixels,), _ = read_crops(open_image(read_image(data)), [crop], box)
    photo = Asked(data)
    (together, _), _ = read_crops(photo, [crop, FACE.resized(400)], box)
    assert photo.reductions == [1]
    for other in (pixels, together):
        assert np.abs(other.astype(int) - plain).mean() < 0.5


def test_one_decode_serves_all_crops():
    photo = Asked(photo_of(800, 640))
    crops = [FACE.resized(20), FULL.resized(50), FULL.resized(60, 48)]
    cuts, regions = read_crops(photo, crops, (200, 200, 400, 440))
    assert photo.reductions == [8] and [pixels.shape[:2] for pixels in cuts] == [(20, 20), (50, 50), (60, 48)]
    assert regions == [locate(crop, (200, 200, 400, 440), (800, 640)) for crop in crops]
    photo = Asked(photo_of(800, 640))
    read_crops(photo, [*crops, FACE.resized(224)], (200, 200, 400, 440))
    assert photo.reductions == [1]  # the face is some 360 pixels


def test_a_photo_of_absent_crops_is_not_decoded():
    photo = Asked(photo_of(64, 48))
    cuts, regions = read_crops(photo, [BODY.resized(8)], (0, 0, 48, 64))
    assert regions == [None] and not cuts[0].any() and photo.reductions == []


@pytest.mark.parametrize("box", [None, (211.0, 187.0, 455.0, 503.0)], ids=["full", "face"])
@pytest.mark.parametrize("size", [40, 80, 112])
def test_reduced_crops_are_near_those_of_a_full_decode(box, size):
    data = photo_of(1203, 901, seed=size)
    crops = [FULL.resized(size) if box is None else FACE.resized(size)]
    image, photo = read_image(data), Asked(data)
    near, regions = read_crops(photo, crops, box)
    plain = [cut(image, locate(crop, box, image.shape), crop.size) for crop in crops]
    assert regions == [locate(crop, box, image.shape) for crop in crops]
    assert photo.reductions == [reduction_for(crops, regions)] != [1]
    difference = np.abs(near[0].astype(int) - plain[0].astype(int))
    assert difference.mean() < 2
    shifted = np.roll(plain[0], 1, axis=1).astype(int)  # a crop that lies a pixel beside is further off
    assert difference.mean() < np.abs(shifted - plain[0].astype(int)).mean() / 7


@pytest.mark.parametrize("size", [(800, 608), (797, 603), (801, 609)], ids=str)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photo_is_cut_where_it_is_upright(tmp_path, orientation, size):
    from PIL import Image

    data = photo_of(*size, seed=3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.jpg"
    Image.fromarray(read_image(data)).save(path, exif=exif, quality=95)
    upright, box = read_image(path), (150.0, 200.0, 350.0, 450.0)
    near, regions = read_crops(open_image(path), [FACE.resized(24)], box)
    assert reduction_for([FACE.resized(24)], regions) == 8
    assert np.abs(near[0].astype(int) - cut_regions(upright, [FACE.resized(24)], box)[0][0]).mean() < 2


def test_other_formats_are_read_in_full(tmp_path):
    from PIL import Image

    image = read_image(photo_of(320, 300))
    Image.fromarray(image).save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", image):
        found, _ = read_crops(open_image(source), [FULL.resized(150)], None)
        assert np.array_equal(found[0], cut(image, (0, 0, 300, 320), (150, 150)))
    regions = crop_regions((320, 300), [FULL.resized(150)], None)
    assert np.array_equal(cut_at(open_image(image), [FULL.resized(150)], regions, 8)[0], found[0])


def test_a_box_outside_the_photo_is_an_error():
    with pytest.raises(ValueError, match="no area inside a photo of 48 x 64"):
        read_crops(open_image(photo_of(64, 48)), [FACE.resized(8)], (100, 100, 120, 120))


def test_real_photos_lose_little(shared_data):
    table = pd.read_csv(shared_data / "mask_scenes" / "boxes.csv").drop_duplicates("path").head(30)
    differences = []
    for row in table.itertuples():
        path, box = shared_data / "mask_scenes" / row.path, (row.x0, row.y0, row.x1, row.y1)
        crops, image = [FACE.resized(24), FULL.resized(48)], read_image(path)
        near, regions = read_crops(open_image(path), crops, box)
        if reduction_for(crops, regions) > 1:
            plain = [cut(image, region, crop.size) for crop, region in zip(crops, regions)]
            differences += [np.abs(a.astype(int) - b.astype(int)).mean() for a, b in zip(near, plain)]
    assert len(differences) > 10 and np.median(differences) < 1.5
