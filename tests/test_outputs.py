import pytest

from multihead.files import write_text
from multihead.outputs import check_kind, kinds

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
