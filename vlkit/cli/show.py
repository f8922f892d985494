"""`vlkit show RECIPE` and `vlkit explain KEY`: what a recipe holds and where it comes from, and what it may hold."""

from __future__ import annotations

import typer

from vlkit.cli.console import out, show_table, write
from vlkit.cli.options import Overrides, RecipeName


def show(recipe: RecipeName, overrides: Overrides = None) -> None:
    """Print a recipe with all its values and where each one comes from: default, file:line or command line."""
    from vlkit.spec.load import resolve

    write(resolve(recipe, overrides or ()).annotated())


def explain(
    key: str = typer.Argument(
        "",
        metavar="KEY",
        help="A dotted key: optim, model.image, model.image.timm, stages.lr. Without it: the whole recipe.",
    ),
) -> None:
    """Say what a recipe may hold: key, type, default and meaning."""
    from rich.text import Text

    from vlkit.spec.describe import explain as rows_of
    from vlkit.spec.describe import summary

    rows = rows_of(key)
    if line := summary(key):
        out().print(Text(line), style="bold")
    cells = [(row.key, row.type, row.default, row.help) for row in rows]
    show_table(("key", "type", "default", "help"), cells, wrap=True)
