"""`vlkit scaling RUN ...`: how a loss falls with parameters and samples, from the logs of several runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from vlkit.cli.console import listed, show_table, tell, write_json
from vlkit.cli.options import AsJson
from vlkit.errors import VlkitError
from vlkit.paths import local_path

if TYPE_CHECKING:
    from vlkit.evaluation.scaling_law import ScalingFit


def scaling(
    runs: list[Path] = typer.Argument(
        None, parser=local_path, metavar="RUN", help="Folders that vlkit train wrote, of models of several sizes."
    ),
    given: Path | None = typer.Option(
        None,
        "--table",
        parser=local_path,
        metavar="FILE",
        help="Instead of runs or beside them: CSV, TSV or JSONL with loss and the terms; name and group may be there.",
    ),
    metrics: str = typer.Option(
        "loss", "--metric", metavar="A,B", help="Figures in metrics.jsonl, each fitted by itself: validation.loss.de."
    ),
    over: str = typer.Option("parameters,samples", metavar="A,B", help="What the loss is fitted over."),
    counting: Literal["trainable", "total"] = typer.Option("total", "--parameters", help="Which ones are counted."),
    stage: str = typer.Option("", metavar="NAME", help="Stage of the runs; default: the last."),
    folder: Path | None = typer.Option(
        None, "--out", parser=local_path, metavar="DIR", help="Write scaling.json, .csv and .png there."
    ),
    as_json: AsJson = False,
) -> None:
    """Fit log10 loss = b0 + b1 log10 parameters + b2 log10 samples, with 95 % intervals."""
    from vlkit.evaluation.scaling_law import fit_groups, read_points, read_runs

    if not runs and given is None:
        raise VlkitError("nothing to fit; give run folders, or a table by --table")
    terms = tuple(listed(over))
    points = read_runs(runs or [], metrics=listed(metrics), counting=counting, stage=stage or None)
    points += [] if given is None else read_points(given, over=terms)
    fits = fit_groups(points, over=terms)
    if folder is not None:
        _write(folder, fits)
    if as_json:
        write_json([fit.plain() for fit in fits])
        return
    for fit in fits:
        show_table(
            ("term", "coefficient", "95 % interval"),
            [
                (one.term or "constant", f"{one.value:.4f}", f"{one.interval.low:.4f} to {one.interval.high:.4f}")
                for one in fit.coefficients
            ],
            title=f"log10 {fit.group}: {len(fit.points)} runs, R2 {fit.r_squared:.3f}",
            right=("coefficient", "95 % interval"),
        )


def _write(folder: Path, fits: list[ScalingFit]) -> None:
    from vlkit.evaluation.report.plots import render, scaling_curves
    from vlkit.evaluation.results.results_file import csv_text, plain
    from vlkit.files import write_atomic

    rows = [
        {"group": fit.group, "name": point.name, **point.sizes, "loss": point.loss, "fitted": fit.predict(point.sizes)}
        for fit in fits
        for point in fit.points
    ]
    write_atomic(folder / "scaling.json", json.dumps(plain([fit.plain() for fit in fits]), indent=1) + "\n")
    write_atomic(folder / "scaling.csv", csv_text(list(dict.fromkeys(key for row in rows for key in row)), rows))
    write_atomic(folder / "scaling.png", render(scaling_curves(fits), kind="png"))
    tell(f"written to {folder}: scaling.json, scaling.csv, scaling.png")
