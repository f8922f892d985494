"""Scores of a benchmark by language, with parts and intervals, their mean and how far languages are apart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from vlkit.errors import DataError
from vlkit.evaluation.metrics.intervals import Interval

_SHOWN = 5


@dataclass(frozen=True)
class LanguageScore:
    """One language of a benchmark.

    Attributes:
        language: BCP 47.
        score: In 0..1.
        interval: Of the score, 95 %; prompts are resampled.
        parts: Scores of parts of the benchmark, by their names.
        prompts: How many.
        images_per_prompt: Published figures are of four (GenEval, DPG), m-GenEval's of one: only those of equal numbers
            can be compared.
    """

    language: str
    score: float
    interval: Interval
    parts: Mapping[str, float]
    prompts: int
    images_per_prompt: int


@dataclass(frozen=True)
class ComposedScores:
    """All languages of a benchmark; ``std`` is the sample standard deviation over them, NaN for one."""

    name: str
    languages: tuple[LanguageScore, ...]

    @property
    def mean(self) -> float:
        """The unweighted mean over languages."""
        return fmean(one.score for one in self.languages)

    @property
    def std(self) -> float:
        """How far languages are apart."""
        scores = [one.score for one in self.languages]
        return stdev(scores) if len(scores) > 1 else math.nan

    @property
    def lowest(self) -> LanguageScore:
        """The language that is served worst."""
        return min(self.languages, key=lambda one: one.score)

    @property
    def part_means(self) -> dict[str, float]:
        """Of each part the mean over the languages that have it."""
        names = dict.fromkeys(name for one in self.languages for name in one.parts)
        return {name: fmean(one.parts[name] for one in self.languages if name in one.parts) for name in names}

    def plain(self) -> dict[str, Any]:
        """For a JSON file."""
        rows = [{**asdict(one), "interval": list(one.interval)} for one in self.languages]
        std = None if math.isnan(self.std) else self.std
        return {"benchmark": self.name, "mean": self.mean, "std": std, "lowest": self.lowest.language,
                "parts": self.part_means, "languages": rows}  # fmt: skip

    def summary(self) -> str:
        """One line: mean and standard deviation in percent, and how many images they are of."""
        std = "" if math.isnan(self.std) else f" ± {100 * self.std:.1f}"
        images = " or ".join(map(str, sorted({one.images_per_prompt for one in self.languages})))
        count = len(self.languages)
        return (
            f"{self.name}: {100 * self.mean:.1f}{std} over {count} language{'s' if count > 1 else ''}, images of a "
            f"prompt: {images}"
        )


def images_a_prompt(counts: Mapping[Any, int], wanted: Iterable[Any], *, language: str, what: str) -> int:
    """How many images each prompt has; ``what`` is what the file holds.

    Raises:
        DataError: Prompts have none, or unlike numbers.
    """
    wanted = list(wanted)
    if missing := [one for one in wanted if not counts.get(one)]:
        raise DataError(
            f"{language}: {len(missing)} of {len(wanted)} prompts have no {what} ({_some(missing)}); a score of the "
            f"others would not be that of the benchmark"
        )
    if len(found := sorted({counts[one] for one in wanted})) > 1:
        fewest = [one for one in wanted if counts[one] == found[0]]
        raise DataError(
            f"{language}: prompts have {found[0]} to {found[-1]} images; each has to have as many "
            f"(prompts of {found[0]}: {_some(fewest)})"
        )
    return found[0]


def _some(listed: Sequence[Any]) -> str:
    return ", ".join(map(str, listed[:_SHOWN])) + (", ..." if len(listed) > _SHOWN else "")
