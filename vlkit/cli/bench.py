"""`vlkit bench`: loaders, losses and evaluation, measured beside a peer in the same run where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vlkit.cli.console import listed, say, show_table, tell, write
from vlkit.paths import local_path

if TYPE_CHECKING:
    from vlkit.bench.figures import Figures

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Repeats = Annotated[int, typer.Option(min=1, metavar="N", help="How often each side is timed; medians count.")]
app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def bench() -> None:
    """Measure loaders, losses and evaluation, where there is a peer beside it in the same run."""


@app.command()
def zeroshot(
    peer: Literal["none", "clip_benchmark"] = typer.Option("clip_benchmark", help="Whom to measure beside vlkit."),
    model: str = typer.Option(
        "ViT-B-32", metavar="MODEL[/WEIGHTS]", help="Of open_clip; random weights, or a tag or file."
    ),
    images: int = typer.Option(500, min=1, metavar="N", help="JPEGs that are made for it."),
    languages: int = typer.Option(12, min=1, metavar="N", help="With names of countries in each."),
    classes: int = typer.Option(50, min=2, metavar="N", help="Countries."),
    batch_size: int = typer.Option(64, min=1, metavar="N", help="Images a forward pass, of both sides."),
    workers: int = typer.Option(2, min=0, metavar="N", help="Reading processes of the peer; 0: none."),
    repeats: Repeats = 3,
    as_json: AsJson = False,
) -> None:
    """Zero-shot classification in many languages, beside CLIP_benchmark: time, encoder rows, equal answers.

    Ratios are vlkit's figure over CLIP_benchmark's: below 1 is better. Both get the same images, names, weights, batch
    size and threads, in float32; no templates.
    """
    from vlkit.bench.zeroshot import bench_zeroshot

    made = {"images": images, "languages": languages, "classes": classes}
    run = {"batch_size": batch_size, "workers": workers, "repeats": repeats}
    result = bench_zeroshot(model, **made, **run, peer=peer, tell=_tell)
    if as_json:
        write(result.to_json())
    else:
        _show_zeroshot(result)


@app.command()
def t2i(
    batch: int = typer.Option(1, min=1, metavar="N", help="Images at a time."),
    side: int = typer.Option(16, min=2, metavar="N", help="Rows, and columns, of an image's codes."),
    steps: int = typer.Option(20, min=1, metavar="N", help="Steps of the sampler."),
    naive_steps: int = typer.Option(50, min=1, metavar="N", help="Steps that the published loop takes by default."),
    repeats: Repeats = 3,
    as_json: AsJson = False,
) -> None:
    """Sampling of images beside the loop that Show-o and NeoBabel publish: time, memory, equal codes.

    Speedups are that loop's time over vlkit's: above 1 is better. Both run the same weights on the same prompts, in
    float32 on the CPU.
    """
    from vlkit.bench.t2i import bench_t2i
    from vlkit.bench.t2i_sides import T2iSetting

    setting = T2iSetting(batch=batch, side=side)
    result = bench_t2i(setting, steps=steps, naive_steps=naive_steps, repeats=repeats, tell=_tell)
    if as_json:
        write(result.to_json())
    else:
        _show_t2i(result)


@app.command()
def vlm(
    language_model: Literal["bloom", "mt5", "llama"] = typer.Option(
        "bloom", help="Whose layers write: bloom and mt5 are mBLIP's, samples of llama lie end to end."
    ),
    batch: int = typer.Option(8, min=1, metavar="N", help="Samples of one image each."),
    vocabulary: int = typer.Option(250_880, min=16, metavar="N", help="Rows of the language model's embedding."),
    repeats: Repeats = 5,
    as_json: AsJson = False,
) -> None:
    """Training and writing of a vision-language model beside transformers' Blip2: time, memory, equal logits.

    Ratios are vlkit's figure over transformers': below 1 is better. Both have equal shapes and weights, the same parts
    frozen and the same LoRA, and get the same images and texts, in float32 on the CPU.
    """
    from vlkit.bench.vlm import bench_vlm
    from vlkit.bench.vlm_sides import VlmSetting

    result = bench_vlm(VlmSetting(language_model, batch, vocabulary), repeats=repeats, tell=_tell)
    if as_json:
        write(result.to_json())
    else:
        _show_vlm(result)


@app.command(name="vlm-eval")
def vlm_eval(
    images: int = typer.Option(16, min=2, metavar="N", help="Made photos."),
    languages: int = typer.Option(7, min=1, max=14, metavar="N", help="Each image is asked about in so many."),
    batch_size: int = typer.Option(16, min=1, metavar="N", help="Questions that vlkit answers at a time."),
    written: int = typer.Option(8, min=1, metavar="N", help="Tokens of an answer."),
    repeats: Repeats = 5,
    as_json: AsJson = False,
) -> None:
    """Evaluation of a vision-language model beside one call of transformers a sample: time, equal answers.

    The peer does as the simple models of lmms-eval do: each question by itself, from the image file to the text. Both
    are the same model with random weights, in float32 on the CPU; vlkit's time is that of the whole task, with its
    figures. The ratio is vlkit's over the peer's: below 1 is better.
    """
    from vlkit.bench.vlm_eval import EvalSetting, bench_vlm_eval

    setting = EvalSetting(images, languages, batch_size, written)
    result = bench_vlm_eval(setting, repeats=repeats, tell=_tell)
    if as_json:
        write(result.to_json())
        return
    rows = [_row("vlkit", result.ours_s), _row(result.peer, result.peer_s), _row("ratio", result.time_ratio)]
    title = f"{result.n_images} images, {result.n_languages} languages, {result.written} tokens an answer"
    show_table(["side", "s"], rows, title=title, right=["s"])
    say(f"equal answers {100 * result.agreement:.2f} % of {result.n_answers}; {result.threads} threads")


@app.command()
def scoring(
    images: int = typer.Option(50_000, min=1, metavar="N", help="Made embeddings."),
    dim: int = typer.Option(512, min=1, metavar="N", help="Width of embeddings."),
    languages: int = typer.Option(10, min=1, metavar="N", help="English is none of them."),
    classes: int = typer.Option(1000, min=1, metavar="N", help="Of each language."),
    as_json: AsJson = False,
) -> None:
    """Time and memory of scoring made embeddings against many languages, in a fresh process."""
    from vlkit.bench.scoring import bench_scoring

    result = bench_scoring(images=images, dim=dim, languages=languages, classes=classes)
    if as_json:
        write(result.to_json())
        return
    peak, anonymous = _mb(result.peak_rss_mb), _mb(result.peak_anonymous_mb)
    say(
        f"{result.language_s:.3g} s a language and {result.row_s:.3g} s for its row ({images:,} images of width {dim}, "
        f"{languages} languages of {classes} classes, {result.threads} threads); memory at its peak {peak} "
        f"resident, {anonymous} anonymous, {_mb(result.start_rss_mb)} at the start; file of embeddings "
        f"{_mb(result.features_mb)}"
    )


@app.command()
def prompts(
    templates: Path = typer.Option(
        ..., parser=local_path, metavar="FILE", help="Language codes to lists of templates, JSON or YAML."
    ),
    encoder: str = typer.Option(
        "hf:intfloat/multilingual-e5-small",
        metavar="NAME",
        help="Text encoder that class embeddings are compared with.",
    ),
    check: str = typer.Option("", metavar="LANG,...", help="Languages to compare; default: three of the file."),
    as_json: AsJson = False,
) -> None:
    """Texts through the encoder with and without repeated templates, for Babel-ImageNet's numbers of classes."""
    from vlkit.bench.prompt_texts import bench_prompts

    result = bench_prompts(templates, encoder=encoder, check=listed(check))
    if as_json:
        write(result.to_json())
        return
    say(
        f"{result.rows:,} of {result.naive_rows:,} texts ({100 * result.rows_ratio:.1f} %) in {result.languages} "
        f"languages; class embeddings of {', '.join(result.checked)} differ by at most "
        f"{result.embedding_difference:.1e} ({result.checked_rows} of {result.checked_naive_rows} texts)"
    )


@app.command()
def data(
    path: str | None = typer.Argument(None, metavar="[PATH]", help="Shards to read; default: made 1280 x 960 JPEGs."),
    batch_size: int = typer.Option(64, min=2, metavar="N", help="Pairs a batch."),
    workers: int = typer.Option(2, min=1, metavar="N", help="Reading processes of either side."),
    steps: int = typer.Option(24, min=1, metavar="N", help="Batches timed a repeat."),
    repeats: Repeats = 5,
    as_json: AsJson = False,
) -> None:
    """Images a second from shards to batches, beside open_clip's own WebDataset pipeline."""
    from vlkit.bench.reading import bench_data

    result = bench_data(path, batch_size=batch_size, workers=workers, steps=steps, repeats=repeats)
    if as_json:
        write(result.to_json())
        return
    say(
        f"vlkit {result.ours_images_per_s:.0f} images/s, {result.peer} {result.peer_images_per_s:.0f} images/s, "
        f"ratio {result.throughput_ratio:.2f} ({result.images} images, {workers} workers, batches of {batch_size}); "
        f"pixels are {result.pixel_difference:.2f} levels of 0..255 off a full decode"
    )


@app.command()
def contrastive(
    ranks: int = typer.Option(1, min=1, metavar="N", help="Processes that share a batch; on CPU they share the cores."),
    batch: int = typer.Option(8192, min=2, metavar="N", help="Pairs of each process."),
    sizes: str = typer.Option("", metavar="N,N,...", help="Several values for --batch, one after the other."),
    dim: int = typer.Option(512, min=1, metavar="N", help="Width of embeddings."),
    loss: Literal["softmax", "sigmoid"] = typer.Option("softmax", help="That of CLIP or of SigLIP."),
    precision: Literal["fp32", "bf16"] = typer.Option("fp32", help="Of embeddings; bf16 runs inside autocast."),
    exchange: Literal["gather", "ring"] = typer.Option("gather", help="How vlkit sends texts."),
    scale: float = typer.Option(1 / 0.07, min=0.0, metavar="X", help="Scale of similarities."),
    device: Literal["auto", "cpu", "cuda"] = typer.Option("auto", help="auto: GPUs where there are enough."),
    repeats: Repeats = 5,
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
    ranks: int = typer.Option(4, min=2, metavar="N", help="Processes; two groups of half of them."),
    batch: int = typer.Option(1024, min=2, metavar="N", help="Pairs of each process."),
    dim: int = typer.Option(512, min=1, metavar="N", help="Width of embeddings."),
    megabits: float = typer.Option(
        1000.0, min=0.001, metavar="X", help="Rate of the link between the groups, 10^6 bits a second."
    ),
    repeats: Repeats = 5,
    as_json: AsJson = False,
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
    tell(f"measuring {doing}")


def _show_contrastive(results: list[Figures]) -> None:
    first = results[0]
    rows = []
    for found in results:
        peer = (found.peer_s, found.peer_mb, found.peer_bytes, found.peer_gradient_error)
        ours = (found.ours_s, found.ours_mb, found.ours_bytes, found.gradient_error, found.ours_tflops)
        ratios = (found.time_ratio, found.memory_ratio, found.bytes_ratio)
        rows.append([str(found.batch), *_row("vlkit", *ours)])
        sides = {"open_clip": peer, "ratio": ratios, **{name: (seconds,) for name, seconds in found.others.items()}}
        rows += [["", *_row(name, *values), *[""] * (5 - len(values))] for name, values in sides.items()]
    headers = ["pairs a rank", "side", "s a step", "extra MB", "bytes received", "gradient error", "TFLOP/s"]
    title = f"{first.loss}, {first.ranks} ranks on {first.device}, width {first.dim}, {first.precision}"
    show_table(headers, rows, title=title, right=[headers[0], *headers[2:]])
    say(f"peer: {first.peer}; a matrix product alone: {_number(first.matrix_tflops)} TFLOP/s")
    for note in dict.fromkeys(note for found in results for note in found.notes):
        say(note)


def _show_grouped(found: Figures) -> None:
    headers = ["loss", "s a step", "bytes across", "gradient error"]
    rows = [
        _row("vlkit grouped", found.grouped_s, found.crossing_bytes, found.gradient_error),
        _row("vlkit exact", found.exact_s, found.exact_crossing_bytes, found.exact_gradient_error),
        [*_row("open_clip", found.peer_s, found.peer_crossing_bytes), ""],
    ]
    title = f"{found.ranks} ranks in two groups, {found.batch} pairs a rank, width {found.dim}"
    show_table(headers, rows, title=title, right=headers[1:])
    say(
        f"link: {found.link}; grouped over open_clip {_number(found.time_ratio)}, over exact "
        f"{_number(found.exact_time_ratio)}; {found.negatives_per_anchor} negatives an anchor"
    )


def _show_zeroshot(found: Figures) -> None:
    headers = ["side", "s, all languages", "s, one language", "images encoded", "texts encoded"]
    theirs = (found.peer_s, found.peer_one_language_s, found.peer_image_forwards, found.peer_text_rows)
    rows = [_row("vlkit", found.ours_s, found.ours_one_language_s, found.image_forwards, found.text_rows)]
    if found.peer:
        rows.append(_row(found.peer, *theirs, none=""))
        rows.append(_row("ratio", found.time_ratio, found.one_language_ratio, None, None, none=""))
    title = f"{found.model}, {found.n_images} images, {len(found.languages)} languages of {found.classes} classes"
    show_table(headers, rows, title=title, right=headers[1:])
    if found.peer and found.agreement is not None:
        say(
            f"equal answers {100 * found.agreement:.2f} %; time ratio without loading the model again "
            f"{_number(found.time_ratio_without_reload)}, of processor time {_number(found.cpu_ratio)}; "
            f"{found.device}, {found.threads} threads"
        )


def _show_vlm(found: Figures) -> None:
    headers = ["side", "s a step", "extra MB", "s to write"]
    rows = [
        _row("vlkit", found.ours_s, found.ours_mb, found.ours_generate_s),
        _row("vlkit, image tokens cached", found.cached_s, found.cached_mb, None),
        _row("transformers", found.peer_s, found.peer_mb, found.peer_generate_s),
        _row("ratio", found.step_time_ratio, found.memory_ratio, found.generate_time_ratio),
        _row("ratio, cached", found.cached_step_time_ratio, found.cached_memory_ratio, None),
    ]
    title = f"{found.architecture}, {found.batch} samples, {found.vocabulary:,} rows of the vocabulary"
    show_table(headers, rows, title=title, right=headers[1:])
    say(
        f"peer: {found.peer}; logits differ by {_number(found.logits_error)}, gradients by "
        f"{_number(found.gradient_error)}; {found.labelled_places} of {found.padded_places} places are learned"
    )


def _show_t2i(found: Figures) -> None:
    headers = ["side", "s an image", "extra MB"]
    rows = [
        _row(f"vlkit, {found.steps} steps", found.ours_s, found.ours_mb),
        _row(f"published loop, {found.steps} steps", found.peer_s, found.peer_mb),
        _row(f"published loop, {found.naive_steps} steps", found.peer_long_s, found.peer_mb),
    ]
    title = f"{found.side}x{found.side} codes of {found.codes:,}, prompts padded to {found.padded} by the peer"
    show_table(headers, rows, title=title, right=headers[1:])
    say(
        f"{found.prefix_cache_speedup:.3g} times as fast in equal steps, {found.fast_path_speedup:.3g} times with "
        f"{found.steps} steps for {found.naive_steps}; equal codes {100 * found.tokens_equal:.4g} %; "
        f"peer: {found.peer}; {found.threads} threads"
    )


def _mb(value: float | None) -> str:
    return "not known" if value is None else f"{value:,.0f} MB"


def _row(name: str, *figures: float | None, none: str = "-") -> list[str]:
    return [name, *(_number(figure, none=none) for figure in figures)]


def _number(value: float | None, *, none: str = "-") -> str:
    return none if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
