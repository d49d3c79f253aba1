"""The verb that scores a model on labelled photos: evaluate."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from multihead import parsers
from multihead.answering import answer_arguments, pins
from multihead.logs import tell
from multihead.options import near
from multihead.parts import read_sources, scored_part
from multihead.settings import device, with_tta

SLICED = 20  # slices of one column that are printed


def evaluate(args: argparse.Namespace) -> int:
    """Score a model on labelled photos: macro-F1 and accuracy over the joint classes and per head."""
    import json

    from multihead import evaluation
    from multihead.columns import where_labels_stand
    from multihead.joined import load
    from multihead.trained import seen_in_training
    from multihead.yunet import open_detector

    model = load(args.model).to(device(args.device))
    photos = read_sources(args, heads=evaluation.label_heads(model))
    model = with_tta(model, args.tta)
    part, photos = scored_part(photos, args.part)
    known = list(dict.fromkeys([*(head.name for head in model.space), *evaluation.SLICES, *photos.extra]))
    if unknown := sorted(set(args.by) - set(known)):
        raise KeyError(f"cannot slice by {unknown[0]!r}{near(unknown[0], known)}; there are {known}")
    if not args.part and part != "all":
        tell(f"scoring the {part} part, {len(photos)} rows; --part all scores every row")
    for told in seen_in_training(args.model, photos):
        print(told, file=sys.stderr)
    options: dict[str, Any] = {name: getattr(args, name) for name in ("batch_size", "missing", "workers")}
    options |= {"finder": open_detector(args.detector) if args.detector else None, "pins": pins(args)}
    found = evaluation.evaluate(model, photos, **options)
    if args.person_vote:
        found = evaluation.person_voted(found)
    for _, reason in found.errors:
        print(f"not counted: {reason}", file=sys.stderr)
    if found.faceless:
        done = {"full": "read whole", "skip": "left out"}[args.missing]
        names = ", ".join(found.faceless[:5])
        tell(f"{len(found.faceless)} photos have no face and were {done}, for example {names}")
    if not any(head.n for head in found.heads.values()):
        told = where_labels_stand(evaluation.label_heads(model))
        print(f"none of the photos has a label: nothing is scored; {told}", file=sys.stderr)
    if args.json:
        print(json.dumps(found.to_dict(args.by), indent=2))
    else:
        print(found)
        for name, head in found.heads.items():
            print(f"\n{name}\n{head.table().to_string(float_format='%.3f')}")
        for name in args.by:
            parts = found.by(name)
            for level in sorted(parts, key=lambda level: -parts[level].n)[:SLICED] if len(parts) > SLICED else parts:
                print(f"\n{name} = {level}\n{parts[level]}")
            if len(parts) > SLICED:
                tell(f"{name} has {len(parts)} values; the {SLICED} most frequent are shown")
    return 0


def evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `multihead evaluate`."""
    parser.add_argument("model", metavar="MODEL", help="model folder or run folder")
    parser.add_argument("data", nargs="+", metavar="DATA", help="folders or tables")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--part",
        type=parsers.one_of(["train", "val", "test", "all"]),
        metavar="{train,val,test,all}",
        help="which rows of a split column (default val; without it test, without a split all)",
    )
    parser.add_argument(
        "--by",
        nargs="+",
        default=[],
        metavar="NAME",
        help="also score slices, by a head or a column: mask source (default: none)",
    )
    parser.add_argument("-b", "--batch-size", type=int, default=64, help="photos a batch (default 64)")
    parser.add_argument("-j", "--workers", type=int, default=2, help="decoding processes (default 2)")
    answer_arguments(parser)
