"""Drawn people in the layout of the competition: what the demo and the tests run on when there is no data."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from multihead.box_files import COLUMNS
from multihead.drawing import draw, face_box
from multihead.figures import STATES, Person
from multihead.files import replace_file, write_text

VERSION = 1  # of the drawing: another picture for the same seed is another version
BANDS = ((18, 30), (30, 60), (60, 76))  # years, half-open
CELLS = tuple((gender, band) for gender in ("male", "female") for band in BANDS)
SKINS = ((236, 200, 172), (224, 184, 152), (206, 162, 128), (182, 138, 106), (150, 108, 82))
HAIRS = ((28, 24, 24), (48, 34, 28), (78, 52, 36), (120, 82, 50), (164, 122, 78), (140, 66, 48))


def people(count: int, seed: int = 0) -> list[Person]:
    """count people, each block of six holding both genders in all three age bands; a shorter list is a prefix.

    count: people, at least 1.

    Raises ValueError for a smaller count.

    >>> [person.gender for person in people(6)].count("male")
    3
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}; six people fill all cells of gender and age")
    return [_person(index, seed) for index in range(count)]


def _person(index: int, seed: int) -> Person:
    block = np.random.default_rng([seed, index // 6, 1]).permutation(len(CELLS))
    gender, band = CELLS[block[index % 6]]
    rng = np.random.default_rng([seed, index, 2])
    age = int(rng.integers(*band))
    drawn: dict[str, Any] = {**_signs(age, rng), **_shape(gender, rng), **_looks(rng)}
    return Person(f"{index + 1:06d}", gender, age, **drawn)


def _sign(age: int, turn: float, rng: np.random.Generator) -> float:
    """0 well under the turn, 1 well above, with noise of the person."""
    return float(np.clip(0.08 + 0.84 / (1 + np.exp((turn - age) / 1.5)) + rng.normal(0, 0.2), 0, 1))


def _signs(age: int, rng: np.random.Generator) -> dict[str, float]:
    face = {name: _sign(age, 29.5, rng) for name in ("wrinkles", "greying", "brow")}
    return face | {name: _sign(age, 59.5, rng) for name in ("stoop", "slope", "collar")}


def _shape(gender: str, rng: np.random.Generator) -> dict[str, float]:
    man = gender == "male"
    long = rng.random() < (0.1 if man else 0.75)
    return {
        "length": float(rng.uniform(0.5, 1.0) if long else rng.uniform(0, 0.4)),
        "jaw": float(np.clip(rng.normal(0.75 if man else 0.25, 0.24), 0, 1)),
        "brows": float(np.clip(rng.normal(0.75 if man else 0.25, 0.24), 0, 1)),
        "build": float(np.clip(rng.normal(1.34 if man else 1.12, 0.07), 0.95, 1.5)),
        "neck": float(np.clip(rng.normal(0.35 if man else 0.27, 0.03), 0.2, 0.42)),
    }


def _looks(rng: np.random.Generator) -> dict[str, object]:
    """What says nothing about the labels."""
    skin, hair = SKINS[rng.integers(len(SKINS))], HAIRS[rng.integers(len(HAIRS))]
    return {
        "face": float(rng.uniform(0.62, 0.7)),
        "parting": float(rng.uniform(-0.25, 0.25)),
        "fringe": bool(rng.random() < 0.2),
        "glasses": bool(rng.random() < 0.25),
        "skin": _near(skin, 10, rng),
        "hair": _near(hair, 10, rng),
        "cloth": _cloth(rng),
        "trim": _cloth(rng),
        "pattern": int(rng.integers(4)),
    }


def _cloth(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(level) for level in (2 * rng.integers(20, 236, 3) + rng.integers(20, 236)) // 3)


def _near(colour: tuple[int, ...], reach: int, rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(level) for level in np.clip(np.add(colour, rng.integers(-reach, reach + 1, 3)), 0, 255))


def make(root: str | Path, count: int = 60, seed: int = 0, eval_people: int = 0) -> Path:
    """root, now holding the competition's layout with the photos of count drawn people, seven each.

    train/train.csv, train/images/<id>_<gender>_Asian_<age>/<state>.jpg (some .jpeg and .png), train/boxes.csv; with
    eval_people > 0 also eval/images (hashed names), eval/info.csv (ans all 0), eval/truth.csv and eval/boxes.csv of
    other people. What is there already stays; what is missing, after an interruption say, is added.

    Raises ValueError for too few people, FileExistsError where root holds anything else.

    >>> import tempfile
    >>> root = make(tempfile.mkdtemp(), count=6)
    >>> len(list(root.glob("train/images/*/*")))
    42
    """
    root = Path(root)
    if count < 1 or eval_people < 0:
        raise ValueError(f"make expects count >= 1 and eval_people >= 0, got {count} and {eval_people}")
    everyone = people(count + eval_people, seed)
    _claim(root, {"version": VERSION, "count": count, "seed": seed, "eval_people": eval_people})
    _train(root / "train", everyone[:count], seed)
    if eval_people:
        _eval(root / "eval", everyone[count:], seed)
    return root


def _claim(root: Path, wanted: dict[str, int]) -> None:
    manifest = root / "synthetic.json"
    if manifest.is_file():
        found = json.loads(manifest.read_text())
        if found != wanted:
            raise FileExistsError(f"{root} holds other drawn people: {found}, expected {wanted}; give an empty folder")
        return
    strangers = sorted(path.name for path in root.glob("*") if not path.name.startswith("."))
    if strangers:
        raise FileExistsError(f"{root} must be empty or made by synthetic.make, it holds {strangers[:3]}")
    root.mkdir(parents=True, exist_ok=True)
    write_text(manifest, json.dumps(wanted))


def _train(folder: Path, group: list[Person], seed: int) -> None:
    rows, boxes = [], []
    for person in group:
        name = f"{person.id}_{person.gender}_Asian_{person.age}"
        rows.append((person.id, person.gender, "Asian", person.age, name))
        for state in STATES:
            path = f"images/{name}/{state}{_suffix(person, state, seed)}"
            boxes.append((path, *_photo(folder / path, person, state, seed), 1.0, "found"))
    _table(folder / "train.csv", rows, ("id", "gender", "race", "age", "path"))
    _table(folder / "boxes.csv", boxes, COLUMNS)


def _eval(folder: Path, group: list[Person], seed: int) -> None:
    truth, boxes = [], []
    for person in group:
        for state in STATES:
            path = f"images/{hashlib.sha1(f'{seed} {person.id} {state}'.encode()).hexdigest()}.jpg"
            boxes.append((path, *_photo(folder / path, person, state, seed), 1.0, "found"))
            truth.append((path, _worn(state), person.gender, person.age, person.id))
    truth.sort()  # by hashed name, so that the order tells nothing
    boxes.sort()
    _table(folder / "info.csv", [(Path(row[0]).name, 0) for row in truth], ("ImageID", "ans"))
    _table(folder / "truth.csv", truth, ("path", "mask", "gender", "age", "person"))
    _table(folder / "boxes.csv", boxes, COLUMNS)


def _worn(state: str) -> str:
    return {"incorrect_mask": "incorrect", "normal": "not_worn"}.get(state, "worn")


def _suffix(person: Person, state: str, seed: int) -> str:
    chance = np.random.default_rng([seed, int(person.id), STATES.index(state), 3]).random()
    return ".png" if chance < 0.03 else ".jpeg" if chance < 0.06 else ".jpg"


def _photo(path: Path, person: Person, state: str, seed: int) -> tuple[float, float, float, float]:
    if path.is_file():
        return face_box(person, state, seed)
    image, box = draw(person, state, seed)
    quality = [] if path.suffix == ".png" else [cv2.IMWRITE_JPEG_QUALITY, 95]
    _, data = cv2.imencode(path.suffix, image[:, :, ::-1], quality)
    replace_file(path, lambda fresh: fresh.write_bytes(data.tobytes()))
    return box


def _table(path: Path, rows: list[tuple], columns: Sequence[str]) -> None:
    if not path.is_file():
        write_text(path, pd.DataFrame(rows, columns=list(columns)).to_csv(index=False))
