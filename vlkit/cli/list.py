"""`vlkit list KIND [PATTERN]`: the names there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import typer

from vlkit.cli.console import out, show_table

if TYPE_CHECKING:
    from vlkit.spec.schema import Shape

Listed = Literal["models", "parts", "encoders", "recipes", "suites", "languages", "objectives", "heads", "bridges"]
Rows = list[tuple[str, ...]]


def list_names(
    kind: str = typer.Argument(
        metavar="KIND", help=f"One of: {', '.join(get_args(Listed))}.", autocompletion=lambda: list(get_args(Listed))
    ),
    pattern: str = typer.Argument(
        "*", metavar="PATTERN", help="Show only what matches: a part of it, or a pattern with * and ?."
    ),
) -> None:
    """List models, parts, encoders, recipes, suites, languages, objectives, heads or bridges."""
    from vlkit.registry import Registry, matches

    tables = Registry("list", {name: f"vlkit.cli.list:{name}" for name in get_args(Listed)})
    listed: Callable[[], tuple[tuple[str, ...], Rows]] = tables.get_object(kind)
    headers, rows = listed()
    rows = [row for row in rows if any(matches(cell, pattern) for cell in row)]
    if rows:
        show_table(headers, rows, wrap=True)
    out().print(f"{len(rows)} {kind if len(rows) != 1 else kind.removesuffix('s')}", style="dim")


def models() -> tuple[tuple[str, ...], Rows]:
    """Whole models."""
    from vlkit.models.catalog import list_models

    return ("name", "about"), [(card.name, card.about) for card in list_models()]


def parts() -> tuple[tuple[str, ...], Rows]:
    """Pretrained parts that need no hub, bridges, and the tiny twins."""
    from vlkit.models.catalog import list_parts

    rows: Rows = [(card.name, card.kind, card.license, card.about) for card in list_parts()]
    return ("name", "kind", "license", "about"), rows


def encoders() -> tuple[tuple[str, ...], Rows]:
    """The kinds of image and text encoders."""
    from vlkit.spec.parts import ImageEncoderSpec, TextEncoderSpec
    from vlkit.spec.schema import shape_of

    sides = [("image", shape_of(ImageEncoderSpec)), ("text", shape_of(TextEncoderSpec))]
    rows: Rows = [(side, kind, about) for side, shape in sides for kind, about in _kinds(shape)]
    return ("side", "kind", "about"), rows


def recipes() -> tuple[tuple[str, ...], Rows]:
    """The recipes that come with vlkit."""
    from vlkit.spec.load import shipped_recipes

    return ("name", "description"), _described(shipped_recipes())


def suites() -> tuple[tuple[str, ...], Rows]:
    """The evaluation suites that come with vlkit."""
    from vlkit.spec.load import shipped_suites

    return ("name", "description"), _described(shipped_suites())


def _described(shipped: Mapping[str, Path]) -> Rows:
    from vlkit.spec.load import read_document

    found = {name: read_document(path).plain().get("description", "") for name, path in shipped.items()}
    return [(name, " ".join(str(description).split())) for name, description in found.items()]


def languages() -> tuple[tuple[str, ...], Rows]:
    """The language table."""
    from vlkit.languages import all_languages

    rows: Rows = [(row.tag, row.name, row.autonym, row.script, row.tier) for row in all_languages()]
    return ("tag", "name", "autonym", "script", "lexicon"), rows


def objectives() -> tuple[tuple[str, ...], Rows]:
    """The losses."""
    from vlkit.spec.objectives import ObjectiveSpec
    from vlkit.spec.schema import shape_of

    return ("kind", "about"), list(_kinds(shape_of(ObjectiveSpec)))


def heads() -> tuple[tuple[str, ...], Rows]:
    """The heads into the shared space."""
    from vlkit.spec.parts import HeadSpec
    from vlkit.spec.schema import shape_of

    return ("kind", "about"), list(_kinds(shape_of(HeadSpec)))


def bridges() -> tuple[tuple[str, ...], Rows]:
    """What stands between an image encoder and a language model."""
    from vlkit.spec.bridges import BridgeSpec
    from vlkit.spec.schema import shape_of

    return ("kind", "about"), list(_kinds(shape_of(BridgeSpec)))


def _kinds(shape: Shape) -> list[tuple[str, str]]:
    from vlkit.spec.describe import doc

    return [(kind, doc(spec)) for kind, spec in shape.kinds.items()]
