import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from multihead.augment import Flip, Plain
from multihead.batches import Batch, PhotoSet, Shuffled, cut_crops, in_order, loader
from multihead.crops import BODY, FACE, FULL, cut, locate
from multihead.images import read_image
from multihead.labels import FLAT, HEADS
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
        (b.rows.tolist(), {c: p.clone() for c, p in b.images.items()}) for b in loader(held, order, workers=workers)
    ]


def test_cut_crops_by_hand():
    image = np.zeros((40, 30, 3), np.uint8)
    image[10:20, 10:20] = 200
    face = FACE.resized(10)
    bare = type(face)("bare", "face", 0.0, (10, 10))
    (found,), present = cut_crops(image, [bare], (10, 10, 20, 20))
    assert present == [True] and (found == 200).all()
    (found,), _ = cut_crops(image, [bare], None, whole=True)
    assert 0 < (found == 200).mean() < 0.2  # the whole photo is the face
    (found,), _ = cut_crops(image, [bare], None)
    assert np.array_equal(found, cut(image, (0, 0, 30, 40), (10, 10)))


def test_an_absent_crop_is_black_and_says_so():
    image = np.full((40, 30, 3), 255, np.uint8)
    cuts, present = cut_crops(image, [FULL.resized(8), BODY.resized(12, 8)], (1, 1, 29, 39))
    assert present == [True, False] and (cuts[1] == 0).all() and (cuts[0] == 255).all()


def test_items_are_the_crops_of_the_decoded_photo(folder):
    photos, crops = read(folder / "table.csv"), (FACE.resized(16), SMALL)
    held = PhotoSet(photos, HEADS, crops)
    row, cuts, present = held[1, 2]
    image = read_image(folder / "2.png")
    assert row == 2 and present == [True, True]
    for crop, found in zip(crops, cuts):
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
    _, reason, _ = held[1, 0]
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


@pytest.mark.parametrize("memory", [0, 1 << 20])
def test_workers_change_no_pixel(folder, memory):
    photos = read(folder / "table.csv").where(lambda table: table.name != "3.png")
    found = []
    for workers in (0, 1, 2):
        held = PhotoSet(photos, HEADS, [SMALL, FACE.resized(16)], augment=Flip(), seed=5, memory=memory)
        order = Shuffled(range(6), 2, seed=5)
        order.epoch = 3
        found.append(batches_of(held, order, workers))
    for other in found[1:]:
        assert [rows for rows, _ in other] == [rows for rows, _ in found[0]]
        for (_, left), (_, right) in zip(found[0], other):
            assert all(torch.equal(left[crop], right[crop]) for crop in left)


def test_augmentation_follows_seed_epoch_and_row(folder):
    photos = read(folder / "table.csv").where(lambda table: table.name != "3.png")
    held = PhotoSet(photos, HEADS, [SMALL], augment=Flip(), seed=5)
    drawn = {epoch: np.stack([held[epoch, row][1][0] for row in range(6)]) for epoch in (1, 2, 3)}
    again = PhotoSet(photos, HEADS, [SMALL], augment=Flip(), seed=5)
    assert all(np.array_equal(again[2, row][1][0], drawn[2][row]) for row in reversed(range(6)))
    assert not np.array_equal(drawn[1], drawn[2]) or not np.array_equal(drawn[2], drawn[3])


def test_kept_crops_keep_what_is_present(folder):
    photos = read(folder / "table.csv").with_columns(x0=0.0, y0=0.0, x1=30.0, y1=40.0)  # no body below such a face
    held = PhotoSet(photos, HEADS, [SMALL, BODY.resized(16)])
    first, kept = held[1, 0], held[1, 0]
    assert held.kept.get(0) is not None
    assert first[2] == kept[2] == [True, False]
    assert all(np.array_equal(left, right) for left, right in zip(first[1], kept[1]))


def test_kept_crops_are_decoded_once_even_by_workers(folder):
    photos = read(folder / "table.csv").where(lambda table: table.name != "3.png")
    held = PhotoSet(photos, HEADS, [SMALL], augment=Plain())
    assert held.fill() == []
    before = batches_of(held, in_order(range(6), 3), 0)
    for path in photos.paths:
        open(path, "wb").close()  # nothing is left to decode
    for workers in (0, 2):
        after = batches_of(held, in_order(range(6), 3), workers)
        assert all(torch.equal(a[1][SMALL], b[1][SMALL]) for a, b in zip(before, after))


def test_what_a_worker_decodes_is_kept_for_all(folder):
    held = PhotoSet(read(folder / "table.csv"), HEADS, [SMALL])
    batches_of(held, in_order([0, 1], 1), 2)
    assert held.kept.get(0) is not None and held.kept.get(2) is None


def test_no_more_memory_is_taken_than_allowed(folder):
    photos = read(folder / "table.csv")
    needed = 7 * (1 + 1 + 3 * 24 * 20)
    assert PhotoSet(photos, HEADS, [SMALL], memory=needed).kept is not None
    assert PhotoSet(photos, HEADS, [SMALL], memory=needed - 1).kept is None


def test_a_pickled_set_serves_as_well(folder):
    held = PhotoSet(read(folder / "table.csv"), HEADS, [SMALL, FACE.resized(16)])
    held.fill()
    copy = pickle.loads(pickle.dumps(held))
    assert all(np.array_equal(a, b) for a, b in zip(copy[0, 2][1], held[0, 2][1]))


def test_shuffled_gives_every_row_once_and_follows_seed_and_epoch():
    order = Shuffled(range(10, 22), 4, seed=1)
    first = list(order)
    assert len(order) == len(first) == 3
    assert sorted(row for batch in first for _, row in batch) == list(range(10, 22))
    assert first == list(Shuffled(range(10, 22), 4, seed=1)) != list(Shuffled(range(10, 22), 4, seed=2))
    order.epoch = 2
    assert [row for batch in order for _, row in batch] != [row for batch in first for _, row in batch]
    assert {epoch for batch in order for epoch, _ in batch} == {2}


def test_skip_leaves_the_rest_as_it_was():
    order = Shuffled(range(20), 3, accumulate=2, seed=1)
    whole = list(order)
    order.skip = 4
    assert list(order) == whole[4:] and len(order) == len(whole) - 4


@pytest.mark.parametrize("rows, batch_size, accumulate", [(24, 3, 1), (25, 4, 2), (5, 32, 2), (1, 8, 4)])
def test_two_processes_see_what_one_sees_with_twice_the_accumulation(rows, batch_size, accumulate):
    one = list(Shuffled(range(rows), batch_size, accumulate=2 * accumulate, seed=3))
    two = [list(Shuffled(range(rows), batch_size, accumulate=accumulate, seed=3, rank=r, world=2)) for r in (0, 1)]
    assert [batch for pair in zip(*two) for batch in pair] == one


def test_rows_over_are_fewer_than_a_step_and_change_with_the_epoch():
    order = Shuffled(range(11), 4, seed=0)
    left = []
    for epoch in (1, 2):
        order.epoch = epoch
        seen = [row for batch in order for _, row in batch]
        left.append(set(range(11)) - set(seen))
        assert len(seen) == len(set(seen)) == 8
    assert left[0] != left[1]


def test_fewer_rows_than_a_batch_still_make_a_step():
    order = Shuffled([4, 7, 9], 32)
    assert order.steps == 1 and sorted(row for batch in order for _, row in batch) == [4, 7, 9]


def test_in_order_leaves_nothing_out():
    assert in_order([5, 6, 7], 2) == [[(0, 5), (0, 6)], [(0, 7)]]
    assert in_order([], 2) == []


@pytest.mark.parametrize("workers", [0, 1])
def test_drawing_batches_leaves_torchs_random_numbers_alone(folder, workers):
    held = PhotoSet(read(folder / "table.csv"), HEADS, [SMALL], augment=Flip())
    torch.manual_seed(3)
    before = torch.get_rng_state()
    list(loader(held, Shuffled(range(7), 2), workers=workers))
    assert torch.equal(torch.get_rng_state(), before)
