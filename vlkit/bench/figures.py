"""What benchmarks share: sides timed by turns, ratios of neighbours in time, and figures as one line of JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any


class Figures(SimpleNamespace):
    """What a benchmark found, by name."""

    def to_json(self) -> str:
        """One line."""
        return json.dumps({name: self.rounded(value) for name, value in vars(self).items()})

    @staticmethod
    def rounded(value: Any) -> Any:
        """Five digits are more than timings have."""
        return float(f"{value:.5g}") if isinstance(value, float) else value


def by_turns(sides: Iterable[str], repeats: int) -> Iterator[tuple[int, str]]:
    """Repeat and side, by name and in the next repeat the other way round: no side is always the first one."""
    for repeat in range(repeats):
        for name in sorted(sides, reverse=bool(repeat % 2)):
            yield repeat, name


def ratio(ours: Iterable[float], theirs: Iterable[float]) -> float:
    """The median of the ratios of neighbours in time: a slow spell of the machine hits both."""
    return float(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)))
