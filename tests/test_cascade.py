from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multihead import cascade
from multihead.images import image_files, read_image
from multihead.nets import build_nets

NETS = build_nets()
THRESHOLDS = (0.6, 0.7, 0.45)
SCENES = Path(__file__).parents[2] / "shared" / "data" / "mask_scenes" / "images"


def face_like(size=(120, 150), places=((20, 30, 60),)):
    """A photo (height, width) with drawn faces at (left, top, width)."""
    photo = np.full((*size, 3), (90, 120, 150), np.uint8)
    for place in places:
        draw(photo, place, (30, 30), (32, 44), (70, 45, 30))
        draw(photo, place, (30, 36), (27, 36), (225, 180, 150))
        for eye in (19, 41):
            draw(photo, place, (eye, 30), (6, 3), (245, 240, 235))
            draw(photo, place, (eye, 30), (3, 3), (40, 25, 20))
            draw(photo, place, (eye, 23), (7, 2), (80, 50, 35))
        draw(photo, place, (30, 43), (4, 6), (200, 150, 125))
        draw(photo, place, (30, 56), (11, 3), (170, 70, 75))
    return cv2.GaussianBlur(photo, (0, 0), 0.8)


def draw(photo, place, centre, radii, colour):
    """An ellipse in a face of width 60 that is put at (left, top, width)."""
    left, top, width = place
    middle = (round(left + centre[0] * width / 60), round(top + centre[1] * width / 60))
    cv2.ellipse(photo, middle, tuple(round(r * width / 60) for r in radii), 0, 0, 360, colour, -1, cv2.LINE_AA)


@pytest.fixture(scope="module")
def plain():
    """facenet-pytorch's own detect_face as a function of (photos, least face, thresholds)."""
    from facenet_pytorch import MTCNN
    from facenet_pytorch.models.utils.detect_face import detect_face

    nets = MTCNN(keep_all=True)

    def find(photos, least, thresholds):
        with torch.inference_mode():
            batch, device = torch.from_numpy(np.stack(photos)), torch.device("cpu")
            found = detect_face(batch, least, nets.pnet, nets.rnet, nets.onet, thresholds, cascade.FACTOR, device)
        return [(np.asarray(b, float).reshape(-1, 5), np.asarray(p, float).reshape(-1, 5, 2)) for b, p in zip(*found)]

    return find


@pytest.fixture
def unconfirmed(monkeypatch):
    """The cascade without its own two looks more, as facenet-pytorch has it: the last threshold is then 0.2 lower."""
    monkeypatch.setattr(cascade, "_confirmed", lambda net, sums, found, threshold: found)


def same(ours, theirs, share=1.0):
    """Asserts that at least this share of all boxes and points are equal to a tenth of a pixel, and no more are found."""
    met = total = 0
    for (boxes, points), (expected, five) in zip(ours, theirs, strict=True):
        total += max(len(boxes), len(expected))
        for box, point in zip(boxes, points, strict=True):
            met += any(
                np.abs(box - other).max() < 0.1 and np.abs(point - q).max() < 0.1 for other, q in zip(expected, five)
            )
    assert total > 0 and met >= share * total, (met, total)


def test_equals_facenet_on_drawn_faces(plain, unconfirmed):
    one, two = face_like(), face_like(places=((10, 25, 50), (85, 40, 45)))
    photos = [one, two, np.ascontiguousarray(one[:, ::-1]), np.ascontiguousarray(two[::-1])]
    ours = cascade.detect(NETS, photos, 20, (0.5, 0.5, 0.5))
    same(ours, plain(photos, 20, (0.5, 0.5, 0.3)))
    assert len(ours[0][0]) >= 1 and len(ours[1][0]) >= 2


def test_equals_facenet_on_noise_with_every_window_a_candidate(plain, unconfirmed):
    photos = list(np.random.default_rng(0).integers(0, 256, (3, 70, 90, 3), np.uint8))
    ours = cascade.detect(NETS, photos, 24, (0.01, 0.01, 0.21))
    same(ours, plain(photos, 24, (0.01, 0.01, 0.1)), 0.9)  # 0.2 less, and never less than 0.1


@pytest.mark.skipif(not SCENES.is_dir(), reason=f"no photos at {SCENES}")
def test_equals_facenet_on_real_photos(plain, unconfirmed):
    photos = [read_image(file) for file in image_files(SCENES)[:6]]
    ours = [cascade.detect(NETS, [photo], 20, (0.6, 0.7, 0.9))[0] for photo in photos]
    same(ours, [plain([photo], 20, (0.6, 0.7, 0.7))[0] for photo in photos], 0.9)


def test_the_two_looks_more_are_part_of_the_score(monkeypatch):
    photo = face_like()
    ((found, _),) = cascade.detect(NETS, [photo], 20, (0.5, 0.5, 0.3))
    monkeypatch.setattr(cascade, "_confirmed", lambda net, sums, found, threshold: found)
    ((first, _),) = cascade.detect(NETS, [photo], 20, (0.5, 0.5, 0.3))
    assert len(found) and not np.isclose(found[0, 4], first[0, 4])
    monkeypatch.undo()
    assert all(len(boxes) == 0 for boxes, _ in cascade.detect(NETS, [photo], 20, (0.5, 0.5, found[:, 4].max() + 1e-4)))


@pytest.mark.parametrize("threshold", [0.4, 0.55, 0.7, 0.85])
def test_the_third_look_is_taken_only_where_it_decides(threshold, monkeypatch):
    """Those that the mean of all three would take are found; of the sure ones the score is the mean of two."""
    seen, asked = [], []
    confirm, run = cascade._confirmed, cascade._run

    def confirmed(net, sums, found, least):
        seen.append((net, sums, found))
        monkeypatch.setattr(cascade, "_run", lambda *given: asked.append(len(given[2])) or run(*given))
        return confirm(net, sums, found, least)

    monkeypatch.setattr(cascade, "_confirmed", confirmed)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    photo = face_like((200, 300), [(20, 30, 60), (120, 40, 80), (220, 60, 40), (90, 130, 25), (30, 140, 33)])
    photo[150:190, 200:240] = noise
    ((found, _),) = cascade.detect(NETS, [photo], 20, (0.1, 0.1, threshold))
    ((net, sums, first),) = seen
    with torch.inference_mode():
        side = (1.15 * (first.boxes[:, 2:] - first.boxes[:, :2]).amax(1, keepdim=True)).round()
        corner = ((first.boxes[:, :2] + first.boxes[:, 2:] - side) / 2).round()
        crops = sums.cut(torch.cat([corner, corner + side], 1).long(), first.photo, 48)
        two = first.scores + net(crops)[-1][:, 1]
        three = two + net(crops.flip(3))[-1][:, 1]
    sure = two / 3 >= threshold
    expected = torch.where(sure, two / 2, three / 3)[three / 3 >= threshold]
    assert 0 < len(found) < len(first.boxes)
    np.testing.assert_allclose(np.sort(found[:, 4]), expected.sort().values, atol=1e-5)
    open_ones = ~sure & ((two + 1) / 3 >= threshold)
    assert asked == [len(first.boxes), int(open_ones.sum())][: 1 + bool(open_ones.any())]


@given(st.data())
def test_groups_are_judged_by_themselves(data):
    """Several at once, beside one after the other; f64 holds where each lies."""
    count = data.draw(st.integers(0, 40))
    seeded = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    corner = torch.randint(-20, 60, (count, 2), generator=seeded).float()
    boxes = torch.cat([corner, corner + torch.randint(1, 60, (count, 2), generator=seeded)], 1)
    group = torch.randint(0, 6, (count,), generator=seeded)
    scores = torch.rand(count, generator=seeded)
    rows = cascade.Candidates(boxes, scores, group, torch.arange(count * 4.0).view(-1, 4), torch.zeros(count, 5, 2))
    with mock.patch.object(cascade, "_TOGETHER", data.draw(st.integers(1, 50))):
        for plain in (cascade._apart(0.4), cascade._uncovered):

            def keep(boxes, scores, plain=plain):
                assert boxes.dtype == scores.dtype == torch.float64
                return plain(boxes, scores)

            parts = [(group == number).nonzero()[:, 0] for number in range(6)]
            kept = [part[plain(boxes[part], scores[part])] for part in parts if len(part)]
            expected = rows.at(torch.cat(kept)) if kept else rows
            for found, wanted in zip(rows.best(group, keep), expected, strict=True):
                assert torch.equal(found, wanted)


def test_few_groups_are_compared_in_one_call_and_none_touch():
    """A call compares all pairs: with all photos in one, time would grow with the square of their number."""
    group = torch.arange(90).repeat_interleave(10)
    boxes = torch.tensor([0.0, 0.0, 9.0, 9.0]).repeat(900, 1)
    rows = cascade.Candidates(boxes, torch.rand(900), group, boxes, torch.zeros(900, 5, 2))
    called = []

    def keep(boxes, scores):
        called.append(len(boxes))
        gaps = boxes[:, 0].unique().diff()
        assert (gaps > 9 + 1).all()  # facenet-pytorch's overlap counts the pixel after the last
        return cascade._uncovered(boxes, scores)

    assert len(rows.best(group, keep).boxes) == 90
    assert sum(called) == 900 and len(called) == 4 and max(called) <= cascade._TOGETHER + 10


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 80), st.integers(1, 80), st.integers(12, 90), st.integers(0, 9))
def test_dies_of_no_size_and_no_candidate(height, width, least, seed):
    photos = list(np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), np.uint8))
    for boxes, points in cascade.detect(NETS, photos, least, (0.05, 0.05, 0.21)):
        assert boxes.shape[1:] == (5,) and points.shape == (len(boxes), 5, 2) and np.isfinite(boxes).all()


def test_photos_do_not_depend_on_each_other(monkeypatch):
    photos = [
        face_like(),
        face_like(places=((60, 40, 70),)),
        np.zeros((120, 150, 3), np.uint8),
        face_like()[::-1].copy(),
    ]
    together = cascade.detect(NETS, photos, 20, THRESHOLDS)
    monkeypatch.setattr(cascade, "_PASS_PIXELS", 1)  # one photo, and a few crops, at a time
    monkeypatch.setattr(cascade, "_PASS_CROPS", 3)
    for order in ([0], [3, 0, 1], [1, 2], [0, 1, 2, 3]):
        for number, (boxes, points) in zip(order, cascade.detect(NETS, [photos[n] for n in order], 20, THRESHOLDS)):
            np.testing.assert_allclose(boxes, together[number][0], atol=1e-2)
            np.testing.assert_allclose(points, together[number][1], atol=1e-2)


def test_a_box_outside_the_photo_is_left_out(monkeypatch):
    """facenet-pytorch drops such a candidate's crop but not its box, and then fails."""
    real = cascade._proposed

    def astray(*rest):
        found = real(*rest)
        return found._replace(boxes=torch.cat([found.boxes[:-1], found.boxes[-1:] + 10_000]))

    def checked(sums, boxes, photo, side):
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        return cut(sums, boxes, photo, side)

    cut = cascade.Sums.cut
    monkeypatch.setattr(cascade.Sums, "cut", checked)
    photo = face_like()
    before = cascade.detect(NETS, [photo], 20, THRESHOLDS)[0][0]
    monkeypatch.setattr(cascade, "_proposed", astray)
    after = cascade.detect(NETS, [photo], 20, THRESHOLDS)[0][0]
    assert len(before) >= len(after) >= len(before) - 1
    monkeypatch.setattr(cascade, "_proposed", lambda *rest: (f := real(*rest))._replace(boxes=f.boxes - 10_000))
    assert len(cascade.detect(NETS, [photo], 20, THRESHOLDS)[0][0]) == 0


def test_scales_by_hand():
    assert cascade.scales((100, 30), 20) == pytest.approx([0.6, 0.6 * 0.709])
    assert cascade.scales((19, 100), 20) == []
