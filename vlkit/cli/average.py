"""`vlkit average RUN --out DIR`: one model of a run's last checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import typer

from vlkit.cli.console import say
from vlkit.errors import VlkitError
from vlkit.paths import local_path


def average(
    run: Path = typer.Argument(parser=local_path, metavar="RUN", help="The folder of a run that has ended."),
    folder: Path = typer.Option(..., "--out", parser=local_path, metavar="DIR", help="Where the model is written."),
    last: int | None = typer.Option(
        None, min=1, metavar="N", help="So many of the newest checkpoints; without it all that were kept."
    ),
    weights: Literal["equal", "linear", "exponential"] = typer.Option(
        "equal", help="linear counts later checkpoints more; exponential each the one after it times --decay."
    ),
    decay: float = typer.Option(0.9, min=0.0, max=1.0, metavar="D", help="Of exponential weights."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace a model that is in the folder already."),
) -> None:
    """Average the weights of a run's last checkpoints into one model."""
    from vlkit.models.folder import check_target, save
    from vlkit.models.locate import kind_of
    from vlkit.training.checkpoint_average import average_checkpoints

    check_target(folder, inputs=[str(run)])
    if kind_of(folder) is not None and not overwrite:
        raise VlkitError(f"{folder} holds a model already; replace it with --overwrite")
    save(average_checkpoints(run, last=last, weights=weights, decay=decay), folder)
    say(f"the model is in {folder}")
    raise typer.Exit(0)
