"""`vlkit data build NAME`, `vlkit data shard PATH` and `vlkit data info PATH`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vlkit.cli.console import err, listed, say, show_table, tell, write
from vlkit.cli.data_build import Languages, Quiet, build
from vlkit.cli.options import Device
from vlkit.errors import DataError
from vlkit.obstacles import Obstacles
from vlkit.paths import local_path

if TYPE_CHECKING:
    from vlkit.data.sources.combine import SourceSummary

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Build and inspect data sets.")
Language = Annotated[str | None, typer.Option(metavar="LANG", help="Language of captions that name none themselves.")]
_SHOWN_PROBLEMS, _SHOWN_LANGUAGES = 5, 16
_FORMS = (
    "llava (conversations), mblip (context and label), centurio (the same with several turns), turns (vlkit's own)."
)


app.command()(build)


@app.command()
def shard(
    path: str = typer.Argument(
        metavar="PATH",
        help="A .jsonl/.csv/.tsv table, conversations (.json/.jsonl), a folder of images, shards (a folder, a tar, a "
        "pattern), or a recipe (.yaml).",
    ),
    folder: Path = typer.Option(..., "--out", parser=local_path, metavar="DIR", help="Folder for the shards."),
    per_shard: int | None = typer.Option(
        None, metavar="N", help="Most samples of a shard; 1000 where --max-mb is not given."
    ),
    max_mb: float | None = typer.Option(None, metavar="X", help="Most megabytes of a shard."),
    image_size: int | None = typer.Option(
        None,
        metavar="N",
        help="Make larger images so small (pixels of the shorter side), as JPEGs; default: copy all as they are.",
    ),
    quality: int = typer.Option(90, metavar="N", help="Of those JPEGs, 1 to 100."),
    languages: Languages = None,
    language: Language = None,
    workers: int = typer.Option(
        2, min=0, metavar="N", help="Processes that read and resize; the bytes do not depend on it."
    ),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace what is in the folder."),
    quiet: Quiet = False,
) -> None:
    """Write images with captions as WebDataset shards; an interrupted call goes on where it was when made again."""
    from vlkit.data.build.reshard import ShardOptions, check_place, checked, write_shards
    from vlkit.data.formats.caption_forms import tag
    from vlkit.data.sources.open import open_path

    chosen = None if languages is None else tuple(listed(languages))
    if per_shard is None and max_mb is None:
        per_shard = 1000
    options = ShardOptions(per_shard, max_mb, image_size, quality, chosen)
    obstacles = Obstacles()
    with obstacles.met():
        checked(options)
    with obstacles.met():
        check_place(folder, overwrite=overwrite)
    with obstacles.met():
        if language is not None:
            tag(language)
    with obstacles.met():
        source = open_path(path, language=language)
    obstacles.refuse()
    written = write_shards(source, folder, options, workers=workers, overwrite=overwrite, quiet=quiet)
    show_table(
        ("what", "count"),
        [
            ("samples", f"{written.samples:,}"),
            ("shards", f"{written.shards:,}"),
            ("megabytes", f"{written.bytes / 1e6:,.1f}"),
            ("without a caption in the languages", f"{written.left_out:,}"),
            ("bad", f"{len(written.bad):,}"),
        ],
        title=str(folder),
        right=("count",),
    )
    _tell(written.bad)


@app.command()
def translate(
    path: str = typer.Argument(
        metavar="PATH", help="What vlkit data shard takes: a table, conversations, shards, or a recipe (.yaml)."
    ),
    folder: Path = typer.Option(..., "--out", parser=local_path, metavar="DIR", help="Folder for the shards."),
    to: str = typer.Option(..., "--to", metavar="A,B,...", help="Languages to translate into, with commas (de,sw)."),
    model: str = typer.Option(
        ..., metavar="MODEL", help="hf:NAME (hf:facebook/nllb-200-distilled-600M, or a folder), or module:function."
    ),
    source_language: str = typer.Option("en", "--from", metavar="LANG", help="Language to translate from."),
    spread: Literal["all", "uniform", "mc4", "marco_llm"] = typer.Option(
        "all", metavar="HOW", help="all languages for each sample; or one each: uniform, mc4, marco_llm."
    ),
    seed: int = typer.Option(0, min=0, metavar="N", help="Deals samples to languages, with --spread."),
    text_in_images: bool = typer.Option(
        False, "--text-in-images", help="Translate tasks about text in images (ocr) too, which are left out."
    ),
    language: Language = None,
    batch_size: int = typer.Option(32, min=1, metavar="N", help="Texts at a time."),
    beams: int = typer.Option(1, min=1, metavar="N", help="Translations followed at a time."),
    device: Device = "auto",
    workers: int = typer.Option(2, min=0, metavar="N", help="Processes that read images."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace what is in the folder."),
    quiet: Quiet = False,
) -> None:
    """Translate captions and conversations with a model, into shards; an interrupted call goes on when made again."""
    from vlkit.data.build.translate import TranslationOptions, open_translator
    from vlkit.data.build.translate import translate as translate_source
    from vlkit.data.sources.open import open_path
    from vlkit.distributed.runtime import started
    from vlkit.spec.training import LoopSpec

    options = TranslationOptions(
        tuple(listed(to)), source_language, spread, seed, text_in_images, batch_size
    )  # fmt: skip
    source = open_path(path, language=language)
    with started(LoopSpec(device=device)) as runtime:
        translator, identity = open_translator(model, device=runtime.device, beams=beams)
        done = translate_source(
            source, folder, options, translator=translator, identity=identity, workers=workers, overwrite=overwrite,
            quiet=quiet,
        )  # fmt: skip
    show_table(
        ("what", "count"),
        [
            ("samples", f"{done.shards.samples:,}"),
            ("texts translated now", f"{done.texts:,}"),
            ("left out: text in images", f"{done.left_out:,}"),
            ("bad", f"{len(done.shards.bad):,}"),
            *((f"in {code}", f"{count:,}") for code, count in sorted(done.shards.languages.items())),
        ],
        title=str(folder),
        right=("count",),
    )
    _tell(done.shards.bad)


@app.command()
def convert(
    path: str = typer.Argument(
        metavar="PATH", help="What vlkit data shard takes: a table, conversations, shards, or a recipe (.yaml)."
    ),
    folder: Path = typer.Option(..., "--out", parser=local_path, metavar="DIR", help="Folder for JSON and images."),
    form: Literal["llava", "mblip", "centurio", "turns"] = typer.Option("llava", metavar="FORM", help=_FORMS),
    task: str = typer.Option("caption", metavar="TASK", help="What captions answer: caption, name."),
    wording: Literal["english", "native", "both"] = typer.Option(
        "both", metavar="HOW", help="Prompts that name the language in English, are in it (native), or both in turn."
    ),
    languages: Languages = None,
    language: Language = None,
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace what is in the folder."),
    quiet: Quiet = False,
) -> None:
    """Write conversations and captions in the form of another toolkit: LLaVA's, mBLIP's, Centurio's, or plain turns."""
    from vlkit.data.build.convert import convert as convert_source
    from vlkit.data.sources.open import open_path
    from vlkit.spec.dataset import PromptsSpec

    source = open_path(path, language=language)
    prompts = PromptsSpec(task=task, wording=wording)
    chosen = None if languages is None else listed(languages)
    done = convert_source(source, folder, form, prompts=prompts, languages=chosen, overwrite=overwrite, quiet=quiet)
    tell(f"{done.records:,} records and {done.images:,} images written to {done.file}")
    _tell(done.bad)


@app.command()
def info(
    path: str = typer.Argument(
        metavar="PATH",
        help="A folder of shards or images, a tar, a pattern, a .jsonl/.csv/.tsv table, conversations (.json/.jsonl), "
        "or a recipe (.yaml).",
    ),
    language: Language = None,
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Show what a data set holds: images, concepts, splits, languages, broken samples, one sample."""
    import json
    from dataclasses import asdict

    from vlkit.data.sources.combine import summarize
    from vlkit.data.sources.open import open_path

    source = open_path(path, language=language)
    summary = summarize(source)
    if as_json:
        write(json.dumps(asdict(summary), ensure_ascii=False))
        return
    sample = source[0]
    _print(path, summary)
    title = f"{sample.key} ({_size(sample)})"
    if sample.turns:
        turns = [(turn.role, turn.language, turn.text) for turn in sample.turns[:_SHOWN_LANGUAGES]]
        show_table(("role", "language", "turns of the first sample"), turns, title=title)
        return
    captions = [(code, " | ".join(texts)) for code, texts in list(sample.captions.items())[:_SHOWN_LANGUAGES]]
    show_table(("language", "captions of the first sample"), captions, title=title)


def _print(path: str, summary: SourceSummary) -> None:
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
    say(", ".join(f"{code} {count:,}" for code, count in summary.languages.items()))
    _tell(summary.problems)


def _tell(problems: Mapping[str, str]) -> None:
    if problems:
        err().print(f"{len(problems)} broken samples left out:", style="yellow")
        for name, reason in list(problems.items())[:_SHOWN_PROBLEMS]:
            tell(f"  {name}: {reason}")


def _size(sample: Any) -> str:
    license = sample.license or "no license given"
    if not sample.images:
        return f"no image, concept {sample.concept or '-'}, {license}"
    try:
        image = sample.image()
        size = f"{image.width} x {image.height} pixels"
    except DataError as error:
        size = str(error)
    return f"{size}, concept {sample.concept or '-'}, {license}"
