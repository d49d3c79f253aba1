import json
import socket
from dataclasses import asdict

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from multihead.configs import head_from_dict, read_config
from multihead.crops import BODY, FACE, FULL
from multihead.heads import AGE, FLAT, GENDER, HEADS, MASK, Head, flat
from multihead.labels import joint
from multihead.model import Model

SMALL = FULL.resized(48, 32)


def heads_on(crop=SMALL):
    return [head.on(crop) for head in HEADS]


def pixels(crop, count=3, seed=0):
    drawn = np.random.default_rng(seed).integers(0, 256, (count, 3, *crop.size), np.uint8)
    return torch.from_numpy(drawn)


def seen_by(model):
    """The batch size of each pass of the backbone, as they come."""
    counts = []
    model.backbone.register_forward_hook(lambda _, inputs, __: counts.append(len(inputs[0])))
    return counts


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError(f"something reached for the network: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_three_heads_on_one_crop_are_one_pass():
    model = Model("resnet10t", heads_on())
    counts = seen_by(model)
    logits = model({SMALL: pixels(SMALL, 5)})
    assert counts == [5]
    assert {name: tuple(rows.shape) for name, rows in logits.items()} == {
        "mask": (5, 3),
        "gender": (5, 2),
        "age": (5, 3),
    }


@pytest.mark.parametrize(
    "crops, passes",
    [
        (((SMALL,), (SMALL,), (SMALL,)), 1),
        (((FACE.resized(32),), (BODY.resized(48, 32),), (FACE.resized(32), BODY.resized(48, 32))), 2),
        (((FACE.resized(32),), (FACE.resized(40),), (FACE.resized(32),)), 2),  # another size is another crop
        (((FACE.resized(32),), (BODY.resized(32),), (SMALL,)), 3),
    ],
)
def test_images_through_the_backbone_are_batch_times_distinct_crops(crops, passes):
    model = Model("resnet10t", [head.on(*on) for head, on in zip(HEADS, crops, strict=True)])
    counts = seen_by(model)
    model({crop: pixels(crop, 4) for crop in model.crops})
    assert counts == [4] * passes and len(model.crops) == passes


def test_several_crops_of_a_head_are_joined_in_their_order():
    face, body = FACE.resized(32), BODY.resized(48, 32)
    model = Model("resnet10t", [MASK.on(face), AGE.on(body, face)]).eval()
    images = {face: pixels(face), body: pixels(body, seed=1)}
    features = model.features(images)
    by_hand = torch.cat([features[body], features[face]], 1) @ model.head["age"].weight.T + model.head["age"].bias
    assert model.head["age"].in_features == 2 * model.head["mask"].in_features
    torch.testing.assert_close(model(images)["age"], by_hand)


def test_absent_rows_stay_out_of_the_backbone_and_read_the_learned_vector():
    face, body = FACE.resized(32), BODY.resized(32)
    model = Model("resnet10t", [MASK.on(face), AGE.on(face, body)]).eval()
    torch.nn.init.normal_(model.absent)
    counts = seen_by(model)
    images = {face: pixels(face, 4), body: pixels(body, 4, seed=1)}
    present = torch.tensor([[True, True], [True, False], [True, True], [True, False]])
    features = model.features(images, present)
    assert counts == [4, 2]
    torch.testing.assert_close(features[body][[1, 3]], model.absent[1].expand(2, -1))
    whole = model.features(images)
    torch.testing.assert_close(features[body][[0, 2]], whole[body][[0, 2]])
    torch.testing.assert_close(features[face], whole[face])


def test_one_small_photo_is_too_few_to_learn_from():
    crop = FULL.resized(32)
    model = Model("resnet18", heads_on(crop), pretrained=False).train()
    with pytest.raises(ValueError, match=r"resnet18 cannot learn from a batch of one photo of 32x32.*2 photos a batch"):
        model({crop: pixels(crop, 1)})
    assert model({crop: pixels(crop, 2)})["age"].shape == (2, 3)


def test_an_absent_crops_pixels_are_not_read():
    body = BODY.resized(32)
    model = Model("resnet10t", [AGE.on(body)]).eval()
    present = torch.tensor([[True], [False]])
    images = pixels(body, 2)
    other = images.clone()
    other[1] = 255
    assert torch.equal(model({body: images}, present)["age"], model({body: other}, present)["age"])


def test_a_batch_without_any_body_needs_no_pass_and_teaches_the_vector():
    body = BODY.resized(32)
    model = Model("resnet10t", [AGE.on(body)])
    counts = seen_by(model)
    logits = model({body: pixels(body)}, torch.zeros(3, 1, dtype=torch.bool))["age"]
    logits.square().sum().backward()
    assert counts == []
    assert model.absent.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.backbone.parameters())


def test_the_vectors_of_absent_crops_learn_with_the_rest():
    face, body = FACE.resized(32), BODY.resized(32)
    model = Model("resnet10t", [AGE.on(face, body)])
    present = torch.tensor([[True, True], [True, False], [True, True]])
    model({face: pixels(face), body: pixels(body)}, present)["age"].square().sum().backward()
    assert model.absent.grad[1].abs().sum() > 0 and model.absent.grad[0].abs().sum() == 0
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_missing_crop_is_named_with_the_call_that_gives_it():
    model = Model("resnet10t", heads_on())
    with pytest.raises(
        KeyError, match=r"model needs crops \['full 48x32'\], batch has \['face 32x32'\].*crops=model.crops"
    ):
        model({FACE.resized(32): pixels(FACE.resized(32))})


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 3, 48, 32),
        torch.zeros(2, 3, 32, 48, dtype=torch.uint8),
        torch.zeros(3, 48, 32, dtype=torch.uint8),
    ],
    ids=["float", "width and height swapped", "no batch"],
)
def test_images_of_another_kind_are_refused(images):
    with pytest.raises(ValueError, match=r"crop 'full' expects uint8 \(B, 3, 48, 32\), got .*pixels of 0..255"):
        Model("resnet10t", heads_on())({SMALL: images})


@pytest.mark.parametrize("backbone", ["resnet18", "vit_tiny_patch16_224", "tf_efficientnet_lite0"])
def test_normalisation_is_timms_own(backbone):
    crop = FULL.resized(64)
    model = Model(backbone, heads_on(crop))
    config = timm.data.resolve_data_config(model=timm.create_model(backbone)) | {
        "input_size": (3, 64, 64),
        "crop_pct": 1.0,
    }
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    wanted = timm.data.create_transform(**config)(Image.fromarray(image))
    found = model.normalise(torch.from_numpy(image).permute(2, 0, 1)[None])[0]
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-6)


def test_the_backbones_statistics_can_be_replaced_and_are_kept(tmp_path):
    model = Model("resnet10t", heads_on(), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    assert model.normalise(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)).unique().tolist() == [2.0]
    model.save_pretrained(tmp_path)
    assert Model.from_pretrained(tmp_path).mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("name", "given"),
    [("mean", (123.7, 116.3, 103.5)), ("mean", 0.5), ("mean", (0.5,)), ("std", (0, 1, 1)), ("std", ("a", 1, 1))],
)
def test_statistics_are_of_pixels_in_0_to_1(name, given):
    with pytest.raises(ValueError, match=f"{name} is .*; expected three numbers of pixels in 0..1"):
        Model("test_resnet", heads_on(), **{name: given})


def test_probs_are_the_product_of_the_heads():
    model = Model("resnet10t", heads_on()).eval()
    images = {SMALL: pixels(SMALL)}
    heads = {name: rows.double().softmax(1) for name, rows in model(images).items()}
    found = model.probs(images)
    torch.testing.assert_close(found, joint(heads, HEADS))
    assert found.shape == (3, 18) and found.dtype == torch.float64
    torch.testing.assert_close(found.sum(1), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-12)


def test_the_flat_model_is_the_same_model_with_another_table():
    model = Model("resnet10t", flat(heads_on())).eval()
    images = {SMALL: pixels(SMALL)}
    assert model.space == Model("resnet10t", heads_on()).space
    torch.testing.assert_close(model.probs(images), model(images)["mask_gender_age"].double().softmax(1))


def test_one_head_alone_may_be_given():
    assert Model("resnet10t", MASK.on(SMALL)).space == (Head("mask", MASK.classes),)


@pytest.mark.parametrize("table", ["heads", "flat", "crops"])
def test_a_saved_model_comes_back_as_it_was(tmp_path, table, no_network):
    face = FACE.resized(32, 48)
    years = Head("age", ("young", "old"), edges=(47.5,)).on(face, SMALL)
    heads = {"heads": heads_on(), "flat": flat(heads_on()), "crops": [MASK.on(face), years]}[table]
    model = Model("resnet10t", heads, drop=0.3, drop_path=0.1)
    model.prior = tuple(np.full(18, 1 / 18))
    images = {crop: pixels(crop) for crop in model.crops}
    model(images)  # training mode: moves the statistics of batch norm
    model.save_pretrained(tmp_path)
    back = Model.from_pretrained(tmp_path)
    assert not back.training
    assert (back.heads, back.crops, back.prior, back.rates) == (model.heads, model.crops, model.prior, model.rates)
    for name, rows in model.eval()(images).items():
        assert torch.equal(back(images)[name], rows)


def test_the_folder_holds_plain_files_and_no_code(tmp_path):
    Model("resnet10t", heads_on()).save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["backbone"] == "resnet10t" and len(config["classes"]) == 18 and config["prior"] is None
    card = (tmp_path / "README.md").read_text()
    assert "worn, incorrect, not_worn (reads full 48x32)" in card and "do not use it" in card


def test_channels_last_weights_are_saved_in_plain_order(tmp_path):
    model = Model("resnet10t", heads_on()).to(memory_format=torch.channels_last)
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(value, stored[key]) for key, value in model.state_dict().items())


def test_heads_of_a_config_come_back_equal():
    head = AGE.on(FACE.resized(32), SMALL)
    plain = json.loads(
        json.dumps(
            {
                "name": "age",
                "classes": head.classes,
                "crops": [vars(c) for c in head.crops],
                "edges": [30, 60],
                "parts": [],
            }
        )
    )
    assert head_from_dict(plain) == head  # of a config that names no number


def test_a_head_keeps_the_number_of_another():
    decade = Head("decade", ("20s", "30s"), (SMALL,), (30,), number="age")
    for head in (decade, *flat([AGE, decade])):
        assert head_from_dict(json.loads(json.dumps(asdict(head)))) == head


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no model folder: config.json is missing"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text('{"architecture": "resnet18"}')
    with pytest.raises(ValueError, match="not of a multihead model"):
        read_config(tmp_path)


def test_a_config_says_what_it_lacks(tmp_path):
    Model("resnet10t", heads_on()).save_pretrained(tmp_path)
    path, whole = tmp_path / "config.json", (tmp_path / "config.json").read_text()
    for lost in ("mean", "heads", "crops"):
        path.write_text(whole.replace(f'"{lost}":', '"other":'))
        with pytest.raises(ValueError, match=f"config.json lacks '{lost}'; expected it as save_pretrained wrote it"):
            read_config(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "another model's"])
def test_damaged_weights_are_refused(tmp_path, damage):
    model = Model("resnet10t", heads_on())
    model.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-1000])
    else:
        save_file(dict(list(load_file(weights).items())[:-1]), weights)
    with pytest.raises(ValueError, match="does not hold the weights that config.json describes"):
        Model.from_pretrained(tmp_path)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_pretrained_weights_come_from_a_file(tmp_path, suffix, no_network):
    path = tmp_path / f"weights.{suffix}"
    source = timm.create_model("resnet10t", num_classes=7)  # its classifier is not wanted
    save_file(source.state_dict(), path) if suffix == "safetensors" else torch.save(source.state_dict(), path)
    model = Model("resnet10t", heads_on(), path)
    own = model.backbone.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in source.state_dict().items() if not key.startswith("fc"))


@pytest.mark.parametrize("seed", [0, 1])
def test_random_weights_in_a_file_count_as_weights(tmp_path, seed):
    torch.manual_seed(seed)
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), tmp_path / "w.pth")
    torch.manual_seed(seed)
    Model("test_vit", heads_on(), tmp_path / "w.pth")


def test_a_file_of_other_weights_is_refused(tmp_path):
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "other.pth")
    with pytest.raises(
        ValueError,
        match="other.pth cannot be read as timm weights of resnet10t; they look like another backbone's: .*size mismatch",
    ):
        Model("resnet10t", heads_on(), tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ValueError, match="text.pth cannot be read as timm weights"):
        Model("resnet10t", heads_on(), tmp_path / "text.pth")
    with pytest.raises(
        FileNotFoundError, match="no weights at .*nothing.pth; expected a file of timm weights for resnet10t"
    ):
        Model("resnet10t", heads_on(), tmp_path / "nothing.pth")


def test_a_file_whose_names_do_not_fit_is_refused_not_ignored(tmp_path):
    Model("resnet10t", heads_on()).save_pretrained(tmp_path)  # its names begin with backbone.
    with pytest.raises(ValueError, match="lacks .* weights of resnet10t, for one conv1.*start_from"):
        Model("resnet10t", heads_on(), tmp_path / "model.safetensors")


def test_weights_from_a_file_leave_the_random_numbers_alone(tmp_path):
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "w.pth")
    torch.manual_seed(0)
    first = Model("test_vit", heads_on(), tmp_path / "w.pth")
    torch.manual_seed(0)
    second = Model("test_vit", heads_on(), tmp_path / "w.pth")
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())
    assert first.head["mask"].weight.std() > 0


def test_an_unknown_backbone_gets_its_neighbours():
    with pytest.raises(ValueError, match="unknown backbone 'resnet181'; did you mean .*resnet18"):
        Model("resnet181")


@pytest.mark.parametrize("from_file", [False, True])
def test_a_backbone_without_stochastic_depth_says_so(tmp_path, from_file):
    weights = tmp_path / "w.pth"
    weights.write_bytes(b"")
    with pytest.raises(ValueError, match=r"backbone vgg11 has no stochastic depth; leave drop_path"):
        Model("vgg11", heads_on(), weights if from_file else False, drop_path=0.1)


def test_a_download_that_fails_names_the_way_out(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(FileNotFoundError, match="resnet10t could not be downloaded .*--pretrained-path"):
        Model("resnet10t", heads_on(), pretrained=True)


def test_nothing_is_downloaded(no_network, tmp_path):
    model = Model("resnet10t", heads_on())
    model.save_pretrained(tmp_path)
    Model.from_pretrained(tmp_path)


def test_a_backbone_of_one_input_size_takes_one_size_only():
    heads = [MASK.on(FACE.resized(32)), GENDER.on(FULL.resized(64))]
    with pytest.raises(ValueError, match="takes one input size, the crops have"):
        Model("mixer_s32_224", heads)


def test_flat_heads_know_their_parts_after_a_round_trip(tmp_path):
    Model("resnet10t", flat(heads_on())).save_pretrained(tmp_path)
    assert Model.from_pretrained(tmp_path).heads[0].parts == tuple(heads_on())
    assert FLAT[0].parts == HEADS


def test_what_is_no_backbone_or_no_batch_is_named(tmp_path):
    with pytest.raises(TypeError, match="backbone is Linear; expected the name of a timm model"):
        Model(torch.nn.Linear(2, 2))
    model = Model("test_resnet", heads_on())
    with pytest.raises(TypeError, match="images is Tensor; expected .crop: uint8"):
        model(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    model.head["mask"] = torch.nn.Sequential(model.head["mask"])
    with pytest.raises(ValueError, match="head 'mask' is a Sequential; a model folder describes linear heads"):
        model.save_pretrained(tmp_path)
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize("name", ["type", "training", "keys", "values", "update", "forward", "half"])
def test_a_head_that_torch_would_take_for_its_own_is_refused(name):
    told = rf"head name '{name}' is what torch .* another, as 'my_{name}' with .* \(--columns my_{name}={name}\)"
    with pytest.raises(ValueError, match=told):
        Model("test_resnet", [Head(name, ("surgical", "cloth"))])


# ---- what is present, and what a folder describes


def test_present_of_numbers_is_the_same_as_of_bools():
    model, images = Model("resnet10t", heads_on()).eval(), {SMALL: pixels(SMALL, 3)}
    there = torch.tensor([[1], [0], [1]])
    wanted = model(images, there.bool())
    for kind in (torch.int64, torch.uint8, torch.float32):
        for name, found in model(images, there.to(kind)).items():
            torch.testing.assert_close(found, wanted[name], rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(3,), (3, 2), (2, 1), (3, 0)])
def test_present_of_another_shape(shape):
    with pytest.raises(
        ValueError, match=r"present has shape .*; expected \(3, 1\), a row a photo and a column for each"
    ):
        Model("resnet10t", heads_on())({SMALL: pixels(SMALL, 3)}, torch.ones(shape, dtype=torch.bool))


class Halved(Model):
    def features(self, images, present=None):
        return {crop: found / 2 for crop, found in super().features(images, present).items()}


class Named(Model):
    nickname = "mine"


def test_what_a_folder_does_not_describe_is_not_saved(tmp_path):
    wide, more = Model("resnet10t", heads_on()), Model("resnet10t", heads_on())
    wide.backbone.fc = torch.nn.Linear(4, 2)
    first = wide.backbone.conv1[0]
    wide.backbone.conv1[0] = torch.nn.Conv2d(3, first.out_channels, 5, 2, 2, bias=False)
    more.side = torch.nn.Linear(2, 2)
    own = Halved("resnet10t", heads_on())
    cases = [
        (wide, "backbone.conv1.0.weight and 2 other"),
        (more, "side.weight and 1 other"),
        (own, "its own features"),
    ]
    for model, told in cases:
        with pytest.raises(ValueError, match=told):
            model.save_pretrained(tmp_path / "no")
        assert not (tmp_path / "no" / "config.json").exists()
    Named("resnet10t", heads_on()).save_pretrained(tmp_path / "yes")
    assert type(Model.from_pretrained(tmp_path / "yes")) is Model


def test_heads_given_as_a_text():
    with pytest.raises(TypeError, match="heads is the text 'mask'; expected heads"):
        Model("resnet10t", heads="mask")


def test_an_older_model_stays_where_the_new_one_cannot_be_written(tmp_path, monkeypatch):
    import safetensors.torch

    old, new = Model("resnet10t", heads_on()).eval(), Model("test_resnet", heads_on())
    old.save_pretrained(tmp_path)

    def full(*args, **options):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patched:
        patched.setattr(safetensors.torch, "save_file", full)
        with pytest.raises(OSError, match=r"cannot write \(No space left on device\): '.*model.safetensors'"):
            new.save_pretrained(tmp_path)
    kept = Model.from_pretrained(tmp_path)
    assert kept.backbone_name == "resnet10t"
    torch.testing.assert_close(kept.absent, old.absent)
    new.save_pretrained(tmp_path)
    assert Model.from_pretrained(tmp_path).backbone_name == "test_resnet"
