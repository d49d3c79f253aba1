"""Drawn portraits: one person, one state of the mask, one RGB photo."""

import cv2
import numpy as np

from multihead import features
from multihead.canvas import Canvas, Colour, Pose, both, darker, ellipse, lighter, mix, place, smooth
from multihead.figures import STATES, Person


def draw(
    person: Person, state: str, seed: int = 0, size: tuple[int, int] = (512, 384)
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """The photo, RGB uint8 (H, W, 3), and the face box (x0, y0, x1, y1) in pixels, half-open.

    state: one of STATES; size: (height, width) in pixels. Pose, place, light and mask follow from
    (seed, person.id, state), the rest from the person; the face is a quarter to a third of the photo's width.

    Raises ValueError for another state.

    >>> from multihead.synthetic import people
    >>> image, box = draw(people(1)[0], "normal")
    >>> image.shape
    (512, 384, 3)
    """
    rng = _rng(person, state, seed)
    pose = _pose(rng, size)
    canvas = Canvas(_background(rng, size), pose)
    if person.length > 0.45:
        features.back_hair(canvas, person)
    canvas.tilt = pose.lean
    _body(canvas, person, rng)
    canvas.tilt = pose.tilt
    features.head(canvas, person)
    features.eyes(canvas, person, rng)
    features.nose_and_mouth(canvas, person, rng)
    features.wrinkles(canvas, person)
    if state != "normal":
        _mask(canvas, person, rng, _mask_drop(state, rng))
    features.front_hair(canvas, person, rng)
    if person.glasses:
        features.glasses(canvas, person)
    return _develop(canvas, rng), _box(person, pose, size)


def face_box(
    person: Person, state: str, seed: int = 0, size: tuple[int, int] = (512, 384)
) -> tuple[float, float, float, float]:
    """The box that draw gives with the same arguments, without drawing.

    Raises ValueError for another state.
    """
    return _box(person, _pose(_rng(person, state, seed), size), size)


def _rng(person: Person, state: str, seed: int) -> np.random.Generator:
    if state not in STATES:
        raise ValueError(f"state must be one of {', '.join(STATES)}, got {state!r}")
    return np.random.default_rng([seed, int(person.id), STATES.index(state)])


def _pose(rng: np.random.Generator, size: tuple[int, int]) -> Pose:
    height, width = size
    scale = min(width, height * 0.75) * rng.uniform(0.26, 0.34)
    centre = (width * rng.uniform(0.44, 0.56), height * rng.uniform(0.3, 0.37))
    tilt, lean, yaw = rng.uniform(-1, 1, 3)
    return Pose(float(scale), centre, 0.12 * tilt, 0.05 * lean, yaw)


def _box(person: Person, pose: Pose, size: tuple[int, int]) -> tuple[float, float, float, float]:
    pixels = place(features.outline(person), pose, pose.tilt)
    (x0, y0), (x1, y1) = pixels.min(0), pixels.max(0)
    left, top = round(max(0.0, float(x0)), 1), round(max(0.0, float(y0)), 1)
    return left, top, round(min(size[1], float(x1)), 1), round(min(size[0], float(y1)), 1)


def _background(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A blurred room: two walls and some furniture, in any colours."""
    height, width = size[0] // 8, size[1] // 8
    colours = rng.integers(25, 235, (6, 3))
    colours = (colours + 2 * rng.integers(25, 235, (6, 1))) // 3  # mostly grey, as rooms are
    room: np.ndarray = np.empty((height, width, 3), np.uint8)
    room[:] = colours[0]
    room[:, int(rng.integers(0, width)) :] = mix(tuple(colours[0]), tuple(colours[1]), 0.5)
    for colour in colours[2:]:
        x, y, w, h = rng.integers(0, (width, height, width // 2, height // 2))
        cv2.rectangle(room, (int(x), int(y)), (int(x + w), int(y + h)), colour.tolist(), -1)
    room = cv2.GaussianBlur(room, (0, 0), rng.uniform(0.8, 2))
    return cv2.resize(room, (size[1], size[0]), interpolation=cv2.INTER_LINEAR_EXACT)


def _body(canvas: Canvas, person: Person, rng: np.random.Generator) -> None:
    base = _neck_end(person)
    width, drop = person.build, 0.08 + 0.6 * person.slope + rng.uniform(-0.04, 0.04)
    hump, curved = 0.12 * person.stoop, 0.86 - 0.12 * person.stoop
    left = [(-person.neck, base - 0.05), (-0.5 * width, base + 0.02 + 0.3 * drop - hump)]
    left += [(-curved * width, base + 0.02 + 0.75 * drop), (-width, base + 0.2 + drop)]
    left += [(-1.09 * width, base + 1.0 + drop)]
    shape = np.concatenate([smooth(left), [(-1.2 * width, 5)]])
    canvas.fill(both(shape), person.cloth)
    _pattern(canvas, person, shape, base)
    for side in (-1, 1):  # the arm against the trunk
        arm = [
            (side * 0.78 * width, base + 0.75 + drop),
            (side * 0.8 * width, base + 1.5 + drop),
            (side * 0.84 * width, 4),
        ]
        canvas.stroke(smooth(arm), darker(person.cloth, 0.45), 0.025)
        canvas.tone([arm[0], (side * 0.92 * width, 2.4), arm[2]], 100)
    _neck(canvas, person, base)


def _neck_end(person: Person) -> float:
    """Where neck and shoulders meet, always under the chin: a face box must not show the signs of the body."""
    return person.face + 0.28 - 0.2 * person.stoop


def _pattern(canvas: Canvas, person: Person, shape: np.ndarray, base: float) -> None:
    if person.pattern == 1:  # stripes across
        for y in np.arange(base + 0.5, 4, 0.28):
            half = np.interp(y, shape[:, 1], -shape[:, 0]) - 0.03
            canvas.stroke(smooth([(-half, y), (0, y + 0.06), (half, y)], 4), person.trim, 0.07)
    if person.pattern == 2:  # an open jacket over a shirt
        canvas.fill(both([(-person.neck, base), (-0.3, base + 0.8), (-0.34, 4)]), person.trim)
        for side in (-1, 1):
            lapel = [(side * person.neck, base - 0.05), (side * 0.62, base + 0.6), (side * 0.3, base + 1.4)]
            canvas.fill(lapel, darker(person.cloth, 0.25))
    if person.pattern == 3:  # a line of buttons
        for y in np.arange(base + 0.6, 4, 0.4):
            canvas.fill(ellipse(0, y, 0.035, 0.035), person.trim)


def _neck(canvas: Canvas, person: Person, base: float) -> None:
    deep = base + 0.36 - 0.3 * person.collar
    wide = person.neck * (1.45 - 0.4 * person.collar)
    sides = [(-0.96 * person.neck, 0.2), (-0.96 * person.neck, base - 0.14), (-wide, base - 0.02)]
    throat = np.concatenate([sides, smooth([(-wide, base), (-0.6 * wide, deep - 0.06), (0, deep)])])
    canvas.fill(both(throat), person.skin)
    canvas.tone(both([(-0.4, 0.4), (-person.neck, person.face + 0.12), (0, person.face + 0.16)]), 84)
    canvas.stroke(both(throat[3:]), darker(person.cloth, 0.3), 0.03)
    if person.collar > 0.5:
        edge = lighter(person.cloth, 0.25)
        for side in (-1, 1):
            top = base - 0.18 * person.collar
            flap = [(side * person.neck * 1.08, top), (side * 0.02, deep - 0.04)]
            canvas.fill([*flap, (side * 0.26, deep + 0.3), (side * person.neck * 1.55, base + 0.12)], edge)
            canvas.stroke([flap[1], (side * 0.26, deep + 0.3)], darker(edge, 0.35), 0.015)


def _mask_drop(state: str, rng: np.random.Generator) -> float:
    """How far, in face widths, the mask's upper edge lies under the bridge of the nose."""
    if state != "incorrect_mask":
        return float(rng.uniform(-0.03, 0.04))
    return float(rng.choice([rng.uniform(0.2, 0.26), rng.uniform(0.42, 0.5)]))  # the nose out, or on the chin


def _mask(canvas: Canvas, person: Person, rng: np.random.Generator, drop: float) -> None:
    cloth = _mask_colour(person, rng)
    shift, chin = 0.07 * canvas.pose.yaw, person.face + 0.04 + 0.12 * max(0, drop)
    y, wide = 0.04 + drop, 0.47 - 0.14 * max(0, drop)
    top = [(-wide, y), (-0.22, y - 0.04), (shift, y - 0.07), (0.22, y - 0.04), (wide, y)]
    side = [(wide, y), (wide - 0.03, 0.4 + 0.3 * drop), (0.26, chin - 0.06), (shift, chin)]
    sides = [(shift, chin), (-0.26, chin - 0.06), (-wide + 0.03, 0.4 + 0.3 * drop), (-wide, y)]
    for hand in (-1, 1):
        for start in (y + 0.02, 0.42 + 0.3 * drop):
            canvas.stroke([(hand * (wide - 0.02), start), (hand * 0.52, 0.0)], lighter(cloth, 0.4), 0.014)
    shape = np.concatenate([smooth(top), smooth(side), smooth(sides)])
    canvas.fill(shape, cloth)
    canvas.tone(shape, 117)
    canvas.tone(shape * (0.62, 0.7) + (shift, 0.27 * (y + chin) / 2), 134)
    canvas.stroke(shape, darker(cloth, 0.25), 0.012, closed=True)
    _folds(canvas, cloth, int(rng.integers(3)), (y, chin, shift, wide))


def _mask_colour(person: Person, rng: np.random.Generator) -> Colour:
    plain = ((232, 234, 236), (150, 190, 214), (42, 42, 46), (226, 176, 178), person.skin, person.cloth, person.trim)
    colour = plain[int(rng.integers(len(plain)))]
    return mix(colour, tuple(rng.integers(20, 240, 3)), 0.2)


def _folds(canvas: Canvas, cloth: Colour, kind: int, edges: tuple[float, float, float, float]) -> None:
    y, chin, shift, wide = edges  # as _mask has them
    dark = darker(cloth, 0.22)
    if kind == 0:  # pleats of a surgical mask
        for share in (0.3, 0.5, 0.7):
            level = y + share * (chin - y)
            half = (wide - 0.03) * (1 - 0.5 * share**2)
            canvas.stroke(smooth([(-half, level - 0.03), (shift, level), (half, level - 0.03)]), dark, 0.014)
    elif kind == 1:  # the two panels of a beak
        level = y + 0.5 * (chin - y)
        beak = [(-wide + 0.04, level + 0.04), (shift, level - 0.08), (wide - 0.04, level + 0.04)]
        canvas.stroke(smooth(beak), dark, 0.018)
        canvas.stroke(smooth([(-0.16, y), (shift, y - 0.02), (0.16, y)]), lighter(cloth, 0.4), 0.02)
    else:  # the seam of a cloth mask
        canvas.stroke(smooth([(shift, y - 0.07), (1.5 * shift, (y + chin) / 2), (shift, chin)]), dark, 0.018)


def _develop(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Soft shadows, the light's side, strength and colour, and the sensor's grain."""
    height, width = canvas.image.shape[:2]
    # the EXACT resize and the blur of bytes are cv2's bit-exact ones: the same photo on every machine
    soft = cv2.GaussianBlur(canvas.shade, (0, 0), 1.2 * width / 384).astype(np.float32)
    side, gain = rng.uniform(-0.18, 0.18), rng.uniform(0.75, 1.1)
    slope = np.linspace(gain * (1 - side), gain * (1 + side), soft.shape[1], dtype=np.float32)
    colour = rng.uniform(0.93, 1.06, 3).astype(np.float32)
    light = (soft * slope)[:, :, None] * colour  # (H/4, W/4, 3)
    light = cv2.resize(np.clip(light, 0, 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
    image = cv2.multiply(canvas.image, light, scale=1 / 128)
    grain = np.frombuffer(rng.bytes(height * width), np.uint8).reshape(height, width) & 7
    return cv2.add(image, cv2.merge([grain, grain, grain]))
