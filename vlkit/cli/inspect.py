"""`vlkit inspect MODEL|RECIPE`: what a model is made of, or what a recipe would build and train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from vlkit.cli.console import say, show_table, write, write_json
from vlkit.cli.options import AsJson, complete_models_and_recipes
from vlkit.errors import VlkitError

if TYPE_CHECKING:
    from vlkit.models.inspection import Inspection


def inspect(
    name: str = typer.Argument(
        metavar="MODEL|RECIPE",
        help="A model folder or name as vlkit.load takes it, a YAML file, or the name of a shipped recipe.",
        autocompletion=complete_models_and_recipes,
    ),
    overrides: list[str] | None = typer.Argument(
        None, metavar="KEY=VALUE", help="Of a recipe: values laid over it, e.g. model.bridge.kind=mlp"
    ),
    digests: bool = typer.Option(False, "--digests", help="Of a model: read its weights, and give their digests."),
    as_json: AsJson = False,
) -> None:
    """Say what a model or recipe is made of, without loading weights."""
    from vlkit.spec.load import shipped_recipes

    if name.endswith((".yaml", ".yml")) or name in shipped_recipes():
        if digests:
            raise VlkitError("--digests are of weights, and a recipe has none yet; leave it out, or name a model")
        found, stages = _of_recipe(name, overrides or ())
    elif overrides:
        raise VlkitError(f"{name} is no recipe, so {overrides[0]!r} changes nothing of it; leave it out")
    else:
        from vlkit.models.inspection import inspect_folder

        found, stages = inspect_folder(name, digests=digests), []
    if as_json:
        write_json({"name": name, **found.plain(), "stages": stages})
    else:
        _show(name, found, stages)
    raise typer.Exit(0)


def _of_recipe(name: str, overrides: Sequence[str]) -> tuple[Inspection, list[dict[str, Any]]]:
    """What it builds, on the meta device, and what each stage trains: parts with the number of their parameters."""
    from vlkit.models.inspection import inspect_model
    from vlkit.models.registry import build_meta
    from vlkit.models.trainable import set_trainable, trainable_report
    from vlkit.spec.load import resolve
    from vlkit.types import as_module

    recipe = resolve(name, overrides).spec
    model = build_meta(recipe.model)
    stages = []
    for stage in recipe.stages:
        set_trainable(as_module(model), stage.trainable)
        rows = trainable_report(as_module(model)).rows
        trains = {row.part: row.trainable for row in rows if row.trainable}
        stages.append({"name": stage.name, "steps": stage.steps, "trains": trains})
    return inspect_model(model, languages=recipe.data.languages or ()), stages


def _show(name: str, found: Inspection, stages: list[dict[str, Any]]) -> None:
    from vlkit.spec.load import dump_yaml

    digests = any(part.digest for part in found.parts)
    headers = ("part", "what", "parameters", "dtype", *(("trains in",) if stages else ()), "license")
    rows = []
    for part in found.parts:
        when = ", ".join(stage["name"] for stage in stages if part.part in stage["trains"]) or "-"
        cells = [part.part, part.what, f"{part.parameters:,}", part.dtype, *([when] if stages else []), part.license]
        rows.append([*cells, part.digest] if digests else cells)
    total = ["total", "", f"{found.parameters:,}", "", *([""] if stages else []), *([""] * (2 if digests else 1))]
    show_table(
        (*headers, "digest") if digests else headers,
        [*rows, total],
        right=("parameters",),
        title=f"{found.kind}: {name}",
    )
    say("")
    told: list[tuple[str, int | str]] = [*found.facts.items()]
    if found.languages:
        told.append(("languages", ", ".join(found.languages)))
    for number, stage in enumerate(stages, start=1):
        trained = sum(stage["trains"].values())
        told.append((f"stage {number}", f"{stage['name']}, {stage['steps']:,} steps, trains {trained:,} parameters"))
    told += [
        ("stands on", f"{base.name} (digest of its weights: {base.digest or 'not known'})") for base in found.bases
    ]
    width = max((len(key) for key, _ in told), default=0)
    for key, value in told:
        say(f"{key:{width}}  {value:,}" if isinstance(value, int) else f"{key:{width}}  {value}")
    say("")
    write(dump_yaml(found.spec))
