"""The package that exports carry, in a process that has neither this library nor torch."""

import ast
import io
import json
import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from multihead.carry import carry, sources
from multihead.crops import BODY, FACE, FULL
from multihead.cutting import read_crops
from multihead.images import open_image

CROPS = {"face": FACE.resized(112, 96), "body": BODY.resized(96, 64), "full_64x64": FULL.resized(64)}
BARE = "import sys\nfor name in ('multihead', 'torch', 'timm', 'pandas'): sys.modules[name] = None\n"
ASK = f"""{BARE}
import json
import numpy as np
from preprocess import CROPS, inputs
for number, (path, box, whole) in enumerate(json.load(sys.stdin)):
    np.savez(f"{{number}}.npz", **inputs(path, box, whole))
print([name for name in sys.modules if name.partition(".")[0] == "multihead"], *CROPS)
"""


def run(program, folder, text=""):
    """What a program prints that runs in the folder."""
    command = [sys.executable, "-I", "-W", "error", "-c", f"import sys\nsys.path.insert(0, '')\n{program}"]
    done = subprocess.run(command, cwd=folder, input=text, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def check(folder, asked):
    """The carried package makes of (path, box, whole) what this library makes."""
    carry(CROPS, folder)
    told = run(ASK, folder, json.dumps([(str(path), box, whole) for path, box, whole in asked]))
    assert told == "['multihead'] face body full_64x64\n"  # which is None
    for number, (path, box, whole) in enumerate(asked):
        cuts, regions = read_crops(open_image(path), list(CROPS.values()), box, whole)
        with np.load(folder / f"{number}.npz") as made:
            assert made.files == [*CROPS, "present"]
            for name, pixels in zip(CROPS, cuts):
                assert made[name].dtype == np.uint8 and np.array_equal(made[name], pixels.transpose(2, 0, 1)[None])
            assert made["present"].dtype == bool
            assert made["present"].tolist() == [[region is not None for region in regions]]


def drawn(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (height // 24 + 2, width // 24 + 2, 3), np.uint8), (width, height))


def test_inputs_of_photos_of_all_sizes(tmp_path):
    asked = []
    for side in (8, 60, 199, 320, 645, 1283, 2600):
        path = tmp_path / f"{side}.jpg"
        Image.fromarray(drawn(side, side * 3 // 4, side)).save(path, quality=92)
        face = [side * share for share in (0.213, 0.201, 0.48, 0.533)]
        tight = [side * share for share in (0.02, 0.03, 0.72, 0.97)]
        asked += [(path, None, False), (path, face, False), (path, tight, False), (path, None, True)]
    check(tmp_path, asked)
    assert [bool(np.load(tmp_path / f"{number}.npz")["present"].all()) for number in range(4)] == [
        True, True, False, False,
    ]  # fmt: skip


def test_inputs_of_photos_of_all_kinds(tmp_path):
    asked, box = [], [211.4, 187.0, 455.0, 503.25]
    image = Image.fromarray(drawn(1203, 901))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(tmp_path / f"turned{orientation}.jpg", exif=exif, quality=95)
    image.save(tmp_path / "progressive.jpg", progressive=True)
    image.convert("L").save(tmp_path / "grey.jpg")
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    image.save(tmp_path / "lossless.webp", lossless=True)
    clear = np.dstack([drawn(1203, 901), drawn(1203, 901, seed=1)[:, :, :1]])
    Image.fromarray(clear, "RGBA").save(tmp_path / "clear.png")
    cv2.imwrite(str(tmp_path / "deep.png"), drawn(1203, 901).astype(np.uint16) * 257)
    for path in sorted(path for path in tmp_path.iterdir()):
        asked += [(path, None, False), (path, box, False), (path, None, True)]
    assert len(asked) == 3 * 14
    check(tmp_path, asked)


def test_inputs_of_real_photos(tmp_path, shared_data):
    boxes = pd.read_csv(shared_data / "mask_scenes" / "boxes.csv").drop_duplicates("path").head(30)
    asked = [
        (shared_data / "mask_scenes" / row.path, [row.x0, row.y0, row.x1, row.y1], False) for row in boxes.itertuples()
    ]
    table = pd.read_csv(shared_data / "index.csv").groupby("source").head(3)
    asked += [(shared_data / path, None, whole) for path in table.path for whole in (False, True)]
    check(tmp_path, asked)


def imported(text):
    """The packages that a source imports, wherever it does."""
    nodes = list(ast.walk(ast.parse(text)))
    plain = [each.name for node in nodes if isinstance(node, ast.Import) for each in node.names]
    plain += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.partition(".")[0] for name in plain}


def test_what_is_carried_needs_little():
    """A module that begins to import what programs without torch lack would be carried with all of it."""
    texts = sources()
    assert set(texts) == {"feeds", "cutting", "crops", "images", "decoders", "headers", "files"}
    assert "\nif TYPE_CHECKING:\n    import torch\n" in texts["images"] and texts["images"].count("import torch") == 1
    for name, text in texts.items():
        needed = imported(text) - set(sys.stdlib_module_names)
        assert needed <= {"numpy", "cv2", "PIL"} | ({"torch"} if name == "images" else set()), name


def test_the_package_may_be_moved_renamed_and_tells_its_errors(tmp_path):
    carry({"it's": FACE.resized(8), 'a\\"b\n': FULL.resized(4, 6)}, tmp_path)
    (tmp_path / "app").mkdir()
    (tmp_path / "preprocess").rename(tmp_path / "app" / "eyes")
    stream = io.BytesIO()
    Image.fromarray(drawn(64, 48)).save(stream, "JPEG")
    (tmp_path / "a.jpg").write_bytes(stream.getvalue())
    lines = ["from app.eyes import CROPS, ImageError, inputs", "print([list(inputs('a.jpg')), list(CROPS)])"]
    lines += ["for photo, box in (('b.jpg', None), ('a.jpg', (90, 90, 99, 99))):"]
    lines += ["    try: inputs(photo, box)", "    except ValueError as error: print(type(error).__name__, error)"]
    names, missing, outside = run(BARE + "\n".join(lines), tmp_path).splitlines()
    assert ast.literal_eval(names) == [["it's", 'a\\"b\n', "present"], ["it's", 'a\\"b\n']]
    assert missing == "ImageError 'b.jpg': no such file"
    assert outside.startswith("ValueError box (90.0, 90.0, 99.0, 99.0) has no area inside a photo of 48 x 64")
