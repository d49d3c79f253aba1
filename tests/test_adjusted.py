import json

import numpy as np
import pytest
import torch
from torch import nn

import multihead as mh
from multihead.adjusted import Adjusted
from multihead.calibrate import apply_temperatures
from multihead.crops import FACE, FULL
from multihead.decoding import reweight
from multihead.evaluation import evaluate
from multihead.heads import AGE, GENDER, HEADS, MASK, flat
from multihead.joined import Ensemble, combine, load
from multihead.labels import joint
from multihead.model import Model
from multihead.prediction import predict
from multihead.reading import read

SMALL, FACES = FULL.resized(32, 24), FACE.resized(32)
WARM = {"mask": 2.0, "age": 0.6}
WEIGHTS = tuple(np.random.default_rng(0).uniform(0.5, 2, 18))


def model_of(heads=HEADS, *crops, seed=0, make=lambda heads: heads):
    torch.manual_seed(seed)
    model = Model("test_resnet", make([head.on(*(crops or (SMALL,))) for head in heads]))
    for head in model.head.values():
        nn.init.normal_(head.weight, std=2)
    return model.eval()


def images_of(model, count=4):
    rng = np.random.default_rng(1)
    return {c: torch.from_numpy(rng.integers(0, 256, (count, 3, *c.size), np.uint8)) for c in model.crops}


@torch.no_grad()
def test_temperatures_divide_the_logits_and_weights_multiply():
    model, wanted = model_of(), {}
    images = images_of(model)
    for name, logits in model(images).items():
        wanted[name] = (logits.double() / WARM.get(name, 1)).softmax(1)
    tempered = joint(wanted, HEADS).numpy()
    torch.testing.assert_close(Adjusted(model, WARM).probs(images).numpy(), tempered)
    weighted = tempered * WEIGHTS
    found = Adjusted(model, WARM, WEIGHTS).probs(images)
    np.testing.assert_allclose(found.numpy(), weighted / weighted.sum(1, keepdims=True))
    torch.testing.assert_close(Adjusted(model).probs(images), model.probs(images))
    assert found.dtype == torch.float64


@torch.no_grad()
def test_torch_agrees_with_numpy_where_heads_go_together():
    whole = Ensemble([model_of(), model_of(HEADS, seed=1, make=flat)])
    images = images_of(whole)
    wanted = reweight(apply_temperatures(whole.probs(images).numpy(), WARM, HEADS), np.array(WEIGHTS))
    np.testing.assert_allclose(Adjusted(whole, WARM, WEIGHTS).probs(images).numpy(), wanted)


@torch.no_grad()
def test_half_precision_answers_are_adjusted_in_float64():
    class Half(nn.Module):
        space, crops, prior = Model("test_resnet", [MASK]).space, (SMALL,), None

        def __init__(self):
            super().__init__()
            self.anchor = nn.Parameter(torch.zeros(1))

        def probs(self, images, present=None):
            return torch.tensor([[0.75, 0.25, 0.0]], dtype=torch.bfloat16)

    found = Adjusted(Half(), {"mask": 0.5}, [1, 0.3, 4]).half().probs({})
    torch.testing.assert_close(found, torch.tensor([[9 / 9.3, 0.3 / 9.3, 0.0]], dtype=torch.float64))


@torch.no_grad()
def test_absent_crops_reach_the_model():
    model = model_of(HEADS, SMALL, FACES)
    images, present = images_of(model), torch.tensor([[True, True], [True, False], [False, True], [True, True]])
    found = Adjusted(model, WARM).probs(images, present)
    np.testing.assert_allclose(found, apply_temperatures(model.probs(images, present).numpy(), WARM, HEADS))


def test_it_is_a_model_like_any_other(people):
    model = model_of()
    model.prior = tuple(np.full(18, 1 / 18))
    whole = Adjusted(model, WARM, WEIGHTS)
    assert (whole.space, whole.crops, whole.prior, whole.heads) == (model.space, model.crops, model.prior, model.heads)
    assert not whole.training and whole.train().training and model.training
    assert Adjusted(Ensemble([model])).heads == model.heads
    photos = read(people / "train")[:21]
    scores = evaluate(whole, photos, workers=0)
    wanted = reweight(apply_temperatures(evaluate(model, photos, workers=0).probs, WARM, HEADS), np.array(WEIGHTS))
    np.testing.assert_allclose(scores.probs, wanted, atol=1e-12)
    table = predict(whole, photos.paths[:3])
    assert table.label.tolist() == wanted[:3].argmax(1).tolist()


@torch.no_grad()
def test_saved_and_opened_again(tmp_path):
    singles = combine([model_of([MASK]), model_of([GENDER], FACES), model_of([AGE])])
    inner = Adjusted(model_of(HEADS, FACES, make=flat), WARM)
    whole = Adjusted(Ensemble([inner, singles], [1, 3]), {"gender": 1.5}, WEIGHTS)
    whole.save(tmp_path / "whole")
    back = mh.load(tmp_path / "whole")
    images = images_of(whole)
    assert isinstance(back, Adjusted) and isinstance(back.model.members[0], Adjusted)
    assert torch.equal(back.probs(images), whole.probs(images))
    assert (back.temperatures, back.weights, back.crops) == (whole.temperatures, whole.weights, whole.crops)
    assert not back.training and not any(module.training for module in back.modules())
    content = json.loads((tmp_path / "whole" / "ensemble.json").read_text())
    assert content == {"kind": "adjusted", "members": ["member0"], "temperatures": {"gender": 1.5}, "weights": list(WEIGHTS)}  # fmt: skip


def test_settings_round_trip():
    model = model_of([MASK])
    settings = Adjusted(model, {"mask": 3}, np.array([1, 2, 3])).to_dict()
    assert settings == {"temperatures": {"mask": 3.0}, "weights": [1.0, 2.0, 3.0]}
    assert Adjusted.from_dict(model, json.loads(json.dumps(settings))).to_dict() == settings
    assert Adjusted(model).to_dict() == {"temperatures": {}, "weights": [1.0] * 3}
    assert Adjusted(model).state_dict().keys() == {f"model.{name}" for name in model.state_dict()}


@pytest.mark.parametrize(
    ("temperatures", "weights", "message"),
    [
        ({"smile": 1.0}, None, "temperatures name 'smile'; expected some of the heads"),
        ({"mask": 0}, None, "temperatures: mask is 0.0; expected a number > 0"),
        (None, [1, 2], r"weights \(1.0, 2.0\) do not fit; expected 3 positive numbers"),
        (None, [1, 2, 0], "do not fit; expected 3 positive numbers"),
        (None, [1, 2, float("inf")], "do not fit; expected 3 positive numbers"),
        (None, [1, 2, float("nan")], "do not fit; expected 3 positive numbers"),
    ],
)
def test_settings_must_fit(temperatures, weights, message):
    with pytest.raises(ValueError, match=message):
        Adjusted(model_of([MASK]), temperatures, weights)


def test_a_folder_without_its_settings(tmp_path):
    Adjusted(model_of([MASK])).save(tmp_path)
    (tmp_path / "ensemble.json").write_text('{"kind": "adjusted", "members": ["member0"]}')
    with pytest.raises(ValueError, match=r"lack \['temperatures', 'weights'\]; expected what Adjusted.save wrote"):
        load(tmp_path)
