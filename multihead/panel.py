"""The verb ensemble: models, runs and folds as one model, by a vote or by the mean of their weights."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multihead import flags, parsers
from multihead.parts import read_sources, scored_part
from multihead.settings import Sources, speaker

if TYPE_CHECKING:
    import pandas as pd

    from multihead.data import Photos
    from multihead.fitting import Fitted, Wanted
    from multihead.heads import Head
    from multihead.model import Model


def ensemble(args: argparse.Namespace) -> int:
    """Put models, runs and folds together as one model: a vote, or a soup of their weights."""
    from multihead.ensemble import open_folds
    from multihead.evaluation import label_heads
    from multihead.joined import load
    from multihead.model import Model
    from multihead.outputs import kinds
    from multihead.trained import keep_trained
    from multihead.wholes import whole_folder

    out = Path(args.output)
    if args.data and args.soup != "greedy" and (args.soup or not args.calibrate):
        raise ValueError(
            f"--data {' '.join(args.data)} serves --soup greedy, or --calibrate of a vote; give one of them, or leave "
            "--data out"
        )
    if args.soup and (idle := [name for name in ("weights", "voting", "calibrate", "decode") if getattr(args, name)]):
        raise ValueError(f"--{idle[0]} has no meaning for --soup, which makes one model of the members' weights")
    if args.soup == "greedy" and not args.data:
        raise ValueError("--soup greedy chooses members by their score: name photos that none was trained on, --data")
    _shares(args)
    if held := kinds(out):
        raise FileExistsError(f"{out} holds {held[0]}; name another --output")
    places = [Path(name).resolve() for name in args.member]
    if twice := [name for name, place in zip(args.member, places) if places.count(place) > 1]:
        raise ValueError(f"{twice[0]} is named twice; expected each member once: --weights gives one more say")
    with whole_folder(out, "the ensemble") as place:
        opened: list[Any] = []
        for name in args.member:
            if "folds" in kinds(name):
                opened.append(open_folds(name, label_heads(load(Path(name) / "fold0"))))
            else:
                opened.append(load(name))
        say = speaker(args)
        made = _soup(args, opened, say) if args.soup else _vote(args, opened, say)
        made.save_pretrained(place) if isinstance(made, Model) else made.save(place)
        keep_trained(args.member, place)
    say(f"wrote {args.output}; open it with multihead.load, evaluate or predict")
    return 0


def ensemble_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `multihead ensemble`."""
    parser.add_argument("member", nargs="+", metavar="MEMBER", help="folders of folds, runs, models or ensembles")
    parser.add_argument("-o", "--output", default="runs/ensemble", help="folder to write (default runs/ensemble)")
    parser.add_argument(
        "--voting",
        type=parsers.one_of(["soft", "hard"]),
        metavar="{soft,hard}",
        help="mean probabilities or counted answers (default soft)",
    )
    parser.add_argument(
        "--weights", nargs="+", metavar="W", help="a number a MEMBER (its folds share it), or fitted (default equal)"
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="a temperature a head: of each member, out of fold, or with --data of the vote itself",
    )
    parser.add_argument(
        "--decode",
        type=parsers.one_of(["prior", "weights"]),
        metavar="{prior,weights}",
        help="answer for macro-F1: class weights from the prior, or fitted one by one, on out-of-fold answers "
        "(default: the likeliest class)",
    )
    parser.add_argument(
        "--soup",
        type=parsers.one_of(["uniform", "greedy"]),
        metavar="{uniform,greedy}",
        help="average the weights: one model (default: the members vote)",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="DATA",
        help="labelled photos that trained no member: for a greedy soup, or to calibrate the vote itself "
        "(default: none)",
    )
    parser.add_argument("-j", "--workers", type=int, default=2, help="decoding processes (default 2)")
    flags.add_flags(parser, Sources, "photos")


def _vote(args: argparse.Namespace, opened: Sequence[Any], say: Callable[[str], None]) -> Any:
    from multihead.adjusted import Adjusted
    from multihead.ensemble import Folds
    from multihead.fitting import Fitted, Wanted
    from multihead.joined import Ensemble

    pooled = bool(args.calibrate and args.data)  # temperatures of the vote itself
    shares, voting = _shares(args), args.voting or "soft"
    found = Fitted(tuple({} for _ in opened), tuple(shares or [1.0] * len(opened)), None)
    given = None if args.weights == ["fitted"] else found.shares
    _check_fits(args, opened)
    wanted = Wanted(args.calibrate and not pooled, given, "" if pooled else args.decode or "")
    if wanted.calibrate or wanted.decode or given is None:
        found = _fit(args, opened, wanted, say)
    members: list[Any] = []
    weights: list[float] = []
    for each, share, temperatures in zip(opened, found.shares, found.temperatures):
        models = each.models() if isinstance(each, Folds) else [each]
        members += [Adjusted(model, temperatures) if temperatures else model for model in models]
        weights += [share / len(models)] * len(models)
    whole: Any = Ensemble(members, weights, voting=voting)
    say(f"{len(members)} members, {voting} voting, weights {' '.join(f'{weight:.3g}' for weight in whole.weights)}")
    if pooled:
        temperatures = _pooled_temperatures(args, whole, say)
        whole = Adjusted(whole, temperatures)
        if args.decode:  # class weights come after temperatures, and fit what these made of the answers
            found = _fit(args, opened, Wanted(False, given, args.decode, temperatures), say)
    if found.weights is not None:
        whole = Adjusted(whole, weights=found.weights.tolist())
    return whole


def _check_fits(args: argparse.Namespace, opened: Sequence[Any]) -> None:
    """Nothing where what is asked for can be fitted. Raises: ValueError where a member has no out-of-fold answers to
    fit on, or hard votes cannot use what is fitted."""
    from multihead.ensemble import Folds

    if not (args.decode or args.calibrate and not args.data or args.weights == ["fitted"]):
        return
    if args.voting == "hard":
        flag = "--decode" if args.decode else "--calibrate" if args.calibrate else "--weights fitted"
        raise ValueError(f"{flag} fits mean probabilities, which --voting hard does not answer with; leave one out")
    if args.weights == ["fitted"] and len(opened) == 1:
        raise ValueError(
            "--weights fitted weighs several MEMBERs against each other; the folds of one answered unlike photos and "
            "weigh the same: leave it out"
        )
    for name, each in zip(args.member, opened):
        if not isinstance(each, Folds):
            raise ValueError(f"{name} has no out-of-fold answers to fit on; expected folders of multihead folds only")


def _fit(args: argparse.Namespace, opened: Sequence[Any], wanted: Wanted, say: Callable[[str], None]) -> Fitted:
    """What is fitted on the out-of-fold answers; says what it does for people that it was not fitted on."""
    from multihead.ensemble import common_rows
    from multihead.fitting import decoding_gain, fit
    from multihead.nested import nested_calibration

    rows, heads = common_rows(opened), opened[0].photos.heads
    probs, photos = [each.probs[at] for each, at in zip(opened, rows)], opened[0].photos[rows[0]]
    labels, groups = photos.labels(), photos.groups()
    found = fit(probs, labels, heads, wanted)
    for name, each, temperatures in zip(args.member, probs, found.temperatures):
        if temperatures:
            _tell(name, temperatures, nested_calibration(each, labels, groups, heads), say)
    if wanted.calibrate:
        say(
            "a mean is less sure than its members: for probabilities of the vote itself, give labelled photos that "
            "trained no member, as --data"
        )
    if wanted.decode:
        table = decoding_gain(probs, labels, groups, heads, wanted)
        say(f"decoding by {wanted.decode}: {_gains(table)} for people that nothing was fitted on")
    return found


def _gains(table: pd.DataFrame) -> str:
    """The gain over the joint classes of a table of `decoding_gain`; where no photo knows all heads, over each head."""
    gained = table[(table.arm == "decoded") & table.difference.notna()].set_index("metric")
    named = {"macro_f1": "macro-F1"} if "macro_f1" in gained.index else {name: name for name in gained.index}
    rows = zip(named.values(), gained.loc[list(named), ["difference", "low", "high"]].to_numpy(float))
    told = [f"{name} {gain:+.4f} [{low:+.4f}, {high:+.4f}]" for name, (gain, low, high) in rows]
    return ", ".join(told) or "a gain that is not known"


def _pooled_temperatures(args: argparse.Namespace, whole: Any, say: Callable[[str], None]) -> dict[str, float]:
    """The temperatures of a vote, fitted on labelled photos that trained none of its members."""
    from multihead.calibrate import fit_temperatures
    from multihead.evaluation import evaluate, label_heads
    from multihead.nested import nested_calibration
    from multihead.splits import groups

    valid = _unseen(args, label_heads(whole), say)
    scores = evaluate(whole.eval(), valid, workers=args.workers)
    found = fit_temperatures(scores.probs, scores.labels, scores.table)
    people = groups([str(person) for person in scores.slices["person"]])
    _tell("the vote", found, nested_calibration(scores.probs, scores.labels, people, scores.table), say)
    return found


def _tell(
    name: str, temperatures: Mapping[str, float], rows: Sequence[Mapping[str, Any]], say: Callable[[str], None]
) -> None:
    """Say the temperatures and what they do for people that they were not fitted on."""
    say(f"{name}: temperatures {', '.join(f'{head} {value:.3f}' for head, value in temperatures.items())}")
    say("  expected calibration error before and after, of people that were not fitted on:")
    for row in rows:
        if not row["n"]:
            say(f"  {row['part']:8} unknown: no photo has all its labels")
            continue
        say(f"  {row['part']:8} {row['ece']:.4f} -> {row['ece_after']:.4f}{_doubt(row, temperatures)}")


def _doubt(row: Mapping[str, Any], temperatures: Mapping[str, float]) -> str:
    """What speaks against the temperature of a row of `nested_calibration`, "" where nothing does."""
    from multihead.calibrate import COLDEST, HOTTEST

    worse = ", worse than without" if row["ece_after"] > row["ece"] else ""
    bounds = (COLDEST, HOTTEST)
    found = temperatures.get(str(row["part"]))
    at = found is not None and min(abs(found / bound - 1) for bound in bounds) < 0.01
    return worse + (", its temperature is at the bound: the head tells nothing, or is never wrong here" if at else "")


def _shares(args: argparse.Namespace) -> list[float] | None:
    """The given weight of each MEMBER, None where they are equal or fitted. Raises: ValueError for other words."""
    count = len(args.member)
    if not args.weights or args.weights == ["fitted"]:
        return None
    try:
        given = [float(text) for text in args.weights]
    except ValueError:
        raise ValueError(f"--weights {' '.join(args.weights)}; expected {count} numbers, or fitted") from None
    if len(given) != count or not all(0 < weight < float("inf") for weight in given):
        raise ValueError(f"--weights {' '.join(args.weights)}; expected {count} numbers above 0, one a MEMBER")
    return given


def _soup(args: argparse.Namespace, opened: Sequence[Any], say: Callable[[str], None]) -> Model:
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
    seen = next((each.photos for each in opened if isinstance(each, Folds)), None)

    def mend(made: Model) -> Model:
        return made if seen is None else refresh(made, seen, workers=args.workers)

    if args.soup == "greedy":
        valid = _unseen(args, label_heads(models[0]), say)
        score = lambda model: evaluate(model, valid, workers=args.workers).selection[0]  # noqa: E731
        made, chosen = greedy_soup(models, score, mend)
        say(f"greedy soup of models {' '.join(map(str, chosen))} out of {len(models)}")
    else:
        made, chosen = mend(average(models)), list(range(len(models)))
        say(f"soup of {len(models)} models")
    if len(chosen) < 2:
        say("one model as it is")
    elif seen is not None:
        say(f"statistics of batch norms measured anew on {len(seen)} photos")
    else:
        say("statistics of batch norms are averaged; those of a folder of folds would be measured anew on its photos")
    return made


def _unseen(args: argparse.Namespace, heads: Sequence[Head], say: Callable[[str], None]) -> Photos:
    """The labelled photos of --data (of a table with a split column those that `scored_part` takes), which trained none
    of the members."""
    from multihead.trained import check_unseen

    part, photos = scored_part(read_sources(args, args.data, heads=heads))
    if part != "all":
        say(f"of --data its {part} part: {photos}")
    for name in args.member:
        check_unseen(Path(name), photos)
    return photos
