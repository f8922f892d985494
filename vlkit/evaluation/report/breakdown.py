"""Means over languages of one kind: of a lexicon tier, a script, or a range of numbers of classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

from vlkit import languages as language_table
from vlkit.errors import UnknownName
from vlkit.evaluation.metrics.intervals import bootstrap_mean
from vlkit.evaluation.results.results_file import ResultRow

TIERS = ("high", "mid", "low")
# by how many classes a language names, as Babel-ImageNet reports them: v1 has the 92 languages of its first version, v2
# the 100 of the second, all the 297; the highest number of a group and its name, of which the first that holds counts
DEFINITIONS: Mapping[str, tuple[tuple[int, str], ...]] = {
    "v1": ((333, "low"), (666, "mid"), (1000, "high")),
    "v2": ((100, "very-low"), (333, "low"), (666, "mid"), (1000, "high")),
    "all": ((33, "super-low"), (111, "very-low"), (333, "low"), (666, "mid"), (1000, "high")),
}
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
class GroupMean:
    """Unweighted mean over the languages of a group; the 95 % interval resamples languages, NaN for a single one."""

    group: str
    languages: tuple[str, ...]
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Breakdown:
    """One way to sort languages, ``title`` says by what, into the groups that have any; English is in none."""

    title: str
    groups: tuple[GroupMean, ...]


def is_english(tag: str) -> bool:
    """Whether a BCP 47 tag is of English, in any country or script."""
    return tag.split("-")[0] == "en"


def script_name(code: str) -> str:
    """English name of an ISO 15924 code, or the code."""
    return _SCRIPTS.get(code, code)


def means_of(
    values: Mapping[str, float], kind: Callable[[str], str], *, order: Iterable[str] = ()
) -> tuple[GroupMean, ...]:
    """Unweighted means over languages of one kind (BCP 47 tag to the name of its group); English is left out.

    Groups of the names in ``order`` come first, the others follow by size.
    """
    groups: dict[str, dict[str, float]] = {}
    for tag, value in values.items():
        if not is_english(tag):
            groups.setdefault(kind(tag), {})[tag] = value
    first = list(order)
    names = sorted(
        groups, key=lambda name: (first.index(name) if name in first else len(first), -len(groups[name]), name)
    )
    return tuple(_group(name, groups[name], fmean(groups[name].values())) for name in names)


def group_of(num_classes: int, *, definition: str = "v2") -> str:
    """The group of a language that names ``num_classes`` classes.

    Raises:
        UnknownName: No such definition.
    """
    if definition not in DEFINITIONS:
        raise UnknownName("definition of language groups", definition, allowed=DEFINITIONS)
    limits = DEFINITIONS[definition]
    return next((name for limit, name in limits if num_classes <= limit), limits[-1][1])


def group_means(rows: Iterable[ResultRow], *, definition: str = "v2") -> list[GroupMean]:
    """The headline of one model on one task by number of classes: groups that have languages, fewest classes first.

    ``mean`` over all languages comes last; English is in none.
    """
    by_group: dict[str, dict[str, float]] = {name: {} for _, name in DEFINITIONS.get(definition, ())}
    foreign: dict[str, float] = {}
    for row in rows:
        if not is_english(row.language):
            foreign[row.language] = row.headline.value
            by_group[group_of(int(row["num_classes"]), definition=definition)][row.language] = row.headline.value
    by_group["mean"] = foreign
    return [_group(name, each, sum(each.values()) / len(each)) for name, each in by_group.items() if each]


def tier_of(tag: str) -> str:
    """How many of ImageNet's classes BabelNet's lexicons name in a language: ``high``, ``mid`` or ``low``."""
    return language_table.get(tag).tier


def script_of(tag: str) -> str:
    """English name of a language's usual script."""
    return script_name(language_table.get(tag).script)


def by_tier_and_script(values: Mapping[str, float]) -> list[Breakdown]:
    """Both breakdowns of any figure that languages have."""
    return [
        Breakdown("lexicon tier", means_of(values, tier_of, order=TIERS)),
        Breakdown("script", means_of(values, script_of)),
    ]


def few_groups(one: Breakdown, values: Mapping[str, float]) -> Breakdown:
    """Groups of a single language put into one, where there are many, for charts; ``values`` is what means are of."""
    single = [group for group in one.groups if len(group.languages) == 1]
    if len(single) < _MANY:
        return one
    others = {tag: values[tag] for group in single for tag in group.languages}
    rest = _group("others, one each", others, fmean(others.values()))
    return Breakdown(one.title, (*(group for group in one.groups if group not in single), rest))


def breakdowns(rows: Iterable[ResultRow]) -> list[Breakdown]:
    """The headline of one model on one task by tier, script and, where they differ, by number of classes."""
    rows = list(rows)
    found = by_tier_and_script({row.language: row.headline.value for row in rows})
    if len({row["num_classes"] for row in rows if not is_english(row.language)}) > 1:
        for name, limits in DEFINITIONS.items():
            said = ", ".join(f"{group} <= {limit}" for limit, group in limits)
            groups = group_means(rows, definition=name)
            found.append(Breakdown(f"number of classes, definition {name} ({said})", tuple(groups)))
    return [one for one in found if one.groups]


def _group(name: str, values: Mapping[str, float], mean: float) -> GroupMean:
    low, high = bootstrap_mean(list(values.values())) if len(values) > 1 else (math.nan, math.nan)
    return GroupMean(name, tuple(values), mean, low, high)
