import json
import os

import numpy as np
import pytest

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations as A

from multihead.augment import Albumentations, Flip, apply, check, last_flip, try_out
from multihead.pipelines import built, run, written
from multihead.spelling import parse, spell

PIPELINE = A.Compose([A.HorizontalFlip(p=0.5), A.OneOf([A.GaussianBlur(p=1), A.ToGray(p=1)], p=0.5)])


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_object_file_and_text_are_one_pipeline(form, tmp_path):
    A.save(PIPELINE, tmp_path / f"aug.{form}", data_format=form)
    from_object, from_file = Albumentations(PIPELINE), Albumentations(str(tmp_path / f"aug.{form}"))
    assert from_object == from_file == Albumentations(from_object.pipeline) == Albumentations(tmp_path / f"aug.{form}")
    assert hash(from_object) == hash(from_file)
    (tmp_path / f"aug.{form}").unlink()  # it holds the pipeline, not its place
    crop = noise(20, 16)
    for seed in range(8):
        np.testing.assert_array_equal(apply(from_file, [crop], seed)[0], apply(from_object, [crop], seed)[0])


def test_a_pipeline_changes_as_albumentations_does():
    crop = noise(24, 20)
    moved = {"mirror": crop[:, ::-1], "none": crop, "grey": A.ToGray(p=1)(image=crop)["image"]}
    for transform, name in ((A.HorizontalFlip(p=1), "mirror"), (A.NoOp(), "none"), (A.ToGray(p=1), "grey")):
        np.testing.assert_array_equal(apply(Albumentations(transform), [crop], 3)[0], moved[name])


def test_parts_of_equal_probability_come_independently():
    """Under set_random_seed both would always come together."""
    pipeline = Albumentations(A.Compose([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)]))
    crop = noise(6, 4)
    turned = {(x, y): crop[:: -1 if y else 1, :: -1 if x else 1].tobytes() for x in (0, 1) for y in (0, 1)}
    drawn = [apply(pipeline, [crop], seed)[0].tobytes() for seed in range(400)]
    counts = [drawn.count(found) for found in turned.values()]
    assert sum(counts) == 400 and min(counts) > 60, counts


def test_all_crops_of_a_photo_draw_alike_whatever_an_earlier_part_draws_for_their_size():
    pipeline = Albumentations(A.Compose([A.GaussNoise(p=1), A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)]))
    ramp = np.add.outer(np.arange(0, 240, 10), np.arange(0, 10)).astype(np.uint8)[:, :, None].repeat(3, 2)
    large = np.kron(ramp, np.ones((3, 3, 1), np.uint8))
    for seed in range(20):
        small_found, large_found = apply(pipeline, [ramp, large], seed)
        assert (small_found[0].mean() < small_found[-1].mean()) == (large_found[0].mean() < large_found[-1].mean())
        np.testing.assert_array_equal(small_found, apply(pipeline, [ramp], seed)[0])


def test_a_last_flip_is_still_found_after_a_pipeline():
    assert (
        last_flip((Albumentations(A.ToGray()), Flip())) == 1 and last_flip((Flip(), Albumentations(A.ToGray()))) is None
    )


@pytest.mark.parametrize(
    "pipeline, told",
    [
        ("", "there is no pipeline"),
        ("nowhere.json", "'nowhere.json' cannot be read .No such file"),
        ('{"a": 1}', "its text holds no pipeline"),
        ("{broken", "its text is neither JSON nor YAML"),
        (3, "3 cannot be written down"),
        (A.Lambda(name=None, image=noise), "cannot be written down .*Lambda"),
        (A.Lambda(name="mine", image=noise), "cannot be made by version .*deserialize"),
    ],
)
def test_what_is_no_pipeline_is_refused(pipeline, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"albumentations: .*{told}|albumentations: {told}"):
        Albumentations(pipeline)


def test_files_that_hold_none_are_named(tmp_path):
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "picture.json").write_bytes(b"\xff\xd8\xff")
    for name, told in (("list.yaml", "holds no pipeline"), ("picture.json", "cannot be read .no text")):
        with pytest.raises(ValueError, match=f"{name}' {told}"):
            Albumentations(str(tmp_path / name))


@pytest.mark.parametrize(
    "text, told",
    [
        ('{"__class_fullname__": "NoSuchThing", "p": 1}', "NoSuchThing"),
        ('{"__class_fullname__": "HorizontalFlip", "p": 1, "colour": 3}', "does not know HorizontalFlip.colour"),
        ('{"__class_fullname__": "Affine", "p": 1, "scale": "much"}', "cannot be made by version"),
    ],
)
def test_what_albumentations_does_not_know_is_told_before_training(text, told):
    augment = Albumentations(text)  # an old run is still opened
    with pytest.raises(ValueError, match=told):
        try_out(augment, [(8, 8)])


@pytest.mark.parametrize(
    "transform, became",
    [
        (A.Resize(4, 4), r"uint8 \(4, 4, 3\)"),
        (A.Normalize(), r"float32 \(8, 6, 3\)"),
        (A.Compose([A.ToFloat()]), r"float32 \(8, 6, 3\)"),
        (A.RandomCrop(4, 4, p=0.5), r"uint8 \(4, 4, 3\)"),
    ],
)
def test_crops_keep_size_and_type(transform, became):
    with pytest.raises(ValueError, match=f"a crop of uint8 .8, 6, 3. became {became}; expected its size and type"):
        try_out((Flip(), Albumentations(transform)), [(8, 6)])


def test_a_tensor_at_the_end_is_refused():
    with pytest.raises(ValueError, match="leave resizing, normalising and tensors to the model"):
        run(built(written(A.Compose([A.pytorch.ToTensorV2()]))), [noise(8, 8)], 0)


def test_the_version_that_wrote_a_file_is_not_part_of_it(tmp_path):
    A.save(PIPELINE, tmp_path / "aug.json")
    plain = json.loads((tmp_path / "aug.json").read_text())
    (tmp_path / "old.json").write_text(json.dumps(plain | {"__version__": "1.0.0"}))
    assert Albumentations(tmp_path / "aug.json") == Albumentations(tmp_path / "old.json")


def test_a_bare_pipeline_is_told_where_it_goes():
    with pytest.raises(ValueError, match=r"a pipeline of albumentations as Albumentations\(pipeline\)"):
        check((Flip(), PIPELINE))


@pytest.mark.parametrize(
    "kind, given",
    [(A.SafeRotate, {}), (A.ShiftScaleRotate, {}), (A.GaussNoise, {"std_range": (1e-05, 0.1)}), (A.RandomGamma, {})],
)
@pytest.mark.filterwarnings("ignore")
def test_what_albumentations_writes_is_read_whatever_it_warns_of(kind, given, tmp_path):
    made = Albumentations(transform := kind(**given, p=1))
    assert Albumentations(made.pipeline) == made == parse(spell(made), [Albumentations])
    A.save(transform, tmp_path / "aug.json")
    assert Albumentations(tmp_path / "aug.json") == made
    try_out(made, [(16, 12)])
