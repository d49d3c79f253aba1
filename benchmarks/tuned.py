"""A search by two processes, one of them killed; its best settings against the default on people never searched on.

    python benchmarks/tuned.py --data INDEX.csv --only-under bootlike/ --pretrained-path WEIGHTS --minutes 5

The search sees folds of the training people. Then the best and the default settings train on all of these, with several
seeds, and answer for the validation people once. Prints one JSON line: the trials, those that were lost (none, or it
fails), and the paired difference with its interval over people.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import yaml
from record import photos_under, record

import multihead as mh
from multihead import paired
from multihead.cli import main as multihead
from multihead.data import write_splits
from multihead.evaluation import evaluate

SPACE = {
    "lr": {"low": 2e-4, "high": 5e-3, "log": True},
    "head_lr": {"low": 1, "high": 10, "log": True},
    "loss": ["crossentropy", "0.4*softf1 + 0.6*focal"],
    "aug": ["flip", "gentle"],
    "crops": ["full", "face"],
    "smoothing": {"low": 0.0, "high": 0.1},
}


def main(argv=None):
    args = _arguments(argv)
    out = Path(args.output)
    photos = photos_under(args.data, args.only_under)
    train, valid = photos.part("train"), photos.part("val")
    write_splits(out / "splits.csv", {"train": train, "val": valid})
    fixed = {"model": args.model, "resize": args.resize, "epochs": args.epochs, "epoch_photos": args.epoch_photos}
    fixed |= {"workers": 0} | ({"pretrained_path": args.pretrained_path} if args.pretrained_path else {})
    search = {key: value for key, value in fixed.items() if key != "workers"} | {"space": SPACE}
    (out / "search.yaml").write_text(yaml.safe_dump(search))
    killed = two_workers(out, args)
    trials = pd.read_csv(out / "tune" / "trials.csv")
    lost = unfinished(trials)
    numbers = {"killed_after_seconds": killed, "trials": trials.to_dict("records"), "lost": lost}
    numbers["comparison"] = against_default(out, fixed, train, valid, args).to_dict("records")
    settings = {key: value for key, value in vars(args).items() if key not in ("data", "pretrained_path", "output")}
    line = record("tuned", settings | {"space": SPACE}, numbers)
    print(json.dumps(line).replace("NaN", "null"))
    assert not lost, f"trials {lost} were lost"
    return line


def two_workers(out, args):
    """Search by two processes on one study; kill the second one after a third of the time. Returns when, in seconds."""
    command = [sys.executable, "-m", "multihead", "tune", str(out / "splits.csv"), "-c", str(out / "search.yaml")]
    command += ["--folds", str(args.folds), "--minutes", str(args.minutes), "-o", str(out / "tune")]
    with open(out / "worker0.log", "w") as first, open(out / "worker1.log", "w") as second:
        both = [subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True) for log in (first, second)]
        time.sleep(args.minutes * 60 / 3)
        os.killpg(both[1].pid, signal.SIGKILL)
        for process in both:
            process.wait()
    if both[0].returncode:
        sys.exit((out / "worker0.log").read_text()[-2000:])
    return args.minutes * 60 / 3


def unfinished(trials):
    """The numbers of trials (killed, or stopped by the time) that neither ended nor were queued again."""
    searched = [column for column in trials.columns if column in SPACE]
    ended = trials[trials.state.isin(["complete", "pruned", "failed", "waiting"])]
    again = set(ended[searched].astype(str).agg("|".join, axis=1))
    dropped = trials[~trials.index.isin(ended.index)]
    return [
        int(row.number)
        for row, key in zip(dropped.itertuples(), dropped[searched].astype(str).agg("|".join, axis=1))
        if key not in again
    ]


def against_default(out, fixed, train, valid, args):
    """The paired comparison of default and best settings, trained on all training people, on the validation people."""
    best = yaml.safe_load((out / "tune" / "best.yaml").read_text())
    probs = {"default": [], "best": []}
    for name, config in {"default": fixed, "best": best | {"workers": 0}}.items():
        path = out / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config | {"epochs": args.final_epochs, "epoch_photos": len(train)}))
        for seed in args.seeds:
            run = out / f"{name}{seed}"
            flags = ["--seed", str(seed), "--select", "last", "--val-interval", str(args.final_epochs)]
            if multihead(["train", str(out / "splits.csv"), "-c", str(path), "-o", str(run), "--resume", *flags]):
                sys.exit(f"training with {path} failed")
            probs[name].append(evaluate(mh.load(run), valid, workers=0).probs)
    return paired.compare(probs, valid.labels(), valid.groups(), mh.HEADS)


def _arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="table of labelled photos with a split column")
    parser.add_argument("--only-under", default="", help="photos whose path in the table starts so, as bootlike/")
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--pretrained-path", help="timm weights of the model")
    parser.add_argument("--resize", type=int, nargs="+", default=[64])
    parser.add_argument("--epochs", type=int, default=2, help="of a trial")
    parser.add_argument("--epoch-photos", type=int, default=400, help="of a trial")
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--final-epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--output", default="runs/tuned")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
