"""Time, recall and false faces of the face search beside facenet-pytorch's MTCNN as it comes; one JSON line.

    python benchmarks/faces.py --data DATA --yunet face_detection_yunet.onnx

All sides get the bytes of JPEG files and the same threads, in turns; before glibc is told to keep freed
memory (speed.keep_memory) and after it, for all sides alike. facenet-pytorch searches as its documentation shows
it: MTCNN(keep_all=True).detect on one photo of Pillow's at a time. Sets: bootlike photos at 384 x 512 (width x
height), mask_scenes, aux_noface and aux_groups as they are.

Recall: boxes of mask_scenes whose longer side has 40 pixels or more, met with IoU >= 0.4, by mask state; of portraits,
photos with a face that meets the plain search's where that found one. False faces: boxes of 30 pixels or more in
mask_scenes that meet no true box (IoU < 0.3), and photos of aux_noface with any face. Common boxes: those of both sides
with IoU >= 0.4, best with best.
"""

import argparse
import io
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from record import record

from multihead.faces import Detector, Face, search
from multihead.images import image_files, open_image, read_image
from multihead.lanes import in_lanes, shared_cores
from multihead.mtcnn import Finder
from multihead.speed import keep_memory
from multihead.yunet import YuNet

STATES = {0: "worn", 1: "incorrect", 2: "not_worn"}
BATCH = 32
Side = Callable[[Sequence[bytes]], list[list[Face]]]


def main() -> None:
    """Print one JSON line with all sides, and check the claims that the documentation makes of them."""
    arguments = _arguments()
    import torch

    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    sides: dict[str, Side] = {"facenet-pytorch": plain(), "multihead": ours(Finder(), arguments.threads)}
    if arguments.yunet:
        sides["yunet"] = ours(YuNet(arguments.yunet), arguments.threads)
    data = photos(arguments.data, arguments.portraits)
    truth = pd.read_csv(arguments.data / "mask_scenes" / "boxes.csv")
    found = {side: {name: find(blobs) for name, blobs in data.items()} for side, find in sides.items()}
    numbers: dict[str, dict[str, object]] = {
        side: quality(faces, found["facenet-pytorch"], truth) for side, faces in found.items()
    }
    for allocator, kept in (("default", lambda: True), ("keep_memory", keep_memory)):
        if not kept():  # not on this system
            break
        for name in ("portraits", "scenes"):
            for side, row in paired(sides, data[name], arguments.repeats, arguments.threads).items():
                numbers[side][f"time_{name}_{allocator}"] = row
    settings = {
        "data": arguments.data.name,
        "threads": arguments.threads,
        "repeats": arguments.repeats,
        "batch": BATCH,
        "photos a turn": BATCH * arguments.threads,
        "photos": {name: len(blobs) for name, blobs in data.items()},
        "yunet": arguments.yunet and arguments.yunet.name,
    }
    print(json.dumps(record("faces", settings, numbers)))
    check(numbers)


def check(numbers: dict[str, dict]) -> None:
    """Assert what the documentation claims of the sides."""
    theirs = numbers["facenet-pytorch"]
    for side, portraits, scenes in (("multihead", 6, 1.5), ("yunet", 9, 6)):
        if side not in numbers:
            continue
        mine = numbers[side]
        assert mine["found_portraits"] >= theirs["found_portraits"], f"{side}: fewer portraits with a face"
        assert mine["recall"] >= theirs["recall"], f"{side}: fewer faces of 40 pixels"
        assert mine["false_scenes"] <= theirs["false_scenes"], f"{side}: more false faces"
        assert mine["false_noface"] <= theirs["false_noface"], f"{side}: more photos with a false face"
        for name, least in (("portraits", portraits), ("scenes", scenes)):
            ratio = mine[f"time_{name}_keep_memory" if f"time_{name}_keep_memory" in mine else f"time_{name}_default"]
            assert ratio["times_faster"][1] >= least, f"{side}: {name} only {ratio['times_faster']} times as fast"
    states = [f"recall_{state}" for state in STATES.values()]
    assert all(numbers["multihead"][state] >= theirs[state] for state in states), "fewer faces in a mask state"


def plain() -> Side:
    """MTCNN as its own documentation shows it: keep_all=True, one photo after another."""
    from facenet_pytorch import MTCNN
    from PIL import Image

    detector = MTCNN(keep_all=True)

    def find(blobs: Sequence[bytes]) -> list[list[Face]]:
        results = []
        for blob in blobs:
            boxes, scores = detector.detect(Image.open(io.BytesIO(blob)).convert("RGB"))
            pairs = [] if boxes is None else zip(boxes, scores, strict=True)
            results.append([Face(tuple(map(float, box)), float(score)) for box, score in pairs])
        return results

    return find


def ours(finder: Detector, threads: int) -> Side:
    """A detector of ours as a scan uses it: in lanes that each open and search a few photos."""

    def work(blobs: Sequence[bytes]) -> list[list[Face]]:
        photos = [open_image(blob) for blob in blobs]
        return search(finder, photos)

    def find(blobs: Sequence[bytes]) -> list[list[Face]]:
        size = min(BATCH, -(-len(blobs) // threads))
        batches = [blobs[start : start + size] for start in range(0, len(blobs), size)]
        with shared_cores(threads) as each:
            return [faces for batch in in_lanes(work, batches, threads, each) for faces in batch]

    return find


def photos(data: Path, count: int) -> dict[str, list[bytes]]:
    """The bytes of each set's JPEG files; portraits are made of the bootlike photos."""
    portraits = image_files(data / "bootlike" / "images")
    truth = pd.read_csv(data / "mask_scenes" / "boxes.csv")
    return {
        "portraits": [_portrait(file) for file in portraits[:: max(1, len(portraits) // count)][:count]],
        "scenes": [(data / "mask_scenes" / path).read_bytes() for path in truth.path.unique()],
        "noface": [file.read_bytes() for file in image_files(data / "aux_noface")],
        "groups": [file.read_bytes() for file in image_files(data / "aux_groups")],
    }


def _portrait(file: Path) -> bytes:
    image = cv2.resize(read_image(file), (384, 512), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def paired(sides: dict[str, Side], blobs: list[bytes], repeats: int, threads: int) -> dict[str, dict[str, object]]:
    """For each side quartiles of milliseconds a photo, and of how many times as fast as the first it is in a turn.

    A turn has a whole batch for each thread, as in a scan of many photos; one of fewer has smaller batches, which take
    longer a photo.
    """
    spent: dict[str, list[float]] = {side: [] for side in sides}
    turn_photos = BATCH * threads
    parts = [
        blobs[start : start + turn_photos] for start in range(0, max(1, len(blobs) - turn_photos // 2), turn_photos)
    ]
    for turn in range(repeats):
        part = parts[turn % len(parts)]
        for side in list(sides)[:: 1 if turn % 2 else -1]:
            start = time.perf_counter()
            sides[side](part)
            spent[side].append(1000 * (time.perf_counter() - start) / len(part))
    first = np.array(next(iter(spent.values())))
    return {
        side: {"ms": _quartiles(np.array(times)), "times_faster": _quartiles(first / np.array(times))}
        for side, times in spent.items()
    }


def _quartiles(values: np.ndarray) -> list[float]:
    return [round(float(value), 2) for value in np.quantile(values, (0.25, 0.5, 0.75))]


def quality(
    found: dict[str, list[list[Face]]], theirs: dict[str, list[list[Face]]], truth: pd.DataFrame
) -> dict[str, object]:
    """Recall (all, by state), false faces, faces in groups, portraits with a face, and boxes common with theirs."""
    met = [(ours, plain) for ours, plain in zip(found["portraits"], theirs["portraits"], strict=True) if plain]
    pairs = [pair for name in ("portraits", "scenes") for pair in zip(found[name], theirs[name], strict=True)]
    common = np.concatenate([_common(first, second) for first, second in pairs])
    return {
        **_scenes(truth, dict(zip(truth.path.unique(), found["scenes"], strict=True))),
        "false_noface": sum(map(bool, found["noface"])),
        "faces_groups": sum(map(len, found["groups"])),
        "found_portraits": sum(map(bool, found["portraits"])),
        "met_portraits": round(float(np.mean([len(_common(*pair)) > 0 for pair in met])), 3),
        "common": len(common),
        "common_iou": _quartiles(common),
        "common_iou_80": round(float((common >= 0.8).mean()), 3),
    }


def _common(first: list[Face], second: list[Face]) -> np.ndarray:
    """The overlaps of boxes that are each other's best, and at least 0.4."""
    boxes = [np.array([face.box for face in faces]).reshape(-1, 4) for faces in (first, second)]
    overlap = iou(*boxes)  # (first, second)
    if not overlap.size:
        return np.zeros(0)
    best = overlap.argmax(1)
    mutual = overlap.argmax(0)[best] == np.arange(len(overlap))
    values = overlap.max(1)[mutual]
    return values[values >= 0.4]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--yunet", type=Path, help="a YuNet model in ONNX")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15, help="pairs of timings, for each set and allocator")
    parser.add_argument("--portraits", type=int, default=126, help="bootlike photos")
    arguments = parser.parse_args()
    if not (arguments.data / "mask_scenes" / "boxes.csv").is_file():
        parser.error(f"{arguments.data} has no mask_scenes/boxes.csv; pass --data")
    return arguments


def _scenes(truth: pd.DataFrame, found: dict[str, list[Face]]) -> dict[str, object]:
    hits: dict[int, list[bool]] = {state: [] for state in STATES}
    false = 0
    for path, rows in truth.groupby("path", sort=False):
        true = rows[["x0", "y0", "x1", "y1"]].to_numpy(float)
        boxes = np.array([face.box for face in found[path]]).reshape(-1, 4)
        overlap = iou(true, boxes)  # (true, found)
        longer = np.maximum(true[:, 2] - true[:, 0], true[:, 3] - true[:, 1])
        for state, met, side in zip(rows["mask"], overlap.max(1, initial=0) >= 0.4, longer, strict=True):
            if side >= 40:
                hits[state].append(bool(met))
        wide = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) >= 30
        false += int((wide & (overlap.max(0, initial=0) < 0.3)).sum())
    by_state = {f"recall_{name}": round(float(np.mean(hits[state])), 3) for state, name in STATES.items()}
    every = [met for each in hits.values() for met in each]
    return {"faces": len(every), "recall": round(float(np.mean(every)), 3), **by_state, "false_scenes": false}


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union (N, M) of boxes (N, 4) and (M, 4)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clip(0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (first, second)]
    return shared / (areas[0][:, None] + areas[1][None] - shared)


if __name__ == "__main__":
    main()
