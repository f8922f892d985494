"""`vlkit quickstart`: the main job in one command."""

from __future__ import annotations

from pathlib import Path

import typer

from vlkit.cli.console import out
from vlkit.paths import local_path


def quickstart(
    folder: Path = typer.Option(
        Path("runs/quickstart"), "--out", parser=local_path, metavar="DIR", help="Where model, results and report go."
    ),
    resume: bool = typer.Option(False, "--resume", help="Go on with the quickstart that is there, stopped or not."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace a quickstart that is there already."),
) -> None:
    """Train on real data in 14 languages, evaluate on unseen concepts, report."""
    from vlkit.evaluation.results.terminal_table import task_table
    from vlkit.quickstart import quickstart as run

    console = out()

    def say(line: str) -> None:
        console.print(f"\n{line}", style="bold", markup=False)

    def show(title: str, report: object) -> None:
        console.print(title, markup=False)
        console.print(report)

    done = run(folder, resume=resume, overwrite=overwrite, show=show, say=say)
    console.print()
    console.print(task_table(done.results))
    console.print(f"\ndone in {done.seconds:.0f} s; look at {folder / 'report.html'}", markup=False)
    console.print("\ntry next:", style="bold")
    for command in done.commands:
        console.print(f"  {command}", markup=False, soft_wrap=True)
