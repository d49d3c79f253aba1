"""Exported models, opened: ONNX Runtime, OpenVINO or torch.export answer as the model did that they were made of."""

from __future__ import annotations

import copy
import functools
import importlib
import queue
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multihead import archives
from multihead import heads as tables
from multihead.carry import PACKAGE
from multihead.configs import head_from_dict, reads
from multihead.crops import Crop
from multihead.files import read_json, replace_file
from multihead.given import check_given
from multihead.graphs import input_names

KIND, FORMAT = "exported", 1
FILES = {"onnx": ("model.onnx",), "openvino": ("model.xml", "model.bin"), "torch": ("model.pt2",)}
PRECISIONS = ("f32", "bf16", "int8")

Run = Callable[[Mapping[str, np.ndarray]], np.ndarray]


class Exported(nn.Module):
    """A model that answers through another runtime, on the CPU; it predicts, is scored, saved and put into an
    `Ensemble` like any other, but has no weights to train.

    folder: what `multihead export` or `multihead.export` wrote. threads: of the runtime, by default as many as it
    takes itself. Nothing in the folder is run: a graph is a list of known steps, and a torch graph that holds anything
    else is refused.

    Raises: FileNotFoundError for a folder that lacks a file, ValueError for one that is not of an exported model or of
    an unknown runtime or format, ImportError that names the extra to install.
    """

    def __init__(self, folder: str | Path, *, threads: int | None = None) -> None:
        super().__init__()
        self.folder, self.config = Path(folder), read_exported(folder)
        self.heads = tuple(head_from_dict(head) for head in self.config["heads"])
        self.space, self.crops = tables.space(self.heads), tables.crops(self.heads)
        prior = self.config.get("prior")
        self.prior = None if prior is None else tuple(prior)
        self.runtime, self.precision = str(self.config["runtime"]), str(self.config["precision"])
        self.inputs = input_names(self.crops)
        self.threads = threads
        self._opened = self._files()
        self._run: Run = self._start()
        self._shared: dict[tuple[int, int], Exported] = {}  # of the last (callers, threads)
        self.training = False

    def __repr__(self) -> str:
        """One line."""
        return f"Exported({str(self.folder)!r}, {self.runtime} in {self.precision}, {reads(self.heads)})"

    def _files(self) -> list[tuple[int, int]]:
        """When the graph's files that are there were written, and their sizes."""
        paths = [self.folder / name for name in FILES[self.runtime]]
        states = [path.stat() for path in paths if path.is_file()]
        return [(each.st_mtime_ns, each.st_size) for each in states]

    def _start(self, threads: int | None = None, callers: int = 1) -> Run:
        start = {"onnx": _onnx, "openvino": _openvino, "torch": _torch}[self.runtime]
        return start(self.folder, self.precision, threads or self.threads, callers)

    def __getstate__(self) -> dict[str, Any]:
        # opened anew where it is unpickled
        return {**self.__dict__, "_run": None, "_shared": {}, "folder": self.folder.absolute()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._opened = self._files()
        self._run = self._start()

    def __deepcopy__(self, memo: dict[int, Any]) -> Exported:
        made = self.__class__.__new__(self.__class__)  # which shares the runtime's session: it never changes
        made.__dict__.update(self.__dict__)
        return made

    def shared(self, callers: int, threads: int) -> Exported:
        """This model for `callers` threads that ask at once, with `threads` threads for each one's passes. Itself where
        these are one after the other, where `threads` was chosen when it was opened, where the runtime computes on the
        threads that ask (torch) or would not keep them apart (ONNX Runtime with several each), and where its files are
        no longer what was opened. The last is kept."""
        apart = self.runtime == "openvino" or self.runtime == "onnx" and threads == 1
        if callers == 1 or self.threads is not None or not apart:
            return self
        if (callers, threads) not in self._shared:
            if self._files() != self._opened:
                return self
            made = copy.deepcopy(self)
            made._run, made._shared = made._start(threads, callers), {}
            self._shared = {(callers, threads): made}
        return self._shared[callers, threads]

    def probs(self, images: Mapping[Crop, Tensor], present: Tensor | None = None) -> Tensor:
        """Joint probabilities (B, K) in float64 of uint8 images {Crop: (B, 3, H, W)}; present as in `Model`.

        Raises: as `check_given`.
        """
        there = check_given(images, present, self.crops)
        pixels = [images[crop] for crop in self.crops]
        rows, device = len(pixels[0]), pixels[0].device
        if not rows:
            return torch.zeros((0, tables.size(self.space)), dtype=torch.float64, device=device)
        there = torch.ones((rows, len(pixels)), dtype=torch.bool) if there is None else there
        arrays = [np.ascontiguousarray(each.cpu().numpy()) for each in (*pixels, there)]
        joint = torch.from_numpy(np.asarray(self._run(dict(zip(self.inputs, arrays))), np.float64))  # (B, K)
        return (joint / joint.sum(1, keepdim=True)).to(device)

    def save(self, folder: str | Path) -> None:
        """Copy the exported folder; `multihead.load` opens the copy. Of what else is in it nothing is copied."""
        folder = Path(folder)
        if folder.resolve() == self.folder.resolve():
            return
        carried = [f"{PACKAGE}/{path.name}" for path in sorted((self.folder / PACKAGE).glob("*.py"))]
        for name in (*FILES[self.runtime], "README.md", "config.json", *carried):
            if (self.folder / name).is_file():
                replace_file(folder / name, functools.partial(shutil.copyfile, self.folder / name))


def is_exported(folder: str | Path) -> bool:
    """True for a folder whose config.json says that it holds an exported model."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        return False
    content = read_json(path)
    return isinstance(content, dict) and content.get("kind") == KIND


def read_exported(folder: str | Path) -> dict[str, Any]:
    """The config of an exported folder, of which the files are there.

    Raises: FileNotFoundError or ValueError where it is no such folder.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no exported model: config.json is missing; expected what export wrote")
    config = read_json(path)
    if not isinstance(config, dict) or config.get("kind") != KIND or config.get("format") != FORMAT:
        raise ValueError(f"{path} is not of an exported model of format {FORMAT}; expected what export wrote")
    for name, known in (("runtime", tuple(FILES)), ("precision", PRECISIONS)):
        if config.get(name) not in known:
            raise ValueError(f"{path} has {name} {config.get(name)!r}; expected one of {', '.join(known)}")
    if missing := [name for name in FILES[config["runtime"]] if not (Path(folder) / name).is_file()]:
        raise FileNotFoundError(f"{folder} lacks {missing[0]}; export the model again")
    return config


def import_openvino() -> Any:
    """The openvino package, without its report of its own use over the network: its import would send one.

    Raises: ImportError that names the extra.
    """
    return without_telemetry("openvino", "openvino")


@functools.cache
def openvino_core() -> Any:
    """OpenVINO's Core, one for the process: of several, each ending leaves the others' signal stack in doubt (see
    `sigstack`). Raises: ImportError that names the extra."""
    return import_openvino().Core()


def openvino_graph(path: Path) -> Any:
    """OpenVINO's graph of an ONNX file, simplified: reading it alone would leave shapes to be computed in every pass,
    and hide from nncf which biases are constant. Raises: ImportError that names the extra."""
    graph = openvino_core().read_model(path)
    # what convert_model does here; that one also prints under any program's --verbose and sets the root logger's level
    steps: Any = importlib.import_module("openvino._offline_transformations")
    steps.apply_moc_transformations(graph, cf=False, smart_reshape=True)
    return graph


def without_telemetry(name: str, extra: str) -> Any:
    """A package that reports its use through openvino_telemetry, imported as if that were not installed.

    Raises: ImportError that names the extra.
    """
    hidden, before = "openvino_telemetry", sys.modules.get("openvino_telemetry")
    sys.modules[hidden] = None  # type: ignore[assignment]  # an import of it fails, and its users fall back to a stub
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{name} is needed here ({error}): pip install 'multihead[{extra}]'") from error
    finally:
        sys.modules.pop(hidden)
        if before is not None:
            sys.modules[hidden] = before


def _onnx(folder: Path, precision: str, threads: int | None, callers: int) -> Run:
    try:
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(f"an ONNX model needs onnxruntime ({error}): pip install 'multihead[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    if threads:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class that is public
        raise ValueError(f"{folder / 'model.onnx'} is no ONNX model that can be opened: {error}") from error
    return lambda feed: session.run(["joint"], dict(feed))[0]


def compile_openvino(model: Any, precision: str, threads: int | None = None, callers: int = 1) -> Run:
    """A function from inputs to joint probabilities (B, K) of an OpenVINO model or its file, set for short answers.

    threads: for a pass, by default all. callers: threads that may ask at once; passes of more wait for one another.
    """
    # batches are large enough to fill the cores: for one caller one stream is faster than several
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32" if precision == "f32" else "bf16"}
    hints |= {"NUM_STREAMS": str(callers)} if callers > 1 else {}
    if threads:
        hints["INFERENCE_NUM_THREADS"] = str(threads * callers)
    core = openvino_core()
    if precision != "f32" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        hints["INFERENCE_PRECISION_HINT"] = "f32"
    compiled = core.compile_model(model, "CPU", hints)
    free: queue.SimpleQueue[Any] = queue.SimpleQueue()  # a request computes one pass at a time
    for _ in range(callers):
        free.put(compiled.create_infer_request())

    def run(feed: Mapping[str, np.ndarray]) -> np.ndarray:
        request = free.get()
        try:
            return np.array(request.infer(dict(feed))["joint"])  # a copy: the next pass writes where this one did
        finally:
            free.put(request)

    return run


def _openvino(folder: Path, precision: str, threads: int | None, callers: int) -> Run:
    try:
        return compile_openvino(folder / "model.xml", precision, threads, callers)
    except RuntimeError as error:
        raise ValueError(f"{folder / 'model.xml'} is no OpenVINO model that can be opened: {error}") from error


def _torch(folder: Path, precision: str, threads: int | None, callers: int) -> Run:
    program = archives.load(folder / "model.pt2").module()

    def run(feed: Mapping[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            return program(*(torch.from_numpy(array) for array in feed.values()))[-1].numpy()

    return run
