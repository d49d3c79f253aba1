"""An exported folder's README.md: its programs run as printed, without this library, and answer as it does."""

import json
import os
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from multihead import export
from multihead.cards import joint_text, readme
from multihead.crops import BODY, FACE, FULL
from multihead.heads import AGE, GENDER, HEADS, MASK, Head, flat, size
from multihead.inputs import Item
from multihead.joined import load
from multihead.labels import decode
from multihead.model import Model
from multihead.prediction import predict

FACES, BODIES = FACE.resized(48), BODY.resized(64, 32)
WITHOUT = ("multihead", "timm", "pandas", "openvino_telemetry")  # the last one would report that OpenVINO is used
BOX = (40, 30, 120, 130)  # of the printed programs


def model_of(heads):
    torch.manual_seed(0)
    model = Model("test_resnet", heads)
    torch.nn.init.normal_(model.absent)
    for head in model.head.values():
        torch.nn.init.normal_(head.weight, std=2)
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return model_of([MASK.on(FACES), GENDER.on(BODIES), AGE.on(BODIES, FACES)])


def run(program, folder, *without):
    """What a program prints that runs in the folder, where some packages cannot be imported."""
    start = f"import sys\nfor name in {without!r}: sys.modules[name] = None\nsys.path.insert(0, '')\n"
    command = [sys.executable, "-I", "-c", f"{start}exec(compile(sys.stdin.read(), 'program', 'exec'))"]
    done = subprocess.run(command, cwd=folder, input=program, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def photos_in(folder, *sizes):
    """JPEGs of these (height, width), by their paths."""
    found = []
    for height, width in sizes:
        rng = np.random.default_rng(height)
        noise = cv2.resize(rng.integers(0, 256, (height // 9, width // 9, 3), np.uint8), (width, height))
        found.append(folder / f"{height}.jpg")
        cv2.imwrite(str(found[-1]), noise)
    return found


@pytest.mark.parametrize("runtime", ["onnx", "openvino", "torch"])
def test_the_printed_program_answers_as_the_model(model, tmp_path, runtime):
    for package in {"onnx": ("onnxruntime", "onnxscript"), "openvino": ("openvino", "onnx"), "torch": ()}[runtime]:
        pytest.importorskip(package)
    folder = tmp_path / "x"
    {
        "onnx": export.onnx,
        "openvino": lambda model, place: export.openvino(model, place, "f32"),
        "torch": export.torch_export,
    }[runtime](model, folder)
    (photo,) = photos_in(tmp_path, (500, 640))
    os.rename(photo, folder / "photo.jpg")
    card = (folder / "README.md").read_text(encoding="utf-8")
    first, program = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert "mh.load" in first and f"box={BOX}" in program
    told = run(program, folder, *WITHOUT, *(["torch"] if runtime != "torch" else []))
    row = predict(model, [Item("a", folder / "photo.jpg", BOX)]).iloc[0]
    *heads, last = re.sub(r"tensor\(|, grad_fn=\S+|[\[\],)(]", "", told).strip().split("\n")
    assert last == f"{row.label} {'/'.join(row[head.name] for head in HEADS)}"
    for line, head in zip(heads, HEADS, strict=True):
        name, *numbers = line.split()
        assert name == head.name
        wanted = [row[f"{name}:{each}"] for each in head.classes]
        np.testing.assert_allclose([float(number) for number in numbers], wanted, atol=1e-4)
    assert load(folder).runtime == runtime


MANY = """
import json
import numpy as np, onnxruntime
from preprocess import inputs
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
feeds = [inputs(*each) for each in ASKED]
feed = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
print(json.dumps([session.run(["joint"], each)[0].tolist() for each in (feed, *feeds)]))
"""


def test_onnxruntime_answers_as_predict_for_all_boxes(model, tmp_path):
    """Large and small photos, faces, none, photos that are faces, and bodies that are not there; as one batch, too."""
    pytest.importorskip("onnxruntime")
    export.onnx(model, tmp_path / "x")
    small, middle, large = photos_in(tmp_path, (90, 70), (500, 640), (2603, 1999))
    asked = [(small, (20, 11, 40, 39), False), (small, None, False), (small, None, True), (middle, BOX, False)]
    asked += [(middle, (3, 4, 500, 497), False), (large, None, False), (large, (700.3, 401, 1100, 900.8), False)]
    asked += [(large, (900, 600, 930, 650), False), (large, None, True)]
    program = MANY.replace("ASKED", repr([(str(path), box, whole) for path, box, whole in asked]))
    together, *alone = json.loads(run(program, tmp_path / "x", *WITHOUT, "torch"))
    items = [Item(str(number), *each) for number, each in enumerate(asked)]
    for answering in (model, load(tmp_path / "x")):
        rows = predict(answering, items, finder=Blind())
        assert not rows.error.any()
        wanted = rows[[f"joint:{number}" for number in range(size(HEADS))]].to_numpy()
        np.testing.assert_allclose(together, wanted, atol=2e-6)
        np.testing.assert_allclose(np.concatenate(alone), wanted, atol=2e-6)


class Blind:
    """A detector that finds nothing: photos without a box are read whole."""

    def find(self, images):
        return [[] for _ in images]


@pytest.mark.parametrize("heads", [HEADS, HEADS[:1], [GENDER, Head("smile", ("no", "yes"))]], ids=len)
def test_the_order_of_joint_classes(heads):
    """What the text says, computed, is what `decode` says."""
    text = joint_text(heads)
    number, parts = re.search(r"number = (.*?);.*`(np\.unravel_index\(.*?\)\))`", text).groups()
    classes = flat(heads)[0].classes
    for joint, name in enumerate(classes):
        labels = decode(np.array([joint]), heads)[0].tolist()
        assert eval(number, {head.name: label for head, label in zip(heads, labels)}) == joint
        assert list(eval(parts, {"np": np, "number": joint})) == labels
        assert name == "/".join(head.classes[label] for head, label in zip(heads, labels))
    assert f"0 is `{classes[0]}`, {len(classes) - 1} is `{classes[-1]}`" in text


def test_what_a_card_says():
    model = model_of([head.on(FULL.resized(32, 48)) for head in HEADS])
    text = readme(model, "onnx", "f32")
    assert 'feed = inputs("photo.jpg")  #' in text and "faces need not be found" in text
    assert "- `full`: the whole photo, as 48 x 32 pixels (width x height)" in text
    assert "cv2.INTER_AREA" in text and "a body of which less than 15% is in the photo" in text
    assert "metadata of model.onnx, key `multihead`" in text and text.index("## Without") < text.index("## Limits")
    both = model_of([MASK.on(FACES), GENDER.on(BODIES)])
    for precision, hint in (("f32", '"CPU", {"INFERENCE_PRECISION_HINT": "f32"})'), ("int8", '"model.xml", "CPU")')):
        text = readme(both, "openvino", precision)
        assert hint in text and "(rt_info) of model.xml, key `multihead`" in text
    assert "Faces are not found here" in text and "find them with the detector" in text
    assert "classes in order are in config.json." in readme(both, "torch", "f32")
