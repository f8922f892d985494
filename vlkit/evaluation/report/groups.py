"""Languages in groups by how many classes they name, as Babel-ImageNet reports them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from vlkit.errors import UnknownName
from vlkit.evaluation.metrics.intervals import bootstrap_mean
from vlkit.evaluation.results.results_file import ResultRow

# name -> (highest number of classes in it, name of the group); the first limit that holds counts
DEFINITIONS: Mapping[str, tuple[tuple[int, str], ...]] = {
    "v1": ((333, "low"), (666, "mid"), (1000, "high")),
    "v2": ((100, "very-low"), (333, "low"), (666, "mid"), (1000, "high")),
    "all": ((33, "super-low"), (111, "very-low"), (333, "low"), (666, "mid"), (1000, "high")),
}


@dataclass(frozen=True)
class GroupMean:
    """Unweighted mean over the languages of a group; the 95 % interval resamples languages."""

    group: str
    languages: tuple[str, ...]
    mean: float
    low: float
    high: float


def group_of(num_classes: int, *, definition: str = "v2") -> str:
    """The group of a language that names ``num_classes`` classes.

    Raises:
        UnknownName: No such definition.
    """
    if definition not in DEFINITIONS:
        raise UnknownName("definition of language groups", definition, allowed=DEFINITIONS)
    limits = DEFINITIONS[definition]
    return next((name for limit, name in limits if num_classes <= limit), limits[-1][1])


def group_means(
    rows: Iterable[ResultRow],
    *,
    definition: str = "v2",
    value: Callable[[ResultRow], float] = lambda row: row.headline.value,
    seed: int = 0,
) -> list[GroupMean]:
    """One mean a group that has languages, fewest classes first, and ``mean`` over all; English is in none of them.

    Args:
        rows: Of one model on one task.
        definition: ``v1`` (92 languages of the first version), ``v2`` (the 100 of the second), ``all`` (the 297).
        value: What is averaged; the headline if left out.
        seed: Of the bootstrap.
    """
    foreign = [row for row in rows if row.language.split("-")[0] != "en"]
    by_group: dict[str, list[ResultRow]] = {name: [] for _, name in DEFINITIONS.get(definition, ())}
    for row in foreign:
        by_group[group_of(int(row["num_classes"]), definition=definition)].append(row)
    by_group["mean"] = foreign
    return [_mean(name, members, value, seed) for name, members in by_group.items() if members]


def _mean(name: str, rows: list[ResultRow], value: Callable[[ResultRow], float], seed: int) -> GroupMean:
    values = [value(row) for row in rows]
    low, high = bootstrap_mean(values, seed=seed) if len(values) > 1 else (math.nan, math.nan)
    return GroupMean(name, tuple(row.language for row in rows), sum(values) / len(values), low, high)
