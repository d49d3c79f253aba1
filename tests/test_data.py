import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multihead.crops import FACE
from multihead.data import Photos, write_splits
from multihead.heads import AGE, FLAT, GENDER, HEADS, MASK, UNKNOWN, Head
from multihead.labels import encode
from multihead.leaks import LeakError, check_disjoint
from multihead.reading import read

ROWS = pd.DataFrame(
    {
        "path": ["a.jpg", "b.jpg", "c.jpg", "d.jpg"],
        "person": ["ann", "ann", "bo", ""],
        "mask": ["worn", "incorrect", "", "not_worn"],
        "gender": ["female", "female", "male", ""],
        "age": ["29", "30", ">=60", ""],
        "split": ["train", "train", "val", "test"],
        "x0": ["1", "", "", ""],
        "y0": ["2", "", "", ""],
        "x1": ["3", "", "", ""],
        "y1": ["4", "", "", ""],
        "face": ["", "whole", "", ""],
        "race": ["x", "x", "y", ""],
    }
)


@pytest.fixture
def photos():
    return read(ROWS, root="/photos", name="t")


def crowd(people=60, root="/photos", **columns):
    """Photos like the competition's: seven a person, uneven ages."""
    rng = np.random.default_rng(0)
    rows = []
    for person in range(people):
        gender, age = rng.choice(["male", "female"]), int(rng.choice([20, 40, 60], p=[0.5, 0.4, 0.1]))
        for index, mask in enumerate(["worn"] * 5 + ["incorrect", "not_worn"]):
            rows.append((f"{person}/{index}.jpg", f"p{person}", mask, gender, age))
    return read(pd.DataFrame(rows, columns=["path", "person", "mask", "gender", "age"]).assign(**columns), root=root)


def equal(left, right):
    """The same rows, whatever their source and root are called."""
    columns = ["path", "person", "split", "years", "x0", "y0", "x1", "y1", "whole", *left.extra]
    pd.testing.assert_frame_equal(left.table[columns], right.table[columns], check_dtype=False)
    np.testing.assert_array_equal(left.labels(), right.labels())
    return left.extra == right.extra


# ---- what a table knows


def test_properties_by_hand(photos):
    assert len(photos) == 4 and photos.paths[0] == "/photos/a.jpg"
    assert photos.people == ["t:ann", "t:ann", "t:bo", ""]
    assert photos.boxes[0].tolist() == [1, 2, 3, 4] and np.isnan(photos.boxes[1:]).all()
    assert photos.extra == ["race"] and photos.known() == {"mask": 3, "gender": 3, "age": 3}
    assert photos.labels().tolist() == [[0, 1, 0], [1, 1, 1], [-1, 0, 2], [2, -1, -1]]
    assert repr(photos) == "Photos(4 rows, 2 people named; known: mask 3, gender 3, age 3)"
    assert photos.table.whole.tolist() == [False, True, False, False]


def test_labels_follow_the_heads_that_are_asked(photos):
    assert photos.labels([AGE, MASK]).tolist() == [[0, 0], [1, 1], [2, -1], [-1, 2]]
    assert photos.labels(FLAT).tolist() == photos.labels().tolist()
    early = Head("age", AGE.classes, edges=(25, 30))
    assert photos.labels([early]).tolist() == [[1], [2], [2], [-1]]  # years by its edges; the band as it was read
    assert photos.labels([Head("age", AGE.classes)]).tolist() == [[0], [1], [2], [-1]]  # edges of reading
    with pytest.raises(KeyError, match=r"photos were read for heads \['mask', 'gender', 'age'\], not 'smile'"):
        photos.labels([Head("smile", ("no", "yes"))])
    with pytest.raises(ValueError, match=r"head 'mask' has classes \('a', 'b'\), the photos \('worn'"):
        photos.labels([Head("mask", ("a", "b"))])


def test_counts(photos):
    table = photos.counts().set_index(["head", "class"])
    assert table.loc[("gender", "female")].tolist() == [2, 1] and table.loc[("mask", "unknown")].tolist() == [1, 1]
    assert table.loc["age"].photos.sum() == 4


# ---- choosing rows


def test_rows_by_mask_number_and_slice(photos):
    for rows in (np.array([True, False, True, False]), [0, 2], slice(0, 4, 2), np.array([0, 2])):
        assert photos[rows].paths == ["/photos/a.jpg", "/photos/c.jpg"]
    assert photos[3].paths == ["/photos/d.jpg"] and len(photos[[]]) == 0
    assert photos[[2]].table.index.tolist() == [0] and len(photos) == 4
    with pytest.raises(IndexError):
        photos[[4]]


def test_where_takes_names_numbers_lists_and_functions(photos):
    assert photos.where(mask="worn").paths == ["/photos/a.jpg"]
    assert photos.where(mask=["Worn", 2]).paths == ["/photos/a.jpg", "/photos/d.jpg"]
    assert photos.where(age=">=60").paths == ["/photos/c.jpg"] and photos.where(age=[0, 1]).labels([AGE]).tolist() == [
        [0],
        [1],
    ]
    assert photos.where(mask="").paths == ["/photos/c.jpg"]  # unknown
    assert photos.where(race="x", gender="female", split=["val", "train"]).paths == ["/photos/a.jpg", "/photos/b.jpg"]
    assert photos.where(lambda table: table.years > 29.5, person="t:ann").paths == ["/photos/b.jpg"]
    assert len(photos.where()) == 4
    with pytest.raises(KeyError, match="photos have no column 'colour'; there are"):
        photos.where(colour="red")
    with pytest.raises(ValueError, match="'not worn' is no class of head 'mask'"):
        photos.where(mask="not worn")


def test_part_and_parts(photos):
    assert [len(part) for part in photos.parts().values()] == [2, 1, 1] and len(photos.part("train")) == 2
    with pytest.raises(
        ValueError, match=r"no photo has split 'train'; the split column holds \[''\]; use photos.split"
    ):
        crowd(2).part("train")
    leaky = photos.with_columns(person="t:ann")
    with pytest.raises(LeakError, match="1 people are on both sides: t:ann; split by person"):
        leaky.parts()


def test_with_columns_leaves_the_first_table_alone(photos):
    assert photos.with_columns(split="val", race=list("abcd")).table.race.tolist() == list("abcd")
    assert photos.table.split.tolist() == ["train", "train", "val", "test"]


# ---- joining


def test_add_keeps_everything(photos):
    other = read(pd.DataFrame({"path": ["e.jpg"], "gender": ["male"], "colour": ["red"]}), root="/other", name="o")
    both = photos + other
    assert both.paths == [*photos.paths, "/other/e.jpg"] and both.extra == ["race", "colour"]
    assert both.table.colour.tolist() == ["", "", "", "", "red"] and both.table.race.tolist() == ["x", "x", "y", "", ""]
    assert both.labels().tolist() == [*photos.labels().tolist(), [-1, 0, -1]]
    assert equal(both[:4][[0, 1]], both[[0, 1]]) and len(photos) == 4


def test_add_with_an_empty_side(photos):
    assert equal(photos + photos[[]], photos) and equal(photos[[]] + photos, photos)


def test_add_does_not_mind_other_crops():
    first = read(ROWS, heads=[MASK.on(FACE)], root="/photos")
    second = read(ROWS.assign(path=list("wxyz")), heads=[MASK], root="/photos")
    assert len(first + second) == 8


def test_add_refuses(photos):
    with pytest.raises(ValueError, match="1 files are in both tables, for one /photos/c.jpg; leave them out of one"):
        photos + photos[[2]]
    with pytest.raises(ValueError, match=r"heads \['mask', 'gender', 'age'\] and \['mask'\] cannot be joined"):
        photos + read(ROWS, heads=[MASK], root="/other")
    with pytest.raises(TypeError, match="unsupported operand"):
        photos + [1]
    moved = photos.with_columns(x0=5.0, y0=5.0, x1=9.0, y1=9.0)  # another face of the same photos
    assert len(photos + moved) == 8


# ---- parts without leaks


def test_split_by_hand():
    train, valid = crowd(10).split(0.2)
    assert len(train) == 56 and len(valid) == 14 and len(set(valid.people)) == 2
    check_disjoint(train, valid)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_split_meets_the_share_and_has_every_kind(share):
    photos = crowd(60)
    train, valid = photos.split(share, seed=1)
    assert len(train) + len(valid) == len(photos) and len(valid) / len(photos) == pytest.approx(share, abs=0.02)
    assert not set(train.people) & set(valid.people) and set(train.paths) | set(valid.paths) == set(photos.paths)
    overall, there = (part.counts().photos / len(part) for part in (photos, valid))
    assert abs(overall - there).max() <= 7 / len(valid)  # one person


@given(st.integers(0, 100))
def test_split_follows_its_seed(seed):
    photos = crowd(12)
    first, again = photos.split(0.25, seed=seed)[1], photos.split(0.25, seed=seed)[1]
    assert first.paths == again.paths
    assert not set(first.people) & set(photos.split(0.25, seed=seed)[0].people)


@pytest.mark.parametrize("count", [2, 5])
def test_folds_partition_the_rows(count):
    photos = crowd(30)
    folds = photos.folds(count, seed=3)
    valid = [path for _, part in folds for path in part.paths]
    assert len(folds) == count and sorted(valid) == sorted(photos.paths)
    for train, part in folds:
        check_disjoint(train, part)
        assert len(train) + len(part) == len(photos)
    assert [part.paths for _, part in photos.folds(count, seed=3)] == [part.paths for _, part in folds]
    assert [part.paths for _, part in photos.folds(count, seed=4)] != [part.paths for _, part in folds]


def test_split_and_folds_refuse():
    photos = crowd(3)
    for share in (0, 1, 1.5, -0.1):
        with pytest.raises(ValueError, match=f"split share is {share}; expected a number between 0 and 1"):
            photos.split(share)
    with pytest.raises(ValueError, match=r"folds\(1\) is no cross-validation"):
        photos.folds(1)
    with pytest.raises(ValueError, match="3 people cannot be dealt into 5 parts"):
        photos.folds(5)


def write_files(folder, contents):
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return list(contents)


def test_the_same_bytes_stay_together(tmp_path):
    names = write_files(tmp_path, {"a": b"one", "b": b"two", "c": b"one", "d": b"three"})
    photos = read(pd.DataFrame({"path": [*names, "missing"]}), root=tmp_path)
    assert photos.groups().tolist() == [0, 1, 0, 2, 3]
    digests = photos.digests()
    assert digests[0] == digests[2] != digests[1] and digests[3:] == ["", ""]  # alone in its size; not there
    for seed in range(10):
        train, valid = photos.split(0.4, seed=seed)
        assert len({photos[[0, 2]].paths[0] in train.paths, photos[[0, 2]].paths[1] in train.paths}) == 1
        check_disjoint(train, valid)


def test_check_disjoint_names_what_leaks(tmp_path, photos):
    check_disjoint(photos.part("train"), photos.part("val"))
    with pytest.raises(LeakError, match="1 people are on both sides: t:ann"):
        check_disjoint(photos[[0]], photos[[1]])
    nobody = photos.with_columns(person="")
    with pytest.raises(LeakError, match="2 files are on both sides: /photos/a.jpg, /photos/b.jpg; split by person"):
        check_disjoint(nobody[[0, 1]], nobody[[1, 0]])
    names = write_files(tmp_path, {"a": b"one", "b": b"two", "c": b"one"})
    copies = read(pd.DataFrame({"path": names}), root=tmp_path)
    with pytest.raises(LeakError, match="2 files of the same bytes are on both sides: .*/a, .*/c;"):
        check_disjoint(copies[[0, 1]], copies[[2]])
    many = crowd(9)
    with pytest.raises(LeakError, match=r"9 people are on both sides: .*:p4, \.\.\.; split"):
        check_disjoint(many, many.with_columns(path=[f"/elsewhere{path}" for path in many.paths]))


# ---- writing


def test_write_reads_back(tmp_path, photos):
    photos.write(tmp_path / "w.csv")
    again = read(tmp_path / "w.csv")
    assert equal(photos, again) and again.table.source.tolist() == ["t"] * 4
    again.write(tmp_path / "v.csv")
    assert equal(again, read(tmp_path / "v.csv"))
    assert (tmp_path / "v.csv").read_bytes() == (tmp_path / "w.csv").read_bytes()


def test_write_of_other_heads_reads_back(tmp_path):
    heads = (Head("shade", ("dark", "light, bright")), Head("decade", ("20s", "30s"), edges=(30,)), GENDER)
    table = pd.DataFrame({"path": ["a", "b"], "shade": ["light, bright", ""], "decade": ["25", "30s"], "gender": "1"})
    photos = read(table, heads=heads, root="/photos")
    photos.write(tmp_path / "w.csv")
    assert equal(photos, read(tmp_path / "w.csv", heads=heads))


ODD = [
    "a b.jpg",
    "a,b.jpg",
    'a"b.jpg',
    "a\nb.jpg",
    "ä 사람.jpg",
    " lead.jpg",
    "trail.jpg ",
    "#.jpg",
    "nan",
    "-1",
    "100%.jpg",
]


def test_odd_file_names_survive(tmp_path):
    names = [*ODD, os.fsdecode(b"caf\xe9.jpg")]
    photos = read(pd.DataFrame({"path": names, "person": "x"}, dtype=object), root=tmp_path)
    assert photos.paths == [str(tmp_path / name) for name in names]
    photos.write(tmp_path / "w.csv")
    again = read(tmp_path / "w.csv")
    assert again.paths == photos.paths
    assert len(again.fingerprint()) == 16 and again.fingerprint() == photos.fingerprint()


def test_labels_are_replaced_by_name_or_index(photos):
    assert set(photos.with_columns(mask="worn").labels()[:, 0]) == {0}
    names = ["incorrect", "", "2", "worn"]
    assert photos.with_columns(mask=names).labels()[:, 0].tolist() == [1, -1, 2, 0]
    for turned in (pd.Series([0, 1, 2, -1]), pd.Series(["worn", "incorrect", "not_worn", None])):  # by its index
        turned.index = [3, 2, 1, 0]
        assert photos.with_columns(mask=turned).labels()[:, 0].tolist() == [-1, 2, 1, 0]
        assert photos.with_columns(mask=turned[:2]).labels()[:, 0].tolist() == [-1, -1, 1, 0]
    narrow = photos.with_columns(mask=np.array([0, 1, -1, 2], np.int8))
    assert narrow.fingerprint() == photos.with_columns(mask=[0, 1, -1, 2]).fingerprint()
    for wrong in ("wron", 3, [0, 1, 2, 7]):
        with pytest.raises(ValueError, match="is no class of head 'mask'; expected 0 or worn"):
            photos.with_columns(mask=wrong)


def test_a_label_that_a_known_number_outvotes_is_refused(photos):
    told = "age: 1 rows have a number in 'years' that is not of the class given; give years too, float"
    with pytest.raises(ValueError, match=told):  # 30 years, and no number in the others
        photos.with_columns(age=["<30", "<30", ">=60", ""])
    assert photos.with_columns(age=["<30", "30-59", "<30", ">=60"]).labels()[:, 2].tolist() == [0, 1, 0, 2]
    assert photos.with_columns(age=2, years=float("nan")).labels()[:, 2].tolist() == [2] * 4
    assert photos.with_columns(age=2, years=70).labels()[:, 2].tolist() == [2] * 4


def test_shares_and_folds_are_numbers():
    with pytest.raises(ValueError, match="split share is '0.2'; expected a number between 0 and 1"):
        crowd(10).split("0.2")
    with pytest.raises(ValueError, match=r"folds\(2.5\) is no cross-validation; expected a whole number"):
        crowd(10).folds(2.5)


def test_write_splits_reads_back_as_the_same_parts(tmp_path):
    photos = crowd(10)
    train, valid = photos.split(0.2)
    write_splits(tmp_path / "splits.csv", {"train": train, "val": valid})
    parts = read(tmp_path / "splits.csv").parts()
    assert list(parts) == ["train", "val"]
    assert parts["train"].paths == train.paths and parts["val"].people == valid.people
    assert (parts["val"].labels() == valid.labels()).all()


def test_photos_that_are_written_and_read_back_are_of_the_same_run(people, tmp_path):
    """Their file says the bands beside the years, which a folder's names do not."""
    photos = read(people / "train")
    photos.write(tmp_path / "w.csv")
    again = read(tmp_path / "w.csv")
    assert "age_band" in pd.read_csv(tmp_path / "w.csv")
    assert again.fingerprint() == photos.fingerprint()


def test_the_table_holds_the_bands_of_known_numbers(people):
    """What is asked of the table itself is answered as by labels()."""
    photos = read(people / "train")
    assert (photos.table[["mask", "gender", "age"]].to_numpy() == photos.labels()).all()
    assert (encode(photos.table) == encode(photos.labels())).all() and (encode(photos.table) >= 0).all()
    assert photos.where(lambda table: table.age == 2).paths == photos.where(age=2).paths
    assert 0 < len(photos.where(age=2)) < len(photos)
    older = photos.with_columns(years=70.0)
    assert set(older.table.age) == {2} and set((older + photos[:0])[::2].table.age) == {2}
    assert set(older.with_columns(years=np.nan).table.age) == {UNKNOWN}
    assert set(older.with_columns(years=np.nan, age=1).table.age) == {1}
    with pytest.raises(ValueError, match="not of the class given"):
        older.with_columns(age=1)


def test_the_fingerprint_follows_what_training_reads(photos):
    first = photos.fingerprint()
    assert first == read(ROWS, root="/photos", name="other").fingerprint()
    changed = [
        photos[[1, 0, 2, 3]],
        photos[:3],
        photos.with_columns(mask=0),
        photos.with_columns(years=50.0),
        photos.with_columns(x0=0.0),
        photos.with_columns(whole=True),
        photos.with_columns(**{"joint:0": "0.5"}),
        photos.with_columns(path=[f"{path}2" for path in photos.paths]),
    ]
    assert len({first, *(other.fingerprint() for other in changed)}) == 9
    assert photos.with_columns(race="z").fingerprint() == first


def test_photos_of_drawn_people(people):
    photos = read(people)
    assert (
        len(photos) == 84 and len(set(photos.people)) == 12 and photos.known() == {"mask": 84, "gender": 84, "age": 84}
    )
    for train, valid in photos.folds(4):
        check_disjoint(train, valid)
        assert len(set(valid.people)) == 3
    assert isinstance(photos, Photos) and photos.heads == HEADS
