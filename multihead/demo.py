"""The whole job on drawn people: train, score beside a plain baseline, answer for people never seen, draw a picture."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multihead.crops import FULL, cut
from multihead.data import Photos
from multihead.drawn import sheet
from multihead.evaluation import evaluate
from multihead.files import write_text
from multihead.heads import HEADS, UNKNOWN
from multihead.images import read_image
from multihead.labels import encode
from multihead.logs import line
from multihead.modes import Pins
from multihead.optim import AdamW
from multihead.pipeline import answers
from multihead.prediction import table
from multihead.reading import read
from multihead.recipe import EMA, Recipe
from multihead.schedules import OneCycle

if TYPE_CHECKING:
    import pandas as pd

BACKBONE, SIZE, EPOCHS = "test_resnet", (144, 108), 16  # a backbone small enough to learn from nothing in minutes
PIXELS = 16  # side of the thumbnails that the baseline reads


def demo(
    folder: Path,
    *,
    people: int = 240,
    epochs: int | None = None,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> pd.DataFrame:
    """The table of scores; leaves data/, run/, predictions.csv and predictions.jpg in `folder`.

    Raises: FileExistsError where the folder holds a run of other settings, ValueError for too few people or epochs.
    """
    import torch

    from multihead import synthetic
    from multihead.model import Model
    from multihead.train import epochs as train_epochs

    started = time.perf_counter()
    fixed: Any = {"amp": False, "channels_last": True, "torchcompile": False}  # not timed: the same figures each time
    course: Any = {"optim": AdamW(4e-3), "schedule": OneCycle(0.25), "ema": EMA(0.99), "seed": seed}
    recipe = Recipe(epochs=EPOCHS if epochs is None else epochs, **course, **fixed)
    unseen = max(12, people // 5)
    data = synthetic.make(folder / "data", count=people, seed=seed, eval_people=unseen)
    photos = read(data / "train", boxes=data / "train" / "boxes.csv")
    strangers = read(data / "eval" / "truth.csv", boxes=data / "eval" / "boxes.csv")
    training, valid = photos.split(0.15, seed=seed)
    say(f"drew {people} people to learn from and {unseen} others, under {data}")
    torch.manual_seed(seed)
    model = Model(BACKBONE, heads=[head.on(FULL.resized(*SIZE)) for head in HEADS])
    pins = Pins("f32", True, False)
    finished = (folder / "run" / "metrics.json").exists()
    for row in train_epochs(model, training, valid, recipe, out=folder / "run", resume=True, cache=False):
        say(line(row))
    if finished:
        say("the run was finished before; delete the folder to train again")
    scores = {"multihead": evaluate(model, strangers, pins=pins), "16x16 pixels": pixel_baseline(training, strangers)}
    found = compare_table(scores)
    rows = list(answers(model, strangers, pins=pins))
    write_text(folder / "predictions.csv", table(rows, model.space).to_csv(index=False))
    sheet(_one_each(rows, strangers), model.space, folder / "predictions.jpg")
    write_text(folder / "scores.txt", found.to_string(float_format="%.3f") + "\n")
    say(f"\nmacro-F1 on {unseen} people that neither has seen:\n{found.to_string(float_format='%.3f')}\n")
    say(f"wrote {folder}: run/model (the model), scores.txt, predictions.csv, predictions.jpg, data/")
    say(
        f"took {time.perf_counter() - started:.0f} s; "
        f"next: multihead predict {folder}/run/model YOUR_PHOTOS -o answers.csv"
    )
    return found


def pixel_baseline(training: Photos, valid: Photos):  # type: ignore[no-untyped-def]
    """Scores of one logistic regression over all joint classes on thumbnails of 16 x 16 pixels: the least a model of
    photos must beat."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from multihead.heads import size, space
    from multihead.metrics import score

    labels = encode(training.labels(HEADS), HEADS)
    known = labels != UNKNOWN
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    model.fit(thumbnails(training)[known], labels[known])
    probs = np.zeros((len(valid), size(HEADS)))
    probs[:, model.classes_] = model.predict_proba(thumbnails(valid))
    return score(probs, valid.labels(HEADS), space(HEADS))


def thumbnails(photos: Photos) -> np.ndarray:
    """Each photo shrunk to 16 x 16 pixels: (N, 768) in 0..1."""
    small = []
    for path in photos.paths:
        image = read_image(path)
        small.append(cut(image, (0, 0, image.shape[1], image.shape[0]), (PIXELS, PIXELS)).ravel())
    return np.stack(small) / 255.0


def compare_table(scores) -> pd.DataFrame:  # type: ignore[no-untyped-def]
    """Macro-F1 of several models, a row each: joint, then each head."""
    import pandas as pd

    rows = {}
    for name, found in scores.items():
        rows[name] = {f"{len(found.joint.classes)} classes": found.f1} | {
            head: part.f1 for head, part in found.heads.items()
        }
    return pd.DataFrame(rows).T


def _one_each(rows, photos: Photos, count: int = 12):  # type: ignore[no-untyped-def]
    """(image, box, probabilities) of `count` photos of unlike people, in turn a different photo of each."""
    people = list(dict.fromkeys(photos.people))
    chosen = []
    for number, person in enumerate(people[:count]):
        mine = [row for row, owner in zip(rows, photos.people) if owner == person]
        row = mine[(3 * number) % len(mine)]
        chosen.append((read_image(row.item.source), row.box, row.probs))
    return chosen
