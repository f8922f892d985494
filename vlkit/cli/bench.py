"""`vlkit bench data`: speed against a peer in the same run."""

from __future__ import annotations

import typer

from vlkit.cli.console import out, write

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Measure speed against a peer in the same run.")


@app.callback()
def bench() -> None:
    """Measure speed against a peer in the same run."""


@app.command()
def data(
    path: str | None = typer.Argument(None, metavar="[PATH]", help="Shards to read; default: made 640 x 480 JPEGs."),
    batch_size: int = typer.Option(64, min=2, help="Pairs a batch."),
    workers: int = typer.Option(2, min=1, help="Reading processes of either side."),
    steps: int = typer.Option(24, min=1, help="Batches timed a repeat."),
    repeats: int = typer.Option(5, min=1, help="How often each side is timed; medians count."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Images a second from shards to batches, beside open_clip's own WebDataset pipeline."""
    from vlkit.bench.data import bench_data

    result = bench_data(path, batch_size=batch_size, workers=workers, steps=steps, repeats=repeats)
    if as_json:
        write(result.to_json())
        return
    out().print(
        f"vlkit {result.ours_images_per_s:.0f} images/s, {result.peer} {result.peer_images_per_s:.0f} images/s, "
        f"ratio {result.throughput_ratio:.2f} ({result.images} images, {workers} workers, batches of {batch_size})",
        markup=False,
    )
