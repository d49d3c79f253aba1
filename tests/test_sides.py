import dataclasses

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from multihead import sides
from multihead.crops import FULL
from multihead.heads import AGE, FLAT, HEADS, Head, flat
from multihead.losses import CrossEntropy
from multihead.masks import DrawnMask
from multihead.model import Model
from multihead.reading import read
from multihead.recipe import Recipe
from multihead.runs import Run
from multihead.sides import Ready, class_mass, target_rows

SMALL = FULL.resized(32)


@pytest.mark.parametrize("heads", [HEADS, FLAT], ids=["heads", "flat"])
def test_class_weights_know_of_masks_that_may_be_drawn(people, monkeypatch, heads):
    """Of bare faces alone: else the classes that only drawn masks fill would weigh nothing."""
    photos = read(people / "train")[:20].with_columns(mask=2)
    points = np.tile(np.array([[10.0, 10], [20, 10], [15, 15], [11, 20], [19, 20]]), (20, 1, 1))
    points[15:] = np.nan  # faces that were not found
    monkeypatch.setattr(sides, "locate_points", lambda photos, rows, progress: points)
    table = [head.on(SMALL) for head in HEADS]
    table = table if heads is HEADS else flat(table)
    recipe = Recipe(augment=DrawnMask(prob=0.4, incorrect=0.25))
    ready = Ready(table, photos, recipe, training=True)
    mass = class_mass(ready, target_rows(photos, table, recipe))
    masks = mass["mask"] if heads is HEADS else mass["mask_gender_age"].reshape(3, 6).sum(1)
    np.testing.assert_allclose(masks, [15 * 0.4 * 0.75, 15 * 0.4 * 0.25, 20 - 15 * 0.4], rtol=1e-6)
    if heads is HEADS:
        assert mass["gender"].sum() == 20 and list(mass) == ["mask", "gender", "age"]
    weighed = dataclasses.replace(recipe, losses=CrossEntropy("inverse"))
    run = Run(Model("test_resnet", table), ready, None, weighed, None, 0)
    weights = np.diag(run.steps.criteria[table[0].name].terms[0][2]).reshape(3, -1)
    assert (weights.max(1) > 0).all() and weights[1].max() == 1  # of the rarest
    bare = class_mass(Ready(table, photos, Recipe(), training=True), target_rows(photos, table, Recipe()))
    assert sum(rows[len(rows) // 3 * 2 :].sum() for name, rows in bare.items() if "mask" in name) == 20


def test_many_unreadable_photos_are_counted(tmp_path):
    for number in range(30):
        (tmp_path / f"{number}.jpg").write_bytes(b"")
    photos = read(pd.DataFrame({"path": [f"{n}.jpg" for n in range(30)], "mask": "worn"}), root=tmp_path)
    notes = Ready([head.on(SMALL) for head in HEADS], photos, Recipe(), training=True).notes("training")
    assert sum("empty file" in note for note in notes) == 3  # where all are, it is hardly the files
    assert notes[-1] == "training: left out: 27 more, 30 in all" and len(notes) == 4
    Image.new("RGB", (30, 40)).save(tmp_path / "29.jpg")
    notes = Ready([head.on(SMALL) for head in HEADS], photos, Recipe(), training=True).notes("training")
    assert sum("empty file" in note for note in notes) == 20
    assert notes[-1] == "training: left out: 9 more, 29 in all" and len(notes) == 21


def test_edges_of_training_are_those_of_the_head_called_age(people):
    """Another head that bands the same number keeps its own; one that is alone gets them, whatever it is called."""
    decade = Head("decade", ("20s", "30s", "older"), (SMALL,), edges=(30, 40), number="age")
    photos = read(people / "train", heads=[AGE, decade])
    recipe = Recipe(age_edges=(20, 75))
    found = target_rows(photos, [AGE, decade], recipe)
    years = photos.table.years.to_numpy()
    assert (found.rows["age"].argmax(1).numpy() == np.searchsorted([20, 75], years, side="right")).all()
    assert (found.rows["decade"].argmax(1).numpy() == np.searchsorted([30, 40], years, side="right")).all()
    alone = target_rows(photos, [decade], recipe)
    assert (alone.rows["decade"].argmax(1).numpy() == np.searchsorted([20, 75], years, side="right")).all()
