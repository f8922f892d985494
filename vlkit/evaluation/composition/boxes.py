"""Objects that a detector found in an image, and how they lie to each other (GenEval, arXiv 2310.11513)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

Relation = Literal["left of", "right of", "above", "below"]
RELATIONS: tuple[Relation, ...] = get_args(Relation)
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
_SLACK = 0.1  # of the sizes of both boxes: so far apart two centres may be and still count as level
_CLEAR = 0.5  # of the distance of the centres
_LEVEL = 1e-3


@dataclass(frozen=True)
class FoundObject:
    """One instance.

    Attributes:
        name: Of its class.
        score: How sure the detector is, in 0..1.
        box: Left, top, right and bottom in pixels; y grows downwards.
        color: What a classifier of colours says of it; "" where none was asked.
    """

    name: str
    score: float
    box: tuple[float, float, float, float]
    color: str = ""

    @property
    def center(self) -> tuple[float, float]:
        """X and y."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2

    @property
    def size(self) -> tuple[float, float]:
        """Width and height."""
        left, top, right, bottom = self.box
        return abs(right - left), abs(bottom - top)


def relations(one: FoundObject, other: FoundObject) -> frozenset[Relation]:
    """How the first lies to the second: none where the boxes are about level, at most one of each axis.

    The offset of the centres is shortened on each axis by a tenth of both sizes, and counts where it is more than half
    of the whole offset.
    """
    offset = [a - b for a, b in zip(one.center, other.center, strict=True)]
    slack = [_SLACK * (a + b) for a, b in zip(one.size, other.size, strict=True)]
    left = [math.copysign(max(abs(way) - some, 0.0), way) for way, some in zip(offset, slack, strict=True)]
    if all(abs(way) < _LEVEL for way in left):
        return frozenset()
    x, y = (way / math.hypot(*offset) for way in left)
    found: list[Relation] = []
    if abs(x) > _CLEAR:
        found.append("left of" if x < 0 else "right of")
    if abs(y) > _CLEAR:
        found.append("above" if y < 0 else "below")
    return frozenset(found)
