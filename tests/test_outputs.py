import subprocess
import sys

import pytest

from multihead import outputs
from multihead.files import write_text
from multihead.outputs import check_kind, claim, kinds

KINDS = {
    "a run": ["checkpoints/last.pt", "splits.csv", "model/config.json"],
    "an ensemble": ["ensemble.json", "member0/config.json"],
    "a model": ["config.json", "model.safetensors"],
    "folds": ["photos.csv", "fold0/checkpoints/last.pt"],
    "a comparison": ["photos.csv", "runs/flat/fold0-seed0/checkpoints/last.pt"],
}


def test_a_file_is_no_folder(tmp_path):
    write_text(tmp_path / "a", "")
    with pytest.raises(NotADirectoryError, match="a is a file; name a folder .--output. for a run"):
        check_kind(tmp_path / "a", "a run")


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_another_kind_is_refused(kind, tmp_path):
    """Else one of the two would answer for the other."""
    for other in KINDS:
        check_kind(tmp_path, other)  # it is new
    for name in KINDS[kind]:
        write_text(tmp_path / name, "")
    check_kind(tmp_path, kind)
    assert kinds(tmp_path) == [kind]
    write_text(tmp_path / "config.json", "{}")  # somebody's own
    check_kind(tmp_path, kind)
    if kind != "a model":
        (tmp_path / "config.json").unlink()
    for other in set(KINDS) - {kind}:
        with pytest.raises(FileExistsError, match=f"holds {kind}; name another folder .--output. for {other}"):
            check_kind(tmp_path, other)


CLAIM = """
import sys
from multihead.outputs import claim
try:
    claim(sys.argv[1], resume=True)
except FileExistsError as error:
    print(error)
"""


def other_process(folder):
    return subprocess.run([sys.executable, "-c", CLAIM, folder], capture_output=True, text=True, check=True).stdout


def test_a_run_folder_is_one_runs_at_a_time(tmp_path):
    folder = tmp_path / "r"
    held = claim(folder, resume=False)
    assert held.last is None and f"another run is being trained into {folder}; wait" in other_process(folder)
    with pytest.raises(FileExistsError, match="another run is being trained into"):
        claim(folder, resume=True)
    assert claim(folder, resume=True, alone=False).lock is None  # one of several processes of the same run
    held.release()
    held.release()
    assert not folder.exists()
    folder.mkdir()
    claim(folder, resume=False).release()
    assert folder.exists()  # it was there before
    assert other_process(folder) == ""
    assert claim(folder, resume=False).lock is not None  # the other process ended with it in its hands


def test_a_claim_says_where_a_run_goes_on_and_overwrites_none(tmp_path):
    write_text(tmp_path / "checkpoints" / "last.pt", "")
    with pytest.raises(FileExistsError, match=r"holds a run; pass resume=True \(--resume\) to go on"):
        claim(tmp_path, resume=False)
    held = claim(tmp_path, resume=True)
    assert held.last == tmp_path / "checkpoints" / "last.pt"
    held.release()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints"]
    held.last.unlink()
    write_text(tmp_path / "model" / "config.json", "{}")
    for resume in (False, True):
        with pytest.raises(FileExistsError, match="holds a finished run, whose checkpoints are gone; name another"):
            claim(tmp_path, resume=resume)


KILLED = """
import os, signal, sys
from multihead.files import replace_file
def write(fresh):
    fresh.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
replace_file(sys.argv[1], write)
"""


def test_what_a_killed_run_was_writing_goes_when_it_goes_on(tmp_path):
    for name in ("checkpoints/last.pt", "model/model.safetensors"):
        write_text(tmp_path / name, "whole")
        subprocess.run([sys.executable, "-c", KILLED, tmp_path / name], check=False)
    assert len(list(tmp_path.rglob("*.tmp"))) == 2
    assert claim(tmp_path, resume=True, alone=False).last is not None  # another process of the run may be writing
    assert len(list(tmp_path.rglob("*.tmp"))) == 2
    claim(tmp_path, resume=True).release()
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["checkpoints/last.pt", "model/model.safetensors"]


def test_a_folder_that_goes_while_it_is_claimed_is_made_again(tmp_path, monkeypatch):
    """Whoever gives a folder up may remove it while another makes it."""
    plain, tries = outputs.take, []

    def taken(path):
        tries.append(path)
        if len(tries) == 1:
            path.parent.rmdir()
        return plain(path)

    monkeypatch.setattr(outputs, "take", taken)
    held = claim(tmp_path / "r", resume=False)
    assert held.lock is not None and len(tries) == 2
    held.release()
