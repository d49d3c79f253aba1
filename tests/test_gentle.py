import os

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations as A

from multihead import gentle
from multihead.augment import Gentle, apply, photo_seed
from multihead.gentle import change


def pipeline(shift, scale, rotate, colour):
    """The second implementation: albumentations' own."""
    factor = (1 - colour, 1 + colour)
    move = A.Affine(
        scale=(1 - scale, 1 + scale),
        translate_percent=(-shift, shift),
        rotate=(-rotate, rotate),
        border_mode=cv2.BORDER_REFLECT_101,
        p=1,
    )
    jitter = A.ColorJitter(brightness=factor, contrast=factor, saturation=factor, hue=(0, 0), p=0.8)

    def change(image, seeds):
        for part, seed in zip((move, jitter), seeds, strict=True):
            part.set_random_seed(seed)
            image = part(image=image)["image"]
        return image

    return change


def noise(height, width):
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


settings = {
    "default": (0.06, 0.12, 10.0, 0.2),
    "still": (0.0, 0.0, 0.0, 0.3),
    "grey": (0.1, 0.0, 0.0, 0.0),
    "strong": (0.4, 0.5, 170.0, 0.9),
    "whole": (0.0, 0.0, 90.0, 1.0),
}


@pytest.mark.parametrize("name", settings)
def test_every_seed_gives_albumentations_pixels(name):
    reference, (shift, scale, rotate, colour) = pipeline(*settings[name]), settings[name]
    for seed in [*range(80), 2**32 - 1]:
        for image in (noise(48, 48), noise(33, 20)):
            seeds = seed, 3 * seed % 2**32
            found = change(image, seeds, shift=shift, scale=scale, rotate=rotate, colour=colour)
            assert np.array_equal(found, reference(image, seeds)), (seed, image.shape)


@given(
    st.tuples(*[st.integers(0, 2**32 - 1)] * 2),
    st.tuples(*[st.floats(0, 0.9)] * 4),
    st.tuples(*[st.integers(2, 60)] * 2),
)
def test_any_settings_give_albumentations_pixels(seeds, setting, size):
    shift, scale, rotate, colour = setting
    reference = pipeline(shift, scale, 100 * rotate, colour)
    found = change(noise(*size), seeds, shift=shift, scale=scale, rotate=100 * rotate, colour=colour)
    assert np.array_equal(found, reference(noise(*size), seeds))


def test_the_augmentation_is_this_change_after_a_mirror():
    image, setting = noise(20, 30), Gentle(hflip=0.5)
    most = {"shift": setting.shift, "scale": setting.scale, "rotate": setting.rotate, "colour": setting.color_jitter}
    seen = set()
    for seed in range(12):
        (found,) = apply(setting, [image], seed)
        mirrored = bool(np.random.default_rng(seed).random() < 0.5)
        seeds = seed, photo_seed(seed, 0, 2)
        assert np.array_equal(found, change(np.ascontiguousarray(image[:, ::-1]) if mirrored else image, seeds, **most))
        seen.add(mirrored)
    assert seen == {True, False}


def test_the_given_image_stays():
    image = noise(16, 16)
    before = image.copy()
    image.flags.writeable = False  # as crops of a file are
    for seed in range(20):
        change(image, (seed, seed), shift=0.1, scale=0.1, rotate=5.0, colour=0.3)
    assert np.array_equal(image, before)


def test_colours_do_not_follow_the_place():
    """Both drawn from one seed, a photo would be brighter the lower it lies."""
    ramp = np.tile(np.arange(0, 240, 4, dtype=np.uint8)[:, None, None], (1, 60, 3)).copy()
    ramp[:, 30:] = 128  # one half tells the place, the other the colour
    setting = Gentle(hflip=0, scale=0.0, rotate=0.0, shift=0.1, color_jitter=0.2)
    found = [apply(setting, [ramp], seed)[0].astype(float) for seed in range(400)]
    places, colours = np.array([(image[30, 5:20].mean(), image[20:40, 40:55].mean()) for image in found]).T
    still = np.abs(colours - 128) < 0.5
    assert 0.1 < still.mean() < 0.35  # a fifth keeps its colours
    ratio = places / colours
    assert abs(np.corrcoef(ratio[~still], colours[~still])[0, 1]) < 0.2
    assert abs(ratio[still].mean() - ratio[~still].mean()) < 0.05


def test_levels_are_those_of_the_table_even_where_a_weighted_sum_rounds_otherwise():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    rng, rounded = np.random.default_rng(0), 0
    for _ in range(2000):
        factor, add = float(rng.uniform(0.8, 1.2)), float(rng.uniform(-30, 30))
        table = levels.astype(np.float32) * np.float32(factor) + np.float32(add)
        wanted = table.clip(0, 255).astype(np.uint8)
        assert np.array_equal(gentle._levelled(levels, factor, add), wanted)
        rounded += not np.array_equal(cv2.addWeighted(levels, factor, levels, 0, add - gentle._HALF), wanted)
    assert 0 < rounded < 200  # else the table is never, or nearly always, needed
