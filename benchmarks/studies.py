"""The studies of examples/studies/ on labelled photos: one comparison each, on folds of the training people.

    python benchmarks/studies.py --data INDEX.csv --pretrained-path WEIGHTS --only mixing losses

Goes on where it was interrupted. Leaves each study's table and pictures in results/studies/ and prints one JSON line a
study: every arm's mean over the seeds and its paired difference to the first arm, with the interval over people.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import yaml
from record import record

from multihead.cli import main as multihead

STUDIES = Path(__file__).parents[1] / "examples" / "studies"
RESULTS = Path(__file__).parent / "results" / "studies"
ORDER = ("mixing", "optimisers", "losses", "crops", "partial_labels", "drawn_masks", "heads_vs_flat", "schedules")
KEPT = {"summary.csv": ".csv", "summary.md": ".md", "curves.png": "-curves.png", "differences.png": "-differences.png"}
# the sources of real photos of people who wear their masks incorrectly
REAL_INCORRECT = ("adithya-fnf", "chandrikadeb7", "andrewmvd")


def main(argv=None):
    args = _arguments(argv)
    lines = [study(name, args) for name in args.only]
    for line in lines:
        print(json.dumps(line))
    return lines


def study(name, args):
    """One study's line; its table and pictures are in `args.results` then."""
    out, results = Path(args.output) / name, Path(args.results)
    more = ["--pretrained-path", args.pretrained_path] if args.pretrained_path else []
    more += ["--score-source", *args.real_incorrect] if name == "drawn_masks" and args.real_incorrect else []
    more += args.more.split()
    config = STUDIES / f"{name}.yaml"
    code = multihead(["compare", args.data, "-c", str(config), "-o", str(out), *more])
    if code:
        sys.exit(code)
    results.mkdir(parents=True, exist_ok=True)
    for file, ending in KEPT.items():
        if (out / file).is_file():
            shutil.copyfile(out / file, results / f"{name}{ending}")
    rows = pd.read_csv(out / "summary.csv")
    settings = {"data": Path(args.data).name, "study": yaml.safe_load(config.read_text()), "more": args.more}
    line = record(f"study {name}", settings, {"arms": rows.to_dict("records")})
    text = json.dumps(line).replace("NaN", "null")
    (results / f"{name}.json").write_text(text + "\n")
    return json.loads(text)


def _arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="table of photos; its train part is used")
    parser.add_argument("--pretrained-path", default="", help="timm weights of the studies' backbone")
    parser.add_argument("--only", nargs="+", default=list(ORDER), choices=ORDER, help="studies (default: all)")
    parser.add_argument("--output", default="runs/studies", help="folder of the runs")
    parser.add_argument("--results", default=str(RESULTS), help="folder of tables and pictures")
    parser.add_argument("--real-incorrect", nargs="*", default=list(REAL_INCORRECT), help="sources that score masks")
    parser.add_argument("--more", default="", help="more flags of multihead compare, as one text")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
