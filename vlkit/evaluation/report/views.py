"""What a report shows of results: headline, bars, groups of languages, and the tables of the same numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vlkit import languages as language_table
from vlkit.evaluation.report.breakdown import breakdowns, by_tier_and_script, few_groups, script_of
from vlkit.evaluation.report.charts import BarRow, Cell, Point, bars, scatter, strips
from vlkit.evaluation.report.finding import finding
from vlkit.evaluation.report.markdown import CLASSIFIES, counted, figure, known_figures, number, percent
from vlkit.evaluation.results.results_file import Mean, ResultRow, Results

Rows = dict[str, dict[str, ResultRow]]  # by variant, then by language
_ALL_GROUPS = 110  # languages from which the five groups of all of BabelNet fit better than the four of the hundred
_LABELS = 16
_TOP1 = "top-1 accuracy in %"


def task_view(results: Results) -> dict[str, Any]:
    """What the page of a task shows of its rows.

    Raises:
        VlkitError: No rows, or rows of several tasks.
    """
    means = results.means()
    shown = _classification if results.rows[0].measures.kind in CLASSIFIES else _figures
    return {"finding": finding(results), "variants": [], "figures": None, **shown(results, means)}


def _classification(results: Results, means: Mapping[str, Mean]) -> dict[str, Any]:
    """Bars, groups and tables: variants best first, languages best first."""
    variants = sorted(means, key=lambda variant: -means[variant]["acc1"])
    rows = {variant: results.of(variant) for variant in variants}
    tags = dict.fromkeys(tag for variant in variants for tag in rows[variant])
    order = sorted(
        tags, key=lambda tag: -max(rows[variant][tag]["acc1"] for variant in variants if tag in rows[variant])
    )
    found = [row for by_language in rows.values() for row in by_language.values()]
    best = means[variants[0]]
    return {
        "task": found[0].task,
        "variants": [{"name": variant, "mean": means[variant]} for variant in variants],
        "best": best,
        "lowest_name": language_table.get(best.lowest.language).name,
        "classes": _ends(row["num_classes"] for row in found),
        "images": _ends(row["n_images"] for row in found),
        "prompts": sorted({row.text("prompt") for row in found}),
        "subset_size": _subset_size(found),
        "bars": bars("accuracy", variants, [_bar_row(tag, rows) for tag in order], unit=_TOP1),
        "groups": _groups(rows),
        "sizes": _sizes(rows),
        **_table(rows, order, means),
    }


def _figures(results: Results, means: Mapping[str, Mean]) -> dict[str, Any]:
    """What any task has: bars of its leading figures where they are shares, kinds of languages, and a table."""
    measures = results.rows[0].measures
    rows = {variant: results.of(variant) for variant in means}
    tags = dict.fromkeys(row.language for row in results.rows)
    known = known_figures(results.rows)
    leading = [name for name in measures.bars or (measures.headline,) if measures.metrics[name].share and name in known]
    series = [(variant, name) for variant in rows for name in leading]
    names = [
        measures.title(name) if len(rows) == 1 else f"{variant}, {measures.title(name)}" for variant, name in series
    ]
    cells = [[_known_cell(rows[variant].get(tag), name) for variant, name in series] for tag in tags]
    values = [{tag: row[name] for tag, row in rows[variant].items()} for variant, name in series]
    parts = [
        [(name, few_groups(one, each), each) for name, one, each in zip(names, pair, values, strict=True)]
        for pair in zip(*map(by_tier_and_script, values), strict=True)
    ]
    lines = [rows[variant][tag] for tag in tags for variant in rows if tag in rows[variant]]
    called = {measures.title(name).split()[-1] for name in leading}  # R@1, of text to image and of image to text
    unit = f"{called.pop() if len(called) == 1 else 'share'} in %"
    shown = known_figures(lines)
    counts, texts = counted(lines), {one for row in lines for one in row.values.values() if isinstance(one, str)}
    return {
        "figures": {
            "task": results.rows[0].task,
            "settings": sorted(texts),
            "explained": measures.explained,
            "headline": measures.headline,
            "called": measures.title(measures.headline),
            "bars": bars(measures.kind, names, list(map(BarRow, tags, cells)), unit=unit) if series else None,
            "strips": [strips(part, unit=unit) for part in parts if len(part[0][1].groups) > 1],
            "columns": ["model", *(said for _, said in counts), *map(measures.title, shown)],
            "lines": [
                (language_table.get(row.language), [row.variant, *_numbers(row, counts, shown)]) for row in lines
            ],
        }
    }


def _known_cell(row: ResultRow | None, name: str) -> Cell | None:
    return None if row is None or math.isnan(row[name]) else Cell(*row.metric(name))


def _numbers(row: ResultRow, counts: Sequence[tuple[str, str]], shown: Sequence[str]) -> list[str]:
    found = [str(row[name]) for name, _ in counts]
    for name in shown:
        one = row.measures.metrics[name]
        _, low, high = row.metric(name)
        interval = "" if math.isnan(low) or not one.share else f" ({percent(low)}–{percent(high)})"
        found.append(figure(row, name) + interval)
    return found


def _bar_row(tag: str, rows: Rows) -> BarRow:
    cells = [
        Cell(*row.metric("acc1"), math.nan if tag == "en" else row["acc1_en_subset"], row["chance"])
        if (row := by_language.get(tag))
        else None
        for by_language in rows.values()
    ]
    counts = (int(by_language[tag]["num_classes"]) for by_language in rows.values() if tag in by_language)
    return BarRow(tag, cells, next(counts))


def _groups(rows: Rows) -> list[dict[str, Any]]:
    """Tier, script and, where it differs, number of classes; left out where all languages are in one group."""
    found = {variant: breakdowns(by_language.values()) for variant, by_language in rows.items()}
    values = {variant: {tag: row["acc1"] for tag, row in by_language.items()} for variant, by_language in rows.items()}
    many = max(map(len, rows.values())) > _ALL_GROUPS
    views = []
    for title in dict.fromkeys(one.title for each in found.values() for one in each):
        if "definition" in title and f"definition {'all' if many else 'v2'} " not in title:
            continue
        parts = [
            (variant, few_groups(one, values[variant]), values[variant])
            for variant, each in found.items()
            for one in each
            if one.title == title
        ]
        view = strips(parts, unit=_TOP1)
        view["title"] = title.partition(",")[0]
        view["rows"] = [row for row in view["rows"] if row["name"] != "mean"]
        if len(view["rows"]) > 1:
            views.append(view)
    return views


def _sizes(rows: Rows) -> dict[str, Any] | None:
    """Accuracy against number of classes; None where all languages have equally many."""
    found = [(number, row) for number, by_language in enumerate(rows.values()) for row in by_language.values()]
    counts = {row["num_classes"] for _, row in found}
    if len(counts) < 2:
        return None
    points = [
        Point(
            row["num_classes"],
            row["acc1"],
            language_table.get(row.language).name,
            f"{language_table.get(row.language).name}: {percent(row['acc1'])} % of {row['num_classes']} classes"
            + (
                ""
                if math.isnan(row["acc1_en_subset"])
                else f"; English names of them: {percent(row['acc1_en_subset'])} %"
            ),
            number,
            row["acc1_en_subset"] if number == 0 and row.language != "en" else math.nan,
        )
        for number, row in found
    ]
    by_score = sorted(range(len(points)), key=lambda place: -points[place].y)
    by_score = [place for place in by_score if points[place].series == 0]
    telling = [place for pair in zip(by_score, reversed(by_score), strict=True) for place in pair][:_LABELS]
    low, high = min(counts), max(counts)
    steps = [low * (high / low) ** (part / 40) for part in range(41)]
    return scatter(
        points,
        x_label="number of classes (logarithmic)",
        y_label=_TOP1,
        log_x=True,
        curve=[(count, 1 / count) for count in steps],
        labels=dict.fromkeys(telling),
    )


def _table(rows: Rows, order: Sequence[str], means: Mapping[str, Mean]) -> dict[str, Any]:
    found = [row for by_language in rows.values() for row in by_language.values()]
    size = _subset_size(found)
    columns = ["top-1 %", "95 % interval", "top-5 %", "chance-corrected"]
    columns += ["English", "gap"] if any(not math.isnan(row["acc1_en_subset"]) for row in found) else []
    columns += [f"among {size}"] if size else []
    columns += ["median rank"] if any(not math.isnan(row["median_rank"]) for row in found) else []
    columns += ["ambiguous"] if any(row["n_ambiguous"] > 0 for row in found) else []
    columns += ["tied"] if any(row["n_tied"] > 0 for row in found) else []
    blank = [""] * len(columns)
    lines = []
    for tag in order:
        known = [by_language.get(tag) for by_language in rows.values()]
        lines.append(
            {
                "language": language_table.get(tag),
                "script": script_of(tag),
                "first": next(row for row in known if row),
                "cells": [[_column(row, name) for name in columns] if row else blank for row in known],
            }
        )
    over = [
        [
            percent(means[variant]["acc1"]),
            "",
            percent(means[variant]["acc5"]),
            percent(means[variant]["chance_corrected"]),
            *blank[4:],
        ]
        for variant in rows
    ]
    return {"columns": columns, "lines": lines, "means": over}


def _column(row: ResultRow, name: str) -> str:
    gap = row["acc1"] - row["acc1_en_subset"]
    _, low, high = row.metric("acc1")
    values = {
        "top-1 %": percent(row["acc1"]),
        "95 % interval": "" if math.isnan(low) else f"{percent(low)}–{percent(high)}",
        "top-5 %": percent(row["acc5"]),
        "chance-corrected": percent(row["chance_corrected"]),
        "English": percent(row["acc1_en_subset"]),
        "gap": "" if math.isnan(gap) else f"{100 * gap:+.1f}",
        "median rank": number(row["median_rank"]),
        "ambiguous": str(row["n_ambiguous"]),
        "tied": str(row["n_tied"]),
    }
    return values.get(name, percent(row["acc1_subset"]))


def _subset_size(rows: Sequence[ResultRow]) -> int:
    return int(max(row.values.get("subset_size", 0) for row in rows))


def _ends(values: Any) -> list[int]:
    return sorted(set(values))
