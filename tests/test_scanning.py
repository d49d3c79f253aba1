import csv
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from multihead.box_files import read_boxes
from multihead.decoders import Encoded, ImageError
from multihead.faces import Face
from multihead.images import image_files, write_jpeg
from multihead.scanning import ScanCounts, scan

HEADER = "path,x0,y0,x1,y1,score,status\n"


class Marked:
    """A detector for tests: the top left pixel's red tells the width of the one face; counts the photos it sees."""

    def __init__(self):
        self.seen = 0

    def find(self, images):
        self.seen += len(images)
        return [[Face((1, 2, 1 + image[0, 0, 0] / 10, 12), 0.9)] if image[0, 0, 0] > 40 else [] for image in images]


class Two:
    def find(self, images):
        return [[Face((0, 0, 20, 20), 0.8), Face((14, 10, 20, 18), 0.9)] for _ in images]


@pytest.fixture
def folder(tmp_path):
    """Ten files: photos 0, 2, 4, 6 show Marked a face, 1, 3, 5, 7 none; two files cannot be read."""
    root = tmp_path / "photos"
    for index in range(8):
        image = np.zeros((24 + index % 2, 32, 3), np.uint8)
        image[..., 0] = 80 + 10 * index if index % 2 == 0 else 0
        write_jpeg(image, root / f"sub{index % 3}" / f"{index}.jpg")
    (root / "broken.jpg").symlink_to("nowhere")
    (root / "text.jpg").write_text("no photo")
    return root


def test_scan_by_hand(folder, tmp_path):
    seen = []
    counts = scan(
        image_files(folder),
        tmp_path / "new" / "boxes.csv",
        root=folder,
        finder=Marked(),
        batch=3,
        progress=lambda done, total, now: seen.append((done, total, now.found)),
    )
    assert (counts.found, counts.none, counts.unreadable, counts.skipped) == (4, 4, 2, 0)
    assert [done for done, _, _ in seen] == [3, 6, 9, 10] and seen[-1] == (10, 10, 4)
    assert sorted(problem.split(": ")[1][:11] for problem in counts.problems) == ["broken link", "not an imag"]
    lines = (tmp_path / "new" / "boxes.csv").read_text().splitlines()
    assert lines[0] + "\n" == HEADER
    assert lines[1:4] == [
        "broken.jpg,,,,,,unreadable",
        "sub0/0.jpg,1.00,2.00,9.00,12.00,0.9000,found",
        "sub0/3.jpg,,,,,,none",
    ]
    assert [line.split(",")[0] for line in lines[1:]] == [
        file.relative_to(folder).as_posix() for file in image_files(folder)
    ]
    assert [item.name for item in (tmp_path / "new").iterdir()] == ["boxes.csv"]


def test_scan_again_searches_only_what_is_new_or_was_unreadable(folder, tmp_path):
    boxes, finder = tmp_path / "boxes.csv", Marked()
    scan(image_files(folder), boxes, root=folder, finder=finder)
    assert finder.seen == 8
    (folder / "text.jpg").unlink()
    write_jpeg(np.full((24, 32, 3), 200, np.uint8), folder / "text.jpg")
    write_jpeg(np.zeros((24, 32, 3), np.uint8), folder / "a.jpg")
    counts = scan(image_files(folder), boxes, root=folder, finder=finder)
    assert (counts.found, counts.none, counts.unreadable, counts.skipped) == (1, 1, 1, 8) and finder.seen == 10
    table = read_boxes(boxes)
    assert table.path.tolist() == [file.relative_to(folder).as_posix() for file in image_files(folder)]
    assert table.set_index("path").status["text.jpg"] == "found"


def test_scan_keeps_the_rows_of_other_photos(folder, tmp_path):
    boxes, files = tmp_path / "boxes.csv", image_files(folder)
    scan(files[5:], boxes, root=folder, finder=Marked())
    scan(files[:5], boxes, root=folder, finder=Marked())
    names = [file.relative_to(folder).as_posix() for file in files]
    assert read_boxes(boxes).path.tolist() == names
    before = boxes.read_bytes()
    (folder / "broken.jpg").unlink()
    assert scan(image_files(folder)[1:3], boxes, root=folder, finder=Marked()).skipped == 2
    assert boxes.read_bytes() == before
    scan([files[1]] * 3, tmp_path / "twice.csv", root=folder, finder=Marked())
    assert len(read_boxes(tmp_path / "twice.csv")) == 1


def test_scan_all_writes_a_row_for_each_face(folder, tmp_path):
    scan(image_files(folder), tmp_path / "all.csv", root=folder, which="all", finder=Two())
    table = read_boxes(tmp_path / "all.csv")
    assert table.path.value_counts()["sub0/0.jpg"] == 2 and len(table) == 8 * 2 + 2
    assert table[table.path == "sub0/0.jpg"][["x0", "y0", "x1", "y1"]].to_numpy().tolist() == [
        [0, 0, 20, 20],
        [14, 10, 20, 18],
    ]
    scan(image_files(folder), tmp_path / "central.csv", root=folder, which="central", finder=Two())
    assert read_boxes(tmp_path / "central.csv").x0.dropna().unique().tolist() == [14]


ODD = [
    "a,b.jpg",
    'quo"te.jpg',
    "new\nline.jpg",
    "return\rhere.jpg",
    "한글 é.jpg",
    " spaced .jpg",
    "nan.jpg",
    os.fsdecode(b"\xff\xfe.jpg"),
]


def test_odd_names_round_trip(tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    for name in ODD:
        with open(root / name, "wb") as stream:
            stream.write(cv2.imencode(".jpg", np.full((24, 24, 3), 99, np.uint8))[1].tobytes())
    finder = Marked()
    for _ in range(2):
        scan([root / name for name in ODD], tmp_path / "boxes.csv", root=root, finder=finder)
    assert finder.seen == len(ODD)
    assert read_boxes(tmp_path / "boxes.csv").path.tolist() == ODD
    with open(tmp_path / "boxes.csv", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        assert [row["path"] for row in csv.DictReader(stream)] == ODD


def test_paths_outside_the_root_are_absolute(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    write_jpeg(np.zeros((24, 24, 3), np.uint8), tmp_path / "other" / "b.jpg")
    scan(["sub0/0.jpg", "../other/b.jpg"], "../boxes.csv", root=".", finder=Marked())
    expected = ["sub0/0.jpg", (tmp_path / "other" / "b.jpg").as_posix()]
    assert read_boxes(tmp_path / "boxes.csv").path.tolist() == expected
    scan(["sub0/0.jpg"], "../plain.csv", finder=Marked())
    assert read_boxes(tmp_path / "plain.csv").path.tolist() == [(folder / "sub0" / "0.jpg").as_posix()]


class Stops(Marked):
    def find(self, images):
        if self.seen >= 4:
            raise KeyboardInterrupt
        return super().find(images)


@pytest.mark.parametrize(
    "torn", ["", "sub2/5.jpg,1.00,2.0", '"a\nb,1', "x,1.00,2.00,9.00,12.00,0.9000,fou", "\0\0\0\0\0"]
)
def test_interrupted_scan_goes_on(folder, tmp_path, torn):
    boxes, whole = tmp_path / "boxes.csv", tmp_path / "whole.csv"
    scan(image_files(folder), whole, root=folder, finder=Marked())
    with pytest.raises(KeyboardInterrupt):
        scan(image_files(folder), boxes, root=folder, finder=Stops(), batch=2, workers=1)
    part = tmp_path / "boxes.csv.part"
    assert part.is_file() and not boxes.exists()
    with open(part, "a") as stream:
        stream.write(torn)
    finder = Marked()
    counts = scan(image_files(folder), boxes, root=folder, finder=finder)
    assert boxes.read_bytes() == whole.read_bytes() and not part.exists()
    assert finder.seen <= 8 - 4 + 1 and counts.skipped >= 3  # the last photo of the part once more


def test_a_group_cut_between_its_rows_is_searched_again(folder, tmp_path):
    boxes, whole = tmp_path / "boxes.csv", tmp_path / "whole.csv"
    scan(image_files(folder), whole, root=folder, which="all", finder=Two())
    lines = whole.read_text().splitlines(keepends=True)
    (tmp_path / "boxes.csv.part").write_text("".join(lines[:5]))  # header, broken.jpg, a pair, half a pair
    scan(image_files(folder), boxes, root=folder, which="all", finder=Two())
    assert boxes.read_bytes() == whole.read_bytes()


SLOW = """
import sys, time
sys.path.insert(0, sys.argv[1])
from test_scanning import Marked
from multihead.scanning import scan
from multihead.images import image_files

class Slow(Marked):
    def find(self, images):
        time.sleep(0.2)
        return super().find(images)

scan(image_files(sys.argv[2]), sys.argv[3], root=sys.argv[2], finder=Slow(), batch=1)
"""


def test_killed_scan_goes_on_to_the_same_file(folder, tmp_path):
    boxes, whole, part = tmp_path / "boxes.csv", tmp_path / "whole.csv", tmp_path / "boxes.csv.part"
    scan(image_files(folder), whole, root=folder, finder=Marked())
    command = [sys.executable, "-c", textwrap.dedent(SLOW), str(Path(__file__).parent), str(folder), str(boxes)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(command, env=environment)
    for _ in range(600):
        if part.exists() and part.read_text().count("\n") >= 5:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not boxes.exists()
    finder = Marked()
    counts = scan(image_files(folder), boxes, root=folder, finder=finder)
    assert boxes.read_bytes() == whole.read_bytes()
    assert counts.skipped >= 2 and finder.seen < 8


def test_a_folder_that_cannot_be_written_is_said_before_the_search(folder, tmp_path):
    finder = Marked()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot write .*boxes.csv.part \(.*name a file in a folder that can be written"):
        scan(image_files(folder), tmp_path / "file" / "boxes.csv", root=folder, finder=finder)
    with pytest.raises(IsADirectoryError):
        scan(image_files(folder), tmp_path / "photos", root=folder, finder=finder)
    os.mkfifo(tmp_path / "pipe")  # whose rows would be waited for
    with pytest.raises(ValueError, match="pipe is a device or a pipe; expected a file, which a scan reads"):
        scan(image_files(folder), tmp_path / "pipe", root=folder, finder=finder)
    assert finder.seen == 0


class Slow(Marked):
    def find(self, images):
        time.sleep(0.05)
        return super().find(images)


def test_scans_that_write_one_file_keep_each_other_s_rows(folder, tmp_path, capsys):
    files = image_files(folder)
    boxes, halves = tmp_path / "new" / "boxes.csv", (files[::2], files[1::2])
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(scan, half, boxes, root=folder, finder=Slow(), batch=1, workers=1) for half in halves]
    assert all(each.result().skipped == 0 for each in found)
    assert set(read_boxes(boxes).path) == {file.relative_to(folder).as_posix() for file in files}
    assert capsys.readouterr().err == f"waiting for another scan that writes {boxes}\n"
    assert list(boxes.parent.iterdir()) == [boxes]


def test_nothing_new_writes_nothing(folder, tmp_path, monkeypatch):
    files = [file for file in image_files(folder) if "sub" in str(file)]
    scan(files, tmp_path / "boxes.csv", root=folder, finder=Marked())
    monkeypatch.setattr(os, "replace", lambda *_: pytest.fail("wrote"))
    assert scan(files, tmp_path / "boxes.csv", root=folder) == ScanCounts(skipped=8)


def test_scan_refuses(folder, tmp_path):
    class Short:
        def find(self, images):
            return []

    with pytest.raises(ValueError, match="Short.find gave 0 lists of faces for 4 photos"):
        scan(image_files(folder), tmp_path / "boxes.csv", finder=Short())
    with pytest.raises(ValueError, match="got 'first'"):
        scan([], tmp_path / "boxes.csv", which="first")
    assert scan([], tmp_path / "empty.csv") == ScanCounts()


def test_decoding_does_not_run_far_ahead(tmp_path, monkeypatch):
    """Large photos: at most a batch of pixels and 2 * workers photos are decoded and not yet searched."""
    import multihead.scanning as module

    decoded = []

    def open_image(file):
        return Encoded(str(file), (100, 100), lambda _: decoded.append(file) or np.zeros((100, 100, 3), np.uint8))

    monkeypatch.setattr(module, "open_image", open_image)
    monkeypatch.setattr(module, "_BATCH_PIXELS", 40_000)  # four photos

    class Watching(Marked):
        ahead = 0

        def find(self, images):
            assert len(images) <= 4
            time.sleep(0.02)
            self.ahead = max(self.ahead, len(decoded) - self.seen)
            return super().find(images)

    finder = Watching()
    scan([f"{index}.jpg" for index in range(40)], tmp_path / "boxes.csv", finder=finder)
    assert finder.seen == 40 and finder.ahead <= 4 + 2 * 2 + 1


def test_photos_are_decoded_ahead_as_far_as_the_first_look_needs(folder, tmp_path, monkeypatch):
    import multihead.scanning as module

    asked = []

    class Sparing(Marked):
        def reduction(self, size):
            return 4

        def search(self, photos):
            assert asked.count(4) >= len(photos)
            return self.find([photo.pixels(4) for photo in photos])

    def open_image(file):
        photo = real(file)
        return Encoded(str(file), photo.size, lambda reduction: asked.append(reduction) or photo.pixels(reduction))

    real = module.open_image
    monkeypatch.setattr(module, "open_image", open_image)
    files = [file for file in image_files(folder) if "sub" in str(file)]
    assert scan(files, tmp_path / "boxes.csv", finder=Sparing()).found == 4 and asked == [4] * 8


def test_a_photo_that_only_a_finer_look_shows_damaged_is_unreadable(folder, tmp_path, monkeypatch):
    import multihead.scanning as module

    class Fine(Marked):
        def reduction(self, size):
            return 2

    def open_image(file):
        def decode(reduction):
            if reduction == 1 and file.name == "4.jpg":
                raise ImageError("damaged pixels")
            return photo.pixels(reduction)

        photo = real(file)
        return Encoded(str(file), photo.size, decode)

    real = module.open_image
    monkeypatch.setattr(module, "open_image", open_image)
    files = [file for file in image_files(folder) if "sub" in str(file)]
    counts = scan(files, tmp_path / "boxes.csv", root=folder, finder=Fine())
    assert (counts.found, counts.none, counts.unreadable) == (3, 4, 1) and "damaged pixels" in counts.problems[0]
    assert read_boxes(tmp_path / "boxes.csv").set_index("path").status["sub1/4.jpg"] == "unreadable"


def test_read_boxes(tmp_path):
    file = tmp_path / "boxes.csv"
    file.write_text("\ufeff" + HEADER + "a.jpg,1,2,3.5,4,0.9,found\nb.jpg,,,,,,none\n", encoding="utf-8")
    table = read_boxes(file)
    assert table.columns.tolist() == ["path", "x0", "y0", "x1", "y1", "score", "status"]
    assert table.iloc[0].tolist() == ["a.jpg", 1, 2, 3.5, 4, 0.9, "found"] and table.iloc[1, 1:6].isna().all()
    assert all(str(table[name].dtype) == "float64" for name in table.columns[1:6])
    file.write_text("y0,path,x0,x1,y1\n2,a.jpg,1,3,4\n,b.jpg,,,\n")
    assert read_boxes(file).status.tolist() == ["found", "none"] and read_boxes(file).y0[0] == 2
    file.write_text(HEADER)
    assert len(read_boxes(file)) == 0 and str(read_boxes(file).x0.dtype) == "float64"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a.jpg,1,2,3,4,0.9", "expected 7 fields, got 6"),
        ("a.jpg,one,2,3,4,0.9,found", "expected a number as x0, got 'one'"),
        ("a.jpg,nan,2,3,4,0.9,found", "expected a number as x0, got 'nan'"),
        ("a.jpg,5,2,3,4,0.9,found", r"expected a box 0 <= x0 < x1, 0 <= y0 < y1, got \[5.0, 2.0, 3.0, 4.0\]"),
        ("a.jpg,-1,2,3,4,0.9,found", "expected a box"),
        ("a.jpg,,2,3,4,0.9,found", "expected a box"),
        ("a.jpg,1,2,3,4,0.9,none", "expected no box with status none"),
        ("a.jpg,1,2,3,4,0.9,lost", "expected status to be one of found, none, unreadable, got 'lost'"),
        (",1,2,3,4,0.9,found", "path is blank"),
        ('"a.jpg,1,2,3,4,0.9,found\n', "expected 7 fields"),
    ],
)
def test_read_boxes_names_file_and_row(tmp_path, row, words):
    file = tmp_path / "boxes.csv"
    file.write_text(HEADER + "ok.jpg,1,2,3,4,0.9,found\n" + row + "\n")
    with pytest.raises(ValueError, match=f"boxes.csv: row 3: {words}"):
        read_boxes(file)
    with pytest.raises(ValueError, match="row 3"):
        scan(["b.jpg"], file, finder=Marked())


def test_read_boxes_columns(tmp_path):
    file = tmp_path / "boxes.csv"
    for header, words in (
        ("path,x0,y0,x1\n", r"missing \['y1'\]"),
        ("path,x0,y0,x1,y1,mask\n", "got .*mask"),
        ("", "missing"),
    ):
        file.write_text(header)
        with pytest.raises(ValueError, match=f"boxes.csv: expected columns.*{words}"):
            read_boxes(file)
    with pytest.raises(FileNotFoundError):
        read_boxes(tmp_path / "none.csv")
