"""`vlkit data build NAME`: drawings with names, plots with words and pages with text, in many languages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer

from vlkit.cli.console import listed, show_table, tell
from vlkit.errors import DataError
from vlkit.obstacles import Obstacles
from vlkit.paths import local_path

Quiet = Annotated[bool, typer.Option("--quiet", help="No progress display.")]
Languages = Annotated[
    str | None, typer.Option(metavar="A,B,...", help="Languages to keep, with commas (de,fr,zh); default: all.")
]
_DRAWINGS = ("openmoji", "flags", "tuxpaint")
NAMES = (*_DRAWINGS, "smpqa", "ocr")
"""What there is to build."""
# option -> what it is, and whose
_OPTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "image_size": ("is the side of drawings and pages", (*_DRAWINGS, "ocr")),
    "cldr": ("adds names to openmoji and words to smpqa", ("openmoji", "smpqa")),
    "source": ("is the folder of tuxpaint's stamps", ("tuxpaint",)),
    "words": ("says what the words in plots are", ("smpqa",)),
    "texts": ("says what stands on pages", ("ocr",)),
    "fonts": ("draw plots and pages", ("smpqa", "ocr")),
    "count": ("is the number of plots or pages", ("smpqa", "ocr")),
    "seed": ("draws plots and pages", ("smpqa", "ocr")),
    "workers": ("draw plots and pages", ("smpqa", "ocr")),
    "characters": ("limits the text of pages", ("ocr",)),
    "shares": ("deals pages to languages", ("ocr",)),
    "backgrounds": ("lie under pages", ("ocr",)),
    "distortion": ("is that of pages", ("ocr",)),
    "overwrite": ("replaces shards of pages", ("ocr",)),
}


def _option(metavar: str, help_: str, *, path: bool = False, **limits: Any) -> Any:
    return typer.Option(metavar=metavar, help=help_, parser=local_path if path else None, **limits)


def build(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"{', '.join(NAMES[:-1])} or {NAMES[-1]}.")],
    folder: Annotated[
        Path | None,
        typer.Option("--out", parser=local_path, metavar="DIR", help="Folder to write; default: shards/NAME."),
    ] = None,
    image_size: Annotated[
        int | None, _option("N", "Pixels: side of drawings (default 224), shorter side of pages (512).")
    ] = None,
    languages: Languages = None,
    cldr: Annotated[
        Path | None,
        _option("DIR", "openmoji, smpqa: an unpacked cldr-annotations-full, for 100+ languages.", path=True),
    ] = None,
    source: Annotated[
        Path | None,
        _option("DIR", "tuxpaint: the stamps or the unpacked package; default: the installed one's.", path=True),
    ] = None,
    words: Annotated[
        str | None,
        _option("WHAT", "smpqa: countries (default), emoji, or a table or LANG.txt files, a word a line."),
    ] = None,
    texts: Annotated[
        Path | None, _option("PATH", "ocr: .txt, LANG.txt files, table or captions; default: countries.", path=True)
    ] = None,
    fonts: Annotated[Path | None, _option("DIR", "smpqa, ocr: fonts; default: the system's.", path=True)] = None,
    count: Annotated[int | None, _option("N", "smpqa: plots a language (100); ocr: pages in all (1000).")] = None,
    characters: Annotated[int | None, _option("N", "ocr: most of a page (200); wide ones count twice.")] = None,
    shares: Annotated[
        Literal["even", "centurio"] | None,
        _option("HOW", "ocr, pages a language: even, or centurio (English 100, Latin script 1, others 2)."),
    ] = None,
    backgrounds: Annotated[str | None, _option("WHAT", "ocr: textured (default), plain, or a folder.")] = None,
    distortion: Annotated[float | None, _option("X", "ocr: 0 (flat scans) to 1 (default).")] = None,
    seed: Annotated[int | None, _option("N", "smpqa, ocr: another one, other plots and pages (0).", min=0)] = None,
    workers: Annotated[int | None, _option("N", "smpqa, ocr: processes that draw (2).", min=0)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="ocr: replace shards that are there.")] = False,
    quiet: Quiet = False,
) -> None:
    """Build a data set: drawings with names as shards, plots with questions (smpqa), pages with text (ocr)."""
    from vlkit.errors import UnknownName

    if name not in NAMES:
        raise UnknownName("data set", name, allowed=NAMES)
    chosen = None if languages is None else listed(languages)
    given = {
        "image_size": image_size, "cldr": cldr, "source": source, "words": words, "texts": texts, "fonts": fonts,
        "count": count, "characters": characters, "shares": shares, "backgrounds": backgrounds,
        "distortion": distortion, "seed": seed, "workers": workers, "overwrite": overwrite or None,
    }  # fmt: skip
    said = {option: value for option, value in given.items() if value is not None}
    _check_options(name, said)
    target = folder or Path("shards") / name
    if name == "smpqa":
        _build_plots(target, chosen, said, quiet=quiet)
    elif name == "ocr":
        _build_pages(target, chosen, said, quiet=quiet)
    else:
        _build_drawings(name, target, chosen, said, quiet=quiet)


def _check_options(name: str, said: Mapping[str, Any]) -> None:
    obstacles = Obstacles()
    for option in said:
        what, whose = _OPTIONS[option]
        if name not in whose:
            with obstacles.met():
                flag = "--" + option.replace("_", "-")
                raise DataError(f"{flag} {what}; {name} takes none (leave {flag} out)")
    obstacles.refuse()


def _build_drawings(
    name: str, target: Path, languages: list[str] | None, said: Mapping[str, Any], *, quiet: bool
) -> None:
    from vlkit.data.build.builders import build_flags, build_openmoji, build_tuxpaint

    builders: dict[str, Callable[..., Path]] = {
        "openmoji": build_openmoji, "flags": build_flags, "tuxpaint": build_tuxpaint
    }  # fmt: skip
    builders[name](target, languages=languages, quiet=quiet, **said)
    tell(f"written to {target}; look at it with: vlkit data info {target}")


def _build_plots(target: Path, languages: list[str] | None, said: Mapping[str, Any], *, quiet: bool) -> None:
    from vlkit.data.build.chart_words import WordSet
    from vlkit.data.build.smpqa import LANGUAGES, build_smpqa

    more = {"plots" if option == "count" else option: value for option, value in said.items()}
    if (words := more.get("words")) is not None and words not in get_args(WordSet):
        more["words"] = local_path(words)
    made = build_smpqa(target, languages=languages or LANGUAGES, quiet=quiet, **more)
    first = sorted(made.glob("*_ground.json"))[0]
    tell(f"written to {target}; look at it with: vlkit data info {first}")


def _build_pages(target: Path, languages: list[str] | None, said: Mapping[str, Any], *, quiet: bool) -> None:
    from vlkit.data.build.ocr import PageOptions, build_ocr, checked, country_lines
    from vlkit.data.build.written_texts import read_texts
    from vlkit.data.formats.caption_forms import tag

    more = dict(said)
    work = {option: more.pop(option) for option in ("fonts", "workers", "overwrite") if option in more}
    texts = more.pop("texts", None)
    if not languages:
        raise DataError("ocr needs --languages A,B,..., those of the texts on its pages")
    if more.get("backgrounds") not in (None, "textured", "plain"):
        more["backgrounds"] = local_path(more["backgrounds"])
    options = PageOptions(**more)
    checked(options)
    tags = list(dict.fromkeys(map(tag, languages)))
    lines = country_lines(tags) if texts is None else read_texts(texts, tags)
    done = build_ocr(target, lines, options, quiet=quiet, **work)
    show_table(
        ("language", "pages", "fonts", "lines left out"),
        [
            (code, f"{done.shards.languages.get(code, 0):,}", str(len(fonts)), f"{done.left_out.get(code, 0):,}")
            for code, fonts in done.fonts.items()
        ],
        title=f"{target}: {done.shards.samples:,} pages, {done.shards.bytes / 1e6:,.1f} MB",
        right=("pages", "fonts", "lines left out"),
    )
