"""`vlkit data build NAME` and `vlkit data info PATH`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vlkit.cli.console import err, out, show_table, write

if TYPE_CHECKING:
    from vlkit.data.summary import Summary

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Build and inspect data sets.")
_SHOWN_PROBLEMS, _SHOWN_LANGUAGES = 5, 16


@app.command()
def build(
    name: str = typer.Argument(metavar="NAME", help="openmoji or flags."),
    folder: Path | None = typer.Option(None, "--out", help="Folder for the shards; default: data/NAME."),
    image_size: int = typer.Option(224, help="Side of the images in pixels."),
    languages: str | None = typer.Option(None, help="Languages to keep, with commas (de,fr,zh); default: all."),
    cldr: Path | None = typer.Option(
        None, help="An unpacked cldr-annotations-full: emoji names in its 100+ languages."
    ),
    quiet: bool = typer.Option(False, help="No progress display."),
) -> None:
    """Build an image-text data set as WebDataset shards: openmoji (emoji names) or flags (country names)."""
    from vlkit.data.build import build_flags, build_openmoji
    from vlkit.errors import DataError, UnknownName

    if name not in ("openmoji", "flags"):
        raise UnknownName("data set", name, allowed=("openmoji", "flags"))
    if name == "flags" and cldr is not None:
        raise DataError("--cldr adds names to openmoji; the names of flags come from babel (leave --cldr out)")
    target = folder or Path("data") / name
    chosen = None if languages is None else [language.strip() for language in languages.split(",") if language.strip()]
    if name == "openmoji":
        build_openmoji(target, image_size=image_size, languages=chosen, cldr=cldr, quiet=quiet)
    else:
        build_flags(target, image_size=image_size, languages=chosen, quiet=quiet)
    err().print(f"written to {target}; look at it with: vlkit data info {target}", markup=False, emoji=False)


@app.command()
def info(
    path: str = typer.Argument(
        metavar="PATH", help="A folder of shards, a tar, a pattern, or a .jsonl/.csv/.tsv table."
    ),
    language: str | None = typer.Option(None, help="Language of captions that name none themselves."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Show what a data set holds: images, concepts, splits, languages, broken samples, one sample."""
    import json
    from dataclasses import asdict

    from vlkit.data.summary import open_path, summarize

    source = open_path(path, language=language)
    summary = summarize(source)
    if as_json:
        write(json.dumps(asdict(summary), ensure_ascii=False))
        return
    sample = source[0]
    _print(path, summary)
    captions = [(code, " | ".join(texts)) for code, texts in list(sample.captions.items())[:_SHOWN_LANGUAGES]]
    show_table(("language", "captions of the first sample"), captions, title=f"{sample.key} ({_size(sample)})")


def _print(path: str, summary: Summary) -> None:
    show_table(
        ("what", "count"),
        [
            ("images", f"{summary.images:,}"),
            ("concepts", f"{summary.concepts:,}"),
            ("captions", f"{summary.captions:,}"),
            ("languages", f"{len(summary.languages):,}"),
            *((f"split {name}", f"{count:,}") for name, count in summary.splits.items()),
        ],
        title=path,
        right=("count",),
    )
    out().print(", ".join(f"{code} {count:,}" for code, count in summary.languages.items()), markup=False, emoji=False)
    if summary.problems:
        err().print(f"{len(summary.problems)} broken samples left out:", style="yellow")
        for name, reason in list(summary.problems.items())[:_SHOWN_PROBLEMS]:
            err().print(f"  {name}: {reason}", markup=False, emoji=False)


def _size(sample: Any) -> str:
    image = sample.image()
    license = sample.license or "no license given"
    return f"{image.width} x {image.height} pixels, concept {sample.concept or '-'}, {license}"
