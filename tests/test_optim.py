import copy
import math
from dataclasses import replace

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.optim import create_optimizer_v2, list_optimizers, param_groups_layer_decay, param_groups_weight_decay

from multihead.crops import FULL
from multihead.heads import HEADS, MASK
from multihead.model import Model
from multihead.optim import MADGRAD, SGD, Adam, AdamW, Timm, create_optimizer

OPTIMS = [
    AdamW(0.01, 0.1),
    Adam(0.01, 0.1),
    SGD(0.05, 0.1),
    SGD(0.05, 0.1, momentum=0.0),
    MADGRAD(0.01, 0.1),
    MADGRAD(0.01, 0.1, momentum=0.5),
    Timm("lamb", 0.01, 0.1),
    Timm("SGDW", 0.05, 0.1, 0.5),
    Timm("lookahead_adamw", 0.01, 0.1),
]


def network():
    torch.manual_seed(0)
    parts = (torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))
    return torch.nn.Sequential(*parts).double()  # rounding does not steer Adam's small gradients


def theirs(model, optim):
    """The library's own optimiser with the same settings."""
    import madgrad

    groups = [
        {"params": [model[0].weight, model[3].weight], "weight_decay": optim.weight_decay},
        {"params": [model[0].bias, model[2].weight, model[2].bias, model[3].bias], "weight_decay": 0.0},
    ]
    kinds = {
        AdamW: lambda: torch.optim.AdamW(groups, optim.lr),
        Adam: lambda: torch.optim.Adam(groups, optim.lr),
        SGD: lambda: torch.optim.SGD(groups, optim.lr, optim.momentum, nesterov=optim.momentum > 0),
        MADGRAD: lambda: madgrad.MADGRAD(groups, optim.lr, optim.momentum),
        Timm: lambda: create_optimizer_v2(groups, optim.timm_opt, optim.lr, momentum=optim.momentum),
    }
    return kinds[type(optim)]()


def run(model, optimizer, steps=4):
    pixels = torch.randn(6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for _ in range(steps):
        optimizer.zero_grad()
        (model(pixels) - pixels[:, :2]).square().mean().backward()
        optimizer.step()


# ---- optimisers


@pytest.mark.parametrize("optim", OPTIMS, ids=repr)
def test_steps_are_those_of_the_library(optim):
    ours = network()
    other = copy.deepcopy(ours)
    run(ours, create_optimizer(ours, optim))
    run(other, theirs(other, optim))
    for left, right in zip(ours.parameters(), other.parameters()):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize("optim", OPTIMS, ids=repr)
def test_only_matrices_decay(optim):
    model = network()
    before = copy.deepcopy(model.state_dict())
    optimizer = create_optimizer(model, optim)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = {name: (value - before[name]).abs().max().item() for name, value in model.named_parameters()}
    assert {name for name, distance in moved.items() if distance > 1e-6} == {"0.weight", "3.weight"}
    assert model[0].weight.norm() < before["0.weight"].norm()


def test_frozen_parameters_are_left_out():
    model = network()
    model[0].requires_grad_(False)
    optimizer = create_optimizer(model, AdamW())
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 3]


def test_two_groups_by_default():
    model, lone = network(), torch.nn.Parameter(torch.zeros(3, 2))
    groups = create_optimizer(model, AdamW(0.01, 0.1), extra=[lone]).param_groups
    expected = [[model[0].weight, model[3].weight], [*(p for p in model.parameters() if p.ndim == 1), lone]]
    for group, members, decay in zip(groups, expected, (0.1, 0.0), strict=True):
        assert [id(p) for p in group["params"]] == [id(p) for p in members]
        assert (group["lr"], group["lr_scale"], group["weight_decay"]) == (0.01, 1.0, decay)


# ---- groups of a model of heads

BACKBONES = ["resnet18", "vit_tiny_patch16_224", "tf_efficientnet_lite0"]
CHOICES = [{}, {"head_lr": 10.0}, {"layer_decay": 0.5}, {"head_lr": 3.0, "layer_decay": 0.7}]


@pytest.fixture(scope="module")
def models():
    heads = [head.on(FULL.resized(32)) for head in HEADS]
    return {name: Model(name, heads) for name in BACKBONES}


def scales(model, optimizer):
    """{name: (lr_scale, weight decay)} of the model's parameters, each of which is in one group."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [(names[id(p)], group) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(name for name, _ in found) == sorted(n for n, p in model.named_parameters() if p.requires_grad)
    return {name: (group["lr_scale"], group["weight_decay"]) for name, group in found}


@pytest.mark.parametrize("choice", CHOICES, ids=str)
@pytest.mark.parametrize("name", BACKBONES)
def test_every_parameter_is_in_one_group(models, name, choice):
    model = models[name]
    optimizer = create_optimizer(model, SGD(0.2, 0.1), **choice)
    spared = getattr(model.backbone, "no_weight_decay", set)()
    for key, (scale, decay) in scales(model, optimizer).items():
        vector = dict(model.named_parameters())[key].ndim <= 1 or key.removeprefix("backbone.") in spared
        assert decay == (0.0 if vector or key == "absent" else 0.1), key
        assert scale == choice.get("head_lr", 1.0) or key.startswith("backbone."), key
    for group in optimizer.param_groups:
        assert type(group["lr_scale"]) is float and group["lr"] == pytest.approx(0.2 * group["lr_scale"])
    if "layer_decay" not in choice:
        assert {scale for key, (scale, _) in scales(model, optimizer).items() if key.startswith("backbone.")} == {1.0}


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "levit_128s"])
def test_what_a_backbone_spares_does_not_decay(backbone):
    """As timm has it: tables of position biases, and the positions of a vision transformer."""
    model = Model(backbone, heads=[MASK.on(FULL.resized(224))])
    spared = set(model.backbone.no_weight_decay())
    wanted = {
        id(parameter)
        for group in param_groups_weight_decay(model.backbone, 0.1, no_weight_decay_list=spared)
        for parameter in group["params"]
        if group["weight_decay"]
    }
    found = {
        id(parameter)
        for group in create_optimizer(model, AdamW(1e-3, 0.1)).param_groups
        for parameter in group["params"]
        if group["weight_decay"]
    }
    inside = set(map(id, model.backbone.parameters()))
    assert found & inside == wanted and any(p.ndim > 1 and id(p) not in wanted for p in model.backbone.parameters())


@pytest.mark.parametrize("name", BACKBONES)
def test_layer_decay_is_timms(models, name):
    model = models[name]
    found = scales(model, create_optimizer(model, AdamW(), head_lr=2.0, layer_decay=0.7))
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    wanted = {
        names[id(parameter)]: group["lr_scale"]
        for group in param_groups_layer_decay(model.backbone, layer_decay=0.7)
        for parameter in group["params"]
    }
    assert {key: scale for key, (scale, _) in found.items() if key.startswith("backbone.")} == wanted
    assert found["head.age.weight"][0] == found["absent"][0] == 2.0


def test_layer_decay_by_hand(models):
    model = models["vit_tiny_patch16_224"]
    found = scales(model, create_optimizer(model, AdamW(), layer_decay=0.5))
    assert found["backbone.patch_embed.proj.weight"][0] == 0.5**12
    assert [found[f"backbone.blocks.{n}.mlp.fc1.weight"][0] for n in range(12)] == [0.5 ** (11 - n) for n in range(12)]
    assert found["backbone.norm.weight"][0] == 1.0 and found["head.mask.weight"][0] == 1.0


def test_frozen_layers_are_in_no_group():
    model = Model("test_resnet", [HEADS[0].on(FULL.resized(32))])
    for parameter in model.backbone.conv1.parameters():
        parameter.requires_grad_(False)
    for choice in CHOICES:
        assert not any("backbone.conv1" in key for key in scales(model, create_optimizer(model, AdamW(), **choice)))


@given(st.floats(0.01, 100), st.none() | st.floats(0.1, 1), st.floats(1e-5, 1))
def test_a_rate_is_the_optimisers_times_its_scale(head_lr, layer_decay, lr):
    model = torch.nn.Module()
    model.backbone, model.head = timm.create_model("test_vit", num_classes=0), torch.nn.Linear(4, 2)
    lone = torch.nn.Parameter(torch.zeros(2))
    optimizer = create_optimizer(model, Adam(lr), head_lr=head_lr, layer_decay=layer_decay, extra=[lone])
    members = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(members) == sorted(map(id, [*model.parameters(), lone]))
    for group in optimizer.param_groups:
        assert math.isclose(group["lr"], lr * group["lr_scale"])
        if any(p is lone for p in group["params"]):
            assert group["lr_scale"] == 1.0 and group["weight_decay"] == 0.0


@pytest.mark.parametrize("optim", [optim for optim in OPTIMS if optim != Timm("lamb", 0.01, 0.1)], ids=repr)
def test_each_group_moves_at_its_rate(optim):
    """One optimiser with scales beside an optimiser for each part (but LAMB clips the norm of all groups together)."""
    torch.manual_seed(0)
    ours = torch.nn.ModuleDict({name: torch.nn.Linear(4, 4) for name in ("backbone", "head", "extra")}).double()
    ours.extra.weight.requires_grad_(False)  # the vector remains
    other = copy.deepcopy(ours)
    fast = replace(optim, lr=3 * optim.lr)
    apart = [create_optimizer(other[name], fast if name == "head" else optim) for name in other]
    extra = ours.pop("extra")
    both = [create_optimizer(ours, optim, head_lr=3.0, extra=[extra.bias])]
    ours["extra"] = extra
    for model, optimizers in ((ours, both), (other, apart)):
        for _ in range(7):
            model.zero_grad()
            model.extra(model.head(model.backbone(torch.ones(1, 4).double()))).square().sum().backward()
            for optimizer in optimizers:
                optimizer.step()
    for left, right in zip(ours.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(left, right)


# ---- timm's


@pytest.mark.parametrize("name", [*list_optimizers(exclude_filters=["bnb*", "fused*", "kron*"]), "lookahead_lamb"])
def test_timms_optimisers_step_or_are_refused(name):
    model = network().float()
    before = copy.deepcopy(model)
    if name == "adahessian":
        with pytest.raises(ValueError, match="timm's adahessian needs second derivatives"):
            create_optimizer(model, Timm(name))
        return
    optimizer = create_optimizer(model, Timm(name, 0.01, 0.1))
    assert [(g["lr"], g["lr_scale"], g["weight_decay"]) for g in optimizer.param_groups] == [
        (0.01, 1.0, 0.1),
        (0.01, 1.0, 0.0),
    ]
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(3, 5).cumsum(0)).square().mean().backward()
        optimizer.step()
    assert all((new != old).any() for new, old in zip(model[3].parameters(), before[3].parameters()))


@pytest.mark.parametrize("optim", OPTIMS, ids=repr)
def test_an_optimiser_resumes(optim):
    whole = network()
    optimizer = create_optimizer(whole, optim)
    run(whole, optimizer)
    half, state = copy.deepcopy(whole), copy.deepcopy(optimizer.state_dict())
    run(whole, optimizer, 3)
    again = create_optimizer(half, optim)
    again.load_state_dict(state)
    assert [group["lr_scale"] for group in again.param_groups] == [1.0, 1.0]
    run(half, again, 3)
    for left, right in zip(whole.parameters(), half.parameters()):
        assert left.equal(right)


# ---- refusals


def test_create_optimizer_refuses():
    with pytest.raises(TypeError, match="'adam' is no optimiser; expected AdamW, Adam, SGD, MADGRAD or Timm"):
        create_optimizer(network(), "adam")


@pytest.mark.parametrize(
    ("optim", "arguments", "message"),
    [
        (Timm("lambb"), {}, "timm has no optimiser 'lambb'; did you mean lamb"),
        (Timm("lookahead_lambb"), {}, "timm has no optimiser 'lookahead_lambb'; did you mean"),
        (Timm("?"), {}, r"timm has no optimiser '\?'; did you mean one of timm.optim.list_optimizers"),
        (Timm("fusedlamb"), {}, "timm's fusedlamb cannot be had here: "),
        (AdamW(), {"head_lr": 0}, "create_optimizer: head_lr is 0; expected a number > 0"),
        (AdamW(), {"layer_decay": -0.5}, "create_optimizer: layer_decay is -0.5; expected a number > 0"),
        (AdamW(), {"head_lr": 2.0}, "Sequential has no backbone; head_lr and layer_decay need a multihead.Model"),
        (AdamW(), {"layer_decay": 0.9}, "Sequential has no backbone"),
    ],
    ids=str,
)
def test_create_optimizer_refuses_what_it_cannot_do(optim, arguments, message):
    with pytest.raises(ValueError, match=message):
        create_optimizer(network(), optim, **arguments)
