"""Drawn masks: a bare face gets a mask, worn or worn incorrectly, from the detector's five points.

Each pixel asks where on the fabric it lies: the lower face is a tube about the face's down axis, turned by the yaw that
the nose shows. x runs to the right in eye distances, y from the eyes (0) to the mouth (1); both are of the face, so
crops of unlike size of one photo get the same mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from multihead.fabrics import Bearing, Fabric, Light, bearing, fabric_for, light_on
from multihead.options import between, choice, option

if TYPE_CHECKING:
    import numpy as np

    from multihead.crops import Region
    from multihead.heads import Head

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
    pose, drawn = bearing(points), image.copy()
    x0, y0, x1, y1 = _window(pose, image.shape)
    if x0 >= x1 or y0 >= y1:
        return drawn
    rng = np.random.default_rng((seed, 3))
    fabric = fabric_for(state, pose, rng)
    light = light_on(image, pose)
    x, y = pose.place(np.arange(x0, x1) + 0.5, np.arange(y0, y1)[:, None] + 0.5)
    layers = _mask(x, y, pose, fabric, light)
    trim = sum(fabric.trim) / 3
    drawn[y0:y1, x0:x1] = _blend(image[y0:y1, x0:x1], layers, trim, pose.unit, light, rng)
    return drawn


def _window(pose: Bearing, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The pixels (x0, y0, x1, y1) that a mask may reach."""
    import numpy as np

    corners = np.array([pose.pixels(x, y) for x in (-1.35, 1.35) for y in (-0.05, 2.2)])
    low, high = np.floor(corners.min(0)), np.ceil(corners.max(0))
    left, top = np.clip(low, 0, (shape[1], shape[0])).astype(int)
    right, bottom = np.clip(high, 0, (shape[1], shape[0])).astype(int)
    return int(left), int(top), int(right), int(bottom)


_HALF = ((0, 0.5, 1.0, 1.4, 1.8, 2.3), (1.12, 1.1, 1.02, 0.88, 0.66, 0.56))  # y, and half a face's width there


def _mask(
    x: np.ndarray, y: np.ndarray, pose: Bearing, fabric: Fabric, light: Light
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


def _cloth(angle: np.ndarray, across: np.ndarray, down: np.ndarray, fabric: Fabric) -> np.ndarray:
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
    across: np.ndarray, down: np.ndarray, lean: np.ndarray, y: np.ndarray, fabric: Fabric, light: Light
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


def _straps(x: np.ndarray, y: np.ndarray, pose: Bearing, fabric: Fabric) -> np.ndarray:
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
    pixels: np.ndarray, layers: Sequence[np.ndarray], trim: float, unit: float, light: Light, rng: np.random.Generator
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


def mask_classes(heads: Sequence[Head]) -> dict[str, int]:
    """The class numbers {name: index} of the mask head, which drawn masks change.

    Raises: ValueError where the heads have none with our classes.
    """
    from multihead.heads import MASK, base

    head = next((head for head in base(heads) if head.name == MASK.name), None)
    if head is None or not set(MASK.classes) <= set(head.classes):
        raise ValueError(
            f"a drawn mask changes the label of head {MASK.name!r} ({', '.join(MASK.classes)}); the model's heads are "
            f"{[head.name for head in base(heads)]}; leave DrawnMask out of augment (--aug)"
        )
    return {name: head.classes.index(name) for name in head.classes}


def points_in(points: np.ndarray, region: Region, shape: Sequence[int]) -> np.ndarray:
    """Points (5, 2) of a photo as pixels of a crop of shape (H, W, ...) that shows this region."""
    x0, y0, x1, y1 = region
    scale = (shape[1] / (x1 - x0), shape[0] / (y1 - y0))
    return (points - (x0, y0)) * scale


def face_height(points: np.ndarray) -> float:
    """Pixels from between the eyes to the mouth of points (5, 2)."""
    import numpy as np

    return float(np.hypot(*(points[3:].mean(0) - points[:2].mean(0))))
