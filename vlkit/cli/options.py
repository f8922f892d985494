"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import typer

_SCORES = (
    "A results.json, the folder of an evaluation, a released result file of Babel-ImageNet, or published scores "
    "(reference:babel_imagenet, or one model of them: reference:babel_imagenet/OC-B32)."
)

DeviceName: TypeAlias = Literal["auto", "cpu", "cuda", "mps"]


def complete_models(incomplete: str) -> list[str]:
    """Names of models, for the shell."""
    from vlkit.models.catalog import list_models

    return [card.name for card in list_models() if card.name.startswith(incomplete)]


def _recipes(incomplete: str) -> list[str]:
    from vlkit.spec.load import shipped_recipes

    return [name for name in shipped_recipes() if name.startswith(incomplete)]


def complete_suites(incomplete: str) -> list[str]:
    """Names of shipped suites, for the shell."""
    from vlkit.spec.load import shipped_suites

    return [name for name in shipped_suites() if name.startswith(incomplete)]


def complete_models_and_recipes(incomplete: str) -> list[str]:
    """Names of either, for the shell."""
    return [*_recipes(incomplete), *complete_models(incomplete)]


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Device = Annotated[DeviceName, typer.Option(help="Where to compute.")]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A model folder or name, as vlkit.load takes it.", autocompletion=complete_models
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Values laid over the recipe, e.g. optim.lr=3e-4")
]
RecipeName = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A YAML file, or the name of a shipped recipe (see: vlkit list recipes).",
        autocompletion=_recipes,
    ),
]
Scores = Annotated[str, typer.Argument(metavar="ONE", help=_SCORES)]
OtherScores = Annotated[str, typer.Argument(metavar="OTHER", help="Another one.")]
