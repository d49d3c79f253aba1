"""Folders and tables full of what people's disks are full of: every verb finishes and names each bad file."""

import io
import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from multihead.cli import main
from multihead.images import read_image

ODD = ["a b.jpg", "c,d.jpg", 'e"f.jpg', "g\nh.jpg", "ünï 写真 😀.jpg", "-dash.jpg", "[x].jpg", "'q'.jpg", "%s{}.jpg"]
BAD = {
    "zero.jpg": "empty file",
    "zeros.png": "only zeros",
    "cut.jpg": "truncated JPEG",
    "cut.png": "damaged image",
    "text.jpg": "not an image (text?)",
    'odd\nzero,".jpg': "empty file",
    "broken.jpg": "broken link",
}
LISTED = {"folder.jpg": "is a folder", "gone.jpg": "no such file"}  # only a table can name these
QUICK = ["--model", "test_resnet", "--resize", "32", "--epochs", "1", "-b", "8", "-j", "1"]


def encoded(image, format="JPEG", **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def photo(people, number):
    """A drawn face, unlike for each number."""
    path = sorted((people / "train" / "images").rglob("normal*"))[number % 12]
    return Image.fromarray(read_image(path)[number : 400 + number : 2, ::2])


@pytest.fixture(scope="module")
def hostile(people, tmp_path_factory):
    """The folder, and the names in it that can be read."""
    root = tmp_path_factory.mktemp("hostile") / "photos"
    (root / "folder.jpg").mkdir(parents=True)
    good = {}
    for number in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = number
        good[f"exif{number}.jpg"] = encoded(photo(people, number), exif=exif)
    plain = photo(people, 9)
    good["rgba.png"] = encoded(plain.convert("RGBA"), "PNG")
    good["palette.png"] = encoded(plain.quantize(16), "PNG", transparency=0)
    good["sixteen.png"] = encoded(Image.fromarray(np.asarray(plain.convert("L")).astype(np.uint16) * 257), "PNG")
    good["cmyk.jpg"] = encoded(plain.convert("CMYK"))
    good["grey.jpg"] = encoded(plain.convert("L"))
    good["one.png"] = encoded(Image.new("RGB", (1, 1), "red"), "PNG")
    good["wide.png"] = encoded(Image.new("RGB", (20_000, 12), "blue"), "PNG")
    good["png.jpg"] = encoded(photo(people, 10), "PNG")  # the name lies, the content does not
    good["folder.jpg/inside.jpg"] = encoded(photo(people, 11))
    good |= {name: encoded(photo(people, 12 + number)) for number, name in enumerate(ODD)}
    good[os.fsdecode(b"latin\xe4.jpg")] = encoded(photo(people, 30))
    whole = encoded(photo(people, 31)), encoded(photo(people, 31), "PNG")
    broken = {"zero.jpg": b"", "zeros.png": bytes(5000), "cut.jpg": whole[0][:-900], "cut.png": whole[1][:-900]}
    broken |= {"text.jpg": b"<html>not found</html>", 'odd\nzero,".jpg': b""}
    for name, content in (good | broken).items():
        (root / name).write_bytes(content)
    (root / "broken.jpg").symlink_to(root / "nowhere.jpg")
    (root / "loop").symlink_to(root, target_is_directory=True)
    return root, sorted(good)


def table_of(root, good, path):
    """A table of them all, with labels, people, and rows that no folder would list."""
    names = [*good, *BAD, *LISTED]
    frame = pd.DataFrame({"path": np.array([str(root / name) for name in names], object)})
    frame["mask"] = [("worn", "incorrect", "not_worn")[n % 3] for n in range(len(names))]
    frame["gender"] = [("male", "female")[n % 2] for n in range(len(names))]
    frame["age"] = [20 + n for n in range(len(names))]
    frame["person"] = [f"p{n % 10}" for n in range(len(names))]
    path.write_text(frame.to_csv(index=False), encoding="utf-8", errors="surrogateescape")
    return path


def read_csv(path):
    return pd.read_csv(path, dtype=object, keep_default_na=False, encoding_errors="surrogateescape")


def assert_named(text, names):
    """Each name, as Python quotes it, stands with its reason on one line."""
    lines = text.splitlines()
    for name, reason in names.items():
        quoted = repr(f"/{name}")[2:-1]
        assert any(quoted in line and reason in line for line in lines), (name, reason, text)


@pytest.mark.slow
def test_scan(hostile, tmp_path, capsys):
    root, good = hostile
    assert main(["scan", str(root), "-o", str(tmp_path / "boxes.csv")]) == 0
    printed = capsys.readouterr()
    assert_named(printed.err, BAD)
    table = read_csv(tmp_path / "boxes.csv")
    assert sorted(table.path) == sorted([*good, *BAD])
    status = dict(zip(table.path, table.status))
    assert {name for name in status if status[name] == "unreadable"} == set(BAD)
    assert sum(status[name] == "found" for name in status) >= 15 and status["one.png"] == status["wide.png"] == "none"
    assert f"{len(BAD)} unreadable" in printed.out
    assert main(["scan", str(root), "-o", str(tmp_path / "boxes.csv"), "-q"]) == 0  # its own table reads back
    assert read_csv(tmp_path / "boxes.csv").equals(table)


@pytest.mark.slow
@pytest.mark.parametrize("crops", ["full", "face"])
def test_train_and_evaluate(hostile, tmp_path, crops, capsys):
    root, good = hostile
    table = table_of(root, good, tmp_path / "table.csv")
    run = tmp_path / "run"
    assert main(["train", str(table), *QUICK, "--crops", crops, "--output", str(run)]) == 0
    told = capsys.readouterr().err
    assert_named(told, BAD | LISTED)
    assert told.count("left out: ") == len(BAD | LISTED)
    assert len(read_csv(run / "splits.csv")) == len(good) + len(BAD | LISTED)
    assert main(["evaluate", str(run), str(table), "-j", "1", "-q"]) == 0
    printed = capsys.readouterr()
    assert_named(printed.err, BAD | LISTED)
    assert printed.out.splitlines()[1].split()[:2] == ["joint", str(len(good))]
    settings = ["--crops", crops, "--output", str(run), "--resume", "-q"]
    assert main(["train", str(table), *QUICK, *settings]) == 0


@pytest.fixture(scope="module")
def model(people, tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    boxes = str(people / "train" / "boxes.csv")
    argv = ["train", str(people / "train"), *QUICK, "--crops", "face", "--boxes", boxes, "--output", str(run), "-q"]
    assert main(argv) == 0
    return run


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "table"])
def test_predict(hostile, model, tmp_path, kind, capsys):
    root, good = hostile
    source = root if kind == "folder" else table_of(root, good, tmp_path / "table.csv")
    bad = BAD if kind == "folder" else BAD | LISTED
    answers = tmp_path / "answers.csv"
    argv = ["predict", str(model), str(source), "-o", str(answers), "--draw", str(tmp_path / "drawn")]
    assert main(argv) == 0
    assert_named(capsys.readouterr().err, bad)
    table = read_csv(answers)
    assert sorted(table.path) == sorted(str(root / name) for name in [*good, *bad])
    answered = table.label != ""
    assert set(table.path[~answered]) == {str(root / name) for name in bad} and (table.error[answered] == "").all()
    assert len(list((tmp_path / "drawn").iterdir())) == len(good)
    assert main([*argv, "--strict", "-q"]) == 1
    capsys.readouterr()
    # the table of answers is a source too, and answers the same
    again = tmp_path / "again.csv"
    assert main(["predict", str(model), str(answers), "-o", str(again), "-q"]) == 0
    assert read_csv(again).label.tolist() == table.label.tolist()


def test_predict_prints_odd_names(hostile, model, capfdbinary):
    root, _ = hostile
    names = [root / os.fsdecode(b"latin\xe4.jpg"), root / "g\nh.jpg", root / "ünï 写真 😀.jpg"]
    assert main(["predict", str(model), *map(str, names)]) == 0
    printed = capfdbinary.readouterr().out
    assert all(os.fsencode(name) in printed for name in names)


def test_nothing_but_bad_files(hostile, model, tmp_path, capsys):
    root, _ = hostile
    sources = [str(root / name) for name in BAD]
    assert main(["predict", str(model), *sources, "-o", str(tmp_path / "t.csv")]) == 1
    assert_named(capsys.readouterr().err, BAD)
    table = pd.DataFrame({"path": sources, "mask": "worn", "person": range(len(sources))})
    table.to_csv(tmp_path / "bad.csv", index=False)
    assert main(["train", str(tmp_path / "bad.csv"), *QUICK, "--output", str(tmp_path / "run")]) == 2
    printed = capsys.readouterr().err
    assert_named(printed, BAD)
    assert "training photos can be read" in printed and "Traceback" not in printed
    assert main(["evaluate", str(model), str(tmp_path / "bad.csv"), "-j", "0"]) == 2
    assert "could be scored; the first: " in capsys.readouterr().err
