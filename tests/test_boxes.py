import os
import threading
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from multihead import boxes
from multihead.boxes import boxes_file, locate_faces
from multihead.crops import FACE, FULL
from multihead.faces import Face
from multihead.mtcnn import Finder
from multihead.reading import read

CROPS = [FACE.resized(32)]


class Looker:
    """A detector that finds a face as large as the photo's first pixel says, and counts what it was shown."""

    def __init__(self):
        self.seen = 0

    def find(self, images):
        self.seen += len(images)
        sides = [int(image[0, 0, 0]) for image in images]
        return [[Face((1.0, 2.0, 1.0 + side, 2.0 + side), 0.9)] if side else [] for side in sides]


def photo(path, side):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((60, 50, 3), side, np.uint8)).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    for name, side in {"a.png": 10, "b.png": 0, "c.png": 30}.items():
        photo(tmp_path / "photos" / name, side)
    return tmp_path / "photos"


def test_boxes_are_found_once_and_remembered(folder):
    finder = Looker()
    located = locate_faces(read(folder), CROPS, finder=finder)
    assert (located.searched, finder.seen, located.faceless) == (3, 3, ("b.png",))
    np.testing.assert_array_equal(located.photos.boxes, [[1, 2, 11, 12], [np.nan] * 4, [1, 2, 31, 32]])
    again = locate_faces(read(folder), CROPS, finder=finder)
    assert (again.searched, finder.seen, again.faceless) == (0, 3, ("b.png",))
    np.testing.assert_array_equal(again.photos.boxes, located.photos.boxes)


@pytest.mark.parametrize("age", [1000, 0, -1000], ids=["older", "now", "of the future"])
def test_another_photo_in_its_place_is_searched_whenever_it_is_from(folder, age):
    finder = Looker()
    locate_faces(read(folder), CROPS, finder=finder)
    photo(folder.parent / "new" / "c.png", 20)
    moment = time.time() - age
    os.utime(folder.parent / "new" / "c.png", (moment, moment))  # as unpacking an archive leaves it
    os.replace(folder.parent / "new" / "c.png", folder / "c.png")
    again = locate_faces(read(folder), CROPS, finder=finder)
    assert again.searched == 1 and again.photos.boxes[2].tolist() == [1, 2, 21, 22]
    assert locate_faces(read(folder), CROPS, finder=finder).searched == 0


def test_a_photo_that_changed_after_an_interrupted_search_is_searched_again(folder, monkeypatch):
    class Stopped(Looker):
        identity = "looker"

        def find(self, images):
            if self.seen >= stop:
                raise KeyboardInterrupt
            return super().find(images)

    monkeypatch.setattr("multihead.scanning.lane_count", lambda: 1)
    monkeypatch.setattr("multihead.scanning.evenly", lambda *_: 1)  # a photo at a time
    finder, stop = Stopped(), 2
    with pytest.raises(KeyboardInterrupt):
        locate_faces(read(folder), CROPS, finder=finder)
    kept = boxes_file(folder, finder)
    assert not kept.exists() and "a.png" in kept.with_name(kept.name + ".part").read_text()
    photo(folder / "a.png", 25)
    stop = 9
    located = locate_faces(read(folder), CROPS, finder=finder)
    assert located.photos.boxes[0].tolist() == [1, 2, 26, 27] and located.photos.boxes[2].tolist() == [1, 2, 31, 32]


def test_a_detector_s_box_ends_at_the_photo(folder):
    class Beyond(Looker):
        def find(self, images):
            return [[Face((-3.0, 5.0, 70.0, 20.0), 0.9), Face((-9.0, -9.0, -1.0, 90.0), 0.8)] for _ in images]

    for _ in range(2):  # found, and read back
        located = locate_faces(read(folder), CROPS, finder=Beyond())
        assert located.photos.boxes.tolist() == [[0, 5, 50, 20]] * 3


def test_two_that_want_the_same_photos_search_them_once(folder):
    class Slow(Looker):
        def find(self, images):
            time.sleep(0.2)
            return super().find(images)

    finder, found = Slow(), []
    threads = [
        threading.Thread(target=lambda: found.append(locate_faces(read(folder), CROPS, finder=finder)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert finder.seen == 3 and sorted(each.searched for each in found) == [0, 3]
    np.testing.assert_array_equal(found[0].photos.boxes, found[1].photos.boxes)


def test_nothing_is_written_into_the_photos_folder(folder):
    before = sorted(folder.rglob("*"))
    locate_faces(read(folder), CROPS, finder=(finder := Looker()))
    assert sorted(folder.rglob("*")) == before and boxes_file(folder, finder).is_file()


def test_a_cache_that_cannot_be_written_is_a_note(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # as a home that is not there; root may write anywhere
    found = [locate_faces(read(folder), CROPS, finder=Looker()) for _ in range(2)]
    assert [(each.searched, each.faceless) for each in found] == [(3, ("b.png",))] * 2
    note = (
        f"boxes of faces are not kept: cannot write {boxes_file(folder, Looker())}: Not a directory; name another place"
    )
    assert capsys.readouterr().err.count(note) == 2


def test_what_a_cache_knows_that_cannot_be_written_is_not_searched(folder, monkeypatch):
    locate_faces(read(folder), CROPS, finder=(finder := Looker()))
    (folder / "c.png").unlink()
    photo(folder / "d.png", 20)
    before = boxes_file(folder, finder).read_text()

    def refuse(path):
        raise OSError(f"cannot write {path}: Read-only file system; name another place")

    monkeypatch.setattr(boxes, "check_writable", refuse)
    assert locate_faces(read(folder), CROPS, finder=finder).searched == 1
    assert boxes_file(folder, finder).read_text() == before


def test_whole_photos_need_no_search(folder):
    finder = Looker()
    photos = read(folder)
    assert locate_faces(photos, [FULL], finder=finder).photos is photos and finder.seen == 0


def test_what_is_known_is_not_searched(folder):
    table = pd.DataFrame({"path": ["a.png", "b.png", "c.png"], "face": ["", "whole", ""]})
    table[["x0", "y0", "x1", "y1"]] = [[3, 4, 5, 6]] + [[""] * 4] * 2
    finder = Looker()
    located = locate_faces(read(table, root=folder), CROPS, finder=finder)
    assert finder.seen == 1 and located.faceless == ()
    np.testing.assert_array_equal(located.photos.boxes[0], [3, 4, 5, 6])
    assert np.isnan(located.photos.boxes[1]).all()


def test_a_box_that_is_given_outlives_one_that_was_found(folder):
    locate_faces(read(folder), CROPS, finder=Looker())
    table = pd.DataFrame({"path": ["a.png", "c.png"], "x0": [3, ""], "y0": [4, ""], "x1": [5, ""], "y1": [6, ""]})
    located = locate_faces(read(table, root=folder), CROPS, finder=Looker())
    assert located.searched == 0
    np.testing.assert_array_equal(located.photos.boxes, [[3, 4, 5, 6], [1, 2, 31, 32]])


def test_missing_says_what_becomes_of_a_photo_without_a_face(folder):
    kept = locate_faces(read(folder), CROPS, finder=Looker(), missing="full").photos
    assert kept.table.name.tolist() == ["a.png", "b.png", "c.png"]
    left = locate_faces(read(folder), CROPS, finder=Looker(), missing="skip")
    assert left.photos.table.name.tolist() == ["a.png", "c.png"] and left.faceless == ("b.png",)
    with pytest.raises(ValueError, match="1 photos have no face, the first is b.png; use missing='full' or 'skip'"):
        locate_faces(read(folder), CROPS, finder=Looker(), missing="error")


def test_equal_names_under_two_roots_keep_their_own_boxes(tmp_path):
    photo(tmp_path / "left" / "1.png", 10)
    photo(tmp_path / "right" / "1.png", 40)
    photos = read(tmp_path / "left") + read(tmp_path / "right")
    found = locate_faces(photos, CROPS, finder=Looker())
    np.testing.assert_array_equal(found.photos.boxes, [[1, 2, 11, 12], [1, 2, 41, 42]])
    assert found.searched == 2


@pytest.mark.parametrize("name", ["./a.png", "../photos/a.png", "{folder}/a.png"])
def test_a_table_may_write_its_paths_as_it_likes(folder, name):
    table = pd.DataFrame({"path": [name.format(folder=folder)]})
    found = locate_faces(read(table, root=folder), CROPS, finder=Looker())
    np.testing.assert_array_equal(found.photos.boxes, [[1, 2, 11, 12]])


@pytest.mark.parametrize("missing", ["full", "skip", "error"])
def test_unreadable_photos_are_left_to_whoever_reads_them(folder, missing):
    (folder / "a.png").write_bytes(b"")
    photos = read(folder).where(name=["a.png", "c.png"])
    found = locate_faces(photos, CROPS, finder=Looker(), missing=missing)
    assert found.photos.table.name.tolist() == ["a.png", "c.png"] and found.faceless == ()


def test_nothing_but_unreadable_photos(folder):
    (folder / "a.png").write_bytes(b"")
    found = locate_faces(read(folder).where(name="a.png"), CROPS, finder=Looker())
    assert len(found.photos) == 1 and found.searched == 1


def test_progress_is_told(folder):
    told = []
    locate_faces(read(folder), CROPS, finder=Looker(), progress=lambda done, total, counts: told.append((done, total)))
    assert told[-1] == (3, 3)


def test_boxes_are_kept_by_the_folder_they_belong_to(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert boxes_file("photos") == boxes_file(tmp_path / "photos") != boxes_file(tmp_path / "other")
    assert boxes_file("photos").parent == tmp_path / "cache" / "multihead"


def test_detectors_do_not_share_their_boxes(folder):
    class Blind:
        def find(self, images):
            return [[] for _ in images]

    class Named(Looker):
        def __init__(self, identity):
            super().__init__()
            self.identity = identity

    finders = [None, Looker(), Blind(), Named("a"), Named("b"), Finder(min_face=40)]
    assert len({boxes_file(folder, finder) for finder in finders}) == len(finders)
    assert boxes_file(folder) == boxes_file(folder, Finder())
    assert locate_faces(read(folder), CROPS, finder=Looker()).faceless == ("b.png",)
    blind = locate_faces(read(folder), CROPS, finder=Blind())
    assert blind.searched == 3 and len(blind.faceless) == 3
