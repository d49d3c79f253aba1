import csv
import os
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from multihead.boxes import add_boxes
from multihead.heads import AGE, FLAT, GENDER, HEADS, MASK, Head
from multihead.hiding import hide_labels
from multihead.labels import class_index, encode, joint, marginals
from multihead.layouts import read_csv
from multihead.leaks import LeakError, check_disjoint
from multihead.pseudo import check_not_pseudo, provenance
from multihead.reading import read

STATES = ["mask1.jpg", "mask2.jpeg", "mask3.png", "mask4.JPG", "mask5.jpg", "incorrect_mask.jpg", "normal.jpg"]


def competition(root, folders, states=STATES):
    """The competition's layout with files of one byte each."""
    for number, folder in enumerate(folders):
        (root / "images" / folder).mkdir(parents=True)
        for state in states:
            (root / "images" / folder / state).write_bytes(bytes([number]))
    return root


def table(**columns):
    """Photos of a table with a path column and these; cells are text as in a CSV."""
    rows = len(next(iter(columns.values())))
    return read(pd.DataFrame({"path": [f"{n}.jpg" for n in range(rows)], **columns}), root="/photos", name="t")


def write_csv(path, text):
    path.write_text(text, encoding="utf-8")
    return path


# ---- the competition's layout


def test_folders_alone_tell_mask_gender_and_age(tmp_path):
    competition(tmp_path, ["000001_female_Asian_45", "000002_male_Asian_60"])
    photos = read(tmp_path)
    assert len(photos) == 14 and photos.people[0] == f"{tmp_path.name}:000001_female_Asian_45"
    by_name = dict(zip(photos.table.name, photos.labels().tolist()))
    assert by_name["images/000001_female_Asian_45/mask3.png"] == [0, 1, 1]
    assert by_name["images/000001_female_Asian_45/incorrect_mask.jpg"] == [1, 1, 1]
    assert by_name["images/000002_male_Asian_60/normal.jpg"] == [2, 0, 2]
    assert set(photos.table.years) == {45, 60} and np.bincount(photos.labels()[:, 0]).tolist() == [10, 2, 2]


def test_the_root_may_be_any_of_three_folders(tmp_path):
    competition(tmp_path / "data" / "train", ["000001_female_Asian_45"])
    (tmp_path / "data" / "eval").mkdir()
    found = [read(tmp_path / "data" / place) for place in (".", "train", "train/images")]
    assert len({tuple(photos.paths) for photos in found}) == 1 and len(found[0]) == 7
    assert {photos.table.root[0] for photos in found} == {str(tmp_path / "data" / "train")}
    shutil.move(tmp_path / "data" / "train" / "images" / "000001_female_Asian_45", tmp_path / "bare" / "a_male_x_3")
    assert read(tmp_path / "bare").labels()[0].tolist() == [1, 0, 0]


def test_dot_twins_are_not_read(tmp_path):
    competition(tmp_path, ["000001_female_Asian_45"])
    person = tmp_path / "images" / "000001_female_Asian_45"
    for name in STATES:
        (person / f"._{name}").write_bytes(b"x")
    (tmp_path / "images" / "._000001_female_Asian_45").write_bytes(b"x")
    (tmp_path / "images" / ".000009_male_Asian_20").mkdir()
    (tmp_path / "images" / ".000009_male_Asian_20" / "normal.jpg").write_bytes(b"x")
    assert len(read(tmp_path)) == 7


def test_two_people_may_share_an_id(tmp_path):
    names = ["003397_female_Asian_20", "003397_male_Asian_20", "001498-1_female_Asian_23", "001498-2_female_Asian_23"]
    photos = read(competition(tmp_path, names))
    assert len(set(photos.people)) == 4 and len(set(photos.groups())) == 4 - 0
    assert read(tmp_path, people="global").people[0] == "001498-1_female_Asian_23"


def test_train_csv_wins_over_names_and_gaps_are_told(tmp_path):
    competition(tmp_path, ["1_female_Asian_45", "2_male_Asian_20"])
    write_csv(
        tmp_path / "train.csv",
        "id,gender,race,age,path\n1,male,Asian,46,1_female_Asian_45\n9,male,Asian,20,9_male_Asian_20\n",
    )
    with pytest.warns(UserWarning) as noticed:
        photos = read(tmp_path)
    assert photos.where(lambda rows: rows.years == 46).labels([HEADS[1]]).tolist() == [[0]] * 7
    assert photos.table.years.tolist() == [46] * 7 + [20] * 7
    said = "\n".join(str(notice.message) for notice in noticed)
    assert "1 folders that train.csv lacks; their names were read instead, for example 2_male_Asian_20" in said
    assert "1 people of train.csv without a photo, for example 9_male_Asian_20" in said and len(noticed) == 2
    with pytest.warns(UserWarning, match="1 people of train.csv without a photo"):
        named = read(tmp_path / "train.csv")
    assert named.paths == photos.paths[:7] and (named.labels() == photos.labels()[:7]).all()


def test_a_table_of_some_people_is_those_people(tmp_path):
    people = ["1_female_Asian_45", "2_male_Asian_20", "3_male_Asian_70"]
    competition(tmp_path, people)
    rows = [f"{name[0]},{name.split('_')[1]},Asian,{name[-2:]},{name}\n" for name in people]
    write_csv(tmp_path / "fit.csv", "id,gender,race,age,path\n" + rows[0] + rows[2])
    write_csv(tmp_path / "valid.csv", "id,gender,race,age,path\n" + rows[1])
    fit, valid = read(tmp_path / "fit.csv"), read(tmp_path / "valid.csv")
    assert (len(fit), len(valid)) == (14, 7) and len(read(tmp_path)) == 21
    check_disjoint(fit, valid)
    assert {name.split("_")[0] for name in valid.table.name.str.removeprefix("images/")} == {"2"}


def test_a_train_csv_of_another_kind_is_refused(tmp_path):
    competition(tmp_path, ["1_female_Asian_45"])
    write_csv(tmp_path / "train.csv", "path,mask\na.jpg,worn\n")
    with pytest.raises(KeyError, match=r"train.csv lacks the columns \['age', 'gender'\]; it has \['path', 'mask'\]"):
        read(tmp_path)


def test_odd_names_are_told(tmp_path):
    competition(tmp_path, ["1_female_Asian_45"], ["mask1.jpg", "profile.jpg"])
    (tmp_path / "images" / "others").mkdir()
    with pytest.warns(UserWarning, match="2 names that are no <id>_<gender>_<race>_<age> folder or mask1-5"):
        photos = read(tmp_path)
    assert photos.labels().tolist() == [[0, 1, 1], [-1, 1, 1]]


def test_a_wrong_age_in_a_name_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"1_female_Asian_450/incorrect_mask.jpg\), column 'age': '450' is no age"):
        read(competition(tmp_path, ["1_female_Asian_450"]))


def test_drawn_people_agree_with_their_table(people):
    photos = read(people, boxes=people / "train" / "boxes.csv")
    listed = pd.read_csv(people / "train" / "train.csv").set_index("path")
    for path, years, (_, gender, _) in zip(photos.paths, photos.table.years, photos.labels()):
        row = listed.loc[os.path.basename(os.path.dirname(path))]
        assert row.age == years and ["male", "female"][gender] == row.gender
    assert not np.isnan(photos.boxes).any() and photos.table.searched.all()
    assert all(os.path.isfile(path) for path in photos.paths)


def test_info_csv_lists_its_images_without_labels(people):
    photos = read(people / "eval" / "info.csv")
    assert len(photos) == 14 and photos.known() == {"mask": 0, "gender": 0, "age": 0}
    assert all(os.path.isfile(path) for path in photos.paths)
    truth = read(people / "eval" / "truth.csv", boxes=people / "eval" / "boxes.csv")
    assert sorted(truth.paths) == sorted(photos.paths) and truth.known()["age"] == 14
    assert not np.isnan(truth.boxes).any()


def test_a_submission_reads_as_joint_labels(tmp_path):
    write_csv(tmp_path / "submission.csv", "ImageID,ans\na.jpg,15\nb.jpg,0\n")
    assert read(tmp_path / "submission.csv").labels().tolist() == [[2, 1, 0], [0, 0, 0]]


# ---- folders and lists


def test_any_other_folder_is_photos_without_labels(tmp_path):
    for name in ("b.png", "sub/a.jpg", ".hidden.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    photos = read(tmp_path)
    assert photos.table.name.tolist() == ["b.png", "sub/a.jpg"] and set(photos.people) == {""}
    assert set(photos.labels().ravel()) == {-1} and photos.table.source.tolist() == [tmp_path.name] * 2


def test_names_of_a_folder_that_are_not_utf_8(tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    with open(name, "wb") as file:
        file.write(b"x")
    photos = read(tmp_path)
    assert os.fsencode(photos.paths[0]) == name
    photos.write(tmp_path / "w.csv")
    assert read(tmp_path / "w.csv").paths == photos.paths


def test_a_list_of_sources_is_joined(tmp_path, people):
    masks = write_csv(tmp_path / "masks.csv", "file,mask,who\na.jpg,0,ann\n")
    both = read([people, masks], columns={"path": "file", "person": "who"})  # a folder has no columns to map
    assert len(both) == 85 and both.known() == {"mask": 85, "gender": 84, "age": 84}
    assert both.people[-1] == "masks:ann" and set(both.table.source) == {"data", "masks"}
    boxed = read([people, masks], boxes=people / "train" / "boxes.csv", columns={"path": "file"})
    assert np.isnan(boxed.boxes).any(1).sum() == 1  # only the photos that the scan lists
    assert len(read((people,))) == 84
    with pytest.raises(ValueError, match="files are in both tables"):
        read([people, people])
    with pytest.raises(ValueError, match="empty list"):
        read([])


def test_person_ids_are_local_to_a_source_unless_global(tmp_path):
    first = write_csv(tmp_path / "a.csv", "path,person\n1.jpg,7\n2.jpg,\n")
    second = write_csv(tmp_path / "b.csv", "path,person\n3.jpg,7\n4.jpg,\n")
    assert read([first, second]).people == ["a:7", "", "b:7", ""]
    assert read([first, second], people="global").people == ["7", "", "7", ""]
    assert read([first, second], name="both").people == ["both:7", "", "both:7", ""]
    with pytest.raises(ValueError, match="people='world'; expected 'local' or 'global'"):
        read(first, people="world")


def test_sources_that_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder: .*none; expected a folder of photos or a CSV"):
        read(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no images under .*; expected .*<id>_<gender>_<race>_<age>"):
        read(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(ValueError, match="a.jpg is no table; expected a CSV"):
        read(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="empty.csv cannot be read as a CSV"):
        read(write_csv(tmp_path / "empty.csv", ""))


@pytest.mark.parametrize("text", ["path,mask\na.jpg,worn,more\n", "path,mask\na.jpg,worn\nb.jpg,worn,x\n"])
def test_rows_longer_than_the_header_are_refused(tmp_path, text):
    with pytest.raises(ValueError, match="t.csv cannot be read as a CSV"):
        read(write_csv(tmp_path / "t.csv", text))


# ---- tables


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt"])
def test_a_file_is_read_with_its_separator(tmp_path, name):
    text = "path,mask,age\nsub/a.jpg,worn,31\n/abs/b.jpg,,\n"
    photos = read(write_csv(tmp_path / name, text if name == "t.csv" else text.replace(",", "\t")))
    assert photos.paths == [str(tmp_path / "sub/a.jpg"), "/abs/b.jpg"]
    assert photos.labels().tolist() == [[0, -1, 1], [-1, -1, -1]]
    assert photos.table.name.tolist() == ["sub/a.jpg", "/abs/b.jpg"] and photos.table.source[0] == "t"


def test_a_byte_order_mark_and_no_rows(tmp_path):
    (tmp_path / "bom.csv").write_bytes(b"\xef\xbb\xbfpath,mask\r\na.jpg,worn\r\n")
    assert read(tmp_path / "bom.csv").labels([MASK]).tolist() == [[0]]
    none = read(write_csv(tmp_path / "none.csv", "path,mask\n"))
    assert len(none) == 0 and none.labels().shape == (0, 3) and none.known()["mask"] == 0


def test_cells_that_are_not_utf_8(tmp_path):
    (tmp_path / "latin.csv").write_bytes(b"path,race\ncaf\xe9.jpg,cr\xe9ole\n")
    photos = read(tmp_path / "latin.csv")
    assert os.fsencode(photos.paths[0]) == os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    assert os.fsencode(photos.table.race[0]) == b"cr\xe9ole"


def test_root_is_what_paths_are_relative_to(tmp_path):
    path = write_csv(tmp_path / "t.csv", "path\na.jpg\n")
    assert read(path, root="/photos").paths == ["/photos/a.jpg"]
    assert read(pd.DataFrame({"path": ["a.jpg"]})).paths == [os.path.abspath("a.jpg")]


def test_labels_by_name_index_and_number():
    photos = table(mask=["worn", "1", "2.0", " Not_Worn ", "", "-1"], gender=["FEMALE", "0", "1.0", "male", "nan", " "])
    assert photos.labels([MASK]).ravel().tolist() == [0, 1, 2, 2, -1, -1]
    assert photos.labels([HEADS[1]]).ravel().tolist() == [1, 0, 1, 0, -1, -1]


def test_age_by_years_and_by_band():
    photos = table(age=["29.5", "30", ">=60", "", "nan", "0"])
    assert photos.labels([AGE]).ravel().tolist() == [0, 1, 2, -1, -1, 0]
    np.testing.assert_array_equal(photos.table.years, [29.5, 30, np.nan, np.nan, np.nan, 0])
    both = table(age=["25", "", ""], age_band=["<30", "2", "30-59"])
    assert both.labels([AGE]).ravel().tolist() == [0, 2, 1]
    with pytest.warns(UserWarning, match="1 rows whose age_band is not that of their age; the number counts.* row 3"):
        assert table(age=["25", "25"], age_band=["0", "2"]).labels([AGE]).ravel().tolist() == [0, 0]


def test_two_heads_may_band_one_number(tmp_path):
    fine = Head("decade", ("20s", "30s", "older"), edges=(30, 40), number="age")
    rows = pd.DataFrame({"path": ["a", "b", "c"], "age": ["35", "70", ""], "decade": ["", "older", "1"]})
    for heads in ([AGE, fine], [fine, AGE]):
        photos = read(rows, heads=heads)
        assert photos.labels([AGE, fine]).tolist() == [[1, 1], [2, 2], [-1, 1]]
        photos.write(tmp_path / "photos.csv")
        assert (read(tmp_path / "photos.csv", heads=heads).labels() == photos.labels()).all()
    assert read(rows.drop(columns="decade"), heads=[AGE, fine]).labels().tolist() == [[1, 1], [2, 2], [-1, -1]]
    alone = read(rows.drop(columns="decade"), heads=[fine])
    assert alone.labels().tolist() == [[1], [2], [-1]] and alone.extra == []
    with pytest.warns(UserWarning, match="1 rows whose decade is not that of their age; the number counts.* row 3"):
        assert read(rows.assign(decade=["", "20s", ""]), heads=[AGE, fine]).labels()[1].tolist() == [2, 2]


def test_the_joint_label_fills_what_no_column_says():
    told = "1 rows have a label of another mask .* row 3: label 17.0 is .* of not_worn, the column says worn, which is taken"
    with pytest.warns(UserWarning, match=told):
        photos = table(label=["15", "17.0", "", "-1", "0"], mask=["", "worn", "worn", "", ""])
    assert photos.labels().tolist() == [[2, 1, 0], [0, 1, 2], [0, -1, -1], [-1, -1, -1], [0, 0, 0]]


@given(st.lists(st.tuples(st.integers(-1, 2), st.integers(-1, 1), st.integers(-1, 2)), min_size=1, max_size=8))
def test_labels_read_back_whatever_their_form(rows):
    labels = np.array(rows)
    names = [[head.classes[i] if i >= 0 else "" for i in column] for head, column in zip(HEADS, labels.T)]
    by_name = table(mask=names[0], gender=names[1], age_band=names[2])
    by_number = table(mask=labels[:, 0], gender=labels[:, 1].astype(float), age_band=[str(i) for i in labels[:, 2]])
    np.testing.assert_array_equal(by_name.labels(), labels)
    np.testing.assert_array_equal(by_number.labels(), labels)
    whole = table(label=encode(labels))
    np.testing.assert_array_equal(whole.labels(), np.where((labels < 0).any(1)[:, None], -1, labels))


def test_a_data_frame_of_any_types():
    frame = pd.DataFrame(
        {
            "path": ["a", "b", "c"],
            "mask": pd.Categorical(["worn", None, "incorrect"]),
            "gender": pd.array([1, None, 0], dtype="Int64"),
            "age": [31.0, np.nan, 60.0],
            "person": [12.0, np.nan, 13.0],
            "split": ["train", None, "val"],
            "ok": [True, False, True],
        },
        index=[7, 7, 9],
    )
    photos = read(frame, people="global")
    assert photos.labels().tolist() == [[0, 1, 1], [-1, -1, -1], [1, 0, 2]]
    assert photos.people == ["12", "", "13"]  # as the CSV of it would say
    assert photos.table.split.tolist() == ["train", "", "val"] and photos.table.ok.tolist() == ["True", "False", "True"]
    assert frame.index.tolist() == [7, 7, 9]


def test_other_columns_are_kept_as_text():
    photos = table(race=["Asian", ""], score_of_mine=[1, 2])
    assert photos.extra == ["race", "score_of_mine"] and photos.table.score_of_mine.tolist() == ["1", "2"]


def test_columns_are_mapped():
    frame = pd.DataFrame({"file": ["a"], "age": ["99"], "years old": ["20"], "who": ["x"], "path": ["other"]})
    photos = read(frame, columns={"path": "file", "age": "years old", "person": "who"}, root="/p", people="global")
    assert photos.paths == ["/p/a"] and photos.table.years.tolist() == [20] and photos.people == ["x"]
    twice = read(frame, columns={"path": "file", "person": "file"}, people="global")
    assert twice.people == ["a"] and twice.table.name.tolist() == ["a"]
    assert read(pd.DataFrame({"path": ["a"], "person_id": ["x"]}), people="global").people == ["x"]
    with pytest.raises(KeyError, match=r"column 'nose' \(for 'person'\) is not in the table; it has"):
        read(frame, columns={"person": "nose"})
    with pytest.raises(KeyError, match="columns= maps 'smile', which is none of"):
        read(frame, columns={"smile": "who"})


@pytest.mark.parametrize("heads", [(), (MASK,)])
def test_flags_of_labels_serve_where_they_are_not_read(heads):
    """The same columns= and labels= for train as for scan, predict, and a model of some heads."""
    frame = pd.DataFrame({"file": ["a.jpg", "b.jpg"], "sex": ["V", "M"], "years": [20, 40], "mask": ["worn", ""]})
    columns = {"path": "file", "gender": "sex", "age": "years"}
    for words in ({"gender:V": "female"}, {"sex:V": "female"}):
        photos = read(frame, heads=heads, columns=columns, labels=words)
        assert photos.known() == {head.name: 1 for head in heads} and "sex" not in photos.table
        assert read(frame, columns=columns, labels=words).labels().tolist() == [[0, 1, 0], [-1, 0, 1]]
    with pytest.raises(KeyError, match=r"column 'sexe' \(for 'gender'\) is not in the table"):
        read(frame, heads=heads, columns=columns | {"gender": "sexe"})


def test_labels_of_other_heads_may_be_mapped_where_none_are_read():
    frame = pd.DataFrame({"path": ["a.jpg"], "colour": ["d"]})
    own = {"columns": {"tone": "colour"}, "labels": {"tone:d": "dark"}}
    assert "colour" not in read(frame, heads=(), **own).table
    assert read(frame, heads=(Head("tone", ("dark", "light")),), **own).labels().tolist() == [[0]]
    for heads, name in (((), "persn"), ((MASK,), "tone")):
        with pytest.raises(KeyError, match=f"columns= maps '{name}', which is none of"):
            read(frame, heads=heads, columns={name: "colour"})


def test_columns_that_are_not_read_are_told():
    with pytest.warns(UserWarning, match="column 'masks' is not read; did you mean 'mask'?"):
        table(masks=["worn"])
    with pytest.warns(UserWarning, match="column 'years' is not read: the name is taken; map .*--columns age=years"):
        table(years=["31"])


def test_split_and_face_columns():
    photos = table(split=["Train", "valid", "validation", "test", ""], face=["whole", "", " Whole", "", ""])
    assert photos.table.split.tolist() == ["train", "val", "val", "test", ""]
    assert photos.table.whole.tolist() == [True, False, True, False, False]


def test_boxes_as_columns_and_as_text():
    columns = table(x0=["1", ""], y0=["2", ""], x1=["3.5", ""], y1=["4", ""])
    assert columns.boxes[0].tolist() == [1, 2, 3.5, 4] and np.isnan(columns.boxes[1]).all()
    np.testing.assert_array_equal(table(box=["1 2 3.5 4", ""]).boxes, columns.boxes)


def test_a_photo_may_have_several_faces():
    frame = pd.DataFrame(
        {"path": ["a", "a", "b"], "box": ["0 0 2 2", "4 4 8 8", ""], "mask": ["worn", "incorrect", ""]}
    )
    photos = read(frame)
    assert len(photos) == 3 and photos.groups().tolist() == [0, 0, 1]
    with pytest.raises(ValueError, match=r"rows \[2, 3\] are the same file 'a' with the same box; keep one of them"):
        read(frame.assign(box="0 0 2 2"))


@pytest.mark.parametrize(
    ("column", "cell", "word"), [("mask", "wrn", "worn"), ("age", "??", ""), ("split", "dev", "val")]
)
def test_a_bad_cell_says_how_it_is_translated(column, cell, word):
    with pytest.raises(ValueError, match=re.escape(f'--labels "{column}:{cell}=WORD", or "{column}:{cell}=" for')):
        table(**{column: [cell]})
    frame = pd.DataFrame({"path": ["a.jpg"], column: [cell]})
    same = read(frame, labels={f"{column}:{cell}": word})
    assert same.table.equals(read(frame.assign(**{column: word})).table)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"mask": ["worn", "wrn"]},
            r"row 3 \(1.jpg\), column 'mask': 'wrn' is no class of head 'mask'; expected 0 or wo",
        ),
        ({"gender": ["2"]}, r"row 2 \(0.jpg\), column 'gender': '2' is no class"),
        ({"age": ["131"]}, "row 2 .*, column 'age': '131' is no age; expected years from 0 to 130, one of"),
        ({"age": ["", "old"]}, "row 3 .*, column 'age': 'old' is no age"),
        ({"age": ["-3"]}, "column 'age': '-3' is no age"),
        ({"age_band": ["3"]}, "row 2 .*, column 'age_band': '3' is no class of head 'age'"),
        ({"label": ["18"]}, "row 2 .*, column 'label': '18' is no joint class; expected 0 to 17 or a blank"),
        ({"label": ["1.5"]}, "'1.5' is no joint class"),
        ({"split": ["dev"]}, "row 2 .*, column 'split': 'dev' is no split; expected train, val, test or a blank"),
        ({"face": ["tight"]}, "row 2 .*, column 'face': 'tight'; expected 'whole'"),
        ({"box": ["", "1 2 3"]}, r"row 3 \(1.jpg\): box \['1', '2', '3'\] is not four numbers x0 y0 x1 y1"),
        ({"box": ["a b c d"]}, r"row 2 \(0.jpg\): box .* is not four numbers"),
        ({"box": ["1 2 1 4"]}, r"row 2 \(0.jpg\): box .* has no area; expected x0 < x1 and y0 < y1 in pixels"),
        ({"box": ["0 0 inf 4"]}, r"row 2 \(0.jpg\): box .* has no area"),
        ({"x0": ["1"], "y0": ["1"], "x1": ["2"], "y1": [""]}, r"row 2 \(0.jpg\): box .* is not four numbers"),
        ({"path": ["a.jpg", " "]}, "row 3: the path is blank"),
        ({"path": ["a.jpg", "./a.jpg"]}, r"rows \[2, 3\] are the same file"),
    ],
)
def test_bad_cells_name_row_and_column(columns, message):
    with pytest.raises(ValueError, match=message):
        table(**columns)


def test_a_table_that_windows_wrote_is_read_where_its_photos_are(tmp_path, monkeypatch):
    (tmp_path / "imgs").mkdir()
    (tmp_path / "imgs" / "b.jpg").write_bytes(b"b")
    rows = "path,mask\nimgs\\gone.jpg,worn\nimgs\\b.jpg,worn\nimgs/c.jpg,worn\n"
    wanted = [str(tmp_path / "imgs" / name) for name in ("gone.jpg", "b.jpg", "c.jpg")]
    source = write_csv(tmp_path / "t.csv", rows)
    assert read(source).paths == wanted and read(pd.read_csv(source), root=tmp_path).paths == wanted
    assert read(source).table.name[1] == "imgs\\b.jpg"  # as the table has it, whose rows answers are joined with
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tables").mkdir()
    assert read(write_csv(tmp_path / "tables" / "t.csv", rows)).paths[1] == wanted[1]
    (tmp_path / "imgs\\b.jpg").write_bytes(b"here a name may hold a backslash")
    assert read(source).paths[1] == str(tmp_path / "imgs\\b.jpg")
    assert read(write_csv(tmp_path / "u.csv", "path\nfar\\b.jpg\n")).paths == [str(tmp_path / "far\\b.jpg")]
    endless = "b\\" + "a" * 300 + ".jpg"  # of which Path.exists raises
    assert len(read(pd.DataFrame({"path": [endless]}), root=tmp_path)) == 1


def test_tables_of_unlike_columns_are_to_be_read_alone(tmp_path):
    faces = write_csv(tmp_path / "faces.csv", "file,sex\na.jpg,male\n")
    masks = write_csv(tmp_path / "masks.csv", "image,label\nb.jpg,worn\n")
    told = r"faces.csv: column 'image' \(for 'path'\) is not in the table; .* read those of other names alone and add"
    with pytest.raises(KeyError, match=told):
        read([faces, masks], columns={"path": "image"})
    both = read(faces, columns={"path": "file", "gender": "sex"})
    both += read(masks, columns={"path": "image", "mask": "label"})
    assert both.known() == {"mask": 1, "gender": 1, "age": 0}


def test_missing_columns_are_named():
    with pytest.raises(KeyError, match=r"no 'path' column; the table has \['file', 'mask'\]; map one with columns="):
        read(pd.DataFrame({"file": ["a"], "mask": ["worn"]}))
    with pytest.raises(KeyError, match=r"a box needs the columns .*; the table has \['x0', 'x1', 'y0'\]"):
        table(x0=["1"], y0=["1"], x1=["2"])


def test_other_heads():
    smile = Head("smile", ("no", "yes"))
    frame = pd.DataFrame({"path": ["a", "b"], "smile": ["yes", "1"], "mask": ["worn", "?"], "label": ["", "1"]})
    photos = read(frame, heads=[smile])
    assert photos.labels().tolist() == [[1], [1]] and photos.extra == ["mask"] and photos.heads == (smile,)
    assert read(frame[["path"]], heads=FLAT).heads == HEADS
    nothing = read(frame, heads=())
    assert nothing.labels().shape == (2, 0) and nothing.known() == {} and nothing.extra == ["smile", "mask"]


# ---- boxes of a scan, answers of a model


def test_boxes_of_a_scan_fill_what_is_free(tmp_path):
    scan = "path,x0,y0,x1,y1,score,status\n0.jpg,1,1,5,5,1,found\n0.jpg,0,0,9,9,0.5,found\n1.jpg,1,1,5,5,1,found\n"
    scan += "2.jpg,,,,,,none\n3.jpg,,,,,,unreadable\n/photos/4.jpg,1,1,5,5,1,found\n5.jpg,1,1,5,5,1,found\n"
    boxes = write_csv(tmp_path / "boxes.csv", scan)
    photos = table(box=["", "2 2 4 4", "", "", "", ""], face=["", "", "", "", "", "whole"])
    boxed = add_boxes(photos, boxes)
    assert boxed.boxes[0].tolist() == [0, 0, 9, 9]  # the larger of two
    assert boxed.boxes[1].tolist() == [2, 2, 4, 4] and boxed.boxes[4].tolist() == [1, 1, 5, 5]
    assert np.isnan(boxed.boxes[[2, 3, 5]]).all()
    assert boxed.table.searched.tolist() == [True, False, True, False, True, False]
    assert np.isnan(photos.boxes[0]).all() and not photos.table.searched.any()
    with pytest.raises(
        ValueError, match=r"boxes.csv: none of its paths \(first: .*\) is one of the photos \(first: '/x/"
    ):
        add_boxes(table(path=["/x/y.jpg"]), boxes)


def test_answers_of_a_model_read_back(tmp_path):
    rng = np.random.default_rng(0)
    probs = joint({head.name: rng.dirichlet(np.ones(len(head.classes)), 3) for head in HEADS})
    parts = marginals(probs)
    frame = pd.DataFrame({"path": ["a.jpg", "a.jpg", "b.jpg"], "box": ["0.0 0.0 2.5 2.0", "3.0 3.0 4.0 4.0", ""]})
    for head in HEADS:
        frame[head.name] = [head.classes[i] for i in parts[head.name].argmax(1)]
    frame["label"] = probs.argmax(1)
    for head in HEADS:
        for index, name in enumerate(head.classes):
            frame[f"{head.name}:{name}"] = parts[head.name][:, index]
    frame[[f"joint:{index}" for index in range(18)]] = probs
    frame["error"] = ""
    frame.loc[2, ["mask", "gender", "age", "label", "error"]] = ["", "", "", np.nan, "no face"]
    frame.to_csv(tmp_path / "answers.csv", index=False)
    for photos in (read(tmp_path / "answers.csv"), read(frame, root=tmp_path)):
        wanted = [[int(parts[head.name][row].argmax()) for head in HEADS] for row in range(2)]
        assert photos.labels().tolist() == [*wanted, [-1, -1, -1]]
        assert photos.boxes[0].tolist() == [0, 0, 2.5, 2] and photos.extra == ["pseudo"]
        assert provenance(photos) == ["mask gender age", "mask gender age", ""]
        with pytest.raises(LeakError, match="2 of 3 validation photos have labels that a model made, for one a.jpg"):
            check_not_pseudo(photos, "validation")
        assert photos.paths == [str(tmp_path / name) for name in ("a.jpg", "a.jpg", "b.jpg")]


# ---- real photos


def test_real_tables_read(shared_data):
    photos = read(shared_data / "index.csv", people="global")
    assert len(photos) == 7077 and set(photos.table.split) == {"train", "val"}
    parts = photos.parts()  # no person, file or equal file on both sides
    assert sum(len(part) for part in parts.values()) == 7077
    boot = read(shared_data / "bootlike")
    assert len(boot) == 216 * 7 and len(set(boot.people)) == 216
    indexed = photos.where(lambda rows: rows.path.isin(boot.paths))
    assert len(indexed) == len(boot)
    order = {path: row for row, path in enumerate(indexed.paths)}
    assert (indexed.labels()[[order[path] for path in boot.paths]] == boot.labels()).all()


def test_boxes_of_one_folder_are_not_put_on_another(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / folder / "1.png")
    (tmp_path / "boxes.csv").write_text("path,x0,y0,x1,y1,score,status\n1.png,1,1,5,5,0.9,found\n")
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert read(folders[0], boxes=tmp_path / "boxes.csv").boxes.tolist() == [[1, 1, 5, 5]]
    with pytest.raises(ValueError, match="relative to one folder, and these photos come from 2"):
        read(folders, boxes=tmp_path / "boxes.csv")


def test_the_label_of_a_model_with_other_heads_is_not_read_as_ours():
    answers = {
        "path": ["a"],
        "mask": ["worn"],
        "label": ["0"],
        "joint:0": ["0.8"],
        "joint:1": ["0.1"],
        "joint:2": ["0.1"],
    }
    assert read(pd.DataFrame(answers)).labels().tolist() == [[0, -1, -1]]
    assert read(pd.DataFrame(answers), heads=[MASK]).labels().tolist() == [[0]]
    assert read(pd.DataFrame({"path": ["a"], "label": ["0"]})).labels().tolist() == [[0, 0, 0]]


# ---- tables as spreadsheets write them


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_separators_marks_and_line_ends_of_spreadsheets(separator, ends, tmp_path):
    rows = [["path", "person", "mask", "age", "x0", "y0", "x1", "y1"], ["a.jpg", "p,1" if separator != "," else "p1",
            "worn", "34,5" if separator == ";" else "34.5", "1", "2", "30", "40,25" if separator == ";" else "40.25"]]  # fmt: skip
    text = ends.join(separator.join(row) for row in rows) + ends
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    photos = read(tmp_path / "t.csv")
    assert photos.known() == {"mask": 1, "gender": 0, "age": 1} and photos.table.years[0] == 34.5
    assert photos.boxes.tolist() == [[1, 2, 30, 40.25]] and photos.people[0].startswith("t:p")


NAMES = [
    ("t.csv", ";", ["path", "age, years"]),
    ("t.txt", ";", ["path", "note, free", "mask"]),
    ("t.tsv", "\t", ["path", "age, years, or so"]),
    ("t.txt", "|", ["path", "mask"]),
    ("t.csv", ",", ["path", "a;b;c"]),
    ("t.csv", ",", ["path"]),
]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize(("name", "separator", "columns"), NAMES)
def test_separators_in_names_are_none(name, separator, columns, quoting, tmp_path):
    rows = [columns, ["a.jpg", "x;y", "z"][: len(columns)]]
    with open(tmp_path / name, "w", newline="") as file:
        csv.writer(file, delimiter=separator, quoting=quoting).writerows(rows)
    found = read_csv(tmp_path / name)
    assert [found.columns.tolist(), *found.to_numpy().tolist()] == rows


def test_what_is_wrong_with_a_table_is_said_with_its_name(tmp_path):
    (tmp_path / "u.csv").write_bytes("path,mask\na.jpg,worn\n".encode("utf-16"))
    with pytest.raises(ValueError, match="u.csv is UTF-16; save it as UTF-8"):
        read(tmp_path / "u.csv")
    long = write_csv(tmp_path / "l.csv", "path,mask\na.jpg,worn\nb.jpg,worn,1\n")
    with pytest.raises(
        ValueError, match="l.csv cannot be read as a CSV: line 3 has 3 fields, the header 2; quote what"
    ):
        read(long)
    with pytest.raises(KeyError, match=r"n.csv: no 'path' column; .*--columns path="):
        read(write_csv(tmp_path / "n.csv", "photo,mask\na.jpg,worn\n"))
    with pytest.raises(ValueError, match=r"b.csv: .*row 2"):
        read(write_csv(tmp_path / "b.csv", "path,x0,y0,x1,y1\na.jpg,1,2,abc,4\n"))


def test_a_scan_of_a_table_of_absolute_paths_is_found_again(tmp_path):
    """It writes them relative to the table's folder, below which they are."""
    rows = "".join(f"{tmp_path}/photos/{n}.jpg,worn\n" for n in range(2))
    labels = write_csv(tmp_path / "t.csv", "path,mask\n" + rows)
    boxes = write_csv(tmp_path / "b.csv", "path,x0,y0,x1,y1,score,status\nphotos/1.jpg,1,2,30,40,.9,found\n")
    photos = read(labels, boxes=boxes)
    assert photos.boxes[1].tolist() == [1, 2, 30, 40] and np.isnan(photos.boxes[0]).all()


def test_what_is_no_head_is_said():
    with pytest.raises(TypeError, match="heads hold 'mask'; expected heads such as multihead.MASK"):
        read(pd.DataFrame({"path": ["a.jpg"]}), heads=["mask"])
    with pytest.raises(TypeError, match="head 'mask' on 'face'; expected crops such as multihead.FACE"):
        MASK.on("face")


# ---- several sources


def test_people_of_tables_of_one_name_stay_apart_however_they_are_joined(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_csv(tmp_path / folder / "people.csv", "path,person,mask\n1.jpg,4,worn\n2.jpg,5,worn\n")
    one, other = (read(tmp_path / folder / "people.csv") for folder in ("a", "b"))
    joined, listed = one + other, read([tmp_path / "a" / "people.csv", tmp_path / "b" / "people.csv"])
    for photos in (joined, listed, one + other.where(person="people:4") + other.where(person="people:5")):
        assert len(set(photos.people)) == len(photos) == 4
    assert joined.people == ["people:4", "people:5", "b/people:4", "b/people:5"]
    assert joined.table.source.tolist() == ["people"] * 2 + ["b/people"] * 2
    check_disjoint(one, joined[2:])
    parts = one[:1] + one[1:]  # of one source they are the same people
    assert parts.people == one.people
    third = (tmp_path / "c" / "b").mkdir(parents=True) or tmp_path / "c" / "b" / "people.csv"
    write_csv(third, "path,person,mask\n1.jpg,4,worn\n")
    assert (joined + read(third)).people[-1] == "b/people':4"
    named = read([tmp_path / "a" / "people.csv", tmp_path / "b" / "people.csv"], name="survey")
    assert named.people == ["survey:4", "survey:5"] * 2  # as it was said
    everyone = read(tmp_path / "a" / "people.csv", people="global") + read(
        tmp_path / "b" / "people.csv", people="global"
    )
    assert everyone.people == ["4", "5", "4", "5"]


def test_who_is_joined_in_parts_is_one_person(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_csv(tmp_path / folder / "p.csv", "path,person\n1.jpg,7\n2.jpg,7\n3.jpg,8\n")
    one, other = (read(tmp_path / folder / "p.csv") for folder in ("a", "b"))
    joined = one + other[:1] + other[1:]
    assert joined.people[3:] == ["b/p:7", "b/p:7", "b/p:8"]
    check_disjoint(one, other)
    for left, right in ((one + other[:1], other[1:]), (other[1:], one + other[:1]), (other + one[:1], one[1:])):
        with pytest.raises(LeakError, match="1 people are on both sides"):
            check_disjoint(left, right)


def test_a_table_of_photos_beside_images_is_no_table_of_people(tmp_path):
    competition(tmp_path, ["1_female_Asian_45"])
    row = "1,female,Asian,45,images/1_female_Asian_45/mask1.jpg\n"
    write_csv(tmp_path / "files.csv", "id,gender,race,age,path\n" + row)
    photos = read(tmp_path / "files.csv")
    assert photos.table.name.tolist() == ["images/1_female_Asian_45/mask1.jpg"] and photos.table.years.tolist() == [45]


def test_two_ways_to_write_one_file_are_one_file(tmp_path):
    (tmp_path / "a").mkdir()
    write_csv(tmp_path / "a" / "t.csv", "path,mask\n1.jpg,worn\n2.jpg,worn\n../a/1.jpg,not_worn\n")
    with pytest.raises(ValueError, match=r"rows \[2, 4\] are the same file '1.jpg' with the same box"):
        read(tmp_path / "a" / "t.csv")


def test_a_run_is_of_its_sources(tmp_path):
    frame = {"path": ["1.jpg", "2.jpg"], "mask": ["worn", "worn"], "source": ["x", "y"]}
    one, other = (read(pd.DataFrame(frame | {"source": names}), root=tmp_path) for names in (["x", "y"], ["y", "x"]))
    assert one.fingerprint() != other.fingerprint() and one[:1].fingerprint() == other[:1].fingerprint()


def test_a_person_that_says_nothing_is_unknown():
    """Else all photos of unknown people would be one person's."""
    found = table(person=["1", "nan", "None", "<NA>", "-1", "", " null ", "anna"])
    assert found.people == ["t:1", "", "", "", "", "", "", "t:anna"]
    assert len(set(found.groups().tolist())) == 8


def test_persons_of_numbers_with_gaps_are_the_same_in_every_table(tmp_path):
    """pandas writes 12 as 12.0 where another row has none: globally known people would be on both sides."""
    ours = read(write_csv(tmp_path / "a.csv", "path,person\na.jpg,12.0\nb.jpg,\n"), people="global")
    theirs = read(write_csv(tmp_path / "b.csv", "path,person\nc.jpg,12\nd.jpg,v1.0\n"), people="global")
    assert ours.people == ["12", ""] and theirs.people == ["12", "v1.0"]
    with pytest.raises(LeakError):
        check_disjoint(ours, theirs)


def test_repeated_columns_are_refused(tmp_path):
    path = write_csv(tmp_path / "a.csv", "path, mask ,mask\na.jpg,worn,incorrect\n")
    with pytest.raises(ValueError, match="a.csv has several columns 'mask'; expected one, rename or drop the others"):
        read(path)
    frame = pd.DataFrame([["a.jpg", "worn", "incorrect"]], columns=["path", "mask", "mask"])
    with pytest.raises(ValueError, match="the table has several columns 'mask'; expected one"):
        read(frame, root=tmp_path)
    with pytest.raises(ValueError, match="the table has several columns 'mask'; expected one"):
        read(frame.set_axis(["path", "mask", "mask "], axis=1), root=tmp_path)
    spaced = read(frame.iloc[:, :2].set_axis([" path", " mask "], axis=1), root=tmp_path)
    assert spaced.labels([MASK]).tolist() == [[0]]
    found = read(write_csv(tmp_path / "b.csv", "path; mask ;\na.jpg;worn;\n"))
    assert found.labels([MASK]).tolist() == [[0]]
    assert read(pd.DataFrame({"path": ["a.jpg"], 3: ["x"], "mask": ["worn"]}), root=tmp_path).extra == ["3"]


def test_a_table_that_is_not_utf8_is_told(tmp_path):
    (tmp_path / "a.csv").write_bytes("path,gender\na.jpg,männlich\n".encode("cp1252"))
    with pytest.raises(ValueError, match="is no class of head 'gender'.*; the table is not in UTF-8: save it so"):
        read(tmp_path / "a.csv")


def test_ages_that_look_like_bands_are_told():
    with pytest.warns(
        UserWarning, match=r"column 'age' holds nothing but 0, 1, 2, read as years; .* --columns age_band=age"
    ):
        assert set(table(age=["0", "1", "2", "2"]).labels([AGE])[:, 0]) == {0}
    assert table(age=["0", "1", "2", "30"]).labels([AGE])[:, 0].tolist() == [0, 0, 0, 1]
    assert table(age_band=["0", "1", "2", "2"]).labels([AGE])[:, 0].tolist() == [0, 1, 2, 2]


def test_a_photo_has_one_path_however_it_is_reached(tmp_path, monkeypatch):
    """Else a run could not go on from another folder, and one photo was two."""
    for name in ("job", "else", "far/deep"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "job" / "t.csv").write_text("path,mask\na.jpg,worn\nsub/../b.jpg,worn\n")
    (tmp_path / "job" / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    photos = read("../job/t.csv")
    assert photos.paths == [str(tmp_path / "job" / name) for name in ("a.jpg", "b.jpg")]
    assert set(photos.table.root) == {str(tmp_path / "job")}
    assert photos.fingerprint() == read(tmp_path / "job" / "t.csv").fingerprint()
    with pytest.raises(ValueError, match="2 files are in both tables"):
        read("../job/t.csv") + read(tmp_path / "job" / "t.csv")
    (tmp_path / "link").symlink_to(tmp_path / "far" / "deep")
    (tmp_path / "far" / "c.jpg").write_bytes(b"")
    through = read(pd.DataFrame({"path": ["../c.jpg"]}), root=tmp_path / "link")
    assert through.paths == [str(tmp_path / "link" / ".." / "c.jpg")]  # which is in far


def test_usual_words_for_classes_and_spans_of_years():
    photos = table(
        gender=["F", "man", "Woman", "m", "", "female"], age=["60+", "25-29", "30 \u2013 59", "75-80", "<30", "31"]
    )
    assert photos.labels([GENDER]).ravel().tolist() == [1, 0, 1, 0, -1, 1]
    assert photos.labels([AGE]).ravel().tolist() == [2, 0, 1, 2, 0, 1]
    glasses = Head("glasses", ("no", "yes"))
    rows = pd.DataFrame({"path": ["a", "b", "c"], "glasses": [True, False, None]})
    assert read(rows, heads=[glasses]).labels().ravel().tolist() == [1, 0, -1]
    assert class_index(Head("letter", ("f", "m", "x")), "F") == 0  # a class's own name comes first
    with pytest.raises(ValueError, match="'m' is no class of head 'kind'"):
        class_index(Head("kind", ("male", "mixed")), "m")
    decade = Head("decade", ("20s", "30s", "older"), edges=(30, 40), number="age")
    rows = pd.DataFrame({"path": ["a", "b", "c"], "age": ["25-29", "31-50", "60+"]})
    with pytest.warns(UserWarning, match="1 rows whose age is a span over several bands of decade, for example 31-50"):
        assert read(rows, heads=[AGE, decade]).labels().tolist() == [[0, 0], [1, -1], [2, 2]]
    with pytest.warns(UserWarning, match="span over several bands of decade"):
        assert read(rows, heads=[decade]).labels().ravel().tolist() == [0, -1, 2]
    with pytest.warns(UserWarning, match="2 rows whose age is a span over several bands of age, for example 25-34"):
        assert table(age=["25-34", "20+", "61"]).labels([AGE]).ravel().tolist() == [-1, -1, 2]
    for wrong in ("40-35", "200-300", "131+"):
        with pytest.raises(ValueError, match=f"'{re.escape(wrong)}' is no age; expected years from 0 to 130"):
            table(age=[wrong])


def test_spans_of_years_survive_a_written_table_for_heads_of_other_edges(tmp_path):
    decade = Head("decade", ("20s", "30s", "older"), edges=(30, 40), number="age")
    rows = pd.DataFrame({"path": ["a", "b", "c", "d"], "age": ["40-44", " 60+", "33", ""]})
    photos = read(rows, root="/photos") + read(pd.DataFrame({"path": ["e"], "age": ["34,5"]}), root="/others")
    photos.write(tmp_path / "t.csv")
    written = pd.read_csv(tmp_path / "t.csv", dtype=str, keep_default_na=False)
    assert written.age.tolist() == ["40-44", "60+", "33.0", "", "34.5"] and photos.extra == []
    again = read(tmp_path / "t.csv", heads=[AGE, decade])
    assert again.labels().tolist() == [[1, 2], [2, 2], [1, 1], [-1, -1], [1, 1]]
    hide_labels(photos, 1).write(tmp_path / "hidden.csv")
    assert read(tmp_path / "hidden.csv", heads=[AGE, decade]).known() == {"age": 0, "decade": 0}


def test_words_of_a_table_are_mapped_to_ours(tmp_path):
    rows = pd.DataFrame({"path": ["a", "b", "c"], "mask": ["With Mask", "?", "bare"], "gender": ["V", "male", "v"]})
    words = {"mask:with mask": "worn", "mask:?": "", "mask:bare": "not_worn", "gender:V": "female"}
    assert read(rows, labels=words).labels([MASK, GENDER]).tolist() == [[0, 1], [-1, 0], [2, 1]]
    rows.rename(columns={"mask": "state"}).to_csv(tmp_path / "t.csv", index=False)
    named = read(tmp_path / "t.csv", labels=words, columns={"mask": "state"})  # by our names of the columns
    assert named.labels([MASK, GENDER]).tolist() == [[0, 1], [-1, 0], [2, 1]]
    own = {key.replace("mask:", "State:"): word for key, word in words.items()}  # or by the table's
    assert read(tmp_path / "t.csv", labels=own, columns={"mask": "state"}).labels().tolist() == named.labels().tolist()
    swapped = read(
        rows.assign(gender=["male", "female", ""]), labels=words | {"gender:male": "female", "gender:female": "male"}
    )
    assert swapped.labels([GENDER]).ravel().tolist() == [1, 0, -1]  # all at once
    with pytest.raises(ValueError, match="labels= maps 'F'; expected column:word"):
        read(rows, labels={"F": "female"})
    with pytest.raises(KeyError, match="labels= maps words of 'gendre', which is no column of what was read"):
        read(rows, labels=words | {"gendre:f": "female"})
    other = pd.DataFrame({"path": ["d"], "age": ["old"]})
    both = read([rows, other], labels=words | {"age:old": ">=60"})  # each table has its own
    assert both.labels()[-1].tolist() == [-1, -1, 2] and both.labels()[0].tolist() == [0, 1, -1]
    told = "row 2 .a., column 'mask': 'With Mask' is no class .*; nor are '[?]', 'bare';"
    with pytest.raises(ValueError, match=told):  # all of a column at once
        read(rows)


def test_columns_may_be_capitalised():
    rows = pd.DataFrame({"Path": ["a", "b"], "Mask": ["worn", ""], "AGE": ["31", "20"], "Person_ID": ["x", "y"]})
    photos = read(rows)
    assert photos.labels([MASK, AGE]).tolist() == [[0, 1], [-1, 0]] and photos.people == ["table:x", "table:y"]
    both = read(pd.DataFrame({"path": ["a"], "Path": ["b"], "MASK": ["worn"], "Mask": ["incorrect"]}))
    assert both.paths[0].endswith("/a") and both.known()["mask"] == 0  # which of two is not guessed
    named = read(pd.DataFrame({"Path": ["a"], "other": ["b"]}), columns={"path": "other"})
    assert named.paths[0].endswith("/b")
    own = read(pd.DataFrame({"path": ["a"], "Face": ["yes"], "Score": [3], "Source": ["web"]}))
    assert own.extra == ["Face", "Score", "Source"]  # which mean something only as we write them


def test_photos_may_be_named_from_the_current_folder_by_any_column(tmp_path, monkeypatch):
    (tmp_path / "tables").mkdir()
    (tmp_path / "a.jpg").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    for column in ("path", "Path", "photo"):
        (tmp_path / "tables" / "t.csv").write_text(f"{column},mask\na.jpg,worn\n")
        columns = {"path": "photo"} if column == "photo" else None
        assert read("tables/t.csv", columns=columns).paths == [str(tmp_path / "a.jpg")]


def test_folders_that_are_named_like_classes_label_their_photos(tmp_path):
    for name in ("train/worn/a.jpg", "train/not_worn/b.jpg", "val/Worn/female/c.jpg", "train/d.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.warns(UserWarning, match="the names of folders are labels: mask of 3 photos, gender of 1 photos"):
        photos = read(tmp_path)
    found = dict(zip(photos.table.name, zip(photos.table.split, photos.labels([MASK, GENDER]).tolist())))
    assert found == {
        "train/d.jpg": ("train", [-1, -1]),
        "train/not_worn/b.jpg": ("train", [2, -1]),
        "train/worn/a.jpg": ("train", [0, -1]),
        "val/Worn/female/c.jpg": ("val", [0, 1]),
    }
    hat, glasses = Head("hat", ("no", "worn")), Head("glasses", ("no", "yes"))
    with pytest.warns(UserWarning, match="labels: hat of 2 photos"):
        assert read(tmp_path, heads=[hat, glasses]).known() == {"hat": 2, "glasses": 0}
    (tmp_path / "plain" / "train").mkdir(parents=True)
    (tmp_path / "plain" / "train" / "a.jpg").write_bytes(b"x")
    assert read(tmp_path / "plain").table.split.tolist() == [""]  # without labels it is a folder of photos


def test_folders_may_be_named_by_other_words_too(tmp_path):
    for name in ("with_mask/a.jpg", "Woman/b.jpg", "worn/2/c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.warns(UserWarning, match="labels: mask of 2 photos, gender of 1 photos"):
        photos = read(tmp_path, labels={"mask:with_mask": "worn"})
    found = dict(zip(photos.table.name, photos.labels([MASK, GENDER]).tolist()))
    assert found == {"with_mask/a.jpg": [0, -1], "Woman/b.jpg": [-1, 1], "worn/2/c.jpg": [0, -1]}


def test_a_folder_name_of_two_heads_tells_nothing(tmp_path):
    (tmp_path / "yes").mkdir()
    (tmp_path / "yes" / "a.jpg").write_bytes(b"x")
    heads = [Head("hat", ("no", "yes")), Head("glasses", ("no", "yes"))]
    assert read(tmp_path, heads=heads).known() == {"hat": 0, "glasses": 0}


@pytest.mark.parametrize(("yes", "no"), [("yes", "no"), ("True", "False")])
def test_numbers_of_classes_that_begin_with_yes_are_told(yes, no):
    def labels(*cells, classes=(yes, no), **words):
        head = Head("helmet", classes)
        photos = pd.DataFrame({"path": [f"{n}.jpg" for n in range(len(cells))], "helmet": cells})
        return read(photos, root="/photos", heads=[head], **words).labels([head])[:, 0].tolist()

    match = f"column 'helmet' numbers its classes in 2 rows, where 0 is read as '{yes}' .* --labels helmet:1={yes} "
    with pytest.warns(UserWarning, match=match):
        assert labels("0", "1.0", "") == [0, 1, -1]
    assert labels("0", "1", "", labels={"helmet:1": yes, "helmet:0": no}) == [1, 0, -1]
    assert labels(no, yes, "n") == [1, 0, 1]
    assert labels("0", "1", classes=(no, yes)) == labels("0", "1", classes=("on", "off")) == [0, 1]


def test_a_table_of_another_kind_may_come_as_a_dataframe(tmp_path):
    frame = pd.DataFrame({"path": ["a.jpg", "b.jpg"], "mask": ["worn", None], "age": [30, None]})
    frame.to_json(tmp_path / "a.json", orient="records")
    with pytest.raises(ValueError, match=r"a.json is no table; .*, or in Python a DataFrame, as of pandas.read_json"):
        read(tmp_path / "a.json")
    found = read(pd.read_json(tmp_path / "a.json"), root=tmp_path)
    assert found.labels([MASK, AGE]).tolist() == [[0, 1], [-1, -1]]
