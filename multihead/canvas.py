"""What portraits are drawn with: smooth shapes on a photo-sized canvas, and mixtures of colours."""

import math
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

Colour = tuple[int, int, int]
Points = list[tuple[float, float]] | np.ndarray
CIRCLE = np.array([(np.cos(angle), np.sin(angle)) for angle in np.arange(32) * (np.pi / 16)])


@dataclass(frozen=True)
class Pose:
    """Where head and body of one photo lie: pixels of the face's width and centre, radians, yaw in -1..1."""

    scale: float
    centre: tuple[float, float]
    tilt: float
    lean: float
    yaw: float


class Canvas:
    """A photo in the making: image (H, W, 3) uint8, and soft shadows (H/4, W/4) uint8 where 128 changes nothing."""

    def __init__(self, image: np.ndarray, pose: Pose) -> None:
        self.image, self.pose, self.tilt = image, pose, pose.tilt
        self.shade = np.full((image.shape[0] // 4, image.shape[1] // 4), 128, np.uint8)

    def fill(self, points: Points, colour: Colour) -> None:
        cv2.fillPoly(self.image, [fixed(place(points, self.pose, self.tilt))], colour, cv2.LINE_AA, 4)

    def stroke(self, points: Points, colour: Colour, width: float, closed: bool = False) -> None:
        pixels, line = max(1, round(width * self.pose.scale)), fixed(place(points, self.pose, self.tilt))
        cv2.polylines(self.image, [line], closed, colour, pixels, cv2.LINE_AA, 4)

    def tone(self, points: Points, level: int) -> None:
        cv2.fillPoly(self.shade, [fixed(place(points, self.pose, self.tilt) / 4)], level, cv2.LINE_AA, 4)


def place(points: Points, pose: Pose, angle: float) -> np.ndarray:
    """Pixels (N, 2) of points given in face widths about the face's centre, turned by angle radians."""
    cos, sin = pose.scale * math.cos(angle), pose.scale * math.sin(angle)
    return np.asarray(points, float) @ np.array([[cos, sin], [-sin, cos]]) + pose.centre


def fixed(pixels: np.ndarray) -> np.ndarray:
    """Points in pixels as cv2 takes them with shift=4: whole numbers of 1/16 pixel."""
    return np.round(pixels * 16).astype(np.int32)  # cv2's fixed point of four bits, the shift of 4


def smooth(points: Points, steps: int = 5) -> np.ndarray:
    """Catmull-Rom spline through the points (N, 2) -> ((N-1)*steps + 1, 2)."""
    return spline(len(points), steps) @ np.asarray(points, float)


@cache
def spline(knots: int, steps: int) -> np.ndarray:
    """The weights of the knots, ((knots-1)*steps + 1, knots); the ends run straight on."""
    t = (np.arange(steps) / steps)[:, None]
    cubic = 0.5 * np.hstack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2])
    weights = np.zeros(((knots - 1) * steps + 1, knots + 2))
    for span in range(knots - 1):
        weights[span * steps : (span + 1) * steps, span : span + 4] = cubic
    weights[-1, -2] = 1
    for end, last, before in ((0, 1, 2), (-1, -2, -3)):  # the knot beyond each end is 2 * last - the one before
        weights[:, last] += 2 * weights[:, end]
        weights[:, before] -= weights[:, end]
    return weights[:, 1:-1]


def ellipse(x: float, y: float, half_width: float, half_height: float, power: float = 1.0) -> np.ndarray:
    """Points (32, 2) of an ellipse; a power below 1 makes it boxier, above 1 more pointed."""
    circle = np.sign(CIRCLE) * abs(CIRCLE) ** power if power != 1 else CIRCLE
    return circle * (half_width, half_height) + (x, y)


def both(points: Points) -> np.ndarray:
    """A left half, listed top to bottom, closed with its mirror image."""
    left = np.asarray(points, float)
    return np.concatenate([left, left[::-1] * (-1, 1)])


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """The colour that lies `share` of the way from a to b."""
    red, green, blue = (round(p + (q - p) * share) for p, q in zip(a, b, strict=True))
    return red, green, blue


def darker(colour: Colour, share: float) -> Colour:
    """The colour, `share` of the way to a warm black."""
    return mix(colour, (25, 12, 12), share)


def lighter(colour: Colour, share: float) -> Colour:
    """The colour, `share` of the way to a warm white."""
    return mix(colour, (255, 250, 244), share)
