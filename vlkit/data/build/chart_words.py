"""Words that name the parts of a plot: names of countries, of emoji, or words from a user's own lists."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from vlkit.data.build.chart_plans import COLORS
from vlkit.data.build.cldr import annotation_names, territory_names
from vlkit.data.build.openmoji import emoji_names
from vlkit.data.build.written_texts import read_texts
from vlkit.errors import DataError, MissingPackage

WordLists = Mapping[str, Mapping[str, str]]
"""BCP 47 tag -> what a word stands for (a region, an emoji, a line) -> word."""
WordSet = Literal["countries", "emoji"]
_NO_COUNTRY = frozenset(("EU", "EZ", "QO", "UN", "XA", "XB", "ZZ"))
_PLAIN = frozenset(("Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc"))
_JOINERS = "\u200c\u200d"
_TAKEN = frozenset((*COLORS, "yes", "no"))  # what questions and answers say themselves
_LEAST = 60  # of a language's countries that have a name, for it to be offered


def find_words(words: WordSet | Path, languages: Sequence[str], *, cldr: Path | None = None) -> WordLists:
    """Word lists of languages (BCP 47 tags); the same thing has the same key in each, as far as there is a word for it.

    ``countries`` are CLDR's names of territories in 150+ languages (package babel), ``emoji`` the short names of the
    package emoji in 14 languages, with ``cldr`` in 100+; a path is what ``read_texts`` takes, a word a line.

    Raises:
        MissingPackage: babel or emoji is not installed.
        DataError: A language without words, or a path that cannot be read.
    """
    if isinstance(words, Path):
        lists = read_texts(words, languages)
        return {language: _labels(_numbered(lines)) for language, lines in lists.items()}
    found = _countries(languages) if words == "countries" else _emoji(languages, cldr)
    if lacking := [language for language in languages if not found.get(language)]:
        raise DataError(
            f"--words {words}: no words in {', '.join(lacking)}; give lists of your own (--words DIR with "
            f"{lacking[0]}.txt, a word a line)"
        )
    return {language: _labels(found[language].items()) for language in languages}


def in_order(words: Iterable[str], *, salt: str) -> list[str]:
    """Keys of words in an order that follows from ``salt`` and each key alone, whatever other keys there are."""
    return sorted(words, key=lambda key: hashlib.sha256(f"{salt}:{key}".encode()).digest())


def begins_as(word: str, others: Iterable[str]) -> bool:
    """Whether a word begins as another one or the other way round: an answer by its beginning would fit both."""
    mine = word.casefold()
    return any(mine.startswith(one.casefold()) or one.casefold().startswith(mine) for one in others)


def _numbered(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    return ((str(number), line) for number, line in enumerate(lines))


def _labels(words: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The words that can be labels: letters, blanks and hyphens only, so that quotes in a question stay clear."""
    return {
        key: word for key, word in words
        if word.casefold() not in _TAKEN and any(character.isalpha() for character in word)
        and all(unicodedata.category(one) in _PLAIN or one in f" -{_JOINERS}" for one in word)
    }  # fmt: skip


def _countries(languages: Sequence[str]) -> dict[str, dict[str, str]]:
    try:
        from babel import Locale
    except ImportError:
        raise MissingPackage("babel", purpose="words in plots (names of countries)", extra="data") from None
    codes = [code for code in Locale("en").territories if len(code) == 2 and code.isalpha()]
    regions = sorted(set(codes) - _NO_COUNTRY)
    return territory_names(regions, min_names=_LEAST, languages=languages)


def _emoji(languages: Sequence[str], cldr: Path | None) -> dict[str, dict[str, str]]:
    names = emoji_names()
    if cldr is not None:
        for emoji, by_language in annotation_names(cldr, names).items():
            for language, texts in by_language.items():
                names[emoji].setdefault(language, texts)
    return {
        language: {emoji: by_language[language][0] for emoji, by_language in names.items() if language in by_language}
        for language in languages
    }
