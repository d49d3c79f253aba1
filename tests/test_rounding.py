"""Rounded convolutions against brute force and against what nncf makes of them."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multihead import quantised, rounding
from multihead.rounding import descend, give_back, rounded
from multihead.runtimes import import_openvino, openvino_core


def _products(size, seed, rows=200):
    """Mean products of inputs that go up and down together, as pixels do."""
    numbers = np.random.default_rng(seed)
    inputs = numbers.normal(size=(rows, 1)) + 0.1 * numbers.normal(size=(rows, size))
    return torch.from_numpy(inputs.T @ inputs / rows)[None]


def _error(one, other, square):
    return torch.einsum("goi,gij,goj->go", one - other, square, one - other)


@given(st.integers(1, 9), st.integers(0, 10**6), st.sampled_from([63.5, 127]))
@settings(max_examples=60, deadline=None)
def test_no_weight_can_move_by_a_step_to_less_error(size, seed, most):
    weights = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, 3, size)))
    square = _products(size, seed)
    ridge = rounding.RIDGE * square.diagonal(dim1=1, dim2=2).mean() + 1e-12
    damped = square + ridge * torch.eye(size)
    found = descend(weights, square, most)
    largest = weights.abs().amax(2, keepdim=True)
    floor = rounding.FLOOR * largest.max()
    scale = largest.clamp(min=float(floor)) / most
    fixed = (weights.abs() == largest) & (largest >= floor)
    steps = found / scale
    assert torch.allclose(steps[~fixed], steps[~fixed].round(), atol=1e-6) and steps.abs().max() <= most + 1e-6
    assert torch.allclose(found[fixed], weights[fixed])
    least = _error(found, weights, damped)
    for place, way in itertools.product(range(size), (-1, 1)):
        other = found.clone()
        other[:, :, place] += way * scale[:, :, 0]
        may = ~fixed[:, :, place] & ((steps[:, :, place] + way).abs() <= most + 1e-6)
        assert (_error(other, weights, damped) >= least - 1e-9)[may].all()


@pytest.mark.parametrize("size", [27, 200])  # within a block of inputs, and several of them
def test_outputs_change_less_than_by_the_nearest_numbers(size):
    weights = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 16, size)))
    square = _products(size, 1)
    scale = weights.abs().amax(2, keepdim=True) / 63.5
    nearest = (weights / scale).round() * scale
    found = descend(weights, square, 63.5)
    assert _error(found, weights, square).sum() < 0.2 * _error(nearest, weights, square).sum()


def test_wide_layers_are_left_to_nncf(monkeypatch):
    graph, feeds, _ = _graph(np.random.default_rng(0))
    monkeypatch.setattr(rounding, "WIDEST", 27)  # 3 x 3 x 3; the grouped one has 36
    made, held = rounded(graph, feeds)
    layers = [node for node in graph.get_ordered_ops() if node.get_type_name() in rounding.KINDS]
    assert list(held) == [layers[place].get_friendly_name() for place in (0, 1, 3)]


def test_groups_do_not_know_of_each_other():
    weights = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 1, 9)))
    square = torch.cat([_products(9, seed) for seed in range(4)])
    together = descend(weights, square, 127)
    # the floor of a scale is of the whole layer
    floor = rounding.FLOOR * weights.abs().max()
    for group in range(4):
        assert weights[group].abs().max() > floor
        assert torch.equal(together[group], descend(weights[group : group + 1], square[group : group + 1], 127)[0])


def test_dead_inputs_and_outputs_stay_finite():
    weights = torch.zeros(2, 2, 3, dtype=torch.float64)
    weights[0, 0, 1] = 1.0
    found = descend(weights, torch.zeros(2, 3, 3, dtype=torch.float64), 63.5)
    assert torch.equal(found, weights)


def _graph(numbers):
    """Pixels, a strided convolution padded on one side, a depthwise one, a grouped and dilated one, one without bias."""
    import_openvino()
    from openvino import Model as Graph
    from openvino import opset13 as ops

    def normal(*shape):
        return ops.constant(numbers.normal(size=shape).astype(np.float32))

    pixels = ops.parameter([-1, 3, 16, 16], np.float32)
    pixels.output(0).set_names({"x"})
    weights = numbers.normal(size=(8, 3, 3, 3)) * np.where(np.arange(8) == 5, 1e-3, 1)[:, None, None, None]  # one faint
    weights = ops.constant(weights.astype(np.float32))
    first = ops.add(ops.convolution(pixels, weights, [2, 2], [0, 0], [1, 1], [1, 1]), normal(1, 8, 1, 1))
    depthwise = ops.group_convolution(ops.relu(first), normal(8, 1, 1, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1])
    depthwise = ops.relu(ops.add(depthwise, normal(1, 8, 1, 1)))
    grouped = ops.group_convolution(depthwise, normal(2, 6, 4, 3, 3), [1, 1], [2, 1], [2, 1], [2, 1])
    grouped = ops.relu(ops.add(grouped, normal(1, 12, 1, 1)))
    last = ops.convolution(grouped, normal(5, 12, 1, 1), [1, 1], [0, 0], [0, 0], [1, 1])
    feeds = [{"x": numbers.uniform(0, 1, (1, 3, 1, 1)) + numbers.normal(0, 0.1, (1, 3, 16, 16))} for _ in range(24)]
    feeds = [{"x": feed["x"].astype(np.float32)} for feed in feeds]
    return Graph([ops.result(last)], [pixels]), feeds, [first, depthwise, grouped, last]


def _outputs(graph, feeds, name=None):
    """(photos, C, H, W) of the graph, or of a node of it."""
    import openvino
    from openvino import opset13 as ops

    if name is not None:
        graph = graph.clone()
        node = next(node for node in graph.get_ordered_ops() if node.get_friendly_name() == name)
        graph = openvino.Model([ops.result(node.output(0))], graph.get_parameters())
    run = openvino_core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.concatenate([np.array(run(feed)[0]) for feed in feeds])


def test_what_layers_read_is_seen_as_torch_sees_it(monkeypatch):
    """Means and products of all places, of the layer's own padding, stride, dilation and groups: they give the mean and
    the variance of its outputs."""
    monkeypatch.setattr(rounding, "SPOTS", 10**6)
    graph, feeds, _ = _graph(np.random.default_rng(0))
    inputs = rounding._inputs(graph, feeds)
    layers = rounding._layers(graph)
    assert [layer.get_friendly_name() for layer in layers] == list(inputs) and len(inputs) == 4
    for layer in layers:
        mean, square = (each.double() for each in inputs[layer.get_friendly_name()])
        weights = torch.from_numpy(rounding._constant(layer)).double().reshape(len(mean), -1, mean.shape[1])
        outputs = _outputs(graph, feeds, layer.get_friendly_name()).swapaxes(0, 1).reshape(mean.shape[0], -1, 24 * 64)
        assert np.allclose(torch.einsum("goi,gi->go", weights, mean), outputs.mean(2), rtol=1e-4, atol=1e-4)
        squares = torch.einsum("goi,gij,goj->go", weights, square, weights)
        assert np.allclose(squares, (outputs.astype(float) ** 2).mean(2), rtol=1e-4)


def test_few_places_of_few_photos_are_looked_at(monkeypatch):
    graph, feeds, _ = _graph(np.random.default_rng(0))
    seen = []
    real = rounding._rows
    monkeypatch.setattr(rounding, "_rows", lambda *args: seen.append(real(*args)) or seen[-1])
    monkeypatch.setattr(rounding, "SPOTS", 50)
    monkeypatch.setattr(rounding, "PHOTOS", 3)
    rounding._inputs(graph, feeds)
    assert len(seen) == 3 * 4 and {rows.shape[2] for rows in seen} == {50}


def test_means_of_outputs_stay_and_the_graph_is_another(monkeypatch):
    """Of each layer by itself: with what it reads as it was."""
    monkeypatch.setattr(rounding, "SPOTS", 10**6)
    graph, feeds, biased = _graph(np.random.default_rng(0))
    before = _outputs(graph, feeds)
    made, held = rounded(graph, feeds)
    assert np.array_equal(_outputs(graph, feeds), before)  # the caller's stays
    name = biased[0].get_friendly_name()
    first, exact = _outputs(made, feeds, name), _outputs(graph, feeds, name)
    assert 1e-4 < np.abs(first - exact).max() < 0.1 * exact.std()
    assert np.allclose(first.mean((0, 2, 3)), exact.mean((0, 2, 3)), atol=1e-5)
    assert [each.shift is None for each in held.values()] == [False, False, False, True]


def test_the_error_is_about_the_mean_where_the_bias_keeps_that(monkeypatch):
    graph, feeds, _ = _graph(np.random.default_rng(0))
    seen = []
    real = rounding.descend
    monkeypatch.setattr(rounding, "descend", lambda *args: seen.append(args[1]) or real(*args))
    rounded(graph, feeds)
    found = zip(seen, rounding._inputs(graph, feeds).values(), [True, True, True, False], strict=True)
    for square, (mean, products), biased in found:
        expected = products.double() - biased * mean.double()[:, :, None] * mean.double()[:, None, :]
        assert torch.allclose(square, expected)


def test_nncf_stores_these_numbers():
    """All but an output's largest weight, which lies between two of them; depthwise layers have 8 bits."""
    nncf = quantised.without_telemetry("nncf", "quant")
    graph, feeds, _ = _graph(np.random.default_rng(0))
    made, _ = rounded(graph, feeds)
    wanted = [rounding._constant(layer) for layer in rounding._layers(made)]
    with quantised._silent():
        settings = {"subset_size": 24, "advanced_parameters": quantised._settings(nncf)}
        found = nncf.quantize(made, nncf.Dataset(feeds), preset=nncf.QuantizationPreset.MIXED, **settings)
    layers = [node for node in found.get_ordered_ops() if node.get_type_name() in rounding.KINDS]
    tops, largest = [], []
    for layer, floats in zip(layers, wanted, strict=True):
        product = layer.input_value(1).get_node()
        scale = product.input_value(1).get_node().get_data()
        stored = product.input_value(0).get_node().input_value(0).get_node().get_data().astype(float)
        steps = floats / scale
        outer = np.abs(steps) > 63.4 if np.abs(steps).max() < 64 else np.zeros(steps.shape, bool)
        assert np.allclose(stored[~outer], steps[~outer], atol=1e-3)
        assert (np.abs(stored[outer] - steps[outer]) < 0.501).all()
        assert (stored % 2 == 1).mean() > 0.3  # no step is left out
        tops.append(round(float(np.abs(steps).max()), 1))
        largest.append(outer.sum())
    assert tops == [63.5, 127, 63.5, 63.5]
    assert largest == [7, 0, 12, 5]  # one an output, but for the faint one; a depthwise layer's are stored as they are


def test_layers_that_are_not_in_int8_get_their_weights_back():
    nncf = quantised.without_telemetry("nncf", "quant")
    graph, feeds, biased = _graph(np.random.default_rng(0))
    made, held = rounded(graph, feeds)
    kept = list(held)[2]
    with quantised._silent():
        ignored = nncf.IgnoredScope(names=[kept])
        found = nncf.quantize(made, nncf.Dataset(feeds), subset_size=24, ignored_scope=ignored)
    give_back(found, held)
    weights = {node.get_friendly_name(): node for node in found.get_ordered_ops()}
    assert np.array_equal(rounding._constant(weights[kept]), held[kept].weights)
    kinds = [weights[name].input_value(1).get_node().get_type_name() for name in held]
    assert kinds == ["Multiply", "Multiply", "Constant", "Multiply"]
    whole = rounded(graph, feeds)[0]
    give_back(whole, held)
    assert np.allclose(_outputs(whole, feeds), _outputs(graph, feeds), atol=1e-5)


def test_a_layer_that_reads_several_crops_stays_one():
    """Its weights are in the file once, rounded for what it reads of all crops."""
    import_openvino()
    from openvino import Model as Graph
    from openvino import opset13 as ops

    numbers = np.random.default_rng(0)
    weights, bias = (numbers.normal(size=size).astype(np.float32) for size in [(4, 3, 3, 3), (1, 4, 1, 1)])
    pixels = [ops.parameter([-1, 3, side, side], np.float32) for side in (8, 12)]
    for name, each in zip("ab", pixels, strict=True):
        each.output(0).set_names({name})
    seen = [ops.convolution(each, ops.constant(weights), [1, 1], [0, 0], [0, 0], [1, 1]) for each in pixels]
    sums = [ops.add(each, ops.constant(bias)) for each in seen]
    graph = Graph([ops.result(each) for each in sums], pixels)
    feed = {"a": numbers.normal(size=(1, 3, 8, 8)), "b": numbers.normal(size=(1, 3, 12, 12)) + 1}
    feed = {name: each.astype(np.float32) for name, each in feed.items()}
    made, before = rounded(graph, [feed])
    one, other = rounding._layers(made)
    assert len(before) == 2 and np.array_equal(rounding._constant(one), rounding._constant(other))
    assert not np.array_equal(rounding._constant(one), weights)
    ((mean, _),) = rounding._inputs(graph, [feed]).values()
    rows = [rounding._rows(layer, torch.from_numpy(feed[name]), numbers) for name, layer in zip("ab", seen)]
    assert torch.allclose(mean, torch.cat(rows, 2).mean(2), atol=1e-5)
    give_back(made, before)
    assert all(np.array_equal(rounding._constant(layer), weights) for layer in rounding._layers(made))
