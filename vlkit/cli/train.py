"""`vlkit train RECIPE`: the training loop, or with --dry-run all that comes before it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import typer

from vlkit.cli.console import out, say, write
from vlkit.cli.options import Overrides, RecipeName
from vlkit.distributed.launch import launched
from vlkit.errors import SpecError, Stopped

if TYPE_CHECKING:
    from vlkit.models.trainable import Report
    from vlkit.spec.load import Resolved
    from vlkit.spec.recipe import Recipe


def train(
    recipe: RecipeName,
    overrides: Overrides = None,
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Check the recipe, build the model without weights, show what trains; stop."
    ),
    resume: bool = typer.Option(False, "--resume", help="Go on from the run folder's last checkpoint."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace a run that is in the run folder already."),
) -> None:
    """Train what a recipe describes; on several GPUs: torchrun --nproc-per-node 8 -m vlkit train RECIPE."""
    from vlkit.spec.load import resolve

    try:
        resolved = resolve(recipe, overrides or ())
    except SpecError:
        if launched().local_rank == 0:
            raise
        raise typer.Exit(2) from None  # the first process of the machine says it
    leads = launched().leads
    if dry_run:
        if leads:
            _rehearse(resolved)
        return
    from vlkit.training.loop import train as run_loop
    from vlkit.training.run_folder import Run, run_folder

    before = Run(run_folder(resolved.spec)).metrics() if resume and leads else []
    run = run_loop(resolved.spec, resume=resume, overwrite=overwrite, show=_show)
    try:
        if leads:
            if before and run.metrics() == before:
                say("\nthe run was finished already: no step was left to train")
            say(f"\n{run.summary()}\nthe model is in {run.model_path}")
    except KeyboardInterrupt as stop:
        number = getattr(stop, "number", signal.SIGINT)
        raise Stopped(run.done_message(), number=number) from None


def _show(title: str, report: Report) -> None:
    say(f"\n{title}", style="bold")
    out().print(report)


def _rehearse(resolved: Resolved[Recipe]) -> None:
    from vlkit.models.registry import build_meta
    from vlkit.models.trainable import set_trainable, trainable_report
    from vlkit.training.optimizer import peaks_of
    from vlkit.types import as_module

    recipe = resolved.spec
    write(resolved.annotated())
    model = as_module(build_meta(recipe.model))
    for number, stage in enumerate(recipe.stages, start=1):
        set_trainable(model, stage.trainable)
        report = trainable_report(model, peaks_of(model, stage, recipe.optim))
        _show(f"stage {number} of {len(recipe.stages)}: {stage.name}, {stage.steps} steps", report)
    say(f"\n{_division(recipe)}")
    out().print("\ndry run: nothing was trained and nothing was written", style="dim")


def _division(recipe: Recipe) -> str:
    """How a step's pairs are dealt out."""
    from vlkit.distributed.runtime import share_of
    from vlkit.spec.objectives import PairObjective

    (_, processes, _, local), micro = launched(), recipe.loop.micro_batch
    share = share_of(recipe.loop.batch_size, processes)
    pieces = 1 if micro is None else -(-share // micro)
    each = f"{share:,} pairs each" + (f" in {pieces} micro-batches of up to {micro:,}" if pieces > 1 else "")
    said = [f"{recipe.loop.batch_size:,} pairs a step", f"{processes} {'process' if processes == 1 else 'processes'}"]
    for objective in recipe.objectives:
        if isinstance(objective, PairObjective):
            group = getattr(objective, "group_size", processes) or local
            each += f"; {objective.kind}: {share * group - 1:,} negatives per anchor"
    return f"{', '.join(said)}, {each}"
