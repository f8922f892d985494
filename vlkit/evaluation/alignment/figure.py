"""The figure of an alignment run: a curve over layers for each language, and bars."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from vlkit import languages as language_table
from vlkit.evaluation.alignment.hidden_states import PROJECTED
from vlkit.evaluation.alignment.outcome import Alignment, LanguageRow
from vlkit.evaluation.report.plots import COLORS, INK, dress

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLES = ("solid", (0, (5, 1.5)), (0, (1.5, 1.5)))
_NAMED = len(COLORS) * len(_STYLES)  # more lines than this cannot be told apart
_BARS = {
    "mexa_mean": "MEXA, mean over layers",
    "mexa_max": "MEXA, maximum over layers",
    "projected_mexa": "MEXA of the model's own embedding",
    "langrank_centred": "Language Ranker, mean-centred",
    "langrank": "Language Ranker",
}


def alignment_figure(alignment: Alignment) -> Figure:
    """Scores by layer where there are several layers, and by language, best language first."""
    from matplotlib.figure import Figure

    score = "cosine" if all(math.isnan(row.mexa_mean) for row in alignment.languages) else "mexa"
    curves = _curves(alignment, score)
    several = any(len(curve) > 1 for curve in curves.values())
    ranked = _ranked(alignment.languages)
    height = max(3.6, 1.1 + 0.3 * len(ranked))
    figure = Figure(figsize=(11 if several else 6.5, height), layout="constrained")
    if several:
        left, right = figure.subplots(1, 2)
        _draw_curves(left, {tag: curves[tag] for tag in ranked if tag in curves}, score=score)
        if score == "mexa":
            chances = [row.mexa_chance for row in alignment.languages if not math.isnan(row.mexa_chance)]
            left.axhline(float(np.mean(chances)), color=INK, linestyle="dotted", linewidth=1, label="chance")
        _legend(left)
    else:
        right = figure.subplots(1, 1)
    _draw_bars(right, {row.language: row for row in alignment.languages}, ranked)
    return figure


def _curves(alignment: Alignment, score: str) -> dict[str, dict[str, float]]:
    """By language, the score of each layer, in order."""
    curves: dict[str, dict[str, float]] = {}
    pooling = next((row.pooling for row in alignment.layers if row.layer != PROJECTED), "")
    for row in alignment.layers:
        if row.layer != PROJECTED and row.pooling == pooling:
            curves.setdefault(row.language, {})[row.layer] = getattr(row.scores, score)
    return curves


def _ranked(rows: tuple[LanguageRow, ...]) -> list[str]:
    def value(row: LanguageRow) -> float:
        return next((found for name in _BARS if not math.isnan(found := getattr(row, name))), -math.inf)

    return [row.language for row in sorted(rows, key=lambda row: (-value(row), row.language))]


def _draw_curves(axes: Axes, curves: dict[str, dict[str, float]], *, score: str) -> None:
    names = list(next(iter(curves.values())))
    places = [int(name) if name.isdecimal() else number for number, name in enumerate(names)]
    if len(curves) <= _NAMED:
        for number, (tag, curve) in enumerate(curves.items()):
            axes.plot(
                places,
                list(curve.values()),
                color=COLORS[number % len(COLORS)],
                linestyle=_STYLES[number // len(COLORS)],
                linewidth=1.6,
                label=language_table.get(tag).name,
            )
    else:
        values = np.array([list(curve.values()) for curve in curves.values()])
        axes.plot(places, values.T, color=INK, linewidth=0.5, alpha=0.3)
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
        axes.fill_between(places, low, high, color=COLORS[0], alpha=0.25, linewidth=0, label="middle half")
        axes.plot(places, middle, color=COLORS[0], linewidth=2, label=f"median of {len(curves)} languages")
    axes.set_xlabel("layer (0: token embedding)")
    axes.set_ylabel({"mexa": "MEXA", "cosine": "mean cosine of the last tokens"}[score])
    if score == "mexa":
        axes.set_ylim(bottom=0)
    dress(axes, ink=INK)


def _legend(axes: Axes) -> None:
    count = len(axes.get_legend_handles_labels()[1])
    columns = 2 if count > 8 else 1
    axes.legend(frameon=False, labelcolor=INK, fontsize=8, ncols=columns, loc="upper left", handlelength=2.4)
    low, high = axes.get_ylim()
    axes.set_ylim(low, low + (high - low) / (1 - 0.05 * -(-count // columns)))  # room for its rows above the curves


def _draw_bars(axes: Axes, rows: dict[str, LanguageRow], ranked: list[str]) -> None:
    shown = [name for name in _BARS if any(not math.isnan(getattr(row, name)) for row in rows.values())]
    if any(name.startswith(("mexa", "projected")) for name in shown):
        shown = [name for name in shown if not name.startswith("langrank")]  # cosines are on another scale
    thick = 0.8 / max(1, len(shown))
    for number, name in enumerate(shown):
        offset = (number - (len(shown) - 1) / 2) * thick
        places = [place + offset for place in range(len(ranked))]
        values = [getattr(rows[tag], name) for tag in ranked]
        axes.barh(places, values, height=0.92 * thick, label=_BARS[name], color=COLORS[number % len(COLORS)])
    axes.set_yticks(range(len(ranked)), [f"{language_table.get(tag).name} ({tag})" for tag in ranked])
    axes.set_ylim(len(ranked) - 0.4, -0.6)
    axes.set_xlabel("score")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=1, frameon=False, labelcolor=INK, fontsize=8)
    dress(axes, ink=INK)
