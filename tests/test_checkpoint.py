import argparse
import os
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from multihead.checkpoint import load, save, start_from
from multihead.crops import BODY, FACE, FULL
from multihead.heads import AGE, GENDER, HEADS, MASK, Head, flat
from multihead.identity import changes
from multihead.model import Model

SMALL = FULL.resized(48)


def model_of(backbone="resnet10t", heads=HEADS):
    return Model(backbone, [head.on(SMALL) for head in heads])


def flat_model(backbone="resnet10t"):
    return Model(backbone, flat([head.on(SMALL) for head in HEADS]))


class Trap:
    """A pickle that makes a folder when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_comes_back(tmp_path):
    state = {"a": torch.arange(3), "epoch": 2, "rows": [{"loss": 0.25}], "best": float("-inf"), "none": None}
    save(tmp_path / "sub" / "c.pt", state)
    back = load(tmp_path / "sub" / "c.pt")
    assert torch.equal(back.pop("a"), state.pop("a")) and back == state
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["c.pt"]


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path):
    save(tmp_path / "c.pt", {"epoch": 1})
    with pytest.raises(Exception, match="pickle|local"):
        save(tmp_path / "c.pt", {"epoch": lambda: 2})
    assert load(tmp_path / "c.pt") == {"epoch": 1} and len(list(tmp_path.iterdir())) == 1


FULL_DISK = """
import resource, signal, sys, torch
from multihead.checkpoint import save
save(sys.argv[1], {"old": torch.zeros(3)})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    save(sys.argv[1], {"new": torch.zeros(30_000)})
except OSError as error:
    print(error)
"""


def test_a_full_disk_is_told_and_leaves_the_old_checkpoint(tmp_path):
    command = [sys.executable, "-c", FULL_DISK, tmp_path / "a.pt"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"{tmp_path / 'a.pt'} cannot be written" in told and "is the disk full?" in told
    assert list(load(tmp_path / "a.pt")) == ["old"] and len(list(tmp_path.iterdir())) == 1


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    torch.save({"state_dict": Trap(tmp_path / "trapped")}, tmp_path / "evil.pth")
    for opened in (load, lambda path: start_from(model_of(), path)):
        with pytest.raises(ValueError, match="evil.pth cannot be opened safely.*expected tensors"):
            opened(tmp_path / "evil.pth")
    assert not (tmp_path / "trapped").exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert (tmp_path / "trapped").exists()  # the trap itself works


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors", "text.pth", "zeros.safetensors"])
def test_damaged_files_are_named(tmp_path, name):
    path = tmp_path / name
    state = timm.create_model("resnet10t").state_dict()
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    path.write_bytes({"cut": path.read_bytes()[:1000], "text": b"hello", "zeros": bytes(64)}[path.stem])
    with pytest.raises(ValueError, match=f"{name} cannot be opened safely"):
        load(path)
    with pytest.raises(FileNotFoundError, match="no checkpoint at .*nothing.pt"):
        load(tmp_path / "nothing.pt")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module.", "backbone."])
def test_timm_weights_under_any_prefix(tmp_path, suffix, prefix):
    source = timm.create_model("resnet10t")
    state = {prefix + key: value for key, value in source.state_dict().items()}
    path = tmp_path / f"weights.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save({"epoch": 3, "state_dict": state}, path)
    model = model_of()
    report = start_from(model, path)
    own = model.backbone.state_dict()
    body = {key: value for key, value in source.state_dict().items() if not key.startswith("fc.")}
    assert all(torch.equal(value, own[key]) for key, value in body.items())
    assert set(report.loaded) == {f"backbone.{key}" for key in body}
    assert set(report.missing) == {"absent", *(f"head.{h.name}.{kind}" for h in HEADS for kind in ("weight", "bias"))}
    assert not report.converted and not report.mismatched and len(report.unexpected) == 2
    assert f"{len(body)} loaded; 0 converted; 7 missing (" in str(report) and "2 unexpected (" in str(report)


def test_a_checkpoint_of_timms_training_script(tmp_path):
    source = timm.create_model("resnet10t", num_classes=18)
    state = source.state_dict()
    shifted = OrderedDict((key, value + 1) for key, value in state.items())
    content = {"epoch": 3, "arch": "resnet10t", "state_dict": state, "state_dict_ema": shifted, "version": 2}
    torch.save(content | {"args": argparse.Namespace(lr=0.1), "metric": 0.5}, tmp_path / "model_best.pth.tar")
    model = model_of()
    start_from(model, tmp_path / "model_best.pth.tar")
    key = "layer1.0.conv1.weight"
    assert torch.equal(model.backbone.state_dict()[key], shifted[key])  # the moving average, as timm evaluates it
    torch.save({"model": state, "ema": shifted}, tmp_path / "last.pt")  # as a run with an EMA leaves it
    start_from(model := model_of(), tmp_path / "last.pt")
    assert torch.equal(model.backbone.state_dict()[key], shifted[key])
    for ema in (None, {}, {"decay": 0.99, "updates": 3}):
        torch.save({"model": state, "ema": ema}, tmp_path / "last.pt")
        start_from(model := model_of(), tmp_path / "last.pt")
        assert torch.equal(model.backbone.state_dict()[key], state[key])


BACKBONES = {"resnet10t": "fc", "test_vit": "head", "test_efficientnet": "classifier", "rexnet_100": "head.fc"}


@pytest.mark.parametrize("backbone, classifier", BACKBONES.items())
def test_an_18_way_classifier_becomes_the_heads(tmp_path, backbone, classifier):
    source = timm.create_model(backbone, num_classes=18)
    torch.nn.init.normal_(source.get_classifier().bias)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    model = model_of(backbone)
    report = start_from(model, tmp_path / "w.pth")
    assert len(report.converted) == 6 and not report.unexpected and set(report.missing) <= {"absent"}
    state = source.state_dict()
    for kind in ("weight", "bias"):
        rows = state[f"{classifier}.{kind}"]
        for column, head in enumerate(HEADS):
            for index in range(len(head.classes)):  # by brute force: the mean over the joint classes that hold it
                mine = [k for k in range(18) if (k // 6, k // 3 % 2, k % 3)[column] == index]
                own = getattr(model.head[head.name], kind)[index]
                torch.testing.assert_close(own, torch.stack([rows[k] for k in mine]).mean(0))


def test_heads_made_of_an_additive_classifier_answer_the_same(tmp_path):
    """Where the 18 rows are sums of three parts, the product of the heads is the classifier's own softmax."""
    source = timm.create_model("resnet10t", num_classes=18)
    rng = torch.Generator().manual_seed(0)
    parts = [torch.randn(len(head.classes), 513, generator=rng) / 20 for head in HEADS]
    whole = torch.stack([parts[0][k // 6] + parts[1][k // 3 % 2] + parts[2][k % 3] for k in range(18)])
    with torch.no_grad():
        source.fc.weight.copy_(whole[:, :512])
        source.fc.bias.copy_(whole[:, 512])
    torch.save(source.state_dict(), tmp_path / "w.pth")
    model = model_of().eval()
    start_from(model, tmp_path / "w.pth")
    images = torch.randint(0, 256, (4, 3, 48, 48), dtype=torch.uint8, generator=rng)
    wanted = source.eval()(model.normalise(images)).double().softmax(1)
    torch.testing.assert_close(model.probs({SMALL: images}), wanted, rtol=1e-4, atol=1e-6)


def test_an_18_way_classifier_fits_the_flat_model_as_it_is(tmp_path):
    source = timm.create_model("resnet10t", num_classes=18)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    model = flat_model().eval()
    report = start_from(model, tmp_path / "w.pth")
    assert len(report.converted) == 2 and report.missing == ("absent",)
    images = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8)
    torch.testing.assert_close(model({SMALL: images})["mask_gender_age"], source.eval()(model.normalise(images)))


def test_a_flat_models_folder_becomes_the_heads(tmp_path):
    source = flat_model()
    source.save_pretrained(tmp_path)
    model = model_of()
    report = start_from(model, tmp_path)
    rows = source.head["mask_gender_age"].weight
    assert len(report.converted) == 6 and not report.missing
    torch.testing.assert_close(model.head["gender"].weight, rows.reshape(3, 2, 3, -1).mean((0, 2)))


def test_a_folder_of_the_same_model_is_taken_whole(tmp_path):
    source = model_of()
    source.save_pretrained(tmp_path)
    model = model_of()
    report = start_from(model, tmp_path)
    assert len(report.loaded) == len(source.state_dict())
    assert report.missing == report.unexpected == report.mismatched == report.converted == ()
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("file", ["run", "run/model/model.safetensors", "run/checkpoints/best.pt"])
def test_the_rows_of_a_head_go_by_the_names_of_its_classes(tmp_path, file):
    source = model_of()
    torch.nn.init.normal_(source.head["gender"].bias)
    source.save_pretrained(tmp_path / "run" / "model")
    (tmp_path / "run" / "checkpoints").mkdir()
    save(tmp_path / "run" / "checkpoints" / "best.pt", {"model": source.state_dict(), "epoch": 1})
    model = model_of(heads=[MASK, Head("gender", ("female", "male")), AGE])
    start_from(model, tmp_path / file)
    torch.testing.assert_close(model.head["gender"].weight, source.head["gender"].weight[[1, 0]])
    torch.testing.assert_close(model.head["gender"].bias, source.head["gender"].bias[[1, 0]])
    assert torch.equal(model.head["age"].weight, source.head["age"].weight)


@pytest.mark.parametrize(
    ("theirs", "ours", "blocks"),
    [
        ((FACE, SMALL), (SMALL, FACE), [1, 0]),
        ((FACE, SMALL), (SMALL, FACE.resized(32)), [1, 0]),
        ((FACE, FACE.resized(32)), (FACE.resized(32), FACE), [1, 0]),
        ((FACE, SMALL), (FACE, BODY), [0, 1]),
    ],
)
def test_the_columns_of_a_head_go_by_its_crops(tmp_path, theirs, ours, blocks):
    source = Model("resnet10t", [GENDER.on(*theirs)])
    source.save_pretrained(tmp_path)
    start_from(model := Model("resnet10t", [GENDER.on(*ours)]), tmp_path)
    expected = source.head["gender"].weight.reshape(2, 2, -1)[:, blocks].flatten(1)
    torch.testing.assert_close(model.head["gender"].weight, expected)


def test_the_columns_of_a_flat_head_go_by_the_crops_of_each_head(tmp_path):
    source = Model("resnet10t", flat([MASK.on(FACE), GENDER.on(SMALL, FACE)]))
    source.save_pretrained(tmp_path)
    start_from(model := Model("resnet10t", [MASK.on(FACE, SMALL), GENDER.on(SMALL, FACE)]), tmp_path)
    grid = source.head["mask_gender"].weight.reshape(3, 2, 2, -1)  # mask, gender, crop, features
    torch.testing.assert_close(model.head["mask"].weight, grid.mean(1).flatten(1))
    torch.testing.assert_close(model.head["gender"].weight, grid.mean(0)[:, [1, 0]].flatten(1))
    weights = torch.randn(6, 2 * source.absent.shape[1])  # another's, which only lie in this folder
    save(tmp_path / "timms.pt", {"conv1.0.weight": source.backbone.conv1[0].weight, "fc.weight": weights})
    assert "head.gender.weight" in start_from(model, tmp_path / "timms.pt").converted
    torch.testing.assert_close(model.head["gender"].weight, weights.reshape(3, 2, -1).mean(0))


def test_the_vectors_of_absent_crops_go_by_the_crops(tmp_path):
    source = Model("resnet10t", [MASK.on(FACE), GENDER.on(SMALL, FACE)]).eval()
    torch.nn.init.normal_(source.absent)
    source.save_pretrained(tmp_path)
    start_from(model := Model("resnet10t", [GENDER.on(SMALL, FACE), MASK.on(FACE)]).eval(), tmp_path)
    images = {crop: torch.randint(0, 256, (2, 3, *crop.size), dtype=torch.uint8) for crop in source.crops}
    present = torch.tensor([[True, False], [False, True]])
    for name, logits in source(images, present).items():  # its crops stand the other way round
        torch.testing.assert_close(model(images, present.flip(1))[name], logits)


def test_a_head_of_other_classes_is_left_as_it_is(tmp_path):
    bands = Head("age", ("<20", "20-39", ">=40"), edges=(20, 40))
    source = model_of(heads=[MASK, Head("tone", ("dark", "light")), bands])
    source.save_pretrained(tmp_path)
    model = model_of(heads=[MASK, Head("tone", ("warm", "cold")), AGE])
    before = model.head["tone"].weight.clone()
    report = start_from(model, tmp_path)
    assert set(report.mismatched) == {"head.tone.weight", "head.tone.bias"} and not report.unexpected
    assert torch.equal(model.head["tone"].weight, before)
    assert torch.equal(model.head["age"].weight, source.head["age"].weight)  # bands keep their order


def test_a_classifier_over_other_joint_classes_is_not_converted(tmp_path):
    Model("resnet10t", flat([Head("tone", tuple("abcdef")), Head("size", ("s", "m", "l"))])).save_pretrained(tmp_path)
    report = start_from(model_of(), tmp_path)
    assert not report.converted and "head.tone_size.weight" in report.unexpected


def test_a_flat_head_goes_by_the_names_of_its_classes(tmp_path):
    source, other = flat_model(), [MASK.on(SMALL), Head("gender", ("female", "male"), (SMALL,)), AGE.on(SMALL)]
    source.save_pretrained(tmp_path)
    rows = source.head["mask_gender_age"].weight.detach().reshape(3, 2, 3, -1).flip(1)
    start_from(model := Model("resnet10t", flat(other)), tmp_path)
    torch.testing.assert_close(model.head["mask_gender_age"].weight.detach(), rows.flatten(0, 2))
    start_from(model := Model("resnet10t", other), tmp_path)
    torch.testing.assert_close(model.head["gender"].weight.detach(), rows.mean((0, 2)))


def test_heads_that_both_have_are_taken_and_others_stay(tmp_path):
    source = model_of(heads=[MASK, GENDER])
    source.save_pretrained(tmp_path)
    model = model_of(heads=[GENDER, AGE])
    before = model.head["age"].weight.clone()
    report = start_from(model, tmp_path)
    assert torch.equal(model.head["gender"].weight, source.head["gender"].weight)
    assert torch.equal(model.head["age"].weight, before)
    assert set(report.missing) == {"head.age.weight", "head.age.bias"}
    assert set(report.unexpected) == {"head.mask.weight", "head.mask.bias"}


def test_other_shapes_are_told(tmp_path):
    source = model_of()
    source.save_pretrained(tmp_path)
    model = Model("resnet10t", [MASK.on(SMALL), GENDER.on(SMALL), AGE.on(SMALL, FACE.resized(48))])
    report = start_from(model, tmp_path)
    assert set(report.mismatched) == {"head.age.weight", "absent"}
    assert "2 mismatched (" in str(report)


def test_nothing_that_fits_is_an_error_with_names_of_both(tmp_path):
    torch.save({"something.weight": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(
        ValueError, match=r"nothing in .*w.pth fits resnet10t: it has \['something.weight'\], the model"
    ):
        start_from(model_of(), tmp_path / "w.pth")
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="holds no weights; expected a state dict"):
        start_from(model_of(), tmp_path / "w.pth")
    torch.save([1, 2], tmp_path / "w.pth")
    with pytest.raises(ValueError, match="holds no weights"):
        start_from(model_of(), tmp_path / "w.pth")


def test_a_classifier_of_other_classes_is_not_converted(tmp_path):
    torch.save(timm.create_model("resnet10t", num_classes=17).state_dict(), tmp_path / "w.pth")
    model = model_of()
    before = model.head["mask"].weight.detach().numpy().copy()
    report = start_from(model, tmp_path / "w.pth")
    assert not report.converted and set(report.unexpected) == {"fc.weight", "fc.bias"}
    assert np.array_equal(model.head["mask"].weight.detach().numpy(), before)


def test_of_long_settings_only_the_part_that_differs_is_told():
    old, new = (repr([head.on(FULL.resized(side)) for head in HEADS]) for side in (64, 96))
    (told,) = changes({"model": old, "lr": 1}, {"model": new, "lr": 1})
    assert "64" in told and "96" in told and told.startswith("model: ...") and len(told) < 0.9 * len(old + new)
    assert changes({"lr": 1, "epochs": 2}, {"lr": 3, "epochs": 2}) == ["lr: 1, now 3"]
    same_start, same_end = (
        changes({"a": "x" * 200 + "1"}, {"a": "x" * 200 + "2"}),
        changes({"a": "1" + "x" * 200}, {"a": "2" + "x" * 200}),
    )
    assert all(len(told) < 160 and "1" in told and "2" in told for told in (*same_start, *same_end))


def test_a_start_from_the_folder_of_a_run(tmp_path):
    source = model_of()
    torch.nn.init.normal_(source.head["mask"].weight)
    source.save_pretrained(tmp_path / "run" / "model")
    start_from(model := model_of(), tmp_path / "run")
    assert torch.equal(model.head["mask"].weight, source.head["mask"].weight)
    (tmp_path / "vote").mkdir()
    (tmp_path / "vote" / "ensemble.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="vote holds an ensemble: name one of its members; expected the folder"):
        start_from(model, tmp_path / "vote")
    with pytest.raises(FileNotFoundError, match="holds no model.safetensors; expected the folder of a model or a run"):
        start_from(model, tmp_path)


def test_what_is_no_checkpoint_is_not_opened_all_the_same(tmp_path):
    (tmp_path / "table.csv").write_text("path,mask\na.jpg,worn\n")
    with pytest.raises(ValueError, match="table.csv cannot be opened safely: ") as error:
        start_from(model_of(), tmp_path / "table.csv")
    assert "weights_only" not in str(error.value)


def test_a_folder_of_which_no_layer_fits_the_backbone_is_warned_of(tmp_path):
    """Biases of its heads, and vectors that are as long by chance, may fit all the same."""
    model_of("test_convnext").save_pretrained(tmp_path)
    model = model_of("resnet10t")
    before = {name: value.clone() for name, value in model.backbone.state_dict().items() if value.ndim > 1}
    with pytest.warns(UserWarning, match="no layer in .* fits backbone resnet10t, which stays as it was"):
        report = start_from(model, tmp_path)
    assert "head.age.bias" in report.loaded
    assert all(
        torch.equal(value, before[name]) for name, value in model.backbone.state_dict().items() if name in before
    )
