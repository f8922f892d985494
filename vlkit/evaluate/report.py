"""The report: one HTML file that needs nothing else, in light and dark, on a desk and on a phone."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlkit import languages as language_table
from vlkit.errors import UnknownName
from vlkit.evaluate.gallery import GalleryItem, default_languages
from vlkit.evaluate.plots import COLORS, render, training_curves
from vlkit.evaluate.results import ResultRow, Results
from vlkit.files import write_atomic

_TEMPLATE = "report.html.j2"
_INK = "#010203"  # a colour that nothing else has; it becomes the colour of the surrounding text


@dataclass(frozen=True)
class Credit:
    """A part or data set that went into a model: what it is, its license, and where it comes from."""

    name: str
    license: str
    source: str = ""


def write_report(
    path: str | Path,
    *,
    results: Results,
    gallery: Sequence[GalleryItem] = (),
    gallery_variant: str = "",
    metrics: Mapping[str, str | Path] | None = None,
    recipe_yaml: str = "",
    attribution: Sequence[Credit] = (),
    title: str = "Zero-shot evaluation",
    intro: str = "",
    commands: Sequence[str] = (),
    task: str | None = None,
) -> Path:
    """Writes a self-contained HTML page; everything that is given is escaped.

    Args:
        path: The file to write.
        results: Rows of one or more variants; all of retrieval are shown.
        gallery: Images with answers (``make_gallery``).
        gallery_variant: Which variant gave these answers.
        metrics: Variant name to its ``metrics.jsonl``, for the training curves.
        recipe_yaml: The resolved recipe.
        attribution: Parts and data with their licenses.
        title: Heading of the page.
        intro: A sentence or two below it.
        commands: What to try next, as shell commands.
        task: Which task of the results' zero-shot rows, where there are several.

    Raises:
        UnknownName: No such task or variant.
        DataError: A metrics file that cannot be read.
        VlkitError: No rows, or the place cannot be written to.
    """
    if gallery_variant and gallery_variant not in results.variants:
        raise UnknownName("variant", gallery_variant, allowed=results.variants)
    scores = {"variants": []} if results.retrieval and not results.rows else _scores(results, task=task)
    page = _environment().get_template(_TEMPLATE).render(
        title=title,
        intro=intro,
        commands=list(commands),
        recipe_yaml=recipe_yaml.strip(),
        attribution=list(attribution),
        meta=_flatten(results.meta),
        curves=_inline_svg(metrics, order=[variant["name"] for variant in scores["variants"]]) if metrics else "",
        gallery_variant=gallery_variant,
        retrieval=_retrieval(results),
        **scores,
        **_gallery(gallery),
    )  # fmt: skip
    write_atomic(Path(path), page)
    return Path(path)


def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _scores(results: Results, *, task: str | None) -> dict[str, Any]:
    """What the headline, the bars and the table show; variants best first, languages best first."""
    means = results.means(task=task)
    variants = sorted(means, key=lambda variant: -means[variant].acc1)
    rows = {variant: results.of(variant, task=task) for variant in variants}
    tags = dict.fromkeys(tag for variant in variants for tag in rows[variant])
    order = sorted(tags, key=lambda tag: -max(rows[variant][tag].acc1 for variant in variants if tag in rows[variant]))
    found = [row for by_language in rows.values() for row in by_language.values()]
    top = _nice_ceiling(max(row.ci_high for row in found))
    return {
        "task": found[0].task,
        "variants": [{"name": variant, "mean": means[variant]} for variant in variants],
        "best": means[variants[0]],
        "bars": [
            {"language": language_table.get(tag), "cells": [_cell(rows[v].get(tag), top) for v in variants]}
            for tag in order
        ],
        "ticks": [top * part / 4 for part in range(5)],
        "top": top,
        "classes": sorted({row.num_classes for row in found}),
        "images": sorted({row.n_images for row in found}),
        "prompts": sorted({row.prompt for row in found}),
        "lowest_name": language_table.get(means[variants[0]].lowest.language).name,
    }


def _retrieval(results: Results) -> list[dict[str, Any]]:
    """One table for each task and variant of retrieval."""
    tables: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in results.retrieval:
        tables.setdefault((row["task"], row["variant"]), []).append(row)
    return [
        {
            "task": task,
            "variant": variant,
            "captions": rows[0]["captions"],
            "ks": [name.partition("@")[2] for name in rows[0] if name.startswith("image_retrieval_recall@")],
            "rows": [_retrieval_row(row) for row in rows],
        }
        for (task, variant), rows in tables.items()
    ]


def _retrieval_row(row: Mapping[str, Any]) -> dict[str, Any]:
    sides = [
        {
            "recalls": [share for name, share in row.items() if name.startswith(f"{side}_retrieval_recall@")],
            "low": row[f"{side}_retrieval_ci_low"],
            "high": row[f"{side}_retrieval_ci_high"],
        }
        for side in ("image", "text")
    ]
    language = language_table.get(row["language"])
    return {"language": language, "n_images": row["n_images"], "n_texts": row["n_texts"], "sides": sides}


def _cell(row: ResultRow | None, top: float) -> dict[str, Any] | None:
    if row is None:
        return None
    return {
        "row": row,
        "width": 100 * row.acc1 / top,
        "low": 100 * row.ci_low / top,
        "span": 100 * (row.ci_high - row.ci_low) / top,
        "chance": 100 * row.chance / top,
    }


def _nice_ceiling(value: float) -> float:
    """The next multiple of 4 % up to 40 %, of 20 % beyond, so that four ticks are whole numbers; at most 100 %."""
    step = 4 if value <= 0.4 else 20
    return min(100, max(step, step * math.ceil(100 * value / step))) / 100


def _gallery(gallery: Sequence[GalleryItem]) -> dict[str, Any]:
    tags = tuple(dict.fromkeys(tag for item in gallery for tag in item.answers))
    shown = default_languages(tags) if tags else ()
    items = [
        {
            "key": item.key,
            "image": f"data:image/png;base64,{base64.b64encode(item.png).decode()}",
            "name": _english(item),
            "right": sum(answers.best[0].correct for answers in item.answers.values()),
            "answers": [(language_table.get(tag), answers) for tag, answers in item.answers.items()],
        }
        for item in gallery
    ]
    languages = [(language_table.get(tag), tag in shown) for tag in tags]
    return {"gallery": items, "gallery_languages": languages}


def _english(item: GalleryItem) -> str:
    answers = item.answers.get("en") or next(iter(item.answers.values()), None)
    return answers.truth if answers else item.key


def _inline_svg(metrics: Mapping[str, str | Path], *, order: Sequence[str]) -> Any:
    """The training curves as an SVG element that takes its colours and fonts from the page, variants as in the bars."""
    from markupsafe import Markup

    ordered = {name: metrics[name] for name in (*order, *metrics) if name in metrics}
    svg = render(training_curves(ordered, ink=_INK)).decode()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)  # needless inside HTML
    for color, name in ((_INK, "currentColor"), *((color, f"var(--v{number})") for number, color in enumerate(COLORS))):
        svg = svg.replace(color, name)
    # matplotlib has escaped the text in it (variant names) already
    return Markup(svg)


def _flatten(meta: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for key, value in meta.items():
        label = key.replace("_", " ")
        if isinstance(value, Mapping):
            lines.append((label, ", ".join(f"{name} {item}" for name, item in value.items())))
        elif isinstance(value, list | tuple):
            lines.append((label, ", ".join(str(item) for item in value)))
        elif key == "seconds" and isinstance(value, int | float) and math.isfinite(value):
            lines.append(("wall time", f"{value:.0f} s"))
        elif value is not None:
            lines.append((label, str(value)))
    return lines
