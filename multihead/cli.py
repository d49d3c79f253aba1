"""The command line: one verb a function; everything heavy is imported inside the verb."""

from __future__ import annotations

import argparse
import functools
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multihead import flags, records, workbench
from multihead.recipe import Recipe
from multihead.settings import (
    Network,
    Session,
    Sources,
    Training,
    build_model,
    build_recipe,
    chosen_rows,
    device,
    label_heads,
    parts,
    read_sources,
    silent,
    speaker,
    with_tta,
)

if TYPE_CHECKING:
    from multihead.data import Photos


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; the exit status: 0, 1 nothing predicted (or --strict), 2 wrong input, 130 interrupted."""
    tokens = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # names of files need not be UTF-8
    parser = _parser(tokens)
    if tokens and not tokens[0].startswith("-") and tokens[0] not in VERBS:
        parser.error(f"unknown verb {tokens[0]!r}; expected one of {', '.join(VERBS)}{flags.near(tokens[0], VERBS)}")
    verb = _parse(parser, tokens)
    try:
        if getattr(verb, "config", None):
            verb = _with_config(parser, verb, tokens)
        verb.reparse = functools.partial(_again, parser, tokens)
        return int(verb.run(verb) or 0)
    except BrokenPipeError:  # the reader of our output has seen enough, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("interrupted; what was written stays, --resume goes on where the verb has it", file=sys.stderr)
        return 130
    except (ValueError, KeyError, OSError, ImportError) as error:
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"multihead {verb.verb}: error: {text}", file=sys.stderr)
        return 2


def _parse(parser: argparse.ArgumentParser, tokens: Sequence[str]) -> argparse.Namespace:
    verb, rest = parser.parse_known_args(tokens)
    if rest:
        verb.parser.refuse_unknown(rest)
    return verb


def _with_config(parser: argparse.ArgumentParser, verb: argparse.Namespace, tokens: list[str]) -> argparse.Namespace:
    """The verb's arguments with those of its YAML file first, so that flags on the command line win."""
    content = flags.read_yaml(verb.config)
    if "arms" in vars(verb):
        content.pop("arms", None)  # the verb reads them itself
    more, positionals = flags.yaml_tokens(content, verb.parser, verb.config)
    place = tokens.index(verb.verb) + 1
    # --config again: it ends a list such as `resize: [280, 210]`, which would else take the DATA that follow
    verb = _parse(parser, [*tokens[:place], *more, f"--config={verb.config}", *tokens[place:]])
    for name, values in positionals.items():
        if not getattr(verb, name):
            setattr(verb, name, values)
    return verb


def _again(parser: argparse.ArgumentParser, tokens: Sequence[str], more: Sequence[str]) -> argparse.Namespace:
    """The arguments of this call with more flags, which win over its own and its file's."""
    tokens = [*tokens, *more]
    verb = _parse(parser, tokens)
    return _with_config(parser, verb, tokens) if getattr(verb, "config", None) else verb


def _parser(tokens: Sequence[str]) -> argparse.ArgumentParser:
    parser = flags.Parser(
        prog="multihead", description="Multi-head classifiers of faces and people: mask, gender, age."
    )
    from multihead import __version__

    parser.add_argument("--version", action="version", version=f"multihead {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=flags.Parser)
    named = next((token for token in tokens if token in VERBS), None)
    for name, (run, arguments) in VERBS.items():
        text = (run.__doc__ or "").splitlines()[0]
        verb = verbs.add_parser(name, help=text, description=text)
        verb.set_defaults(run=run, parser=verb)
        if name == named:  # the other verbs' flags are not needed: the help stays fast
            arguments(verb)
            verb.add_argument("-q", "--quiet", action="store_true", help="say only errors")
    return parser


# ---- demo


def demo(args: argparse.Namespace) -> int:
    """Draw people, train on some, score and predict the others: the whole job without any data of yours."""
    from multihead.demo import demo as run

    run(Path(args.output), people=args.people, epochs=args.epochs, seed=args.seed, say=speaker(args))
    return 0


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", default="runs/demo", help="folder for everything it makes (default runs/demo)"
    )
    parser.add_argument("--people", type=int, default=240, help="people to draw (default 240)")
    parser.add_argument("--epochs", type=int, default=None, help="passes over the training photos")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default 0)")


# ---- scan


def scan(args: argparse.Namespace) -> int:
    """Search photos for faces and write a table of boxes; goes on where it was interrupted."""
    from multihead import scanning

    photos = read_sources(args, heads=())
    roots = set(photos.table.root)
    root = roots.pop() if len(roots) == 1 else None
    say, total = speaker(args), len(set(photos.paths))
    from multihead.logs import bar

    with bar(total, "scan", not args.quiet) as shown:
        counts = scanning.scan(
            list(dict.fromkeys(photos.paths)),
            args.output,
            root=root,
            which=args.faces,
            workers=args.workers,
            progress=lambda done, total, counts: shown.update(done - shown.n),
        )
    for problem in counts.problems:
        print(f"unreadable: {problem}", file=sys.stderr)
    say(
        f"{counts.found} with a face, {counts.none} without, {counts.unreadable} unreadable, "
        f"{counts.skipped} known before"
    )
    say(f"wrote {args.output}")
    return 0


def _scan_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", nargs="+", metavar="SOURCE", help="folders or tables")
    parser.add_argument("-o", "--output", default="boxes.csv", help="table to write (default boxes.csv)")
    parser.add_argument(
        "--faces", default="largest", type=flags.one_of(["largest", "central", "all"]), help="largest, central or all"
    )
    parser.add_argument("-j", "--workers", type=int, default=2, help="decoding threads (default 2)")
    flags.add_flags(parser, Sources, "photos")


# ---- split


def split(args: argparse.Namespace) -> int:
    """Divide photos into training and validation by person and write the table with its split column."""
    from multihead.data import write_splits
    from multihead.files import check_writable

    check_writable(args.output)
    photos = read_sources(args)
    train, valid = photos.split(args.val_share, seed=args.seed)
    write_splits(args.output, {"train": train, "val": valid})
    say = speaker(args)
    counts = train.counts().merge(valid.counts(), on=["head", "class"], suffixes=(" train", " val"))
    say(counts.to_string(index=False))
    say(f"wrote {args.output}: {len(train)} rows train, {len(valid)} validate, nobody on both sides")
    return 0


def _split_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", nargs="+", metavar="DATA", help="folders or tables")
    parser.add_argument("-o", "--output", default="splits.csv", help="table to write (default splits.csv)")
    parser.add_argument("--val-share", type=float, default=0.2, help="share that validates (default 0.2)")
    parser.add_argument("--seed", type=int, default=0, help="seed (default 0)")
    flags.add_flags(parser, Sources, "photos")


# ---- train


def train(args: argparse.Namespace) -> int:
    """Train a model on labelled photos; leaves a run folder with the model, its scores and its checkpoints."""
    workbench.need_data(args)
    values = vars(args)
    network, session = flags.build(Network, values), flags.build(Session, values)
    recipe, rows = build_recipe(values), flags.build(Training, values)
    import torch
    import yaml

    from multihead import ranks
    from multihead.files import write_text
    from multihead.train import epochs

    ranks.start()
    say = speaker(args) if ranks.first() else silent
    training, valid = parts(args, session, recipe.seed)
    training = chosen_rows(training, rows)
    say(f"training on {training}")
    say(f"validating on {valid}" if valid is not None else "no photos validate")
    torch.manual_seed(recipe.seed)
    model = build_model(network, say).to(device(session.device))
    if ranks.first():
        settings = (
            flags.effective(Network, network) | flags.effective(Session, session) | flags.effective(Recipe, recipe)
        )
        settings |= flags.effective(Sources, flags.build(Sources, values)) | flags.effective(Training, rows)
        settings = {"data": args.data, **{key: value for key, value in settings.items() if key != "resume"}}
        if _is_new(Path(session.output), session.resume):
            write_text(Path(session.output) / "args.yaml", yaml.safe_dump(settings, sort_keys=False))
    from multihead.logs import line

    options = {"out": session.output, "resume": session.resume, "workers": session.workers}
    for row in epochs(model, training, valid, recipe, **options, progress=not args.quiet):
        say(line(row))
    _train_report(Path(session.output), say)
    return 0


def _is_new(folder: Path, resume: bool) -> bool:
    """True where a run starts, False where one goes on. Raises: FileExistsError where it would be overwritten."""
    begun = (folder / "checkpoints" / "last.pt").exists()
    if begun and not resume:
        raise FileExistsError(f"{folder} holds a run; pass --resume to go on, or another --output")
    return not begun


def _train_report(folder: Path, say: Callable[[str], None]) -> None:
    import json

    if (folder / "metrics.json").is_file():
        scores = json.loads((folder / "metrics.json").read_text())
        heads = ", ".join(f"{name} {_number(head['macro_f1'])}" for name, head in scores["heads"].items())
        say(f"kept model: macro-F1 {_number(scores['macro_f1'])} on {scores['n']} photos ({heads})")
    names = ("model", "checkpoints", "metrics.csv", "metrics.json", "splits.csv", "args.yaml")
    say(f"wrote {folder}: {', '.join(name for name in names if (folder / name).exists())} and event files")


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    flags.add_flags(parser, Session, "run")
    workbench.add_training_flags(parser)


# ---- evaluate


def evaluate(args: argparse.Namespace) -> int:
    """Score a model on labelled photos: macro-F1 and accuracy over the joint classes and per head."""
    import json

    from multihead import evaluation
    from multihead.joined import load

    model = load(args.model).to(device(args.device))
    photos = read_sources(args, heads=label_heads(model))
    model = with_tta(model, args.tta)
    present = set(photos.table.split)
    part = args.part or next((name for name in ("val", "test") if name in present), "all")
    if part != "all":
        photos = photos.part(part)
    if not args.quiet and not args.part and part != "all":
        print(f"scoring the {part} part, {len(photos)} rows; --part all scores every row", file=sys.stderr)
    _warn_of_trained(Path(args.model), photos)
    found = evaluation.evaluate(model, photos, batch_size=args.batch_size, workers=args.workers, missing=args.missing)
    for _, reason in found.errors:
        print(f"not counted: {reason}", file=sys.stderr)
    if found.faceless and not args.quiet:
        done = {"full": "read whole", "skip": "left out"}[args.missing]
        names = ", ".join(found.faceless[:5])
        print(f"{len(found.faceless)} photos have no face and were {done}, for example {names}", file=sys.stderr)
    if not any(head.n for head in found.heads.values()):
        print("none of the photos has a label: nothing is scored; see the table's column names", file=sys.stderr)
    if args.json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        print(found)
        for name, head in found.heads.items():
            print(f"\n{name}\n{head.table().to_string(float_format='%.3f')}")
        for name in args.by:
            for level, scores in found.by(name).items():
                print(f"\n{name} = {level}\n{scores}")
    return 0


def _warn_of_trained(model: Path, photos: Photos) -> None:
    """Say on standard error how many of the photos the model's own run was trained on."""
    run = model if (model / "splits.csv").is_file() else model.parent
    if not (run / "splits.csv").is_file():
        return
    import pandas as pd

    table = pd.read_csv(run / "splits.csv", dtype=str, keep_default_na=False, encoding_errors="surrogateescape")
    trained = set(table.path[table.split == "train"])
    both = sum(path in trained for path in photos.paths)
    if both:
        print(
            f"{both} of these {len(photos)} photos trained this model, so the scores flatter it; "
            f"{run / 'splits.csv'} holds the people that did not",
            file=sys.stderr,
        )


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="model folder or run folder")
    parser.add_argument("data", nargs="+", metavar="DATA", help="folders or tables")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--part", type=flags.one_of(["train", "val", "test", "all"]), help="which rows of a split column (default val)"
    )
    parser.add_argument("--by", nargs="+", default=[], help="also score slices, by a head or a column: mask source")
    parser.add_argument("-b", "--batch-size", type=int, default=64, help="photos a batch (default 64)")
    _answer_arguments(parser)


# ---- predict


def predict(args: argparse.Namespace) -> int:
    """Answer for photos: a table with a row a photo or face, pictures with the answers, or a submission."""
    from multihead import prediction
    from multihead.files import check_writable, write_text
    from multihead.joined import load
    from multihead.logs import bar

    model, say = with_tta(load(args.model).to(device(args.device)), args.tta), speaker(args)
    if args.submission:
        return _submission(args, model, say)
    if args.draw:
        Path(args.draw).mkdir(parents=True, exist_ok=True)
    if args.output:
        check_writable(args.output)
    source: Any = list(args.source)
    if args.boxes or args.columns:
        source = read_sources(args, args.source, heads=())
    options = {"faces": args.faces, "batch_size": args.batch_size, "missing": args.missing, "workers": args.workers}
    rows: list[Any] = []
    try:
        with bar(0, "predict", not args.quiet) as shown:
            for row in prediction.answers(model, source, **options, draw=args.draw):
                rows.append(row)
                shown.update()
    finally:  # what was answered before an interruption is kept
        table = prediction.table(rows, model.space)
        text = table.to_csv(index=False)
        if args.output and rows:
            write_text(args.output, text)
    if not rows:
        print(f"no photos in {', '.join(args.source)}: nothing to answer", file=sys.stderr)
        return 1
    if not args.output:
        print(text, end="")
    failed = [row for row in rows if row.probs is None]
    for row in failed:
        print(f"no answer: {row.error}", file=sys.stderr)
    faceless = sum(row.probs is not None and row.box is None for row in rows)
    if failed:
        print(f"{len(failed)} of {len(rows)} rows have no answer", file=sys.stderr)
    if faceless and any(crop.needs_box for crop in model.crops):
        names = [row.item.name for row in rows if row.probs is not None and row.box is None and not row.item.whole]
        print(
            f"{faceless} photos have no face and were read whole, for example {', '.join(names[:5])}", file=sys.stderr
        )
    said = [f"wrote {args.output}"] if args.output else []
    said += [f"pictures in {args.draw}"] if args.draw else []
    if said:
        say(f"{len(rows)} rows; " + "; ".join(said))
    return 1 if len(failed) == len(rows) or (args.strict and failed) else 0


def _submission(args: argparse.Namespace, model: Any, say: Callable[[str], None]) -> int:
    from multihead.files import check_writable, write_text
    from multihead.prediction import submission

    if len(args.source) != 1:
        raise ValueError(f"--submission reads one info.csv; got {len(args.source)} sources")
    if idle := [name for name in ("faces", "draw", "output") if getattr(args, name)]:
        raise ValueError(f"--{idle[0]} has no meaning for --submission")
    check_writable(args.submission)
    filled, unread = submission(model, args.source[0], args.images, workers=args.workers)
    for name, reason in unread:
        print(f"answered by the training prior: {name}: {reason}", file=sys.stderr)
    write_text(args.submission, filled.to_csv(index=False))
    say(f"{len(filled)} rows, {len(unread)} by the training prior; wrote {args.submission}")
    return 1 if len(unread) == len(filled) or (args.strict and unread) else 0


def _predict_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="model folder or run folder")
    parser.add_argument("source", nargs="+", metavar="SOURCE", help="photos, folders, glob patterns, tables")
    parser.add_argument("-o", "--output", help="table to write (default: printed)")
    parser.add_argument("--faces", type=flags.one_of(["largest", "central", "all"]), help="all: a row a face")
    parser.add_argument("--draw", metavar="DIR", help="folder for pictures with boxes and answers")
    parser.add_argument("--submission", metavar="FILE", help="write a submission for SOURCE, an info.csv, instead")
    parser.add_argument("--images", metavar="DIR", help="photos of --submission (default images/ beside it)")
    parser.add_argument("--strict", action="store_true", help="exit status 1 if any photo has no answer")
    parser.add_argument("-b", "--batch-size", type=int, default=32, help="photos a batch (default 32)")
    _answer_arguments(parser)


def _answer_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--missing",
        default="full",
        type=flags.one_of(["full", "skip", "error"]),
        help="a photo without a face: full, skip or error",
    )
    parser.add_argument(
        "--tta", nargs="+", default=[], metavar="VIEW", help="mean over views: flip shift=0.05 scale=0.9,1.1"
    )
    parser.add_argument("-j", "--workers", type=int, default=2, help="decoding threads or processes (default 2)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto")
    flags.add_flags(parser, Sources, "photos")


# ---- shared


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


VERBS: dict[str, tuple[Callable[[argparse.Namespace], int], Callable[[argparse.ArgumentParser], None]]] = {
    "demo": (demo, _demo_arguments),
    "scan": (scan, _scan_arguments),
    "split": (split, _split_arguments),
    "train": (train, _train_arguments),
    "evaluate": (evaluate, _evaluate_arguments),
    "predict": (predict, _predict_arguments),
    "compare": (workbench.compare, workbench.compare_arguments),
    "preview": (workbench.preview, workbench.preview_arguments),
    "lr-range": (workbench.lr_range, workbench.lr_range_arguments),
    "label": (workbench.label, workbench.label_arguments),
    "logs": (records.logs, records.logs_arguments),
}
