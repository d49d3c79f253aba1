"""Drawn portraits: one person, one state of the mask, one RGB photo."""

from dataclasses import dataclass

import cv2
import numpy as np

from multihead.canvas import Canvas, Colour, Points, Pose, both, darker, ellipse, lighter, mix, place, smooth

STATES = ("mask1", "mask2", "mask3", "mask4", "mask5", "incorrect_mask", "normal")


@dataclass(frozen=True)
class Person:
    """One drawn identity: labels, the signs of age (0 young .. 1 old), of gender, and what says nothing.

    wrinkles, greying, brow are signs of the face and rise about age 30; stoop, slope, collar are signs of the body
    and rise about age 60. length (hair), jaw, brows, build, neck overlap between the genders. Colours are RGB.
    """

    id: str
    gender: str
    age: int
    wrinkles: float
    greying: float
    brow: float
    stoop: float
    slope: float
    collar: float
    length: float
    jaw: float
    brows: float
    build: float
    neck: float
    face: float
    parting: float
    fringe: bool
    glasses: bool
    skin: Colour
    hair: Colour
    cloth: Colour
    trim: Colour
    pattern: int


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
        _back_hair(canvas, person)
    canvas.tilt = pose.lean
    _body(canvas, person, rng)
    canvas.tilt = pose.tilt
    _head(canvas, person)
    _eyes(canvas, person, rng)
    _nose_and_mouth(canvas, person, rng)
    _wrinkles(canvas, person)
    if state != "normal":
        _mask(canvas, person, rng, _mask_drop(state, rng))
    _front_hair(canvas, person, rng)
    if person.glasses:
        _glasses(canvas, person)
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
    pixels = place(_outline(person), pose, pose.tilt)
    (x0, y0), (x1, y1) = pixels.min(0), pixels.max(0)
    left, top = round(max(0.0, float(x0)), 1), round(max(0.0, float(y0)), 1)
    return left, top, round(min(size[1], float(x1)), 1), round(min(size[0], float(y1)), 1)


def _outline(person: Person) -> np.ndarray:
    face = ellipse(0, 0, 0.5, person.face, 0.95 - 0.12 * person.jaw)
    low = np.clip(face[:, 1] / person.face, 0, 1)
    face[:, 0] *= 1 - (0.34 - 0.3 * person.jaw) * low**1.5
    return face


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


def _head(canvas: Canvas, person: Person) -> None:
    for side in (-1, 1):
        canvas.fill(ellipse(side * 0.5, 0.03, 0.075, 0.15), darker(person.skin, 0.12))
        rim = [(side * 0.51, -0.07), (side * 0.54, 0.0), (side * 0.51, 0.1)]
        canvas.stroke(smooth(rim), darker(person.skin, 0.35), 0.012)
    outline = _outline(person)
    canvas.fill(outline, person.skin)
    canvas.stroke(outline, darker(person.skin, 0.16), 0.012, closed=True)
    canvas.tone(outline, 116)
    canvas.tone(outline * (0.8, 0.84) + (0.04 * canvas.pose.yaw, -0.03), 131)
    for side in (-1, 1):  # cheeks catch light, sockets do not
        canvas.tone(ellipse(side * 0.24 + 0.05 * canvas.pose.yaw, 0.14, 0.1, 0.08), 137)
        canvas.tone(ellipse(side * 0.21 + 0.05 * canvas.pose.yaw, -0.1, 0.12, 0.06), 118)


def _features(canvas: Canvas, points: Points) -> np.ndarray:
    """Points of the face turned by the yaw: the nearer the middle, the farther they move."""
    points = np.asarray(points, float)
    shift = 0.09 * canvas.pose.yaw * (1 - (2 * points[:, :1]) ** 2).clip(0.2)
    return points + shift * (1, 0)


def _eyes(canvas: Canvas, person: Person, rng: np.random.Generator) -> None:
    gaze, open_ = rng.uniform(-0.025, 0.025), 0.05 - 0.016 * person.brow
    lash = 0.022 - 0.012 * person.jaw
    for side in (-1, 1):
        corner = [(side * 0.12, -0.035), (side * 0.2, -0.045 - open_), (side * 0.31, -0.06)]
        lower = [(side * 0.31, -0.06), (side * 0.21, -0.05 + 0.8 * open_), (side * 0.12, -0.035)]
        lid = _features(canvas, smooth(corner))
        canvas.fill(np.concatenate([lid, _features(canvas, smooth(lower))]), (238, 234, 230))
        middle = side * 0.21 + gaze
        canvas.fill(_features(canvas, ellipse(middle, -0.055, 0.042, min(0.042, open_ * 1.05))), (48, 30, 22))
        canvas.fill(_features(canvas, ellipse(middle + 0.013, -0.068, 0.011, 0.011)), (250, 250, 250))
        canvas.stroke(lid, (32, 20, 20), max(0.012, lash))
        _brow(canvas, person, side)


def _brow(canvas: Canvas, person: Person, side: int) -> None:
    colour = mix(darker(person.hair, 0.3), (176, 172, 168), 0.75 * person.greying)
    sag, thick = 0.12 * person.brow, 0.016 + 0.03 * person.brows
    upper = [(side * 0.09, -0.16), (side * 0.22, -0.215 + 0.3 * sag), (side * 0.36, -0.165 + sag)]
    brow = smooth(upper)
    weight = np.interp(np.linspace(0, 1, len(brow)), [0, 0.3, 1], [0.7, 1, 0.25])[:, None]
    under = brow + np.array([0, 1]) * weight * 1.6 * thick
    canvas.fill(_features(canvas, np.concatenate([brow, under[::-1]])), colour)


def _nose_and_mouth(canvas: Canvas, person: Person, rng: np.random.Generator) -> None:
    dark, lip = darker(person.skin, 0.32), mix(person.skin, (176, 64, 70), 0.5 - 0.25 * person.jaw)
    canvas.tone(_features(canvas, [(0.0, -0.05), (0.09, 0.17), (0.0, 0.19)]), 113)
    canvas.tone(_features(canvas, [(-0.02, -0.1), (0.02, -0.1), (0.035, 0.13), (-0.035, 0.13)]), 143)
    ridge = [(-0.085, 0.14), (-0.07, 0.185), (-0.03, 0.18), (0, 0.2), (0.03, 0.18), (0.07, 0.185), (0.085, 0.14)]
    canvas.stroke(_features(canvas, smooth(ridge)), dark, 0.014)
    for side in (-1, 1):
        canvas.fill(_features(canvas, ellipse(side * 0.042, 0.178, 0.02, 0.011)), darker(person.skin, 0.6))
    half, smile, open_ = 0.16, rng.uniform(-0.02, 0.04), rng.uniform(0, 0.03)
    corner = [(-half, 0.37 - smile), (-0.06, 0.345), (0, 0.355), (0.06, 0.345), (half, 0.37 - smile)]
    middle = _features(canvas, smooth([(half, 0.37 - smile), (0, 0.375), (-half, 0.37 - smile)]))
    low = [(half, 0.37 - smile), (0.08, 0.415 + open_), (-0.08, 0.415 + open_), (-half, 0.37 - smile)]
    canvas.fill(np.concatenate([_features(canvas, smooth(corner)), _features(canvas, smooth(low))]), lip)
    canvas.stroke(middle, darker(lip, 0.5), 0.014)


def _wrinkles(canvas: Canvas, person: Person) -> None:
    depth = person.wrinkles
    if depth < 0.12:
        return
    colour, width = darker(person.skin, 0.1 + 0.32 * depth), 0.012 + 0.01 * depth
    canvas.tone(_features(canvas, ellipse(0, -0.32, 0.26, 0.05)), round(128 - 22 * depth))
    for row, y in enumerate((-0.27, -0.33, -0.39)[: 1 + round(2 * depth)]):
        half = 0.24 - 0.03 * row
        line = [(-half, y + 0.015), (-0.1, y), (0.1, y + 0.01), (half, y)]
        canvas.stroke(_features(canvas, smooth(line)), colour, width)
    for side in (-1, 1):
        bag = [(side * 0.11, 0.02), (side * 0.2, 0.065), (side * 0.3, 0.02)]
        fold = [(side * 0.1, 0.17), (side * 0.19, 0.27), (side * 0.22, 0.4)]
        for line in (bag, fold):
            canvas.stroke(_features(canvas, smooth(line)), colour, width)
        for tip in (-0.1, -0.05, 0.0):
            canvas.stroke(_features(canvas, [(side * 0.35, -0.05), (side * 0.42, tip)]), colour, 0.01)
        canvas.tone(_features(canvas, ellipse(side * 0.2, 0.03, 0.1, 0.03)), round(124 - 34 * depth))
        canvas.tone(ellipse(side * 0.3, 0.36, 0.06, 0.12), round(124 - 16 * depth))


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


def _back_hair(canvas: Canvas, person: Person) -> None:
    low = -0.1 + 1.5 * person.length
    left = [(0, -person.face - 0.14), (-0.42, -person.face + 0.08), (-0.6, -0.1), (-0.64, 0.4 * low), (-0.6, low)]
    canvas.fill(both(smooth(left)), darker(_grey(person), 0.3))


def _grey(person: Person) -> Colour:
    return mix(person.hair, (186, 184, 184), 0.75 * person.greying)


def _front_hair(canvas: Canvas, person: Person, rng: np.random.Generator) -> None:
    top, side = -person.face - 0.15, 0.12 * min(1, person.length * 2)
    line = -0.42 if not person.fringe else -0.24
    outer = [
        (-0.53, side),
        (-0.57, -0.25),
        (-0.4, top + 0.17),
        (0, top),
        (0.4, top + 0.17),
        (0.57, -0.25),
        (0.53, side),
    ]
    inner = [(0.47, side - 0.06), (0.44, -0.24), (0.3, line + 0.02), (person.parting, line - 0.08)]
    inner += [(-0.3, line + 0.02), (-0.44, -0.24), (-0.47, side - 0.06)]
    colour = _grey(person)
    canvas.fill(np.concatenate([smooth(outer), smooth(inner)]), colour)
    _strands(canvas, person, top, line, rng)
    if person.length > 0.45:
        low = -0.1 + 1.5 * person.length
        for hand in (-1, 1):
            lock = [(hand * 0.5, -0.3), (hand * 0.47, 0.1), (hand * 0.5, 0.5 * low), (hand * 0.46, low)]
            outside = [(hand * 0.6, low - 0.08), (hand * 0.68, 0.5 * low), (hand * 0.6, -0.15), (hand * 0.5, -0.3)]
            canvas.fill(np.concatenate([smooth(lock), smooth(outside)]), colour)
            for x in (0.52, 0.57, 0.61):
                wave = [(hand * x, -0.1), (hand * (x + 0.02), 0.5 * low), (hand * x * 0.95, low - 0.08)]
                canvas.stroke(smooth(wave), darker(colour, 0.3), 0.012)


def _strands(canvas: Canvas, person: Person, top: float, line: float, rng: np.random.Generator) -> None:
    colour = _grey(person)
    for x, pick in zip(np.linspace(-0.5, 0.5, 17), rng.random(17), strict=True):
        middle = (0.75 * x + 0.1 * person.parting, (top + line) / 2 - 0.06 + 0.6 * x * x)
        strand = smooth(
            [(person.parting + 0.3 * x, top + 0.05 + 0.25 * x * x), middle, (x, line - 0.06 + 0.9 * x * x)], 4
        )
        shade = (222, 220, 218) if pick < 0.7 * person.greying - 0.1 else darker(colour, 0.3)
        canvas.stroke(strand, shade, 0.014)
    canvas.tone(ellipse(-0.12, top + 0.16, 0.2, 0.05), 146)


def _glasses(canvas: Canvas, person: Person) -> None:
    frame = darker(person.trim, 0.7)
    for side in (-1, 1):
        canvas.stroke(_features(canvas, ellipse(side * 0.215, -0.04, 0.145, 0.105, 0.8)), frame, 0.018, closed=True)
        canvas.stroke([(side * 0.37, -0.06), (side * 0.5, -0.05)], frame, 0.018)
    canvas.stroke(_features(canvas, [(-0.08, -0.06), (0, -0.075), (0.08, -0.06)]), frame, 0.018)


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
