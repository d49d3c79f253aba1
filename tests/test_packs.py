import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multihead.packs import FileWriter, MemoryWriter, Shelf, open_pack

SIZE = (2, 3)


def picture(number):
    return np.full((*SIZE, 3), number, np.uint8)


def key(number):
    return bytes([number, 0]) * 8  # ends in a zero, which text would lose


def written(folder, numbers):
    writer = FileWriter(folder, SIZE)
    for number in numbers:
        writer.add(key(number), picture(number))
    return writer.close()


@given(st.lists(st.lists(st.integers(0, 30), max_size=8), min_size=1, max_size=6), st.data())
def test_packs_together_hold_what_was_put_into_each(sets, data):
    """Against a dictionary: any sets written one after another, looked up in any order."""
    with tempfile.TemporaryDirectory() as folder:
        assert [written(Path(folder), numbers) is None for numbers in sets] == [not numbers for numbers in sets]
        shelf, there = Shelf(Path(folder), SIZE), sorted({number for numbers in sets for number in numbers})
        shelf.refresh()
        assert set(shelf.places) == {key(number) for number in there}
        for number in data.draw(st.permutations(there)):
            pack, place = shelf.places[key(number)]
            assert pack.check(place) and np.array_equal(pack.pixels[place], picture(number))


def test_a_pack_has_its_name_when_it_is_whole(tmp_path):
    writer = FileWriter(tmp_path, SIZE)
    writer.add(key(1), picture(1))
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    pack = writer.close()
    assert list(tmp_path.iterdir()) == [pack.path] and pack.path.suffix == ".pack"
    assert pack.keys() == [key(1)] and not pack.pixels.flags.writeable
    assert written(tmp_path, []) is None and len(list(tmp_path.iterdir())) == 1


def test_a_picture_that_was_interrupted_is_left_out(tmp_path):
    writer = FileWriter(tmp_path, SIZE)
    writer.add(key(1), picture(1))
    writer.file.write(b"half of the next" * 20)
    pack = writer.close()
    assert pack.keys() == [key(1)] and pack.check(0)


def test_memory_holds_the_same(tmp_path):
    writer = MemoryWriter(5, SIZE)
    assert MemoryWriter(5, SIZE).close() is None
    for number in (4, 2):
        writer.add(key(number), picture(number))
    pack = writer.close()
    assert pack.keys() == [key(4), key(2)] and pack.pixels.shape == (2, *SIZE, 3) and pack.check(1)


def test_only_whole_packs_of_the_size_open(tmp_path):
    path = written(tmp_path, range(5)).path
    with pytest.raises(ValueError, match="no whole pack of 3 x 2 pixels"):
        open_pack(path, (3, 2))
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match="no whole pack"):
            open_pack(path, SIZE)
