"""`predict` with face crops, from files to a table, beside the glue that users write: PIL, facenet-pytorch, timm.

    python benchmarks/predict.py --data DATA/bootlike [--yunet FILE.onnx]

One JSON line: milliseconds a photo and how many times as fast ours is (the glue with batches of 1 and of 32), and
`predict` beside the sum of its stages' times alone; where the extras `onnx`, `openvino` and `quant` are installed, also
of the model exported to ONNX and to OpenVINO in f32, and in int8 (all layers, whatever that costs: see export.py).
Photos are those of DATA, resized to 384x512 (width x height), JPEG quality 95, in a temporary folder; each side runs in
a process of its own, the glue with glibc's own thresholds.
"""

import argparse
import importlib.util
import json
import os
import statistics
import tempfile
from pathlib import Path

import numpy as np
import pairs
from record import record

PHOTOS = 100
SIZE = 224
MODEL = "tf_efficientnet_lite0"
RUNTIMES = ("onnxruntime", "openvino", "nncf")
ONNX = "ONNX Runtime f32"  # which gives the answers that the model gives
LIMITS = ("raw decode", "memory copy", "raw backbone")  # of opening, of cutting, and of answering


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of photos of one person each")
    parser.add_argument("--yunet", help="YuNet's ONNX file")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # nothing is remembered from before
        photos = make_photos(arguments.data, Path(folder) / "photos")
        exports = export(photos, Path(folder)) if arguments.yunet and installed(*RUNTIMES) else {}
        numbers = compare(photos, exports, arguments)
    about = {"photos": PHOTOS, "photo": "384x512 JPEG", "model": MODEL, "crop": SIZE, **pairs.surroundings()}
    print(json.dumps(record("predict", about, numbers)))
    for name, least in {"ours, mtcnn": (5, 5), f"ours, yunet, {ONNX}": (9, 10)}.items():
        for batch, bound in zip((1, 32), least):
            if name in numbers["sides"]:
                found = numbers["sides"][name]["faster"][f"glue, batch {batch}"]
                assert found["ratio"] >= bound, f"{name}: {found['ratio']} times as fast as batches of {batch}"
    for name, found in numbers["stages"].items():
        reached = found["reached"]["ratio"]
        assert reached >= 0.9, f"{name}: {reached} of what its stages take one after the other"


def make_photos(data, folder):
    """The paths of `PHOTOS` photos of 384x512, of as many people as there are."""
    import cv2

    from multihead.images import image_files, read_image, write_jpeg

    files = image_files(data)
    chosen = [files[place] for place in np.linspace(0, len(files) - 1, PHOTOS).astype(int)]
    for number, file in enumerate(chosen):
        image = cv2.resize(read_image(file), (384, 512), interpolation=cv2.INTER_CUBIC)
        write_jpeg(image, folder / f"{number:03}.jpg")
    return [str(path) for path in image_files(folder)]


def installed(*packages):
    """Whether all these packages are there."""
    return all(importlib.util.find_spec(package) for package in packages)


def export(photos, folder):
    """{runtime and precision: the folder of the model exported to it}"""
    import multihead as mh

    table = folder / "photos.csv"
    labels = ",".join(head.classes[0] for head in mh.HEADS)  # by which nothing is controlled
    names = ",".join(head.name for head in mh.HEADS)
    table.write_text(f"path,{names}\n" + "".join(f"{path},{labels}\n" for path in photos))
    calibration = mh.read(table)
    bounds = {"photos": calibration, "limit": PHOTOS, "max_drop": 1.0}
    write = {
        ONNX: lambda to: mh.export.onnx(_model(), to),
        "OpenVINO f32": lambda to: mh.export.openvino(_model(), to, "f32"),
        "OpenVINO int8": lambda to: mh.export.openvino(_model(), to, "int8", **bounds),
    }
    for name, make in write.items():
        make(folder / name)
    return {name: str(folder / name) for name in write}


def compare(photos, exports, arguments):
    """{"sides": {side: ms a photo, times as fast}, "stages": ...}"""
    detectors = {"mtcnn": None} | ({"yunet": arguments.yunet} if arguments.yunet else {})
    theirs = {f"glue, batch {batch}": pairs.Side(glue, {"paths": photos, "batch": batch}) for batch in (1, 32)}
    settings = {f"ours, {name}": {"paths": photos, "detector": file} for name, file in detectors.items()}
    whole = {f"ours, yunet, {name}": settings["ours, yunet"] | {"folder": folder} for name, folder in exports.items()}
    sides = theirs | {name: pairs.Side(ours, each) for name, each in (settings | whole).items()}
    times = pairs.measure(sides, arguments.rounds)
    for side in sides.values():
        side.close()
    found = {name: {"ms": round(1000 * statistics.median(each) / PHOTOS, 2)} for name, each in times.items()}
    for name in settings | whole:
        found[name]["faster"] = {other: pairs.faster(times[name], times[other]) for other in theirs}
        found[name]["mode"] = sides[name].about
    return {"sides": found, "stages": {name: stages(each, arguments.rounds) for name, each in settings.items()}}


def glue(paths, batch):
    """What users write: PIL, MTCNN photo by photo, a margin, a resize, timm's eager model over batches."""
    import timm
    import torch
    from facenet_pytorch import MTCNN
    from PIL import Image

    finder, model = MTCNN(keep_all=True), timm.create_model(MODEL, num_classes=18).eval()
    mean, std = (torch.tensor(model.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))

    def crop(path):
        photo = Image.open(path).convert("RGB")
        boxes, _ = finder.detect(photo)
        if boxes is not None:
            x0, y0, x1, y1 = boxes[0]
            margin = 0.25 * max(x1 - x0, y1 - y0)
            photo = photo.crop((x0 - margin, y0 - margin, x1 + margin, y1 + margin))
        pixels = torch.from_numpy(np.array(photo.resize((SIZE, SIZE), Image.Resampling.BILINEAR)))
        return (pixels.permute(2, 0, 1).float() / 255 - mean) / std

    def work():
        with torch.inference_mode():
            for start in range(0, len(paths), batch):
                images = torch.stack([crop(path) for path in paths[start : start + batch]])
                model(images).softmax(1)

    return work


def ours(paths, detector, folder=None):
    """`multihead.predict` on the files, by a model or by one that was exported to the folder."""
    import multihead as mh
    from multihead.yunet import open_detector

    model, finder = _model() if folder is None else mh.load(folder), open_detector(detector)

    def work():
        table = mh.predict(model, paths, finder=finder)
        assert len(table) == len(paths) and (table.error == "").all()

    if folder is not None:
        work.about = [f"{model.runtime} in {model.precision}"]
        return work
    work()
    memory = Path(os.environ["XDG_CACHE_HOME"]) / "multihead" / "modes.json"
    modes = json.loads(memory.read_text())
    work.about = [min(times, key=times.get) for name, times in modes.items() if name.startswith("answer")]
    return work


def stages(settings, rounds):
    """Milliseconds a photo of each stage alone, in lanes as `predict` runs them, of what limits them, of `predict`, and
    how near it comes to one after the other: the sum of the stages' times over the time of `predict`."""
    names = ("open", "search", "cut", "answer")
    sides = {name: pairs.Side(stage, settings | {"name": name}) for name in (*names, *LIMITS)}
    sides["predict"] = pairs.Side(ours, settings)
    times = pairs.measure(sides, rounds)
    for side in sides.values():
        side.close()
    alone = [sum(each) for each in zip(*(times[name] for name in names), strict=True)]
    ms = {name: round(1000 * statistics.median(each) / PHOTOS, 3) for name, each in times.items()}
    return {
        "ms": ms,
        "sum": round(sum(ms[name] for name in names), 2),
        "reached": pairs.faster(times["predict"], alone),
    }


def stage(paths, detector, name):
    """One stage of `predict` on all photos; what it needs of the stages before, as decodes that these have left, is
    made before each time that the clock runs."""
    import torch

    from multihead.cutting import read_crops
    from multihead.faces import choose, first_reduction, search
    from multihead.images import open_image
    from multihead.lanes import evenly, in_lanes, lane_count
    from multihead.pipeline import CHUNK, SEARCHED, batch_answers
    from multihead.prepared import prepared
    from multihead.speed import keep_memory
    from multihead.yunet import open_detector

    keep_memory()
    lanes, rows = lane_count(), CHUNK["cpu"]
    share = max(1, torch.get_num_threads() // lanes)
    torch.set_num_threads(share)
    finder, model = open_detector(detector), _model()
    fast = prepared(model, rows)[0]

    def opened(path):
        photo = open_image(path)
        photo.pixels(first_reduction(finder, photo.size))
        return photo

    def cut(photo, box):
        cuts, regions = read_crops(photo, model.crops, box)
        return cuts, [region is not None for region in regions]

    def searched():
        photos = [opened(path) for path in paths]
        faces = [
            choose(each, "largest", photo.size) for photo, each in zip(photos, search(finder, photos), strict=True)
        ]
        return [(photo, each[0].box if each else None) for photo, each in zip(photos, faces, strict=True)]

    crops = [cut(*each) for each in searched()]
    data, floats = [Path(path).read_bytes() for path in paths], list(_floats(fast, crops))
    works = {
        "open": (lambda: paths, lambda part: [opened(path) for path in part]),
        "search": (lambda: [opened(path) for path in paths], lambda part: search(finder, part)),
        "cut": (searched, lambda part: [cut(*each) for each in part]),
        "answer": (lambda: crops, lambda part: batch_answers(fast, part)),
        "raw decode": (lambda: data, lambda part: [_decode(each) for each in part]),
        "memory copy": (lambda: [cuts[0] for cuts, _ in crops], np.stack),
        "raw backbone": (lambda: floats, lambda part: _backbone(fast, part)),
    }
    make, each = works[name]
    size = rows if name in ("answer", "raw backbone") else evenly(len(paths), lanes, SEARCHED)
    parts = []

    def before():
        whole = make()
        parts[:] = [whole[start : start + size] for start in range(0, len(whole), size)]

    def work():
        for _ in in_lanes(each, parts, lanes, share):
            pass

    work.before = before
    return work


def _decode(data):
    """The least that a JPEG costs of which a crop is as large as these: OpenCV's decode, once."""
    import cv2

    rgb = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.imdecode(np.frombuffer(data, np.uint8), rgb)


def _floats(fast, crops):
    import torch

    for cuts, _ in crops:
        yield fast.normalise(torch.from_numpy(cuts[0]).permute(2, 0, 1)[None])[0]


def _backbone(fast, images):
    import torch

    with torch.inference_mode():
        fast.backbone(torch.stack(images))


def _model():
    import multihead as mh

    face = mh.FACE.resized(SIZE)
    return mh.Model(MODEL, heads=[head.on(face) for head in mh.HEADS]).eval()


if __name__ == "__main__":
    main()
