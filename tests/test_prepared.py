"""Copies made for answering, beside the models that they are copies of."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from multihead import FACE, FULL, HEADS, TTA, Adjusted, Ensemble, Model, combine
from multihead.modes import Mode, Pins
from multihead.prepared import Lowered, prepared, ready
from multihead.timing import pixels

CPU = torch.device("cpu")
SMALL = FULL.resized(64)


def lively(backbone, heads=None, seed=0):
    """A model whose batch norms hold statistics and weights as after training."""
    torch.manual_seed(seed)
    model = Model(backbone, heads or [head.on(SMALL) for head in HEADS])
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.2)
    return model


def norms(model):
    return sum(isinstance(part, nn.BatchNorm2d) for part in model.modules())


FOLDED = ["test_resnet", "tf_efficientnet_lite0", "mobilenetv3_small_050", "seresnext26d_32x4d", "regnety_002"]


@pytest.mark.parametrize("backbone", FOLDED)
def test_folded_copies_answer_the_same(backbone):
    model = lively(backbone)
    images = pixels(model.crops, 4, CPU)
    fast = ready(model, Mode())
    assert norms(model) > 0 and norms(fast) == 0 and model.training and not fast.training
    with torch.inference_mode():
        torch.testing.assert_close(fast.probs(images), model.eval().probs(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("backbone", ["resnetv2_50", "nfnet_l0", "convnext_atto"])
def test_what_cannot_be_folded_is_left(backbone):
    """Norms before their convolution, standardised weights, and no batch norm at all."""
    model = lively(backbone).eval()
    images = pixels(model.crops, 2, CPU)
    with torch.inference_mode():
        torch.testing.assert_close(ready(model, Mode()).probs(images), model.probs(images), rtol=0, atol=1e-5)


class Odd(nn.Module):
    """A convolution whose result is read twice: folding its norm would change the other reading."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

    def forward(self, images):
        seen = self.conv(images)
        return (self.norm(seen) + seen).mean((2, 3))


def test_a_fold_that_changes_the_features_is_undone():
    model = lively("test_resnet", [HEADS[0].on(SMALL)])
    width = model.head["mask"].in_features
    torch.manual_seed(0)
    model.backbone = nn.Sequential(Odd(), nn.Linear(8, width))
    model.backbone[0].norm.running_var.fill_(4.0)
    fast, images = ready(model, Mode()), pixels(model.crops, 4, CPU)
    assert norms(fast) == 1
    with torch.inference_mode():
        torch.testing.assert_close(fast.probs(images), model.eval().probs(images), rtol=0, atol=1e-6)


@pytest.mark.parametrize("backbone, held", [("test_resnet", torch.bfloat16), ("resnetv2_50", torch.float32)])
def test_sixteen_bits_answer_nearly_the_same(backbone, held):
    """Where a batch norm is left its weights stay in f32, and only the passes are in 16 bits."""
    model = lively(backbone).eval()
    images, fast = pixels(model.crops, 4, CPU), ready(model, Mode("bf16"))
    assert fast.backbone.dtype == held
    with torch.inference_mode():
        found, expected = fast.probs(images), model.probs(images)
    assert 1e-7 < (found - expected).abs().max() < 0.05 and found.dtype == torch.float64
    torch.testing.assert_close(found.sum(1), torch.ones(4, dtype=torch.float64))


def test_large_batches_are_computed_in_parts(monkeypatch):
    model = lively("test_resnet").eval()
    images = pixels(model.crops, 7, CPU)
    whole = ready(model, Mode(channels_last=False))
    assert whole.backbone.rows > 7
    monkeypatch.setattr("multihead.prepared.LARGEST", 3 * 4 * 64 * 32 * 32)  # what three photos give at most
    parts = ready(model, Mode())
    sizes = []
    parts.backbone.backbone.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    with torch.inference_mode():
        torch.testing.assert_close(parts.probs(images), whole.probs(images), rtol=0, atol=1e-6)
    assert max(sizes) <= parts.backbone.rows < 7 and sum(sizes) == 7


def test_weights_that_16_bits_cannot_hold_stay_in_32():
    model = lively("test_resnet").eval()
    fast = ready(model, Mode())
    backbone = nn.Sequential(fast.backbone.backbone, Far())
    example = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        features = backbone(example)
    made = Lowered(backbone, [example], features, Mode("bf16"))
    assert made.dtype == torch.float32 and made.mode == Mode()  # under autocast the features would be as far off
    with torch.inference_mode():
        torch.testing.assert_close(made(example), features)


class Far(nn.Module):
    """Differences of large numbers, which bfloat16 loses."""

    def forward(self, features):
        return (features + 1e4) - 1e4


def test_absent_crops_are_answered_by_the_learned_vector():
    face = FACE.resized(32)
    heads = [HEADS[0].on(face), HEADS[1].on(face, SMALL), HEADS[2].on(SMALL)]
    model = lively("test_resnet", heads).eval()
    nn.init.normal_(model.absent)
    images = pixels(model.crops, 4, CPU)
    present = torch.tensor([[True, True], [False, True], [True, False], [False, False]])
    with torch.inference_mode():
        expected = model.probs(images, present)
        for mode in (Mode(), Mode(channels_last=False)):
            found = ready(model, mode).probs(images, present)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_models_of_models_are_prepared_inside():
    one, two = lively("test_resnet", seed=1).eval(), lively("resnet10t", seed=2).eval()
    three = combine([lively("test_resnet", [head.on(SMALL)], seed=3).eval() for head in HEADS])
    whole = Ensemble([Adjusted(one, {"mask": 2.0}), TTA(two), three], weights=[1, 2, 3])
    before = copy.deepcopy(whole.state_dict())
    fast, choices = prepared(whole, pins=Pins("f32", True, False))
    assert len(choices) == 5 and norms(fast) == 0 and norms(whole) > 0
    images = pixels(whole.crops, 3, CPU)
    with torch.inference_mode():
        torch.testing.assert_close(fast.probs(images), whole.probs(images), rtol=0, atol=1e-5)
    assert all(torch.equal(before[name], value) for name, value in whole.state_dict().items())
    assert (fast.space, fast.crops) == (whole.space, whole.crops)


class Session(nn.Module):
    """A member of another runtime: nothing of torch's inside, and not to be copied."""

    def __init__(self, model):
        super().__init__()
        self.space, self.crops, self.prior = model.space, model.crops, None
        self.answer = lambda images, present=None: torch.full((len(next(iter(images.values()))), 18), 1 / 18)

    def probs(self, images, present=None):
        return self.answer(images, present)

    def __deepcopy__(self, memo):
        raise TypeError("a session cannot be copied")


def test_members_of_other_runtimes_are_shared():
    model = lively("test_resnet").eval()
    whole = Ensemble([model, Session(model)])
    fast, choices = prepared(whole)
    assert len(choices) == 1 and fast.members[1] is whole.members[1] and fast.members[0] is not model


def test_what_is_no_module_is_given_back():
    plain = object()
    assert prepared(plain) == (plain, [])


def test_a_compiled_mode_compiles_the_copy(monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))
    model = lively("test_resnet")
    fast = ready(model, Mode(compiled=True))
    assert compiled == [fast.backbone.backbone]


def test_a_copy_is_kept_until_the_model_changes():
    """In place, by an optimiser, and past torch's own counting, as madgrad writes."""
    model = lively("test_resnet").eval()
    images = pixels(model.crops, 2, CPU)
    fast = ready(model, Mode())
    assert ready(model, Mode()) is fast and ready(model, Mode("bf16")) is not fast

    def change_data():
        model.head["mask"].weight.data.mul_(2)

    def change_signs():
        model.head["mask"].weight.data.neg_()

    def change_order():
        model.head["age"].weight.data.copy_(model.head["age"].weight.data.flip(0))

    def change_statistics():
        model.backbone.bn1.running_mean.add_(0.5)

    def load():
        model.load_state_dict({name: value * 1.25 for name, value in model.state_dict().items()})

    def change_pixels():
        model._mean.mul_(0.5)

    def change_layer():
        model.backbone.global_pool = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())

    def add_hook():
        model.backbone.register_forward_hook(lambda part, inputs, result: result * 2)

    changes = (change_data, change_signs, change_order, change_statistics, load, change_pixels, change_layer, add_hook)
    for change in changes:
        change()
        again = ready(model, Mode())
        assert again is not fast
        with torch.inference_mode():
            torch.testing.assert_close(again.probs(images), model.probs(images), rtol=0, atol=1e-5)
        fast = again


def test_a_layer_that_looks_like_the_one_before_is_another():
    class Scaled(nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.scale = scale

        def forward(self, images):
            return images * self.scale

    model = lively("test_resnet").eval()
    images = pixels(model.crops, 2, CPU)
    for scale in (1.0, 3.0):
        model.backbone.act1 = Scaled(scale)
        with torch.inference_mode():
            torch.testing.assert_close(ready(model, Mode()).probs(images), model.probs(images), rtol=0, atol=1e-5)


def test_copies_go_with_their_model():
    model = lively("test_resnet")
    gone = weakref.ref(ready(model, Mode()))
    del model
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("mode", [Mode(), Mode.parse("f32 channels_last fused keep_memory"), Mode("bf16")])
def test_models_of_other_dtypes_are_answered_for(kind, mode):
    """From 32 photos on a prepared copy answers: its features come in f32, which heads of 16 bits do not take."""
    model = lively("test_resnet").eval()
    images = pixels(model.crops, 4, CPU)
    wanted = model.probs(images)
    held = model.to(kind)
    fast = ready(held, mode)
    with torch.inference_mode():
        torch.testing.assert_close(fast.probs(images), wanted, rtol=0, atol=0.05)
    assert next(held.parameters()).dtype == kind
