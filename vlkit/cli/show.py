"""`vlkit show RECIPE`: the resolved recipe with the origin of each value."""

from __future__ import annotations

import typer

from vlkit.cli.console import write


def show(
    recipe: str = typer.Argument(
        metavar="RECIPE", help="A YAML file, or the name of a shipped recipe (see: vlkit list recipes)."
    ),
    overrides: list[str] = typer.Argument(
        None, metavar="KEY=VALUE", help="Values laid over the recipe, e.g. optim.lr=3e-4"
    ),
) -> None:
    """Print a recipe with all its values and where each one comes from: default, file:line or command line."""
    from vlkit.spec.load import resolve

    write(resolve(recipe, overrides or ()).annotated())
