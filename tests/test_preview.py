import importlib
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from multihead.augment import Diary, Gentle, photo_seed
from multihead.batches import PhotoSet
from multihead.crops import FULL
from multihead.heads import AGE, GENDER, HEADS, MASK, UNKNOWN, Head, flat
from multihead.masks import DrawnMask
from multihead.mixing import CutMix, MixUp, mix
from multihead.model import Model
from multihead.orders import Shuffled
from multihead.preview import TALLEST, preview
from multihead.reading import read
from multihead.recipe import Recipe
from multihead.samplers import Weighted
from multihead.targets import targets
from multihead.train import fit

module = importlib.import_module("multihead.preview")
HIGH, WIDE = FULL.resized(32, 24), FULL.resized(24, 40)
TABLE = [MASK.on(HIGH), GENDER.on(HIGH), AGE.on(HIGH, WIDE)]
RECIPE = Recipe(batch_size=4, seed=2, augment=Diary())


@pytest.fixture(scope="module")
def photos(people):
    """Twenty photos of drawn people, not everything of whom is known."""
    read_ = read(people / "train")[:20]
    ages = np.where(np.arange(20) % 3 == 1, np.nan, read_.table["years"])
    bands = np.where(np.arange(20) % 3 == 1, UNKNOWN, read_.table["age"])
    return read_.with_columns(years=ages, age=bands)


@pytest.fixture
def cells(monkeypatch):
    """What the last preview drew: [([each crop's pixels], [lines of text])]."""
    drawn = []
    monkeypatch.setattr(module, "_write", lambda shown, path: drawn.extend(shown))
    return drawn


def opened(path):
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG" and picture.mode == "RGB"
        return np.asarray(picture)


def test_a_png_of_whole_batches(photos, tmp_path):
    assert preview(photos, TABLE, RECIPE, tmp_path / "deep" / "a.png", batches=2) == 8
    sheet = opened(tmp_path / "deep" / "a.png")
    assert (sheet[:3] == 255).all() and (sheet[:, :3] == 255).all() and (sheet < 128).any()
    assert preview(photos, TABLE, RECIPE, tmp_path / "b.png", batches=9) == 20  # an epoch has no more


def test_the_same_seed_draws_the_same_bytes(photos, tmp_path):
    recipe = replace(RECIPE, mix=CutMix(1.0))
    for name, options in (("a", {}), ("b", {}), ("c", {"epoch": 2})):
        preview(photos, TABLE, recipe, tmp_path / f"{name}.png", **options)
    preview(photos, TABLE, replace(recipe, seed=3), tmp_path / "d.png")
    a, b, c, d = ((tmp_path / f"{name}.png").read_bytes() for name in "abcd")
    assert a == b and len({a, c, d}) == 3


def test_a_cell_of_the_picture_made_by_hand(photos, tmp_path):
    """The second photo of the first batch of epoch 3, blended with its partner."""
    recipe = replace(RECIPE, mix=MixUp(1.0, alpha=1.0))
    preview(photos, TABLE, recipe, tmp_path / "a.png", batches=1, epoch=3)
    order = Shuffled(np.arange(20), 4, seed=2)
    order.epoch = 3
    held = PhotoSet(photos, TABLE, [HIGH, WIDE], augment=Diary(), seed=2)
    batch = held.collate([held[key] for key in next(iter(order))])
    rows = targets(batch.labels, TABLE)
    images, _ = mix(recipe.mix, batch.images, batch.present, rows, TABLE, seed=photo_seed(2 + 2, 3, 0), epoch=3)
    crops = [images[crop][1].permute(1, 2, 0).numpy() for crop in (HIGH, WIDE)]
    wide = [TALLEST * 24 // 32, round(TALLEST * 40 / 24)]
    strip = np.concatenate(
        [cv2.resize(crop, (width, TALLEST), interpolation=cv2.INTER_LINEAR) for crop, width in zip(crops, wide)], 1
    )
    sheet = opened(tmp_path / "a.png")
    columns = [
        left
        for left in range(5, sheet.shape[1])
        if np.array_equal(sheet[5 : 5 + TALLEST, left : left + sum(wide)], strip)
    ]
    assert columns == [sheet.shape[1] // 4 + 5]  # four beside each other, the second


SEEN = {
    "mixed": replace(RECIPE, mix=CutMix(1.0, shape="strip"), smoothing=0.1),
    "no longer mixed": replace(RECIPE, mix=CutMix(1.0, off_epoch=2)),
    "accumulated": replace(RECIPE, batch_size=16, grad_accum_steps=4, mix=CutMix(0.5)),
    "drawn by weight": replace(RECIPE, sampler=Weighted(), epoch_photos=30, grad_accum_steps=2),
    "a crop less": replace(RECIPE, crop_drop=0.7, augment=Gentle()),
    "ages spread": replace(RECIPE, soft_bands=5.0, age_edges=(35, 60), drop_zones=((20, 30),)),
}


@pytest.mark.parametrize("recipe", SEEN.values(), ids=SEEN)
def test_it_shows_what_training_sees(photos, cells, monkeypatch, recipe, tmp_path):
    """The pixels that reach the model and the rows that reach the losses in the second epoch."""
    torch.manual_seed(0)
    model, seen, rows = Model("test_resnet", TABLE), [], {head.name: [] for head in TABLE}
    model.register_forward_pre_hook(
        lambda _, given: seen.append({crop: each.clone() for crop, each in given[0].items()})
    )

    def watched(setting, head, *more, plain=importlib.import_module("multihead.sides").criterion):
        loss = plain(setting, head, *more)

        def watching(logits, row, *more):
            rows[head.name].append(row.clone())
            return loss(logits, row, *more)

        watching.mass = loss.mass
        return watching

    monkeypatch.setattr("multihead.sides.criterion", watched)
    fit(model, photos, None, replace(recipe, epochs=2), workers=0)
    half = len(seen) // 2
    assert preview(photos, TABLE, recipe, tmp_path / "a.png", batches=2, epoch=2) == len(cells)
    count = len(cells) // 2
    for place, (pixels, lines) in enumerate(cells):
        batch, own = half + place // count, place % count
        for crop, shown in zip((HIGH, WIDE), pixels, strict=True):
            assert np.array_equal(seen[batch][crop][own].permute(1, 2, 0).numpy(), shown)
        assert lines == [line for head in TABLE for line in module._lines(head, rows[head.name][batch][own])]


def test_target_lines():
    lines = module._lines
    assert lines(MASK, torch.tensor([1.0, 0, 0])) == ["mask worn 1.00"]
    assert lines(MASK, torch.tensor([0.3, 0.7, 0])) == ["mask incorrect .70 worn .30"]
    assert lines(GENDER, torch.tensor([0.0, 0.25])) == ["gender female .25"]  # the rest is unknown
    assert lines(AGE, torch.zeros(3)) == ["age ?"]
    assert lines(AGE, torch.tensor([0.004, 0.1, 0.896])) == ["age >=60 .90 30-59 .10"]
    both = flat([MASK, GENDER])[0]
    first, second = both.classes[2], both.classes[1]
    assert lines(both, torch.tensor([0.0, 0.2, 0.8, 0, 0, 0])) == [f"{both.name} {first} .80 {second} .20"]
    many = Head("shade", tuple("abcdefgh"))
    assert lines(many, torch.tensor([0.1, 0.2, 0.3, 0.4, 0, 0, 0, 0])) == ["d .40", "c .30", "b .20"]
    assert lines(many, torch.zeros(8)) == ["shade ?"]


def test_lines_of_known_unknown_and_flat(photos, cells, tmp_path):
    preview(photos, TABLE, RECIPE, tmp_path / "a.png", batches=5)
    names = [["worn", "incorrect", "not_worn"], ["male", "female"], ["<30", "30-59", ">=60"]]
    shown = sorted(lines for _, lines in cells)
    wanted = [
        [
            f"{head.name} {of[label]} 1.00" if label >= 0 else f"{head.name} ?"
            for head, of, label in zip(HEADS, names, row)
        ]
        for row in photos.labels()
    ]
    assert shown == sorted(wanted) and any("age ?" in lines for lines in shown)
    cells.clear()
    one = flat([head.on(HIGH) for head in HEADS])
    preview(photos, one, RECIPE, tmp_path / "a.png", batches=5)
    told = [lines for _, lines in cells]
    assert {len(lines) for lines in told} == {1} and [f"{one[0].name} ?"] in told
    assert any(line == f"{name} 1.00" for (line,) in told for name in one[0].classes)


def test_a_drawn_mask_is_said(photos, cells, monkeypatch, tmp_path):
    points = np.array([[100.0, 150], [200, 150], [150, 210], [110, 270], [190, 270]])
    bare = photos.labels()[:, 0] == MASK.classes.index("not_worn")
    found = np.where(bare[:, None, None], points, np.nan)
    monkeypatch.setattr("multihead.sides.locate_points", lambda photos, rows, **options: found)
    recipe = replace(RECIPE, augment=DrawnMask(prob=1.0, incorrect=0.0))
    preview(photos, TABLE, recipe, tmp_path / "a.png", batches=5)
    said = [lines[0] for _, lines in cells if lines[-1] == "mask drawn on"]
    assert len(said) == bare.sum() > 0 and set(said) == {"mask worn 1.00"}
    assert not any(lines[0].startswith("mask not_worn") for _, lines in cells)


def test_an_unreadable_photo_is_not_shown(photos, cells, tmp_path):
    (tmp_path / "torn.jpg").write_bytes(b"")
    paths = [str(tmp_path / "torn.jpg") if row < 15 else path for row, path in enumerate(photos.paths)]
    assert preview(photos.with_columns(path=paths), TABLE, RECIPE, tmp_path / "a.png", batches=9) == 4
    with pytest.raises(ValueError, match="none of 3 photos can be read"):
        preview(photos.with_columns(path=paths)[:3], TABLE, RECIPE, tmp_path / "a.png")


@pytest.mark.parametrize("options", [{"batches": 0}, {"epoch": 0}])
def test_no_batch_or_epoch(photos, options, tmp_path):
    with pytest.raises(ValueError, match="expected one or more, epochs counted from 1"):
        preview(photos, TABLE, RECIPE, tmp_path / "a.png", **options)
