import numpy as np
import pytest
import torch

from multihead import quantised
from multihead.crops import FACE, FULL
from multihead.export import openvino, save_onnx
from multihead.heads import HEADS
from multihead.joined import load
from multihead.labels import decode
from multihead.model import Model
from multihead.quantised import Control, controls, measure
from multihead.reading import read
from multihead.runtimes import import_openvino, openvino_graph


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = Model("test_resnet", [head.on(FULL.resized(32)) for head in HEADS]).eval()
    for head in model.head.values():
        torch.nn.init.normal_(head.weight, std=2)
    return model


@pytest.fixture(scope="module")
def photos(people):
    return read(people / "train")[:40]


@pytest.fixture(scope="module")
def graph(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    save_onnx(model, path, 20)
    return openvino_graph(path)


def test_int8_is_written_where_it_keeps_the_bound(model, photos, tmp_path, capfd):
    check = openvino(model, tmp_path / "x", "int8", photos=photos, max_drop=0.9, limit=12)[""]
    opened = load(tmp_path / "x")
    assert check.precision == opened.precision == "int8" and check.rows == 40
    assert "agreement" in check.remark and "calibrated it" in check.remark
    written = import_openvino().Core().read_model(tmp_path / "x" / "model.xml")
    kinds = [node.get_type_name() for node in written.get_ordered_ops()]
    assert kinds.index("FakeQuantize") < kinds.index("Convolution")  # pixels are quantised too
    weights = _weights(written.get_ordered_ops())
    assert weights[0].shape == (16, 3, 3, 3) and len(weights) == 18
    assert all(each.dtype == np.int8 for each in weights)
    assert max(np.abs(each.astype(int)).max() for each in weights) == 64  # 7 bits, for processors without VNNI
    images = {FULL.resized(32): torch.zeros(3, 3, 32, 32, dtype=torch.uint8)}
    assert opened.probs(images).shape == (3, 18)
    assert capfd.readouterr() == ("", "")


def _weights(nodes):
    """Of each convolution and product among the nodes, as they are stored."""
    found = []
    for node in nodes:
        if node.get_type_name() in ("Convolution", "MatMul"):
            source = node.input_value(1).get_node()
            while source.get_type_name() != "Constant":
                source = source.input_value(0).get_node()
            found.append(source.get_data())
    return found


def test_a_range_has_the_least_error():
    """One of 40 inputs is ten times as large: the mean of their extremes, nncf's own choice, would cut nearly all of
    it. The layer is depthwise, to which nncf by itself gives a range a channel."""
    nncf = quantised.without_telemetry("nncf", "quant")
    import_openvino()
    from openvino import Model as Graph
    from openvino import opset13 as ops

    numbers = np.random.default_rng(0)
    pixels = ops.parameter([1, 4, 8, 8], np.float32)
    pixels.output(0).set_names({"x"})
    weight = ops.constant(numbers.normal(size=(4, 1, 1, 3, 3)).astype(np.float32))
    layer = ops.group_convolution(pixels, weight, [1, 1], [0, 0], [0, 0], [1, 1])
    feeds = [{"x": numbers.uniform(-1, 1, (1, 4, 8, 8)).astype(np.float32)} for _ in range(40)]
    feeds[7]["x"] *= 10
    settings = {"subset_size": 40, "advanced_parameters": quantised._settings(nncf)}
    with quantised._silent():
        made = nncf.quantize(Graph([ops.result(layer)], [pixels]), nncf.Dataset(feeds), **settings)
    ranged = next(node for node in made.get_ops() if node.get_type_name() == "FakeQuantize")
    low, high = (ranged.input_value(end).get_node().get_data() for end in (1, 2))
    assert low.size == high.size == 1 and low.item() < -9 and high.item() > 9


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_convolutions_that_read_pixels_are_in_int8(name, tmp_path):
    full, face = FULL.resized(160), FACE.resized(160)
    save_onnx(Model(name, [HEADS[0].on(full), HEADS[1].on(face, full)]).eval(), tmp_path / "model.onnx", 20)
    assert quantised.first_products(openvino_graph(tmp_path / "model.onnx")) == []


def test_a_product_that_reads_pixels_stays():
    """Patches as rows: reshaped, turned, multiplied; the second product reads no pixels."""
    import_openvino()
    from openvino import Model as Graph
    from openvino import opset13 as ops

    pixels = ops.parameter([1, 3, 8, 8], np.float32)
    rows = ops.transpose(ops.reshape(pixels, ops.constant([1, 12, 16]), False), ops.constant([0, 2, 1]))
    first = ops.matmul(rows, ops.constant(np.ones((12, 5), np.float32)), False, False)
    second = ops.matmul(ops.relu(first), ops.constant(np.ones((5, 2), np.float32)), False, False)
    seen = ops.convolution(pixels, ops.constant(np.ones((2, 3, 1, 1), np.float32)), [1, 1], [0, 0], [0, 0], [1, 1])
    names = quantised.first_products(Graph([ops.result(second), ops.result(seen)], [pixels]))
    assert names == [
        rows.input_value(0).get_node().get_friendly_name(),
        rows.get_friendly_name(),
        first.get_friendly_name(),
    ]


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_a_graph_is_simplified(name, tmp_path):
    """Nothing computes a shape, and no convolution is followed by a norm: nncf corrects constant biases only."""
    save_onnx(Model(name, [HEADS[0].on(FULL.resized(160))]).eval(), tmp_path / "model.onnx", 20)
    kinds = {node.get_type_name() for node in openvino_graph(tmp_path / "model.onnx").get_ops()}
    assert "Convolution" in kinds and not kinds & {"ShapeOf", "Broadcast", "BatchNormInference"}


def test_bf16_is_kept_where_int8_costs_too_much(graph, model, photos, monkeypatch):
    """Without labels the answers of f32 count: of an untrained model hardly any layer can change without some."""
    plain = _unlabelled(photos)
    monkeypatch.setattr(quantised, "_quantise", lambda nncf, graph, *rest: _zeroed(graph))
    kept, precision, remark = quantised.int8(graph, model, plain, max_drop=0.01, limit=12)
    assert kept is graph and precision == "bf16"
    assert remark.startswith("int8 would lose more than 0.01 (agreement 0.") and remark.endswith("bf16 was written")
    monkeypatch.setattr(quantised, "_quantise", lambda *rest: graph.clone())  # nncf gave it back as it was
    kept, precision, remark = quantised.int8(graph, model, photos, max_drop=0.2, limit=12)
    assert kept is graph and precision == "bf16"
    assert remark == "int8 could not keep agreement within 0.2: bf16 was written"


def test_a_model_that_knows_nothing_is_held_to_its_answers(graph, model, photos, monkeypatch):
    """Its macro-F1 cannot fall by the bound, whatever int8 makes of it."""
    said = []
    monkeypatch.setattr(quantised, "_quantise", lambda nncf, graph, *rest: _zeroed(graph))
    before = measure(graph, controls(graph, model, photos.split(0.5, seed=0)[1], 12), "f32")[1]
    assert 0 < before < 0.3
    options = {"limit": 12, "say": said.append}
    assert quantised.int8(graph, model, photos, max_drop=before + 0.01, **options)[1] == "bf16"
    assert f"macro-F1 of f32 {before:.4f} is too low to lose" in said[0] and "agreement of f32 1.0000" in said[1]
    assert "agreement" not in quantised.int8(graph, model, photos, max_drop=before - 0.01, **options)[2]


def test_without_a_bound_macro_f1_is_told(graph, model, photos, monkeypatch):
    """A bound of 1 asks for int8 whatever it costs: any model's macro-F1 is below it, so it says nothing of one."""
    said = []
    monkeypatch.setattr(quantised, "_quantise", lambda nncf, graph, *rest: _zeroed(graph))
    _, precision, remark = quantised.int8(graph, model, photos, max_drop=1.0, limit=12, say=said.append)
    assert precision == "int8" and remark.startswith("macro-F1 ") and "too low" not in "".join(said)


def _unlabelled(photos):
    table = photos.table.copy()
    for head in HEADS:
        table[head.name] = -1
    table["years"] = np.nan
    return type(photos)(table, photos.heads)


def _zeroed(graph):
    """The graph with a FakeQuantize that leaves nothing of the pixels."""
    import_openvino()
    from openvino import opset13 as ops

    graph = graph.clone()
    node = next(node for node in graph.get_ordered_ops() if node.get_type_name() == "Convert")
    zero, one = (ops.constant(np.float32(value)) for value in (0, 1e-9))
    lost = ops.fake_quantize(node.output(0), zero, one, zero, one, 2)
    for target in node.output(0).get_target_inputs():
        if target.get_node().get_friendly_name() != lost.get_friendly_name():
            target.replace_source_output(lost.output(0))
    graph.validate_nodes_and_infer_types()
    return graph


def test_people_calibrate_or_control_never_both(graph, model, photos, monkeypatch):
    seen = []
    real = quantised.read_batches

    def read_batches(model, photos, limit, rows):
        seen.append(set(photos.people))
        return real(model, photos, limit, rows)

    monkeypatch.setattr(quantised, "read_batches", read_batches)
    monkeypatch.setattr(quantised, "_quantise", lambda nncf, graph, *rest: graph)
    quantised.int8(graph, model, photos, max_drop=0.1, limit=12)
    assert len(seen) == 2 and not seen[0] & seen[1] and len(seen[0] | seen[1]) == len(set(photos.people))


@pytest.mark.slow
def test_layers_are_given_back_until_the_bound_is_kept_and_told(graph, model, photos, monkeypatch):
    """Ranked on two of five batches by what they change; the bound is judged on all."""
    monkeypatch.setattr(quantised, "ROWS", 4)
    scores = [1.0, 1.0, 0.2, 0.5, 0.6, 0.995, 0.995]  # f32, f32 as nncf asks for it, int8, three layers back, the end
    said, seen = [], []

    def measured(probs, control):
        seen.append(len(control))
        if len(seen) == 2:  # what nncf holds int8 to is f32 as it is, not as its weights are rounded
            assert all(np.array_equal(one, batch.probs) for one, batch in zip(probs, control, strict=True))
        return "macro-F1", scores[len(seen) - 1]

    monkeypatch.setattr(quantised, "_measured", measured)
    made, precision, remark = quantised.int8(graph, model, photos, max_drop=0.01, limit=20, say=said.append)
    assert seen == [5] * len(scores)  # never a score of a few photos
    assert said[0].startswith("int8: macro-F1 of f32 1.0000; calibrating on ") and said[1:] == [
        "int8: rounding weights on 19 photos",
        "int8: macro-F1 0.2000",
        "int8: macro-F1 0.5000 with 1 of at most 10 layers given back to f32",
        "int8: macro-F1 0.6000 with 2 of at most 10 layers given back to f32",
        "int8: macro-F1 0.9950 with 3 of at most 10 layers given back to f32",
    ]
    assert precision == "int8" and remark.startswith("macro-F1 0.9950, f32 1.0000, on ")
    assert "f32 knows nearly all: if they trained it, that hides what int8 costs" in remark
    before = {node.get_friendly_name(): node for node in graph.get_ordered_ops()}
    kept = [node for node in made.get_ordered_ops() if node.get_type_name() == "Convolution" and _is_float(node)]
    assert kept  # others of the three are products
    for node in kept:
        (weights,), (was,) = (_weights([each]) for each in (node, before[node.get_friendly_name()]))
        assert np.array_equal(weights, was)


def _is_float(node):
    return node.input_value(1).get_node().get_type_name() == "Constant"


def test_int8_is_made_of_rounded_weights(graph, model, photos, monkeypatch):
    """A whole number of steps each, but for an output's largest: nncf finds no other number nearer."""
    made = []
    real = quantised.rounded
    monkeypatch.setattr(quantised, "rounded", lambda *args: made.append(real(*args)) or made[-1])
    found, precision, _ = quantised.int8(graph, model, photos, max_drop=1.0, limit=12)
    assert precision == "int8"
    near, before = made[0]
    floats = dict(zip(before, _weights(near.get_ordered_ops())))
    layers = [node for node in found.get_ordered_ops() if node.get_type_name() == "Convolution"]
    assert len(layers) == len(before) == 15
    for node in layers:
        scale = node.input_value(1).get_node().input_value(1).get_node().get_data()
        (stored,), steps = _weights([node]), floats[node.get_friendly_name()] / scale
        outer = np.abs(np.abs(steps) - 63.5) < 0.01
        assert np.allclose(steps[~outer], stored[~outer], atol=0.01) and outer.sum() <= 1.1 * len(scale)


def test_int8_of_one_batch_is_held_to_f32_not_to_rounded_weights(graph, model, photos, monkeypatch):
    seen, real = [], quantised._measured
    monkeypatch.setattr(quantised, "_measured", lambda probs, control: seen.append(probs[0]) or real(probs, control))
    quantised.int8(graph, model, photos, max_drop=1.0, limit=12)
    assert np.array_equal(seen[1], seen[0]) and np.array_equal(seen[2], seen[0])  # as nncf tries it, and asks for it
    assert not np.array_equal(seen[-1], seen[0])


def test_what_is_measured(graph, model, photos):
    from sklearn.metrics import f1_score

    control = controls(graph, model, photos, 20)
    labels = np.concatenate([batch.labels for batch in control])
    answers = np.concatenate([batch.probs for batch in control]).argmax(1)
    assert len(labels) == 20 and (decode(labels) >= 0).all()
    name, value = measure(graph, control, "f32")
    assert (name, value) == ("macro-F1", pytest.approx(f1_score(labels, answers, average="macro")))
    blank = [Control(batch.feed, 0 * batch.labels - 1, np.eye(18)[0 * batch.labels + 17]) for batch in control]
    assert measure(graph, blank, "f32") == ("agreement", pytest.approx((answers == 17).mean()))
