"""Results as a notebook shows them: a table for each task, best language first, the models side by side."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vlkit import languages as language_table
from vlkit.evaluation.results.frames import HTML_ROWS, how_many
from vlkit.evaluation.results.measures import Measure
from vlkit.notebook import FILL, OTHER, Markup, bar, quiet, said, table

if TYPE_CHECKING:
    from vlkit.evaluation.results.results_file import ResultRow, Results


def results_html(results: Results) -> str:
    """The leading figure of every task with its interval, by language and model, and the means."""
    return "".join(_task(results.only(task), task) for task in results.tasks) or "<p>no results</p>"


def language_html(tag: str) -> Markup:
    """A language by its English name, its name for itself and its tag."""
    one = language_table.get(tag)
    own = "" if one.autonym == one.name else f" <bdi>{said(one.autonym)}</bdi>"
    return Markup(f"{said(one.name)}{own} {quiet(tag)}")


def _task(results: Results, task: str) -> str:
    means = results.means(task=task)
    by_variant = {variant: results.of(variant, task=task) for variant in means}
    measures = results.measures(task)
    name, measure = measures.headline, measures.metrics[measures.headline]
    known = [x for row in results for x in (row.headline.value, row.headline.high) if not math.isnan(x)]
    top = max([*known, 1e-9])
    best = {tag: max(_value(rows.get(tag)) for rows in by_variant.values()) for tag in results.languages}
    tags = sorted(results.languages, key=lambda tag: (-best[tag], tag))
    rows: list[list[object]] = []
    for tag in tags[:HTML_ROWS]:
        cells = [
            _cell(found.get(tag), measure, top=top, color=(FILL, OTHER)[place % 2])
            for place, found in enumerate(by_variant.values())
        ]
        rows.append([language_html(tag), *cells])
    if len(tags) > 1:
        rows.append([f"mean of {len(tags)}", *(_number(mean[name], measure) for mean in means.values())])
    strong = (len(rows) - 1,) if len(tags) > 1 else ()
    shown = table(
        ("language", *by_variant),
        rows,
        strong=strong,
        below=how_many(min(len(tags), HTML_ROWS), len(tags), what="languages"),
    )
    unit = ", %" if measure.share else ""
    return (
        f"<p><b>{said(task)}</b> {quiet(f'{measures.title(name)}{unit}, with 95 % intervals where known')}</p>{shown}"
    )


def _value(row: ResultRow | None) -> float:
    return -1.0 if row is None or math.isnan(row.headline.value) else row.headline.value


def _cell(row: ResultRow | None, measure: Measure, *, top: float, color: str) -> Markup:
    if row is None or math.isnan(row.headline.value):
        return Markup("")
    value, low, high = row.headline
    span = "" if math.isnan(low + high) else quiet(f"[{_number(low, measure)}–{_number(high, measure)}]")
    drawn = bar(value, low=low, high=high, end=top, color=color)
    return Markup(f"{drawn} {_number(value, measure)} {span}")


def _number(value: float, measure: Measure) -> str:
    if math.isnan(value):
        return ""
    return f"{100 * value:.1f}" if measure.share else f"{value:.4g}"
