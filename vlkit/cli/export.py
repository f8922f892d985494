"""`vlkit export MODEL --format open_clip|transformers --out DIR`: a model for another library, checked there."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import typer

from vlkit.cli.console import headed, say, show_table
from vlkit.cli.options import Model
from vlkit.paths import local_path

_WHAT = {
    "pixels": "image embeddings of equal pixels",
    "images": "image embeddings of equal pictures, each library with its own preprocessing",
    "texts": "text embeddings of equal strings, each library with its own tokenizer",
    "similarity": "scale and bias of the similarities (relative)",
}


def export(
    model: Model,
    format: Literal["open_clip", "transformers"] = typer.Option(..., "--format", help="Whose format."),
    folder: Path = typer.Option(..., "--out", parser=local_path, metavar="DIR", help="Where the model is written."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace a model that is in the folder already."),
    repo: str = typer.Option(
        "", "--repo", metavar="ORG/NAME", help="Write a folder to be uploaded to the hub under this name (open_clip)."
    ),
) -> None:
    """Write a model for another library, load it there and compare."""
    from vlkit.models.folder import load
    from vlkit.models.registry import export as write

    exported = write(load(model), folder, format=format, overwrite=overwrite, repo=repo or None)
    rows = [(_WHAT[name], f"{value:.1e}") for name, value in exported.differences._asdict().items()]
    show_table(
        ("compared after loading it in " + format, "largest difference"),
        rows,
        right=("largest difference",),
        title=f"equal to {exported.tolerance:g}" + (", but for the preprocessing" if exported.notes else ""),
    )
    for note in exported.notes:
        headed("note", note)
    say(f"\nthe model is in {exported.folder}")
