"""Results as Markdown: a table a task, and means over languages of one kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

from vlkit import languages as language_table
from vlkit.evaluation.report.breakdown import (
    Breakdown,
    breakdowns,
    by_tier_and_script,
    is_english,
    script_name,
)
from vlkit.evaluation.report.finding import finding
from vlkit.evaluation.results.class_scores import ClassTable
from vlkit.evaluation.results.results_file import ResultRow, Results
from vlkit.foreign import markdown_text

_WORST = 20
Column = tuple[str, Callable[[ResultRow], str], Callable[[ResultRow], bool]]


def results_markdown(results: Results, *, classes: Iterable[ClassTable] = ()) -> str:
    """All tasks and models of some results; shares in percent, languages best first.

    Args:
        results: Of any tasks.
        classes: The worst classes of which are listed, where known.
    """
    known = {(table.task, table.variant): table for table in classes}
    parts = ["# Results", ""]
    for task in results.tasks:
        parts += [markdown_text(finding(results.only(task))), ""]
        for variant in results.variants:
            if rows := list(results.of(variant, task=task).values()):
                lines = _classification(rows) if rows[0].measures.kind in CLASSIFIES else _figures(rows)
                parts += [f"## {markdown_text(task)}: {markdown_text(variant)}", "", *lines, ""]
                if table := known.get((task, variant)):
                    parts += ["### Worst classes", "", *_classes(table), ""]
    if notes := [f"- {markdown_text(note)}" for note in results.meta.get("notes", ())]:
        parts += [*notes, ""]
    return "\n".join(parts)


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1) -> list[str]:
    """Lines of a table; the first columns are text, the others are aligned to the right."""
    rule = ["---" if place < text_columns else "---:" for place in range(len(headers))]
    return ["| " + " | ".join(map(markdown_text, line)) + " |" for line in (headers, rule, *rows)]


def percent(share: float, digits: int = 1) -> str:
    """A share in percent; empty where it is not known."""
    return "" if math.isnan(share) else f"{100 * share:.{digits}f}"


def _classification(rows: list[ResultRow]) -> list[str]:
    rows = sorted(rows, key=lambda row: (-row["acc1"], row.language))
    columns = [(header, cell) for header, cell, wanted in _COLUMNS if any(map(wanted, rows))]
    lines = markdown_table(
        [header for header, _ in columns], ([cell(row) for _, cell in columns] for row in rows), text_columns=3
    )
    foreign = [row for row in rows if not is_english(row.language)] or rows
    shared = "" if len(foreign) == len(rows) else ", English left out"
    lines += ["", f"Mean of {len(foreign)} languages{shared}: {percent(fmean(row['acc1'] for row in foreign))}.", ""]
    for one in breakdowns(rows):
        lines += [f"### By {one.title}", "", *_groups(one), ""]
    return [*lines, *_notes(rows)]


def _notes(rows: list[ResultRow]) -> list[str]:
    said = [
        "Top-1 in % with its 95 % interval (classes are resampled, then images inside each). Means weigh languages "
        "equally, English is in none; their intervals resample languages."
    ]
    if any(row["num_classes"] < 5 for row in rows):
        said.append("Top-5 is out of all classes where there are fewer than five.")
    if size := max(row.values.get("subset_size", 0) for row in rows):
        said.append(f"Among {size}: expected top-1 among {size} classes, over all subsets of so many.")
    return [" ".join(said)]


def _groups(one: Breakdown, figure: str = "top-1") -> list[str]:
    return markdown_table(
        ("group", "languages", figure, "95 % interval"),
        (
            (group.group, str(len(group.languages)), percent(group.mean), _interval(group.low, group.high))
            for group in one.groups
        ),
    )


def _classes(table: ClassTable) -> list[str]:
    return markdown_table(
        ("class", "name", "top-1", "right", "languages", "most often taken for", "times"),
        (
            (
                str(one.class_id),
                one.title,
                percent(one.accuracy),
                f"{one.right} of {one.answers}",
                str(len(one.languages)),
                "" if one.confused_with is None else f"{one.confused_with} {one.confused_title}".strip(),
                str(one.confused or ""),
            )
            for one in table.overall()[:_WORST]
        ),
        text_columns=2,
    )


def _figures(rows: list[ResultRow]) -> list[str]:
    """The table of any task: counts, and the figures that have a title; best headline first."""
    rows = sorted(rows, key=lambda row: (-row.headline.value, row.language))
    measures, counts, shown = rows[0].measures, counted(rows), known_figures(rows)
    lines = markdown_table(
        ("language", *(said for _, said in counts), *map(measures.title, shown)),
        (
            (
                _language(row.language),
                *(str(row[name]) for name, _ in counts),
                *(figure(row, name) for name in shown),
            )
            for row in rows
        ),
    )
    for name in (name for name in measures.bars or (measures.headline,) if measures.metrics[name].share):
        values = {row.language: row[name] for row in rows if not math.isnan(row[name])}
        for one in by_tier_and_script(values):
            if len(one.groups) > 1:
                lines += ["", f"### {capitalised(measures.title(name))} by {one.title}", "", *_groups(one, "mean")]
    return lines


def known_figures(rows: Sequence[ResultRow]) -> list[str]:
    """The figures that stand in tables for readers, but for those that no row has."""
    return [name for name in rows[0].measures.shown if not all(math.isnan(row[name]) for row in rows)]


def capitalised(title: str) -> str:
    """A title as a heading begins; what has capitals already stays (chrF)."""
    return title if title != title.lower() else title[:1].upper() + title[1:]


def counted(rows: Sequence[ResultRow]) -> list[tuple[str, str]]:
    """Columns of what the figures of some rows are of, with what they count: numbers of images, of texts."""
    return [
        (name, said)
        for name, said in rows[0].measures.alike.items()
        if any(isinstance(row.values.get(name), int) for row in rows)
    ]


def figure(row: ResultRow, name: str) -> str:
    """A figure for readers: shares in percent, other numbers as they are; empty where it is not known."""
    return percent(row[name]) if row.measures.metrics[name].share else number(row[name])


def number(value: float) -> str:
    """A number as it is; empty where it is not known."""
    return "" if math.isnan(value) else f"{value:g}"


def _language(tag: str) -> str:
    return f"{language_table.get(tag).name} ({tag})"


def _interval(low: float, high: float) -> str:
    return "" if math.isnan(low) else f"{100 * low:.1f} to {100 * high:.1f}"


def _top(row: ResultRow) -> str:
    interval = _interval(row["ci_low"], row["ci_high"])
    return percent(row["acc1"]) + (f" [{interval.replace(' to ', '-')}]" if interval else "")


def _always(row: ResultRow) -> bool:
    return True


def _has_english(row: ResultRow) -> bool:
    return not math.isnan(row["acc1_en_subset"])


def _gap(row: ResultRow) -> str:
    return f"{100 * (row['acc1'] - row['acc1_en_subset']):+.1f}"


CLASSIFIES = ("zero_shot",)  # kinds of tasks with the columns below
_COLUMNS: tuple[Column, ...] = (
    ("language", lambda row: _language(row.language), _always),
    ("lexicon", lambda row: language_table.get(row.language).tier, _always),
    ("script", lambda row: script_name(language_table.get(row.language).script), _always),
    ("classes", lambda row: str(row["num_classes"]), _always),
    ("images", lambda row: str(row["n_images"]), lambda row: row["n_images"] > 0),
    ("top-1 [95 %]", _top, _always),
    ("top-5", lambda row: percent(row["acc5"]), lambda row: not math.isnan(row["acc5"])),
    ("chance-corrected", lambda row: percent(row["chance_corrected"]), _always),
    ("English, same classes", lambda row: percent(row["acc1_en_subset"]), _has_english),
    ("gap", lambda row: _gap(row) if _has_english(row) else "", _has_english),
    (
        "among fewer",
        lambda row: "" if math.isnan(row["acc1_subset"]) else f"{percent(row['acc1_subset'])} ({row['subset_size']})",
        lambda row: not math.isnan(row["acc1_subset"]),
    ),
    ("median rank", lambda row: number(row["median_rank"]),
     lambda row: not math.isnan(row["median_rank"])),
    ("ambiguous classes", lambda row: str(row["n_ambiguous"]), lambda row: row["n_ambiguous"] > 0),
    ("tied images", lambda row: str(row["n_tied"]), lambda row: row["n_tied"] > 0),
)  # fmt: skip
