import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from multihead.adjusted import Adjusted
from multihead.crops import BODY, FACE, FULL
from multihead.evaluation import evaluate, label_heads
from multihead.heads import AGE, GENDER, HEADS, MASK, Head, flat, space
from multihead.joined import Combined, Ensemble, combine, load
from multihead.labels import bands, decode, marginals
from multihead.model import Model
from multihead.prediction import predict
from multihead.reading import read
from multihead.tta import TTA

SMALL, FACES, BODIES = FULL.resized(32, 24), FACE.resized(32), BODY.resized(48, 32)


def model_of(heads, *crops, seed=0, make=lambda heads: heads):
    torch.manual_seed(seed)
    model = Model("test_resnet", make([head.on(*(crops or (SMALL,))) for head in heads]))
    for head in model.head.values():
        torch.nn.init.normal_(head.weight, std=2)
    model.prior = tuple(np.random.default_rng(seed).dirichlet(np.ones(int(np.prod([len(h.classes) for h in heads])))))
    return model.eval()


def images_of(model, count=4):
    rng = np.random.default_rng(1)
    return {c: torch.from_numpy(rng.integers(0, 256, (count, 3, *c.size), np.uint8)) for c in model.crops}


@pytest.fixture
def singles():
    """Three separate models, as in the diary: mask from the face, gender from the body, age from both."""
    crops = [(FACES,), (BODIES,), (FACES, BODIES)]
    return [model_of([head], *on, seed=n) for n, (head, on) in enumerate(zip(HEADS, crops))]


@torch.no_grad()
def test_three_single_heads_combined_are_their_product(singles):
    whole = combine(singles)
    images = images_of(whole)
    found = whole.probs(images).numpy()
    parts = [model.probs({crop: images[crop] for crop in model.crops}).numpy() for model in singles]
    for joint, row in enumerate(decode(np.arange(18), HEADS)):
        np.testing.assert_allclose(found[:, joint], np.prod([part[:, i] for part, i in zip(parts, row)], axis=0))
    np.testing.assert_allclose(found.sum(1), 1)
    assert whole.space == space(HEADS) and whole.crops == (FACES, BODIES)
    for head, part in zip(HEADS, parts):
        np.testing.assert_allclose(marginals(found, HEADS)[head.name], part)


@torch.no_grad()
def test_flat_and_heads_and_combined_in_one_mean(singles):
    members = [model_of(HEADS, seed=4), model_of(HEADS, FACES, seed=5, make=flat), combine(singles)]
    assert len({member.space for member in members}) == 1
    whole = Ensemble(members, weights=[1, 2, 5])
    images = images_of(whole)
    each = [member.probs({crop: images[crop] for crop in member.crops}).numpy() for member in members]
    np.testing.assert_allclose(whole.probs(images).numpy(), (each[0] + 2 * each[1] + 5 * each[2]) / 8)
    assert whole.crops == (SMALL, FACES, BODIES) and whole.weights == (1 / 8, 2 / 8, 5 / 8)
    equal = Ensemble(members)
    np.testing.assert_allclose(equal.probs(images).numpy(), np.mean(each, axis=0))


@torch.no_grad()
def test_the_mean_is_of_joint_probabilities_not_of_heads():
    """Two members that are sure of opposite corners: the mean knows that the corners go together."""
    members = [model_of(HEADS, seed=n) for n in (0, 1)]
    for member, index in zip(members, (0, 1)):
        for head in member.head.values():
            torch.nn.init.zeros_(head.weight)
            head.bias.copy_(20.0 * torch.eye(len(head.bias))[index])
    found = Ensemble(members).probs(images_of(members[0], 1))[0].numpy()
    assert found[[0, 10]] == pytest.approx([0.5, 0.5], abs=1e-6)  # 10 = 1 * 6 + 1 * 3 + 1


@torch.no_grad()
def test_absent_crops_reach_the_members_that_read_them(singles):
    members = [combine(singles), model_of(HEADS, BODIES, seed=7)]
    whole = Ensemble(members)
    images = images_of(whole)
    present = torch.tensor([[True, True], [True, False], [False, True], [True, True]])
    assert whole.crops == (FACES, BODIES)
    body = members[1].probs({BODIES: images[BODIES]}, present[:, [1]])
    torch.testing.assert_close(whole.probs(images, present), (members[0].probs(images, present) + body) / 2)
    black = {crop: pixels.clone() for crop, pixels in images.items()}
    black[BODIES][1] = 0
    torch.testing.assert_close(whole.probs(black, present), whole.probs(images, present))


def test_priors_are_averaged_and_multiplied(singles):
    whole = combine(singles)
    wanted = [np.prod([m.prior[i] for m, i in zip(singles, row)]) for row in decode(np.arange(18), HEADS)]
    np.testing.assert_allclose(whole.prior, wanted)
    other = model_of(HEADS, seed=9)
    np.testing.assert_allclose(
        Ensemble([whole, other], [3, 1]).prior, 0.75 * np.array(whole.prior) + 0.25 * np.array(other.prior)
    )
    other.prior = None
    assert Ensemble([whole, other]).prior is None
    singles[0].prior = None
    assert combine(singles).prior is None


@torch.no_grad()
def test_saved_and_opened_again(singles, tmp_path):
    inner = Ensemble([combine(singles), model_of(HEADS, seed=3)], [1, 3])
    whole = Ensemble([inner, model_of(HEADS, FACES, seed=5, make=flat)])
    whole.save(tmp_path / "whole")
    back = load(tmp_path / "whole")
    images = images_of(whole)
    assert isinstance(back, Ensemble) and isinstance(back.members[0].members[0], Combined)
    assert not back.training and not any(module.training for module in back.modules())
    assert torch.equal(back.probs(images), whole.probs(images))
    assert (back.space, back.crops, back.weights) == (whole.space, whole.crops, whole.weights)
    assert back.prior == pytest.approx(whole.prior)
    assert json.loads((tmp_path / "whole" / "ensemble.json").read_text()) == {
        "kind": "ensemble", "members": ["member0", "member1"], "weights": [0.5, 0.5], "voting": "soft",
    }  # fmt: skip


def test_load_opens_models_and_run_folders(tmp_path):
    model = model_of(HEADS)
    model.save_pretrained(tmp_path / "run" / "model")
    for folder in (tmp_path / "run", tmp_path / "run" / "model", str(tmp_path / "run")):
        assert isinstance(load(folder), Model)


def test_load_says_what_is_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no model folder; expected config.json"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing is no model folder"):
        load(tmp_path / "nothing")
    (tmp_path / "ensemble.json").write_text("{}")
    with pytest.raises(ValueError, match="ensemble.json is not of a multihead ensemble"):
        load(tmp_path)
    (tmp_path / "ensemble.json").write_text("{")
    with pytest.raises(ValueError):
        load(tmp_path)


def test_members_must_answer_the_same():
    with pytest.raises(ValueError, match="member 1 answers .*gender.*, member 0 .*multihead.combine joins"):
        Ensemble([model_of([MASK]), model_of([GENDER])])
    with pytest.raises(ValueError, match="member 1 answers .*the order of the heads is another"):
        Ensemble([model_of([MASK, AGE]), model_of([AGE, MASK])])
    with pytest.raises(ValueError, match="at least one member"):
        Ensemble([])


@pytest.mark.parametrize("weights", [[1], [1, 0], [1, -1], [1, 2, 3], [1, float("nan")]])
def test_weights_must_fit(weights):
    with pytest.raises(ValueError, match="do not fit 2 members; expected a positive number each"):
        Ensemble([model_of([MASK]), model_of([MASK], seed=1)], weights)


def test_heads_of_a_combination_must_differ():
    with pytest.raises(ValueError, match="repeat a name"):
        combine([model_of([MASK, AGE]), model_of([AGE], seed=1)])
    with pytest.raises(ValueError, match="at least one model"):
        combine([])


def test_an_ensemble_predicts_like_a_model(singles, people):
    whole = Ensemble([combine(singles), model_of(HEADS, seed=3)])
    photos = sorted((people / "eval" / "images").iterdir())[:3]
    found = predict(whole, photos)
    assert len(found) == 3 and (found.error == "").all() and found.label.notna().all()


# ---- hard votes


class Says(torch.nn.Module):
    """A member that gives these joint probabilities (B, K), in float32 as models do."""

    crops, prior = (), None

    def __init__(self, rows):
        super().__init__()
        self.rows, self.space = torch.tensor(rows, dtype=torch.float32), space(HEADS[:2])

    def probs(self, images, present=None):
        return self.rows


def test_hard_votes_against_brute_force():
    generator = np.random.default_rng(0)
    for weights in ([1, 1, 1, 1], [3, 1, 1, 1], [0.1, 0.2, 0.3, 0.4]):
        rows = generator.dirichlet(np.full(6, 0.4), (4, 200))  # members, photos, classes
        found = Ensemble([Says(member) for member in rows], weights, voting="hard").probs({})
        for photo in range(200):
            votes = [0.0] * 6
            for member, weight in zip(rows, weights):
                votes[int(member[photo].argmax())] += weight / sum(weights)
            mean = [sum(w * m[photo][k] for m, w in zip(rows, weights)) for k in range(6)]
            tied = [k for k in range(6) if votes[k] > max(votes) - 1e-9]
            wanted = max(tied, key=lambda k: mean[k])
            assert int(found[photo].argmax()) == wanted
            np.testing.assert_allclose(found[photo], votes, atol=2e-6)
        torch.testing.assert_close(found.sum(1), torch.ones(200, dtype=torch.float64))


def test_a_tie_goes_to_the_class_that_is_likelier_on_average():
    sure, unsure = [0.0, 0.9, 0.1, 0, 0, 0], [0.6, 0.0, 0.4, 0, 0, 0]
    for members in ([sure, unsure], [unsure, sure]):
        found = Ensemble([Says([row]) for row in members], voting="hard").probs({})
        assert int(found[0].argmax()) == 1 and float(found[0][0]) == pytest.approx(0.5, abs=1e-6)
    with pytest.raises(ValueError, match="ensemble: voting is 'loud'; expected one of soft, hard"):
        Ensemble([Says([sure])], voting="loud")


def test_a_hard_vote_where_there_is_no_f64():
    class Metal(torch.Tensor):
        """A tensor that says that it lies on Apple's GPU, which refuses f64."""

        device = property(lambda self: torch.device("mps"))

        def double(self):
            raise TypeError("the MPS framework doesn't support float64")

    members = [Says(np.eye(6, dtype=np.float32)[[column]]) for column in (1, 1, 2)]
    for member in members:
        member.rows = member.rows.as_subclass(Metal)
    assert Ensemble(members, voting="hard").probs({}).argmax() == 1


def test_a_hard_vote_and_views_are_saved(tmp_path):
    from multihead.tta import TTA

    crop = FULL.resized(32, 24)
    model = Model("test_resnet", [head.on(crop) for head in HEADS]).eval()
    whole = Ensemble([TTA(model, shifts=0.1, scales=(0.9,)), model], [2, 1], voting="hard").eval()
    whole.save(tmp_path)
    opened = load(tmp_path)
    assert opened.voting == "hard" and opened.weights == whole.weights and not opened.training
    assert opened.members[0].views == whole.members[0].views
    images = {crop: torch.randint(0, 256, (4, 3, 32, 24), dtype=torch.uint8)}
    torch.testing.assert_close(opened.probs(images), whole.probs(images))


def test_a_vote_knows_the_bands_of_its_members(people):
    """Else its labels were those of our own bands, or none at all."""
    age = Head("age", AGE.classes, edges=(25, 50)).on(SMALL)
    height = Head("height", ("short", "tall"), edges=(160,)).on(SMALL)
    pair = [Model("test_resnet", [age, height]).eval() for _ in range(2)]
    rest = Model("test_resnet", [GENDER.on(SMALL)]).eval()
    whole = combine([rest, Adjusted(Ensemble([TTA(pair[0]), pair[1]]), {"age": 2.0})])
    assert [(head.name, head.edges) for head in label_heads(whole)] == [
        ("gender", None), ("age", (25, 50)), ("height", (160,)),
    ]  # fmt: skip
    photos = read(people / "train", heads=label_heads(whole))
    assert (evaluate(whole, photos).labels[:, 1] == bands(photos.table.years, (25, 50))).all()
    other = Model("test_resnet", [AGE.on(SMALL), height])
    with pytest.raises(ValueError, match=r"member 1 bands age at \(30, 60\) of age, member 0 at \(25, 50\) of age"):
        Ensemble([pair[0], other])
    assert len(Ensemble([pair[0], Model("test_resnet", [replace(age, edges=None), height])]).members) == 2


def test_models_of_models_print_as_a_few_lines(singles):
    single, whole = repr(singles[0]), combine(singles)
    assert single.startswith("Model('test_resnet', mask on face 32x32;") and "\n" not in single
    assert repr(whole).splitlines() == [
        "Combined(mask, gender, age of:",
        *(f"    {model!r}" for model in singles[:2]),
        f"    {singles[2]!r})",
    ]
    adjusted = Adjusted(singles[0], {"mask": 1.25}, [1, 2, 0.5])
    lines = repr(Ensemble([singles[0], adjusted], [3, 1], voting="hard")).splitlines()
    assert lines == [
        "Ensemble(hard voting on mask; weights and members:",
        f"    0.75 {single}",
        "    0.25 Adjusted(temperatures: mask 1.25; class weights: 0.5 to 2",
        f"        {single}))",
    ]
    assert repr(Adjusted(singles[0])).startswith("Adjusted(temperatures: none; class weights: none\n    Model(")
    assert repr(TTA(singles[0], shifts=0.05, scales=[0.9])).splitlines()[0] == (
        "TTA(mean of 7 views: the photo, mirrored, down -0.05, down +0.05, right -0.05, right +0.05, scale 0.9"
    )


def test_heads_of_a_vote_say_which_crops_are_read():
    flats = Model("test_resnet", [flat(HEADS)[0].on(FACES)]).eval()
    whole = Ensemble([flats, model_of(HEADS, BODIES)])
    assert {head.crops for head in whole.heads} == {(FACES, BODIES)} and whole.crops == (FACES, BODIES)


class Own(torch.nn.Module):
    """A module of the user's own, with what `evaluation.Classifier` asks for."""

    def __init__(self, heads):
        super().__init__()
        self.space, self.crops = heads, (SMALL,)

    def probs(self, images, present=None):
        return images[SMALL].flatten(1)[:, :18].double().softmax(1)


@torch.no_grad()
@pytest.mark.parametrize("heads", [HEADS, space(HEADS)])
def test_a_module_of_ones_own_votes(heads, tmp_path):
    model, own = model_of(HEADS), Own(heads)
    vote, images = Ensemble([model, own], [1, 3]), images_of(model)
    torch.testing.assert_close(vote.probs(images), 0.25 * model.probs(images) + 0.75 * own.probs(images))
    assert vote.space == model.space and vote.prior is None and Ensemble([own, model]).space == model.space
    smile = model_of([Head("smile", ("no", "yes"))])
    assert combine([own, smile]).probs(images).shape == (4, 36) and combine([smile, own]).prior is None
    with pytest.raises(TypeError, match="member 1 is a Own, which has no save"):
        vote.save(tmp_path / "vote")
    assert not (tmp_path / "vote").exists()


@pytest.mark.parametrize("wrap", [Adjusted, TTA])
def test_a_folders_name_is_no_model(wrap):
    with pytest.raises(TypeError, match=r"expected a model, ensemble or export, got 'runs/a'; multihead.load"):
        wrap("runs/a")


def test_one_model_is_no_list_of_models():
    with pytest.raises(TypeError, match=r"models is a Model; expected a list of models, as combine\(\[a, b\]\)"):
        combine(Model("test_resnet"))


@pytest.mark.parametrize("name", ["config.json", "ensemble.json"])
@pytest.mark.parametrize(("text", "told"), [("[1, 2]", "is not of a multihead"), ('{"ki', "is no JSON")])
def test_a_damaged_description_is_named(tmp_path, name, text, told):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name} {told}"):
        load(tmp_path)
