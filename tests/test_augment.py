import hashlib
import random
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from multihead.augment import (
    CLAHE,
    BoxJitter,
    Cutout,
    Diary,
    Flip,
    Gentle,
    Grey,
    Plain,
    RandAugment,
    apply,
    check,
    jitter,
    members,
    photo_seed,
)
from multihead.masks import DrawnMask

BOTH = (Gentle(), Cutout(), Grey(0.5), CLAHE())
DRAWING = [Flip(), Diary(), Gentle(), RandAugment(), Cutout(), CLAHE(), Grey(0.5), BOTH]
KINDS = [*DRAWING, Plain(), BoxJitter(), DrawnMask(1.0)]


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


@pytest.mark.parametrize("augment", [Plain(), BoxJitter(), DrawnMask(1.0), (Plain(), BoxJitter())], ids=repr)
def test_plain_is_the_identity_and_so_is_what_acts_elsewhere(augment):
    crop = photo()
    assert all(np.array_equal(apply(augment, [crop], seed)[0], crop) for seed in range(20))


@pytest.mark.parametrize("augment", DRAWING, ids=repr)
def test_the_same_seed_gives_the_same_pixels_and_others_do_not(augment):
    crops = [photo(), photo(30, 60)]
    first = [apply(augment, crops, seed) for seed in range(12)]
    again = [apply(augment, crops, seed) for seed in reversed(range(12))][::-1]
    assert all(np.array_equal(a, b) for one, two in zip(first, again) for a, b in zip(one, two))
    most = {Flip: 2, CLAHE: 2, Grey: 2, Cutout: 5, RandAugment: 9}.get(type(augment), 11)
    assert len({changed[0].tobytes() for changed in first}) >= most


@pytest.mark.parametrize("augment", DRAWING, ids=repr)
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
        "import hashlib, numpy as np; from multihead.augment import *; from multihead.augment import apply\n"
        f"crop = np.load({str(tmp_path / 'photo.npy')!r})\n"
        f"kinds = {DRAWING!r}\n"
        "print(hashlib.sha1(b''.join(apply(a, [crop], s)[0].tobytes() for a in kinds for s in range(9))).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    here = b"".join(apply(augment, [photo()], seed)[0].tobytes() for augment in DRAWING for seed in range(9))
    assert hashlib.sha1(here).hexdigest() == there


def test_importing_the_settings_loads_nothing_heavy():
    code = (
        "import sys, multihead.augment; print(sorted({'torch', 'numpy', 'cv2', 'albumentations'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


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
    for augment in (Gentle(), Diary(), Cutout(1.0), (Gentle(), Cutout(1.0))):
        for seed in range(12):
            large, small = apply(augment, [whole, half], seed)
            shrunk = large.reshape(48, 2, 48, 2, 3).mean((1, 3))
            inside = abs(shrunk - small)[6:-6, 6:-6]
            assert inside.mean() < 4, (augment, seed)


def test_rand_augment_makes_the_same_changes_to_all_crops():
    # a 3-pixel blur and the histogram are the crop's own: those operations may differ a little
    whole = photo(96, 96)
    half = whole.reshape(48, 2, 48, 2, 3).mean((1, 3)).round().astype(np.uint8)
    apart = []
    for seed in range(40):
        large, small = apply(RandAugment(), [whole, half], seed)
        apart.append(abs(large.reshape(48, 2, 48, 2, 3).mean((1, 3)) - small)[6:-6, 6:-6].mean())
    assert max(apart) < 6


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


# ---- RandAugment


def pillows(crop, strength):
    """What Pillow makes of a crop, by operation and direction."""
    image = Image.fromarray(crop)
    kinds = {"brightness": ImageEnhance.Brightness, "contrast": ImageEnhance.Contrast, "colour": ImageEnhance.Color}
    made = {
        f"{name} {way}": kind(image).enhance(1 + 0.9 * way * strength)
        for name, kind in kinds.items()
        for way in (-1, 1)
    }
    made |= {
        "autocontrast": ImageOps.autocontrast(image),
        "posterize": ImageOps.posterize(image, 8 - round(4 * strength)),
    }
    return {name: np.asarray(picture) for name, picture in made.items()}


def moves(crop, strength):
    """What OpenCV makes of a crop, by move and direction."""
    height, width = crop.shape[:2]
    x, y = (width - 1) / 2, (height - 1) / 2
    made = {}
    for way in (-strength, strength):
        slope = np.tan(np.radians(15 * way))
        made[f"rotate {way}"] = cv2.getRotationMatrix2D((x, y), 20 * way, 1)
        made[f"shear x {way}"] = np.array([[1, slope, -slope * y], [0, 1, 0]])
        made[f"shear y {way}"] = np.array([[1, 0, 0], [slope, 1, -slope * x]])
        made[f"shift x {way}"] = np.array([[1, 0, 0.15 * way * width], [0, 1, 0]])
        made[f"shift y {way}"] = np.array([[1, 0, 0], [0, 1, 0.15 * way * height]])
    border = cv2.BORDER_REFLECT_101
    return {name: cv2.warpAffine(crop, matrix, (width, height), borderMode=border) for name, matrix in made.items()}


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_rand_augment_draws_from_its_list_only(strength):
    crop = photo(60, 40)
    light = cv2.cvtColor(crop, cv2.COLOR_RGB2YCrCb)
    light[:, :, 0] = cv2.equalizeHist(light[:, :, 0])
    wanted = pillows(crop, strength) | moves(crop, strength)
    wanted |= {"equalize": cv2.cvtColor(light, cv2.COLOR_YCrCb2RGB), "sharpness": crop}  # of a smooth photo
    names = []
    for seed in range(1000):
        changed = apply(RandAugment(1, 10 * strength, hflip=0.0), [crop], seed)[0].astype(int)
        apart = {name: abs(changed - picture).mean() for name, picture in wanted.items()}
        best = min(apart, key=apart.__getitem__)
        names.append(best if apart[best] < 1.6 else "other")
    counts = {name: names.count(name) for name in wanted}
    # each operation 100 times, in two or four directions
    share = {name: 100 // (1 if " " not in name else 4 if name.startswith("sh") else 2) for name in wanted}
    assert "other" not in names and all(share[name] / 3 <= counts[name] <= 2.2 * share[name] for name in wanted), counts


def test_sharpness_goes_either_way():
    crop = np.where(np.indices((40, 40)).sum(0) % 8 < 4, 90, 150).astype(np.uint8)[:, :, None].repeat(3, 2)
    around = cv2.filter2D(crop, cv2.CV_64F, np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]))
    wanted = [cv2.GaussianBlur(crop, (3, 3), 1), crop + 0.3 * around]
    changed = [apply(RandAugment(1, 10.0, hflip=0.0), [crop], seed)[0] for seed in range(1000)]
    found = [sum(abs(one - picture.astype(float))[2:-2, 2:-2].max() < 3 for one in changed) for picture in wanted]
    assert all(30 <= count <= 75 for count in found), found


def test_a_magnitude_of_nothing_leaves_all_but_the_histogram():
    crop = photo()
    changed = [apply(RandAugment(1, 0.0, hflip=0.0), [crop], seed)[0].astype(int) for seed in range(120)]
    apart = np.array([abs(one - crop).max() for one in changed])
    assert 0.6 < (apart <= 1).mean() < 0.95  # eight operations of ten do nothing


def test_more_magnitude_and_more_operations_change_more():
    crop = photo()
    settings = [RandAugment(2, 1), RandAugment(2, 5), RandAugment(2, 10), RandAugment(5, 10)]
    apart = [
        np.mean([abs(apply(s, [crop], seed)[0].astype(int) - crop).mean() for seed in range(60)]) for s in settings
    ]
    assert apart == sorted(apart)


# ---- holes, contrast, grey


def hole(crop, changed):
    """(top, left, bottom, right) of what changed, and its one level."""
    rows, columns = np.nonzero((crop != changed).any(2))
    top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
    levels = set(changed[top:bottom, left:right].ravel().tolist())
    assert len(levels) == 1
    return (int(top), int(left), int(bottom), int(right)), levels.pop()


def test_a_hole_by_hand():
    crop, other = photo(60, 40), photo(120, 160, 1)
    found = [
        [hole(old, new) for old, new in zip((crop, other), apply(Cutout(1.0, 0.3), [crop, other], seed))]
        for seed in range(200)
    ]
    for ((top, left, bottom, right), level), ((above, before, below, behind), same) in found:
        assert (bottom - top, right - left, below - above, behind - before) == (18, 12, 36, 48) and level == same
        assert abs(above / 120 - top / 60) < 0.02 and abs(before / 160 - left / 40) < 0.02
    assert [level for (_, level), _ in found].count(0) == pytest.approx(100, abs=25)
    assert {level for (_, level), _ in found} == {0, 127}
    tops, lefts = zip(*((top, left) for ((top, left, _, _), _), _ in found))
    assert (min(tops), max(tops), min(lefts), max(lefts)) == (0, 42, 0, 28)  # everywhere, always whole
    assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.2


@pytest.mark.parametrize("kind", [Cutout, CLAHE, Grey])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_changes_happen_as_often_as_asked(kind, share):
    crop = photo(24, 24)
    count = sum(apply(kind(share), [crop], photo_seed(0, 1, n))[0].tobytes() != crop.tobytes() for n in range(1000))
    assert count / 1000 == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("limit", [1.5, 4.0])
def test_clahe_is_the_librarys(limit):
    import albumentations

    theirs = albumentations.CLAHE(clip_limit=(limit, limit), tile_grid_size=(8, 8), p=1)
    for crop in (photo(), photo(224, 160, 1), photo(9, 11)):
        assert np.array_equal(apply(CLAHE(1.0, limit), [crop], 0)[0], theirs(image=crop)["image"])


def test_grey_is_the_weighted_mean_of_the_colours():
    crop = photo()
    grey = apply(Grey(1.0), [crop], 0)[0]
    assert (grey == grey[:, :, :1]).all()
    assert abs(grey[:, :, 0] - crop @ (0.299, 0.587, 0.114)).max() <= 1


# ---- tuples


def test_one_member_is_the_member_itself():
    for augment in DRAWING[:-1]:
        assert members((augment,)) == members(augment) == (augment,)
        for seed in range(6):
            assert np.array_equal(apply((augment,), [photo()], seed)[0], apply(augment, [photo()], seed)[0])


def test_members_follow_each_other_with_numbers_of_their_own():
    crops = [photo(), photo(30, 60)]
    for seed in range(10):
        one, two = apply(Gentle(), crops, seed), apply(Cutout(1.0), crops, photo_seed(seed, 1, 0))
        wanted = apply(Cutout(1.0), one, photo_seed(seed, 1, 0))
        got = apply((Gentle(), Cutout(1.0)), crops, seed)
        assert all(np.array_equal(left, right) for left, right in zip(got, wanted))
        assert not np.array_equal(got[0], two[0])
        skipped = apply((DrawnMask(), Cutout(1.0), BoxJitter()), crops, seed)
        assert all(np.array_equal(left, right) for left, right in zip(skipped, two))


def test_members_do_not_hang_together():
    crop, counts = photo(20, 20), np.zeros((2, 2), int)
    holes = apply((Cutout(1.0, 0.2), Cutout(1.0, 0.2)), [crop], 3)[0]
    assert (holes != crop).any(2).sum() > 16  # two holes at two places
    for seed in range(800):
        changed = apply((Flip(), Grey(0.5)), [crop], seed)[0]
        grey = (changed == changed[:, :, :1]).all()
        plain = apply(Grey(1.0), [crop], 0)[0] if grey else crop
        counts[int(grey), int(np.array_equal(changed, plain[:, ::-1]))] += 1
    assert abs(counts - 200).max() < 50


def test_check_takes_what_goes_together():
    for augment in (
        *KINDS,
        (Flip(), Gentle(0.0), RandAugment(hflip=0.0), BoxJitter(), DrawnMask(), Cutout(), Cutout()),
    ):
        check(augment)


@pytest.mark.parametrize(
    ("augment", "words"),
    [
        ("flip", "augment is 'flip'; expected one of Flip, .*BoxJitter, DrawnMask, Albumentations, or a tuple"),
        (None, "augment is None; expected one of"),
        (Flip, "expected one of Flip"),
        ((), r"augment is \(\); expected one of"),
        ((Flip(), "grey"), "expected one of Flip"),
        ([Flip()], "expected one of Flip"),
        (
            (Flip(), Gentle()),
            r"augment has \[Flip\(hflip=0.5\), Gentle.*, which all mirror; expected hflip=0 in all but one",
        ),
        ((RandAugment(), Grey(), Diary(0.1)), "which all mirror"),
        ((BoxJitter(), BoxJitter(0.2)), "expected at most one BoxJitter"),
        ((DrawnMask(), Flip(), DrawnMask()), "expected at most one DrawnMask"),
    ],
    ids=repr,
)
def test_check_refuses(augment, words):
    with pytest.raises(ValueError, match=words):
        check(augment)


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        (Flip, {"hflip": 1.2}, "flip: hflip is 1.2; expected a number >= 0 and <= 1"),
        (Diary, {"hflip": -1}, "diary: hflip"),
        (Diary, {"color_jitter_prob": 2}, "diary: color_jitter_prob"),
        (Gentle, {"hflip": 50}, "gentle: hflip"),
        (RandAugment, {"num_ops": 0}, "randaugment: num_ops is 0; expected one of 1, 2, .*10"),
        (RandAugment, {"num_ops": 11}, "randaugment: num_ops"),
        (RandAugment, {"magnitude": 10.5}, "randaugment: magnitude is 10.5; expected a number >= 0 and <= 10"),
        (RandAugment, {"hflip": "0.5"}, "randaugment: hflip"),
        (Cutout, {"prob": 2}, "cutout: prob"),
        (Cutout, {"size": 0.0}, "cutout: size is 0.0; expected a number > 0 and <= 1"),
        (CLAHE, {"prob": -0.1}, "clahe: prob"),
        (CLAHE, {"clip_limit": 0}, "clahe: clip_limit is 0; expected a number > 0"),
        (Grey, {"prob": 1.1}, "grey: prob"),
        (BoxJitter, {"shift": -0.1}, "boxjitter: shift"),
        (BoxJitter, {"scale": 1.0}, "boxjitter: scale is 1.0; expected a number >= 0 and <= 0.9"),
    ],
)
def test_settings_out_of_bounds(kind, values, words):
    with pytest.raises(ValueError, match=words):
        kind(**values)


# ---- boxes


@given(
    st.floats(-500, 500), st.floats(-500, 500), st.floats(0.5, 400), st.floats(0.5, 400),
    st.floats(0, 1), st.floats(0, 0.9), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_a_jittered_box_stays_near_and_keeps_an_area(x, y, width, height, shift, scale, seed):
    x0, y0, x1, y1 = jitter(BoxJitter(shift, scale), (x, y, x + width, y + height), seed)
    assert (x0, y0, x1, y1) == jitter(BoxJitter(shift, scale), (x, y, x + width, y + height), seed)
    small = 1e-6
    assert (1 - scale) * width - small <= x1 - x0 <= (1 + scale) * width + small and x1 > x0
    assert (1 - scale) * height - small <= y1 - y0 <= (1 + scale) * height + small and y1 > y0
    assert abs((x0 + x1) / 2 - x - width / 2) <= shift * width + small
    assert abs((y0 + y1) / 2 - y - height / 2) <= shift * height + small


def test_jitter_uses_all_of_its_reach_each_way_by_itself():
    boxes = np.array([jitter(BoxJitter(0.1, 0.2), (0, 0, 100, 200), seed) for seed in range(1500)])
    wide, high = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    drawn = np.stack([boxes[:, [0, 2]].mean(1) - 50, boxes[:, [1, 3]].mean(1) - 100, wide - 100, high - 200], 1)
    reach = np.array([10, 20, 20, 40])
    assert (abs(drawn).max(0) > 0.98 * reach).all() and (abs(drawn.mean(0)) < 0.05 * reach).all()
    assert drawn.std(0) == pytest.approx(reach / 3**0.5, rel=0.05)  # even
    assert abs(np.corrcoef(drawn.T) - np.eye(4)).max() < 0.1
    mirrors = np.array([mirrored(photo(4, 4), seed, Flip()) for seed in range(1500)])
    assert abs(np.corrcoef(mirrors, drawn[:, 0])[0, 1]) < 0.1


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (9, 5, 5, 9), (0, 0, float("nan"), 9)])
def test_jitter_refuses_a_box_without_area(box):
    with pytest.raises(ValueError, match="has no area; expected x0 < x1 and y0 < y1"):
        jitter(BoxJitter(), box, 0)


@pytest.mark.parametrize(
    "augment", [Diary(color_jitter_prob=1.0), RandAugment(num_ops=1)], ids=["diary", "randaugment"]
)
def test_the_mirror_does_not_choose_the_change(augment):
    """Mirrored and unmirrored photos become darker as often: the two draw from streams of their own."""
    photo = np.full((8, 8, 3), 100, np.uint8)
    photo[:, :4, 0] = 160  # tells a mirrored photo
    darker = {True: [], False: []}
    for seed in range(400):
        (pixels,) = apply(augment, [photo], seed)
        mirrored = np.random.default_rng(seed).random() < 0.5
        darker[mirrored].append(pixels.mean() < photo.mean() - 1)
    shares = [np.mean(darker[key]) for key in (True, False)]
    assert abs(shares[0] - shares[1]) < 0.12 and min(shares) > 0.02


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_what_chooses_a_jitter_does_not_decide_how_strong_it_is(share, monkeypatch):
    """albumentations starts every part of a pipeline with one seed: a third of all photos would only be darkened."""
    import albumentations as A

    drawn, draw = [], A.ColorJitter.get_params
    monkeypatch.setattr(A.ColorJitter, "get_params", lambda self: drawn.append(draw(self)) or drawn[-1])
    for seed in range(500):
        apply(Diary(hflip=0.0, color_jitter_prob=share), [np.zeros((4, 4, 3), np.uint8)], seed)
    assert abs(len(drawn) / 500 - share) < 0.07
    for name, middle in (("brightness", 1.6), ("contrast", 1.6), ("saturation", 1.6), ("hue", 0.0)):
        found = [params[name] for params in drawn if params[name] != (0 if name == "hue" else 1)]
        assert (
            len(found) > 20 and abs(np.mean(found) - middle) < 4 * (0.18 if name == "hue" else 0.81) / len(found) ** 0.5
        )


def test_the_ways_of_randaugment_are_drawn_one_by_one():
    """Which way a photo turns does not say whether it becomes brighter."""
    image = np.full((31, 31, 3), 100, np.uint8)
    image[3:6, 15] = 200  # a mark that shows the turn
    setting = RandAugment(hflip=0.0, num_ops=10, magnitude=4)
    seen = [apply(setting, [image], seed)[0].astype(int) for seed in range(300)]
    middles = np.array(
        [np.average(np.arange(31), weights=(each[:9].max((0, 2)) - each[:9].min() + 1e-6)) for each in seen]
    )
    means = np.array([each[20:].mean() for each in seen])
    assert means.std() > 1 and middles.std() > 0.1 and abs(np.corrcoef(middles, means)[0, 1]) < 0.25
