"""Alignment scores beside zero-shot scores, over languages."""

from __future__ import annotations

import math
from dataclasses import fields

from vlkit.errors import DataError
from vlkit.evaluation.alignment.outcome import Alignment, CorrelationRow, LanguageRow
from vlkit.evaluation.metrics.correlation import correlate
from vlkit.evaluation.results.results_file import Results

_IMAGE_SCORES = ("mexa", "p1_image_to_text", "p1_text_to_image", "english_swap")


def correlate_with(alignment: Alignment, results: Results) -> tuple[CorrelationRow, ...]:
    """Each alignment score that has three values or more over languages, with zero-shot top-1 of each variant and task.

    Only languages that both have are used. MEXA's prediction of a task score (pooled MEXA times the score in English)
    is the same number for every language but for a factor, and so correlates as MEXA does.

    Raises:
        DataError: Fewer than three languages in common.
    """
    found: list[CorrelationRow] = []
    most = 0
    for name, by_language in _scores(alignment).items():
        for variant in results.variants:
            for task in results.tasks:
                accuracy = {
                    tag: row["acc1"] for tag, row in results.of(variant, task=task).items() if "acc1" in row.values
                }
                tags = [tag for tag, value in by_language.items() if tag in accuracy and math.isfinite(value)]
                most = max(most, len(tags))
                if len({by_language[tag] for tag in tags}) >= 3:  # two values are two groups, no line
                    one = correlate([by_language[tag] for tag in tags], [accuracy[tag] for tag in tags])
                    found.append(CorrelationRow(name, variant, task, one.n, *one.pearson, *one.spearman, *one.kendall))
    if most < 3:
        theirs, ours = ", ".join(results.languages) or "none", ", ".join(row.language for row in alignment.languages)
        raise DataError(
            f"alignment and results have {most} languages in common, and three are needed for a correlation; "
            f"alignment: {ours}; results: {theirs}"
        )
    return tuple(found)


def _scores(alignment: Alignment) -> dict[str, dict[str, float]]:
    scores: dict[str, dict[str, float]] = {
        field.name: {row.language: getattr(row, field.name) for row in alignment.languages}
        for field in fields(LanguageRow)
        if field.type == "float" and field.name != "mexa_chance"
    }
    for name in _IMAGE_SCORES:
        # in the pivot's own language, the swap is a text against itself
        left_out = alignment.meta["pivot"] if name == "english_swap" else ""
        scores[f"image_{name}" if name == "mexa" else name] = {
            row.language: getattr(row, name) for row in alignment.images if row.language != left_out
        }
    return scores
