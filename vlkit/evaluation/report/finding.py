"""What results say in a sentence, for the head of a page: who leads by how much and where, and what is at chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from vlkit import languages as language_table
from vlkit.evaluation.metrics.intervals import bootstrap_mean
from vlkit.evaluation.results.results_file import ResultRow, Results

_NAMED = 3  # languages that are called by name rather than counted


def finding(results: Results) -> str:
    """Of the rows of one task: the two best models side by side, or how good the only one is; and chance.

    A model leads in a language where its 95 % interval lies above that of the other. Of the mean difference the
    interval resamples languages.

    Raises:
        VlkitError: No rows, or rows of several tasks.
    """
    by_variant = {variant: results.of(variant) for variant in results.means()}
    means = {variant: _mean(rows) for variant, rows in by_variant.items()}
    first, *others = sorted(means, key=lambda variant: -means[variant])
    measures = results.rows[0].measures
    said = []
    shared = [tag for tag in by_variant[first] if others and tag in by_variant[others[0]]]
    if shared and measures.metrics[measures.headline].share:
        pairs = {tag: (by_variant[first][tag], by_variant[others[0]][tag]) for tag in shared}
        gaps = [one.headline.value - other.headline.value for one, other in pairs.values()]
        low, high = bootstrap_mean(gaps) if len(gaps) > 1 else (math.nan, math.nan)
        known = all(not math.isnan(row.headline.low) for pair in pairs.values() for row in pair)
        states = {tag: _ahead(*pair) for tag, pair in pairs.items()}
        said.append(
            lead_sentence((first, others[0]), fmean(gaps), low, high, states, what=_called(results), sure=known)
        )
    else:
        said.append(_alone(first, by_variant[first], _called(results)))
    for variant, rows in by_variant.items():
        said += filter(None, (_gains(variant, list(rows.values())), _at_chance(variant, list(rows.values()))))
    return " ".join(said)


def lead_sentence(
    names: tuple[str, str],
    value: float,
    low: float,
    high: float,
    states: Mapping[str, int],
    *,
    what: str,
    sure: bool,
) -> str:
    """Which of two models leads: on average by ``value`` (a share, with its interval or NaN), and in which languages.

    ``states`` are by BCP 47 tag 1 where the first is ahead, -1 where the second is, 0 where neither; ``what`` is the
    figure; ``sure`` says that the states go by intervals, not by the figures alone.
    """
    one, other = names
    if value < 0:
        one, other, value, low, high = other, one, -value, -high, -low
        states = {tag: -state for tag, state in states.items()}
    span = "" if math.isnan(low) else f" [{100 * low:.1f}, {100 * high:.1f}]"
    where = _names(list(states)) if len(states) == 1 else f"the mean of {len(states)} languages"
    points = f"{100 * value:.1f} points{span}"
    level = low <= 0 if not math.isnan(low) else value == 0 or (len(states) == 1 and not any(states.values()))
    said = f"{one} and {other} are level" if level else f"{one} leads {other} by {points}"
    said += f" in {what}, {where}" + (f": {points} apart" if level else "")
    if len(states) > 1:
        ahead, behind, even = ([tag for tag, state in states.items() if state == sign] for sign in (1, -1, 0))
        word = "ahead" if sure else "higher"
        parts = [f"{one if level else 'it'} is {word} in {_counted(ahead, states)}" if ahead else ""]
        parts += [f"{other} is {word} in {_counted(behind, states)}" if behind else ""]
        parts += [f"{_counted(even, states)} {'is' if len(even) == 1 else 'are'} level" if even else ""]
        *most, last = [part for part in parts if part]
        said += "; " + (f"{', '.join(most)}, and {last}" if most else last)
    return said + "."


def at_chance(row: ResultRow) -> bool:
    """Whether the interval of the figure that chance is of holds what guessing gives; False where one is not known."""
    measures = row.measures
    name = measures.chance_of or measures.headline
    return bool(measures.chance) and name in row.values and row.metric(name).low <= row[measures.chance]


def _ahead(one: ResultRow, other: ResultRow) -> int:
    a, b = one.headline, other.headline
    if math.isnan(a.low) or math.isnan(b.low):
        return (a.value > b.value) - (a.value < b.value)
    return (a.low > b.high) - (a.high < b.low)


def _alone(variant: str, rows: Mapping[str, ResultRow], what: str) -> str:
    ranked = sorted(rows.values(), key=lambda row: -row.headline.value)
    best, lowest = ranked[0], min(ranked, key=lambda row: row.headline.value)
    if len(ranked) == 1:
        return f"{variant} has {_value(best)} {what} in {_names([best.language])}."
    if _value(best) == _value(lowest):
        return f"{variant} has {_value(best)} {what} in each of {len(ranked)} languages."
    mean = _shown(best, _mean(rows))
    return (
        f"{variant} has {mean} {what}, the mean of {len(ranked)} languages: {_value(best)} in the best, "
        f"{_names([best.language])}, and {_value(lowest)} in the lowest, {_names([lowest.language])}."
    )


def _gains(variant: str, rows: Sequence[ResultRow]) -> str:
    """In how many languages the model is better for what it is shown, where a task measures that."""
    name = rows[0].measures.gain
    known = [row for row in rows if name in row.values and not math.isnan(row.metric(name).low)]
    if not known:
        return ""
    above = [row.language for row in known if row.metric(name).low > 0]
    title = rows[0].measures.title(name)
    if not above:
        return f"{variant} does not show that it uses what it is shown: no interval of {title} lies above 0."
    where = _counted(above, known)
    return f"{variant} makes use of what it is shown in {where}: the interval of {title} lies above 0."


def _at_chance(variant: str, rows: Sequence[ResultRow]) -> str:
    found = [row for row in rows if at_chance(row)]
    if not found:
        return ""
    where = "in every language" if len(found) == len(rows) > 1 else f"in {_counted([r.language for r in found], rows)}"
    measures = rows[0].measures
    what = f" of {measures.title(measures.chance_of)}" if measures.chance_of else ""
    return f"{variant} is at chance {where}: the interval{what} holds what guessing gives."


def _called(results: Results) -> str:
    measures = results.rows[0].measures
    return measures.title(measures.headline)


def _mean(rows: Mapping[str, ResultRow]) -> float:
    return fmean(row.headline.value for row in rows.values())


def _value(row: ResultRow) -> str:
    return _shown(row, row.headline.value)


def _shown(row: ResultRow, value: float) -> str:
    return f"{100 * value:.1f} %" if row.measures.metrics[row.measures.headline].share else f"{value:g}"


def _counted(tags: Sequence[str], of: Mapping[str, int] | Sequence[ResultRow]) -> str:
    return _names(tags) if len(tags) <= _NAMED else f"{len(tags)} of {len(of)} languages"


def _names(tags: Sequence[str]) -> str:
    *most, last = [language_table.get(tag).name for tag in tags]
    return f"{', '.join(most)} and {last}" if most else last
