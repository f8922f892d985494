"""`vlkit merge MODEL --out DIR`: LoRA folded into the weights that it adapts, as a model folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vlkit.cli.console import say
from vlkit.cli.options import Model
from vlkit.errors import VlkitError
from vlkit.paths import local_path

if TYPE_CHECKING:
    from vlkit.types import Model as AModel


def merge(
    model: Model,
    folder: Path = typer.Option(..., "--out", parser=local_path, metavar="DIR", help="Where the model is written."),
    base: str = typer.Option(
        "", "--base", metavar="PATH", help="Of a folder of adapters alone: where the model is that they are for."
    ),
    peft: list[str] | None = typer.Option(
        None, "--peft", metavar="PART=DIR", help="A LoRA folder of peft's to fold into a part, as language_model=lora/."
    ),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace a model that is in the folder already."),
) -> None:
    """Fold adapters into the weights that they adapt: the same answers, without the base or the adapters' cost."""
    from vlkit.models.folder import check_target, load, save
    from vlkit.models.locate import kind_of

    adapters = [_pair(one) for one in peft or ()]
    check_target(folder, inputs=[model, base, *(place for _, place in adapters)])
    if kind_of(folder) is not None and not overwrite:
        raise VlkitError(f"{folder} holds a model already; replace it with --overwrite")
    found: AModel = load(model, base=base or None)
    folded = _fold(found, adapters)
    save(found, folder)
    say(f"folded into their weights: {', '.join(folded)}\nthe model is in {folder}")
    raise typer.Exit(0)


def _pair(text: str) -> tuple[str, str]:
    part, equals, place = text.partition("=")
    if not (part and equals and place):
        raise VlkitError(f"--peft {text!r} names no part and folder; write it as --peft language_model=lora/")
    return part, place


def _fold(model: AModel, adapters: list[tuple[str, str]]) -> list[str]:
    """Folds vlkit's own adapters and then those of peft; says into which parts."""
    from vlkit.adapt.inject import adapter_of
    from vlkit.adapt.inject import merge as fold
    from vlkit.errors import UnknownName
    from vlkit.models.peft_folder import fold_peft
    from vlkit.types import as_module

    parts = model.parts()
    folded = [name for name, part in parts.items() if adapter_of(part) is not None]
    for name, _ in adapters:
        if name not in parts:
            raise UnknownName("part", name, allowed=parts, hint="(--peft PART=DIR)")
    if folded or not adapters:
        fold(as_module(model))
    for name, place in adapters:
        fold_peft(parts[name], local_path(place))
        folded.append(name)
    return list(dict.fromkeys(folded))
