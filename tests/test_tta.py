import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from multihead.crops import BODY, FACE, FULL
from multihead.evaluation import evaluate
from multihead.heads import AGE, GENDER, HEADS, MASK, Head, flat, space
from multihead.joined import Ensemble, combine
from multihead.model import Model
from multihead.prediction import predict
from multihead.reading import read
from multihead.tta import TTA, View, from_names, see, views

SMALL, FACES, BODIES = FULL.resized(32, 24), FACE.resized(32), BODY.resized(48, 32)


def model_of(heads=HEADS, *crops, seed=0):
    torch.manual_seed(seed)
    model = Model("test_resnet", [head.on(*(crops or (SMALL,))) for head in heads])
    for head in model.head.values():
        nn.init.normal_(head.weight, std=2)
    return model.eval()


def images_of(model, count=3, seed=1):
    rng = np.random.default_rng(seed)
    return {c: torch.from_numpy(rng.integers(0, 256, (count, 3, *c.size), np.uint8)) for c in model.crops}


def seen_by_hand(pixels, view):
    """A view of pixels (B, 3, H, W) in numpy: padded by its mirror image on all sides, and a window of that."""
    height, width = pixels.shape[2:]
    tall, wide = height - 1, width - 1
    padded = np.pad(pixels, ((0, 0), (0, 0), (tall, tall), (wide, wide)), mode="reflect")
    down, right = round(view.down * height), round(view.right * width)
    window = padded[:, :, tall - down : tall - down + height, wide - right : wide - right + width]
    return window[..., ::-1] if view.flip else window


class Stub(nn.Module):
    """Answers two heads from the brightness of the left and of the upper half, so that views have unlike answers."""

    def __init__(self):
        super().__init__()
        self.space, self.crops, self.prior = space([MASK, GENDER]), (SMALL,), None
        self.anchor = nn.Parameter(torch.zeros(1))
        self.asked = []

    def probs(self, images, present=None):
        pixels = images[SMALL].float() / 255
        self.asked.append((set(images), None if present is None else present.clone()))
        logits = torch.stack(
            [pixels[:, :, :, :12].mean((1, 2, 3)) * (k + 1) - pixels[:, :, :16].mean((1, 2, 3)) * k for k in range(6)],
            1,
        )
        return (8 * logits).softmax(1)  # float32: a TTA gives float64


# ---- the views


def test_views_by_hand():
    assert views(flip=False) == (View(),)
    assert views() == (View(), View(flip=True))
    assert views(False, 0.1, (0.9, 1.2)) == (
        View(), View(down=-0.1), View(down=0.1), View(right=-0.1), View(right=0.1), View(scale=0.9), View(scale=1.2),
    )  # fmt: skip


def test_shifts_and_mirrors_by_hand():
    row = torch.arange(1, 5, dtype=torch.uint8).expand(1, 3, 4, 4)
    assert see(row, View(right=0.25))[0, 0, 0].tolist() == [2, 1, 2, 3]
    assert see(row, View(right=-0.25))[0, 0, 0].tolist() == [2, 3, 4, 3]
    assert see(row, View(flip=True))[0, 0, 0].tolist() == [4, 3, 2, 1]
    column = row.transpose(2, 3)
    assert see(column, View(down=0.5))[0, 2, :, 1].tolist() == [3, 2, 1, 2]
    assert see(column, View(down=-0.5))[0, 2, :, 1].tolist() == [3, 4, 3, 2]


@given(
    st.sampled_from([-0.5, -0.2, 0.0, 0.13, 0.5]),
    st.sampled_from([-0.4, 0.0, 0.3]),
    st.booleans(),
    st.tuples(st.integers(2, 9), st.integers(2, 9)),
)
def test_shifts_are_those_of_numpy(down, right, flip, size):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, *size), np.uint8)
    view = View(flip, down, right)
    assert np.array_equal(see(torch.from_numpy(pixels), view).numpy(), seen_by_hand(pixels, view))


def test_scales_are_a_cut_or_a_frame_and_a_resize():
    pixels = images_of(Stub())[SMALL]  # 32 x 24
    grown = nn.functional.interpolate(pixels[:, :, 4:-4, 3:-3].double(), (32, 24), mode="bilinear")
    assert (see(pixels, View(scale=32 / 24)).double() - grown).abs().max() <= 0.5 + 1e-4
    framed = np.pad(pixels.numpy(), ((0, 0), (0, 0), (16, 16), (12, 12)), mode="reflect")
    shrunk = nn.functional.interpolate(torch.from_numpy(framed).double(), (32, 24), mode="bilinear", antialias=True)
    assert (see(pixels, View(scale=0.5)).double() - shrunk).abs().max() <= 0.5 + 1e-4


@given(st.floats(0.5, 2), st.tuples(st.integers(1, 20), st.integers(1, 20)))
def test_scales_keep_size_type_and_symmetry(scale, size):
    pixels = torch.from_numpy(np.random.default_rng(3).integers(0, 256, (1, 3, *size), np.uint8))
    seen = see(pixels, View(scale=scale))
    assert seen.shape == pixels.shape and seen.dtype == torch.uint8
    assert seen.min() >= pixels.min() and seen.max() <= pixels.max()
    apart = (see(pixels.flip(3), View(scale=scale)).flip(3).int() - seen.int()).abs()
    assert apart.max() <= 1  # rounding alone


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_views_keep_the_memory_format_and_the_photo(form):
    pixels = images_of(Stub())[SMALL].contiguous(memory_format=form)
    before = pixels.clone()
    for view in views(True, 0.1, (0.8, 1.3)):
        assert see(pixels, view).is_contiguous(memory_format=form)
    assert torch.equal(pixels, before)


# ---- the mean over them


@torch.no_grad()
def test_probs_are_the_mean_over_the_views():
    stub = Stub()
    images = images_of(stub)
    tta = TTA(stub, shifts=0.125)
    pixels = images[SMALL].numpy()
    moved = [(0, 0, False), (0, 0, True), (-4, 0, False), (4, 0, False), (0, -3, False), (0, 3, False)]
    wanted = []
    for down, right, flip in moved:
        padded = np.pad(pixels, ((0, 0), (0, 0), (4, 4), (3, 3)), mode="reflect")
        window = np.roll(padded, (down, right), (2, 3))[:, :, 4:-4, 3:-3]
        wanted.append(stub.probs({SMALL: torch.from_numpy((window[..., ::-1] if flip else window).copy())}).numpy())
    found = tta.probs(images)
    assert found.dtype == torch.float64 and len(tta.views) == 6
    np.testing.assert_allclose(found.numpy(), np.mean(wanted, axis=0), atol=1e-7)
    assert np.ptp(wanted, axis=0).max() > 0.05  # the views do differ


@torch.no_grad()
def test_the_photo_alone_is_the_model():
    model = model_of()
    images = images_of(model)
    tta = TTA(model, flip=False)
    assert len(tta.views) == 1 and torch.equal(tta.probs(images), model.probs(images))


@torch.no_grad()
@pytest.mark.parametrize("heads", [HEADS, flat([head.on(SMALL) for head in HEADS])], ids=["heads", "flat"])
def test_a_mirrored_photo_gets_the_same_answer(heads):
    model = model_of(heads) if heads == HEADS else Model("test_resnet", heads).eval()
    images = images_of(model)
    mirrored = {crop: pixels.flip(3) for crop, pixels in images.items()}
    torch.testing.assert_close(TTA(model).probs(images), TTA(model).probs(mirrored))
    assert not torch.allclose(model.probs(images), model.probs(mirrored))
    whole = TTA(model, shifts=0.1, scales=(0.9, 1.1)).probs(images)
    torch.testing.assert_close(whole.sum(1), torch.ones(3, dtype=torch.float64))


@torch.no_grad()
def test_all_crops_see_one_view_and_absent_ones_stay_absent():
    model = model_of(HEADS, FACES, BODIES)
    images = images_of(model)
    present = torch.tensor([[True, True], [True, False], [False, True]])
    mirrored = {crop: pixels.flip(3) for crop, pixels in images.items()}
    wanted = (model.probs(images, present) + model.probs(mirrored, present)) / 2
    torch.testing.assert_close(TTA(model).probs(images, present), wanted)
    stub = Stub()
    TTA(stub, scales=[1.5]).probs(images_of(stub) | images, present[:, :1])
    assert len(stub.asked) == 3
    assert all(crops == {SMALL} and torch.equal(rows, present[:, :1]) for crops, rows in stub.asked)


@torch.no_grad()
def test_in_and_around_ensembles():
    one, other = model_of(seed=1), model_of(HEADS, FACES, seed=2)
    both = Ensemble([TTA(one), other], [3, 1])
    images = images_of(both)
    wanted = (3 * TTA(one).probs({SMALL: images[SMALL]}) + other.probs({FACES: images[FACES]})) / 4
    torch.testing.assert_close(both.probs(images), wanted)
    around = TTA(Ensemble([one, other], [3, 1]))
    wanted = (3 * TTA(one).probs({SMALL: images[SMALL]}) + TTA(other).probs({FACES: images[FACES]})) / 4
    torch.testing.assert_close(around.probs(images), wanted)
    joined = TTA(combine([model_of([MASK], seed=3), model_of([GENDER, AGE], seed=4)]))
    assert joined.probs(images_of(joined)).shape == (3, 18)


def test_it_shows_what_the_model_shows():
    model = model_of()
    model.prior = (1 / 18,) * 18
    tta = TTA(model)
    assert (tta.space, tta.crops, tta.prior, tta.heads) == (model.space, model.crops, model.prior, model.heads)
    assert not tta.training and TTA(model_of().train()).training
    assert TTA(Ensemble([model])).heads == model.heads
    assert TTA(Ensemble([model])).prior == pytest.approx(model.prior)
    tta.train()
    assert model.training and [p.shape for p in tta.parameters()] == [p.shape for p in model.parameters()]


def test_it_is_evaluated_and_predicts_like_a_model(people):
    photos = read(people / "train")[:10]
    model = model_of()
    tta = TTA(model, scales=(1.2,))
    scores = evaluate(tta, photos, workers=0)
    plain = evaluate(model, photos, workers=0)
    zoomed = evaluate(Ensemble([TTA(model), TTA(model, flip=False, scales=(1.2,))]), photos, workers=0)
    assert scores.n == 10 and np.abs(scores.probs - plain.probs).max() > 1e-3
    # (photo + mirror) / 2 and (photo + zoom) / 2: twice their mean is three views with the photo twice
    np.testing.assert_allclose(scores.probs, (4 * zoomed.probs - plain.probs) / 3, atol=1e-5)
    table = predict(tta, photos)
    columns = [f"joint:{index}" for index in range(18)]
    np.testing.assert_allclose(table[columns].to_numpy(), scores.probs, atol=1e-5)
    assert (table.error == "").all() and not tta.training


def test_a_heads_own_edges_count(people):
    photos = read(people / "train")[:20]
    early = model_of([MASK, GENDER, Head("age", AGE.classes, (SMALL,), edges=(20, 25))])
    labels = evaluate(TTA(early), photos, workers=0).labels
    assert np.array_equal(labels, photos.labels(early.heads)) and not np.array_equal(labels, photos.labels())


# ---- what is refused, and the words


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shifts": 0.6}, r"tta: shifts is 0.6; expected a number >= 0 and <= 0.5"),
        ({"shifts": -0.1}, "tta: shifts is -0.1"),
        ({"shifts": float("nan")}, "tta: shifts is nan"),
        ({"scales": (0.4,)}, "tta: scales is 0.4; expected a number >= 0.5 and <= 2"),
        ({"scales": (1.1, 2.5)}, "tta: scales is 2.5"),
        ({"scales": (1.0,)}, "none of them 1"),
        ({"scales": (1.1, 1.1)}, r"scales are \(1.1, 1.1\); expected unlike numbers"),
    ],
)
def test_settings_outside_their_bounds_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TTA(model_of(), **settings)


@pytest.mark.parametrize(
    ("names", "settings"),
    [
        ([], {"flip": False}),
        (["flip"], {}),
        (["shift"], {"flip": False, "shifts": 0.06}),
        (["scale"], {"flip": False, "scales": (0.9, 1.1)}),
        (["shift=0.1", "flip"], {"shifts": 0.1}),
        (["flip", "scale=0.8,1.2,1.4", "shift=.02"], {"shifts": 0.02, "scales": (0.8, 1.2, 1.4)}),
    ],
)
def test_words_name_the_views(names, settings):
    model = model_of()
    tta = from_names(model, names)
    assert tta.views == TTA(model, **settings).views and tta.model is model


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["flop"], "unknown view 'flop'; did you mean 'flip'?"),
        (["flip", "scales=0.9"], "unknown view 'scales=0.9'; did you mean 'scale'?"),
        (["zzz"], "unknown view 'zzz'; expected some of flip, shift, scale"),
        (["flip", "flip"], "'flip' is named twice"),
        (["flip=1"], "flip takes no value, got '1'"),
        (["shift=a"], "shift=a is not made of numbers"),
        (["scale=0.9,"], "scale=0.9, is not made of numbers"),
        (["shift=.1,.2"], "shift takes one number, got '.1,.2'"),
        (["shift=0.9"], "tta: shifts is 0.9; expected"),
    ],
)
def test_wrong_words_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        from_names(model_of(), names)
