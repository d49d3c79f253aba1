import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score

from multihead import crossval
from multihead.crops import FULL
from multihead.crossval import Cell
from multihead.ensemble import _check_alike, common_rows, fit_folds, open_folds
from multihead.evaluation import evaluate
from multihead.heads import HEADS, UNKNOWN
from multihead.joined import load
from multihead.labels import encode
from multihead.leaks import LeakError
from multihead.model import Model
from multihead.outputs import kinds
from multihead.reading import read
from multihead.recipe import Recipe

SMALL = FULL.resized(32, 24)
RECIPE = Recipe(epochs=2, batch_size=8, seed=1)
ROOT = Path(__file__).parents[1]


def small():
    return Model("test_resnet", [head.on(SMALL) for head in HEADS])


def three():
    return [Model("test_resnet", [head.on(SMALL)]) for head in HEADS]


@pytest.fixture(scope="module")
def photos(people):
    return read(people / "train")[::2]


@pytest.fixture(scope="module")
def done(photos, tmp_path_factory):
    out, said = tmp_path_factory.mktemp("folds") / "out", []
    frame = fit_folds(small, photos, RECIPE, out=out, folds=3, say=said.append)
    return out, frame, said


def test_every_photo_is_answered_by_the_model_that_did_not_see_it(done, photos):
    out, _, _ = done
    found = open_folds(out)
    assert [folder.name for folder in found.folders] == ["fold0", "fold1", "fold2"] and kinds(out) == ["folds"]
    assert found.photos.paths == photos.paths and found.photos.people == photos.people
    assert found.photos.labels().tolist() == photos.labels().tolist()
    assert found.photos.table.fold.astype(int).tolist() == found.fold.tolist()
    for fold, model in enumerate(found.models()):
        part = photos[found.fold == fold]
        seen = read(found.folders[fold] / "splits.csv")
        assert set(part.people) & set(seen.part("train").people) == set()
        assert set(seen.part("val").paths) == set(part.paths)
        by_hand = evaluate(model, part, workers=0).probs
        np.testing.assert_allclose(found.probs[found.fold == fold], by_hand, atol=1e-6)
    answers = pd.read_csv(out / "oof.csv", dtype={"person": str})
    assert answers.path.tolist() == photos.paths and answers.person.tolist() == photos.people
    for head, label in zip(HEADS, photos.labels().T):
        assert answers[head.name].tolist() == [head.classes[index] for index in label]


def test_scores_are_scikit_learns_with_intervals(done, photos):
    out, frame, said = done
    answers = open_folds(out)
    probs, truth, people = answers.probs, encode(photos.labels(), HEADS), np.array(answers.photos.people)
    rows = frame.set_index("part")
    assert list(rows.index) == ["fold 0", "fold 1", "fold 2", "pooled"]
    for name, row in rows.iterrows():
        of = np.ones(len(probs), bool) if name == "pooled" else answers.fold == int(name[-1])
        assert row.macro_f1 == pytest.approx(f1_score(truth[of], probs[of].argmax(1), average="macro"))
        assert row.accuracy == pytest.approx(accuracy_score(truth[of], probs[of].argmax(1)))
        assert row.photos == of.sum() and row.people == len(set(people[of]))
        assert row.macro_f1_low <= row.macro_f1 + 0.05 and row.age_f1_low <= row.age_f1_high
    written = pd.read_csv(out / "scores.csv")
    assert written.part.tolist() == frame.part.tolist()
    np.testing.assert_allclose(written.mask_f1, frame.mask_f1.astype(float))
    assert [text.split(":")[0] for text in said if ":" in text] == ["fold 0", "fold 1", "fold 2"]
    assert sum(text.startswith("fold 1, epoch ") for text in said) == RECIPE.epochs
    assert said[-1].endswith("(3 of 3 done)")


def test_every_fold_starts_from_the_same_weights(photos, tmp_path, monkeypatch):
    starts = []

    def spy(model, *args, plain=crossval.prepare, **options):
        starts.append({name: value.clone() for name, value in model.state_dict().items()})
        return plain(model, *args, **options)

    monkeypatch.setattr(crossval, "prepare", spy)
    fit_folds(small, photos, replace(RECIPE, epochs=1), out=tmp_path, folds=2)
    assert len(starts) == 2 and all((starts[0][name] == starts[1][name]).all() for name in starts[0])


def test_single_folds_anywhere_make_the_same(done, photos, tmp_path):
    out, said = tmp_path / "out", []
    assert fit_folds(small, photos, RECIPE, out=out, folds=3, only=[2], say=said.append) is None
    assert said[-1] == "folds 0, 1 are not trained yet; the scores wait for them"
    with pytest.raises(FileNotFoundError, match="is no folder of folds"):
        open_folds(tmp_path)
    assert fit_folds(small, photos, RECIPE, out=out, folds=3, only=[0]) is None
    with pytest.raises(FileNotFoundError, match="lacks oof.csv: not all its folds are trained"):
        open_folds(out)
    fit_folds(small, photos, RECIPE, out=out, folds=3, only=[1])
    assert (out / "oof.csv").read_bytes() == (done[0] / "oof.csv").read_bytes()
    assert (out / "scores.csv").read_bytes() == (done[0] / "scores.csv").read_bytes()


def test_again_nothing_is_trained(done, photos, monkeypatch):
    monkeypatch.setattr(crossval, "prepare", None)
    said = []
    frame = fit_folds(small, photos, RECIPE, out=done[0], folds=3, say=said.append)
    assert frame.equals(done[1]) and [text.endswith("(done before)") for text in said] == [True] * 3


@pytest.mark.slow
def test_folds_in_processes_make_the_same(done, photos, tmp_path):
    frame = fit_folds(small, photos, RECIPE, out=tmp_path, folds=3, processes=2)
    assert (tmp_path / "oof.csv").read_bytes() == (done[0] / "oof.csv").read_bytes()
    assert frame.equals(done[1])


@pytest.mark.slow
def test_killed_within_a_fold_it_goes_on(people, tmp_path):
    flags = ["--model", "test_resnet", "--resize", "32", "--epochs", "6", "-b", "4", "--recovery-interval", "2"]

    def command(out):
        return [sys.executable, "-m", "multihead", "folds", str(people / "train"), *flags, "--folds", "2", "-o", out]

    def halfway():
        rows = tmp_path / "cut" / "fold1" / "metrics.csv"
        return rows.is_file() and len(rows.read_text().splitlines()) > 2

    subprocess.run(command(str(tmp_path / "whole")), cwd=ROOT, check=True, capture_output=True)
    process = subprocess.Popen(command(str(tmp_path / "cut")), cwd=ROOT, stdout=subprocess.DEVNULL)
    started = time.monotonic()
    while not halfway():
        assert process.poll() is None and time.monotonic() - started < 120
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "cut" / "oof.csv").exists()
    subprocess.run(command(str(tmp_path / "cut")), cwd=ROOT, check=True, capture_output=True)
    for name in ("oof.csv", "scores.csv", "fold1/model/model.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_three_models_a_fold(photos, tmp_path):
    fit_folds(three, photos, replace(RECIPE, epochs=1), out=tmp_path, folds=2)
    found = open_folds(tmp_path)
    by_hand = evaluate(load(found.folders[1]), photos[found.fold == 1], workers=0).probs
    np.testing.assert_allclose(found.probs[found.fold == 1], by_hand, atol=1e-6)


def test_more_photos_train_and_are_not_scored(photos, tmp_path):
    first = set(photos.people[:7])
    other = photos.where(lambda table: table.person.isin(first))
    mine = photos.where(lambda table: ~table.person.isin(first))
    fit_folds(small, mine, replace(RECIPE, epochs=1), out=tmp_path, folds=2, extra=other)
    found = open_folds(tmp_path)
    assert found.photos.paths == mine.paths
    assert all(first <= set(read(folder / "splits.csv").part("train").people) for folder in found.folders)


def test_unreadable_photos_are_left_out_and_the_rest_is_scored(photos, tmp_path):
    (tmp_path / "torn.jpg").write_bytes(b"")
    paths = [str(tmp_path / "torn.jpg") if row == 5 else path for row, path in enumerate(photos.paths)]
    frame = fit_folds(small, photos.with_columns(path=paths), replace(RECIPE, epochs=1), out=tmp_path / "o", folds=2)
    assert frame.photos.tolist()[-1] == len(photos) - 1
    found = open_folds(tmp_path / "o")
    assert found.photos.paths == paths[:5] + paths[6:] and found.rows.tolist() == [*range(5), *range(6, len(paths))]


# ---- folds that a table names


def test_folds_of_a_column(photos, tmp_path):
    names = sorted(set(photos.people))
    column = [str(10 if names.index(person) % 2 else 2) for person in photos.people]
    fit_folds(small, photos.with_columns(mine=column), replace(RECIPE, epochs=1), out=tmp_path, column="mine")
    assert open_folds(tmp_path).fold.tolist() == [int(value == "10") for value in column]


def test_folds_of_images_are_refused_and_the_people_named(photos, tmp_path):
    column = [str(row % 3) for row in range(len(photos))]
    with pytest.raises(LeakError, match=rf"{len(set(photos.people))} people are on both sides: .*{photos.people[0]}"):
        fit_folds(small, photos.with_columns(mine=column), RECIPE, out=tmp_path / "out", column="mine")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("column", "options", "error", "told"),
    [
        (None, {"column": "mine"}, KeyError, "photos have no column 'mine' of folds; there are"),
        ("a", {"column": "mine"}, ValueError, r"names only the fold \['a'\]; expected two or more"),
        ("", {"column": "mine"}, ValueError, "column 'mine' is blank for .*; name every row's fold"),
        (None, {"folds": 1}, ValueError, r"folds\(1\) is no cross-validation"),
        (None, {"folds": 2, "only": [2]}, ValueError, "fold 2 is none of 2; expected 0 to 1"),
    ],
)
def test_what_is_no_fold(photos, tmp_path, column, options, error, told):
    with_column = photos if column is None else photos.with_columns(mine=column)
    with pytest.raises(error, match=told):
        fit_folds(small, with_column, RECIPE, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_patience_is_refused_by_what_it_would_do(photos, tmp_path):
    with pytest.raises(ValueError, match="patience stops on the rows that score the arm; leave it out"):
        fit_folds(small, photos, replace(RECIPE, patience=1), out=tmp_path / "out")


def test_labels_of_a_model_are_not_scored(photos, tmp_path):
    with pytest.raises(LeakError, match="out-of-fold photos have labels that a model made"):
        fit_folds(small, photos.with_columns(pseudo="age"), RECIPE, out=tmp_path / "out")


def test_other_folds_in_the_folder_are_refused(done, photos, monkeypatch):
    monkeypatch.setattr(crossval, "prepare", None)
    with pytest.raises(
        ValueError, match=r"fold0 was trained with another recipe \(epochs: 2, now 3\); name another output folder"
    ):
        fit_folds(small, photos, replace(RECIPE, epochs=3), out=done[0], folds=3)


def test_a_fold_of_other_settings_is_refused_before_it_is_trained(photos, monkeypatch, tmp_path):
    fit_folds(small, photos, replace(RECIPE, epochs=1), out=tmp_path, folds=2, only=[0])
    monkeypatch.setattr(crossval, "prepare", None)
    with pytest.raises(ValueError, match=r"fold0 was trained with another recipe \(epochs: 1, now 2\)"):
        fit_folds(small, photos, replace(RECIPE, epochs=2), out=tmp_path, folds=2, only=[1])
    assert not (tmp_path / "fold1").exists()


def test_a_fold_that_was_trained_otherwise_is_named(photos, tmp_path):
    """Two machines may begin at the same time."""
    fit_folds(small, photos, replace(RECIPE, epochs=1), out=tmp_path, folds=2)
    mark = tmp_path / "fold1" / "cell.json"
    mark.write_text(json.dumps(json.loads(mark.read_text()) | {"model": "another"}))
    with pytest.raises(ValueError, match="fold1 was trained with another model than .*fold0"):
        _check_alike([Cell("", fold, 1, tmp_path / f"fold{fold}", kept=True) for fold in (0, 1)])


def test_unknown_labels_are_blank(photos, tmp_path):
    ages = photos.table.age.to_numpy().copy()
    years = photos.table.years.to_numpy(float).copy()
    ages[::2], years[::2] = UNKNOWN, np.nan
    known = photos.with_columns(age=ages, years=years)
    frame = fit_folds(small, known, replace(RECIPE, epochs=1), out=tmp_path, folds=2)
    answers = pd.read_csv(tmp_path / "oof.csv", keep_default_na=False)
    assert (answers.age[::2] == "").all() and (answers.age[1::2] != "").all()
    assert frame.n.tolist()[-1] == len(photos) // 2


def test_rows_that_all_answered(done, photos):
    found = open_folds(done[0])
    some = np.array([9, 3, 4, *range(10, len(photos))])
    other = replace(found, photos=found.photos[some], fold=found.fold[some], probs=found.probs[some], rows=some)
    mine, others = common_rows([found, other])
    assert [found.photos.paths[row] for row in mine] == [other.photos.paths[row] for row in others]
    assert sorted(mine.tolist()) == sorted(some.tolist())
    few = replace(other, photos=other.photos[:3])
    with pytest.raises(ValueError, match="answered 3 photos in common, of 42"):
        common_rows([found, few])


def test_folds_of_other_heads(done):
    with pytest.raises(ValueError, match="oof.csv holds 18 joint classes; the heads have 6"):
        open_folds(done[0], HEADS[:2])


def lambda_free():
    return small()


def test_processes_that_cannot_be(photos, tmp_path):
    with pytest.raises(ValueError, match="processes is 0, under torchrun 1; expected >= 1"):
        fit_folds(small, photos, RECIPE, out=tmp_path / "out", processes=0)
    with pytest.raises(ValueError, match="several processes need a model function of a module, not a lambda"):
        fit_folds(lambda: lambda_free(), photos, RECIPE, out=tmp_path / "out", processes=2)
    assert not (tmp_path / "out").exists()


def test_a_combination_that_was_cut_while_it_was_saved_is_saved_again(photos, tmp_path):
    fit_folds(three, photos, replace(RECIPE, epochs=1), out=tmp_path, folds=2)
    (tmp_path / "fold1" / "model" / "ensemble.json").unlink()
    fit_folds(three, photos, replace(RECIPE, epochs=1), out=tmp_path, folds=2)
    assert len(open_folds(tmp_path).models()[1].members) == 3


def test_one_fold_that_is_not_the_first_is_known_as_folds(photos, tmp_path):
    fit_folds(small, photos, replace(RECIPE, epochs=1), out=tmp_path, folds=2, only=[1])
    assert kinds(tmp_path) == ["folds"]
    with pytest.raises(FileNotFoundError, match="lacks oof.csv: not all its folds are trained"):
        open_folds(tmp_path)
