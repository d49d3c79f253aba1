import csv
import io
from dataclasses import FrozenInstanceError
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from multihead.decoders import Encoded, ImageError
from multihead.faces import Face, choose, first_reduction, identity, look, search, try_search
from multihead.images import image_files, open_image, read_image
from multihead.looks import halved
from multihead.mtcnn import Finder

SHARED = Finder()
DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="module")
def hopper():
    """A face that comes with a package of the development environment: Grace Hopper, in the public domain."""
    folder = pytest.importorskip("matplotlib").get_data_path()
    file = Path(folder, "sample_data", "grace_hopper.jpg")
    if not file.is_file():
        pytest.skip("this matplotlib comes without grace_hopper.jpg")
    return cv2.resize(read_image(file), (256, 300), interpolation=cv2.INTER_AREA)  # (300, 256, 3)


@pytest.fixture
def finder():
    """One for all tests, as its nets take time to build."""
    return SHARED


def test_face():
    face = Face((10, 20, 50, 80), 0.99)
    assert face.area == 2400 and face.points is None
    with pytest.raises(FrozenInstanceError):
        face.score = 1.0


def test_choose_by_hand():
    small, large, side = Face((45, 45, 55, 55), 0.9), Face((0, 0, 40, 40), 0.9), Face((80, 0, 100, 20), 0.99)
    faces = [side, small, large]
    assert choose(faces, "largest", (100, 100)) == [large]
    assert choose(faces, "central", (100, 100)) == [small]
    assert choose(faces, "all", (100, 100)) == [large, side, small]
    assert choose(faces, "central", (20, 180)) == [side]  # (height, width), not the reverse
    for which in ("largest", "central", "all"):
        assert choose([], which, (100, 100)) == []
    with pytest.raises(ValueError, match="'largest', 'central', 'all', got 'biggest'"):
        choose(faces, "biggest", (100, 100))


@given(st.lists(st.tuples(*[st.integers(0, 50)] * 2, *[st.integers(1, 50)] * 2), max_size=6), st.randoms())
def test_choice_does_not_depend_on_order(corners, random):
    faces = list({Face((x, y, x + w, y + h), 0.5) for x, y, w, h in corners})
    shuffled = random.sample(faces, len(faces))
    for which in ("largest", "central"):
        first, second = choose(faces, which, (100, 100)), choose(shuffled, which, (100, 100))
        assert len(first) == len(second) == min(1, len(faces))
        assert [face.area for face in first] == [face.area for face in second] or which == "central"
    assert sorted(choose(faces, "all", (9, 9)), key=repr) == sorted(faces, key=repr)


def test_finder_finds_a_face_with_its_points(finder, hopper):
    ((face,),) = finder.find([hopper])
    x0, y0, x1, y1 = face.box
    assert 80 < x0 < 100 and 45 < y0 < 70 and 165 < x1 < 190 and 155 < y1 < 180 and face.score > 0.95
    left_eye, right_eye, nose, left_mouth, right_mouth = face.points
    assert left_eye[0] < nose[0] < right_eye[0] and left_mouth[0] < right_mouth[0] and left_eye[1] < left_mouth[1]
    assert all(x0 < x < x1 and y0 < y < y1 for x, y in face.points)


def test_finder_agrees_with_plain_facenet(finder, hopper):
    from facenet_pytorch import MTCNN

    boxes, _ = MTCNN(keep_all=True, min_face_size=26).detect(hopper)
    assert len(boxes) == 1 and overlap(finder.find([hopper])[0][0].box, tuple(map(float, boxes[0]))) > 0.75


def test_finder_on_mixed_sizes_equals_one_by_one(finder, hopper):
    half = cv2.resize(hopper, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    noise = np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)
    photos = [hopper, half, noise, hopper[:, ::-1], np.zeros_like(half), hopper[:19], hopper[:1, :1], half]
    together, alone = finder.find(photos), [finder.find([photo])[0] for photo in photos]
    assert list(map(len, together)) == list(map(len, alone)) == [1, 1, 0, 1, 0, 0, 0, 1]
    for first, second in zip(sum(together, []), sum(alone, []), strict=True):
        np.testing.assert_allclose(first.box, second.box, atol=1e-2)
        assert first.score == pytest.approx(second.score, abs=1e-4)
    assert finder.find(photos) == together  # the same, to the bit
    assert finder.find([]) == []


def test_mirrored_photo_has_the_mirrored_face(finder, hopper):
    face, mirrored = (found[0] for found in finder.find([hopper, np.ascontiguousarray(hopper[:, ::-1])]))
    x0, y0, x1, y1 = mirrored.box
    np.testing.assert_allclose((256 - x1, y0, 256 - x0, y1), face.box, atol=8)


def test_face_seen_in_the_mirror_only(finder, hopper, monkeypatch):
    (expected,) = finder.find([hopper])[0]
    real = Finder._detect

    def blind(self, images, planned):
        """As if the nets could not see the photo as it is, but its mirror image."""
        return [
            real(self, [image], planned)[0]
            if not np.array_equal(image, hopper)
            else (np.zeros((0, 5)), np.zeros((0, 5, 2)))
            for image in images
        ]

    monkeypatch.setattr(Finder, "_detect", blind)
    (face,) = finder.find([hopper])[0]
    assert overlap(face.box, expected.box) > 0.75
    np.testing.assert_allclose(face.points, expected.points, atol=8)  # the left eye is the left eye


def test_group_is_searched_for_small_faces_and_sorted(finder, hopper):
    photo = np.full((400, 450, 3), 200, np.uint8)
    for side, top, left in ((150, 10, 10), (120, 250, 30), (60, 260, 250)):  # widths; faces are a third of them
        height = round(side * 300 / 256)
        photo[top : top + height, left : left + side] = cv2.resize(hopper, (side, height), interpolation=cv2.INTER_AREA)
    faces = finder.find([photo])[0]
    assert len(faces) == 3 and faces[-1].area < 30 * 30  # the first pass looks for 40 and finds two
    assert [face.area for face in faces] == sorted((face.area for face in faces), reverse=True)


def test_small_faces_are_looked_for_unless_it_is_a_portrait(monkeypatch):
    asked, sides = [], []

    def detect(self, images, planned):
        asked.extend([(*image.shape[:2], planned.min_face) for image in images])
        boxes = np.array([(0, 0, side, side, 0.9) for side in sides]) * ([images[0].shape[0] / 400] * 4 + [1])
        return [(boxes, np.zeros((len(sides), 5, 2)))] * len(images)

    monkeypatch.setattr(Finder, "_detect", detect)
    first, second = (200, 300, 30), (400, 600, 20)  # a half, 0.15 of the short side; in full
    for sides[:], expected in (
        ([90.0], [first]),
        ([79.0], [first, second]),
        ([90.0, 60.0], [first, second]),
        ([160.0, 60.0], [first]),
    ):
        asked.clear()  # 0.2 of 400 is 80, 0.4 is 160
        faces = Finder().find([np.zeros((400, 600, 3), np.uint8)])[0]
        assert [face.box for face in faces] == [(0, 0, side, side) for side in sides] and asked == expected


def test_last_threshold_holds_for_the_mean_score(hopper):
    score = SHARED.find([hopper])[0][0].score
    assert Finder(thresholds=(0.5, 0.6, score - 1e-3)).find([hopper]) != [[]]
    sure = Finder(thresholds=(0.5, 0.6, min(0.9999, score + 1e-3))).find([hopper, hopper[:, ::-1]])
    assert all(face.score > score for faces in sure for face in faces)


def test_large_photo_is_searched_scaled_down(hopper):
    large = cv2.resize(hopper, None, fx=4, fy=4)
    face, scaled = Finder().find([hopper])[0][0], Finder(longest=300).find([large])[0][0]
    assert overlap(tuple(np.array(scaled.box) / 4), face.box) > 0.75
    np.testing.assert_allclose(np.array(scaled.points) / 4, face.points, atol=8)


def test_boxes_stay_inside_the_photo(finder, hopper):
    photos = [hopper[:, 115:], hopper[:, :150], hopper[80:], hopper[:140], hopper[60:165, 90:175]]
    found = finder.find([np.ascontiguousarray(photo) for photo in photos])
    assert any(found)
    for photo, faces in zip(photos, found, strict=True):
        for x0, y0, x1, y1 in (face.box for face in faces):
            assert 0 <= x0 < x1 <= photo.shape[1] and 0 <= y0 < y1 <= photo.shape[0]


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 9))
def test_finder_survives_any_size(height, width, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    (faces,) = SHARED.find([image])
    assert all(0 <= face.box[0] < face.box[2] <= width and 0 <= face.box[1] < face.box[3] <= height for face in faces)


def test_min_face_leaves_smaller_ones_out(hopper):
    assert len(Finder(min_face=80).find([hopper])[0]) == 1
    assert Finder(min_face=200).find([hopper]) == [[]]
    assert Finder(min_face=700).find([hopper]) == [[]]  # larger than the photo is wide


def test_finder_leaves_random_numbers_gradients_and_precision_alone(hopper):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        faces = Finder().find([hopper])
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(torch.rand(2), expected) and torch.is_grad_enabled()
    assert faces == SHARED.find([hopper])


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((9, 9), np.uint8), r"images\[1\]: expected RGB uint8 \(H, W, 3\), got uint8 \(9, 9\)"),
        (np.zeros((9, 9, 4), np.uint8), r"got uint8 \(9, 9, 4\)"),
        (np.zeros((9, 9, 3)), "got float64"),
        (np.zeros((0, 9, 3), np.uint8), r"got uint8 \(0, 9, 3\)"),
        ("a.jpg", "got str; use read_image"),
    ],
)
def test_finder_refuses(finder, image, words):
    with pytest.raises(ValueError, match=words):
        finder.find([np.zeros((9, 9, 3), np.uint8), image])


def test_finder_arguments():
    with pytest.raises(ValueError, match="min_face of 12 pixels or more .*, got 5"):
        Finder(min_face=5)
    with pytest.raises(ValueError, match=r"three thresholds between 0 and 1, got \(0.5, 0.5\)"):
        Finder(thresholds=(0.5, 0.5))


def seen(images, planned):
    """The bright rectangle of each photo, to a part of a pixel."""
    found = []
    for image in images:
        light = image.mean(2) / 255
        edges = []
        for profile in (light[len(light) // 2], light[:, light.shape[1] // 2]):
            middle = (profile * (np.arange(len(profile)) + 0.5)).sum() / profile.sum()
            edges.append((middle - profile.sum() / 2, middle + profile.sum() / 2))
        (x0, x1), (y0, y1) = edges
        found.append([Face((x0, y0, x1, y1), 1.0, ((x0, y0), (x1, y1)))])
    return found


@pytest.mark.parametrize("size", [(1152, 1008), (1153, 1009), (1157, 1015)], ids=str)
@pytest.mark.parametrize("longest", [4000, 100], ids=["as decoded", "resized too"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_lies_in_the_full_photo_where_it_was_seen(size, longest, orientation):
    """Sides that the reduction does not divide, stored from either end."""
    stored = np.zeros((*size, 3), np.uint8)
    stored[300:900, 400:800] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(stored).save(file, "JPEG", exif=exif, quality=95)
    photo, upright = open_image(file.getvalue()), read_image(file.getvalue())
    rows, columns = (np.flatnonzero((upright[:, :, 0] > 127).any(axis)) for axis in (1, 0))
    wanted = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    planned = halved(photo.size, 100, longest)
    assert planned.reduction == 8
    ((face,),) = look([photo], lambda size: planned, seen)
    assert face.box == pytest.approx(wanted, abs=0.6)
    assert np.ravel(face.points) == pytest.approx(wanted, abs=0.6)


def watched(image):
    """The photo as a JPEG decoded on demand, and the list of the reductions that are asked for."""
    stored, asked = cv2.imencode(".jpg", image[:, :, ::-1])[1].tobytes(), []
    photo = open_image(stored)
    return Encoded("watched", photo.size, lambda r: asked.append(r) or photo.pixels(r)), asked


def test_search_decodes_a_portrait_once_and_small(finder, hopper):
    large = cv2.resize(hopper, (1024, 1200), interpolation=cv2.INTER_CUBIC)
    photo, asked = watched(large)
    ((face,),), ((whole,),) = search(finder, [photo]), finder.find([large])
    assert asked == [4] == [first_reduction(finder, photo.size)]
    assert (
        overlap(face.box, whole.box) > 0.8
        and overlap(tuple(np.array(face.box) / 4), finder.find([hopper])[0][0].box) > 0.7
    )
    np.testing.assert_allclose(face.points, whole.points, atol=12)


def test_search_decodes_what_is_open_more_finely(finder, hopper):
    group = np.full((800, 900, 3), 200, np.uint8)
    for top, left in ((40, 40), (400, 500)):
        group[top : top + 150, left : left + 128] = cv2.resize(hopper, (128, 150), interpolation=cv2.INTER_AREA)
    photo, asked = watched(group)
    assert len(search(finder, [photo])[0]) == 2 and asked == [4, 1]
    photo, asked = watched(np.zeros((800, 900, 3), np.uint8))
    assert search(finder, [photo]) == [[]] and asked == [4, 1]
    photo, asked = watched(np.zeros((3000, 2600, 3), np.uint8))
    assert search(finder, [photo]) == [[]] and asked == [8, 2]  # 1280 pixels are enough


def test_search_does_not_depend_on_the_company(finder, hopper):
    double = cv2.resize(hopper, (512, 600), interpolation=cv2.INTER_CUBIC)
    images = [double, np.zeros_like(double), double[:, ::-1], hopper, double[:500]]
    together = search(finder, [watched(image)[0] for image in images])
    for image, faces in zip(images, together, strict=True):
        (alone,) = search(finder, [watched(image)[0]])
        assert len(alone) == len(faces)
        for first, second in zip(alone, faces, strict=True):
            np.testing.assert_allclose(first.box, second.box, atol=1e-2)


def test_a_second_look_that_finds_nothing_takes_nothing_away(monkeypatch):
    def detect(self, images, planned):
        boxes = np.array([(0, 0, 25.0, 25.0, 0.9)] * (images[0].shape[0] == 200)).reshape(-1, 5)
        return [(boxes, np.zeros((len(boxes), 5, 2)))] * len(images)

    monkeypatch.setattr(Finder, "_detect", detect)
    assert [face.box for face in Finder().find([np.zeros((400, 600, 3), np.uint8)])[0]] == [(0, 0, 50, 50)]


def test_a_portrait_seen_in_the_mirror_only_needs_no_finer_look(monkeypatch):
    def detect(self, images, planned):
        boxes = np.array([(20, 0, 120.0, 100.0, 0.9)])
        bright = [image[0, 0, 0] > 99 for image in images]  # the mirror image's first pixel, see below
        return [(boxes[: int(seen)], np.zeros((int(seen), 5, 2))) for seen in bright]

    monkeypatch.setattr(Finder, "_detect", detect)
    image = np.zeros((800, 1200, 3), np.uint8)
    image[:, -16:] = 255
    photo, asked = watched(image)
    assert search(Finder(), [photo])[0][0].box == (720, 0, 1120, 400) and set(asked) == {4}


class Plain:
    """A detector with nothing but find: one face, as large as the photo."""

    def find(self, images):
        return [[Face((0, 0, image.shape[1], image.shape[0]), 0.5)] for image in images]


def test_a_detector_without_search_gets_the_whole_photo():
    photo, asked = watched(np.zeros((80, 90, 3), np.uint8))
    assert search(Plain(), [photo])[0][0].box == (0, 0, 90, 80) and asked == [1]
    assert first_reduction(Plain(), (8000, 9000)) == 1
    with pytest.raises(ValueError, match="Few.find gave 0 lists of faces for 1 photos"):
        search(type("Few", (), {"find": lambda self, images: []})(), [photo])


def test_a_damaged_photo_does_not_stop_the_others():
    def decode(reduction):
        raise ImageError("b: damaged")

    good, missing = watched(np.zeros((80, 90, 3), np.uint8))[0], ImageError("c: no such file")
    found = try_search(Plain(), [good, Encoded("b", (9, 9), decode), missing, good])
    assert found[0] == found[3] == [Face((0, 0, 90, 80), 0.5)]
    assert "damaged" in str(found[1]) and found[2] is missing and try_search(Plain(), []) == []


def test_identity_tells_detectors_apart():
    finders = [Finder(), Finder(min_face=30), Finder(thresholds=(0.6, 0.7, 0.5)), Finder(longest=900), Plain()]
    assert len(set(map(identity, finders))) == 5 and identity(Finder()) == identity(finders[0])
    assert identity(Plain()).endswith("test_faces.Plain")


needs_photos = pytest.mark.skipif(not DATA.is_dir(), reason=f"no photos at {DATA}")


@needs_photos
def test_real_photos_masked_faces_and_none(finder):
    truth = read_boxes_of_scenes()
    met = total = 0
    photos = [read_image(DATA / "mask_scenes" / path) for path in truth]
    for boxes, faces in zip(truth.values(), finder.find(photos), strict=True):
        total += len(boxes)
        met += sum(any(overlap(box, face.box) >= 0.4 for face in faces) for box in boxes)
    assert total >= 10 and met / total >= 0.7  # 0.86 over all 150 photos, see benchmarks/faces.py
    empty = [read_image(file) for file in image_files(DATA / "aux_noface")[:6]]
    assert sum(map(bool, finder.find(empty))) <= 1


def read_boxes_of_scenes() -> dict[str, list[tuple[float, ...]]]:
    """The boxes of 40 pixels and more in the first eight photos that have one."""
    truth: dict[str, list[tuple[float, ...]]] = {}
    with open(DATA / "mask_scenes" / "boxes.csv") as stream:
        for row in csv.DictReader(stream):
            box = tuple(float(row[name]) for name in ("x0", "y0", "x1", "y1"))
            if max(box[2] - box[0], box[3] - box[1]) >= 40 and (row["path"] in truth or len(truth) < 8):
                truth.setdefault(row["path"], []).append(box)
    return truth


def overlap(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(0, width) * max(0, height)
    return shared / (Face(first, 0).area + Face(second, 0).area - shared)
