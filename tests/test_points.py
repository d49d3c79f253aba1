import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from multihead import points
from multihead.faces import Face
from multihead.points import locate_points, overlap, points_file
from multihead.reading import read


def five(x, y):
    return ((x, y), (x + 10, y), (x + 5, y + 5), (x + 2, y + 10), (x + 8, y + 10.126))


LARGE = Face((0, 0, 30, 30), 0.9, five(5, 5))
SMALL = Face((30, 30, 45, 45), 0.9, five(32, 32))


class Looker:
    """A detector that finds both faces where a photo's first pixel is bright, and counts what it was shown."""

    def __init__(self):
        self.seen = 0

    def find(self, images):
        self.seen += len(images)
        return [[LARGE, SMALL] if image[0, 0, 0] else [] for image in images]


def photo(path, level):
    Image.fromarray(np.full((60, 50, 3), level, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
    """Photos: without a box, without a face, with the small face's box, with a box where no face is, unreadable."""
    for name, level in {"a": 200, "b": 0, "c": 200, "d": 200}.items():
        photo(tmp_path / f"{name}.png", level)
    (tmp_path / "e.png").write_bytes(b"")
    box = [[""] * 4, [""] * 4, [29, 31, 44, 46], [40, 0, 50, 10], [""] * 4]
    table = pd.DataFrame(box, columns=["x0", "y0", "x1", "y1"])
    table.insert(0, "path", [f"{name}.png" for name in "abcde"])
    table.to_csv(tmp_path / "table.csv", index=False)
    return tmp_path


def test_a_cache_that_cannot_be_written_is_a_note(folder, monkeypatch, capsys):
    photos, known = read(folder / "table.csv"), locate_points(read(folder / "table.csv"), range(5), finder=Looker())
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "a.png"))
    monkeypatch.setattr(points, "CHUNK", 2)
    np.testing.assert_array_equal(locate_points(photos, range(5), finder=Looker()), known.round(2))
    note = (
        f"points of faces are not kept in {points_file(Looker())}: Not a directory; XDG_CACHE_HOME names another place"
    )
    assert capsys.readouterr().err == note + "\n"


def test_the_points_of_the_face_that_is_meant(folder):
    found = locate_points(read(folder / "table.csv"), range(5), finder=Looker())
    assert found.shape == (5, 5, 2)
    np.testing.assert_allclose(found[0], LARGE.points, atol=0.005)  # the largest, where no box is known
    np.testing.assert_allclose(found[2], SMALL.points, atol=0.005)  # the one in the box
    assert np.isnan(found[[1, 3, 4]]).all()  # no face, no face in the box, no photo


def test_only_the_rows_asked_for_are_searched(folder):
    finder = Looker()
    found = locate_points(read(folder / "table.csv"), np.array([2]), finder=finder)
    assert finder.seen == 1 and not np.isnan(found[2]).any() and np.isnan(found[[0, 1, 3, 4]]).all()


def test_a_second_call_searches_nothing_and_says_the_same(folder):
    photos = read(folder / "table.csv")
    first, finder = locate_points(photos, range(5), finder=Looker()), Looker()
    np.testing.assert_array_equal(locate_points(photos, range(5), finder=finder), first)
    assert finder.seen == 0


def test_a_photo_written_anew_is_searched_again(folder):
    photos = read(folder / "table.csv")
    locate_points(photos, range(4), finder=Looker())
    photo(folder / "a.png", 0)
    os.utime(folder / "a.png", ns=(1, 1))
    finder = Looker()
    assert np.isnan(locate_points(photos, range(4), finder=finder)[0]).all() and finder.seen == 1


def test_another_box_of_the_same_photo_is_another_face(folder):
    photos, finder = read(folder / "table.csv"), Looker()
    locate_points(photos, [0], finder=finder)
    moved = photos.with_columns(x0=30.0, y0=30.0, x1=45.0, y1=45.0)
    np.testing.assert_allclose(locate_points(moved, [0], finder=finder)[0], SMALL.points, atol=0.005)
    assert finder.seen == 2


def test_a_torn_last_line_is_searched_again_and_spoils_no_other(folder):
    photos = read(folder / "table.csv")
    first = locate_points(photos, range(4), finder=Looker())
    whole = points_file(Looker()).read_text()
    points_file(Looker()).write_text(whole[:-20])
    for seen in (1, 0):
        finder = Looker()
        np.testing.assert_array_equal(locate_points(photos, range(4), finder=finder), first)
        assert finder.seen == seen
    assert points_file(Looker()).read_text().endswith(whole.splitlines()[-1] + "\n")


def test_an_interrupted_search_goes_on_where_it_was(folder, monkeypatch):
    monkeypatch.setattr(points, "CHUNK", 2)
    photos, counts = read(folder / "table.csv"), []

    def stop(count):
        counts.append(count)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        locate_points(photos, range(4), finder=Looker(), progress=stop)
    finder = Looker()
    locate_points(photos, range(4), finder=finder, progress=counts.append)
    assert counts == [2, 2] and finder.seen == 2


def test_a_detector_without_points_gives_none(folder):
    class Boxes:
        def find(self, images):
            return [[Face((0, 0, 30, 30), 0.9)] for _ in images]

    assert np.isnan(locate_points(read(folder / "table.csv"), [0], finder=Boxes())).all()


def test_overlap_by_hand():
    assert overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(50 / 150)
    assert overlap((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert overlap((0, 0, 10, 10), (10, 0, 20, 10)) == overlap((0, 0, 1, 1), (5, 5, 6, 6)) == 0
    assert overlap((0, 0, 4, 4), (1, 1, 3, 3)) == overlap((1, 1, 3, 3), (0, 0, 4, 4)) == 0.25


def test_detectors_do_not_share_their_points(folder):
    class Blind:
        def find(self, images):
            return [[] for _ in images]

    photos = read(folder / "table.csv")
    assert not np.isnan(locate_points(photos, [0], finder=Looker())[0]).any()
    assert np.isnan(locate_points(photos, [0], finder=Blind())[0]).all()
    assert points_file() != points_file(Looker()) != points_file(Blind())
