"""Tables of answers that go on where they were interrupted: torn files, other settings, photos that came or went."""

import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from multihead import pipeline
from multihead.answer_files import going_on, stamps
from multihead.cli import main
from multihead.crops import FULL
from multihead.heads import HEADS
from multihead.inputs import Item, after
from multihead.model import Model

COLUMNS = ["path", "box", "face", "label"]


@pytest.fixture
def place(tmp_path):
    """A model, and a folder of twelve photos, one of them broken."""
    torch.manual_seed(0)
    Model("test_resnet", [head.on(FULL.resized(32)) for head in HEADS]).save_pretrained(tmp_path / "model")
    (tmp_path / "photos").mkdir()
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 48, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "photos" / f"{number:02}.png"), pixels)
    (tmp_path / "photos" / "03.png").write_bytes(b"broken")
    return tmp_path


@pytest.fixture
def predict(place, monkeypatch):
    """Call predict on the folder; stop: after so many passes of two photos comes a Ctrl-C. What was answered."""

    def call(*flags, stop=None, out="answers.csv"):
        seen = []

        def counted(model, rows):
            if len(seen) == stop:
                raise KeyboardInterrupt
            seen.append(len(rows))
            return real(model, rows)

        with monkeypatch.context() as patch:
            real = pipeline.batch_answers
            patch.setattr(pipeline, "batch_answers", counted)
            command = ["predict", place / "model", place / "photos", "-o", place / out, "-b", "2", "-j", "1", *flags]
            return SimpleNamespace(status=main(list(map(str, command))), passes=len(seen))

    return call


def parts(place):
    return sorted(place.glob("*.part"))


def assert_same(table, other):
    """Equal rows, but for last digits: after an interruption other photos are answered together, by other kernels."""
    assert_frame_equal(pd.read_csv(table), pd.read_csv(other), check_exact=False, rtol=0, atol=1e-6)


def test_an_interrupted_table_is_gone_on_with(place, predict, capsys):
    whole = predict(out="whole.csv")
    (place / "answers.csv").write_text("of yesterday")
    assert predict(stop=3).status == 130
    told = capsys.readouterr().err
    (part,) = parts(place)
    assert f"rows are in {part}" in told and "the same command goes on" in told
    assert (place / "answers.csv").read_text() == "of yesterday"
    assert (place / "whole.csv").read_text().startswith(part.read_text())
    left = len(pd.read_csv(part)) - 1  # of the last photo rows may lack
    again = predict()
    told = capsys.readouterr().err
    assert again.status == 0 and 0 < again.passes < whole.passes and not parts(place)
    assert_same(place / "answers.csv", place / "whole.csv")
    assert 0 < left < 11 and f"going on after {left} rows" in told and "1 of 12 rows have no answer" in told


def test_other_settings_begin_anew_and_take_nothing_away(place, predict):
    whole = predict(out="whole.csv")
    assert predict(stop=3).status == 130
    assert predict("--tta", "flip", stop=2).status == 130 and len(parts(place)) == 2
    again = predict()
    assert 0 < again.passes < whole.passes and not parts(place)
    assert_same(place / "answers.csv", place / "whole.csv")


def test_another_model_in_the_same_folder_begins_anew(place, predict):
    assert predict(stop=3).status == 130
    torch.manual_seed(1)
    Model("test_resnet", [head.on(FULL.resized(32)) for head in HEADS]).save_pretrained(place / "model")
    whole = predict(out="whole.csv")
    assert predict().passes == whole.passes
    assert (place / "answers.csv").read_bytes() == (place / "whole.csv").read_bytes()


def test_photos_that_came_or_went_are_told(place, predict, capsys):
    assert predict(stop=3).status == 130
    shutil.copy(place / "photos" / "01.png", place / "photos" / "00a.png")
    assert predict().status == 2
    told = capsys.readouterr().err
    assert "01.png when this table was begun" in told and "00a.png now: photos came or went; remove" in told
    parts(place)[0].unlink()
    assert predict().status == 0 and len(pd.read_csv(place / "answers.csv")) == 13


def test_what_cannot_go_on_says_so(place, monkeypatch, capsys):
    def stopped(model, rows):
        raise KeyboardInterrupt

    (place / "people.csv").write_text(
        "path,person\n" + "".join(f"photos/{number:02}.png,{number % 3}\n" for number in range(12))
    )
    command = ["predict", place / "model", place / "people.csv", "--person-vote", "-o", place / "voted.csv"]
    assert main(list(map(str, command))) == 0 and not parts(place)
    assert len(pd.read_csv(place / "voted.csv")) == 12
    monkeypatch.setattr(pipeline, "batch_answers", stopped)
    assert main(list(map(str, command))) == 130 and not parts(place)
    assert "the same command begins anew" in capsys.readouterr().err


def test_no_photos_leave_what_stands(place, predict):
    (place / "answers.csv").write_text("of yesterday")
    shutil.rmtree(place / "photos")
    (place / "photos").mkdir()
    assert predict().status == 1 and not parts(place)
    assert (place / "answers.csv").read_text() == "of yesterday"


def test_two_processes_do_not_write_one_table(tmp_path):
    twice = going_on(tmp_path / "a.csv", COLUMNS, {})
    with going_on(tmp_path / "a.csv", COLUMNS, {}), pytest.raises(ValueError, match="another process writes the same"):
        twice.__enter__()
    with going_on(tmp_path / "a.csv", COLUMNS, {}) as one, going_on(tmp_path / "a.csv", COLUMNS, {"other": 1}) as two:
        one.write("path,box,face,label\na,,,1\n")
        two.write("path,box,face,label\nb,,,1\n")
    assert (tmp_path / "a.csv").read_text().splitlines()[1] == "a,,,1"  # the outer one, which ended last
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_parts_of_other_tables_stay(tmp_path):
    names = ["b.csv.0123abcd.part", "a.csv.x.part", "a.csv.zzzzzzzz.part", "a.csv.part"]
    for name in names:
        (tmp_path / name).write_text("mine")
    with going_on(tmp_path / "a.csv", COLUMNS, {}) as begun:
        begun.write("path,box,face,label\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a.csv", *names])


names = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), min_size=1, max_size=4)
photos = st.lists(st.tuples(names, st.integers(1, 3)), max_size=6, unique_by=lambda photo: photo[0])


@given(photos=photos, data=st.data())
def test_wherever_a_table_is_torn_it_becomes_the_whole_one(photos, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("torn")
    rows = [[name, f"{number} 2 3 4", "", "7"] for name, count in photos for number in range(count)]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    text = frame.to_csv(index=False).encode()
    cut = data.draw(st.integers(0, len(text)))
    with pytest.raises(KeyboardInterrupt), going_on(folder / "a.csv", COLUMNS, {}) as begun:
        begun.write("x")
        raise KeyboardInterrupt
    (part,) = folder.glob("*.part")
    part.write_bytes(text[:cut])
    with going_on(folder / "a.csv", COLUMNS, {}) as begun:
        done = list(begun.done)
        assert done == [name for name, _ in photos][: len(done)] and begun.tally.rows == sum(
            count for _, count in photos[: len(done)]
        )
        left = frame[begun.tally.rows :]
        begun.write(left.to_csv(index=False, header=not begun.tally.rows))
    assert (folder / "a.csv").read_bytes() == text
    whole = [name for name, _ in photos if csv_text(frame, name, photos) <= cut]
    assert done == whole[: len(done)] and len(done) >= len(whole) - 1  # the last one may lack rows


def csv_text(frame, name, photos):
    """Bytes of the table up to the end of a photo's rows."""
    end = sum(count for _, count in photos[: [each for each, _ in photos].index(name) + 1])
    return len(frame[:end].to_csv(index=False).encode())


def test_photos_after_those_that_are_done():
    items = [Item(name, None) for name in ["a", "a", "b", "c", "a"]]
    left = lambda done: [item.name for item in after(iter(items), done)]  # noqa: E731
    assert left([]) == ["a", "a", "b", "c", "a"] and left(["a"]) == ["b", "c", "a"] and left(["a", "b", "c"]) == ["a"]
    assert left(["a", "b", "c", "a"]) == []
    with pytest.raises(ValueError, match="photo 2 was x when this table was begun, and is b now"):
        left(["a", "x"])
    with pytest.raises(ValueError, match="photo 5 was e when this table was begun, and is no more now"):
        left(["a", "b", "c", "a", "e"])


def test_stamps_tell_files_apart(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a").write_text("one")
    before = stamps([tmp_path / "model"])
    assert list(before) == [str(tmp_path / "model" / "a")] and stamps([tmp_path / "model"]) == before
    (tmp_path / "model" / "a").write_text("other")
    assert stamps([tmp_path / "model"]) != before
