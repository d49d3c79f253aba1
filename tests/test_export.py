import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import PIL
import pytest
import torch

from multihead import graphs
from multihead.adjusted import Adjusted
from multihead.crops import FACE, FULL, Crop
from multihead.export import Check, config, onnx, openvino, torch_export
from multihead.heads import AGE, GENDER, HEADS, MASK, Head, flat
from multihead.joined import Combined, Ensemble, combine, load
from multihead.labels import marginals
from multihead.model import Model
from multihead.reading import read
from multihead.runtimes import Exported
from multihead.tta import TTA

SMALL = FULL.resized(32)


def model_of(heads=HEADS, backbone="test_resnet", crop=SMALL, seed=0):
    torch.manual_seed(seed)
    model = Model(backbone, [head.on(crop) for head in heads])
    for head in model.head.values():
        torch.nn.init.normal_(head.weight, std=2)
    return model.eval()


def test_the_graph_alone_is_told_by_its_file(tmp_path):
    """Served without this library: names, shapes, metadata, and each head's probabilities beside the joint ones."""
    import onnxruntime

    model = model_of()
    check = onnx(model, tmp_path / "a")[""]
    assert check.rows == 72 and check.agreement == 1 and check.difference < 1e-5 and check.precision == "f32"
    session = onnxruntime.InferenceSession(tmp_path / "a" / "model.onnx", providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["full", "present"]
    assert [each.type for each in session.get_inputs()] == ["tensor(uint8)", "tensor(bool)"]
    assert [each.shape for each in session.get_inputs()] == [["batch", 3, 32, 32], ["batch", 1]]
    assert [each.shape for each in session.get_outputs()] == [["batch", count] for count in (3, 2, 3, 18)]
    assert [each.name for each in session.get_outputs()] == ["mask", "gender", "age", "joint"]
    told = json.loads(session.get_modelmeta().custom_metadata_map["multihead"])
    kept = json.loads((tmp_path / "a" / "config.json").read_text())
    assert told == kept and kept["classes"] == list(flat(HEADS)[0].classes)
    assert kept["mean"] == list(model.mean) and kept["versions"]["torch"] == torch.__version__.partition("+")[0]
    images, present = graphs.examples(model.crops, 7)
    *parts, whole = session.run(None, {"full": images.numpy(), "present": present.numpy()})
    with torch.no_grad():
        wanted = model.probs({SMALL: images}, present).numpy()
    np.testing.assert_allclose(whole, wanted, atol=2e-6)
    for part, row in zip(parts, marginals(wanted, HEADS).values()):
        np.testing.assert_allclose(part, row, atol=2e-6)
    assert kept["versions"]["opencv"] == cv2.__version__ and kept["versions"]["pillow"] == PIL.__version__
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]  # nothing else is left


def test_names_of_inputs_and_outputs():
    crops = [FACE.resized(32), FACE.resized(64), Crop("present", "full"), Crop("joint", "full"), Crop("mask", "face")]
    assert graphs.input_names(crops) == [
        "face_32x32", "face_64x64", "present_224x224", "joint_224x224", "mask", "present",
    ]  # fmt: skip
    space = (MASK, Head("present", ("a", "b")))
    assert graphs.output_names(crops, space) == ["mask_probs", "present_probs", "joint"]
    named = graphs.output_names([Crop("a", "full")], [Head("a", ("x", "y")), Head("a_probs", ("x", "y"))])
    assert named == ["a_probs", "a_probs_2", "joint"]


@torch.no_grad()
@pytest.mark.parametrize("make", [lambda heads: heads, flat], ids=["heads", "flat"])
def test_the_graph_is_the_model(make):
    faces, bodies = FACE.resized(32), Crop("face", "body", size=(48, 32))
    torch.manual_seed(0)
    model = Model("test_resnet", make([MASK.on(faces), GENDER.on(bodies), AGE.on(bodies, faces)])).eval()
    torch.nn.init.normal_(model.absent)
    *images, present = graphs.examples(model.crops, 6)
    assert not present.all() and present.any()
    *parts, whole = graphs.Graph(model)(*images, present)
    wanted = model.probs(dict(zip(model.crops, images)), present)
    torch.testing.assert_close(whole.double(), wanted, atol=1e-6, rtol=1e-4)
    for part, row in zip(parts, marginals(wanted, HEADS).values()):
        torch.testing.assert_close(part.double(), row, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("backbone", ["test_vit", "test_efficientnet"])
def test_other_backbones(tmp_path, backbone):
    model = model_of([MASK], backbone, FULL.resized(64, 48))
    assert torch_export(model, tmp_path / "x")[""].agreement > 0.98
    assert load(tmp_path / "x").space == model.space


def test_the_model_stays_as_it_was(tmp_path):
    model = model_of().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch_export(model, tmp_path / "x")
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_bf16_and_f32_of_openvino(tmp_path, people):
    model, photos = model_of(), read(people / "train")[:20]
    checks = {name: openvino(model, tmp_path / name, name, photos=photos)[""] for name in ("bf16", "f32")}
    assert checks["f32"].difference < 1e-5 and checks["f32"].rows == 92  # 72 of noise, 20 photos
    assert checks["bf16"].rows == 20 and checks["bf16"].difference < 0.1
    assert [load(tmp_path / name).precision for name in checks] == ["bf16", "f32"]
    from multihead.runtimes import import_openvino

    graph = import_openvino().Core().read_model(tmp_path / "bf16" / "model.xml")
    assert json.loads(graph.get_rt_info(["multihead"]).astype(str))["precision"] == "bf16"
    assert sorted(path.name for path in (tmp_path / "f32").iterdir()) == [
        "README.md", "config.json", "model.bin", "model.xml", "preprocess",
    ]  # fmt: skip


@torch.no_grad()
def test_joined_models_become_joined_exports(tmp_path):
    first, second = model_of(seed=0), combine([model_of([head], seed=n) for n, head in enumerate(HEADS)])
    whole = Ensemble([TTA(Adjusted(first, {"age": 2.0}, range(1, 19)), shifts=0.1), second], [1, 3], voting="hard")
    checks = torch_export(whole, tmp_path / "out")
    assert list(checks) == ["member0/member0/member0", "member1/member0", "member1/member1", "member1/member2"]
    opened = load(tmp_path / "out")
    for member in checks:
        assert (tmp_path / "out" / member / "preprocess" / "__init__.py").is_file()
    assert opened.voting == "hard" and opened.weights == whole.weights and isinstance(opened.members[1], Combined)
    assert isinstance(opened.members[0].model.model, Exported)
    images = {SMALL: graphs.examples([SMALL], 9)[0]}
    torch.testing.assert_close(opened.probs(images), whole.eval().probs(images), atol=1e-5, rtol=1e-3)
    with pytest.raises(ValueError, match="is exported already; export the model that it was made of"):
        torch_export(opened, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_wrong_graph_is_not_kept(tmp_path, monkeypatch):
    """The check sees a graph that forgets which crops are there."""
    monkeypatch.setattr(torch, "where", lambda there, seen, absent: seen)
    with pytest.raises(ValueError, match="differ by .* from the model's, more than 0.0001; nothing was written"):
        model = model_of()
        torch.nn.init.constant_(model.absent, 3.0)
        torch_export(model, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported(tmp_path):
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "config.json").write_text("{}")
    with pytest.raises(FileExistsError, match="held is not empty; name a new folder"):
        onnx(model_of(), tmp_path / "held")
    with pytest.raises(ValueError, match="openvino: precision is 'f8'; expected one of f32, bf16, int8"):
        openvino(model_of(), tmp_path / "x", "f8")
    with pytest.raises(ValueError, match="int8 is calibrated on photos of people who trained the model"):
        openvino(model_of(), tmp_path / "x", "int8")
    with pytest.raises(ValueError, match="a graph is made of a Model, got Ensemble"):
        graphs.trace(Ensemble([model_of()]))


@pytest.mark.parametrize("name", ["link", "."])
def test_an_empty_folder_that_is_there_is_filled(tmp_path, monkeypatch, name):
    """A link, the current folder and a mount have their name from elsewhere: no other folder can take it."""
    real = tmp_path / "real"
    real.mkdir()
    (real / ".DS_Store").touch()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(real if name == "." else tmp_path)
    placed, replace = [], os.replace
    monkeypatch.setattr("os.replace", lambda old, new: (placed.append(Path(new).name), replace(old, new)))
    model = model_of()
    vote = Ensemble([model, model])
    torch_export(vote, name)
    assert placed[-3:] == ["member0", "member1", "ensemble.json"]  # what opens the folder comes last
    files = {".DS_Store", "ensemble.json", "member0", "member1"}
    assert {path.name for path in real.iterdir()} == files and {path.name for path in tmp_path.iterdir()} == {
        "real",
        "link",
    }
    images, present = graphs.examples(model.crops, 3)
    np.testing.assert_allclose(
        load(real).probs({SMALL: images}, present), vote.probs({SMALL: images}, present).detach(), atol=1e-6
    )


class Asks(torch.nn.Module):
    """A backbone whose steps depend on the pixels."""

    def forward(self, pixels):
        return pixels.mean((2, 3)) if pixels.mean() > 0 else pixels.amax((2, 3))


def test_a_backbone_that_looks_at_values_is_refused(tmp_path):
    model = model_of()
    model.backbone = Asks()
    with pytest.raises(ValueError, match="backbone test_resnet cannot be exported .*keep the model folder"):
        torch_export(model, tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("write", "package", "extra"),
    [(onnx, "onnxscript", "onnx"), (onnx, "onnxruntime", "onnx"), (openvino, "onnx", "openvino")],
    ids=["onnxscript", "onnxruntime", "onnx"],
)
def test_a_missing_package_names_its_extra(tmp_path, monkeypatch, write, package, extra):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else real(name))
    with pytest.raises(ImportError, match=rf"{package} is needed to export: pip install 'multihead\[{extra}\]'"):
        write(model_of(), tmp_path / "x")


def test_photos_that_cannot_be_read(tmp_path, people):
    photos = read(people / "train")[:2]
    photos.table["path"] = "nowhere.jpg"
    with pytest.raises(ValueError, match="none of 2 photos could be read"):
        torch_export(model_of(), tmp_path / "x", photos=photos)


def test_a_check_as_text():
    assert str(Check(72, 1.23e-7, 1.0)) == "f32: 72 rows, largest difference 1.2e-07, same answer 1.0000"
    assert str(Check(5, 0.1, 0.8, "bf16", "why")).endswith("same answer 0.8000; why")
    assert config(model_of(), "torch", "f32")["source"] == "test_resnet"


def test_exporting_prints_nothing_of_others(tmp_path):
    lines = ["import multihead as mh, sys", "from multihead import export"]
    lines += ["model = mh.Model('test_resnet', [mh.MASK.on(mh.FULL.resized(32))])"]
    lines += ["export.openvino(model, sys.argv[1] + '/v')"]
    command = [sys.executable, "-W", "error", "-c", "\n".join(lines), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
