import itertools
import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import multihead.cache as module
from multihead.augment import BoxJitter, Cutout, Diary, Flip, Gentle, Plain, apply, jitter, photo_seed
from multihead.batches import (
    Batch,
    Item,
    PhotoSet,
    drop_crop,
)
from multihead.cache import Cache
from multihead.crops import BODY, FACE, FULL, cut, locate
from multihead.heads import AGE, FLAT, GENDER, HEADS, Head
from multihead.images import read_image
from multihead.loading import loader
from multihead.masks import DrawnMask, choose, draw_mask, mask_classes, points_in
from multihead.orders import Shuffled, in_order
from multihead.reading import read

SMALL = FULL.resized(24, 20)


@pytest.fixture
def folder(tmp_path):
    """Seven photos of noise with boxes, one of them unreadable, and labels as unlike as they come."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(7):
        path = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (40 + number, 30, 3), np.uint8)).save(path)
        rows.append(
            (path.name, 5, 6, 20, 24, ["worn", "", "incorrect"][number % 3], ["male", ""][number % 2], 10 * number)
        )
    (tmp_path / "3.png").write_bytes(b"")
    columns = ["path", "x0", "y0", "x1", "y1", "mask", "gender", "age"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "table.csv", index=False)
    return tmp_path


def batches_of(held, order, workers):
    return [
        (b.rows.tolist(), {c: p.clone() for c, p in b.images.items()}, b.drawn.tolist())
        for b in loader(held, order, workers=workers)
    ]


def test_items_are_the_crops_of_the_decoded_photo(folder):
    photos, crops = read(folder / "table.csv"), (FACE.resized(16), SMALL)
    held = PhotoSet(photos, HEADS, crops)
    item = held[1, 2]
    image = read_image(folder / "2.png")
    assert isinstance(item, Item) and item.row == 2 and item.present == [True, True] and item.drawn == -1
    for crop, found in zip(crops, item.cuts):
        assert np.array_equal(found, cut(image, locate(crop, (5, 6, 20, 24), image.shape), crop.size))


def test_a_batch_holds_pixels_labels_and_what_is_wrong(folder):
    held = PhotoSet(read(folder / "table.csv"), HEADS, [SMALL])
    (batch,) = loader(held, in_order(range(2, 6), 4))
    assert batch.rows.tolist() == [2, 4, 5]
    assert batch.images[SMALL].shape == (3, 3, 24, 20) and batch.images[SMALL].dtype == torch.uint8
    assert batch.labels.tolist() == [[1, 0, 0], [-1, 0, 1], [1, -1, 1]]
    assert batch.present.tolist() == [[True]] * 3
    ((row, reason),) = batch.unreadable
    assert row == 3 and "3.png" in reason and "empty file" in reason


def test_a_batch_of_bad_photos_only_is_empty(folder):
    held = PhotoSet(read(folder / "table.csv"), HEADS, [SMALL])
    (batch,) = loader(held, in_order([3], 4))
    assert batch.images[SMALL].shape == (0, 3, 24, 20) and batch.present.shape == (0, 1) and len(batch.unreadable) == 1


def test_a_box_outside_its_photo_is_named_with_the_file(folder):
    photos = read(folder / "table.csv").with_columns(x0=100.0, x1=120.0)
    held = PhotoSet(photos, HEADS, [FACE.resized(16)])
    reason = held[1, 0].cuts
    assert "0.png" in reason and "no area inside a photo of 30 x 40" in reason
    assert [row for row, _ in held.fill()] == list(range(7))


def test_the_flat_model_has_the_labels_of_its_parts(folder):
    photos = read(folder / "table.csv")
    assert torch.equal(PhotoSet(photos, FLAT, [SMALL]).labels, PhotoSet(photos, HEADS, [SMALL]).labels)


def test_a_batch_moves_whole(folder):
    (batch,) = loader(PhotoSet(read(folder / "table.csv"), HEADS, [SMALL]), in_order([0, 1], 2))
    moved = batch.to(torch.device("cpu"), channels_last=True)
    assert isinstance(moved, Batch)
    assert moved.images[SMALL].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(moved.images[SMALL], batch.images[SMALL]) and torch.equal(moved.labels, batch.labels)


@pytest.mark.parametrize("augment", [Flip(), Plain(), (Gentle(), Cutout(1.0))], ids=["flip", "plain", "several"])
def test_neither_workers_nor_the_cache_change_a_pixel(good, tmp_path, augment):
    caches, found = [None, Cache(), Cache(memory=0), Cache(tmp_path / "crops"), Cache(tmp_path / "crops")], []
    for number, workers in itertools.product(range(5), (0, 2)):
        held = PhotoSet(good, HEADS, [SMALL, FACE.resized(16)], augment=augment, seed=5, cache=caches[number])
        assert held.fill(workers) == [] and held.kept.here.all() == (number not in (0, 2))
        order = Shuffled(range(6), 2, seed=5)
        order.epoch = 3
        found.append(batches_of(held, order, workers))
    for other in found[1:]:
        assert [rows for rows, _, _ in other] == [rows for rows, _, _ in found[0]]
        for (_, left, _), (_, right, _) in zip(found[0], other):
            assert all(torch.equal(left[crop], right[crop]) for crop in left)


def test_augmentation_follows_seed_epoch_and_row(folder):
    photos = read(folder / "table.csv").where(lambda table: table.name != "3.png")
    held = PhotoSet(photos, HEADS, [SMALL], augment=Gentle(), seed=5)
    drawn = {epoch: np.stack([held[epoch, row].cuts[0] for row in range(6)]) for epoch in (1, 2, 3)}
    again = PhotoSet(photos, HEADS, [SMALL], augment=Gentle(), seed=5)
    assert all(np.array_equal(again[2, row].cuts[0], drawn[2][row]) for row in reversed(range(6)))
    assert not np.array_equal(drawn[1], drawn[2]) or not np.array_equal(drawn[2], drawn[3])


def test_kept_crops_keep_what_is_present(folder):
    photos = read(folder / "table.csv").with_columns(x0=0.0, y0=0.0, x1=30.0, y1=40.0)  # no body below such a face
    held = PhotoSet(photos, HEADS, [SMALL, BODY.resized(16)], cache=Cache())
    first, _ = held[1, 0], held.fill()
    kept = held[1, 0]
    assert held.kept.get(0) is not None
    assert first.present == kept.present == [True, False]
    assert all(np.array_equal(left, right) for left, right in zip(first.cuts, kept.cuts))


def test_kept_crops_hold_their_regions(folder):
    crops = [SMALL, FACE.resized(16), BODY.resized(16)]
    photos = read(folder / "table.csv").with_columns(y0=24.0, y1=39.0)
    held = PhotoSet(photos, HEADS, crops, cache=Cache())
    decoded, _ = held.pixels(2), held.fill()
    kept = held.pixels(2)
    wanted = [locate(crop, (5, 24, 20, 39), (42, 30)) for crop in crops]
    assert held.kept.get(2)[1] == kept[1] == decoded[1] == wanted
    assert wanted[0] == (0, 0, 30, 42) and wanted[1] is not None


def test_kept_crops_are_decoded_once_even_by_workers(folder):
    photos = read(folder / "table.csv").where(lambda table: table.name != "3.png")
    held = PhotoSet(photos, HEADS, [SMALL], augment=Plain(), cache=Cache())
    assert held.fill() == []
    before = batches_of(held, in_order(range(6), 3), 0)
    for path in photos.paths:
        open(path, "wb").close()  # nothing is left to decode
    for workers in (0, 2):
        after = batches_of(held, in_order(range(6), 3), workers)
        assert all(torch.equal(a[1][SMALL], b[1][SMALL]) for a, b in zip(before, after))


def test_no_more_memory_is_taken_than_allowed(good):
    needed = 6 * 3 * 24 * 20
    for memory in (needed, needed - 1):
        held = PhotoSet(good, HEADS, [SMALL], cache=Cache(memory=memory))
        assert held.fill() == [] and held.kept.here.all() == (memory == needed)
    shared = Cache(memory=needed + needed // 6)  # sets share what there is
    first, second = (PhotoSet(good, HEADS, [crop], cache=shared) for crop in (SMALL, FULL.resized(20, 24)))
    assert first.fill() == second.fill() == [] and first.kept.here.all() and not second.kept.here.any()


def test_a_batch_that_is_only_gathered_is_the_batch_of_its_items(good):
    photos = good.with_columns(x0=[0.0] * 3 + [5.0] * 3, y0=[0.0] * 3 + [24.0] * 3, x1=30.0, y1=40.0)
    held = PhotoSet(photos, HEADS, [SMALL, BODY.resized(16)], cache=Cache())
    assert held.fill() == [] and held.gathers(range(6)) and not PhotoSet(good, HEADS, [SMALL]).gathers([0])
    keys = [(1, row) for row in (4, 0, 5, 1, 1)]
    gathered, joined = held.batch(keys), held.collate([held[key] for key in keys])
    assert all(torch.equal(gathered.images[crop], joined.images[crop]) for crop in held.crops)
    assert gathered.images[SMALL].is_contiguous(memory_format=torch.channels_last)
    for name in ("present", "labels", "rows", "drawn"):
        assert torch.equal(getattr(gathered, name), getattr(joined, name)), name
    assert 0 < gathered.present[:, 1].sum() < 5
    for changed in ({"augment": Gentle()}, {"augment": (Flip(), Cutout())}, {"crop_drop": 0.5}):
        assert not PhotoSet(photos, HEADS, [SMALL], cache=held.cache, **changed).gathers([0])


def test_a_loader_pins_batches(good, monkeypatch):
    """As torch does it: by the name of the method."""
    from torch.utils.data._utils.pin_memory import pin_memory

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self + 1)
    batch = PhotoSet(good, HEADS, [SMALL]).batch([(1, 0), (1, 1)])
    pinned = pin_memory(batch)
    assert torch.equal(pinned.images[SMALL], batch.images[SMALL] + 1) and torch.equal(pinned.rows, batch.rows)


@pytest.mark.parametrize(
    "augment",
    [Flip(), (Gentle(hflip=0.0), Flip()), (Cutout(1.0), Flip(0.7), BoxJitter()), (Flip(), Cutout(1.0))],
    ids=["alone", "last", "before what moves no pixel", "not last"],
)
@pytest.mark.parametrize("kept", [True, False])
def test_photos_are_mirrored_where_they_are_computed(good, augment, kept):
    """The pixels of `apply`, to the bit; a last mirror waits for the device, so that kept crops are only copied."""
    crops = [SMALL, FULL.resized(20, 24)]
    held = PhotoSet(good, HEADS, crops, augment=augment, seed=5, cache=Cache() if kept else None)
    held.fill()
    keys = [(epoch, row) for epoch in (1, 2) for row in range(6)]
    waiting = held.batch(keys)
    last = augment != (Flip(), Cutout(1.0))
    assert waiting.flipped.any() == last and not waiting.flipped.all()
    assert held.gathers(range(6)) == (kept and augment == Flip())
    plain = PhotoSet(good, HEADS, crops)
    for channels_last in (True, False):
        batch = waiting.to(torch.device("cpu"), channels_last)
        assert not batch.flipped.any() and torch.equal(batch.to(torch.device("cpu")).images[SMALL], batch.images[SMALL])
        for place, (epoch, row) in enumerate(keys):
            wanted = apply(augment, plain[0, row].cuts, photo_seed(5, epoch, row))
            for crop, pixels in zip(crops, wanted):
                assert np.array_equal(batch.images[crop][place].permute(1, 2, 0).numpy(), pixels)
        form = torch.channels_last if channels_last else torch.contiguous_format
        assert batch.images[SMALL].is_contiguous(memory_format=form)


def test_a_pickled_set_serves_as_well(folder):
    for cache in (Cache(), Cache(folder / "crops")):
        held = PhotoSet(read(folder / "table.csv"), HEADS, [SMALL, FACE.resized(16)], cache=cache)
        held.fill()
        sent = pickle.dumps(held)
        copy = pickle.loads(sent)
        assert all(np.array_equal(a, b) for a, b in zip(copy[0, 2].cuts, held[0, 2].cuts))
        # a worker that is spawned maps the same files; what is in memory it has to decode
        assert (copy.kept.get(2) is None) == (not copy.gathers([2])) == (cache.folder is None)
    shutil.rmtree(folder / "crops")
    assert np.array_equal(pickle.loads(sent)[0, 2].cuts[0], held[0, 2].cuts[0])


@pytest.mark.parametrize("workers", [0, 1])
def test_drawing_batches_leaves_torchs_random_numbers_alone(folder, workers):
    held = PhotoSet(read(folder / "table.csv"), HEADS, [SMALL], augment=Flip())
    torch.manual_seed(3)
    before = torch.get_rng_state()
    list(loader(held, Shuffled(range(7), 2), workers=workers))
    assert torch.equal(torch.get_rng_state(), before)


# ---- changes that need more than pixels

POINTS = np.array([[9.0, 12.0], [16.0, 12.0], [12.5, 16.0], [10.0, 20.0], [15.0, 20.0]])  # of the face of `folder`


@pytest.fixture
def good(folder):
    """The photos of `folder` that can be read."""
    return read(folder / "table.csv").where(lambda table: table.name != "3.png")


def points_of(photos, rows):
    found = np.full((len(photos), 5, 2), np.nan)
    found[rows] = POINTS
    return found


def test_drawn_masks_change_the_rows_with_points_and_their_label(good):
    crops, sizes = [SMALL, FACE.resized(32)], (24, 20)
    drawing = DrawnMask(prob=0.7, incorrect=0.5)
    held = PhotoSet(good, HEADS, crops, augment=(drawing, Plain()), points=points_of(good, [0, 2, 4]), seed=3)
    plain, seen = PhotoSet(good, HEADS, crops), set()
    for epoch in range(1, 9):
        for row in range(6):
            item, bare, seed = held[epoch, row], plain[epoch, row], photo_seed(3, epoch, row)
            state = choose(drawing, seed) if row in (0, 2, 4) else None
            assert item.drawn == {None: -1, "worn": 0, "nose": 1, "chin": 1}[state]
            if state is None:
                assert all(np.array_equal(left, right) for left, right in zip(item.cuts, bare.cuts))
            else:
                place = POINTS * (sizes[1] / 30, sizes[0] / (40 + int(good.table.name[row][0])))
                assert np.array_equal(item.cuts[0], draw_mask(bare.cuts[0], place, state, seed))
                assert not np.array_equal(item.cuts[1], bare.cuts[1])
            seen.add(state)
    assert seen == {None, "worn", "nose", "chin"}


def test_drawn_masks_are_the_same_for_any_number_of_workers(good):
    found = []
    for workers in (0, 2):
        chosen = (Flip(), DrawnMask(prob=1.0), BoxJitter())
        held = PhotoSet(good, FLAT, [FACE.resized(24)], augment=chosen, points=points_of(good, [1, 5]), crop_drop=0.5)
        order = Shuffled(range(6), 3, seed=5)
        order.epoch = 2
        found.append(batches_of(held, order, workers))
    assert [(rows, drawn) for rows, _, drawn in found[0]] == [(rows, drawn) for rows, _, drawn in found[1]]
    assert {row for rows, _, drawn in found[0] for row, new in zip(rows, drawn) if new >= 0} == {1, 5}
    for (_, left, _), (_, right, _) in zip(*found):
        assert all(torch.equal(left[crop], right[crop]) for crop in left)


def test_kept_crops_stay_bare(good):
    held = PhotoSet(good, HEADS, [SMALL], augment=DrawnMask(prob=1.0), points=points_of(good, range(6)))
    first = held[1, 0]
    assert np.array_equal(held.pixels(0)[0][0], PhotoSet(good, HEADS, [SMALL]).pixels(0)[0][0])
    assert not np.array_equal(first.cuts[0], held.pixels(0)[0][0]) and np.array_equal(held[1, 0].cuts[0], first.cuts[0])


def test_an_absent_crop_gets_no_mask(good):
    tight = good.with_columns(x0=0.0, y0=0.0, x1=30.0, y1=40.0)
    held = PhotoSet(
        tight, HEADS, [SMALL, BODY.resized(16)], augment=DrawnMask(prob=1.0), points=points_of(good, range(6))
    )
    item = held[1, 0]
    assert item.drawn >= 0 and item.present == [True, False] and not item.cuts[1].any()


def test_a_face_too_small_in_a_crop_gets_no_mask(good):
    tiny = FULL.resized(6, 4)  # eyes and mouth are a pixel apart
    held = PhotoSet(
        good, HEADS, [FACE.resized(32), tiny], augment=DrawnMask(prob=1.0), points=points_of(good, range(6))
    )
    plain = PhotoSet(good, HEADS, [FACE.resized(32), tiny])
    assert held[1, 0].drawn == -1 and np.array_equal(held[1, 0].cuts[0], plain[1, 0].cuts[0])
    alone = PhotoSet(good, HEADS, [FACE.resized(32)], augment=DrawnMask(prob=1.0), points=points_of(good, range(6)))
    assert alone[1, 0].drawn >= 0


def test_the_drawn_class_is_the_heads_own_number(good):
    turned = (Head("mask", ("not_worn", "worn", "incorrect")), GENDER, AGE)
    assert mask_classes(turned) == {"not_worn": 0, "worn": 1, "incorrect": 2}
    assert mask_classes(FLAT) == mask_classes(HEADS) == {"worn": 0, "incorrect": 1, "not_worn": 2}


@pytest.mark.parametrize("heads", [(GENDER, AGE), (Head("mask", ("yes", "no")), GENDER)])
def test_drawn_masks_need_the_mask_head(good, heads):
    with pytest.raises(ValueError, match=r"head 'mask' \(worn, incorrect, not_worn\); the model's heads are \['"):
        mask_classes(heads)
    if heads[0] is GENDER:
        with pytest.raises(ValueError, match="leave DrawnMask out of augment"):
            PhotoSet(good, heads, [SMALL], augment=(Flip(), DrawnMask()), points=points_of(good, [0]))


def test_points_in_by_hand():
    points = np.array([[10.0, 20.0], [30.0, 60.0], [20, 40], [10, 60], [0, 0]])
    found = points_in(points, (10, 20, 30, 60), (20, 40, 3))  # twice as wide, half as high
    np.testing.assert_allclose(found, [[0, 0], [40, 20], [20, 10], [0, 20], [-20, -10]])


@pytest.mark.parametrize("place", [(12, 9), (17, 26)])
def test_points_in_agrees_with_the_cut_itself(place):
    image = np.zeros((60, 40, 3), np.uint8)
    image[place[1] : place[1] + 2, place[0] : place[0] + 2] = 255
    region = (8, 4, 28, 44)
    found = cut(image, region, (80, 80))[:, :, 0].astype(float)
    rows, columns = np.indices(found.shape) + 0.5
    middle = [(columns * found).sum() / found.sum(), (rows * found).sum() / found.sum()]
    wanted = points_in(np.tile(np.add(place, 1.0), (5, 1)), region, found.shape)
    np.testing.assert_allclose(middle, wanted[0], atol=0.1)


def test_drop_crop_never_drops_the_only_present_crop_and_follows_the_seed():
    cuts = [np.full((4, 4, 3), 9, np.uint8), np.full((2, 2, 3), 8, np.uint8), np.zeros((3, 3, 3), np.uint8)]
    assert all(drop_crop(cuts, [True, False, False], 1.0, seed)[1] == [True, False, False] for seed in range(30))
    gone = []
    for seed in range(400):
        pixels, present = drop_crop(cuts, [True, True, False], 0.3, seed)
        assert present[0] or present[1]
        assert [bool(cut.any()) for cut in pixels] == present
        gone.append((not present[0], not present[1]))
        assert drop_crop(cuts, [True, True, False], 0.3, seed)[1] == present
    first, second = np.mean(gone, 0)
    assert first == pytest.approx(0.15, abs=0.06) and second == pytest.approx(0.15, abs=0.06)
    assert all((cut == level).all() for cut, level in zip(cuts, (9, 8, 0)))  # the given ones stay


def test_crop_drop_makes_crops_of_a_set_absent(good):
    held = PhotoSet(good, HEADS, [SMALL, FACE.resized(16)], crop_drop=1.0, seed=2)
    items = [held[epoch, row] for epoch in (1, 2, 3) for row in range(6)]
    assert {tuple(item.present) for item in items} == {(True, False), (False, True)}
    assert all(bool(cut.any()) == seen for item in items for cut, seen in zip(item.cuts, item.present))
    again = PhotoSet(good, HEADS, [SMALL, FACE.resized(16)], crop_drop=1.0, seed=2)
    assert [again[epoch, row].present for epoch in (1, 2, 3) for row in range(6)] == [item.present for item in items]
    (batch,) = loader(held, in_order(range(6), 6))
    assert batch.present.sum(1).tolist() == [1] * 6


def test_a_jittered_box_moves_the_crops_and_keeps_nothing(good):
    face, setting = FACE.resized(16), BoxJitter(shift=0.3)
    held = PhotoSet(good, HEADS, [face, SMALL], augment=setting, seed=4, cache=Cache())
    image = read_image(good.paths[0])
    for epoch in (1, 2):
        moved = jitter(setting, (5, 6, 20, 24), photo_seed(4, epoch, 0))
        found = held[epoch, 0].cuts
        assert np.array_equal(found[0], cut(image, locate(face, moved, image.shape), face.size))
        assert np.array_equal(found[1], cut(image, (0, 0, 30, 40), SMALL.size))
    still = PhotoSet(good, HEADS, [face]).pixels(0)[0][0]
    assert held.fill() == [] and not held.kept.here.any()
    assert np.array_equal(held[0, 0].cuts[0], still) and not np.array_equal(held[1, 0].cuts[0], still)


def test_a_jittered_box_that_leaves_the_photo_stays_where_it_was(good):
    corner = good.with_columns(x0=28.0, y0=38.0, x1=30.0, y1=40.0)
    held = PhotoSet(corner, HEADS, [FACE.resized(8)], augment=BoxJitter(shift=1.0, scale=0.0))
    assert all(isinstance(held[epoch, 0].cuts, list) for epoch in range(1, 60))
    nowhere = good.with_columns(x0=np.nan, y0=np.nan, x1=np.nan, y1=np.nan)
    held = PhotoSet(nowhere, HEADS, [FACE.resized(8)], augment=BoxJitter())
    assert held.pixels(0, seed=1)[1] == [(0, 0, 30, 40)]  # no face is known: nothing to move


def test_a_tight_face_is_jittered_as_a_whole(good):
    photos = good.with_columns(whole=True)
    held = PhotoSet(photos, HEADS, [FACE.resized(8)], augment=BoxJitter(), seed=1)
    image, seed = read_image(good.paths[0]), photo_seed(1, 1, 0)
    moved = jitter(BoxJitter(), (0, 0, 30, 40), seed)
    assert held.pixels(0, seed)[1] == [locate(FACE.resized(8), moved, image.shape)]


@pytest.mark.parametrize("where", [None, "crops"], ids=["memory", "disk"])
def test_what_one_set_decodes_another_need_not(good, tmp_path, monkeypatch, where):
    cache = Cache(where and tmp_path / where)
    first = PhotoSet(good, HEADS, [SMALL, FACE.resized(16)], cache=cache)
    assert first.fill() == []
    opened, plain = [], module.open_image
    monkeypatch.setattr(module, "open_image", lambda path: opened.append(path) or plain(path))
    caches = [cache] if where is None else [cache, Cache(tmp_path / where)]
    for shared in caches:
        other = PhotoSet(good[[4, 1]], HEADS, [SMALL, FACE.resized(16)], augment=Flip(1.0), cache=shared)
        assert other.fill() == [] and not opened
        mirrored = other.batch([(1, 0), (1, 1)]).to(torch.device("cpu")).images
        for row, whole in enumerate((4, 1)):
            assert other.pixels(row)[1] == first.pixels(whole)[1]
            for crop, pixels in zip(first.crops, first[1, whole].cuts):
                assert np.array_equal(mirrored[crop][row].permute(1, 2, 0).numpy(), pixels[:, ::-1])
    assert PhotoSet(good, HEADS, [FACE.resized(20)], cache=cache).fill() == [] and len(opened) == 6  # other crops
    moved = PhotoSet(good.with_columns(x0=1.0), HEADS, [FACE.resized(16)], cache=cache)
    assert moved.fill() == [] and len(opened) == 12  # another box


@pytest.mark.parametrize("kept", [False, True])
def test_a_photo_that_is_drawn_again_is_changed_anew(good, kept, tmp_path):
    """The first time of each epoch as if it came once; its mirror, which is left to the device, too."""
    held = PhotoSet(good, HEADS, [SMALL], augment=(Gentle(hflip=0.0), Flip()), seed=3, cache=Cache(tmp_path))
    bare = PhotoSet(good, HEADS, [SMALL], augment=Flip(), seed=3, cache=Cache(tmp_path))
    if kept:
        held.fill(), bare.fill()
    weights = np.array([0.9, 0.02, 0.02, 0.02, 0.02, 0.02])
    (keys,) = Shuffled(range(6), 24, seed=1, weights=weights, count=24)
    assert len(set(keys)) == 24 and len({key[:2] for key in keys}) < 8
    batch = held.batch(keys)
    pixels = {batch.images[SMALL][place].numpy().tobytes() for place, key in enumerate(keys) if key[1] == 0}
    assert len(pixels) > 15
    first = next(place for place, key in enumerate(keys) if key == (1, 0, 0))
    assert np.array_equal(batch.images[SMALL][first].permute(1, 2, 0).numpy(), held[1, 0].cuts[0])
    flipped = bare.batch(keys).flipped
    assert flipped.tolist() == [bare[key].flipped for key in keys]
    assert len({bool(flipped[place]) for place, key in enumerate(keys) if key[1] == 0}) == 2


def test_a_dropped_crop_says_nothing_of_the_boxs_jitter():
    """The two draw from streams of their own."""
    black = [np.zeros((2, 2, 3), np.uint8)] * 2
    moved = {True: [], False: []}
    for seed in range(400):
        _, present = drop_crop(black, [True, True], 0.4, seed)
        moved[all(present)].append(jitter(BoxJitter(0.5, 0.0), (0.0, 0.0, 10.0, 10.0), seed)[0])
    kept, dropped = (np.array(moved[key]) for key in (True, False))
    assert abs(kept.mean() - dropped.mean()) < 1 and dropped.max() > 3 > -3 > dropped.min()


def test_kept_crops_are_loaded_by_threads_where_the_changes_allow_it(good, tmp_path):
    """Threads and processes give the same batches; albumentations' objects are not shared by threads."""
    order = Shuffled(range(len(good)), 3, seed=2)
    for augment, threads in ((Flip(), True), (Gentle(), True), (DrawnMask(), True), (Diary(), False)):
        held = PhotoSet(good, HEADS, [SMALL], augment=augment, seed=1, cache=Cache(tmp_path / "crops"))
        assert not held.may_share_threads()  # nothing is kept yet
        held.fill(1)
        assert held.may_share_threads() == threads
        alone = batches_of(held, order, 0)
        for workers in (1, 2):
            for (rows, left, drawn), (_, right, _) in zip(alone, batches_of(held, order, workers), strict=True):
                assert all(torch.equal(left[crop], right[crop]) for crop in left) and len(rows) == len(drawn) == 3
    jittered = PhotoSet(good, HEADS, [FACE.resized(24)], augment=BoxJitter(), seed=1, cache=Cache(tmp_path / "crops"))
    jittered.fill(1)
    assert not jittered.may_share_threads()


def test_a_dataloader_of_ones_own_asks_by_epoch_and_row(folder):
    held = PhotoSet(read(folder / "table.csv"), HEADS, [SMALL], augment=Flip())
    with pytest.raises(TypeError, match=r"asked for \(epoch, row\), .*, got 0; a DataLoader needs sampler="):
        held[0]
    order = [(1, row) for row in range(len(held))]
    (found,) = torch.utils.data.DataLoader(held, len(held), sampler=order, collate_fn=held.collate)
    wanted = held.batch(order)
    assert torch.equal(found.labels, wanted.labels) and torch.equal(found.flipped, wanted.flipped)
    assert all(torch.equal(found.images[crop], pixels) for crop, pixels in wanted.images.items())
