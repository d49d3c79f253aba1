import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multihead.crops import FULL
from multihead.files import cache_folder, check_writable, growing, locked, replace_file, turn, write_text
from multihead.heads import MASK
from multihead.model import Model

ROOT = str(Path(__file__).parents[1])


def test_a_file_is_replaced_and_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "c.txt"
    replace_file(path, lambda fresh: fresh.write_text("one"))
    inode = path.stat().st_ino
    replace_file(str(path), lambda fresh: fresh.write_text("two"))
    assert path.read_text() == "two" and path.stat().st_ino != inode
    assert os.listdir(path.parent) == ["c.txt"]


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "c.txt"
    path.write_text("old")

    def half(fresh):
        fresh.write_text("ha")
        assert path.read_text() == "old" and fresh.parent == path.parent
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_file(path, half)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["c.txt"]
    with pytest.raises(FileNotFoundError):
        replace_file(path, lambda fresh: None)  # nothing was written
    assert path.read_text() == "old"


@given(st.text(st.characters(exclude_characters="\r"), max_size=30))
def test_text_reads_back(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("text") / "t.txt"
    text = text.encode("utf-8", "ignore").decode()
    write_text(path, text)
    assert path.read_bytes() == text.encode()


def test_names_that_are_not_utf_8_survive(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    write_text(tmp_path / "names.txt", name)
    assert (tmp_path / "names.txt").read_bytes() == b"caf\xe9.jpg"


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "multihead" and not cache_folder().exists()
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "multihead"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder() == Path.home() / ".cache" / "multihead"


def test_a_user_without_a_home_has_a_cache_folder(monkeypatch):
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    assert cache_folder() == Path("/nonexistent/.cache/multihead")


def test_a_lock_is_had_by_one_and_free_after(tmp_path):
    with locked(tmp_path / "lock") as mine, locked(tmp_path / "lock") as others:
        assert mine and not others
    with locked(tmp_path / "lock") as again:
        assert again


def test_turns_are_taken_one_after_the_other(tmp_path):
    inside, most, waited = [], [], []

    def work():
        with turn(tmp_path / "new" / "lock", lambda: waited.append(1)):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.25)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4 and len(waited) == 3  # each of the others says so once
    (tmp_path / "file").touch()
    with turn(tmp_path / "file" / "lock"):  # nothing can be locked there, nor written
        pass


def test_a_growing_file_stands_with_what_came_before_an_error(tmp_path):
    path = tmp_path / "new" / "table.csv"
    with pytest.raises(KeyboardInterrupt), growing(path) as stream:
        stream.write("one\n")
        assert not path.exists()
        raise KeyboardInterrupt
    assert path.read_text() == "one\n" and len(list(path.parent.iterdir())) == 1
    with growing(path) as stream:
        pass
    assert path.read_text() == "one\n"  # nothing was written: the old file stays
    with growing(path) as stream:
        stream.write("two \udcff\n")
    assert path.read_bytes() == b"two \xff\n" and len(list(path.parent.iterdir())) == 1


def test_weights_may_be_read_by_those_who_may_read_the_rest(tmp_path):
    """safetensors leaves files that only their owner may read: a service of another user could not open a model."""
    model = Model("test_resnet", [MASK.on(FULL.resized(32))])
    old = os.umask(0o022)
    try:
        model.save_pretrained(tmp_path)
    finally:
        os.umask(old)
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()} == dict.fromkeys(
        ["model.safetensors", "config.json", "README.md"], "0o644"
    )
    (tmp_path / "model.safetensors").chmod(0o600)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o600  # whoever made it private keeps it so


def test_a_device_or_a_pipe_is_written_into_and_stays(tmp_path):
    """As -o /dev/stdout, or -o /dev/null by root, which was replaced by a table."""
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    for write in (lambda: write_text(pipe, "one\n"), lambda: _grow(pipe, "one\n")):
        check_writable(pipe)
        reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
        reader.start()
        write()
        reader.join(10)
        assert pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]
    assert got == ["one\n", "one\n"]


def test_a_name_that_cannot_be_is_told_before_the_work(tmp_path):
    with pytest.raises(OSError, match="cannot write .*: File name too long; name another place"):
        check_writable(tmp_path / ("a" * 300))


def test_what_the_shell_has_opened_is_written_into(tmp_path):
    """As -o /dev/stdout >> all.csv, which was replaced by the table."""
    program = (
        "from multihead.files import check_writable, growing, write_text\n"
        "check_writable('/dev/stdout')\n"
        "with growing('/dev/stdout') as stream:\n"
        "    stream.write('two\\n')\n"
        "write_text('/dev/stdout', 'three\\n')\n"
    )
    (file := tmp_path / "all").write_text("one\n")
    with open(file, "a") as out:
        subprocess.run([sys.executable, "-c", program], stdout=out, check=True, env=os.environ | {"PYTHONPATH": ROOT})
    assert file.read_text() == "one\ntwo\nthree\n" and list(tmp_path.iterdir()) == [file]


def test_the_file_that_a_link_leads_to_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    link, file = tmp_path / "link", tmp_path / "far" / "file"
    link.symlink_to(file)  # broken, at first
    check_writable(link)
    for write in (write_text, _grow):
        write(link, write.__name__)
        assert link.is_symlink() and file.read_text() == write.__name__
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["far", "file", "link"]


def test_a_full_disk_leaves_whole_lines_and_is_told_with_the_file(tmp_path):
    """A size that files may not pass stands for the disk; in a process of its own, as it holds for all of its files."""
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from multihead.files import growing, write_text\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))\n"
        "for act in (lambda: write_text('text', 'a line' * 9999), lambda: grow()):\n"
        "    try:\n"
        "        act()\n"
        "    except OSError as error:\n"
        "        print(error)\n"
    )
    grow = "def grow():\n    with growing('table') as stream:\n        stream.write('0123456789,\\n' * 9999)\n"
    process = [sys.executable, "-c", program.replace("for act", grow + "for act")]
    done = subprocess.run(process, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ROOT})
    told = done.stdout.splitlines()
    assert [line.rpartition(": ")[2] for line in told] == [f"'{tmp_path / 'text'}'", f"'{tmp_path / 'table'}'"], done
    assert all("cannot write (File too large)" in line for line in told)
    assert [path.name for path in tmp_path.iterdir()] == ["table"]
    assert set((tmp_path / "table").read_text().splitlines()) == {"0123456789,"}


def _grow(path, text):
    with growing(path) as stream:
        stream.write(text)


def test_what_a_process_killed_long_ago_was_writing_goes(tmp_path):
    names = [".123-456.tmp", ".124-456.tmp", ".mine-1.tmp", "kept.tmp"]
    for name in names:
        (tmp_path / name).write_text("x")
        if name != names[1]:
            os.utime(tmp_path / name, (1, 1))
    check_writable(tmp_path / "a.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])
