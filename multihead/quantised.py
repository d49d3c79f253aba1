"""OpenVINO graphs in int8: ranges from some people's photos, and what it costs on the photos of others."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from multihead.evaluation import read_batches
from multihead.graphs import input_names
from multihead.heads import UNKNOWN, base
from multihead.labels import encode
from multihead.metrics import confusion
from multihead.model import Model
from multihead.rounding import KINDS, PHOTOS, give_back, rounded
from multihead.runtimes import compile_openvino, without_telemetry
from multihead.sigstack import kept_signal_stack

if TYPE_CHECKING:
    from multihead.data import Photos

ROUNDS = 10  # layers given back to f32, one at a time, where int8 costs too much
KNOWN = 0.98  # macro-F1 of f32 from which the photos that control may be known by heart
ROWS = 32  # photos of a batch that controls
RANKED_ON = 2  # batches on which layers are ranked by what they change: there are a hundred of them


@dataclass(frozen=True)
class Control:
    """A batch that controls int8: the graph's inputs, the joint classes (B,), -1 = unknown, and the joint probabilities
    (B, K) of the graph in f32."""

    feed: dict[str, np.ndarray]
    labels: np.ndarray
    probs: np.ndarray


def int8(
    graph: Any,
    model: Model,
    photos: Photos,
    *,
    max_drop: float,
    limit: int,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Any, str, str]:
    """(the graph in int8, "int8", what it costs), or (the graph itself, "bf16", why) where int8 costs more than
    `max_drop`; see `multihead.export.openvino`. say: told how far it is.

    Raises: ImportError that names the extra; ValueError for photos of one person only.
    """
    nncf = without_telemetry("nncf", "quant")
    calibrating, controlling = photos.split(0.5, seed=0)
    if not len(calibrating) or not len(controlling):
        raise ValueError(f"int8 needs photos of two people or more, to calibrate and to control; got {photos}")
    feeds = [feed for feed, _ in _feeds(model, calibrating, limit, 1)]
    control = controls(graph, model, controlling, limit)
    name, before = measure(graph, control, "f32")
    if before <= max_drop < 1:  # nothing could cost as much: a model that knows these photos too little
        say(f"int8: {name} of f32 {before:.4f} is too low to lose {max_drop:g}: its answers are compared instead")
        control = [replace(batch, labels=np.full_like(batch.labels, UNKNOWN)) for batch in control]
        name, before = measure(graph, control, "f32")
    say(f"int8: {name} of f32 {before:.4f}; calibrating on {len(feeds)} photos")
    found = _quantise(nncf, graph, model, feeds, control, max_drop, say)
    if not _quantised(found):
        return graph, "bf16", f"int8 could not keep {name} within {max_drop:g}: bf16 was written"
    drop = before - measure(found, control, "int8")[1]
    rows = sum(len(batch.labels) for batch in control)
    sure = (
        "; f32 knows nearly all: if they trained it, that hides what int8 costs, so score both on people it never saw"
    )
    told = f"{name} {before - drop:.4f}, f32 {before:.4f}, on {rows} photos of people who did not calibrate it"
    told += sure if name == "macro-F1" and before > KNOWN else ""
    if drop > max_drop:
        return graph, "bf16", f"int8 would lose more than {max_drop:g} ({told}): bf16 was written"
    return found, "int8", f"{told}; {len(feeds)} calibrated it"


def controls(graph: Any, model: Model, photos: Photos, limit: int) -> list[Control]:
    """The photos as batches that control int8."""
    run, found = compile_openvino(graph, "f32"), []
    for feed, labels in _feeds(model, photos, limit, ROWS):
        found.append(Control(feed, encode(labels, base(model.heads)), run(feed)))
    return found


def measure(graph: Any, control: Sequence[Control], precision: str) -> tuple[str, float]:
    """(what is measured, its value) of an OpenVINO graph: macro-F1 of the joint classes of the labelled rows, or where
    there are none, the share of answers as in f32."""
    run = compile_openvino(graph, precision)
    return _measured([run(batch.feed) for batch in control], control)


def _measured(probs: Sequence[np.ndarray], control: Sequence[Control]) -> tuple[str, float]:
    given = np.concatenate(list(probs)).argmax(1)
    labels = np.concatenate([batch.labels for batch in control])
    wanted = np.concatenate([batch.probs for batch in control]).argmax(1)
    known = labels != UNKNOWN
    if not known.any():
        return "agreement", float((given == wanted).mean())
    classes = [str(number) for number in range(1 + int(max(labels.max(), given.max())))]
    return "macro-F1", confusion(labels[known], given[known], classes).f1


def _feeds(model: Model, photos: Photos, limit: int, rows: int) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """(inputs of the graph, labels (B, heads)) of up to `limit` photos, `rows` at a time."""
    names = input_names(model.crops)
    for batch in read_batches(model, photos, limit, rows):
        arrays = [np.ascontiguousarray(batch.images[crop].numpy()) for crop in model.crops]
        yield dict(zip(names, [*arrays, batch.present.numpy()])), batch.labels.numpy()


def _quantise(
    nncf: Any,
    graph: Any,
    model: Model,
    feeds: Sequence[dict[str, np.ndarray]],
    control: Sequence[Control],
    max_drop: float,
    say: Callable[[str], None],
) -> Any:
    """nncf's graph, with as many layers in f32 as the control asks for. These have their own weights at the end; while
    nncf looks for them they have rounded ones, which cost little beside int8."""
    attention = any("Attention" in type(module).__name__ for module in model.backbone.modules())
    told = sys.stderr, sys.stdout  # nncf's own output is kept from both
    wholes: list[float] = []
    say(f"int8: rounding weights on {min(len(feeds), PHOTOS)} photos")
    near, before = rounded(graph, feeds)

    def validate(compiled: Any, batches: Iterable[Control]) -> tuple[float, None]:
        batches = list(batches)
        put_back()
        # of f32: as it is, not as it is rounded; nncf asks for one batch before it asks for all
        first = len(batches) == len(control) and len(wholes) < 1 + (len(control) == 1)
        probs = [batch.probs if first else compiled(batch.feed)["joint"] for batch in batches]
        if len(batches) < len(control):  # layers are ranked: by answers that change few would differ
            return -float(np.mean([((one - batch.probs) ** 2).sum() for one, batch in zip(probs, batches)])), None
        name, value = _measured(probs, batches)
        wholes.append(value)
        if len(control) > 1 and len(wholes) > 1:  # the first is of f32
            back = f" with {len(wholes) - 2} of at most {ROUNDS} layers given back to f32" if len(wholes) > 2 else ""
            with contextlib.redirect_stderr(told[0]), contextlib.redirect_stdout(told[1]):
                say(f"int8: {name} {value:.4f}{back}")
        return value, None

    with _silent(), kept_signal_stack() as put_back:
        found = nncf.quantize_with_accuracy_control(
            near,
            nncf.Dataset(list(feeds)),
            nncf.Dataset(list(control), lambda batch: batch.feed),
            validate,
            max_drop=max_drop,
            preset=nncf.QuantizationPreset.MIXED,  # asymmetric activations: swish and the like go below zero
            subset_size=len(feeds),
            model_type=nncf.ModelType.TRANSFORMER if attention else None,
            ignored_scope=nncf.IgnoredScope(names=first_products(graph)),
            advanced_quantization_parameters=_settings(nncf),
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                # fewer than all: a validation of all is one of the score
                ROUNDS,
                ranking_subset_size=max(1, min(RANKED_ON, len(control) - 1)),
            ),
        )
    give_back(found, before)
    return found


def first_products(graph: Any) -> list[str]:
    """The names of the matrix products that read pixels, and of the steps on the way to them, which int8 leaves as they
    are: a small part of the work, and what is lost there is lost to all layers after. Convolutions are rounded for
    what they read."""
    raw: dict[str, list[str]] = {}  # the steps on the way to pixels that are not multiplied yet
    found: dict[str, None] = {}
    for node in graph.get_ordered_ops():
        kind, sources = node.get_type_name(), [each.get_node() for each in node.input_values()]
        reads = [source.get_name() for source in sources if source.get_type_name() != "Constant"]
        if kind == "Parameter":
            raw[node.get_name()] = []
        elif reads and all(name in raw for name in reads):
            way = [*chain.from_iterable(raw[name] for name in reads), node.get_friendly_name()]
            if kind == "MatMul":
                found |= dict.fromkeys(way)
            elif kind not in KINDS:
                raw[node.get_name()] = way
    return list(found)


def _settings(nncf: Any) -> Any:
    """Ranges of the least error, one for all channels of a layer (faster where it is depthwise), and weights of 7 bits
    where others overflow: processors without VNNI add two products of 8 bits in 16 (nncf's documentation of
    `overflow_fix`), and one file serves all."""
    ranges = importlib.import_module("nncf.quantization.range_estimator").RangeEstimatorParametersSet
    kinds = importlib.import_module("nncf.quantization.advanced_parameters")
    return nncf.AdvancedQuantizationParameters(
        overflow_fix=nncf.OverflowFix.ENABLE,
        activations_range_estimator_params=ranges.HISTOGRAM,
        activations_quantization_params=kinds.QuantizationParameters(per_channel=False),
    )


def _quantised(graph: Any) -> bool:
    """True where a layer of the graph is quantised: nncf gives the graph back as it was where it can do nothing."""
    return any(node.get_type_name() == "FakeQuantize" for node in graph.get_ops())


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without nncf's bars, tables and remarks inside."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", module=r"nncf\b")
            yield
    finally:
        logger.setLevel(level)
