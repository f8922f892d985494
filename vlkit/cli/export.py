"""`vlkit export MODEL --format FORMAT --out DIR`: a model for another library, checked there."""

from __future__ import annotations

from pathlib import Path

import typer

from vlkit.cli.console import headed, say, show_table
from vlkit.cli.options import Model
from vlkit.paths import local_path

_WHAT = {
    "pixels": "image embeddings of equal pixels",
    "images": "image embeddings of equal pictures, each library with its own preprocessing",
    "ids": "text embeddings of equal token ids",
    "texts": "text embeddings of equal strings, each library with its own tokenizer",
    "similarity": "scale and bias of the similarities (relative)",
    "logits": "logits of equal ids and pixels",
    "prompts": "logits of equal questions and pictures, with the library's own tokenizer and preprocessing",
}
_FORMATS = ("open_clip", "transformers", "onnx", "blip2", "llava")  # for the help alone: the model's kind knows its own


def export(
    model: Model,
    format: str = typer.Option(
        ...,
        "--format",
        metavar="FORMAT",
        help="Of a dual encoder: open_clip, transformers or onnx; of a vision-language model: blip2 or llava.",
        autocompletion=lambda: list(_FORMATS),
    ),
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
        (f"compared after loading it as {format}", "largest difference"),
        rows,
        right=("largest difference",),
        title=f"equal to {exported.tolerance:g}" + (", but for what is noted" if exported.notes else ""),
    )
    for note in exported.notes:
        headed("note", note)
    say(f"\nthe model is in {exported.folder}")
