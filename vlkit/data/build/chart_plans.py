"""Bar plots and pie charts before any word is in them, and what is asked about them: the same in every language.

SMPQA of Centurio (arXiv 2501.05122, appendix C.5). Ranges of sizes, values and colours are not published; these are
vlkit's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal

Chart = Literal["bar", "pie"]
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40), "blue": (38, 95, 200), "green": (52, 150, 60), "yellow": (245, 205, 30),
    "orange": (245, 135, 20), "purple": (130, 60, 170), "pink": (245, 130, 190), "brown": (125, 80, 45),
    "gray": (135, 135, 135), "black": (25, 25, 25), "cyan": (60, 200, 215),
}  # fmt: skip
"""Name in questions -> RGB."""
GROUNDING, READING = 8, 5
"""Questions about each plot: as many to be answered by yes as by no, and such to be answered by a label."""
_PARTS: dict[Chart, tuple[int, int]] = {"bar": (3, 8), "pie": (3, 7)}
_NAMES: dict[Chart, str] = {"bar": "bar", "pie": "slice"}


@dataclass(frozen=True)
class ChartPlan:
    """One plot: values and colours of its parts, in order, and how it is drawn.

    ``size`` is width and height in pixels. Values of bars are 1 to 100, those of slices add up to 100. ``level``: bars
    lie; ``apart``: which slices are drawn out; ``turn``: degrees by which a pie is turned; ``tint``: RGB of the ground.
    """

    kind: Chart
    number: int
    size: tuple[int, int]
    values: tuple[int, ...]
    colors: tuple[str, ...]
    level: bool
    apart: tuple[bool, ...]
    turn: int
    tint: tuple[int, int, int]

    @property
    def name(self) -> str:
        """What its image is called: ``bar-07``."""
        return f"{self.kind}-{self.number:02d}"


@dataclass(frozen=True)
class ChartQuestion:
    """What is asked of a plot: ``text`` has ``{label}`` where a word belongs, that of part ``part``.

    ``answer`` is yes or no (grounding), or None where it is the word of the part (reading).
    """

    text: str
    part: int
    answer: bool | None


def chart_plans(seed: int, per_kind: int) -> list[ChartPlan]:
    """So many bar plots, then as many pie charts; a seed gives the same ones everywhere, and the first ones of more."""
    return [
        (_bar if kind == "bar" else _pie)(number, Random(f"{seed}:{kind}:{number}"))
        for kind in _PARTS
        for number in range(per_kind)
    ]


def questions_about(plan: ChartPlan, seed: int) -> list[ChartQuestion]:
    """Eight grounding questions, four with the answer yes, and five reading questions, in the paper's wording."""
    random = Random(f"{seed}:{plan.name}:questions")
    parts, what = range(len(plan.values)), _NAMES[plan.kind]
    biggest = max(parts, key=plan.values.__getitem__)
    smallest = min(parts, key=plan.values.__getitem__)
    asked = []
    for most, word in ((biggest, "biggest"), (smallest, "smallest")):
        other = random.choice([part for part in parts if part != most])
        text = f"Is the {what} with label '{{label}}' the {word}?"
        asked += [ChartQuestion(text, most, answer=True), ChartQuestion(text, other, answer=False)]
    for part in random.sample(parts, 2):
        wrong = random.choice([color for color in plan.colors if color != plan.colors[part]])
        for color in (plan.colors[part], wrong):
            text = f"Is the {what} with label '{{label}}' colored in {color}?"
            asked.append(ChartQuestion(text, part, answer=color != wrong))
    asked += [
        ChartQuestion(f"What is the label of the biggest {what}?", biggest, None),
        ChartQuestion(f"What is the label of the smallest {what}?", smallest, None),
    ]
    for part in random.sample(parts, 3):
        asked.append(ChartQuestion(f"What is the label of the {plan.colors[part]} {what}?", part, None))
    return asked


def _bar(number: int, random: Random) -> ChartPlan:
    count = random.randint(*_PARTS["bar"])
    level = random.random() < 0.5
    return ChartPlan(
        kind="bar",
        number=number,
        size=_size(random, least=1.0, most=1.6),
        values=_values(random, count, apart=8),
        colors=tuple(random.sample(sorted(COLORS), count)),
        level=level,
        apart=(False,) * count,
        turn=0,
        tint=_tint(random),
    )


def _pie(number: int, random: Random) -> ChartPlan:
    count = random.randint(*_PARTS["pie"])
    return ChartPlan(
        kind="pie",
        number=number,
        size=_size(random, least=1.45, most=1.8),
        values=_shares(random, count),
        colors=tuple(random.sample(sorted(COLORS), count)),
        level=False,
        apart=tuple(random.random() < 0.2 for _ in range(count)),
        turn=random.randrange(360),
        tint=_tint(random),
    )


def _size(random: Random, *, least: float, most: float) -> tuple[int, int]:
    height = random.randrange(400, 577, 16)
    return round(height * random.uniform(least, most) / 16) * 16, height


def _tint(random: Random) -> tuple[int, int, int]:
    return random.choice([(255, 255, 255), (255, 255, 255), (248, 248, 244), (240, 244, 250), (250, 244, 236)])


def _values(random: Random, count: int, *, apart: int) -> tuple[int, ...]:
    """Values of 12 to 100 whose largest and smallest nobody has to measure."""
    while True:
        values = [random.randint(12, 100) for _ in range(count)]
        if _clear(values, apart):
            return tuple(values)


def _shares(random: Random, count: int) -> tuple[int, ...]:
    """Percentages of a whole, each of 6 or more."""
    while True:
        cuts = sorted(random.sample(range(1, 100), count - 1))
        shares = [end - start for start, end in zip([0, *cuts], [*cuts, 100], strict=True)]
        if min(shares) >= 6 and _clear(shares, 4):
            return tuple(shares)


def _clear(values: list[int], apart: int) -> bool:
    ranked = sorted(values)
    return ranked[1] - ranked[0] >= apart and ranked[-1] - ranked[-2] >= apart
