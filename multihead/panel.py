"""The verbs of many models that answer together: folds trains one a fold, ensemble lets them vote."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multihead import flags
from multihead.recipe import Recipe
from multihead.settings import (
    Network,
    Sources,
    Training,
    build_model,
    build_recipe,
    device,
    read_sources,
    silent,
    speaker,
)
from multihead.workbench import add_training_flags, need_data

if TYPE_CHECKING:
    import numpy as np


# ---- folds


def folds(args: argparse.Namespace) -> int:
    """Train a model a fold, people whole; score every photo by the model that did not see it; goes on if repeated."""
    need_data(args)
    import yaml

    from multihead import ranks
    from multihead.ensemble import fit_folds
    from multihead.files import write_text

    values, out = vars(args), Path(args.output)
    network, rows, recipe = flags.build(Network, values), flags.build(Training, values), build_recipe(values)
    ranks.start()
    say = speaker(args) if ranks.first() else silent
    photos = read_sources(args)
    if (photos.table.split != "").any() and not args.ignore_split:
        photos = photos.part("train")
        say("folds of the train part of the split column; --ignore-split takes all")
    extra = read_sources(args, args.extra) if args.extra else None
    say(f"{photos} in {f'the folds of column {args.fold_column}' if args.fold_column else f'{args.folds} folds'}")
    make = functools.partial(build_model_on, network, args.device)
    found = fit_folds(
        make,
        photos,
        recipe,
        out=out,
        folds=args.folds,
        column=args.fold_column,
        only=args.fold,
        extra=extra,
        rows=rows.rows,
        about=flags.effective(Network, network),
        processes=args.processes,
        workers=args.workers,
        say=say,
    )
    if ranks.first() and not (out / "args.yaml").exists():
        settings = flags.effective(Network, network) | flags.effective(Recipe, recipe)
        settings |= flags.effective(Sources, flags.build(Sources, values)) | flags.effective(Training, rows)
        write_text(out / "args.yaml", yaml.safe_dump({"data": args.data, **settings}, sort_keys=False))
    if found is not None:
        say(found.to_string(index=False, float_format="%.4f"))
        say(f"wrote {out}: photos.csv, oof.csv, scores.csv and a run folder a fold")
    return 0


def build_model_on(network: Network, place: str) -> Any:
    """The model of the flags on a device."""
    return build_model(network, silent).to(device(place))


def folds_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `multihead folds`."""
    parser.add_argument("-o", "--output", default="runs/folds", help="folder (default runs/folds)")
    parser.add_argument("--folds", type=int, default=5, help="parts by person (default 5)")
    parser.add_argument(
        "--fold-column", metavar="COLUMN", help="column of the table that names each row's fold instead"
    )
    parser.add_argument("--fold", type=int, nargs="+", help="only these folds now, from 0; others elsewhere or later")
    parser.add_argument("--processes", type=int, default=1, help="folds trained at a time (default 1)")
    parser.add_argument("--extra", nargs="+", default=[], help="more folders or tables, for training only")
    parser.add_argument("--ignore-split", action="store_true", help="do not use the table's split column")
    parser.add_argument("-j", "--workers", type=int, default=0, help="loader processes of a fold (default 0)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto")
    add_training_flags(parser)


# ---- ensemble


def ensemble(args: argparse.Namespace) -> int:
    """Put models, runs and folds together as one model: a vote, or a soup of their weights."""
    from multihead.ensemble import is_folds, open_folds
    from multihead.evaluation import label_heads
    from multihead.files import check_writable
    from multihead.joined import load

    check_writable(Path(args.output) / "ensemble.json")
    opened: list[Any] = []
    for name in args.member:
        if is_folds(name):
            opened.append(open_folds(name, label_heads(load(Path(name) / "fold0"))))
        else:
            opened.append(load(name))
    say = speaker(args)
    if args.soup:
        if idle := [name for name in ("weights", "voting", "calibrate", "decode") if getattr(args, name)]:
            raise ValueError(f"--{idle[0]} has no meaning for --soup, which makes one model of the members' weights")
        _soup(args, opened, say)
    else:
        _vote(args, opened, say)
    say(f"wrote {args.output}; open it with multihead.load, evaluate or predict")
    return 0


def ensemble_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `multihead ensemble`."""
    parser.add_argument("member", nargs="+", metavar="MEMBER", help="folders of folds, runs, models or ensembles")
    parser.add_argument("-o", "--output", default="runs/ensemble", help="folder to write (default runs/ensemble)")
    parser.add_argument("--voting", type=flags.one_of(["soft", "hard"]), help="soft (default) or hard")
    parser.add_argument(
        "--weights", nargs="+", metavar="W", help="a number a MEMBER, or fitted: on out-of-fold answers (default equal)"
    )
    parser.add_argument("--calibrate", action="store_true", help="temperatures fitted on out-of-fold answers")
    parser.add_argument(
        "--decode",
        type=flags.one_of(["prior", "weights"]),
        help="for macro-F1: class weights from the prior or fitted, on out-of-fold answers",
    )
    parser.add_argument("--soup", type=flags.one_of(["uniform", "greedy"]), help="average the weights: one model")
    parser.add_argument("--data", nargs="+", default=[], help="labelled photos that choose a greedy soup's members")
    parser.add_argument("-j", "--workers", type=int, default=2, help="decoding processes (default 2)")
    flags.add_flags(parser, Sources, "photos")


def _vote(args: argparse.Namespace, opened: Sequence[Any], say: Callable[[str], None]) -> None:
    from multihead.adjusted import Adjusted
    from multihead.calibrate import apply_temperatures, fit_temperatures
    from multihead.decoding import fit_prior_weights, fit_weights
    from multihead.ensemble import Folds, common_rows
    from multihead.joined import Ensemble
    from multihead.nested import nested_calibration, nested_gain

    known = [each for each in opened if isinstance(each, Folds)]
    if len(known) < len(opened) and (args.calibrate or args.decode or args.weights == ["fitted"]):
        name = next(name for name, each in zip(args.member, opened) if not isinstance(each, Folds))
        raise ValueError(f"{name} has no out-of-fold answers to fit on; expected folders of multihead folds only")
    temperatures: list[dict[str, float]] = [{} for _ in opened]
    tables = [each.photos.labels() for each in known]
    heads = known[0].photos.heads if known else ()
    probs = [each.probs for each in known]
    if args.calibrate:
        for number, (each, labels) in enumerate(zip(known, tables)):
            temperatures[number] = fit_temperatures(each.probs, labels, heads)
            probs[number] = apply_temperatures(each.probs, temperatures[number], heads)
            told = ", ".join(f"{name} {value:.3f}" for name, value in temperatures[number].items())
            say(f"{args.member[number]}: temperatures {told}")
            for row in nested_calibration(each.probs, labels, each.photos.groups(), heads):
                say(f"  {row['part']}: calibration error {row['ece']:.4f}, for others {row['ece_after']:.4f}")
    fitted_on_all = args.decode or args.weights == ["fitted"]
    rows = common_rows(known) if fitted_on_all else []
    shares = _shares(args, [part[at] for part, at in zip(probs, rows)], [t[at] for t, at in zip(tables, rows)], heads)
    members, weights = [], []
    for each, share, fitted in zip(opened, shares, temperatures):
        models = each.models() if isinstance(each, Folds) else [each]
        members += [Adjusted(model, fitted) if fitted else model for model in models]
        weights += [share / len(models)] * len(models)
    whole: Any = Ensemble(members, weights, voting=args.voting or "soft")
    say(
        f"{len(members)} members, {args.voting or 'soft'} voting, weights {' '.join(f'{w:.3g}' for w in whole.weights)}"
    )
    if args.decode:
        mixed = sum(share * part[at] for share, part, at in zip(_scaled(shares), probs, rows))
        fit = fit_prior_weights if args.decode == "prior" else fit_weights
        labels, groups = tables[0][rows[0]], known[0].photos[rows[0]].groups()
        table = nested_gain(mixed, labels, groups, heads, fit)
        found = table[(table.arm == "fitted") & (table.metric == "macro_f1")]
        gain = found[["difference", "low", "high"]].to_numpy(float)[0]
        say(
            f"decoding by {args.decode}: macro-F1 {gain[0]:+.4f} [{gain[1]:+.4f}, {gain[2]:+.4f}] for people that it "
            "was not fitted on"
        )
        whole = Adjusted(whole, weights=fit(mixed, labels, heads).tolist())
    whole.save(args.output)


def _shares(
    args: argparse.Namespace, probs: Sequence[np.ndarray], labels: Sequence[np.ndarray], heads: Any
) -> list[float]:
    """The weight of each MEMBER, given, fitted or equal."""
    from multihead.voting import fit_vote_weights

    count = len(args.member)
    if not args.weights:
        return [1.0] * count
    if args.weights == ["fitted"]:
        return list(fit_vote_weights(probs, labels[0], heads))
    try:
        given = [float(text) for text in args.weights]
    except ValueError:
        raise ValueError(f"--weights {' '.join(args.weights)}; expected {count} numbers, or fitted") from None
    if len(given) != count:
        raise ValueError(f"--weights {' '.join(args.weights)}; expected {count} numbers, one a MEMBER")
    return given


def _scaled(shares: Sequence[float]) -> list[float]:
    return [share / sum(shares) for share in shares]


def _soup(args: argparse.Namespace, opened: Sequence[Any], say: Callable[[str], None]) -> None:
    from multihead.ensemble import Folds
    from multihead.evaluation import evaluate, label_heads
    from multihead.model import Model
    from multihead.soup import average, greedy_soup, refresh

    models: list[Any] = []
    for each in opened:
        models += each.models() if isinstance(each, Folds) else [each]
    for model in models:
        if not isinstance(model, Model):
            raise ValueError(f"a soup averages the weights of models; got {type(model).__name__}: name its members")
    if args.soup == "greedy":
        if not args.data:
            raise ValueError(
                "--soup greedy chooses members by their score: name photos that none was trained on, --data"
            )
        valid = read_sources(args, args.data, heads=label_heads(models[0]))
        _check_unseen(opened, valid)
        score = lambda model: evaluate(model, valid, workers=args.workers).selection[0]  # noqa: E731
        made, chosen = greedy_soup(models, score)
        say(f"greedy soup of models {' '.join(map(str, chosen))} out of {len(models)}")
    else:
        made = average(models)
        say(f"soup of {len(models)} models")
    seen = next((each.photos for each in opened if isinstance(each, Folds)), None)
    if seen is not None:
        made = refresh(made, seen, workers=args.workers)
        say(f"statistics of batch norms measured anew on {len(seen)} photos")
    made.save_pretrained(args.output)


def _check_unseen(opened: Sequence[Any], valid: Any) -> None:
    """Nothing where no member was trained on these people. Raises: LeakError that names them."""
    from multihead.data import check_disjoint
    from multihead.ensemble import Folds

    for each in opened:
        if isinstance(each, Folds):
            check_disjoint(each.photos, valid)
