"""The backbones that the product promises: forward, backward, save and load, with crops of unlike size."""

import gc

import numpy as np
import pytest
import timm
import torch
from torch import nn

from multihead.backbones import feature_width
from multihead.crops import FACE, FULL
from multihead.heads import HEADS
from multihead.model import Model

CONVOLUTIONAL = [
    *["resnet18", "resnet50", "resnet101", "rexnet_100", "darknet53"],
    *["efficientnet_b4", "efficientnet_b1_pruned", "efficientnet_b2_pruned", "efficientnet_b3_pruned"],
]
SIZES = dict.fromkeys(CONVOLUTIONAL, ((64, 48), (32, 32))) | {"vit_tiny_patch16_224": ((280, 210), (64, 48))}


@pytest.fixture(autouse=True)
def tidy():
    yield
    gc.collect()


@pytest.mark.parametrize("backbone", list(SIZES))
def test_backbone(backbone, tmp_path):
    large, small = FULL.resized(*SIZES[backbone][0]), FACE.resized(*SIZES[backbone][1])
    mask, gender, age = HEADS
    model = Model(backbone, [mask.on(small), gender.on(large), age.on(small, large)])
    rng = np.random.default_rng(0)
    images = {c: torch.from_numpy(rng.integers(0, 256, (2, 3, *c.size), np.uint8)) for c in model.crops}
    logits = model(images)
    assert [rows.shape[1] for rows in logits.values()] == [3, 2, 3]
    sum(rows.square().sum() for rows in logits.values()).backward()
    blind = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    still = [n for n, p in model.head.named_parameters() if not p.grad.abs().sum() > 0]
    assert not blind and not still
    assert all(p.grad.isfinite().all() for p in model.parameters())
    # the first weight of the backbone: the gradient went all the way
    assert next(p for p in model.backbone.parameters() if p.ndim > 1).grad.abs().sum() > 0
    model.save_pretrained(tmp_path)
    back = Model.from_pretrained(tmp_path)
    with torch.inference_mode():
        for name, rows in model.eval()(images).items():
            assert torch.equal(back(images)[name], rows)


def test_darknet53_is_52_convolutions_and_a_classifier():
    """Redmon and Farhadi 2018, table 1: 52 convolutional layers and one connected one."""
    ours, timms = Model("darknet53").backbone, timm.create_model("darknet53")
    assert sum(isinstance(layer, nn.Conv2d) for layer in ours.modules()) == 52
    assert sum(isinstance(layer, (nn.Conv2d, nn.Linear)) for layer in timms.modules()) == 53
    theirs = {key: value.shape for key, value in timms.state_dict().items() if not key.startswith("head.fc")}
    assert {key: value.shape for key, value in ours.state_dict().items()} == theirs


@pytest.mark.parametrize("backbone", ["resnet10t", "test_vit"])
def test_features_are_timms_own(backbone):
    crop = FULL.resized(48, 40) if backbone == "resnet10t" else FULL.resized(48, 48)
    model = Model(backbone, [head.on(crop) for head in HEADS]).eval()
    timms = timm.create_model(backbone, num_classes=0, **({} if backbone == "resnet10t" else {"img_size": 48})).eval()
    state = model.backbone.state_dict()
    if backbone == "test_vit":
        from timm.layers import resample_abs_pos_embed

        state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], timms.patch_embed.grid_size)
    timms.load_state_dict(state)
    images = torch.randint(0, 256, (2, 3, *crop.size), dtype=torch.uint8)
    torch.testing.assert_close(model.features({crop: images})[crop], timms(model.normalise(images)))


def test_a_backbone_of_other_channels_is_refused():
    class Grey(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3)

        def forward(self, images):
            return self.conv(images).mean((2, 3))

    with pytest.raises(ValueError, match=r"backbone Grey cannot read an RGB photo \(1, 3, 32, 24\): .* 1 channels"):
        feature_width(Grey(), FULL.resized(32, 24))
