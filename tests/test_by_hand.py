"""Loops of one's own beside `fit`."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from multihead import (
    DWA,
    FACE,
    FULL,
    HEADS,
    Batches,
    Constant,
    CutMix,
    Cutout,
    Flip,
    Focal,
    Model,
    Ordinal,
    Recipe,
    Shares,
    Uncertainty,
    Weighted,
    fit,
    read,
)
from multihead import SGD as Descent
from multihead.cache import Cache
from multihead.heads import MASK, flat

SMALL = FULL.resized(32)


def model_of(heads=HEADS, crop=SMALL):
    torch.manual_seed(0)
    return Model("test_resnet", [head.on(crop) for head in heads])


@pytest.fixture(scope="module")
def photos(people):
    return read(people / "train")


def trained(model, batches, epochs, lr):
    """Plain torch."""
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, nesterov=True)
    losses = []
    for _ in range(epochs):
        model.train()
        for batch in batches:
            loss = batches.loss(model(batch.images, batch.present), batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


FULL_RECIPE = {
    "augment": (Flip(), Cutout(0.3)),
    "mix": CutMix(1.0),
    "losses": {"mask": Focal(2.0, class_weights="inverse"), "age": Ordinal(0.2)},
    "head_weights": {"age": 2.0},
    "smoothing": 0.1,
    "sampler": Weighted(by="mask"),
}


@pytest.mark.parametrize("more", [{}, FULL_RECIPE, {"epoch_photos": 20, "seed": 3}], ids=["plain", "all", "few"])
def test_an_own_loop_gives_the_weights_of_fit(photos, more):
    hidden = photos.with_columns(gender=np.where(np.arange(len(photos)) % 3, photos.table.gender, -1))
    recipe = Recipe(
        epochs=2, batch_size=16, optim=Descent(0.05, weight_decay=0.0), schedule=Constant(), channels_last=False, **more
    )
    model, own = model_of(), model_of()
    rows = fit(model, hidden, None, recipe, workers=0)
    batches = Batches(own, hidden, recipe, workers=0)
    losses = trained(own, batches, 2, 0.05)
    assert len(losses) == 2 * len(batches) and batches.epoch == 2
    assert np.mean(losses[: len(batches)]) == pytest.approx(rows[0]["loss"], abs=1e-5)
    wanted = model.state_dict()
    for name, value in own.state_dict().items():
        torch.testing.assert_close(
            value, wanted[name], rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert own.prior == model.prior


def test_each_epoch_is_another_and_goes_on_where_it_is_set(photos):
    first, again = (Batches(model_of(), photos, Recipe(seed=1), workers=0) for _ in range(2))
    seen = [[batch.images[SMALL].clone() for batch in first] for _ in range(3)]
    assert not torch.equal(seen[0][0], seen[1][0])
    again.epoch = 2
    for batch, wanted in zip(again, seen[2], strict=True):
        assert torch.equal(batch.images[SMALL], wanted)


def test_faces_are_searched_where_a_crop_needs_one(photos, capsys):
    face = FACE.resized(32)
    some = photos[np.flatnonzero(photos.labels()[:, 0] == 2)[:4]]
    whole = {batch.images[SMALL].sum().item() for batch in Batches(model_of(), some, Recipe(augment=None), workers=0)}
    batches = Batches(model_of(crop=face), some, Recipe(augment=None), workers=0)
    assert batches.side.searched == 4 and "searched 4 photos for faces" in capsys.readouterr().err
    assert {batch.images[face].sum().item() for batch in batches} != whole


def test_what_nobody_knows_has_no_loss_and_no_gradient(photos):
    nothing = photos.with_columns(gender=-1)
    model = model_of()
    batches = Batches(model, nothing, Recipe(), workers=0)
    batch = next(iter(batches))
    assert batch.targets["gender"].sum() == 0
    batches.loss(model(batch.images, batch.present), batch).backward()
    assert not model.head["gender"].weight.grad.any() and model.head["age"].weight.grad.any()


def test_a_flat_model(photos):
    model = Model("test_resnet", flat([head.on(SMALL) for head in HEADS]))
    batches = Batches(model, photos, Recipe(), workers=0)
    batch = next(iter(batches))
    logits = model(batch.images, batch.present)
    (name,) = logits
    wanted = -(logits[name].log_softmax(1) * batch.targets[name]).sum(1).mean()
    torch.testing.assert_close(batches.loss(logits, batch), wanted)


@pytest.mark.parametrize("balance", [Uncertainty(), DWA()])
def test_a_balance_that_only_fit_follows(photos, balance):
    with pytest.raises(ValueError, match="recipe: balance is .*, which fit alone can follow"):
        Batches(model_of(), photos, Recipe(balance=balance))


def test_what_does_not_fit_is_told_before_photos_are_read(photos, monkeypatch):
    monkeypatch.setattr("multihead.by_hand.Ready", None)
    with pytest.raises(ValueError, match="head_weights names"):
        Batches(model_of(), photos, Recipe(head_weights={"hat": 1}))
    with pytest.raises(ValueError, match="has a label for"):
        Batches(model_of(), photos.with_columns(mask=-1, gender=-1, years=np.nan), Recipe())
    with pytest.raises(ValueError, match="workers"):
        Batches(model_of(), photos, workers=-1)
    with pytest.raises((ValueError, KeyError), match="nowhere"):
        Batches(model_of(), photos, Recipe(sampler=Shares({"nowhere": 1.0})))


def test_logits_of_a_head_are_missing(photos):
    model = model_of()
    batches = Batches(model, photos, Recipe(), workers=0)
    batch = next(iter(batches))
    with pytest.raises(KeyError, match="no logits for heads"):
        batches.loss({"mask": model(batch.images, batch.present)["mask"]}, batch)


def test_a_photo_that_goes_bad_is_named(tmp_path):
    for number in range(4):
        Image.fromarray(np.full((40, 30, 3), 40 * number, np.uint8)).save(tmp_path / f"{number}.png")
    table = pd.DataFrame({"path": [f"{n}.png" for n in range(4)], "mask": "worn"})
    photos = read(table, root=tmp_path, heads=[MASK])
    batches = Batches(model_of([MASK]), photos, Recipe(), workers=0, cache=Cache(memory=0))
    assert len(list(batches)) == len(batches) == 1
    (tmp_path / "2.png").write_bytes(b"")
    with pytest.raises(ValueError, match="a photo can no longer be read: .*2.png.*empty file; put it back"):
        list(batches)


def test_processes_that_decode_are_kept_and_a_loop_may_be_left(photos):
    """Whatever reads the photos, the epochs are the same; so is one after an epoch that was not gone through."""
    recipe = Recipe(batch_size=16, seed=2)
    plain = Batches(model_of(), photos, recipe, workers=0)
    wanted = [[batch.images[SMALL].clone() for batch in plain] for _ in range(3)]
    batches = Batches(model_of(), photos, recipe, workers=2, cache=Cache(memory=0))
    assert batches.workers == 2
    first = [batch.images[SMALL].clone() for batch in batches]
    for _ in batches:
        break
    third = [batch.images[SMALL].clone() for batch in batches]
    for found, told in ((first, wanted[0]), (third, wanted[2])):
        assert len(found) == len(told) and all(map(torch.equal, found, told))
