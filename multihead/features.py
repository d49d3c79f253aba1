"""The heads of drawn people: outline, eyes, nose and mouth, wrinkles, hair, glasses."""

import numpy as np

from multihead.canvas import Canvas, Colour, Points, both, darker, ellipse, mix, smooth
from multihead.figures import Person


def outline(person: Person) -> np.ndarray:
    """The edge of the face (n, 2), in face widths about its middle."""
    face = ellipse(0, 0, 0.5, person.face, 0.95 - 0.12 * person.jaw)
    low = np.clip(face[:, 1] / person.face, 0, 1)
    face[:, 0] *= 1 - (0.34 - 0.3 * person.jaw) * low**1.5
    return face


def head(canvas: Canvas, person: Person) -> None:
    """Ears and the bare face, lit from the side to which it turns."""
    for side in (-1, 1):
        canvas.fill(ellipse(side * 0.5, 0.03, 0.075, 0.15), darker(person.skin, 0.12))
        rim = [(side * 0.51, -0.07), (side * 0.54, 0.0), (side * 0.51, 0.1)]
        canvas.stroke(smooth(rim), darker(person.skin, 0.35), 0.012)
    edge = outline(person)
    canvas.fill(edge, person.skin)
    canvas.stroke(edge, darker(person.skin, 0.16), 0.012, closed=True)
    canvas.tone(edge, 116)
    canvas.tone(edge * (0.8, 0.84) + (0.04 * canvas.pose.yaw, -0.03), 131)
    for side in (-1, 1):  # cheeks catch light, sockets do not
        canvas.tone(ellipse(side * 0.24 + 0.05 * canvas.pose.yaw, 0.14, 0.1, 0.08), 137)
        canvas.tone(ellipse(side * 0.21 + 0.05 * canvas.pose.yaw, -0.1, 0.12, 0.06), 118)


def _features(canvas: Canvas, points: Points) -> np.ndarray:
    """Points of the face turned by the yaw: the nearer the middle, the farther they move."""
    points = np.asarray(points, float)
    shift = 0.09 * canvas.pose.yaw * (1 - (2 * points[:, :1]) ** 2).clip(0.2)
    return points + shift * (1, 0)


def eyes(canvas: Canvas, person: Person, rng: np.random.Generator) -> None:
    """Eyes under their brows, looking anywhere."""
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


def nose_and_mouth(canvas: Canvas, person: Person, rng: np.random.Generator) -> None:
    """A nose, and a mouth that may smile or be open."""
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


def wrinkles(canvas: Canvas, person: Person) -> None:
    """What age leaves on forehead, eyes and cheeks; nothing on young faces."""
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


def back_hair(canvas: Canvas, person: Person) -> None:
    """Long hair behind head and shoulders."""
    low = -0.1 + 1.5 * person.length
    left = [(0, -person.face - 0.14), (-0.42, -person.face + 0.08), (-0.6, -0.1), (-0.64, 0.4 * low), (-0.6, low)]
    canvas.fill(both(smooth(left)), darker(_grey(person), 0.3))


def _grey(person: Person) -> Colour:
    return mix(person.hair, (186, 184, 184), 0.75 * person.greying)


def front_hair(canvas: Canvas, person: Person, rng: np.random.Generator) -> None:
    """Hair about the face: a cap, its strands, and locks where it is long."""
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


def glasses(canvas: Canvas, person: Person) -> None:
    """A frame over the eyes."""
    frame = darker(person.trim, 0.7)
    for side in (-1, 1):
        canvas.stroke(_features(canvas, ellipse(side * 0.215, -0.04, 0.145, 0.105, 0.8)), frame, 0.018, closed=True)
        canvas.stroke([(side * 0.37, -0.06), (side * 0.5, -0.05)], frame, 0.018)
    canvas.stroke(_features(canvas, [(-0.08, -0.06), (0, -0.075), (0.08, -0.06)]), frame, 0.018)
