"""`vlkit mteb MODEL TASK...`: tasks of the Massive Text Embedding Benchmark and its image part, by language."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import typer

from vlkit.cli.console import collector_off, show_table, tags, tell, write
from vlkit.cli.eval import model_name
from vlkit.cli.loading import loaded
from vlkit.cli.options import Device, Model
from vlkit.errors import VlkitError
from vlkit.paths import local_path

if TYPE_CHECKING:
    from vlkit.evaluation.mteb.mteb_run import MtebRow


def mteb(
    model: Model,
    tasks: list[str] = typer.Argument(
        metavar="TASK...", help="mteb's tasks or benchmarks, e.g. XM3600T2IRetrieval or 'MIEB(Multilingual)'."
    ),
    languages: str = typer.Option(
        "", metavar="A,B,...", help="Run what is in these languages alone; default: all (see vlkit list languages)."
    ),
    folder: Path | None = typer.Option(
        None,
        "--out",
        parser=local_path,
        metavar="DIR",
        help="Folder for mteb's result files, which several models may share.",
    ),
    name: str = typer.Option("", metavar="NAME", help="What results call the model; default: after MODEL."),
    resume: bool = typer.Option(False, "--resume", help="Run only what the folder lacks."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Run all, and replace what is in the folder."),
    batch_size: int = typer.Option(32, min=1, metavar="N", help="Images or texts a forward pass."),
    device: Device = "auto",
    as_json: bool = typer.Option(False, "--json", help="Print JSON, with all of mteb's metrics."),
) -> None:
    """Run tasks of mteb (MTEB and MIEB) on a model; mteb reads their data sets and computes the scores."""
    wanted = tags(languages)  # what can be wrong is looked at before anything slow is loaded
    if resume and overwrite:
        raise VlkitError("--resume and --overwrite exclude each other; give one of them")
    with collector_off():
        from vlkit.evaluation.mteb.mteb_model import require_mteb

        require_mteb()
        from vlkit.distributed.launch import launched
        from vlkit.evaluation.embed.encoding import Encoding
        from vlkit.evaluation.mteb.mteb_run import choose_tasks, evaluate_mteb
        from vlkit.types import ImageTextModel

        if (size := launched().size) > 1:
            raise VlkitError(f"vlkit mteb is one process, not {size}; start it without torchrun")
        chosen = choose_tasks(tasks, wanted)
    with loaded(model, device=device, expect=ImageTextModel) as (found, _):
        rows = evaluate_mteb(
            found,
            chosen,
            name=name or model_name(model),
            folder=folder,
            resume=resume,
            overwrite=overwrite,
            encoding=Encoding(text_batch_size=batch_size, quiet=False),
        )
    if as_json:
        write(json.dumps([asdict(row) for row in rows], ensure_ascii=False, indent=1))
    else:
        _show(rows)
    if folder is not None:
        tell(f"written to {folder / 'results'}")


def _show(rows: Sequence[MtebRow]) -> None:
    headers = ("task", "language", "subset", "split", "metric", "score")
    show_table(headers, _lines(rows), title="main scores of mteb's tasks, times 100", right=("score",))


def _lines(rows: Sequence[MtebRow]) -> Iterator[tuple[str, ...]]:
    for (task, split), group in groupby(rows, key=lambda row: (row.task, row.split)):
        same = list(group)
        for row in same:
            yield task, row.language or "", row.subset, split, row.metric, _percent(row.score)
        scores = [row.score for row in same if row.score is not None]
        if len(same) > 1 and len(scores) == len(same):
            yield task, f"mean of {len(scores)}", "", split, same[0].metric, _percent(fmean(scores))


def _percent(score: float | None) -> str:
    return "none" if score is None else f"{100 * score:.1f}"
