"""Five folds on the training people; then what their ensemble, soup and single folds do for the validation people.

    python benchmarks/five_folds.py --data INDEX.csv --only-under bootlike/ --pretrained-path WEIGHTS

Everything that is fitted (temperatures, decision weights) is fitted on out-of-fold answers of training people. Goes on
where it was interrupted. Prints one JSON line: pooled out-of-fold macro-F1 with its interval over people, differences
to the mean single fold for the validation people with theirs, calibration before and after, and an ensemble's cost.
"""

import argparse
import functools
import json
import statistics
import time
from pathlib import Path

import torch
from record import photos_under, record

import multihead as mh
from multihead import paired, plots
from multihead.calibrate import calibration_errors, fit_temperatures, reliabilities
from multihead.decoding import fit_prior_weights
from multihead.ensemble import fit_folds, open_folds
from multihead.evaluation import evaluate
from multihead.nested import nested_calibration, nested_gain
from multihead.settings import device
from multihead.soup import average, refresh

RESULTS = Path(__file__).parent / "results"

PLACES = ("data", "pretrained_path", "output", "results")  # folders of one machine


def main(argv=None):
    args = _arguments(argv)
    photos = photos_under(args.data, args.only_under)
    train, valid = photos.part("train"), photos.part("val")
    make = functools.partial(model, args.model, args.pretrained_path, tuple(args.resize), args.device)
    recipe = mh.Recipe(epochs=args.epochs, optim=mh.AdamW(args.lr), augment=mh.Gentle(), val_interval=args.epochs)
    scores = fit_folds(make, train, recipe, out=args.output, folds=args.folds, say=print)
    numbers = {"folds": scores.to_dict("records")} | report(args, valid, train)
    settings = {name: value for name, value in vars(args).items() if name not in PLACES}
    line = record("five_folds", settings | {"train": len(train), "valid": len(valid)}, numbers)
    print(json.dumps(line))
    return line


def model(backbone, weights, size, place):
    """A multi-head model that reads the whole photo."""
    heads = [head.on(mh.FULL.resized(*size)) for head in mh.HEADS]
    return mh.Model(backbone, heads=heads, pretrained=weights or False).to(device(place))


def report(args, valid, train):
    """What the folds' models do together for the validation people."""
    folds = open_folds(args.output)
    models, labels, groups = folds.models(), folds.photos.labels(), folds.photos.groups()
    temperatures = fit_temperatures(folds.probs, labels, mh.HEADS)
    tempered = mh.Ensemble([mh.Adjusted(one, temperatures) for one in models])
    decided = mh.Adjusted(mh.Ensemble(models), weights=fit_prior_weights(folds.probs, labels, mh.HEADS).tolist())
    soup = refresh(average(models), train)
    contenders = {
        "single fold": models,
        "ensemble": [mh.Ensemble(models)],
        "hard vote": [mh.Ensemble(models, voting="hard")],
        "soup": [soup],
        "ensemble, tempered members": [tempered],
        "ensemble, prior corrected": [decided],
    }
    probs = {name: [evaluate(one, valid, workers=0).probs for one in some] for name, some in contenders.items()}
    probs["ensemble, person vote"] = [mh.person_vote(probs["ensemble"][0], valid.groups(), mh.HEADS)]
    frame = paired.compare(probs, valid.labels(), valid.groups(), mh.HEADS)
    gain = nested_gain(folds.probs, labels, groups, mh.HEADS, fit_prior_weights)
    calibrated = {
        "single fold": probs["single fold"][0],
        "single fold, tempered": evaluate(mh.Adjusted(models[0], temperatures), valid, workers=0).probs,
        "ensemble": probs["ensemble"][0],
        "ensemble, tempered members": probs["ensemble, tempered members"][0],
    }
    draw(calibrated, valid, Path(args.results))
    return {
        "validation": frame.to_dict("records"),
        "temperatures": temperatures,
        "calibration out of fold, nested": nested_calibration(folds.probs, labels, groups, mh.HEADS),
        "calibration validation": {
            name: calibration_errors(each, valid.labels(), mh.HEADS) for name, each in calibrated.items()
        },
        "calibration validation, ensemble, nested": nested_calibration(
            probs["ensemble"][0], valid.labels(), valid.groups(), mh.HEADS
        ),
        "prior correction out of fold, nested": gain[gain.arm == "fitted"].to_dict("records"),
        "cost": costs(models, soup, valid, args.rounds),
    }


def draw(probs, valid, results):
    """The reliability picture of the joint answers."""
    results.mkdir(parents=True, exist_ok=True)
    parts = {name: reliabilities(each, valid.labels(), mh.HEADS)["joint"] for name, each in probs.items()}
    plots.reliability(results / "five_folds-reliability.png", parts, title="Reliability of the 18-class answers")


def costs(models, soup, valid, rounds):
    """Seconds to answer a photo, from file to table, faces searched: one model, the ensemble, the soup, in turn."""
    face = [head.on(mh.FACE.resized(112)) for head in mh.HEADS]
    looks = [mh.Model("resnet10t", heads=face).eval() for _ in models]  # untrained: only their cost counts
    kinds = {"one model": models[0], "ensemble": mh.Ensemble(models), "soup": soup}
    kinds |= {"one model, faces searched": looks[0], "ensemble, faces searched": mh.Ensemble(looks)}
    paths = valid.paths[:: max(1, len(valid) // 64)][:64]
    times = {name: [] for name in kinds}
    for number in range(rounds + 1):
        for name in list(kinds) if number % 2 else list(kinds)[::-1]:
            started = time.perf_counter()
            mh.predict(kinds[name], paths, workers=2)
            if number:  # the first round warms up
                times[name].append((time.perf_counter() - started) / len(paths))
    found = {name: {"seconds": statistics.median(each)} for name, each in times.items()}
    for name, first in (
        ("ensemble", "one model"),
        ("soup", "one model"),
        ("ensemble, faces searched", "one model, faces searched"),
    ):
        ratios = [one / other for one, other in zip(times[name], times[first])]
        found[name] |= {"ratio": statistics.median(ratios), "from": min(ratios), "to": max(ratios), "rounds": rounds}
    return found | {"threads": torch.get_num_threads(), "photos": len(paths)}


def _arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="table of labelled photos with a split column")
    parser.add_argument("--only-under", default="", help="photos whose path in the table starts so, as bootlike/")
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--pretrained-path", help="timm weights of the model")
    parser.add_argument("--resize", type=int, nargs="+", default=[112])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of time measurement")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", default="runs/five_folds")
    parser.add_argument("--results", default=str(RESULTS), help="folder of the picture")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
