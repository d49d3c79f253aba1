"""What a drawn mask needs to know: where the face is, what the mask is made of, and in what light it hangs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Bearing:
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


def bearing(points: np.ndarray) -> Bearing:
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
    return Bearing(eyes, np.stack([across * unit, down], 1), yaw, float(np.clip(depth, 0.45, 0.7)))


@dataclass(frozen=True)
class Fabric:
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


def fabric_for(state: str, pose: Bearing, rng: np.random.Generator) -> Fabric:
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
    return Fabric(
        (max(middle, 0.18), max(side, 0.3)),
        (low + 0.06 * move[2], corner + 0.08 * move[3]),
        1.13 + 0.08 * move[4],
        kind, colour, trim, pattern, second, folds,
    )  # fmt: skip


_BARE = ((0.0, 0.35, 1.0), (-0.42, 0.42, 0.6), (0.42, 0.42, 0.6))  # x, y and share of the nose's depth


@dataclass(frozen=True)
class Light:
    """What a white cloth on this face would look like: its level 0..255, the cast on grey, how much colour the photo
    has (0..1), how much brighter the right side is, the grain of the pixels in levels, and their blur in pixels."""

    level: float
    cast: np.ndarray
    colour: float
    slope: float
    grain: float
    blur: float


def light_on(image: np.ndarray, pose: Bearing) -> Light:
    """The light on the nose and the cheeks beside it, which are bare."""
    import numpy as np

    shift = 0.5 * np.sin(pose.yaw)
    patches = [_patch(image, pose, x * np.cos(pose.yaw) + shift * part, y) for x, y, part in _BARE]
    seen = np.concatenate([patch.reshape(-1, 3) for patch in patches])
    skin = np.median(seen, 0) if len(seen) else np.full(3, 128.0)
    left, right = (float(np.median(patch)) if patch.size else float(skin.mean()) for patch in patches[1:])
    chroma = float(np.ptp(skin) / max(skin.max(), 1.0))
    steps = abs(np.diff(patches[0], axis=1))
    return Light(
        level=float(255 * np.clip((skin.mean() + 12) / 165, 0.2, 1.0) ** 0.75),
        cast=(skin / max(skin.mean(), 1.0)).astype(np.float32),
        colour=float(np.clip((chroma - 0.03) / 0.15, 0, 1)),
        slope=float(np.clip((right - left) / max(left + right, 1.0), -0.3, 0.3)),
        grain=float(np.clip(np.median(steps) * 0.5, 0.3, 3.0)) if steps.size else 1.0,
        blur=_blur(image, pose),
    )


def _blur(image: np.ndarray, pose: Bearing) -> float:
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


def _patch(image: np.ndarray, pose: Bearing, x: float, y: float, reach: float = 0.1) -> np.ndarray:
    """The pixels (n, m, 3) within `reach` units of a place, none from outside the image."""
    column, row = pose.pixels(x, y)
    half = max(1.0, reach * pose.unit)
    rows = slice(max(0, int(row - half)), max(0, int(row + half) + 1))
    columns = slice(max(0, int(column - half)), max(0, int(column + half) + 1))
    return image[rows, columns].astype(float)
