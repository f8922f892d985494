"""Pages with text in many languages, and what stands on them: training data for reading, as SynthDoG's is.

SynthDoG is that of Donut (arXiv 2111.15664, appendix A.2). Centurio (arXiv 2501.05122, appendix B.3) made such pages in
a hundred languages from Wikipedias, with Noto fonts on photographs.
"""

from __future__ import annotations

import logging
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Literal

from vlkit import files
from vlkit import languages as table
from vlkit.data.build.chart_words import find_words, in_order
from vlkit.data.build.fonts import Face, FontPair, find_faces, packaged_fonts, pairs, pairs_for
from vlkit.data.build.lettering import Lettering, check_shaping
from vlkit.data.build.page_drawing import PageLook, draw_page, lay_out, page_size
from vlkit.data.build.reshard import ShardOptions, Written, check_place, write_shards
from vlkit.data.formats.caption_forms import tag
from vlkit.data.formats.folders import files_in
from vlkit.data.formats.images import IMAGE_FILES, StoredImage
from vlkit.data.sources.combine import meta_of
from vlkit.errors import DataError, some
from vlkit.line_breaks import cells, pieces
from vlkit.obstacles import Obstacles
from vlkit.types import Sample, SampleMeta

_log = logging.getLogger(__name__)
_VERSION = 1  # of the pages; a change makes half-written folders start anew
Shares = Literal["even", "centurio"]
_ENGLISH, _LATIN, _OTHER = 100, 1, 2
_OWN_LANGUAGES = ("cs", "de", "el", "en", "es", "fr", "hy", "id", "ka", "pl", "ru", "sw", "tr", "uk")
_OWN_PAGES = 400
_MAX_LEFT_OUT = 0.1
_MOST_FONTS = 24
_PER_SHARD = 1000
_FEWEST_CELLS = 12


@dataclass(frozen=True)
class PageOptions:
    """What pages hold and how they look.

    ``count`` pages in all; ``shares`` of languages: ``even``, or as in Centurio's pre-training, 500,000 English pages
    to 5,000 of each language in Latin script and 10,000 of each other one. ``characters`` a page at most, wide ones
    count twice. ``backgrounds``: ``textured``, ``plain`` (paper alone), or a folder of images. ``image_size`` and
    ``distortion``: see ``PageLook``.
    """

    count: int = 1000
    shares: Shares = "even"
    characters: int = 200
    image_size: int = 512
    distortion: float = 1.0
    backgrounds: Literal["plain", "textured"] | Path = "textured"
    seed: int = 0


@dataclass(frozen=True)
class OcrWritten:
    """What came of it: ``fonts`` that were used and ``left_out`` lines that none of them has, by language."""

    shards: Written
    fonts: Mapping[str, tuple[str, ...]]
    left_out: Mapping[str, int]


def build_ocr(
    folder: Path,
    texts: Mapping[str, Sequence[str]],
    options: PageOptions,
    *,
    fonts: Path | None = None,
    workers: int = 2,
    overwrite: bool = False,
    quiet: bool = False,
) -> OcrWritten:
    """Writes pages with pieces of ``texts`` (lines by BCP 47 tag) as shards; each has its text as the caption.

    Their task is ``ocr``. The same input gives the same bytes; a call that was interrupted goes on where it was when it
    is made again (``write_shards``). A line with a character that the fonts of most lines lack is left out and counted.

    Raises:
        MissingPackage: fontTools is not installed.
        DataError: An option out of range, no font for a language or for more than one in ten of its lines.
    """
    checked(options)
    check_place(folder, overwrite=overwrite)
    faces = find_faces(fonts)
    chosen: dict[str, tuple[list[FontPair], list[str]]] = {}
    obstacles = Obstacles()
    for code, lines in texts.items():
        with obstacles.met():
            chosen[tag(code)] = _fonts_and_lines(faces, tag(code), lines)
    obstacles.refuse()
    pages = OcrPages(chosen, options)
    left_out = {language: len(texts[language]) - len(lines) for language, (_, lines) in chosen.items()}
    for language, count in left_out.items():
        if count:
            _log.warning("%s: %d lines are left out, which have characters that no font has", language, count)
    written = write_shards(
        pages, folder, ShardOptions(per_shard=_PER_SHARD), workers=workers, overwrite=overwrite, quiet=quiet
    )
    names = {language: tuple(pair.name for pair in found) for language, (found, _) in chosen.items()}
    return OcrWritten(written, names, {language: count for language, count in left_out.items() if count})


def build_own_pages(folder: Path, *, image_size: int) -> Path:
    """Writes some hundred pages with names of countries in 14 languages, drawn with fonts that every installation has.

    Raises:
        MissingPackage: babel or fontTools is not installed.
        DataError: ``image_size`` is out of range.
    """
    texts = country_lines(_OWN_LANGUAGES)
    options = PageOptions(count=_OWN_PAGES, characters=60, image_size=image_size, distortion=0.5)
    build_ocr(folder, texts, options, fonts=packaged_fonts(), quiet=True)
    return folder


def country_lines(languages: Sequence[str]) -> dict[str, list[str]]:
    """Names of countries by language, a line each, in an order of their own.

    Raises:
        MissingPackage: babel is not installed.
        DataError: A language without names.
    """
    words = find_words("countries", languages)
    return {language: [keyed[key] for key in in_order(keyed, salt="pages")] for language, keyed in words.items()}


def checked(options: PageOptions) -> None:
    """Refuses options out of range.

    Raises:
        DataError: What is out of range.
    """
    for name, value, low, high in (
        ("--count", options.count, 1, 10**8),
        ("--characters", options.characters, 20, 1000),
        ("--image-size", options.image_size, 128, 4096),
        ("--distortion", options.distortion, 0, 1),
    ):
        if not low <= value <= high:
            raise DataError(f"{name} {value:g}: must be {low:g} to {high:g}")


class OcrPages:
    """The pages as a source of samples: what stands on each is known at once, and drawn when its image is asked for."""

    def __init__(self, texts: Mapping[str, tuple[list[FontPair], list[str]]], options: PageOptions) -> None:
        self.texts, self.options = texts, options
        images = _backgrounds(options.backgrounds)
        self.look = PageLook(options.image_size, options.distortion, options.backgrounds == "plain", images)
        self._languages = page_languages(tuple(texts), options)
        fonts = {language: [pair.name for pair in found] for language, (found, _) in texts.items()}
        states = [f"{path} {files.file_state(path)}" for path in images]
        self._mark = files.digest([_VERSION, {**asdict(options), "backgrounds": states}, fonts])

    def __len__(self) -> int:
        return len(self._languages)

    def __getitem__(self, index: int) -> Sample:
        language = self._languages[index]
        name = f"page-{index:08d}"
        image = StoredImage(
            partial(self.draw, index), f"{name} of {self._mark}", self._pair(index).main.path
        )  # fmt: skip
        return Sample(name, (image,), {language: (self.text(index),)}, task="ocr")

    def meta(self, index: int) -> SampleMeta:
        """Key, split and language of a page, which is not drawn."""
        return meta_of(self[index])

    def text(self, index: int) -> str:
        """What stands on a page."""
        lines = self.texts[self._languages[index]][1]
        return excerpt(lines, self._random(index, "text"), most=self.options.characters)

    def draw(self, index: int) -> bytes:
        """The page as a JPEG.

        Raises:
            DataError: Its text does not fit.
        """
        lettering = Lettering(self._pair(index), self._languages[index])
        random = self._random(index, "page")
        layout = lay_out(self.text(index), lettering, page_size(self.look, random), random)
        return draw_page(layout, lettering, self.look, random)

    def _pair(self, index: int) -> FontPair:
        return self._random(index, "font").choice(self.texts[self._languages[index]][0])

    def _random(self, index: int, what: str) -> Random:
        return Random(f"{self.options.seed}:{index}:{what}")


def page_languages(languages: Sequence[str], options: PageOptions) -> list[str]:
    """The language of each page, mixed by the seed; numbers of pages by shares, largest remainders first."""
    weights = {language: _weight(language, options.shares) for language in languages}
    exact = {language: options.count * weight / sum(weights.values()) for language, weight in weights.items()}
    counts = {language: math.floor(share) for language, share in exact.items()}
    spare = options.count - sum(counts.values())
    for language in sorted(exact, key=lambda one: (counts[one] - exact[one], one))[:spare]:
        counts[language] += 1
    found = [language for language in sorted(counts) for _ in range(counts[language])]
    Random(f"{options.seed}:languages").shuffle(found)
    return found


def excerpt(lines: Sequence[str], random: Random, *, most: int) -> str:
    """A piece of a text, of 12 to ``most`` cells, short and long ones equally often.

    It begins with a line, or with a word somewhere in a line that is much longer.
    """
    start = random.randrange(len(lines))
    gap = "" if unicodedata.east_asian_width(lines[start][-1]) in "WF" else " "
    wanted = round(math.exp(random.uniform(math.log(_FEWEST_CELLS), math.log(most))))
    taken, length = "", 0
    for number in range(len(lines)):
        line = lines[(start + number) % len(lines)]
        for piece in pieces((line if taken else _opening(line, random, most))[: 8 * most] + gap):
            size = cells(piece)
            if taken and length + size > wanted:
                return taken.rstrip()
            taken, length = taken + piece, length + size
        if length >= wanted:
            break
    return taken.rstrip()


def _opening(line: str, random: Random, most: int) -> str:
    """A line, or what follows a place in it where it is much longer than a page."""
    if len(line) <= 4 * most:
        return line
    start = random.randrange(len(line) - 2 * most)
    return "".join(pieces(line[start : start + 8 * most])[1:])


def _weight(language: str, shares: Shares) -> int:
    if shares == "even":
        return 1
    return _ENGLISH if language == "en" else _LATIN if table.get(language).script == "Latn" else _OTHER


def _fonts_and_lines(faces: Sequence[Face], language: str, lines: Sequence[str]) -> tuple[list[FontPair], list[str]]:
    """Fonts of a language, and the lines that all of these have every character of.

    Raises:
        DataError: No font has nine in ten of the lines.
    """
    check_shaping(language, "".join(lines))
    signs = [frozenset(line) for line in lines]
    best: tuple[int, set[str]] = (-1, set())
    every = "".join(frozenset().union(*signs))
    for pair in pairs(faces, language):
        lacking = set(pair.missing(every))
        kept = sum(lacking.isdisjoint(line) for line in signs)
        if kept > best[0]:
            best = kept, lacking
        if not lacking:
            break
    if best[0] < (1 - _MAX_LEFT_OUT) * len(lines):
        pairs_for(faces, language, every)  # which says what is missing
    kept_lines = [line for line, own in zip(lines, signs, strict=True) if best[1].isdisjoint(own)]
    return pairs_for(faces, language, "".join(kept_lines))[:_MOST_FONTS], kept_lines


def _backgrounds(given: Literal["plain", "textured"] | Path) -> tuple[Path, ...]:
    if not isinstance(given, Path):
        return ()
    found = tuple(path for path in files_in(given, "**/*") if path.suffix.lower() in IMAGE_FILES)
    if not found:
        raise DataError(
            f"--backgrounds {given}: no images there ({some(sorted(IMAGE_FILES), most=4)}); give a folder of images, "
            f"or one of plain, textured"
        )
    return found
