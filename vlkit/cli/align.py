"""`vlkit align MODEL`: how close a model puts texts that say the same thing in two languages."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from vlkit.cli.console import collector_off, say, show_table, tags, tell, write
from vlkit.cli.eval import model_name
from vlkit.cli.options import AsJson, Device
from vlkit.errors import VlkitError
from vlkit.paths import local_path

if TYPE_CHECKING:
    from vlkit.evaluation.alignment.outcome import Alignment
    from vlkit.evaluation.alignment.parallel_texts import ParallelTexts
    from vlkit.evaluation.results.results_file import Results
    from vlkit.types import Sample

_COLUMNS = {
    "mexa_mean": ("MEXA mean", 100),
    "mexa_max": ("MEXA max", 100),
    "mexa_max_layer": ("at layer", 1),
    "p1_to_pivot": ("P@1", 100),
    "csls_to_pivot": ("CSLS", 100),
    "langrank": ("ranker", 1),
    "langrank_centred": ("centred", 1),
    "projected_mexa": ("projected", 100),
    "tokens_per_character": ("tokens/char", 1),
    "unknown_share": ("unknown", 100),
}


def align(
    model: str = typer.Argument(
        metavar="MODEL",
        help="hf:ID or a folder: a language model or encoder of transformers; or what vlkit.load takes.",
    ),
    texts: str = typer.Option(
        "emoji-names",
        metavar="TEXTS",
        help="emoji-names; a folder of LANGUAGE.txt files or FLORES's; or en=one.txt,de=other.txt.",
    ),
    pivot: str = typer.Option("en", metavar="LANG", help="The language all others are compared with."),
    languages: str = typer.Option("", metavar="A,B,...", help="These alone; default: all that have texts."),
    score: Literal["mexa", "langrank", "all"] = typer.Option("all", help="Which scores."),
    pooling: Literal["weighted", "last", "mean"] = typer.Option(
        "weighted", help="How tokens become one embedding for MEXA."
    ),
    limit: int | None = typer.Option(None, min=2, metavar="N", help="The first N lines alone (MEXA's paper: 100)."),
    images: str = typer.Option(
        "",
        metavar="IMAGES",
        help="openmoji (with emoji-names), or a file whose line n names the image of line n: images as the pivot.",
    ),
    against: Path | None = typer.Option(
        None,
        parser=local_path,
        metavar="RESULTS",
        help="A results.json: correlate with its zero-shot scores over languages.",
    ),
    folder: Path | None = typer.Option(
        None, "--out", parser=local_path, metavar="DIR", help="Folder for the results; default: runs/align/MODEL."
    ),
    batch_size: int = typer.Option(32, min=1, metavar="N", help="Texts a forward pass."),
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Score how well a model aligns languages, from parallel texts: MEXA, Language Ranker, bitext retrieval."""
    wanted = tags(languages)
    results = None if against is None else _results(against)
    lines, samples = _open(texts, images, pivot=pivot, languages=wanted, limit=limit)  # before a model is loaded
    with collector_off():
        from vlkit.distributed.runtime import choose_device
        from vlkit.evaluation.alignment.hidden_states import open_text
        from vlkit.evaluation.alignment.runner import align as run
        from vlkit.evaluation.embed.encoding import Encoding
        from vlkit.spec.training import LoopSpec

        loaded = open_text(model, device=str(choose_device(LoopSpec(device=device))))
    if loaded.note:
        tell(f"note: {loaded.note}")
    name = model_name(model)
    settings: Any = {"languages": wanted, "score": score, "pooling": pooling, "images": samples}
    found = run(loaded, lines, name=name, encoding=Encoding(text_batch_size=batch_size, quiet=False), **settings)
    _end(found, results, folder or Path("runs/align") / name, as_json=as_json)


def _open(
    texts: str, images: str, *, pivot: str, languages: list[str] | None, limit: int | None
) -> tuple[ParallelTexts, tuple[Sample, ...]]:
    with collector_off():
        from vlkit.evaluation.alignment.image_pivot import open_images
        from vlkit.evaluation.alignment.parallel_texts import open_texts

    lines = open_texts(texts, pivot=pivot, languages=languages)
    lines.choose(languages)
    return lines.first(limit), open_images(images, lines)[:limit] if images else ()


def _end(found: Alignment, results: Results | None, folder: Path, *, as_json: bool) -> None:
    if results is not None:
        from vlkit.evaluation.alignment.outcome import correlate_with

        found = replace(found, correlations=correlate_with(found, results))
    paths = found.save(folder)
    if as_json:
        write(found.json())
    else:
        _show(found)
    tell(f"written to {folder}: {', '.join(path.name for path in paths)}")


def _results(path: Path) -> Results:
    from vlkit.evaluation.results.results_file import Results

    found = Results.load(path / "results.json" if path.is_dir() else path)
    if not found.rows:
        raise VlkitError(f"{path} has no zero-shot scores to correlate with")
    return found


def _show(found: Alignment) -> None:
    rows = sorted(found.languages, key=lambda row: -_first(row.mexa_mean, row.projected_mexa, row.langrank))
    shown = {name: column for name, column in _COLUMNS.items() if not all(_missing(getattr(row, name)) for row in rows)}
    headers = ("language", "pairs", *(title for title, _ in shown.values()))
    cells = [
        [row.language, str(row.n), *(_cell(getattr(row, name), scale) for name, (_, scale) in shown.items())]
        for row in rows
    ]
    meta = found.meta
    title = f"{', '.join(meta['models'])} on {meta['texts']}, pivot {meta['pivot']}; MEXA, P@1 and unknown in %"
    show_table(headers, cells, title=title, right=headers[1:])
    chances = [row.mexa_chance for row in rows if not _missing(row.mexa_chance)]
    if chances:
        say(f"chance: MEXA {100 * math.fsum(chances) / len(chances):.2f} %, P@1 {100 / max(2, rows[0].n):.2f} %")
    if found.images:
        _show_images(found)
    if found.correlations:
        _show_correlations(found)


def _show_images(found: Alignment) -> None:
    headers = ("language", "pairs", "MEXA", "image to text", "text to image", "swap")
    names = ("mexa", "p1_image_to_text", "p1_text_to_image", "english_swap")
    rows = sorted(found.images, key=lambda row: -row.mexa)
    cells = [[row.language, str(row.n), *(_cell(getattr(row, name), 100) for name in names)] for row in rows]
    show_table(headers, cells, title="images as the pivot, in %", right=headers[1:])


def _show_correlations(found: Alignment) -> None:
    headers = ("score", "zero-shot scores of", "languages", "Pearson", "95 % interval", "Spearman", "Kendall")
    cells = []
    for row in found.correlations:
        pearson, low, high, *others = (
            _cell(value, 1) for value in (row.pearson, row.pearson_low, row.pearson_high, row.spearman, row.kendall)
        )
        cells.append([row.score, f"{row.variant}, {row.task}", str(row.n), pearson, f"{low} to {high}", *others])
    show_table(headers, cells, title="correlation over languages", right=headers[2:])


def _first(*values: float) -> float:
    return next((value for value in values if not _missing(value)), -math.inf)


def _missing(value: float | str) -> bool:
    return value == "" or (isinstance(value, float) and math.isnan(value))


def _cell(value: float | str, scale: float) -> str:
    if isinstance(value, str):
        return value
    return "" if _missing(value) else f"{scale * value:.1f}" if scale != 1 else f"{value:.3f}"
