"""Models as folders for other runtimes: ONNX, OpenVINO (f32, bf16, int8) and torch.export, each checked against its
model before it is kept."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import io
import json
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch

from multihead import cards, graphs, quantised
from multihead.adjusted import Adjusted
from multihead.carry import carry
from multihead.crops import Crop
from multihead.evaluation import device_of, evaluating, read_batches
from multihead.heads import joint_names
from multihead.joined import Combined, Ensemble, Member
from multihead.model import Model
from multihead.options import choice
from multihead.runtimes import FORMAT, KIND, PRECISIONS, Exported, import_openvino, openvino_graph
from multihead.tta import TTA
from multihead.wholes import whole_folder

if TYPE_CHECKING:
    from multihead.data import Photos

BOUND = 1e-4  # largest difference of a probability that f32 may make; 1e-8 to 1e-6 is usual
OPSET = 20
CHECKED = 256  # photos that an export is checked on


@dataclass(frozen=True)
class Check:
    """How an exported model answers beside its model: rows compared, the largest difference of a joint probability,
    the share of rows with the same likeliest class, the precision that was written, and a remark on it."""

    rows: int
    difference: float
    agreement: float
    precision: str = "f32"
    remark: str = ""

    def __str__(self) -> str:
        text = f"{self.precision}: {self.rows} rows, largest difference {self.difference:.1e}, "
        return text + f"same answer {self.agreement:.4f}" + (f"; {self.remark}" if self.remark else "")


def onnx(model: Member, folder: str | Path, *, photos: Photos | None = None, opset: int = OPSET) -> dict[str, Check]:
    """{part: how it answers beside the model} of a folder written with model.onnx, which `multihead.load` opens.

    The graph takes uint8 (B, 3, H, W) a crop, named as the crop, and present (B, crops); it normalises itself and
    gives the probabilities of each head by its name and `joint` (B, K). An ensemble, a combination, or an adjusted or
    TTA model becomes a folder of exported members. photos: checked on too, beside random pixels.

    Raises: ImportError that names the extra; FileExistsError where the folder holds something; ValueError where the
    model cannot be exported, or the graph answers otherwise.

    >>> from multihead.crops import FULL
    >>> from multihead.heads import MASK
    >>> import tempfile
    >>> model = Model("test_resnet", [MASK.on(FULL.resized(32))])
    >>> onnx(model, tempfile.mkdtemp())[""].agreement
    1.0
    """
    _needs("onnx", "onnxscript", "onnxruntime", extra="onnx")

    def write(part: Model, place: Path) -> Check:
        save_onnx(part, place / "model.onnx", opset)
        _describe(part, place, "onnx", "f32")
        return compare(part, Exported(place), photos)

    return _members(model, Path(folder), write)


def torch_export(model: Member, folder: str | Path, *, photos: Photos | None = None) -> dict[str, Check]:
    """As `onnx`, with model.pt2 of torch.export, which needs no further package. Raises: as `onnx`."""

    def write(part: Model, place: Path) -> Check:
        program = graphs.trace(part)
        with graphs.quiet():
            written = io.BytesIO()  # on a full disk its own writer would end the process
            torch.export.save(program, written)
            (place / "model.pt2").write_bytes(written.getbuffer())
        _describe(part, place, "torch", "f32")
        return compare(part, Exported(place), photos)

    return _members(model, Path(folder), write)


def openvino(
    model: Member,
    folder: str | Path,
    precision: str = "bf16",
    *,
    photos: Photos | None = None,
    max_drop: float = 0.01,
    limit: int = 300,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Check]:
    """As `onnx`, with model.xml and model.bin for OpenVINO, set for short answers.

    precision: f32, bf16 (where the processor has it; weights stay f32), or int8, for which `photos` are needed, of
    people who trained the model: half of the people, up to `limit` photos, calibrate the ranges and decide how weights
    are rounded (see `rounding`), the others control it. max_drop: how much macro-F1 of the joint classes int8 may lose
    on the people who control it, or, where nobody of them is labelled for all heads or f32 itself has no more, how many
    answers may change, as shares. Where it cannot keep that, bf16 is written, and `Check.remark` says so. say: told how
    far int8 is, which takes minutes.

    Raises: as `onnx`; ValueError for int8 without photos.
    """
    choice("openvino", "precision", precision, PRECISIONS)
    _needs("onnx", "onnxscript", extra="openvino")
    import_openvino()
    if precision == "int8" and photos is None:
        raise ValueError("int8 is calibrated on photos of people who trained the model: pass photos= (--data)")

    def write(part: Model, place: Path) -> Check:
        remark, kept = "", precision
        save_onnx(part, place / "model.onnx", OPSET)
        graph = openvino_graph(place / "model.onnx")
        if precision == "int8":
            assert photos is not None
            graph, kept, remark = quantised.int8(graph, part, photos, max_drop=max_drop, limit=limit, say=say)
        graph.set_rt_info(json.dumps(config(part, "openvino", kept)), ["multihead"])
        try:
            import_openvino().save_model(graph, place / "model.xml", compress_to_fp16=False)
        except RuntimeError as error:  # "basic_ios::clear: iostream error" on a full disk
            raise OSError(f"cannot write {place / 'model.xml'}: {error}") from error
        del graph  # it reads model.onnx
        (place / "model.onnx").unlink()
        _describe(part, place, "openvino", kept)
        return dataclasses.replace(compare(part, Exported(place), photos), remark=remark)

    return _members(model, Path(folder), write)


def save_onnx(model: Model, path: Path, opset: int) -> None:
    """Write the graph of a model as ONNX, its rows' axis named `batch`, its config among the file's own metadata."""
    program, inputs = graphs.trace(model), graphs.input_names(model.crops)
    told: dict[str, Any] = {
        "input_names": inputs,
        "output_names": graphs.output_names(model.crops, model.space),
        "dynamic_shapes": [{0: graphs.BATCH}] * len(inputs),  # a traced graph's own names are s21 and the like
    }
    with graphs.quiet():
        made: Any = torch.onnx.export(program, (), **told, opset_version=opset, dynamo=True, verbose=False)
        made.model.metadata_props["multihead"] = json.dumps(config(model, "onnx", "f32"))
        made.save(str(path))


def compare(model: Model, exported: Exported, photos: Photos | None = None) -> Check:
    """How the exported model answers beside the model: on random pixels in batches of several sizes, some crops
    absent, and on the photos; below f32 on the photos alone where there are some, since noise is no photo.

    Raises: ValueError where an f32 graph answers otherwise.
    """
    batches = [(dict(zip(model.crops, rows)), rows[-1]) for rows in _random(model)]
    pairs = [_both(model, exported, images, present) for images, present in batches]
    if photos is not None:
        seen = read_batches(model, photos, CHECKED)
        kept = pairs if exported.precision == "f32" else []
        pairs = kept + [_both(model, exported, batch.images, batch.present) for batch in seen]
    mine, others = (np.concatenate(rows) for rows in zip(*pairs))
    same = float((mine.argmax(1) == others.argmax(1)).mean())
    found = Check(len(mine), float(np.abs(mine - others).max()), same, exported.precision)
    if exported.precision == "f32" and not found.difference <= BOUND:
        raise ValueError(
            f"the exported model's probabilities differ by {found.difference:.1e} from the model's, more than {BOUND}; "
            "nothing was written; another format (--format) may do better"
        )
    return found


def _both(
    model: Model, exported: Exported, images: Mapping[Crop, torch.Tensor], present: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Joint probabilities (B, K) of both."""
    place = device_of(model)
    with evaluating(model), torch.inference_mode():
        mine = model.probs({crop: each.to(place) for crop, each in images.items()}, present)
        return mine.cpu().numpy(), exported.probs(images, present).numpy()


def config(model: Model, runtime: str, precision: str) -> dict[str, Any]:
    """What an exported folder says of itself: heads with their crops, inputs and outputs in order, where it is from."""
    names = ["multihead", "torch", "timm", *{"torch": [], "onnx": ["onnx"], "openvino": ["openvino"]}[runtime]]
    names += ["numpy", "pillow"]
    return {
        "kind": KIND,
        "format": FORMAT,
        "runtime": runtime,
        "precision": precision,
        "inputs": graphs.input_names(model.crops),
        "outputs": graphs.output_names(model.crops, model.space),
        "heads": [dataclasses.asdict(head) for head in model.heads],
        "classes": joint_names(model.space),
        "prior": model.prior,
        "source": model.backbone_name,
        "mean": list(model.mean),
        "std": list(model.std),
        "versions": {name: _version(name) for name in names}
        | {"opencv": cv2.__version__, "python": platform.python_version()},  # its package has several names
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
        return None


def _needs(*packages: str, extra: str) -> None:
    import importlib.util

    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise ImportError(f"{missing[0]} is needed to export: pip install 'multihead[{extra}]'")


def _random(model: Model) -> list[tuple[torch.Tensor, ...]]:
    return [graphs.examples(model.crops, rows, seed=rows) for rows in graphs.BATCHES]


def _describe(model: Model, place: Path, runtime: str, precision: str) -> None:
    """Write what is beside the graph: what it is, how it is asked, and what makes its inputs of photos."""
    (place / "config.json").write_text(json.dumps(config(model, runtime, precision), indent=2))
    (place / "README.md").write_text(cards.readme(model, runtime, precision), encoding="utf-8")
    carry(dict(zip(graphs.input_names(model.crops), model.crops)), place)


def _members(model: Member, folder: Path, write: Callable[[Model, Path], Check]) -> dict[str, Check]:
    """Write the model, or each model inside it, in one step: an export is there whole, or not at all."""
    checks: dict[str, Check] = {}
    with whole_folder(folder, "the exported model") as whole:
        if isinstance(model, Model):
            checks[""] = write(model, whole)
        else:
            with tempfile.TemporaryDirectory(dir=whole.parent) as scratch:
                _swapped(model, "", Path(scratch), write, checks).save(whole)  # type: ignore[union-attr]
    return checks


def _swapped(
    model: Any, name: str, scratch: Path, write: Callable[[Model, Path], Check], checks: dict[str, Check]
) -> Any:
    """The same model with its innermost models exported; their checks by their places, as "member0/member1"."""

    def inner(members: Sequence[Any]) -> list[Any]:
        parts = [f"{name}/member{number}".strip("/") for number in range(len(members))]
        return [_swapped(member, part, scratch, write, checks) for member, part in zip(members, parts)]

    if isinstance(model, Ensemble):
        return Ensemble(inner(model.members), model.weights, voting=model.voting)  # type: ignore[arg-type]
    if isinstance(model, Combined):
        return Combined(inner(model.members))  # type: ignore[arg-type]
    if isinstance(model, Adjusted):
        return Adjusted(inner([model.model])[0], model.temperatures, model.weights)
    if isinstance(model, TTA):
        made = TTA(inner([model.model])[0])
        made.views, made.settings = model.views, model.settings
        return made
    if isinstance(model, Exported):
        raise ValueError(f"{model.folder} is exported already; export the model that it was made of")
    place = Path(tempfile.mkdtemp(dir=scratch))
    checks[name] = write(model, place)
    return Exported(place)
