"""Who trained a model is told by its splits.csv, however the photos are reached and their people are named."""

import pandas as pd
import pytest
import yaml

from multihead.data import write_splits
from multihead.heads import Head
from multihead.leaks import LeakError
from multihead.reading import read
from multihead.trained import STARTED_IN, check_unseen, held_out, keep_trained, seen_before, seen_in_training


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
    with pytest.raises(
        LeakError, match="2 people are on both sides: .*splits.csv trained .*: give photos of people that"
    ):
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


@pytest.mark.parametrize("inner", ["onnx", "onnx/member0", "weights.pt"])
def test_what_lies_in_a_run_folder_is_the_runs(inner, trained, tmp_path):
    """As an export that is written there."""
    write_splits(tmp_path / "run" / "splits.csv", {"train": read(trained)})
    (tmp_path / "run" / "metrics.csv").touch()
    (tmp_path / "run" / inner).mkdir(parents=True)
    (found,) = seen_in_training(tmp_path / "run" / inner, read(trained))
    assert found.startswith("2 of these 2 photos trained this model")


def test_photos_that_were_held_out(trained, tmp_path):
    one, other = read(trained)[[0]], read(trained)[[1]]
    write_splits(tmp_path / "run" / "part0" / "splits.csv", {"train": one, "val": other})
    assert held_out(tmp_path / "run" / "model") == set(other.paths) and held_out(tmp_path / "nowhere") == set()
    write_splits(tmp_path / "folds" / "fold0" / "splits.csv", {"train": one, "val": other})
    write_splits(tmp_path / "folds" / "fold1" / "splits.csv", {"train": other, "val": one})
    assert held_out(tmp_path / "folds") == set()  # each trained a model of it
    pd.DataFrame({"photo": one.paths}).to_csv(tmp_path / "splits.csv")  # somebody's
    assert held_out(tmp_path / "model") == set()


def test_a_folder_that_tells_nothing(trained, tmp_path):
    assert seen_in_training(tmp_path / "nowhere", read(trained)) == []


def run_from(folder, trained, start=None):
    """A run folder of training photos, begun from other weights or not."""
    write_splits(folder / "splits.csv", {"train": read(trained)})
    started = {STARTED_IN: str(folder.parent), "initial_checkpoint": start}
    (folder / "args.yaml").write_text(yaml.safe_dump(started if start else {}))
    (folder / "model").mkdir()
    return folder


@pytest.mark.parametrize("start", ["old", "old/model", "old/model/model.safetensors", "old/checkpoints/best.pt"])
def test_who_trained_the_weights_that_a_run_began_with_trained_its_model(trained, tmp_path, start):
    run_from(tmp_path / "old", trained)
    (tmp_path / "old" / "checkpoints").mkdir()
    for file in ("model/model.safetensors", "checkpoints/best.pt"):
        (tmp_path / "old" / file).touch()
    fresh = table(tmp_path / "b", ["3.jpg"], ["eve"])
    new = run_from(tmp_path / "new", fresh, start)
    (found,) = seen_in_training(new / "model", read(trained))
    assert found.startswith(f"2 of these 2 photos trained {tmp_path / start}, which this model began from, so")
    (found,) = seen_in_training(run_from(tmp_path / "newest", fresh, "new"), read(trained))  # and so on
    assert str(tmp_path / start) in found
    with pytest.raises(LeakError, match="splits.csv trained .*, which .*new began from: give photos of people that"):
        check_unseen(new, read(trained))
    other = Head("mask", ("with", "without"))  # the mask of what it began from may have been another
    check_unseen(new, read(pd.DataFrame({"path": ["4.jpg"], "person": ["joe"], "mask": ["with"]}), heads=[other]))
    assert seen_before(tmp_path / start, read(trained)) and seen_before(tmp_path / start, read(fresh)) == []
    assert seen_before(None, read(trained)) == seen_before("timm/resnet18", read(trained)) == []


def test_an_ensemble_was_trained_on_what_its_members_began_from(trained, tmp_path):
    run_from(tmp_path / "old", trained)
    run_from(tmp_path / "new", table(tmp_path / "b", ["3.jpg"], ["eve"]), "old")
    keep_trained([str(tmp_path / "new")], tmp_path / "both")
    (found,) = seen_in_training(tmp_path / "both", read(trained))
    assert found.startswith("2 of these 2 photos trained this model")


def test_a_run_may_be_named_as_a_fold(trained, tmp_path):
    run_from(tmp_path / "old", trained)
    new = run_from(tmp_path / "fold0", table(tmp_path / "b", ["3.jpg"], ["eve"]), "old")
    assert len(seen_in_training(new / "model", read(trained))) == 1


@pytest.mark.parametrize("cell", ["fold0", "fold0/part1"])
def test_a_fold_began_where_its_folds_did(cell, trained, tmp_path):
    run_from(tmp_path / "old", trained)
    folds = run_from(tmp_path / "folds", table(tmp_path / "b", ["3.jpg"], ["eve"]), "old")
    (folds / cell).mkdir(parents=True)
    (folds / "splits.csv").rename(folds / cell / "splits.csv")
    (found,) = seen_in_training(folds / "fold0", read(trained))
    assert found.startswith(f"2 of these 2 photos trained {tmp_path / 'old'}, which this model began from, so")


def test_a_table_beside_a_file_of_weights_tells_nothing(trained, tmp_path):
    write_splits(tmp_path / "splits.csv", {"train": read(trained)})
    (tmp_path / "resnet18.safetensors").touch()
    assert seen_before(tmp_path / "resnet18.safetensors", read(trained)) == []


def test_folds_were_trained_on_all_that_a_fold_was(trained, tmp_path):
    for number in (0, 1):
        sides = {"train": read(trained)[[number]], "val": read(trained)[[1 - number]]}
        write_splits(tmp_path / f"fold{number}" / "splits.csv", sides)
    (found,) = seen_in_training(tmp_path, read(trained))
    assert found == "2 of these 2 photos trained this model, so the scores flatter it"


def test_runs_that_began_from_each_other_end(trained, tmp_path):
    one = run_from(tmp_path / "one", trained, "two")
    run_from(tmp_path / "two", trained, "one")
    assert 2 <= len(seen_in_training(one, read(trained))) <= 3
