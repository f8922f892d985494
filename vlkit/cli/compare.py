"""`vlkit compare ONE OTHER`, `vlkit correlate ONE OTHER`: two evaluations, and how far two tables of scores agree."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import typer

from vlkit.cli.console import out, say, show_table, tell
from vlkit.cli.options import OtherScores, Scores
from vlkit.errors import VlkitError
from vlkit.paths import local_path


def compare(
    one: Scores,
    other: OtherScores,
    models: str = typer.Option("", metavar="A,B", help="The two models, where a file holds several."),
    folder: Path | None = typer.Option(
        None, "--out", parser=local_path, metavar="DIR", help="Write comparison.html, .csv, .md and .png there."
    ),
    task: str | None = typer.Option(
        None, metavar="NAME", help="Compare this task alone; published scores stand for it."
    ),
    seed: int = typer.Option(0, min=0, metavar="N", help="Of the bootstrap."),
) -> None:
    """Compare two models: both scores, the difference with its interval, and English on the same classes."""
    show_comparison(one, other, models=_two(models), folder=folder, task=task, seed=seed)


def show_comparison(
    one: str | Path,
    other: str | Path,
    *,
    models: tuple[str, str] | None = None,
    folder: Path | None,
    task: str | None = None,
    seed: int = 0,
) -> None:
    """Prints the comparison of two evaluations, and writes its files into a folder; None writes none."""
    from vlkit.evaluation.compare.comparison import compare as run

    compared = run(one, other, models=models, task=task, seed=seed)
    headers, rows = compared.cells()
    show_table(headers, rows, title=f"{compared.one} against {compared.other}, in %", right=headers[2:])
    say("\n".join(["", *compared.summary()]))
    for note in compared.notes:
        tell(f"note: {note}")
    if folder is not None:
        from vlkit.evaluation.compare.comparison_page import write_comparison
        from vlkit.evaluation.report.plots import difference_dots, render
        from vlkit.files import write_atomic

        write_atomic(folder / "comparison.csv", compared.csv())
        write_atomic(folder / "comparison.md", compared.markdown())
        write_atomic(folder / "comparison.png", render(difference_dots(compared), kind="png"))
        page = write_comparison(folder / "comparison.html", compared)
        tell(f"written to {folder}: comparison.csv, comparison.md, comparison.png; look at {page}")


def _two(models: str) -> tuple[str, str] | None:
    if not models:
        return None
    one, _, other = (name.strip() for name in models.partition(","))
    if not one or not other or "," in other:
        raise VlkitError(f"--models {models!r}: give two names with a comma between, as in --models mine,baseline")
    return one, other


def correlate(
    one: Scores,
    other: OtherScores,
    given: Literal["log-classes"] | None = typer.Option(
        None, help="Also hold the logarithm of the number of classes fixed."
    ),
    tasks: str = typer.Option("", "--task", metavar="A,B", help="The task of each, where a file holds several."),
    replicates: int = typer.Option(500, min=0, metavar="N", help="Resamples of the 95 % intervals; 0 for none."),
    seed: int = typer.Option(0, min=0, metavar="N", help="Of the resamples."),
) -> None:
    """Correlate two tables of scores: all points, means of models, each model over languages; intervals are 95 %."""
    from vlkit.evaluation.compare.score_tables import cells, correlate_tables, read_scores

    first, _, second = tasks.partition(",")
    tables = read_scores(one, task=first or None), read_scores(other, task=second or first or None)
    headers, rows = cells(correlate_tables(*tables, given=given or "", replicates=replicates, seed=seed))
    show_table(headers, rows, title=f"{tables[0].name} ({tables[0].metric}) and {tables[1].name} ({tables[1].metric})",
               right=headers[3:])  # fmt: skip
    out().print(
        "\nall: models and languages, languages resampled; models: means over the languages that all have", style="dim"
    )
