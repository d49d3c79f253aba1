"""Exported models beside the eager one: photos a second in interleaved rounds, and what each costs on other people.

    python benchmarks/export.py --data INDEX.csv --only-under bootlike/ --pretrained-path WEIGHTS

A quarter of the training people are set aside: half of these calibrate int8, the other half control it. Trains briefly
on the others (or takes --trained FOLDER, which must not have seen those set aside), exports to ONNX and OpenVINO, and
scores all on the validation people. Prints one JSON line: photos a second of each, the ratio to OpenVINO f32 with its
quartiles, the share of answers as in eager f32, and the paired difference of macro-F1 with its interval over people.
Where int8 is refused, `remark` says so; "int8, no bound" has all layers in int8, whatever that costs.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from record import photos_under, record

import multihead as mh
from multihead import export, paired
from multihead.evaluation import evaluate, read_batches
from multihead.modes import Pins, computes
from multihead.speed import keep_memory

BASE = "openvino f32"


def main(argv=None):
    args = _arguments(argv)
    keep_memory()
    photos = photos_under(args.data, args.only_under)
    train, valid = photos.part("train"), photos.part("val")
    learned, aside = train.split(0.25, seed=0)
    model = trained(args, learned)
    contenders, checks = exported(model, aside, args)
    probs = {name: evaluate(one, valid, workers=0, pins=Pins("f32")).probs for name, one in contenders.items()}
    if computes(torch.device("cpu"), "bf16"):
        probs["eager bf16 channels_last"] = evaluate(model, valid, workers=0, pins=Pins("bf16")).probs
    numbers = {"contenders": summary(speeds(model, contenders, valid, args), probs, checks, valid)}
    numbers["claims"] = claims(numbers["contenders"])
    numbers |= {"train": len(learned), "aside": len(aside), "validation": len(valid)}
    settings = vars(args) | {"data": Path(args.data).name, "pretrained_path": Path(args.pretrained_path or "").name}
    settings["output"] = Path(args.output).name
    settings |= {"threads": torch.get_num_threads(), "trained": bool(args.trained)}
    line = record("export", settings, numbers)
    text = json.dumps(line).replace("NaN", "null")
    print(text)
    return json.loads(text)


def claims(found):
    """{claim: whether it holds} of what the contenders do; the speed is of the int8 that users get, if they get it."""
    bounded = found["openvino int8"]
    kept = bounded["precision"] == "int8"
    fast = bounded if kept else found["openvino int8, no bound"]
    return {
        "int8 at least twice f32": fast["ratio"] >= 2,
        "int8 is kept within its bound, or bf16 is and says why": kept or "bf16 was written" in bounded["remark"],
    }


def check(numbers):
    """Assert what the documentation claims."""
    wrong = [claim for claim, holds in numbers["claims"].items() if not holds]
    assert not wrong, f"not so: {'; '.join(wrong)}"


def trained(args, photos):
    """The model of --trained, or one trained now on the photos."""
    if args.trained:
        return mh.load(args.trained)
    torch.manual_seed(0)
    heads = [head.on(mh.FULL.resized(*args.resize)) for head in mh.HEADS]
    model = mh.Model(args.model, heads=heads, pretrained=args.pretrained_path or False)
    recipe = mh.Recipe(epochs=args.epochs, optim=mh.AdamW(args.lr), augment=mh.Gentle())
    mh.fit(model, photos, None, recipe, workers=0)
    return model.eval()


def exported(model, aside, args):
    """({name: a model to answer with}, {name: its export's check}), each exported to a folder of its own."""
    out = Path(args.output)
    limits = {"photos": aside, "limit": args.limit}
    write = {
        "onnxruntime f32": lambda to: export.onnx(model, to),
        BASE: lambda to: export.openvino(model, to, "f32"),
        "openvino bf16": lambda to: export.openvino(model, to, "bf16"),
        "openvino int8": lambda to: export.openvino(model, to, "int8", max_drop=args.max_drop, **limits),
        "openvino int8, no bound": lambda to: export.openvino(model, to, "int8", max_drop=1.0, **limits),
    }
    contenders, checks = {"eager f32": model}, {}
    for name, make in write.items():
        folder = out / name.replace(",", "").replace(" ", "-")
        checks[name] = make(folder)[""]
        contenders[name] = mh.load(folder)
    return contenders, checks


def speeds(model, contenders, valid, args):
    """{name: photos a second of each round}; in every round each contender has its turn, in alternating order."""
    batch = read_batches(model, valid, args.batch_size, args.batch_size)[0]
    images = {crop: pixels.contiguous(memory_format=torch.contiguous_format) for crop, pixels in batch.images.items()}
    runs = {name: lambda one=one: one.probs(images, batch.present) for name, one in contenders.items()}
    strided = {crop: pixels.contiguous(memory_format=torch.channels_last) for crop, pixels in images.items()}
    if computes(torch.device("cpu"), "bf16"):
        runs["eager bf16 channels_last"] = lambda: _bf16(model, strided, batch.present)
    found = {name: [] for name in runs}
    for number in range(args.rounds + 1):
        for name in list(runs) if number % 2 else list(runs)[::-1]:
            started = time.perf_counter()
            with torch.inference_mode():
                for _ in range(args.repeats):
                    runs[name]()
            if number:  # the first round warms up
                found[name].append(args.repeats * len(batch.rows) / (time.perf_counter() - started))
    return found


def _bf16(model, images, present):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return model.probs(images, present)


def summary(rates, probs, checks, valid):
    """What each contender does: photos a second, ratio to OpenVINO f32, agreement with eager f32, macro-F1."""
    frame = paired.compare({name: [each] for name, each in probs.items()}, valid.labels(), valid.groups(), mh.HEADS)
    frame = frame[frame.metric == "macro_f1"].set_index("arm")
    answers, found = probs["eager f32"].argmax(1), {}
    for name, each in rates.items():
        ratios = [one / other for one, other in zip(each, rates[BASE])]
        quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        row = frame.loc[name]
        found[name] = {
            "photos_a_second": statistics.median(each),
            "ratio": quartiles[1],
            "quartiles": [quartiles[0], quartiles[2]],
            "rounds": len(ratios),
            "agreement": float(np.mean(probs[name].argmax(1) == answers)),
            "macro_f1": float(row["mean"]),
            "difference": [float(row[column]) for column in ("difference", "low", "high")],
        }
        if name in checks:
            found[name] |= {"precision": checks[name].precision, "remark": checks[name].remark}
    return found


def _arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="table of labelled photos with a split column")
    parser.add_argument("--only-under", default="", help="photos whose path in the table starts so, as bootlike/")
    parser.add_argument("--trained", help="model folder to take instead of training one")
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--pretrained-path", help="timm weights of the model")
    parser.add_argument("--resize", type=int, nargs="+", default=[224])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--limit", type=int, default=300, help="photos that calibrate, and that control, int8")
    parser.add_argument("--max-drop", type=float, default=0.01)
    parser.add_argument("-b", "--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=4, help="batches a turn")
    parser.add_argument("--output", default="runs/export-benchmark", help="new folder of the exports")
    return parser.parse_args(argv)


if __name__ == "__main__":
    check(main()["numbers"])
