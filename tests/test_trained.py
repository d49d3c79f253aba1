"""Who trained a model is told by its splits.csv, however the photos are reached and their people are named."""

import pandas as pd
import pytest

from multihead.data import LeakError, write_splits
from multihead.reading import read
from multihead.trained import check_unseen, keep_trained, seen_in_training


def table(folder, names, people):
    folder.mkdir(parents=True)
    rows = pd.DataFrame({"path": names, "person": people, "mask": "worn"})
    rows.to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


@pytest.fixture
def trained(tmp_path):
    return table(tmp_path / "a", ["1.jpg", "2.jpg"], ["ann", "bob"])


def told(tmp_path, photos, trained, **options):
    write_splits(tmp_path / "run" / "splits.csv", {"train": read(trained, **options)})
    return seen_in_training(tmp_path / "run", photos)


def test_photos_behind_a_link_are_the_photos(trained, tmp_path):
    (tmp_path / "link").symlink_to(trained.parent)
    (found,) = told(tmp_path, read(tmp_path / "link" / "t.csv"), trained)
    assert found.startswith("2 of these 2 photos trained this model")


def test_global_people_are_the_same_in_another_folder(trained, tmp_path):
    other = table(tmp_path / "b", ["3.jpg", "4.jpg", "5.jpg"], ["ann", "eve", ""])
    (found,) = told(tmp_path, read(other, people="global"), trained, people="global")
    assert found.startswith("1 of these 3 photos are others of people that")
    assert told(tmp_path, read(other), trained) == []  # the ids of two folders are of unlike people
    assert told(tmp_path, read(other, people="global"), trained) == []
    (found,) = told(tmp_path, read(other, name="all"), trained, name="all")  # one source, named by hand
    assert found.startswith("1 of these 3 photos are others of people that")


def test_others_of_a_persons_photos_in_one_folder(trained, tmp_path):
    more = pd.read_csv(trained).assign(path=["3.jpg", "1.jpg"])
    more.to_csv(trained.parent / "more.csv", index=False)
    photos = read(trained.parent / "more.csv", name="t")
    others, same = told(tmp_path, photos, trained)
    assert others.startswith("1 of these 2 photos are others") and same.startswith("1 of these 2 photos trained")


@pytest.mark.parametrize("asked", ["run", "run/model", "run/member1", "run/member0/member1"])
@pytest.mark.parametrize("written", ["run", "run/part1"])
def test_a_folder_in_a_run_is_the_runs(asked, written, trained, tmp_path):
    """part0, part1: models that answer together."""
    write_splits(tmp_path / written / "splits.csv", {"train": read(trained)})
    (tmp_path / asked).mkdir(parents=True, exist_ok=True)
    (found,) = seen_in_training(tmp_path / asked, read(trained))
    assert found.startswith("2 of these 2 photos trained this model")
    with pytest.raises(LeakError, match="2 people are on both sides"):
        check_unseen(tmp_path / asked, read(trained))
    keep_trained([str(tmp_path / asked)], tmp_path)
    assert pd.read_csv(tmp_path / "splits.csv").path.tolist() == read(trained).paths


def test_folds_of_several_models(trained, tmp_path):
    for number in (0, 1):
        sides = {"train": read(trained)[[number]], "val": read(trained)[[1 - number]]}
        for part in (0, 1):
            write_splits(tmp_path / "folds" / f"fold{number}" / f"part{part}" / "splits.csv", sides)
    keep_trained([str(tmp_path / "folds")], tmp_path)
    assert pd.read_csv(tmp_path / "splits.csv").path.tolist() == read(trained).paths
    (found,) = seen_in_training(tmp_path / "folds" / "fold1" / "model", read(trained))
    assert found.startswith("1 of these 2 photos trained this model")


@pytest.mark.parametrize("inner", ["a model", "model"])
def test_somebodys_splits_beside_a_model_tell_nothing(inner, trained, tmp_path):
    write_splits(tmp_path / "splits.csv", {"train": read(trained)})
    if inner == "model":  # where a run's table would be
        pd.DataFrame({"path": read(trained).paths, "mask": "worn", "split": "train"}).to_csv(tmp_path / "splits.csv")
    (tmp_path / inner).mkdir()
    assert seen_in_training(tmp_path / inner, read(trained)) == []
    check_unseen(tmp_path / inner, read(trained))


def test_a_folder_that_tells_nothing(trained, tmp_path):
    assert seen_in_training(tmp_path / "nowhere", read(trained)) == []
