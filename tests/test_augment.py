import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from multihead.augment import Diary, Flip, Gentle, Plain, apply, photo_seed

KINDS = [Flip(), Diary(), Gentle(), Plain()]


def photo(height=64, width=48, seed=0):
    """A smooth coloured photo, so that turns and shifts are visible and rounding is not."""
    rng = np.random.default_rng(seed)
    small = rng.integers(40, 200, (4, 4, 3)).astype(float)
    rows, columns = np.linspace(0, 3, height), np.linspace(0, 3, width)
    wide = np.stack([[np.interp(columns, range(4), row[:, c]) for row in small] for c in range(3)], 2)  # (4, W, 3)
    tall = [[np.interp(rows, range(4), wide[:, column, c]) for column in range(width)] for c in range(3)]
    return np.array(tall).transpose(2, 1, 0).round().astype(np.uint8)  # (H, W, 3)


def mirrored(crop, seed, augment):
    return np.array_equal(apply(augment, [crop], seed)[0], crop[:, ::-1])


@pytest.mark.parametrize("augment", KINDS, ids=repr)
def test_shapes_and_types_stay_and_the_input_is_not_touched(augment):
    crops = [photo(), photo(30, 60)]
    before = [crop.copy() for crop in crops]
    for seed in range(8):
        changed = apply(augment, crops, seed)
        assert [(crop.shape, crop.dtype) for crop in changed] == [((64, 48, 3), np.uint8), ((30, 60, 3), np.uint8)]
    assert all(np.array_equal(left, right) for left, right in zip(crops, before))


def test_plain_is_the_identity():
    crop = photo()
    assert all(np.array_equal(apply(Plain(), [crop], seed)[0], crop) for seed in range(20))


@pytest.mark.parametrize("augment", [Flip(), Diary(), Gentle()], ids=repr)
def test_the_same_seed_gives_the_same_pixels_and_others_do_not(augment):
    crops = [photo(), photo(30, 60)]
    first = [apply(augment, crops, seed) for seed in range(12)]
    again = [apply(augment, crops, seed) for seed in reversed(range(12))][::-1]
    assert all(np.array_equal(a, b) for one, two in zip(first, again) for a, b in zip(one, two))
    assert len({changed[0].tobytes() for changed in first}) >= (2 if isinstance(augment, Flip) else 11)


@pytest.mark.parametrize("augment", [Flip(), Diary(), Gentle()], ids=repr)
def test_global_seeds_have_no_say_and_are_not_used_up(augment):
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    first = apply(augment, [photo()], 5)[0]
    drawn = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    assert drawn == (random.random(), np.random.rand(), torch.rand(1).item())
    random.seed(2), np.random.seed(2), torch.manual_seed(2)
    assert np.array_equal(apply(augment, [photo()], 5)[0], first)


def test_another_process_gives_the_same_pixels(tmp_path):
    np.save(tmp_path / "photo.npy", photo())
    code = (
        "import hashlib, numpy as np; from multihead.augment import Diary, Gentle, apply\n"
        f"crop = np.load({str(tmp_path / 'photo.npy')!r})\n"
        "print(hashlib.sha1(b''.join(apply(a, [crop], s)[0].tobytes() for a in (Diary(), Gentle()) for s in range(9)))"
        ".hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    import hashlib

    here = b"".join(
        apply(augment, [photo()], seed)[0].tobytes() for augment in (Diary(), Gentle()) for seed in range(9)
    )
    assert hashlib.sha1(here).hexdigest() == there


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_flips_as_often_as_asked(share):
    crop = photo(8, 8)
    count = sum(mirrored(crop, photo_seed(0, 1, index), Flip(share)) for index in range(2000))
    assert count / 2000 == pytest.approx(share, abs=0.04)


def test_all_crops_of_a_photo_are_mirrored_or_none():
    crops = [photo(64, 64), photo(30, 60, 1), photo(40, 20, 2)]
    for seed in range(30):
        changed = apply(Flip(), crops, seed)
        assert len({np.array_equal(new, old[:, ::-1]) for new, old in zip(changed, crops)}) == 1


def test_crops_of_unlike_size_are_moved_and_coloured_alike():
    whole = photo(96, 96)
    half = whole.reshape(48, 2, 48, 2, 3).mean((1, 3)).round().astype(np.uint8)
    for augment in (Gentle(), Diary()):
        for seed in range(12):
            large, small = apply(augment, [whole, half], seed)
            shrunk = large.reshape(48, 2, 48, 2, 3).mean((1, 3))
            inside = abs(shrunk - small)[6:-6, 6:-6]
            assert inside.mean() < 4, (augment, seed)


def test_gentle_is_gentle_and_moves():
    crop = photo(96, 96)
    apart = [abs(apply(Gentle(0.0), [crop], seed)[0].astype(int) - crop).mean() for seed in range(40)]
    assert 1 < np.median(apart) < 40 and max(apart) < 70
    still = Gentle(hflip=0.0, shift=0.0, scale=0.0, rotate=0.0, color_jitter=0.0)
    assert abs(apply(still, [crop], 3)[0].astype(int) - crop).max() <= 1


def kind_of_jitter(crop, changed):
    """Which one of the diary's four changes made `changed` from `crop`: each leaves something of a colour alone."""
    import cv2

    clipped = (changed == 0) | (changed == 255)
    plain = ~clipped.any(2)
    before, after = crop[plain].astype(float), changed[plain].astype(float)
    if len(before) < 50:
        return "clipped"
    if np.allclose(after, before, atol=2):
        return "same"
    slope, offset = np.polyfit(before.ravel(), after.ravel(), 1)
    if abs(after - before * slope - offset).max() < 3:  # one line for all levels
        return "brightness" if abs(offset) < 3 else "contrast"
    grey = [cv2.cvtColor(part.reshape(-1, 1, 3).astype(np.uint8), cv2.COLOR_RGB2GRAY) for part in (before, after)]
    if abs(grey[0].astype(int) - grey[1]).max() <= 3:
        return "saturation"
    value = [part.max(1) for part in (before, after)]
    return "hue" if abs(value[0] - value[1]).max() <= 3 else "mixture"


def test_diary_makes_one_of_four_changes():
    crop = photo(40, 40)
    found = [kind_of_jitter(crop, apply(Diary(hflip=0.0), [crop], seed)[0]) for seed in range(160)]
    counts = {name: found.count(name) for name in ("brightness", "contrast", "saturation", "hue")}
    assert "mixture" not in found and all(18 <= count <= 62 for count in counts.values()), found
    assert found.count("same") + found.count("clipped") < 20


def test_diary_without_jitter_is_a_mirror():
    crop = photo()
    changed = [apply(Diary(color_jitter_prob=0.0), [crop], seed)[0] for seed in range(20)]
    assert {new.tobytes() for new in changed} == {crop.tobytes(), np.ascontiguousarray(crop[:, ::-1]).tobytes()}


def test_photo_seeds():
    assert photo_seed(0, 1, 2) == photo_seed(0, 1, 2)
    seeds = {photo_seed(seed, epoch, index) for seed in range(3) for epoch in range(5) for index in range(200)}
    assert len(seeds) == 3000 and all(0 <= seed < 2**32 for seed in seeds)
    assert photo_seed(0, 11, 1) != photo_seed(0, 1, 11)
