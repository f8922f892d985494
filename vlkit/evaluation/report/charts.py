"""What the charts of a page show, in percent of their width and height: bars, strips of dots, scatter plots.

Pages draw them with HTML and CSS alone, so that text keeps its size on a phone, colours follow the theme, and no script
is run.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from vlkit import languages as language_table
from vlkit.evaluation.report.breakdown import TIERS, Breakdown, script_of
from vlkit.languages import Language

_MANY = 40  # rows from which a chart is compact
_SOME = 20  # rows from which a chart can be sorted and filtered
_SCRIPTS = 8  # scripts that have a filter of their own
_SAME = 1e-6  # shares that differ by less are one and the same, after a look into a file
_RING = (0.0, -26.0, 26.0, -13.0, 13.0, -38.0, 38.0)  # heights that dots of a strip take in turn


@dataclass(frozen=True)
class Cell:
    """One bar: shares in 0..1, NaN for what is not known."""

    value: float
    low: float = math.nan
    high: float = math.nan
    english: float = math.nan
    chance: float = math.nan


@dataclass(frozen=True)
class BarRow:
    """One language with a bar for each series, None where it has none."""

    tag: str
    cells: Sequence[Cell | None]
    num_classes: int = 0


@dataclass(frozen=True)
class Point:
    """A point of a scatter plot; ``second`` is another height at the same place, NaN for none."""

    x: float
    y: float
    label: str
    title: str
    series: int = 0
    second: float = math.nan


def bars(key: str, series: Sequence[str], rows: Sequence[BarRow], *, unit: str = "") -> dict[str, Any]:
    """Bars of each language, the best one first; ``key`` is unique in the page, ``unit`` is what the axis says."""
    found = [cell for row in rows for cell in row.cells if cell]
    top = nice_ceiling(max(_highest(cell) for cell in found))
    best = {row.tag: max(cell.value for cell in row.cells if cell) for row in rows}
    languages = {row.tag: language_table.get(row.tag) for row in rows}
    scripts = _common_scripts(languages)
    orders = {
        "value": sorted(rows, key=lambda row: (-best[row.tag], row.tag)),
        "name": sorted(rows, key=lambda row: languages[row.tag].name),
    }
    if len({row.num_classes for row in rows}) > 1:
        orders["classes"] = sorted(rows, key=lambda row: (-row.num_classes, row.tag))
    if any(not math.isnan(_gap(row)) for row in rows):
        orders["gap"] = sorted(rows, key=lambda row: (_gap(row) if not math.isnan(_gap(row)) else math.inf, row.tag))
    places = {name: {row.tag: place for place, row in enumerate(order)} for name, order in orders.items()}
    tiers = [tier for tier in TIERS if any(one.tier == tier for one in languages.values())]
    return {
        "key": key,
        "series": list(series),
        "unit": unit,
        "rows": [
            {
                "language": languages[row.tag],
                "cells": [cell and _bar(cell, top) for cell in row.cells],
                "places": {name: place[row.tag] for name, place in places.items()},
                "tier": languages[row.tag].tier,
                "script": scripts[row.tag],
                "num_classes": row.num_classes,
            }
            for row in orders["value"]
        ],
        "ticks": percent_ticks(top),
        "many": len(rows) > _MANY,
        "orders": list(orders) if len(rows) >= _SOME else [],
        "tiers": tiers if len(tiers) > 1 and len(rows) >= _SOME else [],
        "scripts": sorted(set(scripts.values())) if len(set(scripts.values())) > 1 and len(rows) >= _SOME else [],
        "english": any(not math.isnan(cell.english) for cell in found),
        "english_lines": _english_lines(rows, top),
        "intervals": any(not math.isnan(cell.low) for cell in found),
        "chance": any(not math.isnan(cell.chance) for cell in found),
    }


def _english_lines(rows: Sequence[BarRow], top: float) -> list[dict[str, Any]]:
    """Series whose English figure is the same in all rows, which are of the same classes: a line says it once."""
    lines: list[dict[str, Any]] = []
    if len({row.num_classes for row in rows}) > 1:
        return lines
    for series in range(max(len(row.cells) for row in rows)):
        cells = [row.cells[series] for row in rows]
        values = [cell.english for cell in cells if cell and not math.isnan(cell.english)]
        if len(values) > 1 and max(values) - min(values) < _SAME:
            lines.append({"series": series, "left": 100 * values[0] / top, "value": values[0]})
    return lines


def strips(
    parts: Sequence[tuple[str, Breakdown, Mapping[str, float]]],
    *,
    low: float = 0.0,
    high: float | None = None,
    unit: str = "%",
) -> dict[str, Any]:
    """A row of dots for each group of languages, with the group's mean and its interval, from ``low`` to ``high``.

    ``parts`` are for each series its name, its groups, and the values of its languages by BCP 47 tag; ``unit`` is what
    the axis says.
    """
    top = high if high is not None else nice_ceiling(max(value for _, _, values in parts for value in values.values()))
    names = dict.fromkeys(group.group for _, one, _ in parts for group in one.groups)
    rows = []
    for name in names:
        series = []
        count = 0
        for number, (_, one, values) in enumerate(parts):
            group = next((group for group in one.groups if group.group == name), None)
            if group is None:
                continue
            count = max(count, len(group.languages))
            dots = [
                {
                    "left": _place(values[tag], low, top),
                    "top": 50 + _RING[place % len(_RING)],
                    "title": f"{language_table.get(tag).name}: {100 * values[tag]:.1f}",
                }
                for place, tag in enumerate(sorted(group.languages, key=lambda tag: values[tag]))
            ]
            series.append(
                {
                    "number": number,
                    "dots": dots,
                    "mean": group.mean,
                    "left": _place(group.mean, low, top),
                    "low": _place(group.low, low, top),
                    "span": _place(group.high, low, top) - _place(group.low, low, top),
                    "known": not math.isnan(group.low),
                    "range": (group.low, group.high),
                }
            )
        rows.append({"name": name, "count": count, "series": series})
    ticks, zero = percent_ticks(top), None
    if low < 0:
        ticks = [{"at": _place(at, low, top), "label": signed(at)} for at in (low, 0.0, top)]
        zero = _place(0.0, low, top)
    return {"title": parts[0][1].title, "rows": rows, "ticks": ticks, "zero": zero, "unit": unit}


def scatter(
    points: Sequence[Point],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    curve: Iterable[tuple[float, float]] = (),
    labels: Iterable[int] = (),
    square: bool = False,
) -> dict[str, Any]:
    """Points with their axes; ``y`` is a share in 0..1, so is ``x`` unless ``log_x``, which takes numbers above 0.

    Args:
        points: What is drawn.
        x_label: Below.
        y_label: Above.
        log_x: The horizontal axis is of counts and logarithmic.
        curve: A dotted line through these points.
        labels: Places in ``points`` of those whose label is written beside them, the most telling first; labels that
            would lie on others or on points are left out.
        square: Both axes are the same, and the plot is a square.
    """
    top = nice_ceiling(max(max(point.y, 0 if math.isnan(point.second) else point.second) for point in points))
    if square:
        top = max(top, nice_ceiling(max(point.x for point in points)))
    across: Callable[[float], float] = partial(_place, low=0.0, high=top)
    ticks = percent_ticks(top)
    if log_x:
        across, ticks = _logarithmic([point.x for point in points])

    drawn = [
        {
            "left": across(point.x),
            "top": 100 - _place(point.y, 0, top),
            "second": None if math.isnan(point.second) else 100 - _place(point.second, 0, top),
            "title": point.title,
            "label": "",
            "minor": False,
            "flip": False,
            "series": point.series,
        }
        for point in points
    ]
    _label(drawn, points, labels)
    line = [(across(x), 100 - _place(min(y, top), 0, top)) for x, y in curve]
    return {
        "points": drawn,
        "x_ticks": ticks,
        "y_ticks": percent_ticks(top),
        "x_label": x_label,
        "y_label": y_label,
        "curve": " ".join(f"{x:.2f},{y:.2f}" for x, y in line),
        "square": square,
    }


def nice_ceiling(value: float) -> float:
    """The next multiple of 4 % up to 40 %, of 20 % beyond, so that four ticks are whole numbers; at most 100 %."""
    step = 4 if value <= 0.4 else 20
    return min(100, max(step, step * math.ceil(round(100 * value / step, 9)))) / 100


def signed(share: float) -> str:
    """A share in whole percent with its sign, 0 without one."""
    return f"{100 * share:+.0f}" if round(100 * share) else "0"


def percent_ticks(top: float) -> list[dict[str, Any]]:
    """Five ticks from 0 to ``top``."""
    return [{"at": 25.0 * part, "label": f"{25 * part * top:.0f}"} for part in range(5)]


def _logarithmic(counts: Sequence[float]) -> tuple[Callable[[float], float], list[dict[str, Any]]]:
    """Where a count stands on a logarithmic axis with room for all of them, and the axis' ticks."""
    lowest, highest = min(counts), max(counts)
    room = max(1.01, (highest / lowest) ** 0.05)
    low, high = lowest / room, highest * room

    def across(count: float) -> float:
        return 100 * math.log(count / low) / math.log(high / low)

    return across, [{"at": across(at), "label": f"{at:g}"} for at in _round_counts(low, high)]


def _label(drawn: Sequence[dict[str, Any]], points: Sequence[Point], labels: Iterable[int]) -> None:
    """Writes labels right or left of points, where they leave the plot nowhere and lie on no point and no other label.

    A phone, on which letters are larger beside the plot, shows those alone that have room there too.
    """
    marks = [(one["left"], height) for one in drawn for height in (one["top"], one["second"]) if height is not None]
    wide, phone = _Room(1.5, 4.0, 0.8, marks), _Room(2.1, 4.6, 1.4, marks)
    for place in labels:
        one, text = drawn[place], points[place].label
        for flip in (False, True):
            if wide.take(one["left"], one["top"], len(text), flip=flip):
                one["label"], one["flip"] = text, flip
                one["minor"] = not phone.take(one["left"], one["top"], len(text), flip=flip)
                break


@dataclass
class _Room:
    """Where labels still fit in a plot, in percent of it: a letter's width, a line's height, the radius of a mark."""

    letter: float
    line: float
    radius: float
    marks: Sequence[tuple[float, float]]
    taken: list[tuple[float, float, float]] = field(default_factory=list)

    def take(self, left: float, top: float, letters: int, *, flip: bool) -> bool:
        """Whether a label beside a mark has room, which is then taken."""
        gap, width = 1.5 * self.radius, self.letter * letters
        start = left - gap - width if flip else left + gap
        end, near, high = start + width, self.radius, self.line / 2 + self.radius
        free = (
            start >= 0
            and end <= 100
            and not any(start - near < x < end + near and abs(y - top) < high for x, y in self.marks)
            and not any(start < right and from_ < end and abs(y - top) < self.line for from_, right, y in self.taken)
        )
        if free:
            self.taken.append((start, end, top))
        return free


def _highest(cell: Cell) -> float:
    return max(value for value in (cell.value, cell.high, cell.english) if not math.isnan(value))


def _bar(cell: Cell, top: float) -> dict[str, Any]:
    known = not math.isnan(cell.low)
    return {
        "value": cell.value,
        "interval": (cell.low, cell.high) if known else None,
        "width": 100 * cell.value / top,
        "low": 100 * cell.low / top if known else None,
        "span": 100 * (cell.high - cell.low) / top if known else None,
        "english": None if math.isnan(cell.english) else 100 * cell.english / top,
        "english_value": cell.english,
        "chance": None if math.isnan(cell.chance) else 100 * cell.chance / top,
    }


def _gap(row: BarRow) -> float:
    """Of the first series that has one: below English on the same classes by how much."""
    return next((cell.value - cell.english for cell in row.cells if cell and not math.isnan(cell.english)), math.nan)


def _common_scripts(languages: Mapping[str, Language]) -> dict[str, str]:
    """Names of the most frequent scripts; the rest are ``other``."""
    named = {tag: script_of(tag) for tag in languages}
    counts = Counter(named.values())
    common = sorted(counts, key=lambda name: (-counts[name], name))
    kept = set(common) if len(common) <= _SCRIPTS else set(common[: _SCRIPTS - 1])
    return {tag: name if name in kept else "other" for tag, name in named.items()}


def _place(value: float, low: float, high: float) -> float:
    return math.nan if math.isnan(value) else 100 * min(1.0, max(0.0, (value - low) / (high - low)))


def _round_counts(low: float, high: float) -> list[int]:
    for digits in ((10, 20, 50), (10, 15, 20, 25, 30, 40, 50, 60, 80)):
        steps = [digit * 10**power // 10 for power in range(7) for digit in digits]
        inside = sorted({step for step in steps if low <= step <= high})
        if len(inside) > 2:
            break
    return inside or [round((low * high) ** 0.5)]
