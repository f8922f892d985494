"""`vlkit compare ONE OTHER`: two evaluations, language by language."""

from __future__ import annotations

from pathlib import Path

import typer

from vlkit.cli.console import err, out, show_table
from vlkit.errors import VlkitError


def compare(
    one: str = typer.Argument(
        metavar="ONE",
        help="A results.json, the folder of an evaluation, a released result file of Babel-ImageNet, or published "
        "scores: reference:babel_imagenet/OC-B32",
    ),
    other: str = typer.Argument(metavar="OTHER", help="Another one."),
    models: str = typer.Option("", metavar="A,B", help="The two models, where a file holds several."),
    folder: Path | None = typer.Option(
        None, "--out", metavar="DIR", help="Write comparison.html, .csv, .md and .png there."
    ),
    task: str | None = typer.Option(
        None, metavar="NAME", help="Compare this task alone; published scores stand for it."
    ),
    seed: int = typer.Option(0, min=0, help="Of the bootstrap."),
) -> None:
    """Compare two models: both scores, the difference with its interval, and English on the same classes."""
    from vlkit.evaluation.compare.comparison import compare as run

    compared = run(one, other, models=_two(models), task=task, seed=seed)
    headers, rows = compared.cells()
    show_table(headers, rows, title=f"{compared.one} against {compared.other}, in %", right=headers[2:])
    out().print("\n".join(["", *compared.summary()]), markup=False)
    for note in compared.notes:
        err().print(f"note: {note}", markup=False)
    if folder is not None:
        from vlkit.evaluation.compare.comparison_page import write_comparison
        from vlkit.evaluation.report.plots import difference_dots, render
        from vlkit.files import write_atomic

        write_atomic(folder / "comparison.csv", compared.csv())
        write_atomic(folder / "comparison.md", compared.markdown())
        write_atomic(folder / "comparison.png", render(difference_dots(compared), kind="png"))
        page = write_comparison(folder / "comparison.html", compared)
        err().print(f"written to {folder}: comparison.csv, comparison.md, comparison.png; look at {page}", markup=False)


def _two(models: str) -> tuple[str, str] | None:
    if not models:
        return None
    names = [name.strip() for name in models.split(",")]
    if len(names) != 2 or not all(names):
        raise VlkitError(f"--models {models!r}: give two names with a comma between, as in --models mine,baseline")
    return names[0], names[1]
