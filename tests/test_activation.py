import numpy as np
import pytest
import torch
from torch import nn

from multihead.activation import activation_maps
from multihead.crops import BODY, FACE, FULL
from multihead.heads import AGE, GENDER, HEADS, MASK, Head, flat
from multihead.joined import Ensemble, combine
from multihead.model import Model

SMALL = FULL.resized(64)


def pixels(*crops, count=2, seed=0):
    rng = np.random.default_rng(seed)
    return {crop: torch.from_numpy(rng.integers(0, 256, (count, 3, *crop.size), np.uint8)) for crop in crops}


def model(backbone="resnet10t", heads=(MASK, GENDER, AGE), crop=SMALL, seed=0):
    torch.manual_seed(seed)
    made = Model(backbone, [head.on(crop) for head in heads])
    for parameter in made.head.parameters():
        nn.init.normal_(parameter)
    return made.eval()


def settled(made, crop, seed=3):
    """The model with batch statistics of some pixels, so that its features are not all alike."""
    made.train()
    with torch.no_grad():
        made(pixels(crop, count=8, seed=seed))
    return made.eval()


@pytest.mark.parametrize("asked", [None, 1])
def test_of_a_linear_head_on_averaged_features_it_is_cam(asked):
    """Zhou et al. 2016: the head's weights times the features, place by place."""
    made, images = settled(model(), SMALL), pixels(SMALL, count=4)
    found = activation_maps(made, images, classes=None if asked is None else {"age": asked})["age"][SMALL]
    with torch.no_grad():
        features = made.backbone.forward_features(made.normalise(images[SMALL]))  # (B, D, h, w)
        chosen = made(images)["age"].argmax(1) if asked is None else torch.full((4,), asked)
        cam = torch.einsum("bd,bdhw->bhw", made.head["age"].weight[chosen], features).relu()
        cam = nn.functional.interpolate(cam[:, None], SMALL.size, mode="bilinear")[:, 0]
    assert cam.amax((1, 2)).min() > 0
    torch.testing.assert_close(found, cam / cam.amax((1, 2), keepdim=True), rtol=1e-4, atol=1e-5)


class Bright(nn.Module):
    """A backbone of one feature: how bright each 8 x 8 patch is above the mean grey."""

    num_features = head_hidden_size = 1
    feature_info = [{"reduction": 8}]

    def forward_features(self, pictures):
        return nn.functional.avg_pool2d(pictures, 8).mean(1, keepdim=True).relu()

    def forward_head(self, features, pre_logits=False):
        return features.mean((2, 3))

    def forward(self, pictures):
        return self.forward_head(self.forward_features(pictures))


def test_a_planted_patch_lights_up():
    made = model(heads=[Head("lamp", ("off", "on"))])
    made.backbone, made.head["lamp"] = Bright(), nn.Linear(1, 2)
    made.absent = nn.Parameter(torch.zeros(1, 1))
    with torch.no_grad():
        made.head["lamp"].weight.copy_(torch.tensor([[-1.0], [1.0]]))
        made.head["lamp"].bias.copy_(torch.tensor([0.01, 0.0]))
    images = torch.full((2, 3, 64, 64), 20, dtype=torch.uint8)
    images[0, :, 16:24, 40:48] = 255
    found = activation_maps(made, {SMALL: images})["lamp"][SMALL]
    place = np.unravel_index(int(found[0].argmax()), (64, 64))
    assert 16 <= place[0] < 24 and 40 <= place[1] < 48 and found[0].max() == 1
    assert found[0, :8].max() == 0 and found[0, :, :30].max() == 0
    assert found[1].max() == 0  # nothing is lit, and nothing speaks for it
    against = activation_maps(made, {SMALL: images}, classes={"lamp": [0, 0]})["lamp"][SMALL]
    assert against.max() == 0  # light speaks against "off" only


@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ("test_vit", (64, 48)),
        ("test_vit", (70, 50)),
        ("test_efficientnet", (64, 48)),
        ("test_convnext", (64, 96)),
        ("mobilenetv3_small_050", (64, 64)),
        ("mambaout_femto", (64, 96)),  # channels last
        ("deit_tiny_distilled_patch16_224", (64, 48)),  # two tokens without a place
        ("vit_relpos_small_patch16_rpn_224", (64, 64)),  # tokens averaged
    ],
)
def test_backbones(backbone, size):
    crop = FULL.resized(*size)
    made, images = model(backbone, [MASK], crop), pixels(crop)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    logits = made(images)["mask"]
    found = activation_maps(made, images, classes={"mask": torch.tensor([0, 2])})["mask"][crop]
    other = activation_maps(made, images, classes={"mask": torch.tensor([1, 0])})["mask"][crop]
    assert found.shape == (2, *size) and found.min() >= 0 and found.max() <= 1
    assert max(found.max(), other.max()) == 1 and not torch.equal(found, other)
    assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())
    assert torch.equal(made(images)["mask"], logits)  # no hook stays


@pytest.mark.parametrize("backbone", ["test_vit", "vit_relpos_small_patch16_rpn_224"])
def test_tokens_keep_their_places(backbone):
    """A change of one corner changes the raw features most there: checked through the map's own grid."""
    from multihead.activation import _features, _grid

    crop = FULL.resized(64)
    made, images = model(backbone, [MASK], crop), pixels(crop, count=1)
    changed = {crop: images[crop].clone()}
    changed[crop][:, :, 48:, :16] = 255 - changed[crop][:, :, 48:, :16]
    grids = [
        _grid(made.backbone, _features(made.backbone, made.normalise(each[crop]))[0].detach(), crop)
        for each in (images, changed)
    ]
    moved = (grids[0] - grids[1]).norm(dim=1)[0]  # (h, w)
    assert np.unravel_index(int(moved.argmax()), moved.shape) == (3, 0)


def test_a_flat_head_is_asked_about_its_joint_class():
    made, images = settled(model(heads=flat(HEADS)), SMALL), pixels(SMALL)
    answer = made.probs(images).argmax(1)
    own = activation_maps(made, images)["mask_gender_age"][SMALL]
    assert torch.equal(
        own, activation_maps(made, images, classes={"mask_gender_age": answer})["mask_gender_age"][SMALL]
    )
    other = activation_maps(made, images, classes={"mask_gender_age": (answer + 1) % 18})["mask_gender_age"][SMALL]
    assert not torch.equal(own, other)


def test_an_absent_crop_has_no_map_and_changes_nothing():
    face, body = FACE.resized(64), BODY.resized(64, 48)
    torch.manual_seed(0)
    made = Model("resnet10t", [GENDER.on(face), AGE.on(face, body)]).eval()
    images, present = pixels(face, body), torch.tensor([[True, True], [True, False]])
    found = activation_maps(made, images, present)
    assert set(found) == {"gender", "age"} and set(found["gender"]) == {face} and set(found["age"]) == {face, body}
    assert found["age"][body][1].max() == 0 and found["age"][face][1].max() in (0, 1)
    assert max(found["age"][body][0].max(), found["age"][face][0].max()) == 1  # one scale for both crops
    asked = [activation_maps(made, images, present, {"age": each})["age"][body] for each in range(3)]
    assert max(rows[0].max() for rows in asked) == 1 or all(rows[0].max() > 0 for rows in asked)
    assert all(rows[1].max() == 0 for rows in asked)
    images[body][1] = 255
    again = activation_maps(made, images, present)
    assert torch.equal(again["age"][face], found["age"][face])


def test_an_ensemble_gives_the_mean_of_its_members():
    face, body = FACE.resized(64), BODY.resized(64, 48)
    first, second = model(crop=face), model(crop=body, seed=1)
    third = model(heads=flat(HEADS), crop=face, seed=2)
    images, present = pixels(face, body), torch.tensor([[True, True], [True, False]])
    whole = Ensemble([second, Ensemble([first, model(crop=face, seed=5)]), third])
    assert whole.crops == (body, face)
    answers = whole.probs(images, present[:, [1, 0]]).reshape(2, 3, 2, 3).sum((2, 3)).argmax(1)
    found = activation_maps(whole, images, present[:, [1, 0]])
    ask = {"mask": answers}
    parts = [
        activation_maps(each, images, present[:, :1], ask)["mask"][face]
        for each in (first, whole.members[1].members[1])
    ]
    torch.testing.assert_close(found["mask"][face], (parts[0] + parts[1]) / 2)
    torch.testing.assert_close(found["mask"][body], activation_maps(second, images, present[:, 1:], ask)["mask"][body])
    assert found["mask"][body][1].max() == 0 and found["mask_gender_age"][face].shape == (2, 64, 64)


def test_a_combination_has_the_maps_of_all_heads():
    whole = combine([model(heads=[MASK]), model(heads=flat((GENDER, AGE)), seed=1)])
    assert set(activation_maps(whole, pixels(SMALL))) == {"mask", "gender_age"}


def test_nothing_is_left_behind():
    made, images = model(), pixels(SMALL)
    made.train()
    state, gradients = torch.get_rng_state(), torch.is_grad_enabled()
    with torch.inference_mode():
        activation_maps(made, images)
    activation_maps(made, images)
    assert torch.equal(torch.get_rng_state(), state) and torch.is_grad_enabled() == gradients
    assert made.training and made.backbone.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in made.parameters())


class Odd(nn.Module):
    """A backbone whose features are these."""

    feature_info = [{"reduction": 32}]

    def __init__(self, given):
        super().__init__()
        self.given = given

    def forward_features(self, pictures):
        return self.given

    def forward_head(self, features, pre_logits=False):
        return features.mean(1)

    def forward(self, pictures):
        return torch.zeros(len(pictures), 512)


def test_what_has_no_map():
    with pytest.raises(
        ValueError, match=r"classes name the heads \['smile'\]; the model has \['age', 'gender', 'mask'\]"
    ):
        activation_maps(model(), pixels(SMALL), classes={"smile": 1})
    for given, message in (
        ([1], "Odd gives no single grid of features"),
        (torch.zeros(2, 3, 512), r"Odd gives 3 tokens for \(64, 64\), fewer than 2 x 2"),
    ):
        made = model()
        made.backbone = Odd(given)
        with pytest.raises(ValueError, match=message):
            activation_maps(made, pixels(SMALL))

    class Other:
        crops = (SMALL,)

    with pytest.raises(ValueError, match="Other has no backbone to look into"):
        activation_maps(Other(), pixels(SMALL))
