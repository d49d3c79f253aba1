"""Recall, false faces and time of the Finder beside facenet-pytorch's MTCNN as it comes; one JSON line.

    python benchmarks/faces.py --data DATA

Recall: boxes of mask_scenes whose longer side has 40 pixels or more, met with IoU >= 0.4, by mask state. False faces:
boxes of 30 pixels or more in mask_scenes that meet no true box (IoU < 0.3), and photos of aux_noface with any face.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from record import record

from multihead.faces import Face, Finder
from multihead.images import image_files, read_image

STATES = {0: "worn", 1: "incorrect", 2: "not_worn"}


def main() -> None:
    """Print one JSON line with both sides, and check the claims that the documentation makes of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if not (arguments.data / "mask_scenes" / "boxes.csv").is_file():
        parser.error(f"{arguments.data} has no mask_scenes/boxes.csv; pass --data")
    import torch

    torch.set_num_threads(arguments.threads)
    sides = {"multihead": Finder().find, "facenet-pytorch": _plain()}
    results = {name: measure(find, arguments.data) for name, find in sides.items()}
    line = record("faces", {"data": arguments.data.name, "threads": arguments.threads}, results)
    print(json.dumps(line))
    ours, theirs = results["multihead"], results["facenet-pytorch"]
    assert ours["recall"] >= theirs["recall"], "fewer faces of 40 pixels found than by the plain detector"
    assert ours["false_scenes"] <= theirs["false_scenes"], "more false faces than by the plain detector"
    assert ours["false_noface"] <= theirs["false_noface"], "more false faces than by the plain detector"


def measure(find: Callable, data: Path) -> dict[str, object]:
    """Numbers of one side: recall (all, by state), false faces, faces found in groups, milliseconds a photo.

    cpu_ms adds up the time of all threads; unlike ms it does not depend on what else the machine is doing.
    """
    truth = pd.read_csv(data / "mask_scenes" / "boxes.csv")
    scenes = [data / "mask_scenes" / path for path in truth.path.unique()]
    folders = {
        "scenes": scenes,
        "noface": image_files(data / "aux_noface"),
        "groups": image_files(data / "aux_groups"),
        "portrait": image_files(data / "bootlike" / "images")[::24],
    }
    find([np.zeros((64, 64, 3), np.uint8)])  # builds the nets
    found, numbers = {}, {}
    for name, files in folders.items():
        images = [read_image(file) for file in files]
        start, cpu = time.perf_counter(), time.process_time()
        found[name] = [faces for k in range(0, len(images), 32) for faces in find(images[k : k + 32])]
        numbers[f"photos_{name}"] = len(images)
        numbers[f"ms_{name}"] = round(1000 * (time.perf_counter() - start) / max(1, len(images)), 1)
        numbers[f"cpu_ms_{name}"] = round(1000 * (time.process_time() - cpu) / max(1, len(images)), 1)
    return {
        **_scenes(truth, dict(zip(truth.path.unique(), found["scenes"], strict=True))),
        "false_noface": sum(map(bool, found["noface"])),
        "faces_groups": sum(map(len, found["groups"])),
        "found_portrait": sum(map(bool, found["portrait"])),
        **numbers,
    }


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


def _plain() -> Callable:
    """MTCNN as its own documentation shows it: keep_all=True, one photo after another."""
    from facenet_pytorch import MTCNN

    detector = MTCNN(keep_all=True)

    def find(images: list[np.ndarray]) -> list[list[Face]]:
        results = []
        for image in images:
            boxes, scores = detector.detect(image)
            pairs = [] if boxes is None else zip(boxes, scores, strict=True)
            results.append([Face(tuple(map(float, box)), float(score)) for box, score in pairs])
        return results

    return find


if __name__ == "__main__":
    main()
