"""The verb export: a model, run or ensemble as a folder for ONNX Runtime, OpenVINO or torch.export."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from multihead import flags, parsers
from multihead.parts import read_sources
from multihead.settings import Sources, speaker

if TYPE_CHECKING:
    from multihead.data import Photos

FORMATS = {"onnx": ("f32",), "openvino": ("f32", "bf16", "int8"), "torch": ("f32",)}


def export(args: argparse.Namespace) -> int:
    """Write a model for ONNX Runtime, OpenVINO or torch.export, checked against the model; int8 keeps a bound."""
    from multihead import export as exporting
    from multihead.joined import load

    precision = _precision(args)
    model, say = load(args.model), speaker(args)
    photos = _photos(args, model) if args.data else None
    say(f"exporting {args.model} to {args.format} in {precision}")
    if args.format == "onnx":
        checks = exporting.onnx(model, args.output, photos=photos, opset=args.opset or exporting.OPSET)
    elif args.format == "torch":
        checks = exporting.torch_export(model, args.output, photos=photos)
    else:
        limits: dict[str, Any] = {"max_drop": args.max_drop, "limit": args.limit, "say": say}
        checks = exporting.openvino(model, args.output, precision, photos=photos, **limits)
    for name, check in checks.items():
        say(f"{name}: {check}" if name else str(check))
    say(f"wrote {args.output}; open it with multihead.load, evaluate or predict")
    return 0


def export_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `multihead export`."""
    parser.add_argument("model", metavar="MODEL", help="folder of a model, a run or an ensemble")
    parser.add_argument("-o", "--output", default="runs/export", help="new folder to write (default runs/export)")
    parser.add_argument(
        "--format",
        type=parsers.one_of(list(FORMATS)),
        default="onnx",
        metavar="{onnx,openvino,torch}",
        help="runtime (default onnx)",
    )
    parser.add_argument(
        "--precision",
        type=parsers.one_of(["f32", "bf16", "int8"]),
        metavar="{f32,bf16,int8}",
        help="default f32, with openvino bf16; bf16 and int8 with openvino only, int8 needs --data",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="DATA",
        help="photos to check on, beside random pixels; int8 is calibrated on half of them (default: none)",
    )
    parser.add_argument(
        "--max-drop", type=float, default=0.01, help="macro-F1 (or agreement) that int8 may lose (default 0.01)"
    )
    parser.add_argument("--limit", type=int, default=300, help="photos that calibrate, and control, int8 (default 300)")
    parser.add_argument("--held-out", action="store_true", help="calibrate int8 on photos that validate or test, too")
    parser.add_argument("--opset", type=int, help="version of ONNX's operators (default 20)")
    flags.add_flags(parser, Sources, "photos")


def _precision(args: argparse.Namespace) -> str:
    """The asked precision, or the format's own. Raises: ValueError where flags do not go together."""
    precision = args.precision or ("bf16" if args.format == "openvino" else "f32")
    if precision not in FORMATS[args.format]:
        raise ValueError(f"--format {args.format} has no precision {precision}; --format openvino has f32, bf16, int8")
    if precision == "int8" and not args.data:
        raise ValueError("int8 is calibrated on photos of people who trained the model: name them, --data")
    if args.opset and args.format != "onnx":
        raise ValueError(f"--opset has no meaning for --format {args.format}")
    if not 0 <= args.max_drop < 1 or args.limit < 1:
        raise ValueError(f"--max-drop {args.max_drop:g} --limit {args.limit}; expected a share, and a number of photos")
    return precision


def _photos(args: argparse.Namespace, model: Any) -> Photos:
    """The photos of --data; of a table with a split column the training part, of int8 nobody who tests the model.

    Raises: ValueError where all are held out.
    """
    from multihead.evaluation import label_heads
    from multihead.trained import held_out, seen_in_training

    photos = read_sources(args, args.data, heads=label_heads(model))
    if args.precision != "int8" or args.held_out:
        return photos
    held = held_out(args.model)
    out = [path in held or part in ("val", "test") for path, part in zip(photos.paths, photos.table.split)]
    if all(out):
        raise ValueError(
            f"all {len(photos)} photos of --data validate or test; int8 that is calibrated on them would be scored too "
            "well: name photos of training people, or pass --held-out"
        )
    kept = photos[[row for row, away in enumerate(out) if not away]]
    say = speaker(args)
    say(f"calibrating on {kept}; {sum(out)} photos that validate or test are left out")
    if seen_in_training(args.model, kept):
        say(
            "the model was trained on photos or people of these: it knows them by heart, and the bound that is "
            "controlled on them hides a part of what int8 costs; evaluate both models on others before you ship it"
        )
    return kept
