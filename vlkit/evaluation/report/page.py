"""What an evaluation writes to be looked at: a page a task (one HTML file that needs nothing else), and Markdown."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from vlkit import languages as language_table
from vlkit.errors import UnknownName
from vlkit.evaluation.report.gallery import (
    DrawnItem,
    FoundItem,
    GalleryItem,
    SaidItem,
    default_languages,
    make_drawn,
    make_found,
    make_said,
)
from vlkit.evaluation.report.markdown import results_markdown
from vlkit.evaluation.report.plots import COLORS, render, training_curves
from vlkit.evaluation.report.views import task_view
from vlkit.evaluation.results.class_scores import ClassTable
from vlkit.evaluation.results.drawn import read_drawn
from vlkit.evaluation.results.examples import read_examples
from vlkit.evaluation.results.results_file import Results
from vlkit.evaluation.results.written import read_written
from vlkit.files import write_atomic
from vlkit.types import Sample

MARKDOWN, CLASSES = "results.md", "results-classes.csv"
_WORST = 20
_SAID = 6  # languages in which what was said is shown
_INK = "#010203"  # a colour that nothing else has; it becomes the colour of the surrounding text


Shown: TypeAlias = GalleryItem | FoundItem | SaidItem | DrawnItem
"""What a page can show beside its figures."""


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
    classes: ClassTable | None = None,
    gallery: Sequence[Shown] = (),
    gallery_variant: str = "",
    metrics: Mapping[str, str | Path] | None = None,
    recipe_yaml: str = "",
    attribution: Sequence[Credit] = (),
    title: str = "Zero-shot evaluation",
    intro: str = "",
    commands: Sequence[str] = (),
) -> Path:
    """Writes a self-contained HTML page that runs no script; everything that is given is escaped.

    Args:
        path: The file to write.
        results: Rows of one or more variants on one task (``Results.only`` chooses it).
        classes: How well each class is known; the worst ones are shown.
        gallery: Images with answers (``make_gallery``), captions with the images found for them (``make_found``), or
            images with what was said of them (``make_said``), or images that were made (``make_drawn``).
        gallery_variant: Which variant gave these answers.
        metrics: Variant name to its ``metrics.jsonl``, for the training curves.
        recipe_yaml: The resolved recipe.
        attribution: Parts and data with their licenses.
        title: Heading of the page.
        intro: A sentence or two below it.
        commands: What to try next, as shell commands.

    Raises:
        UnknownName: No such variant.
        DataError: A metrics file that cannot be read.
        VlkitError: No rows, rows of several tasks, or the place cannot be written to.
    """
    if gallery_variant and gallery_variant not in results.variants:
        raise UnknownName("variant", gallery_variant, allowed=results.variants)
    scores = task_view(results)
    known = classes.overall() if classes else []
    page = environment().get_template("report.html.j2").render(
        title=title,
        intro=intro,
        commands=list(commands),
        recipe_yaml=recipe_yaml.strip(),
        attribution=list(attribution),
        meta=flatten(results.meta),
        curves=_inline_svg(metrics, order=[variant["name"] for variant in scores["variants"]]) if metrics else "",
        gallery_variant=gallery_variant,
        known_classes=known[:_WORST],
        never_right=(sum(one.accuracy == 0 for one in known), len(known)),
        classes_variant=classes.variant if classes else "",
        titles_known=any(one.title for one in known[:_WORST]),
        **scores,
        **_gallery(gallery),
    )  # fmt: skip
    write_atomic(Path(path), page)
    return Path(path)


def write_pages(
    folder: Path,
    results: Results,
    *,
    intro: str = "",
    titles: Mapping[str, Sequence[str]] | None = None,
    samples: Mapping[str, Sequence[Sample]] | None = None,
) -> list[Path]:
    """Writes ``report.html`` (``report-TASK.html`` where there are several), ``results.md``, ``results-classes.csv``.

    Scores of classes come from the answers in the folder, so that a run that was stopped and gone on with has them all.
    ``titles`` are by task what its classes may be called, ``samples`` its images, ``intro`` is for the head of each
    page. Gives the pages.

    Raises:
        DataError: A file of answers is damaged.
        VlkitError: The place cannot be written to.
    """
    classes = {task: found for task in results.tasks if (found := _class_table(folder, results, task, titles or {}))}
    if classes:
        tables = [table.csv() for table in classes.values()]
        write_atomic(folder / CLASSES, tables[0] + "".join(text.split("\n", 1)[1] for text in tables[1:]))
    write_atomic(folder / MARKDOWN, results_markdown(results, classes=classes.values()))
    names = results.tasks
    return [
        write_report(
            folder / ("report.html" if len(names) == 1 else f"report-{name}.html"),
            results=results.only(name),
            classes=classes.get(name),
            gallery=_examples(folder, results, name, samples[name]) if samples else (),
            title=name,
            intro=intro,
        )
        for name in names
    ]


def _class_table(folder: Path, results: Results, task: str, titles: Mapping[str, Sequence[str]]) -> ClassTable | None:
    if len(results.variants) != 1:
        return None  # answers are of one model
    rows = results.of(results.variants[0], task=task)
    return ClassTable.read(folder, task, rows, variant=results.variants[0], titles=titles.get(task, ()))


def environment() -> Any:
    """Where pages come from: everything in them is escaped, and a name that is not given is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _gallery(gallery: Sequence[Shown]) -> dict[str, Any]:
    answered = [item for item in gallery if isinstance(item, GalleryItem)]
    tags = tuple(dict.fromkeys(tag for item in answered for tag in item.answers))
    shown = default_languages(tags) if tags else ()
    items = [
        {
            "key": item.key,
            "image": _inline(item.png, "png"),
            "name": _english(item),
            "right": sum(answers.best[0].correct for answers in item.answers.values()),
            "answers": [(language_table.get(tag), answers) for tag, answers in item.answers.items()],
        }
        for item in answered
    ]
    found: dict[str, list[dict[str, Any]]] = {}
    for item in gallery:
        if isinstance(item, FoundItem):
            images = [{"source": _inline(one.jpeg, "jpeg"), "key": one.key, "own": one.own} for one in item.images]
            found.setdefault(item.language, []).append({"text": item.text, "rank": item.rank, "images": images})
    return {
        "gallery": items,
        "gallery_languages": [(language_table.get(tag), tag in shown) for tag in tags],
        "found": [(language_table.get(tag), examples) for tag, examples in found.items()],
        "said": [_said(item) for item in gallery if isinstance(item, SaidItem)],
        **_drawn([item for item in gallery if isinstance(item, DrawnItem)]),
    }


def _drawn(items: Sequence[DrawnItem]) -> dict[str, Any]:
    tags = tuple(dict.fromkeys(tag for item in items for tag in item.images))
    rows = [
        {
            "title": item.title,
            "real": _inline(item.real, "jpeg") if item.real else "",
            "cells": [
                {"source": _inline(one.png, "png"), "text": one.text, "rank": one.rank} if one else None
                for one in map(item.images.get, tags)
            ],
        }
        for item in items
    ]
    return {"drawn": rows, "drawn_languages": [language_table.get(tag) for tag in tags]}


def _said(item: SaidItem) -> dict[str, Any]:
    answers = [(language_table.get(tag), answer) for tag, answer in item.answers.items()]
    return {"image": _inline(item.jpeg, "jpeg"), "key": item.key, "why": item.why, "answers": answers}


def _examples(folder: Path, results: Results, task: str, samples: Sequence[Sample]) -> list[Shown]:
    tags = [row.language for row in results.rows if row.task == task]
    found = make_found({tag: read_examples(folder, task, tag) for tag in default_languages(tags)}, samples)
    shown = default_languages(tags, count=_SAID)
    written = {tag: answers for tag in shown if (answers := read_written(folder, task, tag))}
    drawn = {tag: images for tag in tags if (images := read_drawn(folder, task, tag))}
    said = make_said(written, samples, results.measures(task).headline) if written else []
    return [*found, *said, *make_drawn(drawn, samples)]


def _inline(raw: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"


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


def flatten(meta: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The provenance of results as lines to read: key and value."""
    lines: list[tuple[str, str]] = []
    for key, value in meta.items():
        label = key.replace("_", " ")
        if isinstance(value, Mapping) and any(isinstance(item, Mapping | list | tuple) for item in value.values()):
            lines.append((label, json.dumps(value, ensure_ascii=False, indent=1, default=str)))
        elif isinstance(value, Mapping):
            lines.append((label, ", ".join(f"{name} {item}" for name, item in value.items())))
        elif isinstance(value, list | tuple):
            lines.append((label, ", ".join(str(item) for item in value)))
        elif key == "seconds" and isinstance(value, int | float) and math.isfinite(value):
            lines.append(("wall time", f"{value:.0f} s"))
        elif value is not None:
            lines.append((label, str(value)))
    return lines
