import contextlib
import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from multihead import panel, pipeline, prediction
from multihead.adjusted import Adjusted
from multihead.calibrate import apply_temperatures, fit_temperatures
from multihead.cli import main
from multihead.crops import FACE, FULL
from multihead.data import Photos, write_splits
from multihead.decoding import fit_prior_weights, fit_weights
from multihead.ensemble import open_folds
from multihead.evaluation import evaluate, person_voted
from multihead.fitting import Wanted, decoding_gain
from multihead.heads import GENDER, HEADS, MASK, flat
from multihead.joined import Ensemble, load
from multihead.labels import marginals
from multihead.model import Model
from multihead.pipeline import answers
from multihead.prediction import predict
from multihead.reading import read
from multihead.soup import average, greedy_soup, refresh
from multihead.voting import fit_vote_weights, person_vote

FLAGS = ["--model", "test_resnet", "--resize", "32", "24", "--epochs", "1", "-b", "8", "-q"]


@pytest.fixture(scope="module")
def folders(people, tmp_path_factory):
    """Folds of two recipes on the same photos."""
    root = tmp_path_factory.mktemp("panel")
    for name, more in (("a", []), ("b", ["--lr", "0.01", "--seed", "3"])):
        assert main(["folds", str(people / "train"), "--folds", "2", "-o", str(root / name), *FLAGS, *more]) == 0
    return root


@pytest.fixture(scope="module")
def photos(people):
    return read(people / "train")[::5]


def probs(folder, photos):
    return evaluate(load(folder), photos, workers=0).probs


def test_folds_leave_what_repeats_them(folders, people):
    found = open_folds(folders / "a")
    assert len(found.folders) == 2 and len(found.photos) == 84
    assert {path.name for path in (folders / "a").iterdir()} == {
        "photos.csv", "oof.csv", "scores.csv", "args.yaml", "modes.json", "fold0", "fold1",
    }  # fmt: skip
    assert yaml.safe_load((folders / "a" / "args.yaml").read_text())["select"] == "last"
    assert main(["folds", "-c", str(folders / "a" / "args.yaml"), "-o", str(folders / "a"), "-q"]) == 0


def test_the_split_column_keeps_validation_people_out(people, tmp_path, capsys):
    main(["split", str(people / "train"), "-o", str(tmp_path / "s.csv"), "-q"])
    assert main(["folds", str(tmp_path / "s.csv"), "--folds", "2", "-o", str(tmp_path / "o"), *FLAGS[:-1]]) == 0
    assert "folds of the train part of the split column" in capsys.readouterr().out
    assert set(open_folds(tmp_path / "o").photos.paths) == set(read(tmp_path / "s.csv").part("train").paths)


def test_folds_of_images_are_refused_by_name(people, tmp_path, capsys):
    table = read(people / "train")
    table.with_columns(mine=[str(row % 2) for row in range(len(table))]).write(tmp_path / "t.csv")
    code = main(["folds", str(tmp_path / "t.csv"), "--fold-column", "mine", "-o", str(tmp_path / "o"), *FLAGS])
    told = capsys.readouterr().err
    assert code == 2 and "12 people are on both sides: " in told and table.people[0] in told


def test_settings_of_a_tables_own_folds_name_the_column_and_no_number(people, tmp_path):
    table = read(people / "train")
    number = {person: place % 3 for place, person in enumerate(dict.fromkeys(table.people))}
    table.with_columns(mine=[str(number[person]) for person in table.people]).write(tmp_path / "t.csv")
    out = tmp_path / "o"
    assert main(["folds", str(tmp_path / "t.csv"), "--fold-column", "mine", "-o", str(out), *FLAGS]) == 0
    settings = yaml.safe_load((out / "args.yaml").read_text())
    assert settings["fold_column"] == "mine" and "folds" not in settings
    assert len(open_folds(out).folders) == 3
    assert main(["folds", "-c", str(out / "args.yaml"), "-o", str(out), "-q"]) == 0


def test_a_soft_vote_is_the_mean_of_all_folds(folders, photos, tmp_path):
    members = [folders / name / f"fold{fold}" for name in "ab" for fold in range(2)]
    assert main(["ensemble", str(folders / "a"), str(folders / "b"), "-o", str(tmp_path / "e"), "-q"]) == 0
    np.testing.assert_allclose(
        probs(tmp_path / "e", photos), np.mean([probs(m, photos) for m in members], 0), atol=1e-7
    )


def test_given_weights_are_shared_by_a_members_folds(folders, photos, tmp_path):
    command = ["ensemble", str(folders / "a"), str(folders / "b" / "fold1"), "--weights", "3", "1"]
    assert main([*command, "-o", str(tmp_path / "e"), "-q"]) == 0
    members = [folders / "a" / "fold0", folders / "a" / "fold1", folders / "b" / "fold1"]
    by_hand = np.average([probs(member, photos) for member in members], 0, [3 / 8, 3 / 8, 1 / 4])
    np.testing.assert_allclose(probs(tmp_path / "e", photos), by_hand, atol=1e-7)


@pytest.mark.parametrize(("decode", "fit"), [("prior", fit_prior_weights), ("weights", fit_weights)])
def test_everything_fitted_is_fitted_out_of_fold(folders, photos, tmp_path, capsys, decode, fit):
    command = ["ensemble", str(folders / "a"), str(folders / "b"), "--weights", "fitted", "--calibrate"]
    assert main([*command, "--decode", decode, "-o", str(tmp_path / "e")]) == 0
    folds = [open_folds(folders / name) for name in "ab"]
    labels = folds[0].photos.labels()
    temperatures = [fit_temperatures(each.probs, labels, HEADS) for each in folds]
    tempered = [apply_temperatures(each.probs, t, HEADS) for each, t in zip(folds, temperatures)]
    shares = fit_vote_weights(tempered, labels, HEADS)
    weights = fit(sum(share * part for share, part in zip(shares, tempered)), labels, HEADS)
    members = [Adjusted(model, t) for each, t in zip(folds, temperatures) for model in each.models()]
    by_hand = Adjusted(Ensemble(members, [share / 2 for share in shares for _ in range(2)]), weights=weights.tolist())
    found = probs(tmp_path / "e", photos)
    np.testing.assert_allclose(found, evaluate(by_hand.eval(), photos, workers=0).probs, atol=1e-9)
    told = capsys.readouterr().out
    assert (
        "temperatures mask " in told and f"decoding by {decode}: macro-F1 " in told and "nothing was fitted on" in told
    )
    assert "expected calibration error before and after" in told and "4 members, soft voting" in told


def test_gains_of_folds_that_no_photo_has_all_labels_for_are_told_by_head(folders, people, tmp_path, capsys):
    """As of two collections, one labelled for mask and one for the rest."""
    photos = read(people / "train")
    first = np.array(photos.people) < sorted(photos.people)[len(photos) // 2]
    labels = {"mask": np.where(first, photos.table["mask"], -1), "gender": np.where(first, -1, photos.table["gender"])}
    photos.with_columns(**labels).write(tmp_path / "t.csv")
    assert main(["folds", str(tmp_path / "t.csv"), "--folds", "2", "-o", str(tmp_path / "f"), *FLAGS]) == 0
    command = ["ensemble", str(tmp_path / "f"), "--calibrate", "--decode", "prior", "-o", str(tmp_path / "e")]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "  joint    unknown: no photo has all its labels" in told and "nan" not in told
    folds = open_folds(tmp_path / "f")
    wanted = Wanted(calibrate=True, shares=(1.0,), decode="prior")
    table = decoding_gain([folds.probs], folds.photos.labels(), folds.photos.groups(), folds.photos.heads, wanted)
    rows = table[table.arm == "decoded"].set_index("metric").difference
    gains = [f"{name}_f1 {rows[f'{name}_f1']:+.4f} [" for name in ("mask", "gender", "age")]
    assert f"decoding by prior: {gains[0]}" in told and all(gain in told for gain in gains)


def test_scoring_an_ensemble_on_its_own_training_photos_is_told(folders, people, tmp_path, capsys):
    out = str(tmp_path / "e")
    assert main(["ensemble", str(folders / "a"), str(folders / "b" / "fold1"), "-o", out, "-q"]) == 0
    assert main(["evaluate", out, str(people / "train"), "-q", "--json"]) == 0
    assert "84 of these 84 photos trained this model, so the scores flatter it" in capsys.readouterr().err


def test_a_vote_is_calibrated_on_photos_that_trained_no_member(people, tmp_path, capsys):
    train, valid = read(people / "train").split(0.5, seed=0)
    train.write(tmp_path / "train.csv")
    valid.write(tmp_path / "valid.csv")
    assert main(["folds", str(tmp_path / "train.csv"), "--folds", "2", "-o", str(tmp_path / "f"), *FLAGS]) == 0
    command = ["ensemble", str(tmp_path / "f"), str(tmp_path / "f" / "fold0"), "--calibrate", "-j", "0", "--data"]
    assert main([*command, str(tmp_path / "valid.csv"), "-o", str(tmp_path / "e")]) == 0
    assert "the vote: temperatures mask " in capsys.readouterr().out
    made, models = load(tmp_path / "e"), open_folds(tmp_path / "f").models()
    plain = Ensemble([*models, models[0]], [0.25, 0.25, 0.5]).eval()
    before = evaluate(plain, valid, workers=0)
    wanted = fit_temperatures(before.probs, valid.labels(), HEADS)
    assert made.temperatures == pytest.approx(wanted)
    np.testing.assert_allclose(
        evaluate(made, valid, workers=0).probs, apply_temperatures(before.probs, wanted, HEADS), atol=1e-6
    )
    write_splits(tmp_path / "splits.csv", {"train": train, "val": valid})  # as a run leaves it: its val part
    assert main([*command, str(tmp_path / "splits.csv"), "-o", str(tmp_path / "h")]) == 0
    assert load(tmp_path / "h").temperatures == pytest.approx(wanted)
    folded = ["ensemble", str(tmp_path / "f"), *command[3:], str(tmp_path / "valid.csv"), "--decode", "weights"]
    assert main([*folded, "-o", str(tmp_path / "d")]) == 0  # class weights are of what the temperatures made
    made, folds = load(tmp_path / "d"), open_folds(tmp_path / "f")
    before = evaluate(Ensemble(models).eval(), valid, workers=0)
    temperatures = fit_temperatures(before.probs, valid.labels(), HEADS)
    tempered = apply_temperatures(folds.probs, temperatures, HEADS)
    assert made.weights == pytest.approx(fit_weights(tempered, folds.photos.labels(), HEADS))
    assert made.model.temperatures == pytest.approx(temperatures)
    assert main([*command, str(tmp_path / "train.csv"), "-o", str(tmp_path / "g")]) == 2
    assert "people are on both sides" in capsys.readouterr().err


def test_one_folder_of_folds_cannot_be_weighed(folders, tmp_path, capsys):
    assert main(["ensemble", str(folders / "a"), "--weights", "fitted", "-o", str(tmp_path / "e")]) == 2
    assert "weighs several MEMBERs against each other" in capsys.readouterr().err


def test_a_doubtful_temperature_is_told():
    row = {"part": "age", "ece": 0.1, "ece_after": 0.2}
    assert panel._doubt(row, {"age": 20.0}).startswith(", worse than without, its temperature is at the bound")
    assert panel._doubt(row | {"ece_after": 0.05}, {"age": 1.5}) == ""


def test_a_soup_is_one_model(folders, people, photos, tmp_path, capsys):
    assert main(["ensemble", str(folders / "a"), "--soup", "uniform", "-o", str(tmp_path / "s")]) == 0
    made = load(tmp_path / "s")
    assert isinstance(made, Model) and "statistics of batch norms measured anew on 84 photos" in capsys.readouterr().out
    plain = average(open_folds(folders / "a").models()).state_dict()
    for name, value in made.named_parameters():
        torch.testing.assert_close(value.data, plain[name])
    command = ["ensemble", str(folders / "a"), "--soup", "greedy", "-o", str(tmp_path / "g"), "-j", "0"]
    assert main([*command, "--data", str(people / "train")]) == 2
    assert "people are on both sides" in capsys.readouterr().err
    assert main(command) == 2
    assert "name photos that none was trained on, --data" in capsys.readouterr().err


def test_a_greedy_soup_takes_members_by_unseen_photos(people, tmp_path, capsys):
    train, valid = read(people / "train").split(0.4, seed=0)
    train.write(tmp_path / "train.csv")
    valid.write(tmp_path / "valid.csv")
    assert main(["folds", str(tmp_path / "train.csv"), "--folds", "2", "-o", str(tmp_path / "f"), *FLAGS]) == 0
    command = ["ensemble", str(tmp_path / "f"), "--soup", "greedy", "--data", str(tmp_path / "valid.csv"), "-j", "0"]
    assert main([*command, "-o", str(tmp_path / "g")]) == 0
    found = open_folds(tmp_path / "f")
    models = found.models()

    def score(model):
        return evaluate(model, valid, workers=0).selection[0]

    by_hand, chosen = greedy_soup(models, score, lambda model: refresh(model, found.photos))
    told = capsys.readouterr().out
    assert f"greedy soup of models {' '.join(map(str, chosen))} out of 2" in told
    assert ("measured anew on" in told) == (len(chosen) > 1) and ("one model as it is" in told) == (len(chosen) < 2)
    made = load(tmp_path / "g")
    for name, value in made.state_dict().items():
        torch.testing.assert_close(value, by_hand.state_dict()[name])
    run = ["ensemble", str(tmp_path / "f" / "fold0"), "--soup", "greedy", "--data", str(tmp_path / "train.csv")]
    assert main([*run, "-o", str(tmp_path / "h")]) == 2  # the fold's own training people
    assert "people are on both sides" in capsys.readouterr().err
    assert main([*run[:-1], str(tmp_path / "valid.csv"), "-o", str(tmp_path / "one"), "-j", "0"]) == 0
    told = capsys.readouterr().out
    assert "greedy soup of models 0 out of 1\none model as it is\n" in told and "statistics" not in told


def test_an_output_that_holds_a_model_is_kept(folders, photos, tmp_path, capsys):
    out = str(tmp_path / "e")
    assert main(["ensemble", str(folders / "a"), "-o", out, "-q"]) == 0
    before = probs(out, photos)
    for more in ([], ["--soup", "uniform"]):
        assert main(["ensemble", str(folders / "b"), "-o", out, *more]) == 2
        assert "holds an ensemble; name another --output" in capsys.readouterr().err
    np.testing.assert_array_equal(probs(out, photos), before)


def test_people_held_out_by_the_split_are_never_trained_on(people, tmp_path, capsys):
    train, valid = read(people / "train").split(0.3, seed=0)
    write_splits(tmp_path / "s.csv", {"train": train, "val": valid})
    table = pd.read_csv(tmp_path / "s.csv", dtype=str)
    table.loc[table.index[-1], "split"] = "train"  # one photo of a person that validates
    table.to_csv(tmp_path / "torn.csv", index=False)
    for verb, vary in (("folds", []), ("compare", ["--vary", "smoothing=0,0.1"])):
        end = ["--folds", "2", "-o", str(tmp_path / "o"), *FLAGS, *vary]
        code = main([verb, str(tmp_path / "torn.csv"), *end])
        assert code == 2 and "1 people are on both sides" in capsys.readouterr().err
        valid.write(tmp_path / "more.csv")
        assert main([verb, str(tmp_path / "s.csv"), "--extra", str(tmp_path / "more.csv"), *end]) == 2
        assert "people are on both sides" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_an_ensemble_fills_in_a_submission(folders, people, tmp_path):
    main(["ensemble", str(folders / "a"), "-o", str(tmp_path / "e"), "-q"])
    command = ["predict", str(tmp_path / "e"), str(people / "eval" / "info.csv"), "-q"]
    assert main([*command, "--submission", str(tmp_path / "s.csv")]) == 0
    listed = pd.read_csv(tmp_path / "s.csv")
    model = load(tmp_path / "e")
    wanted = [next(answers(model, people / "eval" / "images" / name)).probs.argmax() for name in listed.ImageID]
    assert listed.ans.tolist() == wanted and list(listed) == ["ImageID", "ans"]


def test_folds_are_not_opened_as_one_model(folders, people, capsys):
    assert main(["evaluate", str(folders / "a"), str(people / "train")]) == 2
    assert "holds folds, not one model; multihead ensemble makes one of them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--weights", "1", "2", "3"], "--weights 1 2 3; expected 2 numbers above 0, one a MEMBER"),
        (["--weights", "one", "two"], "--weights one two; expected 2 numbers, or fitted"),
        (["--weights", "0", "1"], "expected 2 numbers above 0"),
        (["--soup", "uniform", "--voting", "hard"], "--voting has no meaning for --soup"),
        (["--soup", "greedy"], "name photos that none was trained on, --data"),
        (["--data", "valid.csv"], "--data valid.csv serves --soup greedy, or --calibrate of a vote; give one of them"),
        (["--soup", "uniform", "--data", "valid.csv"], "--data valid.csv serves --soup greedy"),
        (["--decode", "prior", "--data", "valid.csv"], "--data valid.csv serves --soup greedy"),
        (["--voting", "loud"], "loud"),
    ],
)
def test_wrong_flags_are_refused_before_a_member_is_opened(tmp_path, capsys, more, told):
    try:
        code = main(["ensemble", str(tmp_path / "a"), str(tmp_path / "b"), "-o", str(tmp_path / "e"), *more])
    except SystemExit as left:
        code = left.code
    assert code == 2 and told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--voting", "hard", "--decode", "prior"], "--decode fits mean probabilities, which --voting hard does not"),
        (["--voting", "hard", "--weights", "fitted"], "--weights fitted fits mean probabilities"),
    ],
)
def test_wrong_flags(folders, tmp_path, capsys, more, told):
    assert main(["ensemble", str(folders / "a"), str(folders / "b"), "-o", str(tmp_path / "e"), *more]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "e" / "ensemble.json").exists()


def test_a_plain_model_has_no_out_of_fold_answers(folders, tmp_path, capsys):
    command = ["ensemble", str(folders / "a"), str(folders / "b" / "fold0"), "-o", str(tmp_path / "e")]
    for more in (["--calibrate"], ["--decode", "prior"], ["--weights", "fitted"]):
        assert main([*command, *more]) == 2
        assert "fold0 has no out-of-fold answers to fit on" in capsys.readouterr().err


# ---- a photo is read, searched and cut once, whatever the number of members


def test_each_photo_is_decoded_searched_and_cut_once(people, monkeypatch):
    face, whole = FACE.resized(32), FULL.resized(36, 32)  # all read at the same reduction, alone too
    tables = [
        [head.on(whole) for head in HEADS],
        [head.on(face) for head in HEADS],
        flat([head.on(whole) for head in HEADS]),
        [MASK.on(face), *(head.on(face, whole) for head in HEADS[1:])],
        [head.on(FULL.resized(40)) for head in HEADS],
    ]
    members = [Model("test_resnet", table).eval() for table in tables]
    counts = {"read": [], "searched": [], "cut": []}

    def reading(source, plain=pipeline.open_image):
        counts["read"].append(source)
        return plain(source)

    def finding(images):
        counts["searched"] += [image.shape for image in images]
        return [[] for _ in images]

    finder = SimpleNamespace(find=finding)

    def cutting(image, crops, *args, plain=pipeline.read_crops, **options):
        counts["cut"].append(tuple(crops))
        return plain(image, crops, *args, **options)

    monkeypatch.setattr(pipeline, "open_image", reading)
    monkeypatch.setattr(pipeline, "read_crops", cutting)
    paths = read(people / "train").paths[:7]
    whole_answer = predict(Ensemble(members).eval(), paths, finder=finder, workers=0)
    assert len(counts["read"]) == len(counts["searched"]) == len(counts["cut"]) == 7
    assert set(counts["cut"]) == {(whole, face, FULL.resized(40))}  # each distinct crop once
    columns = [f"joint:{number}" for number in range(18)]
    alone = [predict(member, paths, finder=finder, workers=0)[columns].to_numpy() for member in members]
    np.testing.assert_allclose(whole_answer[columns].to_numpy(), np.mean(alone, 0), atol=1e-6)


# ---- a person's photos vote


def test_evaluate_and_predict_let_a_persons_photos_vote(folders, people, tmp_path, capsys):
    model, photos = load(folders / "a" / "fold0"), read(people / "train")
    before = evaluate(model, photos, workers=0)
    before = dataclasses.replace(before, row_numbers=before.row_numbers + 5)
    voted = person_voted(before)
    assert (voted.row_numbers == before.row_numbers).all() and len(voted.row_numbers)
    wanted = person_vote(before.probs, photos.groups(), HEADS)
    np.testing.assert_allclose(voted.probs, wanted)
    assert before.joint.n == voted.joint.n
    folder, data = str(folders / "a" / "fold0"), str(people / "train")
    assert main(["evaluate", folder, data, "--person-vote", "--json", "-q", "--part", "all"]) == 0
    assert json.loads(capsys.readouterr().out)["macro_f1"] == pytest.approx(voted.f1)
    table = tmp_path / "t.csv"
    assert main(["predict", folder, data, "--person-vote", "-o", str(table), "-q"]) == 0
    rows = pd.read_csv(table)
    found = rows[[f"joint:{number}" for number in range(18)]].to_numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    genders = pd.Series(rows.gender.to_numpy()).groupby(photos.people)
    assert (genders.nunique() == 1).all() and not (marginals(before.probs, HEADS)["gender"].argmax(1) == 0).all()


def test_faces_of_one_photo_vote_with_their_own_person(people, tmp_path):
    photos = read(people / "train")
    first, second = photos[:7], photos[7:14]
    box = [{"x0": 10.0, "y0": 10.0, "x1": 60.0, "y1": 70.0}, {"x0": 80.0, "y0": 90.0, "x1": 160.0, "y1": 180.0}]
    rows = [photos[:1].with_columns(**box[0]), photos[:1].with_columns(**box[1], person=second.people[0])]
    both = Photos(pd.concat([row.table for row in [*rows, first[1:], second]], ignore_index=True), photos.heads)
    model = Model("test_resnet", [head.on(FACE.resized(32)) for head in HEADS]).eval()
    found = list(answers(model, both))
    voted = prediction.person_voted(found, model.space)
    plain = np.stack([row.probs for row in found])
    groups = np.array([0] + [1] + [0] * 6 + [1] * 7)
    np.testing.assert_allclose(np.stack([row.probs for row in voted]), person_vote(plain, groups, HEADS))


def test_a_vote_needs_people(folders, people, tmp_path, capsys):
    folder, eval_photos = str(folders / "a" / "fold0"), str(people / "eval" / "images")
    assert main(["predict", folder, eval_photos, "--person-vote", "-q"]) == 2
    assert "--person-vote needs photos whose people are known" in capsys.readouterr().err
    for more in (["--faces", "all"], ["--draw", str(tmp_path / "d")]):
        assert main(["predict", folder, str(people / "train"), "--person-vote", "-q", *more]) == 2
        assert f"{' '.join(more[: 2 if more[0] == '--faces' else 1])} and --person-vote" in capsys.readouterr().err
    photos = read(people / "train")[:7]
    photos.with_columns(person="").write(tmp_path / "t.csv")
    assert main(["evaluate", folder, str(tmp_path / "t.csv"), "--person-vote", "-q"]) == 2
    assert "a person vote needs photos whose people are known" in capsys.readouterr().err
    only_mask = Model("test_resnet", [MASK.on(FULL.resized(32, 24))]).eval()
    scores = evaluate(only_mask, read(people / "train", heads=[MASK])[:7], workers=0)
    with pytest.raises(ValueError, match=r"heads \['mask'\]: none of gender, age is there"):
        person_voted(scores)
    both = Model("test_resnet", [MASK.on(FULL.resized(32, 24)), GENDER.on(FULL.resized(32, 24))]).eval()
    assert person_voted(evaluate(both, read(people / "train", heads=[MASK, GENDER])[:7], workers=0)).n == 7


def test_a_member_votes_once(folders, tmp_path, capsys):
    same = str(folders / "a" / ".." / "a")
    assert main(["ensemble", str(folders / "a"), same, "-o", str(tmp_path / "vote")]) == 2
    assert "is named twice; expected each member once" in capsys.readouterr().err


# ---- whole, or not at all


@pytest.mark.parametrize("more", [[], ["--soup", "uniform"]])
def test_the_photos_that_trained_come_with_the_ensemble_or_nothing_does(folders, tmp_path, monkeypatch, more):
    """What `evaluate` warns by is there as soon as the model is."""
    command = ["ensemble", str(folders / "a"), "-o", str(tmp_path / "e"), "-j", "0", *more]

    def stopped(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("multihead.trained.keep_trained", stopped)
        with contextlib.suppress(KeyboardInterrupt, SystemExit):
            main(command)
    assert not (tmp_path / "e").exists()
    assert main(command) == 0
    assert (tmp_path / "e" / "splits.csv").is_file() and load(tmp_path / "e")
