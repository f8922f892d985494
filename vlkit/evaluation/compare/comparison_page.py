"""Two models on a page: one against the other, by how much, in which languages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlkit import languages as language_table
from vlkit.evaluation.compare.comparison import Comparison, LanguagePair, MeanDifference, signed_span
from vlkit.evaluation.report.breakdown import few_groups
from vlkit.evaluation.report.charts import BarRow, Cell, Point, bars, nice_ceiling, scatter, signed, strips
from vlkit.evaluation.report.finding import lead_sentence
from vlkit.evaluation.report.markdown import percent
from vlkit.evaluation.report.page import environment, flatten
from vlkit.files import write_atomic

_LABELS = 14
_METRICS = {
    "acc1": "top-1 accuracy",
    "mean_recall": "mean recall",
    "image_retrieval_recall@1": "recall at 1, text to image",
}


def write_comparison(path: str | Path, comparison: Comparison) -> Path:
    """Writes a self-contained HTML page that runs no script; everything that is given is escaped.

    Raises:
        VlkitError: The place cannot be written to.
    """
    meta = [
        (f"{name}: {key}", value)
        for name, made in comparison.provenance.items()
        for key, value in flatten(made)
        if key in ("published", "models", "seed", "date", "vlkit", "data digest", "precision", "parameters", "prompts")
    ]
    page = environment().get_template("comparison.html.j2").render(
        title=f"{comparison.one} against {comparison.other}",
        intro="",
        finding=_finding(comparison),
        one=comparison.one,
        other=comparison.other,
        tasks=[_task(number, mean.task, comparison) for number, mean in enumerate(_strongest_first(comparison))],
        notes=comparison.notes,
        meta=meta,
    )  # fmt: skip
    write_atomic(Path(path), page)
    return Path(path)


def _strongest_first(comparison: Comparison) -> list[MeanDifference]:
    """Mean differences that are not zero by their intervals, then the others; the greatest first."""
    return sorted(comparison.means, key=lambda mean: (mean.low <= 0 <= mean.high, -abs(mean.value)))


def _finding(comparison: Comparison) -> str:
    mean = _strongest_first(comparison)[0]
    rows = [row for row in comparison.rows if row.task == mean.task]
    what = _METRICS.get(rows[0].metric, rows[0].metric)
    low, high = (rows[0].low, rows[0].high) if len(rows) == 1 else (mean.low, mean.high)
    return lead_sentence(
        (comparison.one, comparison.other),
        mean.value,
        low,
        high,
        {row.language: row.state for row in rows},
        what=what if len(comparison.means) == 1 else f"{what} on {mean.task}",
        sure=all(row.paired for row in rows),
    )


def _task(number: int, task: str, comparison: Comparison) -> dict[str, Any]:
    rows = [row for row in comparison.rows if row.task == task]
    mean = next(mean for mean in comparison.means if mean.task == task)
    limit = nice_ceiling(max(max(abs(row.difference), *_ends(row)) for row in rows))
    values = {row.language: row.difference for row in rows}
    return {
        "name": task,
        "metric": _METRICS.get(rows[0].metric, rows[0].metric),
        "mean": mean,
        "ahead": comparison.ahead(task),
        "first": sum(row.difference > 0 for row in rows),
        "second": sum(row.difference < 0 for row in rows),
        "plot": _plot(rows, comparison),
        "differences": _differences(number, rows, limit),
        "groups": [
            strips([(task, few_groups(one, values), values)], low=-limit, high=limit, unit="difference in points")
            for one in comparison.by_kind(task)
            if len(one.groups) > 1
        ],
        "lines": [
            {"language": language_table.get(row.language), "row": row, "interval": signed_span(row.low, row.high)}
            for row in rows
        ],
        "english": any(row.one_english == row.one_english for row in rows),
        "paired": any(row.paired for row in rows),
    }


def _plot(rows: Sequence[LanguagePair], comparison: Comparison) -> dict[str, Any]:
    points = [
        Point(
            row.other,
            row.one,
            language_table.get(row.language).name,
            f"{language_table.get(row.language).name}: {percent(row.one)} and {percent(row.other)}",
            0 if row.difference >= 0 else 1,
        )
        for row in rows
    ]
    telling = sorted(range(len(rows)), key=lambda place: -abs(rows[place].difference))[:_LABELS]
    return scatter(
        points,
        x_label=f"{comparison.other}, %",
        y_label=f"{comparison.one}, %",
        curve=[(0.0, 0.0), (1.0, 1.0)],
        labels=telling,
        square=True,
    )


def _differences(number: int, rows: Sequence[LanguagePair], limit: float) -> dict[str, Any]:
    """The chart of bars, with dots around a zero in the middle in place of its bars."""
    chart = bars(
        f"difference-{number}",
        ["difference"],
        [BarRow(row.language, [Cell(abs(row.difference))], row.num_classes) for row in rows],
    )
    by_tag = {row.language: row for row in rows}
    order = {row.language: place for place, row in enumerate(rows)}  # the greatest lead of the first at the top
    for line in chart["rows"]:
        row = by_tag[line["language"].tag]
        low, high = _ends(row)
        line["places"]["value"] = order[row.language]
        line["row"] = row
        line["left"], line["low"] = _at(row.difference, limit), _at(-low, limit)
        line["span"] = _at(high, limit) - line["low"]
        line["series"] = 0 if row.difference >= 0 else 1
    chart["unit"] = "difference in points"
    chart["rows"].sort(key=lambda line: line["places"]["value"])
    chart["ticks"] = [{"at": 25.0 * part, "label": signed(limit * (part - 2) / 2)} for part in range(5)]
    return chart


def _ends(row: LanguagePair) -> tuple[float, float]:
    """How far the interval reaches below and above zero."""
    return (-row.low, row.high) if row.paired else (-row.difference, row.difference)


def _at(value: float, limit: float) -> float:
    return 50 + 50 * max(-1.0, min(1.0, value / limit))
