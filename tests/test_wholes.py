"""Folders that are there whole, or not at all."""

import os
import signal
import subprocess
import sys
import time

import pytest

from multihead.files import take
from multihead.wholes import whole_folder

NAMES = ["README.md", "a", "b", "config.json", "z.bin"]


def fill(place, text="new"):
    for name in NAMES:
        (place / name).write_text(text)
    (place / "preprocess").mkdir()
    (place / "preprocess" / "x.py").write_text(text)


def held(folder):
    return sorted(path.name for path in folder.iterdir())


def write(folder):
    with whole_folder(folder, "a model") as place:
        fill(place)


@pytest.mark.parametrize("there", [False, True])
def test_a_new_or_an_empty_folder_is_filled(tmp_path, there):
    folder = tmp_path / "deep" / "m"
    if there:
        folder.mkdir(parents=True)
    write(folder)
    assert held(folder) == sorted([*NAMES, "preprocess"]) and held(folder.parent) == ["m"]


@pytest.mark.parametrize("there", [False, True])
def test_an_error_leaves_nothing(tmp_path, there):
    folder = tmp_path / "m"
    if there:
        folder.mkdir()
    with pytest.raises(KeyboardInterrupt), whole_folder(folder, "a model") as place:
        fill(place)
        raise KeyboardInterrupt
    assert not any(tmp_path.rglob("*")) or held(tmp_path) == ["m"] and held(folder) == []
    write(folder)


def test_what_is_there_is_kept(tmp_path):
    folder = tmp_path / "m"
    write(folder)
    (folder / "a").write_text("mine")
    with pytest.raises(FileExistsError, match="m is not empty; name a new folder for a model"):
        write(folder)
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError, match="file is a file; name a new folder"):
        write(tmp_path / "file")
    assert (folder / "a").read_text() == "mine" and (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("there", [False, True])
def test_two_processes_do_not_mix(tmp_path, there):
    folder = tmp_path / "m"
    if there:
        folder.mkdir()
    lock = take((folder if there else tmp_path) / ".m.lock")
    with lock, pytest.raises(FileExistsError, match="another process is writing .*m; wait for it"):
        write(folder)
    write(folder)  # it ended, or was killed


STOPPED = """
import os, signal, sys
from pathlib import Path
import multihead.wholes as wholes
sys.path.insert(0, {tests!r})
from test_wholes import write
count = [0]
real = os.replace
def replace(source, target):
    count[0] += 1
    if count[0] == {at}:
        {do}
    real(source, target)
wholes.os.replace = replace
write(Path({folder!r}))
"""


@pytest.mark.parametrize("at", [1, 2, 4, 6])
@pytest.mark.parametrize("do", ["os.kill(os.getpid(), signal.SIGKILL)", "raise KeyboardInterrupt"])
def test_the_same_call_begins_anew_after_a_kill_between_two_parts(tmp_path, at, do):
    folder = tmp_path / "m"
    folder.mkdir()
    code = STOPPED.format(tests=os.path.dirname(__file__), at=at, do=do, folder=str(folder))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == -(signal.SIGKILL if "KILL" in do else signal.SIGINT), ended.stderr
    assert not (folder / "config.json").exists()  # what says that it is whole comes last
    if "KILL" not in do:
        assert held(folder) == []
    write(folder)
    assert held(folder) == sorted([*NAMES, "preprocess"])


def test_what_a_killed_process_left_beside_goes(tmp_path):
    folder, code = tmp_path / "m", "open({!r}, 'w').write('x'); time.sleep(60)".format(str(tmp_path / "begun"))
    program = f"import sys, time; sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
    program += f"from multihead.wholes import whole_folder\nwith whole_folder({str(folder)!r}, 'x') as place: {code}"
    with subprocess.Popen([sys.executable, "-c", program]) as running:
        ends = time.monotonic() + 60
        while not (tmp_path / "begun").exists() and time.monotonic() < ends:
            time.sleep(0.05)
        with pytest.raises(FileExistsError, match="another process is writing"):
            write(folder)
        running.kill()
    (tmp_path / "begun").unlink()
    (tmp_path / ".m-mine").mkdir()  # which is not of this
    assert any(name.startswith(".m-") and name != ".m-mine" for name in held(tmp_path))
    write(folder)
    assert held(tmp_path) == [".m-mine", "m"]


def test_a_folder_of_a_longer_name_is_another_ones(tmp_path):
    """Two exports at once, into m and m-int8."""
    with whole_folder(tmp_path / "m-int8", "a model") as place:
        fill(place)
        write(tmp_path / "m")
        assert place.is_dir()
    assert held(tmp_path) == ["m", "m-int8"] and (tmp_path / "m-int8" / "config.json").is_file()
