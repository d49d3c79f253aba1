"""What a run leaves to read: one CSV row and one event an epoch, and a bar while it runs."""

from __future__ import annotations

import contextlib
import csv
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from multihead.files import write_text

_told: list[bool] = [True]  # whether what goes on is told
LISTED = 20  # photos that cannot be read or answered and are named one by one; the others are counted


def tell(text: str) -> None:
    """Say what goes on, or is worth a note, on standard error, except within `untold`: nothing that is wrong."""
    if _told[-1]:
        print(text, file=sys.stderr)


@contextlib.contextmanager
def untold(quiet: bool = True) -> Iterator[None]:
    """Inside, in all threads, what goes on is not told if `quiet`."""
    _told.append(not quiet)
    try:
        yield
    finally:
        _told.pop()


def write_rows(path: str | Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows as a CSV, whole or not at all; a row without one of the columns leaves it blank."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


class Events:
    """TensorBoard events of a run: every number of a row under its name, epochs as steps."""

    def __init__(self, folder: str | Path, first_epoch: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # purge: events of epochs that are trained again after a resume disappear from the curves, the first's too
        self.writer = SummaryWriter(str(folder), purge_step=first_epoch)

    def add(self, row: Mapping[str, object]) -> None:
        """Write the numbers of one epoch's row."""
        for name, value in row.items():
            if isinstance(value, (int, float)) and name != "epoch":
                self.writer.add_scalar(name, value, int(row["epoch"]))  # type: ignore[call-overload]
        self.writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self.writer.close()


def bar(total: int, label: str, shown: bool) -> Any:
    """A tqdm bar on standard error, in a notebook one of its own; silent unless `shown`."""
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=label, unit=" photos", disable=not shown, leave=False)


def watched() -> bool:
    """Whether somebody sees a bar that nobody asked for: standard error is a terminal."""
    return sys.stderr.isatty()


def line(row: Mapping[str, object]) -> str:
    """An epoch's row as one line of text."""
    parts = [f"epoch {row['epoch']}"]
    parts += [f"{name} {value:.4g}" for name, value in row.items() if isinstance(value, float) and name != "seconds"]
    return "  ".join(parts)
