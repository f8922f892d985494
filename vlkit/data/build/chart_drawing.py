"""Bar plots and pie charts onto pixels; of a plan, only the words differ from language to language."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageDraw

from vlkit.data.build.chart_plans import COLORS, ChartPlan
from vlkit.data.build.lettering import Lettering

Anchor = Literal["ls", "ms", "rs"]
"""Where a label stands: from its place to the right, about it, or to the left."""
MAX_EMS = 6.5
"""Widest word, in widths of the letter size, that fits at every place of every plan."""
_SCALE = 2  # drawn so much larger: Pillow's shapes have no smooth edges
_SMALLEST = 12  # pixels per em
_TILT = math.radians(40)
_BASE = 0.35  # of the letter size, from the base line up to the middle of a capital
_INK, _LINE, _GRID = (34, 34, 34), (90, 90, 90), (222, 222, 222)


@dataclass(frozen=True)
class LabelSlot:
    """Where a label belongs: ``at`` is its place, ``anchor`` which side of the text is there; sizes in pixels.

    ``tilted`` ones rise towards their place. ``leader`` is a line that leads from the part to the label.
    """

    at: tuple[float, float]
    anchor: Anchor
    width: float
    height: float
    tilted: bool = False
    leader: tuple[tuple[float, float], ...] = ()

    @property
    def area(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of all that a label may cover."""
        x, y = self.at
        if self.tilted:
            across, down = math.cos(_TILT), math.sin(_TILT)
            reach = self.height * down / 2 + 1
            return x - self.width * across - reach, y - 1, x + reach, y + self.width * down + self.height * across + 1
        left = {"ls": x, "ms": x - self.width / 2, "rs": x - self.width}[self.anchor]
        return left, y - self.height / 2, left + self.width, y + self.height / 2


def label_slots(plan: ChartPlan) -> list[LabelSlot]:
    """Where the labels of a plan's parts belong, in their order; it depends on no word."""
    if plan.kind == "pie":
        return _pie_slots(plan)
    left, top, right, bottom = _frame(plan)
    count = len(plan.values)
    pitch = (bottom - top if plan.level else right - left) / count
    slots = []
    for part in range(count):
        middle = (part + 0.5) * pitch
        if plan.level:
            slots.append(LabelSlot((left - 8, top + middle), "rs", left - 16, min(pitch * 0.9, 48)))
        elif _is_tilted(plan):
            height = min(pitch * math.sin(_TILT) * 0.95, 48)
            width = (plan.size[1] - bottom - 11 - height * math.cos(_TILT)) / math.sin(_TILT)
            room = (left + middle - 4 - height * math.sin(_TILT) / 2) / math.cos(_TILT)
            slots.append(LabelSlot((left + middle, bottom + 7), "rs", min(width, room), height, tilted=True))
        else:
            slots.append(
                LabelSlot((left + middle, (bottom + plan.size[1]) / 2), "ms", pitch * 0.96, plan.size[1] - bottom - 6)
            )
    return slots


def draw_chart(plan: ChartPlan, words: Sequence[str], lettering: Lettering | None) -> Image.Image:
    """The plot as an RGB image of ``plan.size``, with a word for each of its parts; none without lettering."""
    size = tuple(side * _SCALE for side in plan.size)
    picture = Image.new("RGB", (size[0], size[1]), plan.tint)
    canvas = ImageDraw.Draw(picture)
    slots = label_slots(plan)
    (_draw_pie if plan.kind == "pie" else _draw_bars)(canvas, plan)
    for slot in slots:
        if slot.leader:
            canvas.line(_scaled(*slot.leader), fill=_LINE, width=_SCALE)
    if lettering is not None:
        letter_size = letter_size_of(plan, words, lettering)
        for slot, word in zip(slots, words, strict=True):
            _write(picture, slot, word, lettering, letter_size * _SCALE)
    return picture.resize(plan.size, Image.Resampling.LANCZOS)


def letter_size_of(plan: ChartPlan, words: Sequence[str], lettering: Lettering) -> int:
    """Pixels per em at which all words fit into their places, as large as is good to look at."""
    wanted = round(0.052 * min(plan.size))
    for size in range(wanted, _SMALLEST, -1):
        if all(_fits(slot, word, lettering, size) for slot, word in zip(label_slots(plan), words, strict=True)):
            return size
    return _SMALLEST


def _fits(slot: LabelSlot, word: str, lettering: Lettering, size: int) -> bool:
    left, top, right, bottom = lettering.box(word, size)
    # Words side by side share a base line; tilted ones are placed each by its own height.
    high = bottom - top if slot.tilted else 2 * max(-top - _BASE * size, bottom + _BASE * size)
    return right - left <= slot.width and high <= slot.height


def _write(picture: Image.Image, slot: LabelSlot, word: str, lettering: Lettering, size: int) -> None:
    left, top, right, bottom = lettering.box(word, size)
    width, height = math.ceil(right - left), math.ceil(bottom - top)
    mask = Image.new("L", (width, height))
    lettering.draw(ImageDraw.Draw(mask), (-left, -top), word, size=size, fill=255)
    x, y = slot.at[0] * _SCALE, slot.at[1] * _SCALE
    if slot.tilted:
        mask = mask.rotate(math.degrees(_TILT), Image.Resampling.BICUBIC, expand=True)
        # The middle of the text's end stands below the place.
        corner = (x - mask.width + height * math.sin(_TILT) / 2, y)
    else:
        shift = {"ls": 0.0, "ms": width / 2, "rs": float(width)}[slot.anchor]
        corner = (x - shift, y + _BASE * size + top)
    picture.paste(_INK, (round(corner[0]), round(corner[1])), mask)


def _is_tilted(plan: ChartPlan) -> bool:
    """Whether the words below standing bars would run into each other."""
    return plan.size[0] * 0.84 / len(plan.values) < 8 * 16


def _frame(plan: ChartPlan) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the bars' field."""
    width, height = plan.size
    if plan.level:
        return 0.3 * width, 0.05 * height, 0.95 * width, 0.94 * height
    if _is_tilted(plan):
        return 0.22 * width, 0.06 * height, 0.96 * width, 0.7 * height
    return 0.08 * width, 0.06 * height, 0.96 * width, 0.87 * height


def _draw_bars(canvas: ImageDraw.ImageDraw, plan: ChartPlan) -> None:
    left, top, right, bottom = _frame(plan)
    length = (right - left if plan.level else bottom - top) * 0.97 / 100
    pitch = (bottom - top if plan.level else right - left) / len(plan.values)
    for mark in range(20, 101, 20):
        x, y = left + mark * length, bottom - mark * length
        line = ((x, top), (x, bottom)) if plan.level else ((left, y), (right, y))
        canvas.line(_scaled(*line), fill=_GRID, width=_SCALE)
    for part, (value, color) in enumerate(zip(plan.values, plan.colors, strict=True)):
        start, end = (part + 0.16) * pitch, (part + 0.84) * pitch
        if plan.level:
            corners = ((left, top + start), (left + value * length, top + end))
        else:
            corners = ((left + start, bottom - value * length), (left + end, bottom))
        canvas.rectangle(_scaled(*corners), fill=COLORS[color], outline=_LINE, width=_SCALE)
    canvas.line(_scaled((left, top), (left, bottom), (right, bottom)), fill=_INK, width=2 * _SCALE)


def _round(plan: ChartPlan) -> tuple[float, float, float]:
    """Middle and radius of a pie."""
    return plan.size[0] / 2, plan.size[1] / 2, 0.34 * plan.size[1]


def _angles(plan: ChartPlan) -> list[tuple[float, float]]:
    """Degrees at which each slice begins and ends, clockwise from the right."""
    ends = [plan.turn + 3.6 * sum(plan.values[: part + 1]) for part in range(len(plan.values))]
    return list(zip([float(plan.turn), *ends[:-1]], ends, strict=True))


def _way(degrees: float, far: float) -> tuple[float, float]:
    return far * math.cos(math.radians(degrees)), far * math.sin(math.radians(degrees))


def _draw_pie(canvas: ImageDraw.ImageDraw, plan: ChartPlan) -> None:
    x, y, radius = _round(plan)
    for (start, end), color, apart in zip(_angles(plan), plan.colors, plan.apart, strict=True):
        dx, dy = _way((start + end) / 2, 0.1 * radius if apart else 0.0)
        box = _scaled((x + dx - radius, y + dy - radius), (x + dx + radius, y + dy + radius))
        canvas.pieslice(box, start, end, fill=COLORS[color], outline=(255, 255, 255), width=_SCALE)


def _pie_slots(plan: ChartPlan) -> list[LabelSlot]:
    x, y, radius = _round(plan)
    height = 0.085 * plan.size[1]
    middles = [(start + end) / 2 for start, end in _angles(plan)]
    room = x - 1.32 * radius - 8
    slots: dict[int, LabelSlot] = {}
    for side in (-1, 1):
        parts = [part for part, middle in enumerate(middles) if (_way(middle, 1.0)[0] >= 0) == (side > 0)]
        parts.sort(key=lambda part: _way(middles[part], 1.0)[1])
        wanted = [y + _way(middles[part], 1.2 * radius)[1] for part in parts]
        for part, level in zip(parts, _spread(wanted, height * 1.15, height, plan.size[1] - height), strict=True):
            edge = 1.1 if plan.apart[part] else 1.0
            begins, bends = _way(middles[part], edge * radius), _way(middles[part], 1.16 * radius)
            end = x + side * 1.28 * radius
            leader = ((x + begins[0], y + begins[1]), (x + bends[0], y + bends[1]), (end, level))
            anchor: Anchor = "ls" if side > 0 else "rs"
            slots[part] = LabelSlot((end + side * 4, level), anchor, room, height, leader=leader)
    return [slots[part] for part in range(len(middles))]


def _spread(wanted: Sequence[float], apart: float, least: float, most: float) -> list[float]:
    """Places in order, near to the wanted ones, so far apart and within bounds."""
    places: list[float] = []
    for number, place in enumerate(wanted):
        low = places[-1] + apart if places else least
        places.append(max(low, min(place, most - apart * (len(wanted) - 1 - number))))
    return places


def _scaled(*points: tuple[float, float]) -> list[tuple[float, float]]:
    return [(x * _SCALE, y * _SCALE) for x, y in points]
