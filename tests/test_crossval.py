import json
import multiprocessing
import os
import time

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from multihead import crossval
from multihead.comparison import compare
from multihead.crops import FULL
from multihead.crossval import Cell, carry_out, check_begun
from multihead.dealing import deal, fold_of
from multihead.evaluation import evaluate
from multihead.heads import AGE, HEADS, UNKNOWN, Head
from multihead.hiding import hide_labels
from multihead.joined import combine
from multihead.labels import encode
from multihead.model import Model
from multihead.reading import read
from multihead.recipe import Recipe
from multihead.ways import Arm

SMALL = FULL.resized(32, 24)
RECIPE = Recipe(epochs=2, batch_size=8)


def small():
    return Model("test_resnet", [head.on(SMALL) for head in HEADS])


def three():
    return [Model("test_resnet", [head.on(SMALL)]) for head in HEADS]


@pytest.fixture(scope="module")
def photos(people):
    return read(people / "train")[::3]


def test_every_row_validates_in_its_fold(photos):
    parts = deal(photos, 3)
    fold = fold_of(parts)
    for number, (train, valid) in enumerate(parts):
        assert (fold[valid.table["at"]] == number).all() and (fold[train.table["at"]] != number).all()
        assert [photos.paths[at] for at in valid.table["at"]] == valid.paths
    assert len(fold) == len(photos)


# ---- several models as one arm


def test_three_models_answer_as_their_combination(photos, tmp_path, monkeypatch):
    trained = []

    def spy(model, *args, plain=crossval.prepare, **options):
        trained.append(model)
        return plain(model, *args, **options)

    monkeypatch.setattr(crossval, "prepare", spy)
    frame = compare({"heads": Arm(small, RECIPE), "three": Arm(three, RECIPE)}, photos, tmp_path, folds=2)
    models = [model for model in trained if len(model.heads) == 1]
    assert [model.heads[0].name for model in models] == ["mask", "gender", "age"] * 2
    parts = deal(photos, 2)
    for fold in range(2):
        cell = Cell("three", fold, 0, tmp_path / "runs" / "three" / f"fold{fold}-seed0")
        rows, probs = cell.answers()
        by_hand = evaluate(combine(models[3 * fold : 3 * fold + 3]), parts[fold][1], workers=0).probs
        assert rows.tolist() == parts[fold][1].table["at"].tolist()
        np.testing.assert_allclose(probs, by_hand, atol=1e-6)
        curve = pd.read_csv(cell.folder / "curve.csv")
        assert curve.epoch.tolist() == [1, 2] and {"mask_f1", "gender_f1", "age_f1"} <= set(curve)
    results = pd.read_csv(tmp_path / "results.csv")
    three_first = results[(results.arm == "three") & (results.fold == 0)].iloc[0]
    rows, probs = Cell("three", 0, 0, tmp_path / "runs" / "three" / "fold0-seed0").answers()
    truth = encode(photos.labels(), HEADS)[rows]
    assert three_first.macro_f1 == pytest.approx(f1_score(truth, probs.argmax(1), average="macro"))
    assert set(frame.arm) == {"heads", "three"}


def test_the_arm_with_one_model_that_cannot_be_run_is_named(photos, tmp_path):
    twice = Arm(lambda: [small(), *three()], RECIPE)
    with pytest.raises(ValueError, match="arm 'twice': heads .* repeat a name"):
        compare({"twice": twice}, photos, tmp_path / "out", folds=2)


# ---- hidden labels


def test_labels_are_hidden_cell_by_cell(people):
    whole = read(people / "train")
    shares = {share: hide_labels(whole, share, seed=4) for share in (0.25, 0.5)}
    cells = {share: hidden.labels() == UNKNOWN for share, hidden in shares.items()}
    for share, gone in cells.items():
        kept = shares[share].labels()
        assert (kept[~gone] == whole.labels()[~gone]).all()
        assert abs(gone.mean(0) - share).max() < 4 * np.sqrt(share * (1 - share) / len(whole))
        assert np.isnan(shares[share].table.years.to_numpy(float)).tolist() == gone[:, 2].tolist()
        pairs = np.corrcoef(gone.T)
        assert abs(pairs[np.triu_indices(3, 1)]).max() < 4 / np.sqrt(len(whole))
    assert (cells[0.5] | ~cells[0.25]).all()
    assert hide_labels(whole, 0) is whole
    assert (hide_labels(whole, 1).labels() == UNKNOWN).all()
    assert (hide_labels(whole, 0.25, seed=5).labels() != shares[0.25].labels()).any()
    with pytest.raises(ValueError, match="share of hidden labels is 1.5; expected a number from 0 to 1"):
        hide_labels(whole, 1.5)


def test_hidden_labels_are_hidden_from_training_only(photos, tmp_path, monkeypatch):
    seen = []

    def spy(model, train, valid, *args, plain=crossval.prepare, **options):
        seen.append((train, valid))
        return plain(model, train, valid, *args, **options)

    monkeypatch.setattr(crossval, "prepare", spy)
    arms = {"all": Arm(small, RECIPE), "half": Arm(small, RECIPE, hidden=0.5)}
    compare(arms, photos, tmp_path, folds=2)
    for (train, valid), (less, same) in zip(seen[::2], seen[1::2]):
        assert same.labels().tolist() == valid.labels().tolist() and (same.labels() != UNKNOWN).all()
        assert (less.labels() == UNKNOWN).mean() > 0.3 and less.paths == train.paths
    with pytest.raises(ValueError, match="holds arm 'half' with another hidden"):
        compare({"half": Arm(small, RECIPE, hidden=0.25)}, photos, tmp_path, folds=2)


@pytest.mark.parametrize(("before", "now"), [(0.5, 0.25), (0.5, 0.0), (0.0, 0.5)])
def test_an_arm_that_hides_other_labels_is_refused_before_it_is_trained(tmp_path, before, now):
    cell, identity = Cell("half", 0, 1, tmp_path), Arm(small, RECIPE, hidden=before).identity()
    (tmp_path / "cell.json").write_text(json.dumps(identity | {"seed": 1}))
    check_begun([cell], {"half": Arm(small, RECIPE, hidden=before)})
    with pytest.raises(ValueError, match="holds arm 'half' with another hidden; name"):
        check_begun([cell], {"half": Arm(small, RECIPE, hidden=now)})


def test_a_damaged_mark_is_named(tmp_path):
    (tmp_path / "cell.json").write_text("")
    with pytest.raises(ValueError, match=r"cell\.json is no JSON"):
        check_begun([Cell("a", 0, 1, tmp_path)], {"a": Arm(small, RECIPE)})


# ---- several processes


def slow_work(cell):
    time.sleep(0.15)
    with open(cell.folder / "by.txt", "a") as file:
        file.write(f"{os.getpid()}\n")
    np.savez(cell.folder / "answers.npz", rows=np.arange(1), probs=np.ones((1, 1)))


def helper(folder, count, said):
    cells = [Cell("a", number, 0, folder / str(number)) for number in range(count)]
    carry_out(cells, lambda cell: None if cell.done else slow_work(cell), lambda cell: None)
    said.put(os.getpid())


@pytest.mark.slow
def test_several_processes_share_the_runs_of_a_folder(tmp_path):
    context = multiprocessing.get_context("spawn")
    said = context.Queue()
    both = [context.Process(target=helper, args=(tmp_path, 24, said)) for _ in range(2)]
    for process in both:
        process.start()
    who = {said.get(timeout=60) for _ in both}
    for process in both:
        process.join()
    by = [(tmp_path / str(number) / "by.txt").read_text().split() for number in range(24)]
    assert all(len(one) == 1 for one in by), by  # nobody repeats another's work
    assert {int(one[0]) for one in by} <= who
    assert not list(tmp_path.rglob("lock"))


def test_a_run_in_the_hands_of_another_is_waited_for(tmp_path, monkeypatch):
    from multihead.files import locked

    cell, pauses = Cell("a", 0, 0, tmp_path / "0"), []
    cell.folder.mkdir()
    other = locked(cell.folder / "lock")
    assert other.__enter__()

    def pause(seconds):
        pauses.append(seconds)
        other.__exit__(None, None, None)  # the other process is killed: its cell is free, and not done

    monkeypatch.setattr(crossval.time, "sleep", pause)
    worked, told = [], []
    carry_out([cell], worked.append, told.append)
    assert (pauses, worked, told) == ([crossval.PAUSE], [cell], [cell])


def test_bands_of_one_number_are_hidden_each_by_itself(people):
    six = Head("six", ("a", "b", "c", "d"), edges=(20, 40, 50), number="age")
    whole = read(people / "train", heads=[AGE, six])
    hidden = hide_labels(whole, 0.5, seed=4).labels()
    gone = hidden == UNKNOWN
    assert abs(gone.mean(0) - 0.5).max() < 4 * 0.5 / np.sqrt(len(whole)) and abs(np.corrcoef(gone.T)[0, 1]) < 0.3
    assert (hidden[~gone] == whole.labels()[~gone]).all()


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: Arm(Model("test_resnet")), "arm: model is Model; expected a function that makes a model anew"),
        (lambda: Arm("resnet18"), "arm: model is str; expected a function that makes a model anew"),
        (lambda: Arm(lambda: Model("test_resnet"), {"epochs": 1}), "arm: recipe is dict; expected a multihead.Recipe"),
        (lambda: Arm(lambda: 3).models(), "arm: model made 3; expected a multihead.Model, or several"),
    ],
)
def test_what_is_no_arm_is_told_in_its_words(made, told):
    with pytest.raises(TypeError, match=told):
        made()
