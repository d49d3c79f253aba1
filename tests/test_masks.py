import hashlib
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multihead import heads
from multihead.crops import FACE, cut, locate
from multihead.fabrics import bearing
from multihead.masks import LABELS, STATES, DrawnMask, choose, draw_mask

MARK = (255, 0, 255)  # no mask has it
FRONT = np.array([(-0.5, 0, 0), (0.5, 0, 0), (0, 0.6, 0.5), (-0.4, 1.05, 0), (0.4, 1.05, 0)])  # eye distance 1


def five(unit=40.0, yaw=0.0, angle=0.0, centre=(100.0, 70.0)):
    """The points (5, 2) of a head in space that is turned by yaw, then in the picture by angle, both in radians."""
    x, y, z = FRONT.T
    across = x * np.cos(yaw) + z * np.sin(yaw)
    turn = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    return np.stack([across, y], 1) @ turn.T * unit + centre


def skin(height=200, width=200):
    """A picture of nothing but skin, a little darker to the right and below."""
    rows, columns = np.mgrid[0:height, 0:width] / max(height, width)
    return (np.array([190, 150, 125]) * (1.05 - 0.1 * rows - 0.1 * columns)[:, :, None]).round().astype(np.uint8)


def marked(points, size=200, radius=2):
    """Skin with a mark at both eyes, the nose and the middle of the mouth, and where these are."""
    image, spots = skin(size, size), [*points[:3], points[3:].mean(0)]
    spots = [(int(column), int(row)) for column, row in spots]
    for spot in spots:
        cv2.circle(image, spot, radius, MARK, -1)
    return image, spots


def hidden(image, spots):
    """Of each mark, whether nothing of it is left."""
    apart = [abs(image[row, column].astype(int) - MARK).max() for column, row in spots]
    assert all(level < 12 or level > 60 for level in apart), apart  # covered or not, nothing between
    return [bool(level > 60) for level in apart]


COVERED = {"worn": [False, False, True, True], "nose": [False, False, False, True], "chin": [False] * 4}


# ---- chance


def test_masks_are_chosen_as_often_as_asked():
    found = [choose(DrawnMask(prob=0.4, incorrect=0.25), seed) for seed in range(8000)]
    shares = [found.count(state) / 8000 for state in (None, "worn", "nose", "chin")]
    assert shares == pytest.approx([0.6, 0.3, 0.05, 0.05], abs=0.015)


@pytest.mark.parametrize(
    ("setting", "states"),
    [
        (DrawnMask(0.0, 0.5), {None}),
        (DrawnMask(1.0, 0.0), {"worn"}),
        (DrawnMask(1.0, 1.0), {"nose", "chin"}),
        (DrawnMask(), {None, "worn", "nose", "chin"}),
    ],
    ids=["never", "worn", "incorrect", "by default"],
)
def test_shares_of_nothing_and_everything(setting, states):
    first = [choose(setting, seed) for seed in range(300)]
    assert set(first) == states and first == [choose(setting, seed) for seed in range(300)]


def test_states_are_classes_of_the_mask_head():
    assert LABELS == {"worn": "worn", "nose": "incorrect", "chin": "incorrect"} and set(LABELS) == set(STATES)
    assert set(LABELS.values()) <= set(heads.MASK.classes)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"prob": 1.5}, "drawnmask: prob is 1.5; expected a number >= 0 and <= 1"),
        ({"incorrect": -0.1}, "drawnmask: incorrect is -0.1; expected a number >= 0 and <= 1"),
    ],
)
def test_settings_are_shares(values, words):
    with pytest.raises(ValueError, match=words):
        DrawnMask(**values)


# ---- where the mask lies


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("unit", [16, 40, 90])
def test_a_mask_covers_what_its_state_says(state, unit):
    points = five(unit, centre=(2.5 * unit, 1.5 * unit))
    image, spots = marked(points, 5 * unit, radius=max(2, unit // 16))
    for seed in range(12):
        assert hidden(draw_mask(image, points, state, seed), spots) == COVERED[state], seed


@settings(max_examples=40)
@given(
    st.sampled_from(STATES),
    st.integers(0, 2**32 - 1),
    st.floats(-0.7, 0.7),
    st.floats(-np.pi, np.pi),
    st.floats(24, 60),
)
def test_so_it_does_for_turned_heads_and_pictures(state, seed, yaw, angle, unit):
    points = five(unit, yaw, angle, centre=(200, 200))
    image, spots = marked(points, 400)
    assert hidden(draw_mask(image, points, state, seed), spots) == COVERED[state]


@pytest.mark.parametrize("yaw", [-0.9, -0.5, -0.1, 0.0, 0.3, 0.8])
def test_the_turn_of_a_head_is_found_from_its_projection(yaw):
    pose = bearing(five(50.0, yaw, angle=0.4))
    assert (pose.yaw, pose.unit**2) == pytest.approx((yaw, 50 * 52.5), abs=1e-6)
    assert pose.pixels(0, 0) == pytest.approx((100, 70)) and pose.nose == pytest.approx(0.6 / 1.05)


def changed(points, state="worn", seed=3):
    image = skin()
    return abs(draw_mask(image, points, state, seed).astype(int) - image).max(2) > 20


def test_a_mask_reaches_from_the_nose_to_below_the_chin():
    rows = {state: np.flatnonzero(changed(five(), state)[:, 100]) for state in STATES}
    tops = {state: (found[0] - 70) / 42 for state, found in rows.items()}  # 42 pixels from eyes to mouth
    ends = {state: (found[-1] - 70) / 42 for state, found in rows.items()}
    assert 0.2 < tops["worn"] < 0.45 < 0.6 < tops["nose"] < 0.9 < 1.2 < tops["chin"] < 1.5
    assert all(1.65 < end < 2.15 for end in ends.values()) and ends["chin"] > ends["worn"]


def test_a_mask_is_as_wide_as_the_face_and_narrows_to_the_chin():
    wide = [changed(five())[round(70 + 42 * height)].sum() / 40 for height in (0.9, 1.3, 1.6)]  # eye distances
    assert 1.6 < wide[0] < 2.1 and 1.4 * wide[2] < 1.2 * wide[1] < wide[0] * 1.1


@pytest.mark.parametrize(("yaw", "sides"), [(0.0, (True, True)), (0.6, (True, False)), (-0.6, (False, True))])
def test_ear_loops_are_seen_on_the_side_that_faces_the_viewer(yaw, sides):
    found = changed(five(yaw=yaw), "chin")[76:92]  # between the eyes and the mask
    assert (found[:, :100].any(), found[:, 100:].any()) == sides
    assert found[:, 80:121].sum() == 0


def test_a_turned_head_has_its_mask_turned():
    left, right = (np.flatnonzero(changed(five(yaw=yaw))[125]) for yaw in (-0.6, 0.6))
    assert 100 - left.min() == pytest.approx(right.max() - 100, abs=4)  # mirrored
    nose = five(yaw=-0.6)[2, 0]
    assert left.max() - nose > 1.5 * (nose - left.min())  # the far cheek is narrow


# ---- what it looks like


def small(image, factor):
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("state", STATES)
def test_twice_the_size_is_about_the_same_picture(state):
    for seed in range(6):
        one = draw_mask(skin(), five(30), state, seed)
        two = draw_mask(skin(400, 400), five(60, centre=(200, 140)), state, seed)
        apart = abs(small(two, 0.5).astype(int) - one)
        assert apart.mean() < 1.5 and np.percentile(apart, 99) < 25


def test_crops_of_unlike_size_get_the_same_mask():
    photo, points = skin(320, 260), five(40, 0.3, 0.2, (130, 120))
    drawn = []
    for size in (64, 128):
        x0, y0, x1, y1 = region = locate(FACE.resized(size), (70, 60, 190, 230), photo.shape)
        place = (points - (x0, y0)) * (size / (x1 - x0), size / (y1 - y0))
        drawn.append(draw_mask(cut(photo, region, (size, size)), place, "worn", 5))
    assert abs(small(drawn[1], 0.5).astype(int) - drawn[0]).mean() < 2.5


def test_a_quarter_turn_of_the_photo_turns_the_picture():
    image, points = skin(), five(35, 0.3)
    turned = np.stack([points[:, 1], 200 - points[:, 0]], 1)  # as np.rot90: columns become rows, counted from below
    for state in STATES:
        wanted = np.rot90(draw_mask(image, points, state, 4))
        got = draw_mask(np.ascontiguousarray(np.rot90(image)), turned, state, 4)
        assert abs(wanted.astype(int) - got).mean() < 1, state


def test_the_edge_follows_parts_of_a_pixel():
    pictures = [draw_mask(skin(), five() + (0, shift), "worn", 1).astype(int) for shift in (0, 0.25, 0.5, 1)]
    apart = [abs(picture - pictures[0])[:, 60:140].mean() for picture in pictures]
    assert 0 < apart[1] < apart[2] < apart[3] < 6


def test_the_same_seed_gives_the_same_pixels_and_others_do_not():
    image, points = skin(), five()
    before = image.copy()
    first = [draw_mask(image, points, "worn", seed) for seed in range(40)]
    again = [draw_mask(image, points.tolist(), "worn", seed) for seed in range(40)]
    assert all(np.array_equal(one, two) for one, two in zip(first, again))
    assert np.array_equal(image, before) and not any(np.shares_memory(image, one) for one in first)
    colours = {tuple((one[115, 88] // 24).tolist()) for one in first}
    assert len({one.tobytes() for one in first}) == 40 and len(colours) >= 10


def test_another_process_gives_the_same_pixels():
    code = (
        "import hashlib, numpy as np; from multihead.masks import draw_mask\n"
        f"image = np.full((120, 120, 3), 150, np.uint8); points = np.array({five(25, centre=(60, 40)).tolist()})\n"
        "print(hashlib.sha1(b''.join(draw_mask(image, points, 'worn', s).tobytes() for s in range(9))).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    image, points = np.full((120, 120, 3), 150, np.uint8), five(25, centre=(60, 40))
    here = b"".join(draw_mask(image, points, "worn", seed).tobytes() for seed in range(9))
    assert hashlib.sha1(here).hexdigest() == there


def cloth(image, seed, points=five()):
    """The levels (n, 3) of a piece of the mask, both sides of the middle."""
    return draw_mask(image, points, "worn", seed)[105:125, 75:125].reshape(-1, 3).astype(float)


def test_the_light_of_the_face_falls_on_the_mask():
    dark, bright = (skin() * share for share in (0.3, 1.0))
    for seed in range(8):
        levels = [cloth(image.astype(np.uint8), seed).mean() for image in (dark, bright)]
        assert levels[0] < 0.75 * levels[1]
    slope = np.linspace(1.4, 0.5, 200)[None, :, None]
    sided = [
        draw_mask((skin() * light).clip(0, 255).astype(np.uint8), five(), "worn", 0)[105:125] for light in (1, slope)
    ]
    ratio = [part[:, 70:90].mean() / part[:, 110:130].mean() for part in sided]
    assert ratio[1] > 1.15 * ratio[0]


def test_a_photo_without_colour_gets_a_mask_without_colour():
    grey = np.repeat(skin().mean(2, keepdims=True), 3, 2).astype(np.uint8)
    chroma = [np.ptp(cloth(grey, seed), axis=1).max() for seed in range(20)]
    assert max(chroma) <= 1
    assert max(np.ptp(cloth(skin(), seed), axis=1).max() for seed in range(20)) > 60
    sepia = (grey * (1.01, 1.0, 0.985)).astype(np.uint8)  # too little colour to be one
    casts = [float((levels[:, 0] - levels[:, 2]).mean()) for levels in (cloth(sepia, seed) for seed in range(20))]
    assert all(0.5 < cast < 8 for cast in casts)


def test_a_blurred_and_a_grainy_photo_have_a_mask_like_them():
    noise = np.random.default_rng(0).normal(0, 1, (200, 200, 1))
    clean, points = skin(), five()
    cv2.circle(clean, (80, 70), 6, (20, 20, 20), -1)
    cv2.circle(clean, (120, 70), 6, (20, 20, 20), -1)
    grainy = (clean + 6 * noise).clip(0, 255).astype(np.uint8)
    blurred = cv2.GaussianBlur(clean, (0, 0), 3)
    steps = {}
    for name, image in {"clean": clean, "grainy": grainy, "blurred": blurred}.items():
        piece = draw_mask(image, points, "worn", 0).astype(float)
        steps[name] = (
            abs(np.diff(piece[105:125, 80:120], axis=1)).mean(),
            abs(np.diff(piece[70:100, 100], axis=0)).max(),
        )
    assert steps["grainy"][0] > 2 * steps["clean"][0]
    assert steps["blurred"][1] < 0.7 * steps["clean"][1]  # the upper edge


# ---- odd places


@pytest.mark.parametrize("height", [0.1, 0.3, 0.9])
def test_a_nose_in_an_odd_place_leaves_the_eyes_free(height):
    points = five()
    points[2, 1] = 70 + 42 * height
    image, spots = marked(points)
    for seed in range(20):
        assert hidden(draw_mask(image, points, "worn", seed), spots)[:2] == [False, False]


def test_points_outside_the_image():
    image = skin()
    assert np.array_equal(draw_mask(image, five() + 1000, "worn", 0), image)
    for shift in ((-100, 0), (90, 0), (0, -120), (0, 100), (-80, -120)):
        drawn = draw_mask(image, five() + shift, "worn", 0)
        share = (drawn != image).any(2).mean()
        assert 0 < share < 0.4, shift


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (8, 8), (224, 5)])
def test_slivers_of_an_image(shape):
    image = skin(*shape)
    drawn = draw_mask(image, five(4, centre=(shape[1] / 2, shape[0] / 2 - 5)), "worn", 0)
    assert drawn.shape == image.shape and drawn.dtype == np.uint8


def test_eyes_in_one_place_are_a_profile():
    points = five()
    points[1] = points[0]  # seen from the side
    assert (draw_mask(skin(), points, "worn", 0) != skin()).any(2).mean() > 0.05


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (np.full((5, 2), 50.0), "eyes and mouth are at one place"),
        (np.full((5, 2), np.nan), "expects five finite points"),
        (np.where(np.arange(5)[:, None] == 2, np.inf, five()), "five finite points"),
        (five()[:4], r"five finite points \(5, 2\)"),
    ],
)
def test_points_that_span_no_face_are_refused(points, words):
    with pytest.raises(ValueError, match=words):
        draw_mask(skin(), points, "worn", 0)


def test_draw_mask_refuses():
    with pytest.raises(ValueError, match="state is 'none'; expected one of worn, nose, chin"):
        draw_mask(skin(), five(), "none", 0)
    with pytest.raises(ValueError, match=r"expects an image \(H, W, 3\) uint8, got float64 \(9, 9, 3\)"):
        draw_mask(np.zeros((9, 9, 3)), five(), "worn", 0)
    with pytest.raises(ValueError, match=r"got uint8 \(9, 9\)"):
        draw_mask(np.zeros((9, 9), np.uint8), five(), "worn", 0)
