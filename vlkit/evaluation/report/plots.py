"""Figures of results and of training, made without pyplot, so that no window system or global state is touched."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from vlkit import languages as language_table
from vlkit.data.formats.text_files import read_objects
from vlkit.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vlkit.evaluation.compare.comparison import Comparison
    from vlkit.evaluation.results.results_file import Results
    from vlkit.evaluation.scaling_law import ScalingFit, ScalingPoint

# Okabe and Ito's palette: told apart by colour-blind readers, and on white as on black
COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
INK = "#5f6670"
_MANY = 60  # languages from which rows are thin


def score_dots(results: Results, *, task: str | None = None) -> Figure:
    """The leading figure of each model in each language, best language first, with 95 % intervals where there are any.

    Args:
        results: Rows of one or more models.
        task: Which one, where there are several.

    Raises:
        UnknownName, VlkitError: No such task, no rows at all, or several tasks and none named.
    """
    from matplotlib.figure import Figure

    found = {variant: results.of(variant, task=task) for variant in results.means(task=task)}
    tags = list(dict.fromkeys(tag for rows in found.values() for tag in rows))
    tags.sort(key=lambda tag: -max(rows[tag].headline.value for rows in found.values() if tag in rows))
    first = next(iter(next(iter(found.values())).values()))
    measures, measure = first.measures, first.measures.metrics[first.measures.headline]
    scale = 100 if measure.share else 1
    figure = Figure(figsize=(7, 1.2 + (0.3 if len(tags) <= _MANY else 0.16) * len(tags)), layout="constrained")
    axes = figure.add_subplot()
    for number, (variant, rows) in enumerate(found.items()):
        shift = 0.36 * ((number + 0.5) / len(found) - 0.5)
        shown = [(place + shift, rows[tag].headline) for place, tag in enumerate(tags) if tag in rows]
        color = COLORS[number % len(COLORS)]
        for place, one in shown:
            axes.plot([scale * one.low, scale * one.high], [place, place], color=color, linewidth=2, alpha=0.6)
        values, places = [scale * one.value for _, one in shown], [place for place, _ in shown]
        axes.plot(values, places, "o", color=color, markersize=5, label=variant)
    if measures.chance and not measures.chance_of and measure.share:
        axes.axvline(100 * first[measures.chance], color=INK, linewidth=1, linestyle=":", label="chance")
    names = [f"{language_table.get(tag).name} ({tag})" for tag in tags]
    axes.set_yticks(range(len(tags)), names, fontsize="medium" if len(tags) <= _MANY else "x-small")
    axes.set_ylim(len(tags) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"{measures.title(measures.headline)}{', %' if measure.share else ''} (lines: 95 % interval)")
    axes.legend(frameon=False, labelcolor=INK, loc="lower right")
    dress(axes, ink=INK)
    return figure


def difference_dots(comparison: Comparison) -> Figure:
    """By how many points the first model is ahead in each language, with 95 % intervals where there are any."""
    from matplotlib.figure import Figure

    rows, several = comparison.rows, len({row.task for row in comparison.rows}) > 1
    figure = Figure(figsize=(7, 1.2 + (0.28 if len(rows) <= _MANY else 0.16) * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(0, color=INK, linewidth=1)
    for place, row in enumerate(rows):
        color = COLORS[0 if row.difference >= 0 else 1]
        if row.paired:
            axes.plot([100 * row.low, 100 * row.high], [place, place], color=color, linewidth=2, alpha=0.6)
        axes.plot([100 * row.difference], [place], "o", color=color, markersize=5)
    names = [f"{language_table.get(row.language).name} ({row.language})" for row in rows]
    names = [f"{name}, {row.task}" if several else name for name, row in zip(names, rows, strict=True)]
    axes.set_yticks(range(len(rows)), names, fontsize="medium" if len(rows) <= _MANY else "x-small")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    lines = " (lines: 95 % interval)" if any(row.paired for row in rows) else ""
    axes.set_xlabel(f"{comparison.one} less {comparison.other}, in points{lines}")
    dress(axes, ink=INK)
    return figure


def training_curves(metrics: Mapping[str, str | Path], *, ink: str = INK) -> Figure:
    """Loss and learning rate by step, one line a variant, from its ``metrics.jsonl`` (``step``, ``loss``, ``lr``).

    Raises:
        DataError: A file is missing, not JSON lines, or holds no loss.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.9), layout="constrained")
    axes_loss, axes_rate = figure.subplots(1, 2, width_ratios=(3, 2))
    for number, (name, path) in enumerate(metrics.items()):
        lines = [line for _, line in read_objects(Path(path), may_be_cut=True)]
        color = COLORS[number % len(COLORS)]
        losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
        if not losses:
            raise DataError(f"{path} has no line with a loss")
        steps, values = zip(*losses, strict=True)
        axes_loss.plot(steps, values, color=color, alpha=0.3, linewidth=1)
        axes_loss.plot(steps, _smooth(values), color=color, linewidth=1.8, label=name)
        if rates := [(line["step"], line["lr"]) for line in lines if "lr" in line]:
            axes_rate.plot(*zip(*rates, strict=True), color=color, linewidth=1.8)
    axes_loss.set_ylabel("loss")
    axes_loss.legend(frameon=False, labelcolor=ink)
    axes_rate.set_ylabel("learning rate")
    axes_rate.ticklabel_format(axis="y", style="sci", scilimits=(-3, 3))
    axes_rate.yaxis.get_offset_text().set_color(ink)
    for axes in (axes_loss, axes_rate):
        axes.set_xlabel("step")
        dress(axes, ink=ink)
    return figure


def scaling_curves(fits: Sequence[ScalingFit], *, ink: str = INK) -> Figure:
    """Loss by the last term of each law, both logarithmic; points of equal other terms share a colour and a line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(fits), 3.4), layout="constrained")
    for axes, fit in zip(figure.subplots(1, len(fits), squeeze=False)[0], fits, strict=True):
        *held, term = [one.term for one in fit.coefficients[1:]]
        groups: dict[tuple[float, ...], list[ScalingPoint]] = {}
        for point in sorted(fit.points, key=lambda point: point.sizes[term]):
            groups.setdefault(tuple(point.sizes[name] for name in held), []).append(point)
        for number, (sizes, points) in enumerate(sorted(groups.items())):
            color = COLORS[number % len(COLORS)]
            x = [point.sizes[term] for point in points]
            label = ", ".join(f"{size:,.0f} {name}" for size, name in zip(sizes, held, strict=True))
            axes.plot(x, [point.loss for point in points], "o", color=color, markersize=5, label=label or None)
            axes.plot(x, [fit.predict(point.sizes) for point in points], color=color, alpha=0.7)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(term)
        axes.set_ylabel(fit.group)
        if held:
            axes.legend(frameon=False, labelcolor=ink, fontsize="small")
        dress(axes, ink=ink)
    return figure


def render(figure: Figure, *, kind: Literal["svg", "png"] = "svg") -> bytes:
    """The file of a figure on a transparent ground; equal figures give equal bytes."""
    import matplotlib as mpl

    stream = io.BytesIO()
    # text stays text: small files, and the reader's own fonts
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "vlkit"}):
        said = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(stream, format=kind, dpi=160, transparent=True, metadata=said)
    return stream.getvalue()


def _smooth(values: Sequence[float]) -> list[float]:
    """Mean over a window around each value, cut at the ends."""
    half = min(20, len(values) // 30)
    windows = (values[max(0, place - half) : place + half + 1] for place in range(len(values)))
    return [fmean(window) for window in windows]


def dress(axes: Axes, *, ink: str) -> None:
    """Two spines, one ink, no ground: what all figures share."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(ink)
    axes.tick_params(colors=ink, labelcolor=ink)
    axes.xaxis.label.set_color(ink)
    axes.yaxis.label.set_color(ink)
    axes.patch.set_alpha(0)
