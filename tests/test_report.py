import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from test_pages import Reader

import multihead as mh
from multihead import paired, sections
from multihead.comparison import Arm
from multihead.comparison import compare as run_comparison
from multihead.data import write_splits
from multihead.ensemble import fit_folds
from multihead.evaluation import evaluate
from multihead.findings import kind_of, of_folds, of_run
from multihead.labels import encode
from multihead.logs import write_rows
from multihead.mistakes import mistakes, overlay, shared_folder
from multihead.report import report

FULL, FACE = mh.FULL.resized(32), mh.FACE.resized(32)
HOSTILE = "a<img src=x>&\"'.jpg"
CURVE = [{"epoch": 1, "loss": 2.0, "mask_loss": 1.5, "macro_f1": math.nan}, {"epoch": 2, "loss": 1.0, "macro_f1": 0.25}]
SECTIONS = (
    ["Scores", "Settings", "Photos", "Learning curves", "Confusion", "Classes", "Slices", "Calibration"]
    + ["One person's photos", "Surest errors"]
)  # fmt: skip


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(sections, "RESAMPLES", 40)


def model(seed=0, heads=None):
    torch.manual_seed(seed)
    heads = heads or [mh.MASK.on(FACE), mh.GENDER.on(FULL), mh.AGE.on(FACE, FULL)]
    made = mh.Model("test_resnet", heads)
    for layer in made.head.values():
        torch.nn.init.normal_(layer.weight, std=3)
    return made.eval()


def run_folder(folder, made, parts, settings=None):
    made.save_pretrained(folder / "model")
    if parts:
        write_splits(folder / "splits.csv", parts)
    write_rows(folder / "metrics.csv", CURVE)
    (folder / "args.yaml").write_text(yaml.safe_dump(settings or {"model": "test_resnet", "lr": 0.001}))
    return folder


@pytest.fixture(scope="module")
def photos(people):
    """Four people's photos, one file of them under a hostile name."""
    found = mh.read(people / "train", boxes=people / "train" / "boxes.csv")
    found = found[np.isin(found.people, list(dict.fromkeys(found.people))[:4])]
    (people / HOSTILE).write_bytes(Path(found.paths[0]).read_bytes())
    paths = [str(people / HOSTILE), *found.paths[1:]]
    return found.with_columns(path=paths, name=paths)


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    made = model()
    folder = run_folder(tmp_path_factory.mktemp("a run") / "<b>run", made, {"train": photos[14:], "val": photos[:14]})
    return folder, evaluate(made, photos[:14], workers=0)


@pytest.fixture(scope="module")
def page(run):
    with pytest.MonkeyPatch.context() as patch:  # made before any test's own
        patch.setattr(sections, "RESAMPLES", 40)
        return read_page(report(run[0], errors=9, workers=0))


def read_page(path):
    """The page, read; nothing in it is fetched from elsewhere, every picture has words, and all its text is escaped."""
    text = path.read_text(encoding="utf-8")
    read = Reader(text)
    for tag, attributes in read.tags:
        assert tag not in ("script", "link", "iframe", "object"), tag
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("data:image/", "#")), attributes
        assert tag != "img" or attributes["alt"]
    assert "url(" not in text and "@import" not in text and "http" not in re.sub(r"base64,\S+|http-equiv", "", text)
    assert len(text) < 3_000_000
    return read


def titles(read):
    """The sections' headings: the texts of the links to them."""
    count = sum(tag == "a" for tag, _ in read.tags)
    at = next(place for place, text in enumerate(read.text) if text in ("Scores", "Summary"))
    return read.text[at : at + count]


def rows(read, first):
    """The tables' rows that begin with this cell."""
    return [cells for cells in read.cells if cells[0] == first]


def shown(value):
    return "–" if math.isnan(value) else f"{value:.3f}"


# ---- a run


def test_a_run_has_every_section_and_the_numbers_of_metrics(run, page):
    folder, wanted = run
    assert titles(page) == SECTIONS and page.text[0] == "Training run <b>run"
    joint = rows(page, "all 18 classes")[0]
    assert [joint[1], *joint[-3:]] == [shown(wanted.f1), shown(wanted.accuracy), str(wanted.n), "2"]
    for name, head in wanted.heads.items():
        scores = rows(page, name)[0]
        assert [scores[1], *scores[-3:]] == [shown(head.f1), shown(head.accuracy), str(head.n), "2"]
        for place, label in enumerate(head.classes):
            found = [cells for cells in rows(page, label) if len(cells) == 9][0]
            precision, recall, f1 = head.per_class()[:, place]
            seen = head.counts[place].sum() + head.counts[:, place].sum()
            assert found[1] == (shown(f1) if seen else "–")
            assert found[5:8] == [shown(precision), shown(recall), str(head.counts[place].sum())]
            counts = [cells for cells in rows(page, label) if len(cells) == len(head.classes) + 2]
            assert [int(cell or 0) for cell in counts[0][1:-1]] == head.counts[place].tolist()
    for place, label in enumerate(wanted.joint.classes):
        counts = [cells for cells in rows(page, f"{place} {label}") if len(cells) == 20][0]
        assert [int(cell or 0) for cell in counts[1:-1]] == wanted.confusion[place].tolist()


def test_slices_calibration_and_agreement_are_those_of_the_functions(run, page):
    from multihead.calibrate import calibration_errors
    from multihead.persons import agreement

    _, wanted = run
    for head in wanted.table:
        for level, part in wanted.by(head.name).items():
            if len(part.labels):
                found = [cells for cells in rows(page, level) if len(cells) == 7][0]
                own = [math.nan if name == head.name else each.f1 for name, each in part.heads.items()]
                assert found[1:] == [str(len(part.labels)), *map(shown, [part.f1, part.accuracy, *own])]
    for name, error in calibration_errors(wanted.probs, wanted.labels, wanted.table).items():
        assert [cells for cells in rows(page, name) if len(cells) == 3][0][2] == shown(error)
    table = agreement(wanted.slices["person"], wanted.labels, wanted.probs, wanted.table).set_index("head")
    for name in ("gender", "age"):
        found = rows(page, name)[-1]
        assert found == [name, "2", "14", shown(table.unanimous[name]), shown(table.majority[name])]
    text = "Counted are people with two photos or more that carry the same label. No person has such photos for mask."
    assert text in page.text


def test_counts_settings_and_curves(photos, page):
    counts = {part: split.counts() for part, split in (("train", photos[14:]), ("val", photos[:14]))}
    for place, (head, name) in enumerate(zip(counts["val"]["head"], counts["val"]["class"])):
        wanted = [str(counts[part][what][place]) for part in ("train", "val") for what in ("photos", "people")]
        assert [head, name, *wanted] in page.cells
    assert ["lr", "0.001"] in page.cells and ["head age reads", "face 32x32, full 32x32"] in page.cells
    joint = encode(photos[:14].labels(mh.HEADS), mh.HEADS)
    name = "worn/male/<30"
    assert rows(page, f"0 {name}")[0][3] == str((joint == 0).sum())
    assert "At the end: loss 1.000, mask_loss –." in page.text  # an epoch without a number has none
    assert "The score on the validation photos was taken once, at the end: macro_f1 0.250." in page.text


def test_the_surest_errors(run, page):
    _, wanted = run
    cards = [text for text in page.text if re.fullmatch(r".+ \d\.\d\d, label .+", text)]
    chosen = mistakes(wanted, 9)
    assert cards == [
        f"{(head := wanted.table[one.column]).classes[one.answer]} {one.confidence:.2f}, label {head.classes[one.label]}"
        for one in chosen
    ]
    pictures = [attributes for tag, attributes in page.tags if tag == "img" and "crop" in attributes["alt"]]
    each = [2 * len(crops) for crops in ((FACE,), (FULL,), (FACE, FULL))]
    assert len(pictures) == sum(each[one.column] for one in chosen)
    views = {attributes["alt"] for attributes in pictures}
    assert views >= {"the face crop", "where the model looked in the face crop"}
    assert any(HOSTILE in text for text in page.text) == any(one.row == 0 for one in chosen)


def test_every_error_with_its_hostile_name(run, tmp_path):
    folder, wanted = run
    read = read_page(report(folder, tmp_path / "new" / "all.html", errors=100, maps=False, workers=0))
    wrong = sum(int(head.counts.sum() - np.trace(head.counts)) for head in wanted.heads.values())
    assert sum(text.startswith("person ") for text in read.text) == wrong > 9
    assert HOSTILE in read.text
    assert not [a for tag, a in read.tags if tag == "img" and "where the model looked" in a["alt"]]
    none = read_page(report(folder, tmp_path / "none.html", errors=0, workers=0))
    assert "None were asked for." in none.text and titles(none) == SECTIONS


def test_mistakes_against_a_loop(run):
    _, wanted = run
    found = mistakes(wanted, 10**6)
    grid, loop = wanted.probs.reshape(-1, 3, 2, 3), []
    for column, axes in enumerate([(2, 3), (1, 3), (1, 2)]):
        part = grid.sum(axes)
        mine = [(-p.max(), r, column) for r, p in enumerate(part) if p.argmax() != wanted.labels[r, column]]
        loop += [(row, column) for _, row, column in sorted(mine)]
    assert [(one.row, one.column) for one in found] == loop
    few = mistakes(wanted, 6)
    sizes = [sum(one.column == column for one in found) for column in range(3)]
    taken = [sum(one.column == column for one in few) for column in range(3)]
    assert sum(taken) == 6 and all(t == s or t >= 2 for t, s in zip(taken, sizes))


def test_a_flat_model_has_the_map_of_its_joint_answer(photos, tmp_path):
    made = model(heads=mh.flat([mh.MASK.on(FULL), mh.GENDER.on(FULL), mh.AGE.on(FULL)]))
    folder = run_folder(tmp_path / "flat", made, {"val": photos[:7]})
    read = read_page(report(folder, errors=3, workers=0))
    looked = [a for tag, a in read.tags if tag == "img" and "where the model looked" in a["alt"]]
    assert len(looked) == 3 and titles(read) == SECTIONS


def test_photos_of_training_are_told(run, photos, tmp_path):
    folder = run_folder(tmp_path / "both", model(), {"train": photos[:14], "val": photos[14:]})
    read = read_page(report(folder, errors=0, workers=0))
    assert any("photos that the model did not see in training" in text for text in read.text)
    read = read_page(report(folder, errors=0, workers=0, photos=photos))
    assert not any("did not see in training" in text for text in read.text)
    told = f"14 of these {len(photos)} photos trained this model, so the scores flatter it; "
    assert any(text.startswith(told) for text in read.text)


def test_photos_that_are_gone_are_notes(run, photos, tmp_path):
    gone = photos[:14].with_columns(path=[f"{tmp_path}/{place}.jpg" for place in range(14)])
    mixed = photos[:14].with_columns(path=[*photos.paths[:13], f"{tmp_path}/13.jpg"])
    read = read_page(report(run[0], tmp_path / "mixed.html", photos=mixed, errors=2, workers=0))
    assert any(text.startswith("1 photos could not be read and are not counted, the first: ") for text in read.text)
    assert rows(read, "all 18 classes")[0][-2] == "13"
    (run[0] / "metrics.json").write_text(json.dumps(run[1].to_dict()))
    read = read_page(report(run[0], tmp_path / "gone.html", photos=gone, workers=0))
    (run[0] / "metrics.json").unlink()
    assert titles(read) == ["Scores", "Settings", "Photos", "Learning curves"]
    assert any(
        text.startswith("The photos could not be answered: none of 14 photos could be scored") for text in read.text
    )
    assert ["all classes", "14", shown(run[1].f1), shown(run[1].accuracy)] in read.cells


def test_what_a_run_lacks_is_said(run, photos, tmp_path):
    alone = run_folder(tmp_path / "alone", model(), {"train": photos})
    read = read_page(report(alone, workers=0))
    assert "No photos validate in this run, so there is nothing to score." in read.text
    assert "The folder holds no scores." in read.text
    (begun := tmp_path / "begun").mkdir()
    (begun / "metrics.csv").write_text("")
    read = read_page(report(begun))
    assert "There is no model/ in the folder: the run has not ended, so nothing could be answered." in read.text
    for text in ("no args.yaml", "no metrics.csv", "does not say which photos"):
        assert any(text in each for each in read.text), text


def test_unknown_people_and_labels(photos, tmp_path):
    unknown = photos[:7].with_columns(person="", mask=-1, gender=-1, age=-1, years=math.nan)
    folder = run_folder(tmp_path / "run", model(), {"val": photos[:7]})
    read = read_page(report(folder, photos=unknown, workers=0))
    assert titles(read) == SECTIONS
    for text in ("No photo has a label.", "No photo has this label.", "No photo has a label to compare the confidence"):
        assert any(text in each for each in read.text), text
    assert any(text.startswith("No person is known to be on two photos") for text in read.text)


# ---- folds


@pytest.fixture(scope="module")
def folds(photos, tmp_path_factory):
    """A folder of two folds, and the scores of its out-of-fold answers."""
    folder, fold, table = tmp_path_factory.mktemp("folds"), np.zeros(len(photos), int), []
    probs = np.zeros((len(photos), 18))
    numbered = photos.with_columns(at=np.arange(len(photos)))
    for number, (train, valid) in enumerate(numbered.folds(2)):
        at, made = valid.table["at"].to_numpy(), model(number)
        run_folder(folder / f"fold{number}", made, {"train": photos[train.table["at"]], "val": photos[at]})
        fold[at], probs[at] = number, evaluate(made, photos[at], workers=0).probs
    photos.with_columns(fold=fold.astype(str)).write(folder / "photos.csv")
    for row in np.random.default_rng(0).permutation(len(photos)):  # in any order of rows and columns
        joint = {f"joint:{index}": probs[row, index] for index in reversed(range(18))}
        labels = {head.name: head.classes[label] for head, label in zip(mh.HEADS, photos.labels()[row])}
        table.append({**joint, "fold": fold[row], **labels, "person": photos.people[row], "path": photos.paths[row]})
    write_rows(folder / "oof.csv", table)
    return folder, mh.score(probs, photos.labels(), mh.HEADS), fold


def test_folds(folds, photos):
    folder, wanted, fold = folds
    read = read_page(report(folder, errors=6))
    assert titles(read) == SECTIONS and read.text[0].startswith("Folds ")
    joint = rows(read, "all 18 classes")[0]
    assert [joint[1], *joint[-3:]] == [shown(wanted.f1), shown(wanted.accuracy), str(wanted.n), "4"]
    for number in (0, 1):
        part = wanted.rows(fold == number)
        found = [cells for cells in rows(read, str(number)) if len(cells) == 7][0]
        assert found[1:] == [str(part.n), *map(shown, [part.f1, part.accuracy, *(h.f1 for h in part.heads.values())])]
    assert [
        "head",
        "class",
        *(f"{p}: {w}" for p in ("all folds", "fold 0", "fold 1") for w in ("photos", "people")),
    ] in read.cells
    assert "At the end: fold 0 1.000, fold 1 1.000." in read.text
    assert len([a for tag, a in read.tags if tag == "img" and "where the model looked" in a["alt"]]) >= 6


def test_each_fold_is_answered_by_the_model_that_did_not_see_it(folds, photos):
    folder, wanted, fold = folds
    found = of_folds(folder, None).answered
    by_path = dict(zip(photos.paths, fold))
    assert [str(folder / f"fold{by_path[path]}") for path in found.photos.paths] == found.folders.tolist()
    assert sorted(found.photos.paths) == sorted(photos.paths)
    assert found.scores.f1 == wanted.f1


def test_folds_without_all_their_files(folds, photos, tmp_path):
    folder, wanted, _ = folds
    for name in ("fold0", "fold1", "oof.csv"):
        (tmp_path / name).symlink_to(folder / name)
    found = of_folds(tmp_path, None)  # labels and people of oof.csv itself
    assert found.answered.scores.f1 == pytest.approx(wanted.f1) and "all folds" in found.parts
    more = photos + photos[:1].with_columns(path="more.jpg", name="more.jpg")
    assert of_folds(tmp_path, more).notes == ("1 of 29 photos have no answer in oof.csv and are not counted.",)
    with pytest.raises(ValueError, match=r"oof.csv answers 27 photos that are not in the table, the first '"):
        of_folds(tmp_path, photos[:1])
    (tmp_path / "oof.csv").unlink()
    read = read_page(report(tmp_path))
    assert "There is no oof.csv with a fold's model beside it: the folds have not ended." in read.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda table: table.drop(columns="joint:3"),
            r"oof.csv lacks the columns \['joint:3'\]; expected what multihead folds",
        ),
        (
            lambda table: table.assign(**{"joint:3": "x"}),
            "oof.csv: could not convert string to float: 'x'; expected prob",
        ),
        (
            lambda table: table.assign(**{"joint:3": ["0.1", "nan"] + ["0.1"] * 26}),
            "oof.csv, line 3: a probability is not",
        ),
    ],
    ids=["column", "word", "nan"],
)
def test_a_broken_table_of_answers(folds, tmp_path, change, message):
    folder = folds[0]
    (tmp_path / "fold0").symlink_to(folder / "fold0")
    change(pd.read_csv(folder / "oof.csv", dtype=str)).to_csv(tmp_path / "oof.csv", index=False)
    with pytest.raises(ValueError, match=message):
        of_folds(tmp_path, None)


def test_a_fold_without_its_weights_shows_no_map(folds, photos, tmp_path):
    for name in ("fold0", "oof.csv", "photos.csv"):
        (tmp_path / name).symlink_to(folds[0] / name)
    read = read_page(report(tmp_path, errors=30))
    assert any(text.startswith("Where the model looked is not shown: ") and "fold1" in text for text in read.text)


def test_folds_of_several_models(photos, tmp_path):
    """Their curve is of the mean of the heads, and each error is looked at in the model of its head."""
    make = lambda: [mh.Model("test_resnet", [head.on(FULL)]) for head in (mh.MASK, mh.GENDER)]  # noqa: E731
    fit_folds(make, photos, mh.Recipe(epochs=2, batch_size=8), out=tmp_path, folds=2, cache=False)
    read = read_page(report(tmp_path, errors=4))
    ends = []
    for number in (0, 1):
        last = pd.read_csv(tmp_path / f"fold{number}" / "curve.csv").iloc[-1]
        ends.append(f"fold {number} {shown((last.mask_f1 + last.gender_f1) / 2)}")
    assert f"At the end: {', '.join(ends)}." in read.text
    assert not any("is not shown" in text for text in read.text)
    assert len([a for tag, a in read.tags if tag == "img" and "where the model looked" in a["alt"]]) == 4


# ---- a comparison


@pytest.fixture(scope="module")
def comparison(photos, tmp_path_factory):
    """A finished comparison of two arms whose answers are drawn numbers."""
    folder, rng = tmp_path_factory.mktemp("comparison"), np.random.default_rng(0)
    labels, scores, found = photos.labels(), {}, {}
    for arm, loss in {"plain": {"name": "CrossEntropy"}, "a <b> & co": {"name": "Focal", "gamma": 2.0}}.items():
        found[arm] = []
        for seed in (0, 1):
            probs = rng.dirichlet(np.ones(18) / 3, len(photos))
            for fold in (0, 1):
                cell = folder / "runs" / arm / f"fold{fold}-seed{seed}"
                at = np.arange(fold, len(photos), 2)
                write_rows(
                    cell / "curve.csv",
                    [{**row, "macro_f1": 0.1, "selected_by": "macro_f1", "seconds": 1.5} for row in CURVE],
                )
                content = {
                    "recipe": {"losses": loss, "epochs": 2, "seed": seed},
                    "rows": "all",
                    "about": {"model": "m"},
                }
                (cell / "cell.json").write_text(json.dumps(content))
                np.savez(cell / "answers.npz", rows=at, probs=probs[at].astype(np.float32))
            found[arm].append(probs.astype(np.float32).astype(float))
        scores[arm] = [mh.score(probs, labels, mh.HEADS) for probs in found[arm]]
    frame = paired.compare(found, labels, photos.groups(), mh.HEADS, resamples=20)
    frame.to_csv(folder / "summary.csv", index=False)
    return folder, frame, scores


def test_a_comparison_without_photos(comparison):
    folder, frame, _ = comparison
    read = read_page(report(folder))
    assert titles(read) == ["Summary", "What differs", "Learning curves", "Time"]
    assert any("no photos.csv" in text for text in read.text)
    other = frame[frame.arm == "a <b> & co"].set_index("metric")
    cells = rows(read, "a <b> & co")[0]
    for place, metric in enumerate(["macro_f1", "mask_f1", "gender_f1", "age_f1"]):
        row = other.loc[metric]
        assert cells[1 + 2 * place] == shown(row["mean"])
        assert cells[2 + 2 * place] == f"{row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}]"
    assert ["losses", "CrossEntropy()", "Focal(gamma=2.0)"] in read.cells
    assert ["epochs", "2"] in read.cells and ["model", "m"] in read.cells and not rows(read, "seed")
    assert ["plain", "4", "3.0", "0.2"] in read.cells


def test_a_comparison_with_its_photos(comparison, photos):
    folder, _, scores = comparison
    photos.write(folder / "photos.csv")
    try:
        read = read_page(report(folder))
    finally:
        (folder / "photos.csv").unlink()
    assert titles(read)[4:] == ["Photos", "Classes", "Slices", "Confusion"]
    for name, level in (("mask", "worn"), ("gender", "female")):
        column = [head.name for head in mh.HEADS].index(name)
        wanted = [np.mean([one.by(name)[level].f1 for one in seeds]) for seeds in scores.values()]
        count = int((photos.labels()[:, column] == list(mh.HEADS[column].classes).index(level)).sum())
        assert [level, str(count), *map(shown, wanted)] in read.cells
        f1 = [np.mean([one.heads[name].table().f1[level] for one in seeds]) for seeds in scores.values()]
        assert [level, str(count), *map(shown, f1)] in read.cells
    for arm, seeds in scores.items():
        total = sum(one.confusion for one in seeds)
        assert [
            "0 worn/male/<30",
            *(str(cell) if cell else "" for cell in total[0]),
            str(total[0].sum()),
        ] in read.cells, arm


def test_a_comparison_answers_rows_that_the_photos_have(comparison, photos):
    with pytest.raises(ValueError, match=r"arm 'plain' answers row 27 of 4 photos"):
        report(comparison[0], photos=photos[[0, 8, 15, 27]])


def test_arms_are_named_as_they_were(comparison, tmp_path):
    folder, frame, _ = comparison
    names = {"plain": "None", "a <b> & co": "0.10"}
    for old, new in names.items():
        (tmp_path / "runs").mkdir(exist_ok=True)
        (tmp_path / "runs" / new).symlink_to(folder / "runs" / old)
    frame.replace({"arm": names}).to_csv(tmp_path / "summary.csv", index=False)
    cells = [{"arm": arm, "fold": fold, "seed": 0, "seconds": 1.5} for arm in names.values() for fold in (0, 1)]
    write_rows(tmp_path / "times.csv", cells)
    read = read_page(report(tmp_path))
    assert ["setting", "None", "0.10"] in read.cells and ["losses", "CrossEntropy()", "Focal(gamma=2.0)"] in read.cells
    assert ["None", "2", "3.0", "0.1"] in read.cells and ["0.10", "2", "3.0", "0.1"] in read.cells


@pytest.mark.slow
def test_what_compare_writes_can_be_reported(photos, tmp_path):
    recipe = mh.Recipe(epochs=1, batch_size=8)
    arms = {"a": Arm(lambda: model(), recipe), "b": Arm(lambda: model(1), recipe)}
    run_comparison(arms, photos, tmp_path, folds=2)
    read = read_page(report(tmp_path, photos=photos))
    assert [a["alt"].split()[0] for tag, a in read.tags if tag == "img"] == ["differences", "learning"]
    assert "Confusion" in titles(read)


# ---- the kind of folder, the verb


def test_what_a_folder_is(run, folds, comparison, tmp_path):
    assert [kind_of(found[0]) for found in (run, folds, comparison)] == ["run", "folds", "comparison"]
    with pytest.raises(FileNotFoundError, match="is no folder to report on; expected what multihead train, folds or"):
        report(tmp_path)
    with pytest.raises(ValueError, match="errors=-1; expected how many wrong answers to show"):
        report(run[0], errors=-1)
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="is a folder; name a file in it"):
        report(run[0], tmp_path / "taken")


def test_a_run_that_skipped_photos_without_a_face(run, photos, tmp_path):
    boxes = {name: [math.nan] * 3 + photos.table[name][3:14].tolist() for name in ("x0", "y0", "x1", "y1")}
    faceless = photos[:14].with_columns(**boxes, searched=True)
    folder = run_folder(tmp_path / "run", model(), {"val": faceless}, {"missing": "skip"})
    answered = of_run(folder, None, workers=0).answered
    assert answered.photos.paths == photos.paths[3:14] and len(answered.probs) == 11


def test_the_verb(run, tmp_path, capsys):
    from multihead.cli import main

    page = tmp_path / "page.html"
    assert (
        main(["report", str(run[0]), "-o", str(page), "--errors", "2", "--no-maps", "--device", "cpu", "-j", "0"]) == 0
    )
    assert capsys.readouterr().out.startswith(f"wrote {page}: 0.") and titles(read_page(page)) == SECTIONS
    assert main(["report", str(tmp_path)]) == 2
    assert "multihead report: error:" in capsys.readouterr().err


# ---- pictures


def test_overlay_is_grey_where_nothing_spoke():
    pixels = np.full((8, 4, 3), (200, 40, 90), np.uint8)
    shown_ = overlay(pixels, np.zeros((2, 2)))
    assert (shown_ == shown_[..., :1]).all() and shown_.shape == pixels.shape
    lit = overlay(pixels, np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert lit[0, 0].sum() > 1.5 * shown_[0, 0].sum() and (lit[-1, -1] == shown_[-1, -1]).all()


def test_the_folder_of_all_photos():
    assert shared_folder(["/a/b/1.jpg", "/a/c/2.jpg"]) == "/a" and shared_folder(["/a/1.jpg", "/b/2.jpg"]) == ""
    assert shared_folder(["/a/b/1.jpg"]) == "/a/b" and shared_folder(["a/1.jpg", "/b/2.jpg"]) == ""


@pytest.mark.parametrize("more", [[], ["splits.csv"]])
def test_an_ensemble_is_no_training(more, tmp_path):
    mh.Ensemble([model(), model()]).save(tmp_path / "vote")
    for name in more:  # as `multihead ensemble` leaves it
        (tmp_path / "vote" / name).write_text("path,split\n")
    with pytest.raises(
        FileNotFoundError, match="vote holds an ensemble, which has no training to report on; report the"
    ):
        report(tmp_path / "vote")
