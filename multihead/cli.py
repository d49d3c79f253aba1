"""The command line: one verb a function; everything heavy is imported inside the verb."""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from multihead import (
    answering,
    flag_files,
    folding,
    gathering,
    panel,
    parsers,
    records,
    scoring,
    searching,
    shipping,
    training,
    workbench,
)
from multihead.logs import untold
from multihead.options import near
from multihead.trained import STARTED_IN


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; the exit status: 0, 1 nothing predicted (or --strict), 2 wrong input, 130 interrupted."""
    tokens = list(sys.argv[1:] if argv is None else argv)
    _fill_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # names of files need not be UTF-8
    parser = _parser(tokens)
    if tokens and not tokens[0].startswith("-") and tokens[0] not in VERBS:
        parser.error(f"unknown verb {tokens[0]!r}; expected one of {', '.join(VERBS)}{near(tokens[0], VERBS)}")
    verb = _parse(parser, tokens)
    try:
        verb = _configured(parser, verb, tokens)
        verb.reparse = functools.partial(_again, parser, tokens)
        with notes(verb.quiet), stoppable():
            return int(verb.run(verb) or 0)
    except BrokenPipeError:  # the reader of our output has seen enough, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as stop:
        goes_on = getattr(verb, "goes_on", verb.verb in GOES_ON)
        again = f"the same command {'goes on' if goes_on else 'begins anew'}"
        again = f"`multihead train --resume -o {verb.output}` goes on" if verb.verb == "train" else again
        with contextlib.suppress(OSError):  # a terminal that is gone
            print(f"interrupted; what was written stays, and {again}", file=sys.stderr)
        return 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)
    except (ValueError, KeyError, OSError, ImportError) as error:
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"multihead {verb.verb}: error: {text}", file=sys.stderr)
        return 2


def _fill_streams() -> None:
    """Put /dev/null where standard input, output or error are closed: a file that is opened would get their number, and
    what libraries say would land in it."""
    with contextlib.suppress(OSError):  # a system without it
        while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(spare, True)  # a process that is started has them too
        os.close(spare)
        sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 (open as long as the process)
        sys.stderr = sys.stderr or open(os.devnull, "w", errors="backslashreplace")  # noqa: SIM115


class Stopped(KeyboardInterrupt):
    """The process is asked to end by a signal other than that of Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP end the work as Ctrl-C does, which keeps what was written; those that somebody heeds
    or ignores, as nohup does, are left alone."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, _stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: object) -> None:
    raise Stopped(number)


def _parse(parser: argparse.ArgumentParser, tokens: Sequence[str]) -> argparse.Namespace:
    verb, rest = parser.parse_known_args(tokens)
    if rest:
        verb.parser.refuse_unknown(rest)
    return verb


@contextlib.contextmanager
def notes(quiet: bool) -> Iterator[None]:
    """Inside, what this package warns of is a line on standard error, once, or nothing; other warnings are as ever."""
    told: set[str] = set()  # each run of folds or a comparison would say the same
    with warnings.catch_warnings(), untold(quiet):
        warnings.filterwarnings("ignore" if quiet else "always", category=UserWarning, module=r"multihead\b")
        usual, own = warnings.showwarning, str(Path(__file__).parent)

        def show(message: Any, category: Any, filename: str, *more: Any, **others: Any) -> None:
            if filename.startswith(own):
                if str(message) not in told:
                    print(f"note: {message}", file=sys.stderr)
                told.add(str(message))
            else:
                usual(message, category, filename, *more, **others)

        warnings.showwarning = show
        yield


def _configured(parser: argparse.ArgumentParser, verb: argparse.Namespace, tokens: list[str]) -> argparse.Namespace:
    """The verb's arguments with those of a file: that of -c, or, for a --resume, of its run."""
    if getattr(verb, "resume", False) and not verb.config:
        folder = Path(os.path.abspath(verb.output))
        if not (folder / "args.yaml").is_file():
            return verb
        verb.config = str(folder / "args.yaml")
        verb = _with_config(parser, verb, tokens)
        verb.output = str(folder)
        return verb
    return _with_config(parser, verb, tokens) if getattr(verb, "config", None) else verb


def _placed(content: dict[str, Any], parser: argparse.ArgumentParser) -> dict[str, Any]:
    """A run's args.yaml; files and folders that are not here, but were where it was started, are named from there."""
    there = Path(str(content.get(STARTED_IN, "")))
    places = {action.dest for action in parser._actions if action.metavar in ("DATA", "FILE", "DIR", "PATH")}

    def placed(value: Any) -> Any:
        if isinstance(value, list):
            return [placed(each) for each in value]
        found = isinstance(value, str) and not Path(value).exists() and (there / value).exists()
        return os.path.abspath(there / value) if found else value

    return {key: placed(value) if key in places else value for key, value in content.items()}


def _with_config(parser: argparse.ArgumentParser, verb: argparse.Namespace, tokens: list[str]) -> argparse.Namespace:
    """The verb's arguments with those of its YAML file first, so that flags on the command line win."""
    content = flag_files.read_yaml(verb.config)
    if getattr(verb, "resume", False):
        content = _placed(content, verb.parser)
    content.pop(STARTED_IN, None)
    for own in {"arms", "space"} & set(vars(verb)):
        content.pop(own, None)  # the verb reads it itself
    more, positionals = flag_files.yaml_tokens(content, verb.parser, verb.config)
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
    return _configured(parser, _parse(parser, tokens), tokens)


def _parser(tokens: Sequence[str]) -> argparse.ArgumentParser:
    parser = parsers.Parser(
        prog="multihead", description="Multi-head classifiers of faces and people: mask, gender, age."
    )
    from multihead import __version__

    parser.add_argument("--version", action="version", version=f"multihead {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=parsers.Parser)
    named = next((token for token in tokens if token in VERBS), None)
    for name, (run, arguments) in VERBS.items():
        text = (run.__doc__ or f"{name} (python -OO removes the help)").splitlines()[0]
        verb = verbs.add_parser(name, help=text, description=text)
        verb.set_defaults(run=run, parser=verb)
        if name == named:  # the other verbs' flags are not needed: the help stays fast
            arguments(verb)
            verb.add_argument("-q", "--quiet", action="store_true", help="say only errors")
    return parser


GOES_ON = ("demo", "scan", "folds", "compare", "tune")  # where they were interrupted

VERBS: dict[str, tuple[Callable[[argparse.Namespace], int], Callable[[argparse.ArgumentParser], None]]] = {
    "demo": (gathering.demo, gathering.demo_arguments),
    "scan": (gathering.scan, gathering.scan_arguments),
    "split": (gathering.split, gathering.split_arguments),
    "train": (training.train, training.train_arguments),
    "evaluate": (scoring.evaluate, scoring.evaluate_arguments),
    "predict": (answering.predict, answering.predict_arguments),
    "folds": (folding.folds, folding.folds_arguments),
    "ensemble": (panel.ensemble, panel.ensemble_arguments),
    "compare": (workbench.compare, workbench.compare_arguments),
    "tune": (searching.tune, searching.tune_arguments),
    "preview": (workbench.preview, workbench.preview_arguments),
    "lr-range": (workbench.lr_range, workbench.lr_range_arguments),
    "label": (workbench.label, workbench.label_arguments),
    "export": (shipping.export, shipping.export_arguments),
    "logs": (records.logs, records.logs_arguments),
    "report": (records.report, records.report_arguments),
}
