import hashlib
import os
import time

import numpy as np
import pytest
from PIL import Image

import multihead.contents as module
from multihead.contents import Contents
from multihead.decoders import ImageError


@pytest.fixture
def opened(monkeypatch):
    """The files that were read."""
    found, plain = [], module.open_image
    monkeypatch.setattr(module, "open_image", lambda file: found.append(file) or plain(file))
    return found


def photo(path, colour, age=60.0):
    """A file of always the same length, written `age` seconds ago."""
    Image.fromarray(np.full((4, 6, 3), colour, np.uint8)).save(path)
    os.utime(path, (time.time() - age,) * 2)
    return str(path)


def test_digest_and_size(tmp_path):
    file = photo(tmp_path / "a.bmp", 5)
    found = Contents().of(file)
    assert found.size == (4, 6)
    assert found.digest == hashlib.blake2b((tmp_path / "a.bmp").read_bytes(), digest_size=16).digest()


def test_a_file_is_read_once_while_it_stays(tmp_path, opened):
    file, index = photo(tmp_path / "a.bmp", 5), tmp_path / "index"
    contents = Contents(index)
    first = contents.of(file)
    assert contents.of(file) == first and opened == [file]
    contents.save()
    assert Contents(index).of(file) == first and opened == [file]


def test_a_file_changed_in_place_is_read_again(tmp_path, opened):
    file, contents = photo(tmp_path / "a.bmp", 5), Contents()
    first, length = contents.of(file), os.stat(file).st_size
    second = contents.of(photo(tmp_path / "a.bmp", 6, 59.0))
    assert os.stat(file).st_size == length and first.digest != second.digest and opened == [file, file]


def test_a_file_written_just_now_is_not_trusted_to_stay(tmp_path, opened):
    file, contents = photo(tmp_path / "a.bmp", 5, 0.0), Contents(tmp_path / "index")
    contents.of(file), contents.of(file), contents.save()
    assert opened == [file, file] and not (tmp_path / "index").exists()


def test_another_process_is_not_forgotten(tmp_path, opened):
    files = [photo(tmp_path / f"{number}.bmp", number) for number in range(2)]
    both = [Contents(tmp_path / "index") for _ in files]
    for contents, file in zip(both, files):
        contents.of(file)
    for contents in both:
        contents.save()
    opened.clear()
    third = Contents(tmp_path / "index")
    assert [third.of(file).digest for file in files] == [one.of(file).digest for one, file in zip(both, files)]
    assert opened == []


def test_what_is_no_photo_is_an_error_every_time(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    contents = Contents()
    for name, reason in (("a.jpg", "empty file"), ("gone.jpg", "no such file"), ("a.jpg", "empty file")):
        with pytest.raises(ImageError, match=reason):
            contents.of(str(tmp_path / name))
