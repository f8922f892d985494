"""Words of languages that need no download: names out of Unicode CLDR and of emoji, and what vlkit asks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from vlkit import image_prompts
from vlkit import languages as language_table
from vlkit.errors import DataError, MissingPackage

_PURPOSE = "a vocabulary for languages"
_TABLES = ("territories", "languages", "scripts", "currencies", "variants", "months", "days")


def language_words(languages: Sequence[str]) -> list[str]:
    """Names in some languages, and what vlkit asks in them; as they stand, in lower case and with a capital.

    The names are those of places, languages, scripts, currencies, days and months (package babel) and of emoji (package
    emoji, 14 languages): some hundred to some thousand words a language.

    Args:
        languages: BCP 47 tags.

    Raises:
        MissingPackage: babel or emoji is not installed.
        UnknownName: No such language.
        DataError: A language that neither package has.
    """
    found = {tag: [*_cldr(tag), *_emoji(tag)] for tag in map(language_table.normalize, languages)}
    if lacking := [tag for tag, names in found.items() if not names]:
        raise DataError(
            f"vocabulary: Unicode CLDR (babel) has no names in {', '.join(lacking)}; give a file of texts instead "
            f"(vocabulary: texts.txt, one a line)"
        )
    asked = [
        one for task in image_prompts.tasks() for tag in found for one in image_prompts.question_prompts(task, tag)
    ]
    names = [*(name for some in found.values() for name in some), *asked]
    return list(dict.fromkeys(form for name in names for form in (name, name.lower(), name.capitalize())))


def _cldr(tag: str) -> Iterable[str]:
    try:
        from babel import Locale, UnknownLocaleError
    except ImportError:
        raise MissingPackage("babel", purpose=_PURPOSE, extra="data") from None
    try:
        locale = Locale.parse(tag, sep="-")
    except (UnknownLocaleError, ValueError):
        return []
    return _texts([getattr(locale, table) for table in _TABLES])


def _texts(tables: Any) -> Iterable[str]:
    """All texts in dictionaries of dictionaries."""
    for one in tables.values() if hasattr(tables, "values") else tables:
        if isinstance(one, str):
            yield one
        elif hasattr(one, "values"):
            yield from _texts(one)


def _emoji(tag: str) -> Iterable[str]:
    try:
        import emoji
    except ImportError:
        raise MissingPackage("emoji", purpose=_PURPOSE, extra="data") from None
    if tag not in emoji.LANGUAGES:
        return
    emoji.config.load_language(tag)
    yield from (facts[tag].strip(":").replace("_", " ") for facts in emoji.EMOJI_DATA.values() if tag in facts)
