"""The verbs that help to find a recipe: compare, preview, lr-range, and label for a teacher's answers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from multihead import flag_files, flags
from multihead.arms import build_arms, changes
from multihead.logs import tell
from multihead.parts import chosen_rows, parts, read_sources, tell_of_starts, training_photos
from multihead.recipe import Recipe
from multihead.settings import (
    EXTRA_HELP,
    Keeping,
    Network,
    Session,
    Sources,
    Training,
    add_mix_flags,
    build_heads,
    build_model,
    build_recipe,
    device,
    silent,
    speaker,
)


def add_training_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a model, its recipe and its photos; -c for a file of them."""
    parser.add_argument("data", nargs="*", metavar="DATA", help="folders or tables")
    parser.add_argument(
        "-c", "--config", metavar="FILE", help="YAML file of flags; flags on the command line win (default: none)"
    )
    for kind, title in ((Network, "model"), (Training, "training photos"), (Recipe, "recipe"), (Sources, "photos")):
        flags.add_flags(parser, kind, title)
    add_mix_flags(parser)


def need_data(args: argparse.Namespace) -> None:
    """Complain where no photos are named. Raises: SystemExit."""
    if not args.data and getattr(args, "resume", False):
        place = args.output or "the default --output"
        args.parser.error(f"{place} holds no args.yaml of a run to go on with; name its folder, or DATA and every flag")
    if not args.data:
        args.parser.error("DATA is missing: name a folder of photos or a table")


# ---- compare


def compare(args: argparse.Namespace) -> int:
    """Train several ways on the same folds and seeds and tell how they differ, with intervals; goes on if repeated."""
    need_data(args)
    from multihead import ranks
    from multihead.comparison import compare as run
    from multihead.paired import table

    ranks.start()
    content = flag_files.read_yaml(args.config) if args.config else {}
    if args.seed is not None:
        raise ValueError(f"--seed {args.seed} has no meaning for compare; expected --seeds, as in --seeds 0 1 2")
    arms = build_arms(changes(content, args.vary), args.reparse)
    say = speaker(args) if ranks.first() else silent
    photos, extra = training_photos(args, say)
    say(f"{len(arms)} arms, {args.folds} folds, seeds {' '.join(map(str, args.seeds))}: {photos}")
    tell_of_starts([arm.about.get("initial_checkpoint") for arm in arms.values()], photos)
    found = run(
        arms,
        photos,
        args.output,
        folds=args.folds,
        seeds=args.seeds,
        extra=extra,
        sources=args.score_source,
        workers=args.workers,
        cache=flags.build(Keeping, vars(args)).opened(),
        say=say,
    )
    say(table(found))
    pictures = "curves.png, differences.png" if len(arms) > 1 else "curves.png"
    say(f"wrote {args.output}: results.csv, summary.csv, summary.md, times.csv, {pictures}")
    return 0


def compare_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `multihead compare`."""
    parser.add_argument(
        "--vary", nargs="+", default=[], metavar="FLAG=A,B", help="arms: as opt=adamw,adam,madgrad (default: of -c)"
    )
    parser.add_argument("-o", "--output", default="runs/compare", help="folder (default runs/compare)")
    parser.add_argument("--folds", type=int, default=3, help="parts by person, each scored once a seed (default 3)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of the runs (default 0)")
    parser.add_argument("--extra", nargs="+", default=[], metavar="DATA", help=EXTRA_HELP)
    parser.add_argument(
        "--score-source",
        nargs="+",
        default=[],
        metavar="NAME",
        help="score photos of these sources only (default: all)",
    )
    parser.add_argument("--ignore-split", action="store_true", help="do not use the table's split column")
    parser.add_argument("-j", "--workers", type=int, default=0, help="loader processes (default 0)")
    flags.add_flags(parser, Keeping, "kept crops")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto (default auto)")
    add_training_flags(parser)
    parser.set_defaults(arms=None)


# ---- preview


def preview(args: argparse.Namespace) -> int:
    """Draw training photos as the model sees them, augmented and mixed, with their target rows, as one PNG."""
    need_data(args)
    from multihead.files import check_writable
    from multihead.preview import preview as draw

    check_writable(args.output)
    values = vars(args)
    heads, recipe = build_heads(flags.build(Network, values)), build_recipe(values)
    photos = chosen_rows(read_sources(args), flags.build(Training, values), heads)
    if (photos.table.split == "train").any():
        photos = photos.part("train")
    options = {"batches": args.batches, "epoch": args.epoch, "workers": args.workers}
    shown = draw(photos, heads, recipe, args.output, **options)
    speaker(args)(f"wrote {args.output}: {shown} photos of epoch {args.epoch}")
    return 0


def preview_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `multihead preview`."""
    parser.add_argument("-o", "--output", default="preview.png", help="picture to write (default preview.png)")
    parser.add_argument("--batches", type=int, default=1, help="batches to draw (default 1)")
    parser.add_argument("--epoch", type=int, default=1, help="of which epoch (default 1)")
    parser.add_argument("-j", "--workers", type=int, default=2, help="decoding threads (default 2)")
    add_training_flags(parser)


# ---- lr-range


def lr_range(args: argparse.Namespace) -> int:
    """Train a little while the learning rate rises, and draw the loss: where to set --lr."""
    need_data(args)
    import torch

    from multihead.files import check_writable
    from multihead.lr_range import lr_range as test

    if Path(args.output).suffix == ".png":
        name = Path(args.output).name
        raise ValueError(f"--output {args.output}; expected the table, beside which the picture is {name}")
    check_writable(args.output)
    values, say = vars(args), speaker(args)
    recipe, session = build_recipe(values), Session(ignore_split=args.ignore_split)
    training, _ = parts(args, session, recipe.seed)
    network = flags.build(Network, values)
    training = chosen_rows(training, flags.build(Training, values), build_heads(network))
    torch.manual_seed(recipe.seed)
    model = build_model(network, say).to(device(args.device))
    options = {"low": args.low, "high": args.high, "steps": args.steps, "workers": args.workers}
    found = test(model, training, recipe, **options, cache=flags.build(Keeping, values).opened())
    found.write(args.output)
    say(f"{len(found.rates)} steps; the loss falls fastest at lr {found.steepest:.3g}, is lowest at {found.lowest:.3g}")
    say(f"wrote {args.output} and {Path(args.output).with_suffix('.png')}")
    return 0


def lr_range_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `multihead lr-range`."""
    parser.add_argument("-o", "--output", default="lr_range.csv", help="table to write (default lr_range.csv)")
    parser.add_argument("--low", type=float, default=1e-6, help="first rate (default 1e-6)")
    parser.add_argument("--high", type=float, default=1.0, help="last rate (default 1)")
    parser.add_argument("--steps", type=int, default=100, help="steps (default 100)")
    parser.add_argument("--ignore-split", action="store_true", help="do not use the table's split column")
    parser.add_argument("-j", "--workers", type=int, default=2, help="loader processes (default 2)")
    flags.add_flags(parser, Keeping, "kept crops")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto (default auto)")
    add_training_flags(parser)


# ---- label


def label(args: argparse.Namespace) -> int:
    """Write photos with a model's answers to train on: sure answers as labels, or all of them as soft targets."""
    from multihead.evaluation import label_heads
    from multihead.files import check_writable
    from multihead.joined import load
    from multihead.teaching import pseudo_label, soften

    check_writable(args.output)
    model, say = load(args.model).to(device(args.device)), speaker(args)
    photos = read_sources(args, heads=label_heads(model))
    if not args.threshold and not args.soft:
        raise ValueError("say how sure a label must be, as --threshold mask=.95 gender=.9 age=.8, or give --soft")
    options: dict[str, Any] = {"batch_size": args.batch_size, "workers": args.workers}
    if args.threshold:
        photos = pseudo_label(model, photos, dict(args.threshold), **options)
        filled = int((photos.table.pseudo != "").sum())
        say(f"{filled} of {len(photos)} photos got labels from the model; column pseudo names the heads")
    if args.soft:
        photos = soften(model, photos, **options)
        say(f"{int((photos.table['joint:0'] != '').sum())} of {len(photos)} photos carry the model's answers")
    photos.write(args.output)
    tell(
        "these labels are a model's: train on them (--extra), never validate; labels of the very photos that a "
        "score is reported on are leakage"
    )
    say(f"wrote {args.output}")
    return 0


def label_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `multihead label`."""
    parser.add_argument("model", metavar="MODEL", help="model, ensemble or run folder")
    parser.add_argument("data", nargs="+", metavar="DATA", help="folders or tables")
    parser.add_argument("-o", "--output", default="labelled.csv", help="table to write (default labelled.csv)")
    parser.add_argument(
        "--threshold",
        nargs="+",
        type=_threshold,
        default=[],
        metavar="NAME=VALUE",
        help="least probability, as gender=.9 mask=.5,.95,.95 (default: no labels)",
    )
    parser.add_argument("--soft", action="store_true", help="add all answers, for --distill")
    parser.add_argument("-b", "--batch-size", type=int, default=64, help="photos a batch (default 64)")
    parser.add_argument("-j", "--workers", type=int, default=2, help="decoding processes (default 2)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto (default auto)")
    flags.add_flags(parser, Sources, "photos")


def _threshold(text: str) -> tuple[str, float | tuple[float, ...]]:
    name, _, rest = text.partition("=")
    try:
        numbers = tuple(float(part) for part in rest.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; expected HEAD=NUMBER, or one a class as mask=.5,.95,.95") from None
    return name, numbers[0] if len(numbers) == 1 else numbers
