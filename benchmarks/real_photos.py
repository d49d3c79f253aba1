"""The main job on labelled photos with a split column: `multihead train` with several seeds, scored once each.

    python benchmarks/real_photos.py --data INDEX.csv --pretrained-path WEIGHTS --seeds 0 1 2

The settings are those of real_photos.yaml, chosen on training people only; the validation part is scored after the
last epoch and nothing is chosen by it. Prints one JSON line with each seed's scores, their mean and spread, and the
interval of the mean over resampled people.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import pandas as pd
import yaml
from record import record

import multihead as mh
from multihead import paired
from multihead.cli import main as multihead

SETTINGS = Path(__file__).with_suffix(".yaml")


def main(argv=None):
    args = _arguments(argv)
    found = [one(args, seed) for seed in args.seeds]
    names = [name for name in found[0] if name != "seed"]
    summary = {name: _spread([seed[name] for seed in found]) for name in names}
    for name, interval in intervals(args).items():
        summary[name] |= interval
    settings = {
        "data": Path(args.data).name,
        "weights": Path(args.pretrained_path).name,
        "recipe": yaml.safe_load(Path(args.config).read_text()),
    }
    line = record("real_photos", settings, {"seeds": found, "summary": summary})
    print(json.dumps(line))
    return line


def one(args, seed):
    """Scores and times of one seed's run, trained now unless its folder holds it already."""
    folder = Path(args.output) / f"seed{seed}"
    arguments = [args.data, "-c", args.config, "--pretrained-path", args.pretrained_path, "--seed", str(seed)]
    if not (folder / "metrics.json").exists():
        code = multihead(["train", *arguments, "--output", str(folder), "--resume"])
        if code:
            sys.exit(code)
    scores = json.loads((folder / "metrics.json").read_text())
    rows = pd.read_csv(folder / "metrics.csv")
    found = {"seed": seed, "18 classes": scores["macro_f1"]}
    found |= {name: head["macro_f1"] for name, head in scores["heads"].items()}
    found |= {f"age, mask {state}": part["heads"]["age"]["macro_f1"] for state, part in scores["by_mask"].items()}
    return found | {"training_minutes": rows.seconds.sum() / 60}


def intervals(args):
    """For each score the interval of the seeds' mean over resampled people, 95 %: {name: {"from": ..., "to": ...}}."""
    valid, probs = mh.read(args.data, people="global").part("val"), []
    for seed in args.seeds:
        model = mh.load(Path(args.output) / f"seed{seed}")
        probs.append(mh.evaluate(model, valid, workers=0).probs)
    frame = paired.compare({"recipe": probs}, valid.labels(), valid.groups(), mh.HEADS)
    names = {row.metric: row.metric.removesuffix("_f1") for row in frame.itertuples()} | {"macro_f1": "18 classes"}
    return {names[row.metric]: {"from": row.mean_low, "to": row.mean_high} for row in frame.itertuples()}


def _spread(values):
    return {"mean": statistics.mean(values), "low": min(values), "high": max(values)}


def _arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="table with a split column")
    parser.add_argument("--pretrained-path", required=True, help="timm weights of the settings' backbone")
    parser.add_argument("--config", default=str(SETTINGS), help="YAML of flags (default: real_photos.yaml)")
    parser.add_argument("--output", default="runs/real_photos")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args(argv)
    return args


if __name__ == "__main__":
    main()
