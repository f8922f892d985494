"""Results as a table in the terminal: one line a language, the models side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean

from rich.table import Table
from rich.text import Text

from vlkit import languages
from vlkit.evaluation.results.measures import Measure
from vlkit.evaluation.results.results_file import ResultRow, Results


def task_table(results: Results, *, task: str | None = None, most: int | None = None) -> Table:
    """One line a language: the figures of every model that have a short title, what chance gives, and means.

    Args:
        results: Rows of one or more models.
        task: Which one, where there are several.
        most: Where there are more languages than this, the best and the worst of the first model stand alone, half of
            it each; means are over all. None shows all, in their order.

    Raises:
        UnknownName, VlkitError: No such task, no rows at all, or several tasks and none named.
    """
    means = results.means(task=task)
    by_variant = {variant: results.of(variant, task=task) for variant in means}
    first = next(iter(next(iter(by_variant.values())).values()))
    measures = first.measures
    shown = measures.brief
    said = [f"{one.short}{' %' if one.share else ''}{' [95 % interval]' if one.low else ''}" for one in shown.values()]
    table = Table(title=Text(f"{first.task}: {', '.join(said)}"), show_footer=True)
    table.add_column("language", footer=f"mean of {max(mean.languages for mean in means.values())}")
    for variant, mean in means.items():
        for place, (name, one) in enumerate(shown.items()):
            header = one.short if place else Text(variant)
            table.add_column(header, footer=_number(mean[name], one), justify="right")
    shows_chance = measures.chance and not measures.chance_of
    if shows_chance:
        level = fmean(mean[measures.chance] for mean in means.values())
        footer = "" if math.isnan(level) else f"{100 * level:.2f}"
        table.add_column("chance", footer=footer, justify="right")
    for tag in _chosen(by_variant, most):
        if not tag:
            left_out = len({tag for rows in by_variant.values() for tag in rows}) - 2 * (len(table.rows))
            table.add_row(Text(f"... {left_out} more ..."), style="dim")
            continue
        found = [rows[tag] for rows in by_variant.values() if tag in rows]
        best = max(row.headline.value for row in found)
        cells = [
            _cell(rows.get(tag), name, one, best=best) for rows in by_variant.values() for name, one in shown.items()
        ]
        cells += [f"{100 * found[0][measures.chance]:.2f}"] if shows_chance else []
        table.add_row(f"{tag}  {languages.get(tag).name}", *cells)
    return table


def _chosen(by_variant: Mapping[str, Mapping[str, ResultRow]], most: int | None) -> list[str]:
    """Tags in the order in which they are shown; "" stands for those left out."""
    tags = list(dict.fromkeys(tag for rows in by_variant.values() for tag in rows))
    if most is None or len(tags) <= most:
        return tags
    rows = next(iter(by_variant.values()))
    ranked = sorted(rows, key=lambda tag: -rows[tag].headline.value)
    return [*ranked[: most // 2], "", *ranked[-(most // 2) :]]


def _cell(row: ResultRow | None, name: str, measure: Measure, *, best: float) -> str:
    if row is None:
        return ""
    shown, found = _number(row[name], measure), row.metric(name)
    if name == row.measures.headline and found.value == best:
        shown = f"[bold]{shown}[/bold]"
    if not measure.low:
        return shown
    return f"{shown} [dim]\\[{_number(found.low, measure)}-{_number(found.high, measure)}][/dim]"


def _number(value: float, measure: Measure) -> str:
    if math.isnan(value):
        return ""
    return f"{100 * value:.1f}" if measure.share else f"{value:.4g}"
