"""Texts in several languages that a user has, as lists of lines: what words and pages in images are made of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from vlkit import languages as table
from vlkit.data.formats.caption_forms import CaptionError, tag
from vlkit.data.formats.text_files import TABLES, read_lines
from vlkit.data.sources.open import open_path
from vlkit.data.sources.table import TableSource
from vlkit.errors import DataError, some
from vlkit.foreign import clean
from vlkit.types import Source

_BLANKS = re.compile(r"\s+")


def read_texts(path: Path, languages: Sequence[str]) -> dict[str, list[str]]:
    """Lines by BCP 47 tag, cleaned (``vlkit.foreign.clean``), those of blanks left out.

    ``path`` is a ``.txt`` file of one language, a folder of them named by language (``de.txt``), a table (``.jsonl``,
    ``.csv``, ``.tsv``) of captions or texts with their languages, or any other source with captions (``open_path``).
    ``languages`` are BCP 47 tags.

    Raises:
        DataError: Nothing there, of another form, or a language without a line; it names the file.
    """
    if path.suffix.lower() == ".txt":
        if len(languages) != 1:
            raise DataError(
                f"{path}: a .txt file holds one language, and --languages has {len(languages)}; name one, or give a "
                f"folder with a file for each ({languages[0]}.txt, ...)"
            )
        found = {languages[0]: _lines(path)}
    elif named := _by_language(path):
        found = {language: _lines(named[language]) for language in languages if language in named}
    elif path.suffix.lower() in TABLES:
        found = texts_of(TableSource(path, texts_only=True), languages)
    else:
        found = texts_of(open_path(str(path)), languages)
    return _checked(found, languages, str(path))


def texts_of(source: Source, languages: Sequence[str]) -> dict[str, list[str]]:
    """The captions of a source by language, in order."""
    found: dict[str, list[str]] = {language: [] for language in languages}
    for index in range(len(source)):
        for language, texts in source[index].captions.items():
            if language in found:
                found[language] += texts
    return found


def _by_language(folder: Path) -> dict[str, Path]:
    """The ``.txt`` files of a folder that are named as a language; none for what is no folder."""
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("*.txt")) if folder.is_dir() else ():
        try:
            code = tag(path.stem)
        except CaptionError:
            continue  # a README.txt
        if code in files:
            raise DataError(f"{path}: {code} again, after {files[code].name}; keep one of them")
        files[code] = path
    return files


def _lines(path: Path) -> list[str]:
    found = []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            found.append(_BLANKS.sub(" ", clean(line)).strip())
        except DataError as error:
            raise DataError(f"{path}:{number}: {error}") from None
    return [line for line in found if line]


def _checked(found: dict[str, list[str]], languages: Sequence[str], where: str) -> dict[str, list[str]]:
    if lacking := [language for language in languages if not found.get(language)]:
        there = sorted(language for language, lines in found.items() if lines)
        names = some(f"{code} ({table.get(code).name})" for code in lacking)
        raise DataError(f"{where}: no text in {names}; there are: {', '.join(there) or 'none'}")
    return found
