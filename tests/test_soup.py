import pytest
import torch
from torch import nn

from multihead.crops import FACE, FULL
from multihead.heads import HEADS, MASK, flat
from multihead.model import Model
from multihead.reading import read
from multihead.soup import average, greedy_soup, refresh

SMALL = FULL.resized(32, 24)


def small(seed, heads=HEADS, backbone="test_resnet"):
    torch.manual_seed(seed)
    return Model(backbone, [head.on(SMALL) for head in heads]).eval()


@pytest.fixture(scope="module")
def photos(people):
    return read(people / "train")[::4]


def test_the_mean_of_the_weights_by_hand():
    models = [small(seed) for seed in range(3)]
    for number, model in enumerate(models):
        model.backbone.bn1.num_batches_tracked.fill_(number)
    made = average(models, [1, 2, 1])
    states = [model.state_dict() for model in models]
    for name, value in made.state_dict().items():
        if value.is_floating_point():
            by_hand = (states[0][name] + 2 * states[1][name] + states[2][name]) / 4
            torch.testing.assert_close(value, by_hand)
    assert made.backbone.bn1.num_batches_tracked == 2 and not made.training
    assert made.heads == models[0].heads and made.mean == models[0].mean


def test_a_soup_of_one_is_the_model_and_answers_are_linear_in_the_last_layer():
    model = small(0)
    images = {SMALL: torch.randint(0, 256, (3, 3, 32, 24), dtype=torch.uint8)}
    torch.testing.assert_close(average([model]).probs(images), model.probs(images))
    other = small(0)
    nn.init.normal_(other.head["age"].weight)
    both = average([model, other])
    mean = (model(images)["age"] + other(images)["age"]) / 2  # only the last layer differs
    torch.testing.assert_close(both(images)["age"], mean, atol=1e-5, rtol=1e-5)


def test_greedy_takes_what_does_not_lower_the_score():
    models = [small(seed) for seed in range(4)]
    bias = [1.0, 4.0, 3.0, 2.5]
    for model, value in zip(models, bias):
        model.head["age"].bias.data.fill_(value)

    def score(model):
        return -abs(float(model.head["age"].bias.detach()[0]) - 3.4)

    made, chosen = greedy_soup(models, score)
    # alone .4 (model 2, 3.0) is best; with model 1 the mean 3.5 is better (.1); model 3 makes it 3.17, model 0 2.6
    assert chosen == [1, 2]
    assert float(made.head["age"].bias.detach()[0]) == pytest.approx(3.5)


def test_greedy_takes_a_member_that_leaves_the_score_as_it_is():
    """As in the paper; of equal models the first is the one to begin with, and one without a score is left out."""
    models = [small(seed) for seed in range(4)]
    made, chosen = greedy_soup(models, lambda model: float("nan") if model is models[1] else 0.5)
    assert chosen == [0, 2, 3]
    wanted = average([models[number] for number in chosen]).state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in made.state_dict().items())


@pytest.mark.parametrize("rest", [0, 2])
def test_statistics_are_those_of_all_photos(photos, rest):
    """Also where two photos would be left over: batches are alike in size, and not of one person each."""
    from multihead.batches import PhotoSet

    model = small(1)
    weights = {name: value.clone() for name, value in model.named_parameters()}
    refreshed = refresh(model, photos, batch_size=len(photos) - rest)
    held = PhotoSet(photos, model.heads, model.crops)
    batch = held.collate([held[(0, row)] for row in range(len(photos))])
    with torch.inference_mode():
        entering = []
        hook = model.backbone.bn1.register_forward_pre_hook(lambda module, given: entering.append(given[0]))
        model(batch.images)
        hook.remove()
    pixels = entering[0].transpose(0, 1).flatten(1)
    torch.testing.assert_close(
        refreshed.backbone.bn1.running_mean, pixels.mean(1), atol=1e-3 if rest == 0 else 0.02, rtol=1e-3
    )
    near = 1e-3 if rest == 0 else 0.03  # the halves' own means differ
    torch.testing.assert_close(refreshed.backbone.bn1.running_var, pixels.var(1), atol=near, rtol=near)
    assert all((weights[name] == value).all() for name, value in refreshed.named_parameters())
    assert not any(module.training for module in refreshed.modules())
    assert refreshed.backbone.bn1.momentum == 0.1


def test_a_model_without_batch_norm_is_left_as_it_is(photos):
    model = Model("test_vit", [MASK.on(FULL.resized(160))]).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    refresh(model, photos)
    assert all((before[name] == value).all() for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (lambda: small(0, HEADS[:2]), r"model 1 is test_resnet with heads \['mask', 'gender'\]"),
        (lambda: small(0, backbone="test_efficientnet"), "model 1 is test_efficientnet"),
        (lambda: Model("test_resnet", flat([head.on(SMALL) for head in HEADS])), "weights can be averaged of one"),
        (lambda: Model("test_resnet", [head.on(FACE.resized(32)) for head in HEADS]), "heads, crops, mean and std"),
        (lambda: Model("test_resnet", [head.on(SMALL) for head in HEADS], mean=(0, 0, 0.5)), "mean and std"),
    ],
    ids=["heads", "backbone", "flat", "crops", "statistics"],
)
def test_unlike_models_are_refused(other, told):
    with pytest.raises(ValueError, match=told):
        average([small(0), other()])


def test_wrong_input(photos):
    with pytest.raises(ValueError, match="a soup needs at least one model"):
        average([])
    with pytest.raises(ValueError, match=r"weights \[1\] do not fit 2 models"):
        average([small(0), small(0)], [1])
    with pytest.raises(ValueError, match="expected a number >= 0 each, not all 0"):
        average([small(0)], [0])
    for weight in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="expected a number >= 0 each, not all 0"):
            average([small(0), small(0)], [1, weight])
    with pytest.raises(ValueError, match="none of 1 models has a score; give photos with labels"):
        greedy_soup([small(0)], lambda model: float("nan"))
    model = small(0)
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_var.fill_(7)
    unchanged = {name: value.clone() for name, value in model.state_dict().items()}
    gone = photos.with_columns(path=[f"{path}.gone" for path in photos.paths])
    with pytest.raises(ValueError, match="photos can be read; the statistics of the soup need training photos"):
        refresh(model, gone)
    with pytest.raises(ValueError, match="refresh: batch_size is 0; expected a whole number >= 2"):
        refresh(model, photos, batch_size=0)
    assert all(torch.equal(value, unchanged[name]) for name, value in model.state_dict().items())
    assert all(norm.momentum == 0.1 for norm in model.modules() if isinstance(norm, torch.nn.BatchNorm2d))


def test_one_photo_has_no_statistics(photos):
    with pytest.raises(ValueError, match="fewer than two of 1 photos can be read"):
        refresh(average([small(0)]), photos[:1])
    with pytest.raises(ValueError, match="batch_size"):
        refresh(average([small(0)]), photos, batch_size=1)
