"""Who trained a model is told by its splits.csv, however the photos are reached and their people are named."""

import pandas as pd
import pytest

from multihead.data import write_splits
from multihead.reading import read
from multihead.trained import seen_in_training


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


def test_a_folder_that_tells_nothing(trained, tmp_path):
    assert seen_in_training(tmp_path / "nowhere", read(trained)) == []
