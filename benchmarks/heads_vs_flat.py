"""The multi-head model against the flat 18-way model, three separate models, and heads with crops of their own.

    python benchmarks/heads_vs_flat.py                                                  # drawn people
    python benchmarks/heads_vs_flat.py --data TABLE --name bootlike --model NAME --pretrained-path FILE --resize 112

Every contender has the same backbone, recipe, losses and steps, on the same person-disjoint folds and seeds. Each photo
is answered by the run that did not see it; differences are to the flat model, with intervals from resampled people. All
of it again with each label hidden from training with the probabilities of --hidden. A flat model learns from fully
labelled photos only, so these are what it draws, as many an epoch as the others draw of all.

Goes on where it was interrupted; several processes with the same arguments share the runs. Costs are measured last, all
contenders in turn in one run. Leaves NAME.json, NAME.md and NAME.png in results/heads_vs_flat/.
"""

import argparse
import dataclasses
import functools
import json
import sys
from pathlib import Path

import cost
import pandas as pd
from record import photos_under, record

import multihead as mh
from multihead import crossval, paired, plots
from multihead.comparison import compare
from multihead.settings import device

RESULTS = Path(__file__).parent / "results" / "heads_vs_flat"
SLICES = ("mask", "gender")  # heads whose true classes are also scored one by one

PLACES = ("data", "pretrained_path", "output", "results")  # folders of one machine


def main(argv=None):
    args = _arguments(argv)
    photos = photos_under(args.data or _people(), args.only_under)
    if (photos.table.split == "train").any():
        photos = photos.part("train")
    frames = [_scores(share, photos, args) for share in args.hidden]
    if args.runs_only:
        return None
    frame = pd.concat(frames, ignore_index=True)
    costs = cost.measure(contenders(args, None, 0.0), pairs=args.pairs)
    settings = {key: value for key, value in vars(args).items() if key not in PLACES}
    settings |= {"photos": len(photos), "people": len(set(photos.people) - {""})}
    line = record("heads_vs_flat", settings, {"scores": frame.to_dict("records"), "costs": costs})
    text = json.dumps(line).replace("NaN", "null")
    leave(json.loads(text), Path(args.results), args.name)
    print(text)
    return json.loads(text)


def contenders(args, photos, hidden):
    """{name: Arm}, the flat model first, since the others are compared with it."""
    full, face = mh.FULL.resized(*args.resize), mh.FACE.resized(*args.resize)
    heads = [head.on(full) for head in mh.HEADS]
    crops = [mh.MASK.on(face), mh.GENDER.on(face, full), mh.AGE.on(face, full)]
    tables = {
        "flat": [mh.flat(heads)],
        "heads": [heads],
        "three models": [[head] for head in heads],
        "heads with crops": [crops],
    }
    recipe = mh.Recipe(
        epochs=args.epochs,
        batch_size=args.batch_size,
        optim=mh.AdamW(args.lr),
        augment=mh.Gentle(),
        ema=mh.EMA(args.ema) if args.ema else None,
        epoch_photos=args.epoch_photos,
        val_interval=args.epochs,
    )
    if photos is not None and recipe.epoch_photos is None:  # of the largest training side, for all alike
        recipe = dataclasses.replace(recipe, epoch_photos=len(photos) - len(photos) // args.folds)
    made = {}
    for name in args.hidden_contenders if hidden else tables:
        rows = "full" if name.startswith("flat") else "all"
        about = {"tables": repr(tables[name]), "weights": Path(args.pretrained_path or "none").name}
        make = functools.partial(models, args, tables[name])
        made[name] = mh.Arm(make, recipe, rows, hidden, about)
    return made


def models(args, tables):
    """The models of a contender, new ones."""
    kind, place = args.pretrained_path or False, device(args.device)
    return [mh.Model(args.model, heads=table, pretrained=kind).to(place) for table in tables]


def _scores(share, photos, args):
    """One row a contender, metric and slice, with a share of the training labels hidden."""
    arms, out = contenders(args, photos, share), Path(args.output) / args.name / f"hidden{share:g}"
    seeds = args.hidden_seeds or args.seeds if share else args.seeds
    options = {"folds": args.folds, "seeds": seeds, "workers": args.workers}
    found = [compare(arms, photos, out, **options, say=_say).assign(slice="all")]
    cells = [
        crossval.Cell(name, fold, seed, out / "runs" / name / f"fold{fold}-seed{seed}")
        for name in arms
        for seed in seeds
        for fold in range(args.folds)
    ]
    answers = {
        name: crossval.pooled([cell for cell in cells if cell.arm == name], len(photos), mh.HEADS) for name in arms
    }
    found += list(slices(answers, photos))
    return pd.concat(found).assign(hidden=share)


def slices(answers, photos):
    """The comparison within each true class of the heads of SLICES."""
    labels, groups = photos.labels(), photos.groups()
    for column, head in enumerate(photos.heads):
        for index, name in enumerate(head.classes if head.name in SLICES else ()):
            rows = labels[:, column] == index
            if rows.any():
                part = {arm: [probs[rows] for probs in seeds] for arm, seeds in answers.items()}
                frame = paired.compare(part, labels[rows], groups[rows], photos.heads)
                yield frame.assign(slice=f"{head.name} {name}")


def _say(text):
    print(text, file=sys.stderr, flush=True)


# ---- what stays


def leave(line, results, name):
    """Write a result as NAME.json, its tables as NAME.md and its picture as NAME.png."""
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{name}.json").write_text(json.dumps(line) + "\n")
    (results / f"{name}.md").write_text(tables(line) + "\n")
    frame = pd.DataFrame(line["numbers"]["scores"])
    frame = frame[(frame.slice == "all") & (frame.arm != "flat")]
    labels = frame.arm + [f", {100 * share:g} % hidden" if share else "" for share in frame.hidden]
    rows = list(zip(frame.metric, labels, frame.difference, frame.low, frame.high))
    title = f"Difference to the flat model, {name}: 95 % of resampled people"
    plots.differences(results / f"{name}.png", rows, title=title)


def tables(line):
    """The Markdown of a result: scores, cost, scores with hidden labels, and by slice."""
    frame, costs = pd.DataFrame(line["numbers"]["scores"]), line["numbers"]["costs"]
    every = frame[frame.slice == "all"]
    first = every.hidden.min()
    metrics = list(dict.fromkeys(frame.metric))
    text = [_table(every[every.hidden == first], metrics), "", cost.table(costs), ""]
    for share in [share for share in dict.fromkeys(every.hidden) if share != first]:
        text += [f"With {100 * share:g} % of the training labels hidden:", ""]
        text += [_table(every[every.hidden == share], metrics), ""]
    text += ["Within true classes, no label hidden:", ""]
    text += [_sliced(frame[(frame.hidden == first) & (frame.slice != "all")], metrics)]
    return "\n".join(text)


def _table(frame, metrics):
    names = {"macro_f1": "18 classes"} | {name: name.removesuffix("_f1") for name in metrics if name != "macro_f1"}
    header = ["", *(f"{names[metric]} | minus flat" for metric in metrics)]
    lines = ["| " + " | ".join(header) + " |", "|---" * (2 * len(metrics) + 1) + "|"]
    for arm in dict.fromkeys(frame.arm):
        cells = [arm]
        for metric in metrics:
            row = frame[(frame.arm == arm) & (frame.metric == metric)].iloc[0]
            cells += [f"{row['mean']:.3f}", "" if arm == "flat" else difference(row)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _sliced(frame, metrics):
    lines = ["| slice | photos | contender | " + " | ".join(metrics) + " |", "|---" * (3 + len(metrics)) + "|"]
    for (name, arm), rows in frame.groupby(["slice", "arm"], sort=False):
        cells = [name, str(int(rows["rows"].max())), arm]
        for metric in metrics:
            row = rows[rows.metric == metric].iloc[0]
            known = metric.removesuffix("_f1") != name.split()[0]  # of one class there is nothing to tell
            cells.append((f"{row['mean']:.3f}" + ("" if arm == "flat" else f" ({difference(row)})")) if known else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def difference(row):
    """A difference and its interval as text."""
    if row["low"] is None or pd.isna(row["low"]):
        return f"{row['difference']:+.3f}"
    return f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"


def _people():
    from multihead.synthetic import make

    return make("runs/people", count=120) / "train"


def _arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder or table of labelled photos; its train part (default: drawn people)")
    parser.add_argument("--only-under", default="", help="photos whose path in the table starts so, as bootlike/")
    parser.add_argument("--name", default="drawn", help="name of the result (default drawn)")
    parser.add_argument("--model", default="resnet10t")
    parser.add_argument("--pretrained-path")
    parser.add_argument("--resize", type=int, nargs="+", default=[64])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--epoch-photos", type=int, help="photos an epoch (default: as many as train)")
    parser.add_argument("-b", "--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--ema", type=float, default=0.0, help="decay of a moving average of the weights")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--hidden", type=float, nargs="+", default=[0.0, 0.5], help="shares of labels to hide")
    few = ["flat", "heads", "three models"]
    parser.add_argument("--hidden-contenders", nargs="+", default=few, help="who is compared with hidden labels")
    parser.add_argument("--hidden-seeds", type=int, nargs="+", help="seeds with hidden labels (default: --seeds)")
    parser.add_argument("--pairs", type=int, default=15, help="rounds of time measurement")
    parser.add_argument("-j", "--workers", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", default="runs/heads_vs_flat", help="folder of the runs")
    parser.add_argument("--results", default=str(RESULTS), help="folder of tables and pictures")
    parser.add_argument("--runs-only", action="store_true", help="only train: another process writes the result")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
