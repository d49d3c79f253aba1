"""Which face detector is meant."""

from __future__ import annotations

from multihead.faces import Detector, Finder


def open_detector(name: str | None) -> Detector:
    """The detector of a name."""
    return Finder()
