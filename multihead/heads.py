"""Heads: questions asked of a photo, their classes, and what a table of heads is of."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from multihead.crops import FULL, Crop

UNKNOWN = -1
AGE_NUMBER = "age"  # the number that recipes' settings of age are of
BLANKS = ("", "nan", "none", "<na>", "na", "n/a", "null", "-1", "-1.0")  # cells that say nothing, in lower case

JOINT = "joint:"  # with a number: the columns of joint probabilities in tables of answers and of soft labels

TAKEN = frozenset(
    ("path", "name", "root", "source", "person", "split", "years", "x0", "y0", "x1", "y1", "whole", "searched", "face")
    + ("box", "label", "error", "status", "score", "pseudo", "joint", "macro")
)  # columns that mean something else in tables of photos, answers and scores


@dataclass(frozen=True)
class Head:
    """One question asked of a photo: its name, its classes in order, and the crops that its answer is read from.

    edges: for classes that are bands of a number, as of an age in years: band = how many edges are <= it. parts: for a
    flat head, the heads whose combinations are its classes (see `flat`). number: the column of tables that holds the
    number, by default the head's own; several heads may band one, as Head("decade", ..., edges=..., number="age").

    Raises: ValueError for a name that is no identifier or a column of the tables of photos, answers or scores
    (`TAKEN`), fewer than two or repeated classes (case does not count), classes named like a missing value or like
    another class's index, no crop, edges that do not rise or do not fit the classes, or a number without edges;
    TypeError for classes that are no texts.

    >>> Head("smile", ("no", "yes")).on(FULL.resized(64)).crops[0].size
    (64, 64)
    """

    name: str
    classes: tuple[str, ...]
    crops: tuple[Crop, ...] = (FULL,)
    edges: tuple[float, ...] | None = None
    parts: tuple[Head, ...] = ()
    number: str | None = field(default=None, repr=False)  # runs are told apart by the text of their heads

    def __post_init__(self) -> None:
        for what, text in {"name": self.name, "number": self.number or self.name}.items():
            if not isinstance(text, str) or not text.isidentifier():
                raise ValueError(f"head {what} {text!r} must be letters, digits and _, as in 'mask'")
            if text in TAKEN:
                raise ValueError(
                    f"head {what} {text!r} is a column of the tables of photos, answers and scores; take another"
                )
        if self.edges is None and self.number not in (None, self.name):
            raise ValueError(f"head {self.name!r} has number {self.number!r}, but no edges of bands of it")
        texts = not isinstance(self.classes, str) and all(isinstance(name, str) for name in self.classes)
        if not texts:
            raise TypeError(f"head {self.name!r} has classes {self.classes!r}; expected texts, as ('no', 'yes')")
        if hasattr(self.crops, "region"):
            object.__setattr__(self, "crops", (self.crops,))
        for many in ("classes", "crops", "parts"):
            object.__setattr__(self, many, tuple(getattr(self, many)))
        if self.edges is not None:
            object.__setattr__(self, "edges", tuple(self.edges))
        object.__setattr__(self, "number", None if self.edges is None else self.number or self.name)
        plain = [name.strip().lower() for name in self.classes]  # as a table's cells are compared
        if len(plain) < 2 or len(set(plain)) < len(plain):
            raise ValueError(f"head {self.name!r} has classes {self.classes}; expected two or more unlike names")
        number = [text for place, text in enumerate(plain) if text.isdigit() and int(text) != place]
        if number:
            raise ValueError(
                f"head {self.name!r} names a class {number[0]!r}, which tables read as an index; rename it"
            )
        missing = [name for name, text in zip(self.classes, plain) if text in BLANKS]
        if missing:
            raise ValueError(
                f"head {self.name!r} names a class {missing[0]!r}, which tables read as missing; rename it"
            )
        if not self.crops or len(set(self.crops)) < len(self.crops):
            raise ValueError(f"head {self.name!r} has crops {self.crops}; expected one or more unlike crops")
        if self.edges is not None and (
            len(self.edges) != len(self.classes) - 1
            or not all(map(math.isfinite, self.edges))
            or any(b <= a for a, b in zip(self.edges, self.edges[1:]))
        ):
            raise ValueError(
                f"head {self.name!r} has edges {self.edges} for {len(self.classes)} classes; "
                f"expected {len(self.classes) - 1} rising numbers"
            )

    @property
    def in_years(self) -> bool:
        """Whether the classes are bands of the column age, not of some other number."""
        return self.number == AGE_NUMBER

    def on(self, *crops: Crop) -> Head:
        """The same head reading these crops; the features of several are joined in this order.

        Raises: TypeError for what is no crop.
        """
        if strange := [crop for crop in crops if not hasattr(crop, "region")]:
            raise TypeError(f"head {self.name!r} on {strange[0]!r}; expected crops such as multihead.FACE")
        return replace(self, crops=tuple(crops))


MASK = Head("mask", ("worn", "incorrect", "not_worn"))
GENDER = Head("gender", ("male", "female"))
AGE = Head("age", ("<30", "30-59", ">=60"), edges=(30, 60))
HEADS = (MASK, GENDER, AGE)


def flat(heads: Sequence[Head] = HEADS) -> tuple[Head, ...]:
    """A table of one head whose classes are all combinations of `heads`, first head slowest; it keeps the parts.

    >>> len(flat(HEADS)[0].classes)
    18
    """
    heads = (heads,) if isinstance(heads, Head) else heads
    name = "_".join(head.name for head in heads)
    return (Head(name, tuple(joint_names(heads)), crops(heads), parts=tuple(heads)),)


def base(heads: Sequence[Head]) -> tuple[Head, ...]:
    """The heads that labels are given for: a flat head stands for its parts.

    Raises: ValueError where two of them share a name, or one bands what another's classes without edges are named in,
    TypeError for what is no head.
    """
    if isinstance(heads, str):
        raise TypeError(f"heads is the text {heads!r}; expected heads, such as [multihead.MASK, multihead.AGE]")
    heads = (heads,) if isinstance(heads, Head) else heads
    if strange := [head for head in heads if not isinstance(head, Head)]:
        raise TypeError(f"heads hold {strange[0]!r}; expected heads such as multihead.MASK")
    table = tuple(part for head in heads for part in (head.parts or (head,)))
    names = [head.name for head in table]
    if len(set(names)) < len(names):
        raise ValueError(f"heads {names} repeat a name; every head of a table needs its own")
    named = {head.name for head in table if head.number != head.name}
    if clash := [head for head in table if head.number in named]:
        head = clash[0]
        raise ValueError(
            f"head {head.name!r} bands the number {head.number!r}, and head {head.number!r} reads that column as names "
            f"of its classes; expected edges of {head.number!r} too, or another number"
        )
    return table


def label_columns(head: Head) -> list[str]:
    """The columns of a table that labels of a head may stand in.

    >>> label_columns(AGE), label_columns(MASK)
    (['age', 'age_band'], ['mask'])
    """
    return [head.name] if head.number is None else list(dict.fromkeys([head.number, head.name, f"{head.name}_band"]))


def number_column(number: str) -> str:
    """The column of `Photos.table` that holds a number that heads band: years of an age.

    >>> number_column("age"), number_column("height")
    ('years', 'height:number')
    """
    return "years" if number == AGE_NUMBER else f"{number}:number"


def span_column(number: str) -> str:
    """The column of `Photos.table`, where there are any, of the spans that stand in a number's place, as 25-29."""
    return f"{number}:span"


def numbers(heads: Sequence[Head]) -> list[str]:
    """The numbers that heads band, each once.

    >>> numbers(HEADS)
    ['age']
    """
    return list(dict.fromkeys(head.number for head in heads if head.number is not None))


def space(heads: Sequence[Head]) -> tuple[Head, ...]:
    """The joint space of a table of heads: names and classes in order, crops and edges left out.

    Two models whose spaces are equal give joint distributions that may be averaged.
    """
    return tuple(Head(head.name, head.classes) for head in base(heads))


def size(heads: Sequence[Head]) -> int:
    """The number of joint classes."""
    return math.prod(len(head.classes) for head in base(heads))


def joint_names(heads: Sequence[Head]) -> list[str]:
    """The name of each joint class, first head slowest.

    >>> joint_names(HEADS)[7]
    'incorrect/male/30-59'
    """
    return ["/".join(names) for names in itertools.product(*(head.classes for head in heads))]


def joint_columns(heads: Sequence[Head]) -> list[str]:
    """The columns of joint probabilities in tables of answers and of soft labels.

    >>> joint_columns((MASK,))
    ['joint:0', 'joint:1', 'joint:2']
    """
    return [f"{JOINT}{number}" for number in range(size(heads))]


def crops(heads: Sequence[Head]) -> tuple[Crop, ...]:
    """The distinct crops that a table of heads reads, in order of first use."""
    return tuple(dict.fromkeys(crop for head in heads for crop in head.crops))


FLAT = flat(HEADS)
