"""Drawn masks: a bare face gets a mask, worn or worn incorrectly, from the detector's five points.

Each pixel asks where on the fabric it lies: the lower face is a tube about the face's down axis, turned by the yaw that
the nose shows. x runs to the right in eye distances, y from the eyes (0) to the mouth (1); both are of the face, so
crops of unlike size of one photo get the same mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from multihead.options import between, choice, option

if TYPE_CHECKING:
    import numpy as np

STATES = ("worn", "nose", "chin")
LABELS = {"worn": "worn", "nose": "incorrect", "chin": "incorrect"}  # the mask head's class of each state


@dataclass(frozen=True)
class DrawnMask:
    """A bare face gets a drawn mask with probability `prob`; the share `incorrect` of these leaves the nose free."""

    prob: float = option(0.3, "probability that a bare face gets a drawn mask (drawnmask)")
    incorrect: float = option(0.5, "share of the drawn masks below the nose or on the chin (drawnmask)")

    def __post_init__(self) -> None:
        between("drawnmask", "prob", self.prob, 0, 1)
        between("drawnmask", "incorrect", self.incorrect, 0, 1)


def choose(setting: DrawnMask, seed: int) -> str | None:
    """What becomes of a bare face: None, or a mask that is "worn", below the "nose" or on the "chin".

    >>> choose(DrawnMask(prob=1.0, incorrect=0.0), seed=7)
    'worn'
    """
    import numpy as np

    drawn, wrong, place = np.random.default_rng((seed, 2)).random(3)
    if drawn >= setting.prob:
        return None
    if wrong >= setting.incorrect:
        return "worn"
    return "nose" if place < 0.5 else "chin"


def draw_mask(image: np.ndarray, points: np.ndarray, state: str, seed: int) -> np.ndarray:
    """A copy of the photo or crop (H, W, 3) uint8 in which the face wears a mask.

    points: (5, 2) in pixels of this image, partly outside it perhaps: left and right eye, nose, left and right corner
    of the mouth as seen. state: "worn" covers nose and mouth, "nose" lies below the nose, "chin" below the mouth.
    The fabric follows from the seed, its light and grain from the face.

    Raises: ValueError for another state or image, and for points that are not finite or do not span a face.
    """
    import numpy as np

    choice("draw_mask", "state", state, STATES)
    if image.dtype != np.uint8 or image.shape[2:] != (3,):
        raise ValueError(f"draw_mask expects an image (H, W, 3) uint8, got {image.dtype} {image.shape}")
    pose, drawn = _pose(points), image.copy()
    x0, y0, x1, y1 = _window(pose, image.shape)
    if x0 >= x1 or y0 >= y1:
        return drawn
    rng = np.random.default_rng((seed, 3))
    fabric = _fabric(state, pose, rng)
    light = _light(image, pose)
    x, y = pose.place(np.arange(x0, x1) + 0.5, np.arange(y0, y1)[:, None] + 0.5)
    layers = _mask(x, y, pose, fabric, light)
    trim = sum(fabric.trim) / 3
    drawn[y0:y1, x0:x1] = _blend(image[y0:y1, x0:x1], layers, trim, pose.unit, light, rng)
    return drawn


@dataclass(frozen=True)
class _Pose:
    """Where a face is: the pixel between the eyes, the pixels of one x and one y, its yaw, and the nose's y."""

    origin: np.ndarray
    axes: np.ndarray  # (2, 2): columns are one x and one y in pixels
    yaw: float
    nose: float

    def place(self, columns: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x and y of pixels."""
        import numpy as np

        (a, b), (c, d) = np.linalg.inv(self.axes)
        right, down = columns - self.origin[0], rows - self.origin[1]
        return (a * right + b * down).astype(np.float32), (c * right + d * down).astype(np.float32)

    def pixels(self, x: float, y: float) -> np.ndarray:
        """The pixel (column, row) of x and y."""
        return self.origin + self.axes @ (x, y)

    @property
    def unit(self) -> float:
        """Pixels of one eye distance."""
        return float(abs(self.axes[0, 0] * self.axes[1, 1] - self.axes[0, 1] * self.axes[1, 0]) ** 0.5)


def _pose(points: np.ndarray) -> _Pose:
    """The face's axes: down from eyes to mouth, across along the eyes; foreshortened eyes and a nose aside are yaw."""
    import numpy as np

    five = np.asarray(points, float)
    if five.shape != (5, 2) or not np.isfinite(five).all():
        raise ValueError(f"draw_mask expects five finite points (5, 2), got {five.tolist()}")
    eyes, nose, mouth = five[:2].mean(0), five[2], five[3:].mean(0)
    down = mouth - eyes
    height = float(np.hypot(*down))
    if height < 1:
        raise ValueError(f"eyes and mouth are at one place in the points {five.tolist()}; expected those of a face")
    square = np.array([down[1], -down[0]]) / height
    between_eyes = five[1] - five[0]
    across = between_eyes + 0.5 * height * square  # of a profile the eyes alone say little
    across = across / np.hypot(*across) if across @ square > 0.3 * height else square
    eye_distance = max(float(between_eyes @ across), 0.0)
    aside, depth = np.linalg.solve(np.stack([across, down], 1), nose - eyes)
    unit = float(np.clip(np.hypot(eye_distance, 2 * aside), 0.7 * height, 1.15 * height))
    yaw = float(np.clip(np.arctan2(2 * aside, max(eye_distance, 1e-6)), -1.0, 1.0))  # a nose is half a unit high
    return _Pose(eyes, np.stack([across * unit, down], 1), yaw, float(np.clip(depth, 0.45, 0.7)))


def _window(pose: _Pose, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The pixels (x0, y0, x1, y1) that a mask may reach."""
    import numpy as np

    corners = np.array([pose.pixels(x, y) for x in (-1.35, 1.35) for y in (-0.05, 2.2)])
    low, high = np.floor(corners.min(0)), np.ceil(corners.max(0))
    left, top = np.clip(low, 0, (shape[1], shape[0])).astype(int)
    right, bottom = np.clip(high, 0, (shape[1], shape[0])).astype(int)
    return int(left), int(top), int(right), int(bottom)


# ---- what a mask is like


@dataclass(frozen=True)
class _Fabric:
    """One mask: its edges in y at the middle and at the sides, its reach in radians about the head, and its cloth."""

    top: tuple[float, float]
    bottom: tuple[float, float]
    reach: float
    kind: str  # "pleated", "folded" or "cloth"
    colour: tuple[float, float, float]  # share of the light given back, RGB
    trim: tuple[float, float, float]  # of the straps and hems
    pattern: str
    second: tuple[float, float, float]  # of the pattern
    folds: tuple[tuple[float, float, float, float], ...]  # of each wrinkle: waves across, waves down, phase, height


_COLOURS = {
    "pleated": (
        (0.55, 0.78, 0.90), (0.50, 0.74, 0.84), (0.62, 0.84, 0.93), (0.52, 0.78, 0.76),
        (0.94, 0.95, 0.96), (0.93, 0.93, 0.92), (0.92, 0.72, 0.78), (0.16, 0.16, 0.18),
    ),
    "folded": ((0.96, 0.96, 0.96), (0.94, 0.95, 0.95), (0.95, 0.94, 0.92), (0.12, 0.12, 0.13), (0.60, 0.61, 0.64)),
    "cloth": (
        (0.12, 0.12, 0.13), (0.10, 0.10, 0.12), (0.42, 0.43, 0.46), (0.16, 0.20, 0.36), (0.10, 0.34, 0.24),
        (0.48, 0.14, 0.18), (0.86, 0.84, 0.78), (0.74, 0.62, 0.54), (0.30, 0.44, 0.62), (0.84, 0.58, 0.64),
    ),
}  # fmt: skip


def _fabric(state: str, pose: _Pose, rng: np.random.Generator) -> _Fabric:
    """A mask for this face: where it sits follows from the state, the rest from chance."""
    kind = str(rng.choice(("pleated", "folded", "cloth"), p=(0.45, 0.2, 0.35)))
    pick = rng.integers(len(_COLOURS[kind]))
    colour = tuple((_COLOURS[kind][pick] + rng.normal(0, 0.015, 3)).clip(0.06, 0.97).tolist())
    pattern = str(rng.choice(("dots", "stripes", "checks"))) if kind == "cloth" and rng.random() < 0.3 else ""
    towards, share = ((0.95, 0.94, 0.9) if rng.random() < 0.5 else (0.1, 0.1, 0.12)), rng.uniform(0.4, 0.9)
    second = tuple((1 - share) * part + share * end for part, end in zip(colour, towards))
    light_trim = kind == "pleated" or rng.random() < 0.2
    trim = (0.93, 0.93, 0.93) if light_trim and min(colour) > 0.3 else colour
    move = rng.uniform(-1, 1, 6)
    middle, side = {
        "worn": (pose.nose - 0.29 + 0.06 * move[0], 0.5 + 0.08 * move[1]),
        "nose": (pose.nose + (1 - pose.nose) * (0.45 + 0.1 * move[0]), 0.8 + 0.1 * move[1]),
        "chin": (1.37 + 0.06 * move[0], 1.06 + 0.1 * move[1]),
    }[state]
    low, corner = {"worn": (1.78, 1.3), "nose": (1.85, 1.4), "chin": (2.0, 1.45)}[state]
    folds = tuple((*rng.normal(0, (2.5, 5)).tolist(), *rng.uniform((0, 0.2), (6.3, 1)).tolist()) for _ in range(6))
    return _Fabric(
        (max(middle, 0.18), max(side, 0.3)),
        (low + 0.06 * move[2], corner + 0.08 * move[3]),
        1.13 + 0.08 * move[4],
        kind, colour, trim, pattern, second, folds,
    )  # fmt: skip


_BARE = ((0.0, 0.35, 1.0), (-0.42, 0.42, 0.6), (0.42, 0.42, 0.6))  # x, y and share of the nose's depth


@dataclass(frozen=True)
class _Light:
    """What a white cloth on this face would look like: its level 0..255, the cast on grey, how much colour the photo
    has (0..1), how much brighter the right side is, the grain of the pixels in levels, and their blur in pixels."""

    level: float
    cast: np.ndarray
    colour: float
    slope: float
    grain: float
    blur: float


def _light(image: np.ndarray, pose: _Pose) -> _Light:
    """The light on the nose and the cheeks beside it, which are bare."""
    import numpy as np

    shift = 0.5 * np.sin(pose.yaw)
    patches = [_patch(image, pose, x * np.cos(pose.yaw) + shift * part, y) for x, y, part in _BARE]
    seen = np.concatenate([patch.reshape(-1, 3) for patch in patches])
    skin = np.median(seen, 0) if len(seen) else np.full(3, 128.0)
    left, right = (float(np.median(patch)) if patch.size else float(skin.mean()) for patch in patches[1:])
    chroma = float(np.ptp(skin) / max(skin.max(), 1.0))
    steps = abs(np.diff(patches[0], axis=1))
    return _Light(
        level=float(255 * np.clip((skin.mean() + 12) / 165, 0.2, 1.0) ** 0.75),
        cast=(skin / max(skin.mean(), 1.0)).astype(np.float32),
        colour=float(np.clip((chroma - 0.03) / 0.15, 0, 1)),
        slope=float(np.clip((right - left) / max(left + right, 1.0), -0.3, 0.3)),
        grain=float(np.clip(np.median(steps) * 0.5, 0.3, 3.0)) if steps.size else 1.0,
        blur=_blur(image, pose),
    )


def _blur(image: np.ndarray, pose: _Pose) -> float:
    """About how blurred the photo is at the eyes, in pixels: fine detail fades before coarse detail does."""
    import cv2
    import numpy as np

    eyes = _patch(image, pose, 0.0, 0.0, reach=0.6).mean(2, dtype=np.float32)
    if min(eyes.shape) < 8:
        return 0.8
    once, twice = cv2.GaussianBlur(eyes, (0, 0), 1), cv2.GaussianBlur(eyes, (0, 0), 2)
    coarse = float((once - twice).std())
    ratio = float((eyes - once).std()) / coarse if coarse > 0.5 else 0.8
    return float(np.clip(0.45 / max(ratio - 0.3, 0.01), 0.4, min(2.5, 0.03 * pose.unit + 0.4)))


def _patch(image: np.ndarray, pose: _Pose, x: float, y: float, reach: float = 0.1) -> np.ndarray:
    """The pixels (n, m, 3) within `reach` units of a place, none from outside the image."""
    column, row = pose.pixels(x, y)
    half = max(1.0, reach * pose.unit)
    rows = slice(max(0, int(row - half)), max(0, int(row + half) + 1))
    columns = slice(max(0, int(column - half)), max(0, int(column + half) + 1))
    return image[rows, columns].astype(float)


# ---- the picture


_HALF = ((0, 0.5, 1.0, 1.4, 1.8, 2.3), (1.12, 1.1, 1.02, 0.88, 0.66, 0.56))  # y, and half a face's width there


def _mask(
    x: np.ndarray, y: np.ndarray, pose: _Pose, fabric: _Fabric, light: _Light
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coverage (H, W) of the mask, coverage of its straps, and the lit cloth (H, W, 3) in levels."""
    import numpy as np

    half = np.interp(y, *_HALF).astype(np.float32)
    turned, radius = _turn(pose.yaw, half)
    inner = (x + 0.5 * np.sin(pose.yaw)) / radius  # the tube's axis lies half a unit behind the eyes
    lean = np.arcsin(inner.clip(-1, 1))  # angle of the surface to the viewer
    angle = lean - turned
    across = angle / fabric.reach
    bend = (across * across).clip(0, 4)
    top = fabric.top[0] + (fabric.top[1] - fabric.top[0]) * bend ** (0.65 if fabric.top[0] < 0.6 else 1.0)
    bottom = fabric.bottom[0] + (fabric.bottom[1] - fabric.bottom[0]) * bend**1.2
    edges = np.minimum.reduce([y - top, bottom - y, (1 - abs(across)) * 0.9, (1 - abs(inner)) * 0.9])
    cover = (edges * pose.unit + 0.5).clip(0, 1)
    down = (y - top) / (bottom - top).clip(0.2)
    shade = _shade(across, down, lean, y, fabric, light)[:, :, None]
    cloth = _cloth(angle, across, down, fabric) * shade + 0.12 * (shade - 0.8)  # dark cloth shines a little
    grey = cloth.mean(2, keepdims=True) * light.cast
    level = (light.level * (grey + light.colour * (cloth - grey))).clip(0, 255).astype(np.float32)
    return cover, _straps(x, y, pose, fabric), level


def _turn(yaw: float, half: Any) -> tuple[Any, Any]:
    """How far the yaw turns a tube of this half-width and depth 1, and the tube's half-width as seen."""
    import numpy as np

    wide, deep = half * float(np.cos(yaw)), float(np.sin(yaw))
    return np.arctan2(deep, wide), np.hypot(wide, deep)


def _cloth(angle: np.ndarray, across: np.ndarray, down: np.ndarray, fabric: _Fabric) -> np.ndarray:
    """The share of light (H, W, 3) that the cloth gives back: its colour, its pattern and its hems."""
    import numpy as np

    share = np.zeros_like(across)
    u, v = angle * 9, down * 11
    if fabric.pattern == "dots":
        share = (2.5 - 6 * np.hypot((u + 0.5 * (np.floor(v) % 2)) % 1 - 0.5, v % 1 - 0.5)).clip(0, 1)
    elif fabric.pattern == "stripes":
        share = (0.5 + 3 * np.sin(3.1 * u)).clip(0, 1)
    elif fabric.pattern == "checks":
        share = ((0.5 + 3 * np.sin(3.1 * u)).clip(0, 1) + (0.5 + 3 * np.sin(3.1 * v)).clip(0, 1)) / 2
    hems = np.zeros_like(across)
    if fabric.kind != "folded":
        hems = ((0.045 - np.minimum(down, 1 - down)) * 60).clip(0, 1)
        hems = np.maximum(hems, ((abs(across) - 0.95) * 60).clip(0, 1))
    colour, second, trim = (np.array(part, np.float32) for part in (fabric.colour, fabric.second, fabric.trim))
    cloth = colour + share[:, :, None] * (second - colour)
    return cloth + (hems * 0.6)[:, :, None] * (trim - cloth)


def _shade(
    across: np.ndarray, down: np.ndarray, lean: np.ndarray, y: np.ndarray, fabric: _Fabric, light: _Light
) -> np.ndarray:
    """How bright the cloth is (H, W), about 1: round about the head and the chin, over the nose, folded, wrinkled."""
    import numpy as np

    shade = 0.72 + 0.28 * np.cos(lean) + 1.6 * light.slope * np.sin(lean)
    shade -= 0.34 * (y - 1.1).clip(0, 0.9) ** 1.3  # it turns down towards the chin
    ridge = np.exp(-((across / 0.11) ** 2)) - 0.8 * np.exp(-(((abs(across) - 0.27) / 0.13) ** 2))
    shade += 0.13 * ridge * (1.1 - y).clip(0, 0.6)
    for wave, tall, phase, height in fabric.folds:
        shade += 0.022 * height * np.sin(wave * across * 2 + tall * down + phase)
    if fabric.kind == "pleated":
        for fold in (0.28, 0.47, 0.66):
            below = down - fold + 0.03 * across * across
            shade -= 0.12 * np.exp(-((below / 0.012) ** 2)) + 0.06 * np.exp(-below.clip(0) / 0.06) * (below > 0)
    elif fabric.kind == "folded":
        shade += 0.07 * ((0.33 - down) * 40).clip(-1, 1) - 0.07 * ((down - 0.68) * 40).clip(-1, 1)
    else:
        shade -= 0.1 * np.exp(-((across / 0.012) ** 2))  # the seam
    shade -= 0.12 * np.exp(-np.minimum(down, 1 - down).clip(0) / 0.02)  # the edge is thick
    return shade.clip(0.15, 1.25).astype(np.float32)


def _straps(x: np.ndarray, y: np.ndarray, pose: _Pose, fabric: _Fabric) -> np.ndarray:
    """Coverage (H, W) of the ear loops: from the mask's corners to the ears that face the viewer."""
    import numpy as np

    cover = np.zeros_like(x)
    for side in (-1, 1):
        if side * pose.yaw > 0.25:  # this ear is behind the face
            continue
        for height, ear in ((fabric.top[1] + 0.05, 0.12), (fabric.bottom[1] - 0.08, 0.72)):
            turned, radius = _turn(pose.yaw, np.interp(height, *_HALF))
            start = radius * np.sin(side * 0.97 * fabric.reach + turned) - 0.5 * np.sin(pose.yaw)
            end = side * 1.08 * np.cos(pose.yaw) - 0.75 * np.sin(pose.yaw)
            distance = _distance(x, y, (float(start), height), (float(end), ear))
            cover = np.maximum(cover, ((0.018 - distance) * pose.unit + 0.5).clip(0, 1))
    return cover


def _distance(x: np.ndarray, y: np.ndarray, start: tuple[float, float], end: tuple[float, float]) -> np.ndarray:
    """How far (H, W) places are from a line between two."""
    import numpy as np

    across, down = end[0] - start[0], end[1] - start[1]
    along = ((x - start[0]) * across + (y - start[1]) * down) / max(across * across + down * down, 1e-9)
    along = along.clip(0, 1)
    return np.hypot(x - start[0] - along * across, y - start[1] - along * down)


def _blend(
    pixels: np.ndarray, layers: Sequence[np.ndarray], trim: float, unit: float, light: _Light, rng: np.random.Generator
) -> np.ndarray:
    """The pixels (H, W, 3) uint8 under a soft shadow, straps that give back `trim` of the light, and the cloth."""
    import cv2
    import numpy as np

    cover, straps, cloth = layers
    photo = pixels.astype(np.float32)
    unlike = abs(photo / (light.level + 1) - 0.65 * light.cast).mean(2)
    straps = (straps * (1.6 - 3 * unlike).clip(0, 1)).astype(np.float32)  # hair hides them
    near = cv2.GaussianBlur(np.maximum(cover, 0.5 * straps), (0, 0), min(max(0.5, 0.035 * unit), 20))
    photo *= 1 - 0.35 * (near * (1 - cover))[:, :, None]
    photo += straps[:, :, None] * (0.85 * light.level * trim - photo)
    cover, cloth = (cv2.GaussianBlur(layer, (0, 0), light.blur) for layer in (cover, cloth))
    grain = cv2.GaussianBlur(rng.standard_normal(cover.shape, dtype=np.float32), (0, 0), 0.6)
    cloth = cloth + (light.grain * grain)[:, :, None] * (0.6 + cloth / 255)
    photo += cover[:, :, None] * (cloth - photo)
    return photo.round().clip(0, 255).astype(np.uint8)
