"""Whether a checkpoint is of the run that would go on from it, and what differs where it is not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FREE = ("recovery_interval",)  # settings of a recipe that change nothing of what it leads to
LONG = 60  # letters of a setting from which only what differs is told


def check_identity(old: Mapping[str, Any] | None, new: Mapping[str, Any], path: Path) -> None:
    """Nothing where a checkpoint is of the run that would go on from it: {"recipe": fields, and other values by name}.

    Raises: ValueError with what differs, or for a checkpoint of no run, which has none.
    """
    if old is None:
        raise ValueError(
            f"{path} holds weights, and not where a run stands; put the run's own last.pt back, or train anew in "
            "another folder, from these weights by --initial-checkpoint"
        )
    recipe = {key: value for key, value in new["recipe"].items() if key not in FREE}
    others = {key: value for key, value in new.items() if key != "recipe"}
    found = changes(old["recipe"], recipe) + changes(old, others)
    if not found:
        return
    raise ValueError(
        f"{path} is of another run and cannot be resumed ({'; '.join(found)}); start in a new folder, from this run's "
        "weights by --initial-checkpoint (checkpoint.start_from) with its folder model/"
    )


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs, as ["epochs: 2, now 3"]; of long texts the part that does."""
    return [f"{key}: {_change(repr(old.get(key)), repr(value))}" for key, value in new.items() if old.get(key) != value]


def _change(before: str, now: str) -> str:
    if len(before) + len(now) <= 2 * LONG:
        return f"{before}, now {now}"
    start = len(os.path.commonprefix([before, now]))
    end = len(os.path.commonprefix([before[start:][::-1], now[start:][::-1]]))
    start, end = max(0, start - LONG // 2), max(0, end - LONG // 4)
    left, right = "..." if start else "", "..." if end else ""
    parts = [f"{left}{text[start : len(text) - end]}{right}" for text in (before, now)]
    return f"{parts[0]}, now {parts[1]}"
