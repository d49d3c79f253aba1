import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multihead.crops import BODY, FACE
from multihead.heads import FLAT, HEADS, Head, crops, flat
from multihead.mixing import CutMix, InvertedCutMix, MixUp, mix
from multihead.options import from_dict, to_dict

SMALL, TALL = FACE.resized(112, 112), BODY.resized(160, 96)
TINY, FLATTISH = FACE.resized(12, 9), BODY.resized(5, 14)
KINDS = [CutMix(1), CutMix(1, shape="strip"), CutMix(1, shape="half"), MixUp(1, alpha=1), InvertedCutMix(1)]
PEOPLE = ("p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7")  # a class for each photo, so that a target names its photos


def table(kind, first=TINY, second=None):
    """A table of heads with a class for each of eight photos, on one crop or on two in every way."""
    one, two = (first,), tuple(dict.fromkeys((first, second or first)))
    if kind == "flat":
        return flat([Head("a", ("0", "1"), one), Head("b", ("0", "1"), two), Head("c", ("0", "1"), two)])
    if kind == 1:
        return (Head("mask", PEOPLE, two),)
    return Head("mask", PEOPLE, one), Head("gender", PEOPLE, two[-1:]), Head("age", PEOPLE, two)


def photos(heads, count=8):
    """Photos of one colour each, their number, and a row with its own class for each."""
    images = {
        crop: torch.arange(count, dtype=torch.uint8)[:, None, None, None].repeat(1, 3, *crop.size)
        for crop in crops(heads)
    }
    return images, {head.name: torch.eye(len(head.classes))[torch.arange(count) % len(head.classes)] for head in heads}


def noise(sizes=(TINY, FLATTISH), count=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        crop: torch.randint(0, 256, (count, 3, *crop.size), dtype=torch.uint8, generator=generator) for crop in sizes
    }


def random_rows(heads, count=7, seed=0, unknown=0.0):
    generator = torch.Generator().manual_seed(seed)
    rows = {head.name: torch.rand(count, len(head.classes), generator=generator).softmax(1) for head in heads}
    known = torch.rand(count, 1, generator=generator) >= unknown
    return {name: row * known for name, row in rows.items()}


def counted(images, heads):
    """{head: (B,)} share of each photo's own pixels, counted and averaged over the crops that the head reads."""
    own = {
        crop: torch.tensor([(photo == row).float().mean() for row, photo in enumerate(pixels)])
        for crop, pixels in images.items()
    }
    return {head.name: torch.stack([own[crop] for crop in head.crops]).mean(0) for head in heads}


def measure(setting, heads, seeds):
    """Counted shares and target weights (2, N) of the own photo, over heads, rows and seeds, mixed rows only."""
    pairs = []
    images, rows = photos(heads)
    for seed in range(seeds):
        mixed, found = mix(setting, images, None, rows, heads, seed=seed, epoch=1)
        for name, share in counted(mixed, heads).items():
            weight = found[name].diagonal()
            other = found[name].argmax(1) != torch.arange(len(weight))
            moved = (weight < 1) | (share < 1) | other
            pairs.append(torch.stack([share, weight])[:, moved])
    return torch.cat(pairs, 1).numpy()


# ---- what a target says is what the pixels are


@pytest.mark.parametrize("sizes", [(SMALL, SMALL), (SMALL, TALL), (TINY, FLATTISH)], ids=["one", "two", "tiny"])
@pytest.mark.parametrize("kind", [1, 3, "flat"])
@pytest.mark.parametrize("shape", ["box", "strip", "half"])
def test_the_targets_weight_is_the_share_of_own_pixels(shape, kind, sizes):
    share, weight = measure(CutMix(1, shape=shape), table(kind, *sizes), 25)
    assert abs(share - weight).max() < 1e-5
    if shape == "half":
        assert share.size >= 100 and abs(share - 0.5).max() <= 0.5 / 9  # at worst 4 of 9 columns stay
    else:
        assert share.std() > 0.1 and np.corrcoef(share, weight)[0, 1] >= 0.999


@pytest.mark.parametrize("kind", [1, 3, "flat"])
def test_the_diarys_form_says_the_opposite_of_its_pixels(kind):
    for sizes in ((SMALL, SMALL), (SMALL, TALL)):
        share, weight = measure(InvertedCutMix(1), table(kind, *sizes), 60)
        assert np.corrcoef(share, weight)[0, 1] < -0.9
        assert abs(share - weight).mean() > 0.35


def test_the_diarys_box_takes_its_width_from_the_height():
    heads = table(1, FACE.resized(80, 40))
    images, rows = photos(heads)
    seen = []
    for seed in range(200):
        mixed, found = mix(InvertedCutMix(1), images, None, rows, heads, seed=seed, epoch=1)
        for number, photo in enumerate(mixed[heads[0].crops[0]][:, 0]):
            patch = photo != number
            if patch.any():
                side = 80 * found["mask"][number, number].item() ** 0.5
                high, wide = patch.any(1).sum().item(), patch.any(0).sum().item()
                start = patch.any(0).nonzero()[0].item()
                assert abs(high - side) <= 1 and abs(wide - min(side, 40 - start)) <= 1
                seen.append((wide / high, start - (40 - side / 2)))
    shapes, beyond = np.array(seen).T
    assert max(shapes) == pytest.approx(1, abs=0.1) and min(shapes) < 0.6  # square, then cut off at the right
    assert max(beyond) > 3  # further right than a box of that share of the width would fit


@pytest.mark.parametrize("kind", [1, 3, "flat"])
def test_mixup_blends_pixels_and_rows_by_one_share(kind):
    heads = table(kind, TINY, FLATTISH)
    images, rows = noise(count=8), photos(heads)[1]
    images = {crop: images[crop] for crop in crops(heads)}
    shares = []
    for seed in range(20):
        mixed, found = mix(MixUp(1, 1.0), images, None, rows, heads, seed=seed, epoch=1)
        weights = next(iter(found.values()))  # (B, 8): in each row who takes part, and by how much
        for row in found.values():
            torch.testing.assert_close(row, weights)
        for crop, pixels in images.items():
            wanted = torch.einsum("bo,ochw->bchw", weights, pixels.float())
            assert (mixed[crop].float() - wanted).abs().max() <= 0.501 and mixed[crop].dtype == torch.uint8
        shares += weights.diagonal()[weights.diagonal() < 1].tolist()
    assert np.std(shares) > 0.2


def test_one_box_and_one_partner_by_hand():
    heads = (Head("mask", ("a", "b"), (TINY,)), Head("age", ("a", "b", "c"), (FLATTISH, TINY)))
    images, _ = photos(heads, 2)
    rows = {"mask": torch.tensor([[1.0, 0], [0, 1]]), "age": torch.tensor([[0, 0, 1.0], [0, 0, 0]])}
    halves = [mix(CutMix(1, shape="half"), images, None, rows, heads, seed=seed, epoch=1) for seed in range(9)]
    mixed, found = next(pair for pair in halves if not torch.equal(pair[0][TINY], images[TINY]))
    assert mixed[TINY][0, 0, 0].tolist() == [0] * 4 + [1] * 5  # 4 = 9 // 2 own columns
    assert mixed[FLATTISH][1, 2, 4].tolist() == [1] * 7 + [0] * 7
    torch.testing.assert_close(found["mask"], torch.tensor([[4 / 9, 5 / 9], [5 / 9, 4 / 9]]))
    kept = (4 / 9 + 1 / 2) / 2  # the mean over the crops that the head reads; the second photo's age is unknown
    torch.testing.assert_close(found["age"], torch.tensor([[0, 0, kept], [0, 0, 1 - kept]]))


def boxes_of(setting, heads, seeds):
    """The relative box (top, left, bottom, right) that was replaced, {crop: box} for every seed that replaced some."""
    images, rows = photos(heads, 2)
    for seed in range(seeds):
        mixed = mix(setting, images, None, rows, heads, seed=seed, epoch=1)[0]
        changed = {crop: (mixed[crop] != images[crop])[0, 0] for crop in images}
        if all(patch.any() for patch in changed.values()):
            edges = {}
            for crop, patch in changed.items():
                down, across = (patch.any(axis).nonzero()[:, 0] for axis in (1, 0))
                assert patch.sum() == len(down) * len(across)  # a full rectangle
                high, wide = crop.size
                edges[crop] = np.array(
                    [down[0] / high, across[0] / wide, (down[-1] + 1) / high, (across[-1] + 1) / wide]
                )
            yield edges


@pytest.mark.parametrize("shape", ["box", "strip", "half"])
def test_all_crops_get_the_same_relative_box(shape):
    found = list(boxes_of(CutMix(1, shape=shape), table(1, SMALL, TALL), 60))
    assert len(found) > 15
    for edges in found:
        assert abs(edges[SMALL] - edges[TALL]).max() <= 0.5 / 96 + 0.5 / 112
        if shape == "strip":
            assert edges[SMALL][[0, 2]].tolist() == [0, 1]
        if shape == "half":
            assert edges[SMALL].tolist() == [0, 0.5, 1, 1]


def test_boxes_lie_everywhere_and_are_clipped_at_every_border():
    edges = np.array([box[SMALL] for box in boxes_of(CutMix(1), table(1, SMALL), 300)])
    touching = np.stack([edges[:, 0] == 0, edges[:, 1] == 0, edges[:, 2] == 1, edges[:, 3] == 1], 1)
    assert touching.mean(0).min() > 0.15 and touching.mean(0).max() < 0.7
    inside = ~touching.any(1)
    high, wide = edges[:, 2] - edges[:, 0], edges[:, 3] - edges[:, 1]
    assert abs(high - wide)[inside].max() <= 2 / 112 < abs(high - wide)[~inside].max()  # the photo's aspect, then cut


@pytest.mark.parametrize(("shape", "side"), [("box", 0.5**0.5), ("strip", 0.5)])
def test_a_share_of_one_half_gives_its_box_up_to_half_of_which_is_clipped(shape, side):
    setting = CutMix(1, alpha=1000, shape=shape)  # shares of .5, more or less
    edges = np.array([box[SMALL] for box in boxes_of(setting, table(1, SMALL), 250)])
    for first, last in ((0, 2), (1, 3)) if shape == "box" else ((1, 3),):
        start, end = edges[:, first], edges[:, last]
        inner = (start > 0) & (end < 1)
        assert (end - start)[inner] == pytest.approx(side, abs=0.05)
        assert abs(((start + end) / 2)[inner] - 0.5).max() > (1 - side) / 2 - 0.1  # all the room there is
        for clipped in (start == 0, end == 1):
            sides = np.sort((end - start)[clipped])
            assert sides[0] == pytest.approx(side / 2, abs=0.06) and sides[-1] == pytest.approx(side, abs=0.08)
            assert clipped.mean() == pytest.approx(side / 2, abs=0.12)  # the centre is uniform


@pytest.mark.parametrize("setting", KINDS, ids=repr)
def test_partners_are_a_permutation_and_all_photos_of_a_batch_share_one_draw(setting):
    heads = table(3, SMALL, TALL)
    images, rows = photos(heads)
    orders = set()
    for seed in range(20):
        found = mix(setting, images, None, rows, heads, seed=seed, epoch=1)[1]
        torch.testing.assert_close(found["mask"].sum(0), torch.ones(8))  # each photo takes part once in all
        torch.testing.assert_close(found["mask"].sum(1), torch.ones(8))
        kept = found["mask"].diagonal()
        assert kept[kept < 1].unique().numel() <= 1
        other = found["mask"] - torch.diag(kept)
        orders.add(tuple(other.argmax(1).tolist()))
        for name in ("gender", "age"):
            assert (found[name] - torch.diag(found[name].diagonal())).argmax(1).tolist() == other.argmax(1).tolist()
    assert len(orders) >= 18


# ---- which rows and batches are mixed


@given(st.integers(0, 10**6), st.sampled_from(KINDS), st.floats(0, 1), st.integers(1, 9))
def test_masses_are_conserved_and_no_row_gets_more_than_one(seed, setting, unknown, count):
    heads = table(3, TINY, FLATTISH)
    images, rows = noise(count=count, seed=seed), random_rows(heads, count, seed, unknown)
    mixed, found = mix(setting, images, None, rows, heads, seed=seed, epoch=1)
    assert {crop: pixels.shape for crop, pixels in mixed.items()} == {c: p.shape for c, p in images.items()}
    for name, row in rows.items():
        torch.testing.assert_close(found[name].sum(0), row.sum(0))  # class by class
        assert found[name].min() >= 0 and found[name].sum(1).max() <= 1 + 1e-5


@given(st.integers(0, 10**6), st.sampled_from(KINDS))
def test_a_partner_with_other_crops_leaves_photo_and_rows_as_they_are_and_absent_crops_have_no_say(seed, setting):
    heads = table(3, TINY, FLATTISH)
    images, rows = photos(heads)
    present = torch.rand(8, 2, generator=torch.Generator().manual_seed(seed)) < 0.6
    free, wanted = mix(setting, images, None, rows, heads, seed=seed, epoch=1)
    mixed, found = mix(setting, images, present, rows, heads, seed=seed, epoch=1)
    for number in range(8):
        order = (wanted["age"] - torch.diag(wanted["age"].diagonal()))[number]
        partner = int(order.argmax()) if order.any() else number
        alike = torch.equal(present[number], present[partner])
        for crop in images:
            assert torch.equal(mixed[crop][number], (free if alike else images)[crop][number])
        for head in heads:
            there = tuple(crop for crop, seen in zip(images, present[number]) if seen and crop in head.crops)
            asked = [replace(head, crops=there) if there and each is head else each for each in heads]
            alone = mix(setting, images, None, rows, asked, seed=seed, epoch=1)[1]
            expected = alone if alike and there else rows  # a head that sees no crop sees nothing of the partner
            torch.testing.assert_close(found[head.name][number], expected[head.name][number])


def test_photos_with_other_crops_meet_and_stay_apart():
    heads = table(3, SMALL, TALL)
    images, rows = photos(heads)
    present = torch.tensor([[True, True]] * 4 + [[True, False]] * 4)
    met = torch.zeros(8, 8)
    for seed in range(60):
        met += mix(CutMix(1), images, present, rows, heads, seed=seed, epoch=1)[1]["age"]
    assert not met[:4, 4:].any() and not met[4:, :4].any()
    assert (met[:4, :4] > 0).all() and (met[4:, 4:] > 0).all()


@pytest.mark.parametrize("setting", KINDS, ids=repr)
def test_mixed_with_an_unknown_label_only_the_known_share_has_mass(setting):
    heads = table(3, SMALL)  # every head reads the same crop
    images, rows = photos(heads)
    known = (torch.arange(8) < 4).float()
    rows["gender"] = rows["gender"] * known[:, None]
    met = set()
    for seed in range(10):
        found = mix(setting, images, None, rows, heads, seed=seed, epoch=1)[1]
        torch.testing.assert_close(found["gender"], found["mask"] * known)  # a class is a photo: unknown ones are 0
        met |= {(bool(known[own]), bool(known[other])) for own, other in found["mask"].nonzero().tolist()}
    assert len(met) == 4


@pytest.mark.parametrize("setting", KINDS, ids=repr)
def test_nothing_changes_with_prob_zero_a_single_photo_or_after_the_last_epoch_of_mixing(setting):
    heads = table(3, TINY, FLATTISH)
    cases = [(replace(setting, prob=0), 7, 1), (setting, 1, 1)]
    cases += [(replace(setting, off_epoch=4), 7, epoch) for epoch in (4, 5, 9)]
    for chosen, count, epoch in cases:
        images, rows = noise(count=count), random_rows(heads, count)
        for seed in range(5):
            mixed, found = mix(chosen, images, None, rows, heads, seed=seed, epoch=epoch)
            assert all(torch.equal(mixed[crop], images[crop]) for crop in images)
            assert all(torch.equal(found[name], rows[name]) for name in rows)


@pytest.mark.parametrize("setting", KINDS, ids=repr)
@pytest.mark.parametrize(("off_epoch", "epoch"), [(0, 1), (0, 99), (4, 1), (4, 3)])
def test_before_that_epoch_and_by_default_mixing_goes_on(setting, off_epoch, epoch):
    heads = table(3, SMALL, TALL)
    images, rows = photos(heads)
    found = [
        mix(replace(setting, off_epoch=off_epoch), images, None, rows, heads, seed=s, epoch=epoch)[1] for s in range(6)
    ]
    assert all(not torch.equal(one["age"], rows["age"]) for one in found)


@pytest.mark.parametrize("prob", [0.0, 0.3, 0.8, 1.0])
def test_batches_are_mixed_as_often_as_asked(prob):
    heads = table(1, TINY)
    images, rows = photos(heads)
    count = sum(
        not torch.equal(mix(MixUp(prob, 1.0), images, None, rows, heads, seed=seed, epoch=1)[1]["mask"], rows["mask"])
        for seed in range(600)
    )
    assert count / 600 == pytest.approx(prob, abs=0.05)


@pytest.mark.parametrize(("alpha", "spread"), [(0.2, 0.423), (1.0, 0.289), (5.0, 0.151)])
def test_shares_follow_the_beta_distribution(alpha, spread):
    heads = table(1, TINY)
    images, rows = photos(heads, 2)
    shares = []
    for seed in range(1600):
        found = mix(MixUp(1, alpha), images, None, rows, heads, seed=seed, epoch=1)[1]["mask"]
        shares += [found[0, 0].item()] if not torch.equal(found, rows["mask"]) else []
    assert np.mean(shares) == pytest.approx(0.5, abs=0.04)
    assert np.std(shares) == pytest.approx(spread, abs=0.03)  # 1 / (2 sqrt(2 alpha + 1))


# ---- same seed, same pixels; inputs, memory format, device


@pytest.mark.parametrize("setting", KINDS, ids=repr)
def test_the_same_seed_gives_the_same_batch_and_global_seeds_have_no_say(setting):
    heads = table(3, TINY, FLATTISH)
    images, rows = noise(), random_rows(heads)
    found = []
    for start in (1, 2):
        np.random.seed(start), torch.manual_seed(start)
        state = torch.get_rng_state()
        found.append([mix(setting, images, None, rows, heads, seed=seed, epoch=1) for seed in range(12)])
        assert torch.equal(torch.get_rng_state(), state)
    for one, two in zip(*found):
        assert all(torch.equal(one[part][key], two[part][key]) for part in (0, 1) for key in one[part])
    unlike = {b"".join(pixels.numpy().tobytes() for pixels in mixed.values()) for mixed, _ in found[0]}
    assert len(unlike) >= 11


@pytest.mark.parametrize("setting", KINDS, ids=repr)
@pytest.mark.parametrize("form", [torch.channels_last, torch.contiguous_format])
def test_inputs_stay_and_the_memory_format_is_kept(setting, form):
    heads = table(3, TINY, FLATTISH)
    images, rows = noise(), random_rows(heads)
    images = {crop: pixels.contiguous(memory_format=form) for crop, pixels in images.items()}
    before = (
        {crop: pixels.clone() for crop, pixels in images.items()},
        {name: row.clone() for name, row in rows.items()},
    )
    for seed in range(6):
        mixed, found = mix(setting, images, torch.ones(7, 2, dtype=torch.bool), rows, heads, seed=seed, epoch=1)
        assert list(mixed) == list(images) and list(found) == [head.name for head in heads]
        assert all(pixels.is_contiguous(memory_format=form) for pixels in mixed.values())
        assert all(pixels.dtype == torch.uint8 for pixels in mixed.values())
        assert all(found[name].dtype == row.dtype for name, row in rows.items())
    assert all(torch.equal(images[crop], pixels) for crop, pixels in before[0].items())
    assert all(torch.equal(rows[name], row) for name, row in before[1].items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("setting", KINDS, ids=repr)
def test_every_device_makes_the_same_batch(setting):
    heads = table(3, TINY, FLATTISH)
    images, rows, present = noise(), random_rows(heads), torch.rand(7, 2) < 0.7
    far = {crop: pixels.cuda() for crop, pixels in images.items()}, {name: row.cuda() for name, row in rows.items()}
    for seed in range(6):
        here = mix(setting, images, present, rows, heads, seed=seed, epoch=1)
        there = mix(setting, far[0], present.cuda(), far[1], heads, seed=seed, epoch=1)
        for part in (0, 1):
            for key, value in here[part].items():
                assert there[part][key].is_cuda
                torch.testing.assert_close(there[part][key].cpu(), value)


def test_the_competitions_heads_mix_too():
    images = noise((HEADS[0].crops[0].resized(8),), 5)
    heads = [head.on(*images) for head in HEADS]
    for chosen in (heads, flat(heads)):
        rows = random_rows(chosen, 5)
        found = mix(CutMix(1), images, None, rows, chosen, seed=1, epoch=1)[1]
        assert {name: row.shape for name, row in found.items()} == {name: row.shape for name, row in rows.items()}
    assert set(found) == {FLAT[0].name}


# ---- settings and errors


@pytest.mark.parametrize("kind", [CutMix, MixUp, InvertedCutMix])
def test_settings_are_frozen_and_checked(kind):
    name = kind.__name__.lower()
    for field, wrong in [("prob", (-0.1, 1.1, "often")), ("alpha", (0, -1, float("inf"))), ("off_epoch", (-1, 2.5))]:
        for value in wrong:
            with pytest.raises(ValueError, match=f"{name}: {field} is {value!r}; expected a "):
                kind(**{field: value})
    with pytest.raises(FrozenInstanceError):
        kind().prob = 1
    assert from_dict(kind, {k: v for k, v in to_dict(kind(off_epoch=3)).items() if k != "name"}) == kind(off_epoch=3)


def test_defaults_are_the_papers_and_the_diarys():
    assert CutMix() == CutMix(prob=0.5, alpha=1.0, shape="box", off_epoch=0)
    assert MixUp() == MixUp(prob=0.5, alpha=0.2, off_epoch=0)
    assert InvertedCutMix() == InvertedCutMix(prob=0.8, alpha=1.0, off_epoch=0)


def test_an_unknown_shape_is_named():
    with pytest.raises(ValueError, match="cutmix: shape is 'circle'; expected one of box, strip, half"):
        CutMix(shape="circle")


def test_what_does_not_fit_is_named():
    heads = table(3, TINY, FLATTISH)
    images, rows = noise(), random_rows(heads)

    def call(setting=MixUp(0), images=images, present=None, rows=rows):
        return mix(setting, images, present, rows, heads, seed=0, epoch=1)

    with pytest.raises(TypeError, match="'cutmix' is no mixing; expected CutMix, MixUp or InvertedCutMix"):
        call("cutmix")
    with pytest.raises(
        KeyError, match=r"target rows are for \['mask'\]; expected those of \['mask', 'gender', 'age'\]"
    ):
        call(rows={"mask": rows["mask"]})
    with pytest.raises(KeyError, match=r"heads read crops \['body'\], the batch has \['face'\]"):
        call(images={TINY: images[TINY]})
    with pytest.raises(ValueError, match=r"images and target rows hold \[6, 7\] photos; expected one number"):
        call(rows={**rows, "age": rows["age"][:6]})
    with pytest.raises(ValueError, match=r"present has shape \(7, 3\); expected \(7, 2\)"):
        call(present=torch.ones(7, 3, dtype=torch.bool))


def test_the_settings_import_no_heavy_package():
    code = "import sys, multihead.mixing; print(sorted({'torch', 'numpy', 'multihead.heads'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
