"""`vlkit bench zeroshot`, `scoring`, `prompts`: what evaluation in many languages costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from vlkit.cli.console import err, out, show_table, write

if TYPE_CHECKING:
    from vlkit.bench.zeroshot import ZeroShotBench


def zeroshot(
    peer: Literal["none", "clip_benchmark"] = typer.Option("clip_benchmark", help="Whom to measure beside vlkit."),
    model: str = typer.Option(
        "ViT-B-32", metavar="MODEL[/WEIGHTS]", help="Of open_clip; random weights, or a tag or file."
    ),
    images: int = typer.Option(500, min=1, help="JPEGs that are made for it."),
    languages: int = typer.Option(12, min=1, help="With names of countries in each."),
    classes: int = typer.Option(50, min=2, help="Countries."),
    batch_size: int = typer.Option(64, min=1, help="Images a forward pass, of both sides."),
    workers: int = typer.Option(2, min=0, help="Reading processes of the peer; 0: none."),
    repeats: int = typer.Option(3, min=1, help="How often each side is timed; medians count."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Zero-shot classification in many languages, beside CLIP_benchmark: time, encoder rows, equal answers.

    Ratios are vlkit's figure over CLIP_benchmark's: below 1 is better. Both get the same images, names, weights, batch
    size and threads, in float32; no templates.
    """
    from vlkit.bench.zeroshot import bench_zeroshot

    result = bench_zeroshot(
        model,
        images=images,
        languages=languages,
        classes=classes,
        batch_size=batch_size,
        workers=workers,
        repeats=repeats,
        peer=peer,
        tell=_tell,
    )
    if as_json:
        write(result.to_json())
    else:
        _show_zeroshot(result)


def scoring(
    images: int = typer.Option(50_000, min=1, help="Made embeddings."),
    dim: int = typer.Option(512, min=1, help="Width of embeddings."),
    languages: int = typer.Option(10, min=1, help="English is none of them."),
    classes: int = typer.Option(1000, min=1, help="Of each language."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Time and memory of scoring made embeddings against many languages, in a fresh process."""
    from vlkit.bench.scoring import bench_scoring

    result = bench_scoring(images=images, dim=dim, languages=languages, classes=classes)
    if as_json:
        write(result.to_json())
        return
    peak, anonymous = _mb(result.peak_rss_mb), _mb(result.peak_anonymous_mb)
    out().print(
        f"{result.language_s:.3g} s a language and {result.row_s:.3g} s for its row ({images:,} images of width {dim}, "
        f"{languages} languages of {classes} classes, {result.threads} threads); memory at its peak {peak} "
        f"resident, {anonymous} anonymous, {_mb(result.start_rss_mb)} at the start; file of embeddings "
        f"{_mb(result.features_mb)}",
        markup=False,
    )


def prompts(
    templates: Path = typer.Option(..., metavar="FILE", help="Language codes to lists of templates, JSON or YAML."),
    encoder: str = typer.Option(
        "hf:intfloat/multilingual-e5-small",
        metavar="NAME",
        help="Text encoder that class embeddings are compared with.",
    ),
    check: str = typer.Option("", metavar="LANG,...", help="Languages to compare; default: three of the file."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Texts through the encoder with and without repeated templates, for Babel-ImageNet's numbers of classes."""
    from vlkit.bench.prompt_texts import bench_prompts

    chosen = [tag.strip() for tag in check.split(",") if tag.strip()]
    result = bench_prompts(templates, encoder=encoder, check=chosen)
    if as_json:
        write(result.to_json())
        return
    out().print(
        f"{result.rows:,} of {result.naive_rows:,} texts ({100 * result.rows_ratio:.1f} %) in {result.languages} "
        f"languages; class embeddings of {', '.join(result.checked)} differ by at most "
        f"{result.embedding_difference:.1e} ({result.checked_rows} of {result.checked_naive_rows} texts)",
        markup=False,
    )


def _tell(doing: str) -> None:
    err().print(f"measuring {doing}", markup=False)


def _show_zeroshot(found: ZeroShotBench) -> None:
    headers = ["side", "s, all languages", "s, one language", "images encoded", "texts encoded"]
    rows: list[list[str | float | None]] = [
        ["vlkit", found.ours_s, found.ours_one_language_s, found.image_forwards, found.text_rows],
        [found.peer or "", found.peer_s, found.peer_one_language_s, found.peer_image_forwards, found.peer_text_rows],
        ["ratio", found.time_ratio, found.one_language_ratio, None, None],
    ]
    title = f"{found.model}, {found.n_images} images, {len(found.languages)} languages of {found.classes} classes"
    shown = rows if found.peer else rows[:1]
    show_table(headers, [[_cell(value) for value in row] for row in shown], title=title, right=headers[1:])
    if found.peer and found.agreement is not None:
        out().print(
            f"equal answers {100 * found.agreement:.2f} %; time ratio without loading the model again "
            f"{_cell(found.time_ratio_without_reload)}, of processor time {_cell(found.cpu_ratio)}; {found.device}, "
            f"{found.threads} threads",
            markup=False,
        )


def _cell(value: float | str | None) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _mb(value: float | None) -> str:
    return "not known" if value is None else f"{value:,.0f} MB"
