"""The people that are drawn: what each looks like, and the states of their masks."""

from dataclasses import dataclass

from multihead.canvas import Colour

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
