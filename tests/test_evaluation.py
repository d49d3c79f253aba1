import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from multihead.batches import PhotoSet
from multihead.crops import FACE, FULL
from multihead.cutting import read_crops
from multihead.evaluation import answers, evaluate, evaluating, scores
from multihead.heads import HEADS, MASK, flat
from multihead.images import open_image
from multihead.joined import Ensemble
from multihead.labels import joint
from multihead.leaks import LeakError
from multihead.model import Model
from multihead.modes import Pins
from multihead.reading import read

SMALL = FULL.resized(32, 24)


def model_of(heads=HEADS, crop=SMALL, seed=0):
    torch.manual_seed(seed)
    model = Model("test_resnet", [head.on(crop) for head in heads])
    for head in model.head.values():
        torch.nn.init.normal_(head.weight, std=3)  # answers that differ
    return model


@pytest.fixture(scope="module")
def photos(people):
    return read(people / "train")


def brute_force(model, photos):
    """(labels, joint probabilities) a photo at a time, without a loader."""
    rows = []
    with torch.no_grad():
        for path in photos.paths:
            (pixels,), _ = read_crops(open_image(path), [SMALL], None)
            logits = model.eval()({SMALL: torch.from_numpy(pixels).permute(2, 0, 1)[None]})
            rows.append(joint({name: row.double().softmax(1) for name, row in logits.items()}, model.heads)[0].numpy())
    return photos.labels(), np.stack(rows)


@pytest.mark.parametrize("batch_size, workers", [(64, 0), (5, 0), (1, 0), (9, 2)])
def test_scores_are_those_of_scikit_learn_over_all_rows(photos, batch_size, workers):
    model = model_of()
    labels, probs = brute_force(model, photos)
    truth = labels[:, 0] * 6 + labels[:, 1] * 3 + labels[:, 2]
    found = evaluate(model, photos, batch_size=batch_size, workers=workers)
    assert found.n == len(photos) == 84
    assert found.f1 == pytest.approx(f1_score(truth, probs.argmax(1), average="macro"), abs=1e-9)
    assert found.accuracy == pytest.approx(accuracy_score(truth, probs.argmax(1)), abs=1e-9)
    assert np.array_equal(found.confusion, confusion_matrix(truth, probs.argmax(1), labels=range(18)))
    grid = probs.reshape(-1, 3, 2, 3)
    for column, axes in enumerate([(2, 3), (1, 3), (1, 2)]):
        head = found.heads[HEADS[column].name]
        answer = grid.sum(axes).argmax(1)
        assert head.f1 == pytest.approx(f1_score(labels[:, column], answer, average="macro"), abs=1e-9)


def test_heads_count_their_own_known_rows(photos):
    some = photos.with_columns(gender=np.where(np.arange(len(photos)) < 30, photos.table.gender, -1))
    found = evaluate(model_of(), some, workers=0)
    assert found.n == 30 and found.heads["gender"].n == 30 and found.heads["mask"].n == 84


def test_a_flat_model_and_an_ensemble_are_scored_alike(photos):
    one = model_of(seed=1)
    torch.manual_seed(2)
    other = Model("test_resnet", flat([head.on(SMALL) for head in HEADS]))
    both = evaluate(Ensemble([one, other]), photos, workers=0)
    mean = (brute_force(one, photos)[1] + brute_force(other, photos)[1]) / 2
    np.testing.assert_allclose(both.probs, mean, atol=1e-6)
    assert evaluate(other, photos, workers=0).n == 84


def test_slices_by_head_and_column(photos):
    found = evaluate(model_of(), photos, workers=0)
    parts = found.by("mask")
    assert sum(part.n for part in parts.values()) == 84 and parts["incorrect"].n == 12
    assert sum(part.n for part in found.by("person").values()) == 84


def test_unreadable_photos_are_listed_and_not_counted(tmp_path):
    for number in range(5):
        Image.fromarray(np.full((40, 30, 3), 40 * number, np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_bytes(b"")
    table = pd.DataFrame({"path": [f"{n}.png" for n in range(5)], "mask": "worn", "gender": "male", "age": 20})
    photos = read(table, root=tmp_path)
    found = evaluate(model_of(), photos, batch_size=2, workers=0)
    assert found.n == 4
    ((path, reason),) = found.errors
    assert path == str(tmp_path / "2.png") and "empty file" in reason
    assert found.row_numbers.tolist() == [0, 1, 3, 4]
    with pytest.raises(ValueError, match="none of 1 photos could be scored; the first: .*2.png.*empty file"):
        evaluate(model_of(), photos[[2]], workers=0)


def test_faces_are_searched_where_a_crop_needs_one(people, monkeypatch):
    import multihead.boxes

    photos = read(people / "train")[:6]
    asked = []
    plain = multihead.boxes.scan
    monkeypatch.setattr(
        multihead.boxes, "scan", lambda files, *a, **k: asked.append(len(files)) or plain(files, *a, **k)
    )
    model = model_of([MASK], FACE.resized(32))
    first = evaluate(model, photos, workers=0)
    again = evaluate(model, photos, workers=0)
    assert asked[0] == 6 and first.n == 6
    np.testing.assert_array_equal(first.probs, again.probs)


@pytest.mark.parametrize("missing, count", [("full", 6), ("skip", 4)])
def test_photos_without_a_face(people, missing, count):
    photos = read(people / "train", boxes=people / "train" / "boxes.csv")[:6]
    blank = np.arange(6) < 2
    photos = photos.with_columns(**{n: np.where(blank, np.nan, photos.table[n]) for n in ("x0", "y0", "x1", "y1")})
    model = model_of([MASK], FACE.resized(32))
    assert evaluate(model, photos.with_columns(searched=True), missing=missing, workers=0).n == count
    with pytest.raises(ValueError, match="2 photos have no face"):
        evaluate(model, photos.with_columns(searched=True), missing="error", workers=0)
    with pytest.raises(ValueError, match="missing is 'ful'; expected one of full, skip, error"):
        evaluate(model, photos.with_columns(searched=True), missing="ful", workers=0)
    with pytest.raises(TypeError, match="pins is 'f32'; expected multihead.modes.Pins"):
        evaluate(model, photos, pins="f32", workers=0)


def test_answers_keep_rows_and_mode(photos):
    model = model_of().train()
    held = PhotoSet(photos, HEADS, [SMALL])
    rows, probs, bad = answers(model, held, [7, 3, 11], batch_size=2)
    assert rows.tolist() == [7, 3, 11] and probs.shape == (3, 18) and bad == [] and model.training
    _, whole, _ = answers(model, held, range(12))
    np.testing.assert_allclose(probs, whole[[7, 3, 11]], atol=1e-7)
    rows, probs, _ = answers(model, held, [])
    assert len(rows) == 0 and probs.shape == (0, 18)


def test_evaluating_gives_the_mode_back_after_an_error():
    model = model_of().train()
    with pytest.raises(KeyError), evaluating(model):
        assert not model.training
        raise KeyError
    assert model.training


def test_every_part_gets_its_own_mode_back():
    model = model_of().train()
    model.backbone.eval()
    before = {name: part.training for name, part in model.named_modules()}
    with evaluating(model):
        assert not any(part.training for part in model.modules())
    assert {name: part.training for name, part in model.named_modules()} == before and model.training


@pytest.mark.parametrize("inner", ["the same", "a part"])
def test_who_leaves_first_switches_nothing_for_who_is_inside(inner):
    """Threads ask a model, and an ensemble that holds it, at once."""
    model = model_of().train()
    other = model if inner == "the same" else Ensemble([model])
    other.train()
    first, second = evaluating(model), evaluating(other)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not any(part.training for part in model.modules())
    second.__exit__(None, None, None)
    assert all(part.training for part in [*model.modules(), *other.modules()])


def test_what_is_switched_on_inside_stays_on():
    model = model_of().eval()
    with evaluating(model):
        model.train()
        with evaluating(model):
            assert not model.training
        assert all(part.training for part in model.modules())
    assert not model.training


def test_a_backbone_that_forgets_when_it_trains_is_told():
    """levit keeps what it worked out of its weights while it is evaluated."""
    told = []

    class Backbone(torch.nn.Module):
        def train(self, mode=True):
            told.append(mode)
            return super().train(mode)

    backbone = Backbone().train()
    with evaluating(backbone):
        pass
    assert told[-2:] == [False, True] and backbone.training


def test_scores_of_a_subset_by_hand(photos):
    probs = np.eye(18)[[0, 17]]
    found = scores(photos, HEADS, np.array([0, 1]), probs, [(5, "broken")])
    wanted = photos.labels()[:2]
    assert found.accuracy == np.mean([(wanted[0] == 0).all(), (wanted[1] == [2, 1, 2]).all()])
    assert found.errors == ((photos.paths[5], "broken"),)


def test_bf16_answers_nearly_the_same(photos):
    exact = evaluate(model_of(), photos, workers=0).probs
    rough = evaluate(model_of(), photos, workers=0, pins=Pins("bf16")).probs
    assert 0 < np.abs(exact - rough).max() < 0.5


def test_photos_of_other_heads_are_refused(people):
    photos = read(people / "train", heads=[MASK])
    with pytest.raises(KeyError, match=r"photos were read for heads \['mask'\]"):
        evaluate(model_of(), photos, workers=0)


def test_a_models_own_labels_do_not_score_it(photos):
    with pytest.raises(LeakError, match="scored photos have labels that a model made"):
        evaluate(model_of(), photos.with_columns(pseudo=["age"] + [""] * (len(photos) - 1)), workers=0)
