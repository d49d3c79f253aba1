"""The verbs that read what runs have left: logs as a table, a report as a page."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from multihead import parsers
from multihead.logs import tell
from multihead.settings import device, speaker

if TYPE_CHECKING:
    import pandas as pd


def logs(args: argparse.Namespace) -> int:
    """Put logs of runs, TensorBoard event files and metrics.csv, into one table; draws learning curves."""
    from multihead import event_logs
    from multihead.files import check_writable

    if args.output:
        _check_ending(Path(args.output))
        check_writable(args.output)
    with warnings.catch_warnings(record=True) as noticed:
        warnings.simplefilter("always")
        table = event_logs.read_logs(args.paths, source=args.source)
    for notice in noticed:  # with --quiet too: something was not read
        print(f"note: {notice.message}", file=sys.stderr)
    if table.empty:
        print(f"no numbers in the logs of {', '.join(args.paths)}: nothing to write", file=sys.stderr)
        return 1
    table = event_logs.chosen(table, args.tags) if args.tags else table
    _write(event_logs.wide(table) if args.wide else table, args.output)
    drawn = event_logs.draw_all(table, args.plot) if args.plot else []
    say = speaker(args) if args.output else tell  # a printed table stays a table
    say(f"{table.run.nunique()} runs, {table.tag.nunique()} tags, {len(table)} values")
    if args.output:
        say(f"wrote {args.output}")
    if args.plot:
        say(f"{len(drawn)} pictures in {args.plot}")
    return 0


def logs_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `multihead logs`."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="runs, folders of runs, event files, metrics.csv")
    parser.add_argument("-o", "--output", metavar="FILE", help="table to write, .csv or .parquet (default: printed)")
    parser.add_argument(
        "--tags", nargs="+", default=[], metavar="TAG", help="only these, as macro_f1 loss '*_f1' (default: all)"
    )
    parser.add_argument("--plot", metavar="DIR", help="folder for learning curves, a picture a tag (default: none)")
    parser.add_argument("--wide", action="store_true", help="a row a run and step, a column a tag; no times")
    parser.add_argument(
        "--source",
        default="auto",
        type=parsers.one_of(["auto", "events", "metrics"]),
        metavar="{auto,events,metrics}",
        help="events, metrics (metrics.csv), or auto: metrics only where there are no events (default auto)",
    )


def _check_ending(path: Path) -> None:
    """Nothing where the table can be written in the format of this name's ending. Raises: ValueError, ImportError."""
    import importlib.util

    ending = path.suffix.lower()
    if ending not in (".csv", ".parquet"):
        raise ValueError(f"--output {path} ends in {ending!r}; expected .csv or .parquet")
    if ending == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ImportError(f"{path} needs pyarrow: pip install 'multihead[parquet]', or write a .csv")


def _write(table: pd.DataFrame, path: str | None) -> None:
    """Print a table as CSV, or write it in the format of the path's ending."""
    from multihead.files import replace_file, write_text

    if path is None:
        print(table.to_csv(index=False), end="")
    elif Path(path).suffix.lower() == ".csv":
        write_text(path, table.to_csv(index=False))
    else:
        replace_file(path, lambda fresh: table.to_parquet(fresh, engine="pyarrow", index=False))


# ---- report


def report(args: argparse.Namespace) -> int:
    """Write one HTML page on a run, folds or comparison folder: scores, intervals, slices, calibration, errors."""
    from multihead.report import report as write

    options = {"batch_size": args.batch_size, "workers": args.workers, "device": device(args.device)}
    page = write(args.folder, args.output, errors=args.errors, maps=args.maps, **options)
    speaker(args)(f"wrote {page}: {page.stat().st_size / 2**20:.1f} MB, open it in a browser")
    return 0


def report_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `multihead report`."""
    parser.add_argument("folder", metavar="FOLDER", help="what multihead train, folds or compare wrote")
    parser.add_argument("-o", "--output", help="page to write (default FOLDER/report.html)")
    parser.add_argument("--errors", type=int, default=24, help="wrong answers to show, surest first (default 24)")
    text = "show where the model looked, beside the wrong answers (default on)"
    parser.add_argument("--maps", action=argparse.BooleanOptionalAction, default=True, help=text)
    parser.add_argument("-b", "--batch-size", type=int, default=64, help="photos a batch (default 64)")
    parser.add_argument("-j", "--workers", type=int, default=2, help="decoding processes (default 2)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto (default auto)")
