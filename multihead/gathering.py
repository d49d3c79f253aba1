"""The verbs before training: a job on drawn people, the search of photos for faces, their division by person."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from multihead import flags, parsers
from multihead.logs import tell
from multihead.parts import read_sources
from multihead.settings import Sources, speaker

if TYPE_CHECKING:
    from multihead import scanning


# ---- demo


def demo(args: argparse.Namespace) -> int:
    """Draw people, train on some, score and predict the others: the whole job without any data of yours."""
    from multihead.demo import demo as run

    run(Path(args.output), people=args.people, epochs=args.epochs, seed=args.seed, say=speaker(args))
    return 0


def demo_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of demo."""
    parser.add_argument(
        "-o", "--output", default="runs/demo", help="folder for everything it makes (default runs/demo)"
    )
    parser.add_argument("--people", type=int, default=240, help="people to draw (default 240)")
    parser.add_argument("--epochs", type=int, default=None, help="passes over the training photos (default 16)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default 0)")


# ---- scan


def scan(args: argparse.Namespace) -> int:
    """Search photos for faces and write a table of boxes; goes on where it was interrupted."""
    from multihead import scanning
    from multihead.logs import bar, watched
    from multihead.yunet import open_detector

    say = speaker(args)
    finder = open_detector(args.detector)  # a wrong file is said before the photos are read
    files, root = _files_to_scan(args)
    with bar(0, "scan", not args.quiet and watched()) as shown:

        def progress(done: int, total: int, counts: scanning.ScanCounts) -> None:
            shown.total = total
            shown.update(done - shown.n)

        options = {"root": root, "which": args.faces, "finder": finder, "workers": args.workers}
        counts = scanning.scan(files, args.output, **options, progress=progress)
    for problem in counts.problems:
        print(f"unreadable: {problem}", file=sys.stderr)
    say(
        f"{counts.found} with a face, {counts.none} without, {counts.unreadable} unreadable, "
        f"{counts.skipped} known before"
    )
    if counts.skipped:
        say(f"those known before stand as they were found; to search anew, with other flags too, remove {args.output}")
    say(f"wrote {args.output}")
    return 0


def _files_to_scan(args: argparse.Namespace) -> tuple[Iterable[str], Path | None]:
    """The photos of the sources, and the folder that their names are relative to, if there is one."""
    from multihead.images import iter_image_files
    from multihead.layouts import competition_images

    folder = Path(args.data[0])
    plain = len(args.data) == 1 and folder.is_dir() and not (args.boxes or args.columns)
    if plain and competition_images(folder) is None:  # no table is made of what may be a million names
        found = map(str, iter_image_files(folder))
        first = next(found, None)
        if first is not None:
            return chain([first], found), folder
    photos = read_sources(args, heads=())
    roots = set(photos.table.root)
    return photos.paths, Path(roots.pop()) if len(roots) == 1 else None


def scan_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of scan."""
    parser.add_argument("data", nargs="+", metavar="SOURCE", help="folders or tables")
    parser.add_argument("-o", "--output", default="boxes.csv", help="table to write (default boxes.csv)")
    parser.add_argument(
        "--faces",
        default="largest",
        type=parsers.one_of(["largest", "central", "all"]),
        metavar="{largest,central,all}",
        help="which faces of a photo get a row: the largest, the most central, or all (default largest)",
    )
    parser.add_argument(
        "--detector", metavar="FILE", help="mtcnn (default), or the path of a YuNet .onnx file, which is faster"
    )
    parser.add_argument("-j", "--workers", type=int, help="lanes that share the cores (default: one a core, at most 8)")
    flags.add_flags(parser, Sources, "photos")


# ---- split


def split(args: argparse.Namespace) -> int:
    """Divide photos into training and validation by person and write the table with its split column."""
    from multihead.columns import where_labels_stand
    from multihead.data import write_splits
    from multihead.files import check_writable

    check_writable(args.output)
    photos = read_sources(args)
    if old := photos.table.split[photos.table.split != ""].value_counts().to_dict():
        parts = ", ".join(f"{count} {name}" for name, count in sorted(old.items()))
        tell(f"note: all photos are divided anew, whatever their split column says ({parts})")
    train, valid = photos.split(args.val_share, seed=args.seed)
    write_splits(args.output, {"train": train, "val": valid})
    if not any(photos.known().values()):
        tell(f"none of the photos has a label; {where_labels_stand(photos.heads)}")
    say = speaker(args)
    counts = train.counts().merge(valid.counts(), on=["head", "class"], suffixes=(" train", " val"))
    say(counts.to_string(index=False))
    say(f"wrote {args.output}: {len(train)} rows train, {len(valid)} validate, nobody on both sides")
    return 0


def split_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of split."""
    parser.add_argument("data", nargs="+", metavar="DATA", help="folders or tables")
    parser.add_argument("-o", "--output", default="splits.csv", help="table to write (default splits.csv)")
    parser.add_argument("--val-share", type=float, default=0.2, help="share that validates (default 0.2)")
    parser.add_argument("--seed", type=int, default=0, help="seed (default 0)")
    flags.add_flags(parser, Sources, "photos")
