"""The multi-head model against the flat 18-way model: same people, recipe, backbone, seed; one JSON line.

    python benchmarks/heads_vs_flat.py                                   # drawn people
    python benchmarks/heads_vs_flat.py --data PHOTOS --model NAME --pretrained-path FILE --resize 112 --epochs 6

Scores are on the same held-out people. Times are medians of alternating pairs in this one run; a ratio below 1 means
that the multi-head model is faster.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from record import record

import multihead as mh
from multihead.balance import combine
from multihead.losses import CrossEntropy, criterion
from multihead.optim import create_optimizer
from multihead.targets import targets


def main(argv=None):
    args = _arguments(argv)
    train, valid = mh.read(args.data or _people()).split(0.2, seed=args.seed)
    heads = [head.on(mh.FULL.resized(*args.resize)) for head in mh.HEADS]
    recipe = mh.Recipe(epochs=args.epochs, optim=mh.AdamW(args.lr), ema=mh.EMA(0.99), select="last", seed=args.seed)
    models, found = {}, {}
    for name, table in {"heads": heads, "flat": mh.flat(heads)}.items():
        torch.manual_seed(args.seed)
        models[name] = mh.Model(args.model, heads=table, pretrained=args.pretrained_path or False)
        started = time.perf_counter()
        mh.fit(models[name], train, None, recipe)
        found[name] = {"train_seconds": time.perf_counter() - started}
        scores = mh.evaluate(models[name], valid)
        found[name] |= {"macro_f1": scores.f1, "accuracy": scores.accuracy}
        found[name] |= {f"{head}_f1": part.f1 for head, part in scores.heads.items()}
        found[name]["parameters"] = sum(parameter.numel() for parameter in models[name].parameters())
    settings = {name: value for name, value in vars(args).items() if name not in ("data", "pretrained_path")}
    settings |= {"people": Path(args.data).name if args.data else "drawn", "train": len(train), "valid": len(valid)}
    line = record("heads_vs_flat", settings, {**found, "ratios": times(models, args.pairs)})
    print(json.dumps(line))
    return line


def times(models, pairs):
    """Time of the multi-head model over that of the flat one: medians of alternating pairs, with quartiles."""
    ratios = {"train_step": [], "inference": []}
    for pair in range(pairs + 1):
        order = list(models) if pair % 2 else list(models)[::-1]
        step = {name: _step(models[name]) for name in order}
        answer = {name: _answer(models[name]) for name in order}
        if pair:  # the first pair warms up
            ratios["train_step"].append(step["heads"] / step["flat"])
            ratios["inference"].append(answer["heads"] / answer["flat"])
    quartiles = {name: statistics.quantiles(values, n=4) for name, values in ratios.items()}
    return {name: {"median": q[1], "quartiles": [q[0], q[2]], "pairs": pairs} for name, q in quartiles.items()}


def _batch(model, rows=32):
    generator = torch.Generator().manual_seed(0)
    return {
        crop: torch.randint(0, 256, (rows, 3, *crop.size), dtype=torch.uint8, generator=generator)
        for crop in model.crops
    }


def _step(model):
    model.train()
    optimizer, images = create_optimizer(model, mh.AdamW(0.0)), _batch(model)
    rows = targets(torch.zeros(32, len(model.space), dtype=torch.int64), model.heads)
    losses = {head.name: criterion(CrossEntropy(), head, torch.ones(len(head.classes))) for head in model.heads}
    started = time.perf_counter()
    logits = model(images)
    each = {name: losses[name](logits[name], rows[name]) for name in logits}
    combine(each, dict.fromkeys(each, True), {}).backward()
    optimizer.step()
    return time.perf_counter() - started


def _answer(model):
    model.eval()
    images = _batch(model)
    started = time.perf_counter()
    with torch.inference_mode():
        model.probs(images)
    return time.perf_counter() - started


def _people():
    from multihead.synthetic import make

    return make("runs/people", count=120) / "train"


def _arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder or table of labelled photos (default: drawn people)")
    parser.add_argument("--model", default="resnet10t")
    parser.add_argument("--pretrained-path")
    parser.add_argument("--resize", type=int, nargs="+", default=[96])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pairs", type=int, default=15)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
