import copy
import json
import pickle
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch

from multihead import export, runtimes
from multihead.adjusted import Adjusted
from multihead.crops import BODY, FACE, FULL
from multihead.evaluation import device_of, evaluate
from multihead.heads import AGE, GENDER, HEADS, MASK, flat
from multihead.joined import Ensemble, combine, load
from multihead.model import Model
from multihead.prediction import predict
from multihead.prepared import ENOUGH
from multihead.reading import read
from multihead.runtimes import Exported, import_openvino, read_exported, without_telemetry
from multihead.tta import TTA

FACES, BODIES = FACE.resized(32), BODY.resized(48, 32)
RUNTIMES = ("onnx", "openvino", "torch")


def model_of(heads, seed=0):
    torch.manual_seed(seed)
    model = Model("resnet10t", heads)
    torch.nn.init.normal_(model.absent)
    for head in model.head.values():
        torch.nn.init.normal_(head.weight, std=0.3)
    model.prior = tuple(np.random.default_rng(seed).dirichlet(np.ones(18)))
    return model.eval()


def images_of(model, count=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shapes = {crop: (count, 3, *crop.size) for crop in model.crops}
    return {c: torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for c, shape in shapes.items()}


@pytest.fixture(scope="module")
def model():
    return model_of([MASK.on(FACES), GENDER.on(BODIES), AGE.on(BODIES, FACES)])


@pytest.fixture(scope="module")
def folders(model, tmp_path_factory):
    """{runtime: an exported folder of `model`}."""
    root = tmp_path_factory.mktemp("exported")
    export.onnx(model, root / "onnx")
    export.torch_export(model, root / "torch")
    export.openvino(model, root / "openvino", "f32")
    return {name: root / name for name in RUNTIMES}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_answers_as_the_model(model, folders, runtime):
    opened = load(folders[runtime])
    assert isinstance(opened, Exported) and opened.runtime == runtime and opened.precision == "f32"
    assert (opened.space, opened.crops, opened.heads) == (model.space, model.crops, model.heads)
    assert opened.prior == pytest.approx(model.prior) and not opened.training
    for count in (1, 2, 5, 64):
        images = images_of(model, count, seed=count)
        present = torch.rand(count, 2, generator=torch.Generator().manual_seed(count)) < 0.6
        for shown in (None, present):
            with torch.no_grad():
                wanted = model.probs(images, shown)
            found = opened.probs(images, shown)
            assert found.dtype == torch.float64 and found.device.type == "cpu"
            torch.testing.assert_close(found, wanted, atol=2e-6, rtol=1e-4)
            torch.testing.assert_close(found.sum(1), torch.ones(count, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_was_opened_goes_to_other_processes_and_is_copied(model, folders, runtime, monkeypatch):
    opened = load(folders[runtime])
    images = images_of(model, 3, seed=1)
    wanted = opened.probs(images)
    with monkeypatch.context() as patch:
        patch.setattr(Exported, "_start", None)  # a copy shares the session
        copied = copy.deepcopy(Ensemble([opened, opened])).members[0]
    assert torch.equal(copied.probs(images), wanted)
    sent = pickle.loads(pickle.dumps(Ensemble([opened]))).members[0]
    assert sent.crops == opened.crops and sent.runtime == runtime and sent._run is not opened._run
    torch.testing.assert_close(sent.probs(images), wanted)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_pixels_of_an_absent_crop_are_not_read(model, folders, runtime):
    opened, images = load(folders[runtime]), images_of(model)
    present = torch.ones(5, 2, dtype=torch.bool)
    present[2, 1] = False
    before = opened.probs(images, present)
    images[BODIES] = images[BODIES].clone()
    images[BODIES][2] = 0
    after = opened.probs(images, present)
    torch.testing.assert_close(after, before, atol=1e-7, rtol=0)
    assert (opened.probs(images)[2] - after[2]).abs().max() > 1e-3


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_no_rows_channels_last_and_wrong_pixels(model, folders, runtime):
    opened, images = load(folders[runtime]), images_of(model)
    assert opened.probs({crop: rows[:0] for crop, rows in images.items()}).shape == (0, 18)
    strided = {crop: rows.contiguous(memory_format=torch.channels_last) for crop, rows in images.items()}
    torch.testing.assert_close(opened.probs(strided), opened.probs(images))
    with pytest.raises(KeyError, match="model needs crops .*body.*batch has \\['face 32x32'\\], not"):
        opened.probs({FACES: images[FACES]})
    with pytest.raises(ValueError, match="crop 'face' expects uint8 \\(B, 3, 32, 32\\), got torch.float32"):
        opened.probs(images | {FACES: images[FACES].float()})
    with pytest.raises(ValueError, match="got torch.uint8 \\(5, 3, 16, 16\\)"):
        opened.probs(images | {FACES: images[FACES][:, :, :16, :16]})


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_predicts_and_is_scored_like_the_model(model, folders, people, runtime):
    opened, photos = load(folders[runtime]), read(people / "train")[:6]
    mine, others = evaluate(model, photos, workers=0), evaluate(opened, photos, workers=0)
    np.testing.assert_allclose(others.probs, mine.probs, atol=2e-6)
    assert device_of(opened) == torch.device("cpu") and device_of(model) == torch.device("cpu")
    rows = predict(opened, photos.paths[:2])
    np.testing.assert_allclose(rows["joint:3"], predict(model, photos.paths[:2])["joint:3"], atol=2e-6)


def test_in_ensembles_views_and_corrections_that_are_saved(model, folders, tmp_path):
    opened = load(folders["torch"])
    whole = Ensemble([opened, model, Adjusted(opened, {"mask": 2.0}), TTA(opened)], [1, 2, 3, 4]).eval()
    same = Ensemble([model, model, Adjusted(model, {"mask": 2.0}), TTA(model)], [1, 2, 3, 4]).eval()
    images = images_of(model)
    present = torch.tensor([[True, False]] * 5)
    with torch.no_grad():
        torch.testing.assert_close(whole.probs(images, present), same.probs(images, present), atol=2e-6, rtol=1e-4)
        whole.save(tmp_path / "whole")
        back = load(tmp_path / "whole")
        assert isinstance(back.members[0], Exported) and isinstance(back.members[3].model, Exported)
        torch.testing.assert_close(back.probs(images), whole.probs(images))
    assert back.members[0].folder == tmp_path / "whole" / "member0"
    mask, rest = model_of([MASK.on(FACES)]), load(folders["onnx"])
    mask.prior = None
    with pytest.raises(ValueError, match="repeat a name"):
        combine([mask, rest])
    opened.save(opened.folder)  # onto itself: nothing happens
    assert load(opened.folder).runtime == "torch"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_broken_folders(folders, tmp_path, runtime):
    load(folders[runtime]).save(tmp_path / "copy")
    config = json.loads((tmp_path / "copy" / "config.json").read_text())

    def changed(**values):
        (tmp_path / "copy" / "config.json").write_text(json.dumps(config | values))
        return load(tmp_path / "copy")

    with pytest.raises(ValueError, match="has runtime 'pickle'; expected one of onnx, openvino, torch"):
        changed(runtime="pickle")
    with pytest.raises(ValueError, match="has precision 'int2'; expected one of f32, bf16, int8"):
        changed(precision="int2")
    with pytest.raises(ValueError, match="is not of an exported model of format 1"):
        changed(format=2)
    assert changed().runtime == runtime
    carried = [{path.name: path.read_bytes() for path in (each / "preprocess").iterdir()} for each in
               (folders[runtime], tmp_path / "copy")]  # fmt: skip
    assert carried[0] == carried[1] and "__init__.py" in carried[1]
    name = {"onnx": "model.onnx", "openvino": "model.xml", "torch": "model.pt2"}[runtime]
    (tmp_path / "copy" / name).write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=f"{name} is no "):
        changed()
    (tmp_path / "copy" / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks {name}; export the model again"):
        changed()
    with pytest.raises(FileNotFoundError, match="config.json is missing; expected what export wrote"):
        read_exported(tmp_path)
    with pytest.raises(ValueError, match="is not of a multihead model"):
        Model.from_pretrained(folders[runtime])


@pytest.mark.parametrize(("package", "runtime", "extra"), [("onnxruntime", "onnx", "onnx"), ("openvino",) * 3])
def test_a_missing_package_names_its_extra(folders, monkeypatch, package, runtime, extra):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(runtimes, "openvino_core", runtimes.openvino_core.__wrapped__)  # as before the first model
    with pytest.raises(ImportError, match=rf"pip install 'multihead\[{extra}\]'"):
        load(folders[runtime])
    with pytest.raises(ImportError, match=r"pip install 'multihead\[quant\]'"):
        without_telemetry("no_such_package", "quant")


WATCH = """
import sys
from concurrent.futures import ThreadPoolExecutor
seen = []
sys.addaudithook(lambda event, args: seen.append(event) if event.startswith("socket.") else None)
from multihead.runtimes import import_openvino, openvino_graph, without_telemetry
before = set(sys.modules)
import_openvino(); without_telemetry("nncf", "quant")
openvino_graph("model.onnx")
import nncf.telemetry.wrapper, openvino.tools.ovc as ovc
kinds = [type(nncf.telemetry.wrapper.telemetry).__name__, ovc.telemetry_utils.tm.__name__, ovc.convert_impl.tm.__name__]
import time; time.sleep(0.5)
print([event for event in seen if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto")])
print([name for name in sys.modules if name.startswith("openvino_telemetry")], *kinds)
"""


def relu():
    """An ONNX file of one step."""
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()


def test_nothing_reports_its_use_over_the_network(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    (tmp_path / "model.onnx").write_bytes(relu())
    done = subprocess.run([sys.executable, "-W", "error", "-c", WATCH], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    stub = "openvino.tools.ovc.telemetry_stub"
    assert done.stdout.split("\n")[:2] == ["[]", f"[] MagicMock {stub} {stub}"]
    assert done.stderr == "" and not list(home.iterdir())  # no identifier is left at home either


def test_a_telemetry_that_was_imported_before_stays(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino_telemetry", sys)
    import_openvino()
    assert sys.modules["openvino_telemetry"] is sys


def test_flat_models_too(tmp_path):
    model = model_of(flat([head.on(FULL.resized(32)) for head in HEADS]))
    export.onnx(model, tmp_path / "flat")
    opened, images = load(tmp_path / "flat"), images_of(model)
    with torch.no_grad():
        torch.testing.assert_close(opened.probs(images), model.probs(images), atol=2e-6, rtol=1e-4)
    assert opened.heads[0].parts  # its parts are kept


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_several_threads_may_ask_at_once(folders, runtime):
    one = load(folders[runtime])
    generator = torch.Generator().manual_seed(0)
    batches = [
        {crop: torch.randint(0, 256, (n, 3, *crop.size), dtype=torch.uint8, generator=generator) for crop in one.crops}
        for n in (1, 4, 2, 7, 3, 5) * 4
    ]
    wanted = [one.probs(images) for images in batches]
    with ThreadPoolExecutor(4) as pool:
        for found, alone in zip(pool.map(one.probs, batches), wanted, strict=True):
            torch.testing.assert_close(found, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_lanes_that_ask_at_once_have_passes_of_their_own(folders, people, runtime, monkeypatch):
    """A stream each in OpenVINO, no threads of ONNX Runtime's own, and torch's graph as it is; opened once."""
    photos, opened, started = read(people / "train").paths, load(folders[runtime]), []
    assert len(photos) >= ENOUGH
    wanted = predict(opened, photos, workers=0)
    start = Exported._start

    def noted(self, *arguments):
        started.append(arguments)
        return start(self, *arguments)

    monkeypatch.setattr(Exported, "_start", noted)
    for workers in (0, 2, 2):
        found = predict(opened, photos, workers=workers)
        pd.testing.assert_frame_equal(found, wanted, rtol=0, atol=1e-5)
    predict(opened, photos[:3], workers=2)  # so few are not worth it
    share = max(1, torch.get_num_threads() // 2)
    assert started == [(share, 2)] * (runtime == "openvino" or runtime == "onnx" and share == 1)
    chosen = Exported(folders[runtime], threads=1)
    assert chosen.shared(2, 1) is chosen and opened.shared(1, 2) is opened


def test_as_many_streams_as_callers_with_the_threads_of_each(folders, monkeypatch):
    core, compiled = runtimes.openvino_core(), []

    class Core:
        get_property = core.get_property

        def compile_model(self, *arguments):
            compiled.append(core.compile_model(*arguments))
            return compiled[-1]

    monkeypatch.setattr(runtimes, "openvino_core", Core)
    opened = load(folders["openvino"])
    opened.shared(2, 1)
    assert [each.get_property("NUM_STREAMS") for each in compiled] == [1, 2]
    assert compiled[1].get_property("INFERENCE_NUM_THREADS") == 2


@pytest.mark.parametrize("lost", ["written anew", "removed"])
@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_files_that_are_no_longer_what_was_opened_are_not_opened_for_lanes(folders, tmp_path, runtime, lost):
    opened = load(folders[runtime])
    opened.save(tmp_path / "a")
    mine, before = load(tmp_path / "a"), load(tmp_path / "a")
    lanes = before.shared(2, 1)
    assert lanes is not before
    for name in runtimes.FILES[runtime]:
        file = tmp_path / "a" / name
        file.unlink() if lost == "removed" else file.write_bytes(file.read_bytes() + b" ")
    assert mine.shared(2, 1) is mine and before.shared(2, 1) is lanes
    torch.testing.assert_close(mine.probs(images_of(mine)), opened.probs(images_of(mine)))


def test_requests_come_back_after_errors(folders):
    opened = load(folders["openvino"]).shared(2, 1)
    for _ in range(3):
        with pytest.raises(Exception, match="nothing"):
            opened._run({"nothing": np.zeros(1)})
    assert opened.probs(images_of(opened)).shape == (5, 18)


SIGNALLED = """
import faulthandler, gc, signal, sys
from multihead import load

faulthandler.enable()
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
first = load(sys.argv[1])
second = load(sys.argv[1])
del first
gc.collect()
del second
gc.collect()
signal.raise_signal(signal.SIGUSR1)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signal here")
def test_a_signal_after_models_that_ended_in_the_order_in_which_they_were_opened(folders):
    """OpenVINO's plugins would leave the process a signal stack that is freed: the signal would end it."""
    done = subprocess.run([sys.executable, "-c", SIGNALLED, str(folders["openvino"])], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_exported_model_prints_as_a_line(folders, runtime):
    text = repr(load(folders[runtime]))
    reads = "mask on face 32x32; gender on body 48x32; age on body 48x32, face 32x32"
    assert text == f"Exported({str(folders[runtime])!r}, {runtime} in f32, {reads})"
    assert f"    1 {text})" in repr(Ensemble([load(folders[runtime])]))
