"""The scalars of one TensorBoard event file, read record by record without TensorFlow.

A file is a row of records: 8 bytes with the payload's length, their checksum (4), the payload, its checksum (4).
Source: TensorFlow, tensorflow/core/lib/io/record_writer.h.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

LONG = 65536  # bytes; a longer record without a number is a picture, say, whose checksum would take Python too long


class Scalar(NamedTuple):
    """A number that was written under a tag at a step; wall_time in seconds since 1970."""

    tag: str
    step: int
    wall_time: float
    value: float


class Restart(NamedTuple):
    """A run started again at this step: what it had written of it and of later steps is void (`purge_step`)."""

    step: int


def in_order(paths: Sequence[Path]) -> list[Path]:
    """The event files of one folder in the order in which they were begun; those without a first record come last.

    The names would not do: they count whole seconds, and then the number of the process.
    """
    return sorted(paths, key=lambda path: (_begun(path), path.name))


def events(path: Path, note: Callable[[str], None]) -> Iterator[Scalar | Restart]:
    """The scalars and restarts of a file as they were written; `note` hears of what could not be read, by name.

    A tensor counts where TensorBoard shows it as a scalar: one number, of the plugin `scalars` or of none.

    Raises: OSError of the file system.
    """
    from tensorboard.compat.proto.event_pb2 import SessionLog
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    plugins: dict[str, str] = {}  # the first value of a tag names its plugin, the others need not
    damaged = 0
    for payload, checksum in _records(path, note):
        event = _parsed(payload)
        found = [] if event is None else _scalars(event, plugins)
        restarts = event is not None and event.session_log.status == SessionLog.START
        checked = found or restarts or len(payload) < LONG
        if event is None or (checked and masked_crc32c(payload) != checksum):
            damaged += 1
            continue
        if restarts:
            yield Restart(event.step)
        yield from found
    if damaged:
        note(f"{path}: {damaged} damaged records are left out")


def _records(path: Path, note: Callable[[str], None]) -> Iterator[tuple[bytes, int]]:
    """Each record's payload and checksum, up to where the file ends or its framing breaks."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    with open(path, "rb") as file:
        size, start = os.fstat(file.fileno()).st_size, 0
        if not size:
            note(f"{path}: empty file")
        while start < size:
            head = file.read(12)
            length = int.from_bytes(head[:8], "little")
            if len(head) == 12 and masked_crc32c(head[:8]) != int.from_bytes(head[8:], "little"):
                where = f"damaged at byte {start} of {size}; what follows is not read"
                note(f"{path}: {where if start else 'is no event file; not read'}")
                return
            if len(head) < 12 or start + 12 + length + 4 > size:
                note(f"{path}: ends within a record, at byte {start} of {size}; what stands before it is read")
                return
            yield file.read(length), struct.unpack("<I", file.read(4))[0]
            start += 12 + length + 4


def _parsed(payload: bytes) -> Any:
    """The Event of a record, None where it is none."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    try:
        return Event.FromString(payload)
    except DecodeError:
        return None


def _scalars(event: Any, plugins: dict[str, str]) -> list[Scalar]:
    found = []
    for value in event.summary.value:
        tag = value.tag or value.node_name  # the oldest tensors name their node only
        plugin = plugins.setdefault(tag, value.metadata.plugin_data.plugin_name)
        number = None
        if value.WhichOneof("value") == "simple_value":
            number = value.simple_value
        elif value.WhichOneof("value") == "tensor" and plugin in ("scalars", ""):
            number = _number(value.tensor)
        if number is not None:
            found.append(Scalar(tag, event.step, event.wall_time, number))
    return found


def _number(tensor: Any) -> float | None:
    """The number of a tensor that holds just one."""
    from tensorboard.util.tensor_util import make_ndarray

    try:
        array = make_ndarray(tensor)
    except (TypeError, KeyError, ValueError):  # of a type that is no number's
        return None
    return float(array.item()) if array.size == 1 and array.dtype.kind in "fiub" else None


def _begun(path: Path) -> float:
    """When a file was begun: the time of its first record, infinite where there is none."""
    payload = next((payload for payload, _ in _records(path, lambda text: None)), None)
    event = None if payload is None else _parsed(payload)
    return float("inf") if event is None else event.wall_time
