"""`vlkit bench data`, `contrastive`, `grouped`: measured beside a peer in the same run; and those of evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import typer

from vlkit.cli import bench_evaluation
from vlkit.cli.console import err, out, show_table, write

if TYPE_CHECKING:
    from vlkit.bench.contrastive import ContrastiveBench
    from vlkit.bench.grouped import GroupedBench

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def bench() -> None:
    """Measure loaders, losses and evaluation, where there is a peer beside it in the same run."""


app.command()(bench_evaluation.zeroshot)
app.command()(bench_evaluation.scoring)
app.command()(bench_evaluation.prompts)


@app.command()
def data(
    path: str | None = typer.Argument(None, metavar="[PATH]", help="Shards to read; default: made 1280 x 960 JPEGs."),
    batch_size: int = typer.Option(64, min=2, help="Pairs a batch."),
    workers: int = typer.Option(2, min=1, help="Reading processes of either side."),
    steps: int = typer.Option(24, min=1, help="Batches timed a repeat."),
    repeats: int = typer.Option(5, min=1, help="How often each side is timed; medians count."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Images a second from shards to batches, beside open_clip's own WebDataset pipeline."""
    from vlkit.bench.reading import bench_data

    result = bench_data(path, batch_size=batch_size, workers=workers, steps=steps, repeats=repeats)
    if as_json:
        write(result.to_json())
        return
    out().print(
        f"vlkit {result.ours_images_per_s:.0f} images/s, {result.peer} {result.peer_images_per_s:.0f} images/s, "
        f"ratio {result.throughput_ratio:.2f} ({result.images} images, {workers} workers, batches of {batch_size}); "
        f"pixels are {result.pixel_difference:.2f} levels of 0..255 off a full decode",
        markup=False,
    )


@app.command()
def contrastive(
    ranks: int = typer.Option(1, min=1, help="Processes that share a batch; on CPU they share the cores."),
    batch: int = typer.Option(8192, min=2, help="Pairs of each process."),
    sizes: str = typer.Option("", metavar="N,N,...", help="Several values for --batch, one after the other."),
    dim: int = typer.Option(512, min=1, help="Width of embeddings."),
    loss: Literal["softmax", "sigmoid"] = typer.Option("softmax", help="That of CLIP or of SigLIP."),
    precision: Literal["fp32", "bf16"] = typer.Option("fp32", help="Of embeddings; bf16 runs inside autocast."),
    exchange: Literal["gather", "ring"] = typer.Option("gather", help="How vlkit sends texts."),
    scale: float = typer.Option(1 / 0.07, min=0.0, help="Scale of similarities."),
    device: Literal["auto", "cpu", "cuda"] = typer.Option("auto", help="auto: GPUs where there are enough."),
    repeats: int = typer.Option(5, min=1, help="How often each side is timed; medians count."),
    check: bool = typer.Option(True, help="Compare gradients with float64."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object a size."),
) -> None:
    """Time, peak memory, bytes and gradient error of contrastive losses, beside open_clip's.

    Ratios are vlkit's figure over open_clip's: below 1 is better. open_clip runs its cheapest exact mode (local_loss,
    gather_with_grad). Memory is what a step needs beyond the embeddings.
    """
    from vlkit.bench.contrastive import bench_contrastive, pick_device, read_sizes
    from vlkit.bench.losses import Setting

    chosen = pick_device(device, ranks)
    results = []
    for size in read_sizes(sizes) or [batch]:
        setting = Setting(loss, size, dim, precision, exchange, scale=scale, device=chosen)
        results.append(bench_contrastive(setting, ranks=ranks, repeats=repeats, check=check, tell=_tell))
        if as_json:
            write(results[-1].to_json())
    if not as_json:
        _show_contrastive(results)


@app.command()
def grouped(
    ranks: int = typer.Option(4, min=2, help="Processes; two groups of half of them."),
    batch: int = typer.Option(1024, min=2, help="Pairs of each process."),
    dim: int = typer.Option(512, min=1, help="Width of embeddings."),
    megabits: float = typer.Option(1000.0, min=0.001, help="Rate of the link between the groups, 10^6 bits a second."),
    repeats: int = typer.Option(5, min=1, help="How often each side is timed; medians count."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """A step of the grouped loss on a slow link, beside losses over all processes; and the bytes that cross it.

    The link is real (two network namespaces with a rate limit) for root on Linux, else a model; the output says which.
    """
    from vlkit.bench.grouped import bench_grouped

    result = bench_grouped(ranks=ranks, batch=batch, dim=dim, megabits=megabits, repeats=repeats, tell=_tell)
    if as_json:
        write(result.to_json())
    else:
        _show_grouped(result)


def _tell(doing: str) -> None:
    err().print(f"measuring {doing}", markup=False)


def _show_contrastive(results: list[ContrastiveBench]) -> None:
    first = results[0]
    rows = []
    for found in results:
        peer = (found.peer_s, found.peer_mb, found.peer_bytes, found.peer_gradient_error)
        ours = (found.ours_s, found.ours_mb, found.ours_bytes, found.gradient_error)
        rows.append([str(found.batch), "vlkit", *map(_number, ours), _number(found.ours_tflops)])
        rows.append(["", "open_clip", *map(_number, peer), ""])
        ratios = (found.time_ratio, found.memory_ratio, found.bytes_ratio)
        rows.append(["", "ratio", *map(_number, ratios), "", ""])
        rows += [["", name, _number(seconds), "", "", "", ""] for name, seconds in found.others.items()]
    headers = ["pairs a rank", "side", "s a step", "extra MB", "bytes received", "gradient error", "TFLOP/s"]
    title = f"{first.loss}, {first.ranks} ranks on {first.device}, width {first.dim}, {first.precision}"
    show_table(headers, rows, title=title, right=[headers[0], *headers[2:]])
    out().print(f"peer: {first.peer}; a matrix product alone: {_number(first.matrix_tflops)} TFLOP/s", markup=False)
    for note in dict.fromkeys(note for found in results for note in found.notes):
        out().print(note, markup=False)


def _show_grouped(found: GroupedBench) -> None:
    headers = ["loss", "s a step", "bytes across", "gradient error"]
    rows = [
        ["vlkit grouped", _number(found.grouped_s), _number(found.crossing_bytes), _number(found.gradient_error)],
        [
            "vlkit exact",
            _number(found.exact_s),
            _number(found.exact_crossing_bytes),
            _number(found.exact_gradient_error),
        ],
        ["open_clip", _number(found.peer_s), _number(found.peer_crossing_bytes), ""],
    ]
    title = f"{found.ranks} ranks in two groups, {found.batch} pairs a rank, width {found.dim}"
    show_table(headers, rows, title=title, right=headers[1:])
    out().print(
        f"link: {found.link}; grouped over open_clip {_number(found.time_ratio)}, over exact "
        f"{_number(found.exact_time_ratio)}; {found.negatives_per_anchor} negatives an anchor",
        markup=False,
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
