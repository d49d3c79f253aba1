"""Convolutions that compute their activations, beside torch's own, one after the other."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_prepared import lively
from timm.layers import Conv2dSame
from torch import nn

from multihead import FACE, FULL, HEADS, Ensemble, fusing
from multihead.convolutions import ACTIVATIONS, SEVERAL, Chain, FusedConv, chain_parts
from multihead.fusing import Mirrored, planned
from multihead.modes import Mode
from multihead.prepared import LARGEST, prepared, ready
from multihead.timing import pixels

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
CPU = torch.device("cpu")


def near(found, expected):
    return torch.allclose(found, expected, rtol=0, atol=1e-4)


def fused(backbone, examples, judge=near):
    """The backbone fused, None where it cannot be."""
    found = planned(backbone, examples, judge)
    return found and found[1]


def kinds(module):
    """How many fused convolutions there are, with how many activations; and whether the module is mirrored."""
    convs = [part for part in module.modules() if isinstance(part, FusedConv)]
    mirrored = any(isinstance(part, Mirrored) for part in module.modules())
    return len(convs), sum(conv.what[0] != "none" for conv in convs), mirrored


BACKBONES = {
    "tf_efficientnet_lite0": (49, 33, True),
    "efficientnet_lite0": (49, 33, False),
    "tf_mobilenetv3_small_minimal_100": (None, None, True),
    "test_resnet": (None, None, False),
    "regnety_002": (None, None, False),
    "convnext_atto": (None, 0, False),
}


@pytest.mark.parametrize("size", [64, 75])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_fused_backbones_answer_the_same(backbone, size):
    model = lively(backbone, [head.on(FULL.resized(size)) for head in HEADS]).eval()
    images, fast = pixels(model.crops, 3, CPU), ready(model, Mode(fused=True))
    assert fast.backbone.mode == Mode(fused=True)
    for found, expected in zip(kinds(fast), BACKBONES[backbone], strict=True):
        assert found == expected if expected is not None else found > 0
    with torch.inference_mode():
        torch.testing.assert_close(fast.probs(images), model.probs(images), rtol=0, atol=1e-5)


def test_both_crops_are_looked_at():
    face, full = FACE.resized(48), FULL.resized(64)
    model = lively("tf_efficientnet_lite0", [HEADS[0].on(face), HEADS[1].on(full), HEADS[2].on(face, full)]).eval()
    images, fast = pixels(model.crops, 3, CPU), ready(model, Mode(fused=True))
    assert kinds(fast)[2]
    with torch.inference_mode():
        torch.testing.assert_close(fast.probs(images), model.probs(images), rtol=0, atol=1e-5)
    seen = []
    examples = [torch.rand(1, 3, 32, 32), torch.rand(1, 3, 48, 40)]
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval()
    assert fused(backbone, examples, lambda found, expected: seen.append(found.shape) or near(found, expected))
    assert len(seen) == 2
    assert fused(backbone, examples, lambda found, _: found.shape[2] != 46) is None


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_each_activation_is_torchs(kind):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, groups=1), kind()).eval()
    images = torch.randn(2, 3, 20, 20).contiguous(memory_format=torch.channels_last) * 4
    made = fused(plain, [images])
    assert kinds(made) == (1, 1, False)
    with torch.no_grad():
        torch.testing.assert_close(made(images), plain(images), rtol=1e-4, atol=1e-5)


def test_gelu_of_both_kinds_and_other_slopes():
    images = torch.randn(2, 3, 12, 12) * 3
    for act in (nn.GELU("tanh"), nn.GELU("none"), nn.LeakyReLU(0.3)):
        plain = nn.Sequential(nn.Conv2d(3, 8, 1), act).eval()
        with torch.no_grad():
            torch.testing.assert_close(fused(plain, [images])(images), plain(images), rtol=1e-4, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    kernel=st.tuples(st.sampled_from([1, 3, 5]), st.sampled_from([1, 3, 5])),
    stride=st.integers(1, 2),
    size=st.tuples(st.integers(5, 19), st.integers(5, 19)),
    grouped=st.booleans(),
    seed=st.integers(0, 9),
)
def test_tensorflows_padding_is_a_convolutions_own_in_the_mirror(kernel, stride, size, grouped, seed):
    torch.manual_seed(seed)
    conv = Conv2dSame(4, 8, kernel, stride, groups=4 if grouped else 1).eval().requires_grad_(False)
    images = torch.randn(2, 4, *size)
    assert fusing._turns(conv) == (stride <= min(kernel))
    if fusing._turns(conv):
        found = FusedConv(conv, None, images.shape, True)(images.flip(2, 3)).flip(2, 3)
        torch.testing.assert_close(found, conv(images), rtol=1e-4, atol=1e-5)
    found = FusedConv(conv, nn.ReLU(), images.shape, False)(images)
    torch.testing.assert_close(found, conv(images).relu(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "other", [nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 8, 1, 2), nn.Conv2d(8, 8, 2), Conv2dSame(8, 8, 1, 2)]
)
def test_what_begins_on_the_left_is_not_mirrored(other):
    backbone = nn.Sequential(Conv2dSame(3, 8, 3, 2), nn.ReLU(), other, nn.ReLU()).eval().requires_grad_(False)
    images = torch.randn(2, 3, 16, 16)
    made = fused(backbone, [images])
    assert kinds(made) == (2, 2, False) and made[0].pads
    torch.testing.assert_close(made(images), backbone(images), rtol=1e-4, atol=1e-5)


def test_pools_that_begin_on_the_left_are_noticed_by_the_features():
    backbone = nn.Sequential(Conv2dSame(3, 8, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten())
    backbone.eval().requires_grad_(False)
    images = torch.randn(2, 3, 16, 16)
    made = fused(backbone, [images])
    assert kinds(made) == (1, 1, False)
    torch.testing.assert_close(made(images), backbone(images), rtol=1e-4, atol=1e-5)


class Shared(nn.Module):
    """A convolution whose result is activated, and read besides."""

    def __init__(self):
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 8, 3), nn.ReLU()

    def forward(self, images):
        seen = self.conv(images)
        return self.act(seen) + seen


class Added(nn.Module):
    """A convolution to whose result something is added in place before it is activated, as in a residual block."""

    def __init__(self):
        super().__init__()
        self.first, self.conv, self.act = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(inplace=True)

    def forward(self, images):
        short = self.first(images)
        seen = self.conv(short)
        seen += short
        return self.act(seen)


class Twice(nn.Module):
    """A convolution and an activation that are used twice."""

    def __init__(self):
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()

    def forward(self, images):
        return self.act(self.conv(self.act(self.conv(images))))


def test_only_what_is_read_by_its_activation_alone_is_fused():
    images = torch.randn(2, 3, 16, 16)
    assert fused(Shared().eval(), [images]) is None
    assert fused(Twice().eval(), [images]) is None
    plain = Added().eval()
    made = fused(plain, [images])
    assert kinds(made) == (2, 0, False)
    with torch.no_grad():
        torch.testing.assert_close(made(images), plain(images), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_fused_says_so_and_answers():
    model = lively("test_resnet", [head.on(FULL.resized(64)) for head in HEADS]).eval()
    width = model.head["mask"].in_features
    model.backbone = nn.Sequential(Shared(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, width)).eval()
    images, fast = pixels(model.crops, 2, CPU), ready(model, Mode(fused=True))
    assert fast.backbone.mode == Mode()
    with torch.inference_mode():
        torch.testing.assert_close(fast.probs(images), model.probs(images), rtol=0, atol=1e-6)


def test_a_mode_that_was_decided_and_cannot_be_had_is_said(monkeypatch, capsys):
    monkeypatch.setenv("MULTIHEAD_MODE", "f32 fused")  # without channels_last
    _, (choice,) = prepared(lively("test_resnet").eval())
    assert choice.mode == Mode(channels_last=False, keep_memory=False)
    assert "answers in mode f32: test_resnet cannot be in f32 fused" in capsys.readouterr().err


@pytest.mark.parametrize("backbone", ["tf_efficientnet_cc_b0_4e", "maxvit_tiny_tf_224"])
def test_weights_of_other_modules_are_not_seen_in_a_mirror(backbone):
    import timm

    made = timm.create_model(backbone, num_classes=0)
    assert any(type(part) is Conv2dSame for part in made.modules()) and not fusing._mirrors(made)


def test_the_callers_contexts_are_not_felt():
    """Neither inference mode, whose tensors do not count their versions, nor autocast."""
    model = lively("tf_efficientnet_lite0").eval()
    images = pixels(model.crops, 2, CPU)
    with torch.inference_mode():
        expected = model.probs(images)
        fast = ready(model, Mode(fused=True))
    assert fast.backbone.mode.fused
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        whole = fast.backbone(model.normalise(images[model.crops[0]]))
    assert torch.equal(whole, fast.backbone(model.normalise(images[model.crops[0]])))
    with torch.autocast("cpu", torch.bfloat16):
        other = ready(lively("tf_efficientnet_lite0").eval(), Mode(fused=True))
    with torch.inference_mode():
        assert other.backbone.mode.fused and torch.equal(other.probs(images), fast.probs(images))
        torch.testing.assert_close(fast.probs(images), expected, rtol=0, atol=1e-5)


def test_other_types_and_a_torch_told_to_leave_onednn_are_left_alone():
    model = lively("test_resnet").eval().double()
    images = pixels(model.crops, 3, CPU)
    assert torch.equal(ready(model, Mode(fused=True)).probs(images), model.probs(images))
    torch._C._set_mkldnn_enabled(False)  # what torch.backends.mkldnn.flags sets, without its warning of TF32
    try:
        assert fused(nn.Sequential(nn.Conv2d(3, 8, 3)).eval(), [torch.rand(1, 3, 8, 8)]) is None
    finally:
        torch._C._set_mkldnn_enabled(True)


def test_prepared_models_are_copied_and_prepared_again(monkeypatch):
    monkeypatch.setenv("MULTIHEAD_MODE", str(Mode(fused=True)))
    model = lively("test_resnet").eval()
    images = pixels(model.crops, 3, CPU)
    fast, (choice,) = prepared(model)
    again, none = prepared(fast)
    assert choice.mode == Mode(fused=True) and none == []
    with torch.inference_mode():
        for other in (again, copy.deepcopy(fast), copy.deepcopy(Ensemble([fast, fast]))):
            torch.testing.assert_close(other.probs(images), fast.probs(images), rtol=0, atol=1e-12)


def test_another_torch_without_the_operations_is_no_error(monkeypatch):
    def missing(*_):
        raise AttributeError("no such operation")

    backbone, images = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval(), torch.rand(1, 3, 8, 8)
    assert fused(backbone, [images]) is not None
    monkeypatch.setattr(fusing, "FusedConv", missing)
    assert fused(backbone, [images]) is None


def test_sixteen_bits_are_fused_where_they_are_computed():
    model = lively("test_resnet").eval()
    images, fast = pixels(model.crops, 3, CPU), ready(model, Mode("bf16", fused=True))
    assert fast.backbone.mode.fused == bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) == (kinds(fast)[0] > 0)
    with torch.inference_mode():
        assert (fast.probs(images) - model.probs(images)).abs().max() < 0.05


@pytest.mark.parametrize("mode", [Mode(fused=True, channels_last=False), Mode(fused=True, compiled=True)])
def test_other_layouts_and_compiled_backbones_are_not_fused(mode):
    fast = ready(lively("test_resnet").eval(), mode)
    assert fast.backbone.mode.fused is False and kinds(fast)[0] == 0


@settings(max_examples=60, deadline=None)
@given(
    kernel=st.sampled_from([1, 3, 5]),
    stride=st.integers(1, 2),
    size=st.tuples(st.integers(5, 19), st.integers(5, 19)),
    count=st.integers(1, 4),
    rows=st.sampled_from([1, SEVERAL, SEVERAL + 1]),
    same=st.booleans(),
    seed=st.integers(0, 9),
)
def test_a_chain_is_its_convolutions_one_after_the_other(kernel, stride, size, count, rows, same, seed):
    torch.manual_seed(seed)
    wide, narrow = nn.Conv2d(5, 8 * count, 1), nn.Conv2d(8 * count, 6, 1, bias=seed % 2 == 0)
    options = {"groups": 8 * count, "bias": seed % 3 > 0}
    deep = Conv2dSame(8 * count, 8 * count, kernel, stride, **options) if same else None
    deep = deep or nn.Conv2d(8 * count, 8 * count, kernel, stride, kernel // 2, **options)
    plain = nn.Sequential(wide, nn.ReLU6(), deep, nn.SiLU(), narrow).eval().requires_grad_(False)
    images = torch.randn(rows, 5, *size).contiguous(memory_format=torch.channels_last) * 3
    shapes = [images.shape, (1, 8 * count, *size), plain[:4](images).shape]
    convs = list(zip((wide, deep, narrow), (plain[1], plain[3], None), shapes, strict=True))
    torch.testing.assert_close(Chain(convs, False, count)(images), plain(images), rtol=1e-4, atol=1e-4)
    if same and fusing._turns(deep):
        seen = images.flip(2, 3).contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(Chain(convs, True, count)(seen).flip(2, 3), plain(images), rtol=1e-4, atol=1e-4)


def test_parts_of_a_chain_by_hand():
    deep = nn.Conv2d(96, 96, 3, 2, 1, groups=96)
    assert chain_parts(deep, (1, 96, 112, 112)) == 3  # 3 rows of 112 pixels of 96 numbers are 129 kB
    assert chain_parts(deep, (1, 96, 56, 56)) == 2 and chain_parts(deep, (1, 96, 40, 40)) == 1
    assert chain_parts(nn.Conv2d(672, 672, 5, 1, 2, groups=672), (1, 672, 14, 14)) == 1  # short rows do not pay
    assert chain_parts(nn.Conv2d(20, 20, 5, groups=20), (1, 20, 900, 900)) == 1  # eight channels lie together
    assert chain_parts(nn.Conv2d(160, 160, 5, groups=160), (1, 160, 900, 900)) == 4


@pytest.mark.parametrize(
    ("backbone", "count"), [("tf_efficientnet_lite0", 5), ("mobilenetv2_100", 6), ("efficientnet_b0", 0)]
)
def test_chains_are_found_and_answer_the_same(backbone, count):
    """Where a squeeze reads what lies between, as in efficientnet_b0, there is none."""
    model = lively(backbone, [head.on(FULL.resized(224)) for head in HEADS]).eval()
    fast = ready(model, Mode(fused=True))
    assert sum(isinstance(part, Chain) for part in fast.modules()) == count
    for rows in (1, SEVERAL):
        images = pixels(model.crops, rows, CPU)
        with torch.inference_mode():
            torch.testing.assert_close(fast.probs(images), model.probs(images), rtol=0, atol=1e-5)


class Inverted(nn.Module):
    """Three convolutions in a row, of which what is said is read besides."""

    def __init__(self, read):
        super().__init__()
        self.wide, self.deep = nn.Conv2d(4, 96, 1), nn.Conv2d(96, 96, 3, padding=1, groups=96)
        self.first, self.second, self.narrow, self.read = nn.ReLU(), nn.ReLU(), nn.Conv2d(96, 8, 1), read

    def forward(self, images):
        seen = {"wide": self.first(self.wide(images))}
        seen["deep"] = self.second(self.deep(seen["wide"]))
        found = self.narrow(seen["deep"])
        return found + seen[self.read].mean((1, 2, 3), keepdim=True) if self.read else found


@pytest.mark.parametrize("read", ["", "wide", "deep"])
def test_a_chain_is_read_at_its_end_alone(read):
    torch.manual_seed(0)
    plain, images = Inverted(read).eval(), torch.randn(1, 4, 112, 112)
    made = fused(plain, [images])
    assert sum(isinstance(part, Chain) for part in made.modules()) == (not read)
    assert kinds(made)[:2] == ((0, 0) if not read else (3, 2))
    with torch.no_grad():
        torch.testing.assert_close(made(images), plain(images), rtol=1e-4, atol=1e-4)


def test_what_a_chain_makes_of_several_photos_is_looked_at(monkeypatch):
    monkeypatch.setattr(FusedConv, "add_to", lambda *arguments: None)
    made = fused(Inverted("").eval(), [torch.randn(1, 4, 112, 112)])
    assert kinds(made)[:2] == (3, 2)


def test_chains_that_would_share_a_convolution_are_one():
    """A convolution to few channels that is also the one to many of the next three is computed once."""
    torch.manual_seed(0)
    several = [nn.Conv2d(4, 96, 1), nn.ReLU(), nn.Conv2d(96, 96, 3, padding=1, groups=96), nn.Conv2d(96, 64, 1)]
    more = [nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.ReLU(), nn.Conv2d(64, 8, 1)]
    plain, images = nn.Sequential(*several, *more).eval(), torch.randn(2, 4, 224, 224)
    plan, made = planned(plain, [images], lambda found, expected: torch.allclose(found, expected, atol=1e-4))
    assert plan.chains == (("0", "2", "3"),)
    with torch.no_grad():
        torch.testing.assert_close(made(images), plain(images), rtol=1e-4, atol=1e-4)


def test_what_chains_give_on_their_way_counts_for_how_many_photos_are_computed_together(monkeypatch):
    fast = ready(lively("fbnetc_100", [head.on(FULL.resized(224)) for head in HEADS]).eval(), Mode(fused=True))
    sizes, plain = [], FusedConv.forward
    monkeypatch.setattr(FusedConv, "forward", lambda conv, x: sizes.append(plain(conv, x).nbytes) or plain(conv, x))
    with torch.inference_mode():
        fast.probs(pixels(fast.crops, SEVERAL, CPU))
    assert any(isinstance(part, Chain) for part in fast.modules())
    assert fast.backbone.rows == LARGEST // (max(sizes) // SEVERAL)
