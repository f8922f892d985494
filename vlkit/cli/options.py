"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import typer

_SCORES = (
    "A results.json, the folder of an evaluation, a released result file of Babel-ImageNet, or published scores "
    "(reference:babel_imagenet, or one model of them: reference:babel_imagenet/OC-B32)."
)

DeviceName: TypeAlias = Literal["auto", "cpu", "cuda", "mps"]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Device = Annotated[DeviceName, typer.Option(help="Where to compute.")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="A model folder or name, as vlkit.load takes it.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Values laid over the recipe, e.g. optim.lr=3e-4")
]
RecipeName = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a shipped recipe (see: vlkit list recipes)."),
]
Scores = Annotated[str, typer.Argument(metavar="ONE", help=_SCORES)]
OtherScores = Annotated[str, typer.Argument(metavar="OTHER", help="Another one.")]
