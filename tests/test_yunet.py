import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from multihead.box_files import read_boxes
from multihead.cli import main
from multihead.decoders import Encoded
from multihead.faces import Face, identity
from multihead.images import image_files, read_image
from multihead.mtcnn import Finder
from multihead.yunet import YuNet, open_detector

SHARED = Path(__file__).parents[2] / "shared"
MODELS = sorted((SHARED / "weights").glob("*yunet*.onnx")) if (SHARED / "weights").is_dir() else []
PORTRAITS = SHARED / "data" / "bootlike" / "images"
needs_model = pytest.mark.skipif(not (MODELS and PORTRAITS.is_dir()), reason=f"no YuNet or photos at {SHARED}")


class Stub:
    """In the place of cv2.FaceDetectorYN: bright pixels are the face, as in the file that it was made for."""

    made: list["Stub"] = []

    def __init__(self, path, config, size, score, nms, top):
        if Path(path).read_bytes() == b"no model":
            raise cv2.error("OpenCV: Failed to parse ONNX model")
        self.path, self.size, self.score, self.seen, self.busy = path, size, score, [], False
        Stub.made.append(self)

    create = classmethod(lambda cls, *settings: cls(*settings))

    def setInputSize(self, size):
        self.size = tuple(size)

    def detect(self, image):
        if Path(self.path).read_bytes() == b"other net":
            raise cv2.error("OpenCV: Layer with requested id=-1 not found")
        assert image.shape[1::-1] == self.size and not self.busy  # one thread at a time: the size is the detector's
        self.busy = True
        time.sleep(0.02)
        self.busy = False
        self.seen.append(image.shape[:2])
        rows, columns = np.nonzero(image[:, :, 2] > 150)  # BGR
        if not len(rows):
            return 1, None
        x, y, w, h = columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1
        five = [x + 0.3 * w, y + 0.4 * h, x + 0.7 * w, y + 0.4 * h, x + 0.5 * w, y + 0.6 * h]
        return 1, np.array([[x, y, w, h, *five, x + 0.35 * w, y + 0.8 * h, x + 0.65 * w, y + 0.8 * h, 0.9]], np.float32)


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "FaceDetectorYN", Stub)
    Stub.made = []
    (tmp_path / "yunet.onnx").write_bytes(b"yunet")
    return tmp_path / "yunet.onnx"


def photo(box, size=(400, 600)):
    image = np.zeros((*size, 3), np.uint8)
    x0, y0, x1, y1 = box
    image[y0:y1, x0:x1, 0] = 255  # red, in RGB
    return image


def test_a_portrait_is_looked_at_once_and_small(model):
    (faces,) = YuNet(model).find([photo((200, 120, 320, 280))])
    assert [face.box for face in faces] == [(200, 120, 320, 280)] and faces[0].score == pytest.approx(0.9)
    left_eye, right_eye, nose, left_mouth, right_mouth = faces[0].points
    assert left_eye[0] < nose[0] < right_eye[0] and left_mouth[0] < right_mouth[0] and left_eye[1] < left_mouth[1]
    assert Stub.made[0].seen[1:] == [(100, 150)]  # a quarter; before it the trial of the file


def test_small_faces_and_none_are_looked_for_in_full(model):
    finder = YuNet(model)
    faces = finder.find([photo((40, 40, 80, 80)), photo((0, 0, 0, 0)), photo((0, 0, 9, 9), (60, 50))])
    assert [[face.box for face in found] for found in faces] == [[(40, 40, 80, 80)], [], [(0, 0, 9, 9)]]
    assert Stub.made[0].seen[1:] == [(100, 150)] * 2 + [(60, 50)] + [(400, 600)] * 2
    assert [list(map(len, (found,))) for found in YuNet(model, min_face=41).find([photo((40, 40, 80, 80))])] == [[0]]


def test_large_photos_are_searched_at_1280_pixels(model):
    faces = YuNet(model).find([photo((800, 800, 1200, 1200), (2560, 5120))])[0]
    assert faces[0].box == pytest.approx((800, 800, 1200, 1200), abs=8)
    assert max(map(max, Stub.made[0].seen)) == 1280


def test_a_jpeg_is_decoded_as_far_as_needed(model):
    asked, image = [], photo((400, 240, 640, 560), (800, 1200))

    def decode(reduction):
        asked.append(reduction)
        return np.ascontiguousarray(image[::reduction, ::reduction])

    finder = YuNet(model)
    assert (
        finder.reduction((700, 600)) == 4 and finder.reduction((3000, 4000)) == 8 and finder.reduction((400, 600)) == 1
    )
    assert finder.search([Encoded("a", (800, 1200), decode)])[0][0].box == (400, 240, 640, 560) and asked == [8]
    image[:] = 0
    assert finder.search([Encoded("b", (800, 1200), decode)]) == [[]] and asked == [8, 8, 1]


def test_each_thread_has_a_detector_and_leaves_it_to_the_next(model):
    """Lanes are new threads for every call; opening a detector takes longer than a search."""
    finder, found = YuNet(model), []
    for _ in range(3):
        threads = [
            threading.Thread(target=lambda: found.append(finder.find([photo((40, 40, 160, 160))]))) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 9 and len(Stub.made) <= 3 and all(each == found[0] != [[]] for each in found)


def test_wrong_files_are_named(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*none.onnx; pass the path of a YuNet model"):
        YuNet(tmp_path / "none.onnx")
    for content, words in ((b"no model", "Failed to parse"), (b"other net", "not found")):
        model.write_bytes(content)
        with pytest.raises(ValueError, match=f"yunet.onnx: expected a YuNet model in ONNX.*{words}"):
            YuNet(model)


def test_real_opencv_refuses_what_is_no_model(tmp_path, capfd):
    (tmp_path / "a.onnx").write_bytes(b"no model at all")
    with pytest.raises(ValueError, match="a.onnx: expected a YuNet model in ONNX"):
        YuNet(tmp_path / "a.onnx")


def test_settings_are_checked(model):
    with pytest.raises(ValueError, match="threshold between 0 and 1, got 1.5"):
        YuNet(model, threshold=1.5)
    with pytest.raises(ValueError, match="min_face of 1 pixel or more, got 0"):
        YuNet(model, min_face=0)
    with pytest.raises(ValueError, match=r"images\[0\]: expected RGB uint8"):
        YuNet(model).find([np.zeros((9, 9), np.uint8)])


def test_identity_follows_file_and_settings(model):
    first = identity(YuNet(model))
    assert first == identity(YuNet(model)) != identity(YuNet(model, threshold=0.51))
    assert identity(YuNet(model, min_face=9)) != first != identity(Finder())
    model.write_bytes(b"another")
    assert identity(YuNet(model)) != first


def test_open_detector(model):
    assert isinstance(open_detector(None), Finder) and isinstance(open_detector("mtcnn"), Finder)
    assert isinstance(open_detector(str(model)), YuNet)
    with pytest.raises(ValueError, match="expected a detector 'mtcnn' or the path of a YuNet .onnx file, got 'yolo'"):
        open_detector("yolo")
    with pytest.raises(FileNotFoundError):
        open_detector("none.onnx")


def test_scan_takes_a_detector(model, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "a.png"), photo((200, 120, 320, 280))[:, :, ::-1])
    command = ["scan", str(tmp_path / "photos"), "-o", str(tmp_path / "boxes.csv"), "-q", "--detector"]
    assert main([*command, str(model)]) == 0
    assert read_boxes(tmp_path / "boxes.csv").iloc[0, 1:5].tolist() == [200, 120, 320, 280]
    assert main([*command, "none.onnx"]) == 2
    assert "no file none.onnx" in capsys.readouterr().err


@needs_model
@pytest.mark.parametrize("file", MODELS, ids=lambda file: file.stem)
def test_real_models_agree_with_mtcnn(file):
    photos = [read_image(path) for path in image_files(PORTRAITS)[6:60:7]]  # without masks
    met = 0
    for ours, theirs in zip(YuNet(file).find(photos), Finder().find(photos), strict=True):
        assert ours
        if theirs:
            met += overlap(ours[0], theirs[0]) > 0.5
            side = max(theirs[0].box[2] - theirs[0].box[0], theirs[0].box[3] - theirs[0].box[1])
            np.testing.assert_allclose(ours[0].points, theirs[0].points, atol=0.2 * side)  # the same order
    assert met >= 6


@needs_model
def test_real_boxes_are_opencv_s_own_where_the_photo_is_searched_in_full():
    image = np.ascontiguousarray(read_image(image_files(PORTRAITS)[6])[:100, :90])
    plain = cv2.FaceDetectorYN.create(str(MODELS[0]), "", (90, 100), 0.3)
    _, rows = plain.detect(image[:, :, ::-1].copy())
    faces = YuNet(MODELS[0], threshold=0.3).find([image])[0]
    assert len(faces) == (0 if rows is None else len(rows))
    for face, row in zip(faces, sorted([] if rows is None else rows, key=lambda row: -row[2] * row[3]), strict=True):
        np.testing.assert_allclose(face.points, row[4:14].reshape(5, 2), atol=1e-3)


def overlap(first: Face, second: Face) -> float:
    width = min(first.box[2], second.box[2]) - max(first.box[0], second.box[0])
    height = min(first.box[3], second.box[3]) - max(first.box[1], second.box[1])
    shared = max(0, width) * max(0, height)
    return shared / (first.area + second.area - shared)
