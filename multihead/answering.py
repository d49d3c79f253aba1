"""The verb that answers with a model: predict, a table, pictures or a submission; and the flags of all answers."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multihead import flags, parsers
from multihead.logs import LISTED, tell
from multihead.modes import AMP, Pins, decided_precision
from multihead.parts import read_sources
from multihead.recipe import MISSING
from multihead.settings import Sources, device, speaker, with_tta

if TYPE_CHECKING:
    from multihead.answer_files import Begun
    from multihead.data import Photos
    from multihead.heads import Head
    from multihead.pipeline import Answer

TABLES = ("", ".csv", ".txt")  # what a table of answers may be called
# what changes no answers of predict
FREE = ("output", "quiet", "strict", "batch_size", "workers", "verb", "run", "parser", "reparse", "goes_on")


def predict(args: argparse.Namespace) -> int:
    """Answer for photos: a table with a row a photo or face, pictures with the answers, or a submission."""
    from multihead import prediction
    from multihead.files import check_writable
    from multihead.inputs import named_as_given
    from multihead.logs import bar, watched
    from multihead.pipeline import answers
    from multihead.yunet import open_detector

    if args.submission:
        return _submission(args)
    if args.images:
        raise ValueError(f"--images {args.images} is where the photos of a --submission lie; name the folder as SOURCE")
    args.output = None if args.output == "-" else args.output
    if args.output:
        if Path(args.output).suffix.lower() not in TABLES:
            raise ValueError(f"-o {args.output}: answers are a table in CSV; expected a name in .csv, or - to print it")
        check_writable(args.output)
    model, say = _opened(args), speaker(args)
    if args.draw:
        Path(args.draw).mkdir(parents=True, exist_ok=True)
    source: Any = list(args.source)
    if args.boxes or args.columns or args.person_vote:
        source = named_as_given(read_sources(args, args.source, heads=()), args.source)
    if args.person_vote:
        _check_people(args, source, model)
    options: dict[str, Any] = {name: getattr(args, name) for name in ("faces", "batch_size", "missing", "workers")}
    options |= {"finder": open_detector(args.detector) if args.detector else None, "pins": pins(args)}
    with contextlib.ExitStack() as stack:
        shown = stack.enter_context(bar(0, "predict", not args.quiet and watched()))
        begun = stack.enter_context(_table(args, model.space))
        shown.update(begun.tally.rows)
        rows = _told(answers(model, source, **options, draw=args.draw, done=begun.done, since=begun.since), shown)
        rows = _voted(rows, model.space) if args.person_vote else rows
        tally = prediction.write_table(rows, model.space, begun.write, begun.tally)
    if not tally.rows:
        print(f"no photos in {', '.join(args.source)}: nothing to answer", file=sys.stderr)
        return 1
    if tally.failed:
        print(f"{tally.failed} of {tally.rows} rows have no answer", file=sys.stderr)
    if tally.faceless and any(crop.needs_box for crop in model.crops):
        names = ", ".join(tally.names)
        tell(f"{tally.faceless} photos have no face and were read whole, for example {names}")
    said = [f"wrote {args.output}"] if args.output else []
    said += [f"pictures in {args.draw}"] if args.draw else []
    if said:
        say(f"{tally.rows} rows; " + "; ".join(said))
    return 1 if tally.failed == tally.rows or (args.strict and tally.failed) else 0


@contextlib.contextmanager
def _table(args: argparse.Namespace, space: Sequence[Head]) -> Iterator[Begun]:
    """Where the rows go: a file, which is gone on with where it was interrupted, or the standard output."""
    from multihead.answer_files import Begun, going_on, stamps
    from multihead.files import growing, is_stream
    from multihead.joined import home
    from multihead.prediction import Tally, table

    if not args.output:
        yield Begun((), Tally(), lambda text: print(text, end=""))
    elif args.person_vote or is_stream(args.output):  # the vote changes rows that are written
        with growing(args.output) as stream:
            yield Begun((), Tally(), stream.write)
    else:
        settings = {name: value for name, value in vars(args).items() if name not in FREE}
        named = [path for path in (*args.source, args.boxes, args.detector) if path and os.path.isfile(path)]
        settings |= {"folder": os.getcwd(), "stamps": stamps([home(args.model), *named])}
        args.goes_on = True
        with going_on(args.output, table((), space).columns.tolist(), settings) as begun:
            yield begun


def _told(rows: Iterable[Answer], shown: Any) -> Iterator[Answer]:
    """The rows, each counted on the bar; those without an answer are said, the first of them one by one."""
    failed = 0
    for row in rows:
        shown.update()
        if row.probs is None:
            failed += 1
            named = "" if row.item.name in row.error else f"{row.item.name}: "
            if failed <= LISTED:
                shown.write(f"no answer: {named}{row.error}", file=sys.stderr)
        yield row
    if failed > LISTED:
        shown.write(f"no answer: {failed - LISTED} more, {failed} in all; the column error has them", file=sys.stderr)


def _voted(rows: Iterable[Answer], space: Sequence[Head]) -> Iterator[Answer]:
    """The rows after the photos of each person have voted, also of those that came before an interruption."""
    from multihead.prediction import person_voted

    came: list[Answer] = []
    try:
        came.extend(rows)  # as far as it gets
    finally:
        yield from person_voted(came, space)


def _check_people(args: argparse.Namespace, photos: Photos, model: Any) -> None:
    """Nothing where the photos of a person can vote. Raises: ValueError that says why they cannot."""
    from multihead.voting import shared_heads

    shared_heads(model.space)
    if idle := [flag for flag, given in (("--faces all", args.faces == "all"), ("--draw", args.draw)) if given]:
        raise ValueError(f"{idle[0]} and --person-vote: a vote knows one face a row, and changes answers after drawing")
    if not any(photos.people):
        raise ValueError("--person-vote needs photos whose people are known: a column person, or a folder a person")


def _opened(args: argparse.Namespace) -> Any:
    from multihead.joined import load

    return with_tta(load(args.model).to(device(args.device)), args.tta)


def _submission(args: argparse.Namespace) -> int:
    from multihead.files import check_writable, write_text
    from multihead.prediction import submission
    from multihead.yunet import open_detector

    if len(args.source) != 1:
        raise ValueError(f"--submission reads one info.csv; got {len(args.source)} sources")
    unused = ("faces", "draw", "output", "person_vote", "boxes", "columns", "labels", "people")
    idle = [name for name in unused if getattr(args, name)] + ["missing"] * (args.missing != "full")
    if idle:
        raise ValueError(f"--{idle[0].replace('_', '-')} has no meaning for --submission, which answers every row")
    check_writable(args.submission)
    model, say = _opened(args), speaker(args)
    options: dict[str, Any] = {name: getattr(args, name) for name in ("batch_size", "workers")}
    options |= {"finder": open_detector(args.detector) if args.detector else None, "pins": pins(args)}
    filled, unread = submission(model, args.source[0], args.images, **options)
    for name, reason in unread:
        print(f"answered by the training prior: {name}: {reason}", file=sys.stderr)
    write_text(args.submission, filled.to_csv(index=False))
    say(f"{len(filled)} rows, {len(unread)} by the training prior; wrote {args.submission}")
    return 1 if len(unread) == len(filled) or (args.strict and unread) else 0


def predict_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `multihead predict`."""
    parser.add_argument("model", metavar="MODEL", help="model folder or run folder")
    parser.add_argument("source", nargs="+", metavar="SOURCE", help="photos, folders, glob patterns, tables")
    parser.add_argument(
        "-o", "--output", help="table to write; the same command goes on where one was interrupted (default: printed)"
    )
    parser.add_argument(
        "--faces",
        type=parsers.one_of(["largest", "central", "all"]),
        metavar="{largest,central,all}",
        help="answer for the largest or most central face of a photo, or for all, a row a face (default: largest, "
        "searched only where the model reads faces)",
    )
    parser.add_argument(
        "--draw", metavar="DIR", help="folder for pictures with boxes and answers (default: no pictures)"
    )
    parser.add_argument(
        "--submission", metavar="FILE", help="write a submission for SOURCE, an info.csv, instead (default: a table)"
    )
    parser.add_argument("--images", metavar="DIR", help="photos of --submission (default images/ beside it)")
    parser.add_argument("--strict", action="store_true", help="exit status 1 if any photo has no answer")
    parser.add_argument("-b", "--batch-size", type=int, help="photos answered together (default 16, on a GPU 64)")
    parser.add_argument("-j", "--workers", type=int, help="lanes that share the cores (default: one a core, at most 8)")
    answer_arguments(parser)


def pins(args: argparse.Namespace) -> Pins:
    """What the flags decide of how answers are computed; says that they decide nothing for an export."""
    from multihead.runtimes import is_exported

    if (args.amp or args.torchcompile) and is_exported(args.model):
        tell(
            f"note: {args.model} is computed as it was exported; --amp and --torchcompile change nothing (export "
            "--precision says how)"
        )
    return Pins(decided_precision(args.amp, args.amp_dtype), None, args.torchcompile)


def answer_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of verbs that answer for photos."""
    parser.add_argument(
        "--missing",
        default="full",
        type=parsers.one_of(MISSING),
        metavar="{full,skip,error}",
        help="a photo without a face where a crop needs one: full (all of it is read), skip or error (default full)",
    )
    parser.add_argument(
        "--tta",
        nargs="+",
        default=[],
        metavar="VIEW",
        help="mean over views: flip shift=0.05 scale=0.9,1.1 (default: none)",
    )
    parser.add_argument(
        "--person-vote", action="store_true", help="photos of one person share their gender and age: their mean answers"
    )
    parser.add_argument("--detector", metavar="FILE", help="mtcnn (default), or the path of a YuNet .onnx file")
    switch = argparse.BooleanOptionalAction
    parser.add_argument("--amp", action=switch, help="answer in 16 bits, or in 32 (default: what is faster here)")
    parser.add_argument("--amp-dtype", default="bfloat16", choices=AMP, help="of --amp (default bfloat16)")
    parser.add_argument(
        "--torchcompile", action=switch, help="compile the backbone first, for many photos (default off)"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto (default auto)")
    flags.add_flags(parser, Sources, "photos")
