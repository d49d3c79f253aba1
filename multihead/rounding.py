"""Weights of an OpenVINO graph's convolutions, moved before int8 to numbers that it keeps, such that a layer's outputs
on photos change least: the nearest numbers change them more, above all where a layer reads pixels, which are alike."""

from __future__ import annotations

import hashlib
import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from multihead.runtimes import import_openvino, openvino_core

KINDS = ("Convolution", "GroupConvolution")
PHOTOS = 64  # that layers are looked at on, at most
SPOTS = 256  # places of a photo that a layer is looked at, at most
SWEEPS = 4  # over all weights of a layer
WIDEST = 8192  # inputs of an output; the products of more would not fit into memory
BLOCK = 64  # inputs of a layer whose weights move before the others are told
RIDGE = 0.01  # of the inputs' mean square, as GPTQ has it: photos are too few to tell all inputs of a layer apart
FLOOR = 0.01  # nncf takes no channel's weights for smaller than this share of the layer's largest


@dataclass(frozen=True)
class Rounded:
    """What a layer had before: its weights, and how much was added to its bias."""

    weights: np.ndarray
    shift: np.ndarray | None


def rounded(graph: Any, feeds: Sequence[Mapping[str, np.ndarray]]) -> tuple[Any, dict[str, Rounded]]:
    """(a copy of the graph with rounded convolutions, what these had before by name).

    A layer's weights become multiples of 1/63.5 of an output's largest (1/127 where it is depthwise), as nncf stores
    them with `overflow_fix`; its bias, what keeps the mean of its outputs. feeds: the graph's inputs, one photo each.

    Source: coordinate descent as in Zhang et al. 2024, COMQ: A Backpropagation-Free Algorithm for Post-Training
    Quantization; the error of outputs as in Frantar et al. 2022, GPTQ.
    """
    made, before = graph.clone(), {}
    inputs = _inputs(graph, feeds)
    for layers in _twins(made):
        layer, weights = layers[0], _constant(layers[0])
        mean, square = (each.double() for each in inputs.pop(layer.get_friendly_name()))
        depthwise = layer.get_type_name() == "GroupConvolution" and weights.shape[2] == 1
        own = torch.from_numpy(weights.astype(np.float64)).reshape(len(mean), -1, mean.shape[1])  # (G, O, I)
        if _bias(layer) is not None:
            square -= mean[:, :, None] * mean[:, None, :]
        near = descend(own, square, 127 if depthwise else 63.5)
        # what the mean of the outputs would change by
        shift = torch.einsum("goi,gi->go", own - near, mean).reshape(1, -1, 1, 1).float().numpy()
        for layer in layers:
            bias = _bias(layer)
            if bias is not None:
                _replace(bias, 1, _constant(bias, 1) + shift)
            _replace(layer, 1, near.reshape(weights.shape).numpy())
            before[layer.get_friendly_name()] = Rounded(weights, None if bias is None else shift)
    return made, before


def give_back(graph: Any, before: Mapping[str, Rounded]) -> None:
    """Puts the weights and biases from before `rounded` into the layers that are not in int8, in place."""
    for layer in _layers(graph):
        if layer.get_friendly_name() in before:  # one in int8 has no weights that are constant floats
            was = before[layer.get_friendly_name()]
            _replace(layer, 1, was.weights)
            bias = _bias(layer)
            if was.shift is not None and bias is not None:
                _replace(bias, 1, _constant(bias, 1) - was.shift)


def descend(weights: Tensor, square: Tensor, most: float) -> Tensor:
    """Weights (G, O, I) as whole multiples of an output's largest weight over `most`, such that the outputs' squared
    error is small for inputs with these mean products (G, I, I): each weight in turn goes where it is least.

    The largest weight of an output stays, so that its scale is found again.
    """
    size = weights.shape[2]
    largest = weights.abs().amax(2, keepdim=True)
    least = max(FLOOR * float(largest.max()), 1e-12)
    scale = largest.clamp(min=least) / most
    fixed = (weights.abs() == largest) & (largest >= least)
    ridge = RIDGE * square.diagonal(dim1=1, dim2=2).mean(1) + 1e-12
    square = square.clone()
    square.diagonal(dim1=1, dim2=2).add_(ridge[:, None])
    top = int(most)
    steps = torch.where(fixed, weights / scale, (weights / scale).round().clamp(-top, top))
    slope = (steps * scale - weights) @ square  # of half the error, by weight
    for _ in range(SWEEPS):
        moved = 0
        for start in range(0, size, BLOCK):
            part = slice(start, start + BLOCK)
            old, near, within = steps[:, :, part].clone(), slope[:, :, part].clone(), square[:, part, part]
            for place in range(near.shape[2]):
                now = steps[:, :, start + place]
                best = now - near[:, :, place] / (scale[:, :, 0] * within[:, None, place, place])
                best = torch.where(fixed[:, :, start + place], now, best.round().clamp(-top, top))
                near += ((best - now) * scale[:, :, 0])[:, :, None] * within[:, None, place]
                steps[:, :, start + place] = best
            change = steps[:, :, part] - old
            slope += (change * scale) @ square[:, part]
            moved += int(change.count_nonzero())
        if moved <= steps.numel() // 2000:
            break
    return steps * scale


def _inputs(graph: Any, feeds: Sequence[Mapping[str, np.ndarray]]) -> dict[str, tuple[Tensor, Tensor]]:
    """{the first layer of each weights: the mean (G, I) and the mean products (G, I, I) of what they are multiplied
    with}."""
    numbers = np.random.default_rng(0)
    own = graph.clone()
    alike = _twins(own)
    layers = [layer for twins in alike for layer in twins]
    names = [twins[0].get_friendly_name() for twins in alike for _ in twins]
    seen = import_openvino().Model([_steps().result(layer.input_value(0)) for layer in layers], own.get_parameters())
    run = openvino_core().compile_model(seen, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    named = [each.get_any_name() for each in run.inputs]
    sums: dict[str, tuple[Tensor, Tensor]] = {}
    counts: dict[str, int] = {}
    for feed in feeds[:PHOTOS]:
        found = run({name: feed[name] for name in named})
        for place, layer in enumerate(layers):
            rows, name = _rows(layer, torch.from_numpy(found[place]), numbers), names[place]
            groups, size, spots = rows.shape
            if name not in sums:
                sums[name] = torch.zeros(groups, size), torch.zeros(groups, size, size)
            sums[name][0].add_(rows.sum(2))
            sums[name][1].baddbmm_(rows, rows.mT)  # in place: there are thousands of inputs
            counts[name] = counts.get(name, 0) + spots
    return {name: (total.div_(counts[name]), products.div_(counts[name])) for name, (total, products) in sums.items()}


def _rows(layer: Any, pixels: Tensor, numbers: np.random.Generator) -> Tensor:
    """What a layer's weights are multiplied with at up to `SPOTS` places: (G, I, places)."""
    about, shape = layer.get_attributes(), layer.input(1).get_shape()
    (top, left), (bottom, right) = about["pads_begin"], about["pads_end"]
    padded = functional.pad(pixels, (left, right, top, bottom))
    kernel = {"dilation": tuple(about["dilations"]), "stride": tuple(about["strides"])}
    rows = functional.unfold(padded, tuple(shape[-2:]), **kernel)[0]
    if rows.shape[1] > SPOTS:
        rows = rows[:, torch.from_numpy(np.sort(numbers.choice(rows.shape[1], SPOTS, replace=False)))]
    groups = shape[0] if layer.get_type_name() == "GroupConvolution" else 1
    return rows.reshape(groups, -1, rows.shape[1])


def _layers(graph: Any) -> list[Any]:
    """The convolutions over two axes whose weights are constant floats, of up to `WIDEST` inputs."""
    found = [node for node in graph.get_ordered_ops() if node.get_type_name() in KINDS]
    found = [node for node in found if _is_constant(node, 1) and len(node.get_attributes()["strides"]) == 2]
    return [node for node in found if math.prod(node.input(1).get_shape()[-3:]) <= WIDEST]


def _twins(graph: Any) -> list[list[Any]]:
    """`_layers`, those of equal weights together: a backbone that reads several crops has each layer several times, and
    they stay equal, else a file would hold their weights several times."""
    found: dict[Any, list[Any]] = {}
    for layer in _layers(graph):
        weights = _constant(layer)
        content = layer.get_type_name(), weights.shape, hashlib.sha256(weights.tobytes()).digest()
        found.setdefault(content, []).append(layer)
    return list(found.values())


def _bias(layer: Any) -> Any | None:
    """The node that adds a constant for each output to what this layer alone gives; None where there is none."""
    targets = list(layer.output(0).get_target_inputs())
    node = targets[0].get_node() if len(targets) == 1 else None
    outputs = int(layer.output(0).partial_shape[1].get_length())
    if node is None or node.get_type_name() != "Add" or not _is_constant(node, 1):
        return None
    return node if _constant(node, 1).shape == (1, outputs, 1, 1) else None


def _is_constant(node: Any, port: int) -> bool:
    source = node.input_value(port).get_node()
    return source.get_type_name() == "Constant" and source.get_element_type().to_dtype() == np.float32


def _constant(node: Any, port: int = 1) -> np.ndarray:
    return np.array(node.input_value(port).get_node().get_data())


def _replace(node: Any, port: int, values: np.ndarray) -> None:
    node.input(port).replace_source_output(_steps().constant(values.astype(np.float32)).output(0))


def _steps() -> Any:
    return importlib.import_module("openvino.opset13")
