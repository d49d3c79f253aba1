"""Event files made and read here by hand, against multihead.event_files and against TensorBoard's own reader."""

import math
import struct
import sys

import numpy as np
import pytest
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.util.tensor_util import make_tensor_proto

from multihead.event_files import Restart, Scalar, events, in_order


def record(event):
    """An event as a record with its checksums."""
    payload = event if isinstance(event, bytes) else event.SerializeToString()
    head = struct.pack("<Q", len(payload))
    sums = [struct.pack("<I", masked_crc32c(part)) for part in (head, payload)]
    return head + sums[0] + payload + sums[1]


def version(wall_time=0.0):
    return event_pb2.Event(wall_time=wall_time, file_version="brain.Event:2")


def start(step, wall_time=0.0):
    log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    return event_pb2.Event(step=step, wall_time=wall_time, session_log=log)


def number(tag, step, wall_time, value):
    return of_values(step, wall_time, summary_pb2.Summary.Value(tag=tag, simple_value=value))


def tensor(tag, step, array, plugin=None):
    value = summary_pb2.Summary.Value(tag=tag, tensor=make_tensor_proto(array))
    if plugin is not None:
        value.metadata.plugin_data.plugin_name = plugin
    return of_values(step, 0.0, value)


def of_values(step, wall_time, *values):
    return event_pb2.Event(step=step, wall_time=wall_time, summary=summary_pb2.Summary(value=values))


def write(path, *found):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(record(event) for event in found))
    return path


def by_hand(path):
    """Every (tag, step, wall_time, value) of a file's plain scalars, without a look at any checksum."""
    raw, place, found = path.read_bytes(), 0, []
    while place < len(raw):
        (length,) = struct.unpack_from("<Q", raw, place)
        event = event_pb2.Event.FromString(raw[place + 12 : place + 12 + length])
        plain = [value for value in event.summary.value if value.HasField("simple_value")]
        found += [(value.tag, event.step, event.wall_time, value.simple_value) for value in plain]
        place += length + 16
    return found


@pytest.fixture
def notes():
    return []


@pytest.fixture
def file(tmp_path):
    return tmp_path / "events.out.tfevents.1.host.1.0"


def test_scalars_and_restarts_as_they_were_written(file, notes):
    first = summary_pb2.Summary.Value(tag="loss", simple_value=0.5)
    second = summary_pb2.Summary.Value(tag="f1", simple_value=0.25)
    write(file, version(), of_values(1, 3.5, first, second), start(2), number("loss", 2, 4.5, math.inf))
    found = list(events(file, notes.append))
    assert found == [
        Scalar("loss", 1, 3.5, 0.5),
        Scalar("f1", 1, 3.5, 0.25),
        Restart(2),
        Scalar("loss", 2, 4.5, math.inf),
    ]
    assert notes == []


def test_a_file_of_torch_by_hand(tmp_path, notes):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(200):
            writer.add_scalar("loss", 1 / (step + 1), step)
            writer.add_scalar("train/f1", step / 7, 3 * step)
        writer.add_text("about", "words")
        writer.add_histogram("weights", np.arange(9.0), 1)
        writer.add_image("photo", np.zeros((3, 8, 8), np.uint8), 1)
    (path,) = tmp_path.iterdir()
    assert list(events(path, notes.append)) == by_hand(path) and len(by_hand(path)) == 400 and not notes


@pytest.mark.parametrize(
    ("array", "plugin", "value"),
    [
        (np.float32(0.5), "scalars", 0.5),
        (np.float64(1 / 3), "scalars", 1 / 3),
        (np.float16(0.25), None, 0.25),
        (np.int64(7), None, 7.0),
        (np.array([2.5], np.float32), "scalars", 2.5),
        (True, "scalars", 1.0),
        (np.float32(0.5), "pr_curves", None),
        (np.zeros(2, np.float32), "scalars", None),
        (np.zeros(0, np.float32), "scalars", None),
        (b"words", None, None),
        (1 + 2j, None, None),
    ],
)
def test_tensors_that_are_scalars(file, notes, array, plugin, value):
    write(file, version(), tensor("it", 3, array, plugin))
    expected = [] if value is None else [Scalar("it", 3, 0.0, value)]
    assert list(events(file, notes.append)) == expected and not notes


def test_a_tensor_of_no_type(file, notes):
    odd = tensor("it", 3, np.float32(1))
    odd.summary.value[0].tensor.dtype = 21  # a variant
    write(file, version(), odd, number("loss", 1, 0.0, 1.0))
    assert list(events(file, notes.append)) == [Scalar("loss", 1, 0.0, 1.0)]


def test_only_the_first_value_of_a_tag_names_its_plugin(file, notes):
    write(file, tensor("a", 1, 1.0, "scalars"), tensor("a", 2, 2.0), tensor("b", 1, 1.0, "other"), tensor("b", 2, 2.0))
    assert [(found.tag, found.step) for found in events(file, notes.append)] == [("a", 1), ("a", 2)]


def test_the_oldest_tensors_have_a_node_instead_of_a_tag(file, notes):
    value = summary_pb2.Summary.Value(node_name="loss", tensor=make_tensor_proto(0.5))
    write(file, of_values(1, 0.0, value))
    assert list(events(file, notes.append)) == [Scalar("loss", 1, 0.0, 0.5)]


def test_a_file_cut_off_at_any_byte_of_its_last_record(file, notes):
    whole = b"".join(map(record, [version(), number("loss", 1, 1.0, 0.5), number("loss", 2, 2.0, 0.25)]))
    last = len(whole) - len(record(number("loss", 2, 2.0, 0.25)))
    for end in range(last, len(whole)):
        file.write_bytes(whole[:end])
        notes.clear()
        assert list(events(file, notes.append)) == [Scalar("loss", 1, 1.0, 0.5)]
        cut = [f"{file}: ends within a record, at byte {last} of {end}; what stands before it is read"]
        assert notes == (cut if end > last else [])


@pytest.mark.parametrize("flip", [0x55, 0x40])  # the second makes fields unknown, so that nothing but the sum tells
def test_a_damaged_payload_costs_its_record_only(file, notes, flip):
    parts = [record(event) for event in (version(), number("loss", 1, 1.0, 0.5), number("loss", 2, 2.0, 0.25))]
    for place in range(12, len(parts[1])):
        bad = bytearray(parts[1])
        bad[place] ^= flip
        file.write_bytes(parts[0] + bytes(bad) + parts[2])
        notes.clear()
        found = list(events(file, notes.append))
        assert found == [Scalar("loss", 2, 2.0, 0.25)], place
        assert notes == [f"{file}: 1 damaged records are left out"], place


def test_a_damaged_restart_is_none(file, notes):
    bad = bytearray(record(start(300)))
    bad[-1] ^= 1
    file.write_bytes(record(number("loss", 2, 2.0, 0.25)) + bytes(bad))
    assert list(events(file, notes.append)) == [Scalar("loss", 2, 2.0, 0.25)] and "1 damaged" in notes[0]


def test_a_payload_that_is_no_event(file, notes):
    write(file, version(), b"\xff\xff\xff", number("loss", 2, 2.0, 0.25))
    assert list(events(file, notes.append)) == [Scalar("loss", 2, 2.0, 0.25)] and "1 damaged" in notes[0]


def test_a_damaged_length_ends_the_file(file, notes):
    parts = [record(event) for event in (number("loss", 1, 1.0, 0.5), number("loss", 2, 2.0, 0.25))]
    file.write_bytes(parts[0] + b"\1" + parts[1][1:] + parts[0])
    assert list(events(file, notes.append)) == [Scalar("loss", 1, 1.0, 0.5)]
    assert notes == [f"{file}: damaged at byte {len(parts[0])} of {file.stat().st_size}; what follows is not read"]


def test_a_length_of_exabytes_takes_no_memory(file, notes):
    head = struct.pack("<Q", 2**62)
    file.write_bytes(head + struct.pack("<I", masked_crc32c(head)) + b"few")
    assert list(events(file, notes.append)) == [] and "ends within a record, at byte 0 of 15" in notes[0]


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"", "empty file"), (b"no event file at all", "is no event file; not read"), (b"abc", "ends within")],
)
def test_a_file_that_is_none(file, notes, content, told):
    file.write_bytes(content)
    assert list(events(file, notes.append)) == []
    assert len(notes) == 1 and told in notes[0] and str(file) in notes[0]


def test_files_stand_in_the_order_in_which_they_were_begun(tmp_path):
    begun = {"tfevents.5.host.9.0": 5.7, "tfevents.5.host.10.0": 5.9, "tfevents.4.host.1.0": 8.0, "tfevents.1": None}
    paths = []
    for name, time in begun.items():
        path = tmp_path / name
        path.touch()
        paths.append(path if time is None else write(path, version(time)))
    assert [path.name for path in in_order(sorted(paths))] == [
        "tfevents.5.host.9.0",
        "tfevents.5.host.10.0",
        "tfevents.4.host.1.0",
        "tfevents.1",
    ]


def test_tensorflow_is_not_asked_for(file, notes, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # its import would fail
    write(file, version(), number("loss", 1, 1.0, 0.5), tensor("f1", 1, 0.5, "scalars"))
    assert len(list(events(file, notes.append))) == 2
