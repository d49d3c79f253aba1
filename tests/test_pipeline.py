"""Lanes: order, bounds, errors in their turn, shared cores; on made-up work and on small photos."""

import io
import time

import cv2
import numpy as np
import pytest
import torch

from multihead import FACE, FULL, HEADS, Model, pipeline
from multihead.faces import Face
from multihead.inputs import Item
from multihead.modes import PIN, Pins
from multihead.pipeline import answers, batch_answers

SMALL = FULL.resized(32)


def model_of(crop=SMALL):
    torch.manual_seed(0)
    return Model("test_resnet", [head.on(crop) for head in HEADS]).eval()


def noise(seed, size=(40, 48)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def jpeg(seed, size=(40, 48)):
    return cv2.imencode(".jpg", noise(seed, size))[1].tobytes()


class Middle:
    """A face in the middle of each photo; notes who asks at once, and how large the photos are."""

    def __init__(self, parallel=False):
        self.parallel, self.busy, self.most, self.shapes = parallel, 0, 0, []

    def find(self, images):
        self.busy += 1
        self.most = max(self.most, self.busy)
        self.shapes += [image.shape for image in images]
        time.sleep(0.01)
        self.busy -= 1
        return [[Face((10, 10, 30, 30), 0.9)] for _ in images]


def test_rows_hold_no_pixels():
    """A stream of pictures would else fill the memory; a path is kept."""
    pictures = (noise(seed) for seed in range(5))
    rows = list(answers(model_of(), pictures))
    assert len(rows) == 5 and all(row.probs is not None and row.item.source is None for row in rows)
    assert [row.item.source for row in answers(model_of(), [jpeg(0), noise(1)])] == [None, None]


def test_no_photos_together_is_one_by_one():
    assert len(list(answers(model_of(), [noise(seed) for seed in range(3)], batch_size=0))) == 3


def test_threads_are_shared_and_given_back():
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(6)
    cv2.setNumThreads(6)
    try:
        seen = []

        class Looker:
            parallel = True

            def find(self, images):
                seen.append((torch.get_num_threads(), cv2.getNumThreads()))
                return [[] for _ in images]

        rows = answers(model_of(FACE.resized(32)), [noise(0)] * 64, finder=Looker(), workers=3)
        next(rows)
        assert set(seen) == {(2, 2)} and torch.get_num_threads() == 6
        list(rows)
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (6, 6)
        rows = answers(model_of(), [noise(0)] * 64, workers=3)
        next(rows)
        rows.close()
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (6, 6)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


# ---- answers


@pytest.mark.parametrize("count", [1, 5, 31, 32, 70])
@pytest.mark.parametrize("workers, batch_size", [(1, None), (3, 4), (2, 50)])
def test_answers_do_not_depend_on_lanes_chunks_or_number(count, workers, batch_size):
    model = model_of()
    found = list(answers(model, [noise(seed) for seed in range(count)], workers=workers, batch_size=batch_size))
    assert [row.item.name for row in found] == [f"photo {number}" for number in range(count)]
    images = [cv2.resize(noise(seed), (32, 32), interpolation=cv2.INTER_AREA) for seed in range(count)]
    expected = batch_answers(model, [([image], [True]) for image in images])
    np.testing.assert_allclose([row.probs for row in found], expected, atol=1e-5)


def test_what_is_pinned_decides_how_many_photos_are_answered(monkeypatch):
    monkeypatch.delenv(PIN)
    model, photos = model_of(), [noise(seed) for seed in range(40)]
    exact = [row.probs for row in answers(model, photos, pins=Pins("f32"))]
    rough = [row.probs for row in answers(model, photos, pins=Pins("bf16"))]
    assert 1e-6 < np.abs(np.subtract(exact, rough)).max() < 0.05
    np.testing.assert_allclose(exact[:20], [row.probs for row in answers(model, photos[:20])], atol=1e-5)


@pytest.mark.parametrize("parallel", [False, True])
def test_only_a_finder_that_says_so_is_asked_by_several_lanes_at_once(parallel):
    finder = Middle(parallel)
    rows = list(answers(model_of(FACE.resized(32)), [noise(n) for n in range(96)], finder=finder, workers=3))
    assert [row.box for row in rows] == [(10, 10, 30, 30)] * 96
    assert (finder.most > 1) == parallel


def test_a_photo_is_decoded_for_the_search_as_small_as_the_finder_likes():
    class Modest(Middle):
        def reduction(self, size):
            return 4

    class Plain(Middle):
        pass

    photos, plain = [jpeg(n, (160, 240)) for n in range(3)], Plain()
    list(answers(model_of(FACE.resized(32)), photos, finder=plain))
    assert set(plain.shapes) == {(160, 240, 3)}
    modest = Modest()
    rows = list(answers(model_of(FACE.resized(32)), photos, finder=modest))
    assert len(rows) == 3 and all(row.probs is not None for row in rows)


def test_large_photos_are_searched_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr("multihead.pipeline.HELD", 3 * 100 * 100)
    sizes = []

    class Counting:
        def find(self, images):
            sizes.append(len(images))
            return [[] for _ in images]

    photos = [noise(n, (100, 100)) for n in range(10)]
    rows = list(answers(model_of(FACE.resized(32)), photos, finder=Counting(), workers=1))
    assert sizes == [3, 3, 3, 1] and len(rows) == 10


def test_damage_behind_the_header_is_a_row_with_its_reason():
    """A JPEG whose pixels cannot be decoded: seen by the search where there is one, else when it is cut."""
    whole = jpeg(0)
    start = whole.index(b"\xff\xda") + 2
    broken = whole[:start] + b"\x00\x01" + whole[-2:]
    for crop in (SMALL, FACE.resized(32)):
        rows = list(answers(model_of(crop), [whole, broken, whole], finder=Middle()))
        assert [row.probs is None for row in rows] == [False, True, False]
        assert f"{len(broken)} bytes: " in rows[1].error


@pytest.mark.parametrize("wrong", [{"batch_size": -1}, {"workers": -2}])
def test_negative_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match=r"predict: \w+ is -\d; expected a whole number >= 0"):
        next(answers(model_of(), [noise(0)], **wrong))


def test_numbers_may_be_numpys():
    assert next(answers(model_of(), [noise(0)], batch_size=np.int64(1), workers=np.int64(1))).probs is not None


def test_full_decodes_are_not_kept_once_their_crops_are_cut(monkeypatch):
    """Photos that come with a box are decoded when they are cut: one of them at a time is in memory."""
    opened, most = [], []

    def opening(source, plain=pipeline.open_image):
        opened.append(plain(source))
        return opened[-1]

    def cutting(photo, *args, plain=pipeline.read_crops):
        most.append(sum(each.held > 0 for each in opened))
        return plain(photo, *args)

    monkeypatch.setattr(pipeline, "open_image", opening)
    monkeypatch.setattr(pipeline, "read_crops", cutting)
    photos = [Item(f"{n}", jpeg(n, (200, 200)), box=(10, 10, 60, 60)) for n in range(12)]
    rows = list(answers(model_of(FACE.resized(32)), photos, workers=1, batch_size=12))
    assert len(rows) == 12 and most == [0] * 12


def test_the_rows_of_one_file_are_decoded_once(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(jpeg(0, (200, 200)))
    opened = []
    monkeypatch.setattr(
        pipeline, "open_image", lambda source, plain=pipeline.open_image: opened.append(source) or plain(source)
    )
    boxes = [(10.0 + n, 10.0, 60.0, 60.0) for n in range(20)]
    photos = [Item("a", tmp_path / "a.jpg", box=box) for box in boxes]
    rows = list(answers(model_of(FACE.resized(32)), photos, workers=1))
    assert [row.box for row in rows] == boxes and len(opened) == 1


def test_an_open_file_is_one_photo_and_no_stream(monkeypatch):
    """Few photos are answered as the model is: a stream's number is not known."""
    monkeypatch.setattr(pipeline, "prepared", None)
    for source in (io.BytesIO(jpeg(0)), [io.BytesIO(jpeg(0))]):
        (row,) = answers(model_of(), source, batch_size=1, workers=0)
        assert row.probs is not None


def test_the_picture_of_an_open_file_is_drawn(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    with open(tmp_path / "a.jpg", "rb") as file:
        rows = list(
            answers(model_of(FACE.resized(32)), [file, io.BytesIO(jpeg(1))], finder=Middle(), draw=tmp_path / "drawn")
        )
    assert len(list((tmp_path / "drawn").iterdir())) == len(rows) == 2
    assert [row.item.source for row in rows] == [None, None]


def test_a_photo_that_goes_before_its_picture_is_told(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    model = model_of()
    monkeypatch.setattr(
        pipeline, "batch_answers", lambda *given: (tmp_path / "a.jpg").unlink() or np.ones((1, 18)) / 18
    )
    (row,) = answers(model, tmp_path / "a.jpg", draw=tmp_path / "drawn")
    assert row.probs is not None and "no picture: " in capsys.readouterr().err


def test_few_photos_are_answered_as_pinned():
    model, photos = model_of(), [noise(0), noise(1)]
    exact, rough = ([row.probs for row in answers(model, photos, pins=pins)] for pins in (Pins(), Pins("bf16")))
    assert np.abs(np.subtract(exact, rough)).max() > 1e-6


# ---- shares of lanes


@pytest.mark.parametrize(
    ("count", "lanes", "expected"), [(100, 2, [50, 25, 25]), (97, 2, [49, 25, 23]), (7, 3, [3, 3, 1])]
)
def test_lanes_share_what_is_there_evenly(count, lanes, expected, monkeypatch):
    """Lists are counted ahead, and searched in long chunks; what comes one by one is not waited for."""
    taken = []
    plain = pipeline._Lane.answer
    monkeypatch.setattr(pipeline._Lane, "answer", lambda self, chunk: taken.append(len(chunk)) or plain(self, chunk))
    photos = [noise(seed, (40, 40)) for seed in range(count)]
    assert len(list(answers(model_of(), photos, workers=lanes, pins=Pins("f32")))) == count
    assert sorted(taken, reverse=True) == expected
    for wrap in (iter, lambda given: [given], lambda given: [photos[0], (given,)]):
        taken.clear()
        asked = []
        rows = answers(model_of(), wrap(asked.append(1) or photo for photo in photos), workers=lanes, pins=Pins("f32"))
        next(rows)
        assert max(taken) <= 16 and len(asked) <= max(32, 16 * (lanes + 2)) + 1
        rows.close()


@pytest.mark.parametrize("good", [3, 40, 130])
def test_an_error_of_the_source_comes_after_the_rows_before_it(good):
    rows = answers(model_of(), [*(noise(seed) for seed in range(good)), object()], workers=2, pins=Pins("f32"))
    for number in range(good):
        assert next(rows).item.name == f"photo {number}"
    with pytest.raises(TypeError, match="cannot read photos from object"):
        next(rows)


def test_a_batch_size_is_kept_and_passes_are_alike(monkeypatch):
    taken, passed = [], []
    plain, passes = pipeline._Lane.answer, pipeline.batch_answers
    monkeypatch.setattr(pipeline._Lane, "answer", lambda self, chunk: taken.append(len(chunk)) or plain(self, chunk))
    monkeypatch.setattr(pipeline, "batch_answers", lambda model, rows: passed.append(len(rows)) or passes(model, rows))
    photos = [noise(seed) for seed in range(66)]
    list(answers(model_of(), photos, workers=2, batch_size=40, pins=Pins("f32")))
    assert sorted(taken) == [26, 40]
    taken.clear(), passed.clear()
    list(answers(model_of(), photos, workers=2, pins=Pins("f32")))
    assert sorted(taken) == [16, 17, 33] and sorted(passed) == [8, 9, 11, 11, 11, 16]  # never 16, 16 and 1


def test_photos_that_a_finer_look_may_decode_are_bounded(monkeypatch):
    """Decoded at 1/8 for the first look, they count by what a second one may want."""
    monkeypatch.setattr(pipeline, "FINER", 3 * 40 * 48)
    together = []

    class Modest(Middle):
        def reduction(self, size):
            return 8

        def search(self, photos):
            together.append(len(photos))
            return [[] for _ in photos]

    rows = list(answers(model_of(FACE.resized(32)), [jpeg(n) for n in range(40)], finder=Modest(), workers=1))
    assert len(rows) == 40 and max(together) == 12  # a quarter of each


def test_more_photos_than_are_counted_ahead(monkeypatch):
    monkeypatch.setattr(pipeline, "COUNTED", 70)
    taken = []
    plain = pipeline._Lane.answer
    monkeypatch.setattr(pipeline._Lane, "answer", lambda self, chunk: taken.append(len(chunk)) or plain(self, chunk))
    found = list(answers(model_of(), [noise(seed) for seed in range(130)], workers=2, pins=Pins("f32")))
    assert [row.item.name for row in found] == [f"photo {number}" for number in range(130)]
    assert sorted(taken) == [32, 34, 64]


def test_a_model_that_answers_with_nan_gives_no_answer(tmp_path):
    """It was the first class of each head, with blank probabilities."""
    model = model_of()
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    row = next(answers(model, np.zeros((40, 40, 3), np.uint8)))
    assert row.probs is None and "the model answers with nan" in row.error
