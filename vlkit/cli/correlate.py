"""`vlkit correlate ONE OTHER`: how far two tables of scores go together."""

from __future__ import annotations

from typing import Literal

import typer

from vlkit.cli.console import out, show_table


def correlate(
    one: str = typer.Argument(
        metavar="ONE",
        help="Published scores (reference:babel_imagenet, or one model of them: reference:babel_imagenet/OC-B32), a "
        "results.json or its folder, or a released result file of Babel-ImageNet.",
    ),
    other: str = typer.Argument(metavar="OTHER", help="Another one."),
    given: Literal["", "log-classes"] = typer.Option(
        "", metavar="log-classes", help="Also hold the logarithm of the number of classes fixed."
    ),
    tasks: str = typer.Option("", "--task", metavar="A,B", help="The task of each, where a file holds several."),
    replicates: int = typer.Option(500, min=0, help="Resamples of the 95 % intervals; 0 for none."),
    seed: int = typer.Option(0, min=0, help="Of the resamples."),
) -> None:
    """Correlate two tables of scores: all points, means of models, each model over languages; intervals are 95 %."""
    from vlkit.evaluation.compare.score_tables import cells, correlate_tables, read_scores

    first, _, second = tasks.partition(",")
    tables = read_scores(one, task=first or None), read_scores(other, task=second or first or None)
    headers, rows = cells(correlate_tables(*tables, given=given, replicates=replicates, seed=seed))
    show_table(headers, rows, title=f"{tables[0].name} ({tables[0].metric}) and {tables[1].name} ({tables[1].metric})",
               right=headers[3:])  # fmt: skip
    out().print(
        "\nall: models and languages, languages resampled; models: means over the languages that all have", style="dim"
    )
