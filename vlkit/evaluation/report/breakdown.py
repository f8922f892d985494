"""Means over languages of one kind: of a resource tier, a script, or a range of numbers of classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

from vlkit import languages as language_table
from vlkit.evaluation.metrics.intervals import bootstrap_mean
from vlkit.evaluation.report.groups import DEFINITIONS, GroupMean, group_means
from vlkit.evaluation.results.results_file import ResultRow

TIERS = ("high", "mid", "low")
_MANY = 7  # groups of one language from which a chart shows them together
_SCRIPTS: Mapping[str, str] = {
    "Arab": "Arabic", "Armn": "Armenian", "Beng": "Bengali", "Cans": "Canadian syllabics", "Cher": "Cherokee",
    "Cyrl": "Cyrillic", "Deva": "Devanagari", "Ethi": "Ethiopic", "Geor": "Georgian", "Grek": "Greek",
    "Gujr": "Gujarati", "Guru": "Gurmukhi", "Hans": "Han, simplified", "Hant": "Han, traditional", "Hebr": "Hebrew",
    "Jpan": "Japanese", "Khmr": "Khmer", "Knda": "Kannada", "Kore": "Korean", "Laoo": "Lao", "Latn": "Latin",
    "Mlym": "Malayalam", "Mong": "Mongolian", "Mymr": "Myanmar", "Orya": "Odia", "Sinh": "Sinhala", "Syrc": "Syriac",
    "Taml": "Tamil", "Telu": "Telugu", "Tfng": "Tifinagh", "Thaa": "Thaana", "Thai": "Thai", "Tibt": "Tibetan",
}  # fmt: skip


@dataclass(frozen=True)
class Breakdown:
    """One way to sort languages into groups.

    Attributes:
        title: What they are grouped by.
        groups: Those that have languages, each with its unweighted mean; English is in none.
    """

    title: str
    groups: tuple[GroupMean, ...]


def is_english(tag: str) -> bool:
    """Whether a BCP 47 tag is of English, in any country or script."""
    return tag.split("-")[0] == "en"


def script_name(code: str) -> str:
    """English name of an ISO 15924 code, or the code."""
    return _SCRIPTS.get(code, code)


def means_of(
    values: Mapping[str, float], kind: Callable[[str], str], *, order: Iterable[str] = (), seed: int = 0
) -> tuple[GroupMean, ...]:
    """Unweighted means over languages of one kind; English is left out.

    Args:
        values: By BCP 47 tag.
        kind: Tag to the name of its group.
        order: Names of groups that come first; the others follow by size.
        seed: Of the bootstrap of languages; a single language has no interval (NaN).
    """
    groups: dict[str, list[str]] = {}
    for tag in values:
        if not is_english(tag):
            groups.setdefault(kind(tag), []).append(tag)
    first = list(order)
    names = sorted(
        groups, key=lambda name: (first.index(name) if name in first else len(first), -len(groups[name]), name)
    )
    return tuple(_mean(name, groups[name], values, seed) for name in names)


def tier_of(tag: str) -> str:
    """Resource tier of a language: ``high``, ``mid`` or ``low``."""
    return language_table.get(tag).tier


def script_of(tag: str) -> str:
    """English name of a language's usual script."""
    return script_name(language_table.get(tag).script)


def by_tier_and_script(values: Mapping[str, float], *, seed: int = 0) -> list[Breakdown]:
    """Both breakdowns of any figure that languages have."""
    return [
        Breakdown("resource tier", means_of(values, tier_of, order=TIERS, seed=seed)),
        Breakdown("script", means_of(values, script_of, seed=seed)),
    ]


def few_groups(one: Breakdown, values: Mapping[str, float], *, seed: int = 0) -> Breakdown:
    """Groups of a single language put into one, where there are many; for charts.

    Args:
        one: Some groups.
        values: What their means are of, by BCP 47 tag.
        seed: Of the bootstrap.
    """
    single = [group for group in one.groups if len(group.languages) == 1]
    if len(single) < _MANY:
        return one
    tags = [tag for group in single for tag in group.languages]
    rest = _mean("others, one each", tags, values, seed)
    return Breakdown(one.title, (*(group for group in one.groups if group not in single), rest))


def breakdowns(rows: Iterable[ResultRow], *, seed: int = 0) -> list[Breakdown]:
    """The headline by resource tier and script and, where languages name different numbers of classes, by that number.

    Args:
        rows: Of one model on one task.
        seed: Of the bootstrap of languages.
    """
    rows = list(rows)
    found = by_tier_and_script({row.language: row.headline.value for row in rows}, seed=seed)
    if len({row["num_classes"] for row in rows if not is_english(row.language)}) > 1:
        for name, limits in DEFINITIONS.items():
            said = ", ".join(f"{group} <= {limit}" for limit, group in limits)
            groups = group_means(rows, definition=name, seed=seed)
            found.append(Breakdown(f"number of classes, definition {name} ({said})", tuple(groups)))
    return [one for one in found if one.groups]


def _mean(name: str, tags: list[str], values: Mapping[str, float], seed: int) -> GroupMean:
    found = [values[tag] for tag in tags]
    low, high = bootstrap_mean(found, seed=seed) if len(found) > 1 else (math.nan, math.nan)
    return GroupMean(name, tuple(tags), fmean(found), low, high)
