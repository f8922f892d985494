"""The forms in which captions come, read into one: BCP 47 tag -> texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from vlkit import languages
from vlkit.errors import DataError, UnknownName, VlkitError
from vlkit.foreign import clean

_PREFIX = "caption_"
_PLAIN = ("caption", "text")
# What tables tell of a caption beside it, as caption_id or caption_de_score. Some are languages too: id is Indonesian,
# no is Norwegian.
_ABOUT = {
    "bbox", "count", "embedding", "file", "hash", "id", "ids", "idx", "index", "key", "lang", "language",
    "len", "length", "license", "model", "name", "no", "num", "number", "path", "score", "similarity", "source",
    "split", "src", "time", "title", "tokens", "translated", "type", "url", "words",
}  # fmt: skip


class CaptionError(VlkitError):
    """Captions of a wrong form; whoever reads the file adds where."""


@lru_cache(maxsize=4096)
def tag(code: str) -> str:
    """The BCP 47 tag of a language code of any system.

    Raises:
        CaptionError: No such language.
    """
    try:
        return languages.normalize(code)
    except UnknownName as error:
        raise CaptionError(str(error)) from None


def parse_captions(
    record: Mapping[str, Any], *, language: str | None, codes: dict[str, str] | None = None
) -> dict[str, tuple[str, ...]]:
    """Captions of one record, cleaned (``vlkit.foreign.clean``), blank ones left out.

    Understood are ``captions`` (an object of language -> text or list of texts), columns ``caption_de`` (or
    ``caption_de_1``, ...), and ``caption``, ``caption_1`` or ``text`` with the language in ``language``, else the
    argument of that name. Columns that tell something about a caption (``caption_id``, ``caption_de_length``) are none.
    ``codes`` (tag -> code) of the records before count as those of this one do.

    Raises:
        CaptionError: A wrong type, an unknown language, two codes of one language, or no language at all.
    """
    found: dict[str, list[str]] = {}
    codes = {} if codes is None else codes
    given = record.get("captions")
    if given is not None:
        if not isinstance(given, Mapping):
            raise CaptionError(f'\'captions\' is a {type(given).__name__}, expected an object such as {{"de": "Hund"}}')
        for code, texts in given.items():
            _add(found, codes, str(code), texts)
    for column, texts in record.items():
        code = _language_of(column, texts)
        if code is None or (not code and texts in (None, "")):
            continue
        code = code or str(record.get("language") or language or "")
        if not code:
            raise CaptionError(
                f"'{column}' has no language: add a 'language' field or set the source's language (language: en)"
            )
        _add(found, codes, code, texts)
    return {code: tuple(dict.fromkeys(texts)) for code, texts in found.items() if texts}


def _language_of(column: str, texts: Any) -> str | None:
    """The language of a column of captions, "" where the column does not say; None for a column of something else."""
    if column in _PLAIN:
        return ""
    if not column.startswith(_PREFIX):
        return None
    code = column[len(_PREFIX) :]
    first, *others = re.split("[_-]", code.casefold())
    if _ABOUT.intersection(others) or (first in _ABOUT and _is_no_caption(first, texts)):
        return None
    try:
        tag(code)
    except CaptionError:
        if not isinstance(texts, str | list | tuple | None):
            return None
        return re.sub(r"[_-]?\d+$", "", code)  # caption_de_1, caption_2
    return code


def _is_no_caption(code: str, texts: Any) -> bool:
    """Whether ``caption_id`` and its like hold something else than captions in the language of that code."""
    try:
        tag(code)
    except CaptionError:
        return True
    return not isinstance(texts, str | list) or (
        isinstance(texts, str) and re.fullmatch(r"\S*\d\S*", texts) is not None
    )


def text_of(record: Mapping[str, Any], name: str, default: str = "") -> str:
    """A field as cleaned text: numbers are written out, 0 too; ``default`` for one that is missing or blank.

    Raises:
        CaptionError: Half a surrogate pair in it.
    """
    value = record.get(name)
    return (default if value is None else _clean(str(value))) or default


def _add(found: dict[str, list[str]], codes: dict[str, str], code: str, texts: Any) -> None:
    for text in texts if isinstance(texts, list | tuple) else [texts]:
        if text is None:
            continue
        if not isinstance(text, str):
            raise CaptionError(f"the caption in {code!r} is a {type(text).__name__}, expected text")
        if words := _clean(text).split():
            known = tag(code)
            if languages.variety(first := codes.setdefault(known, code)) != languages.variety(code):
                raise CaptionError(f"{first!r} and {code!r} are both {known} here; keep one of them")
            found.setdefault(known, []).append(" ".join(words))


def _clean(text: str) -> str:
    try:
        return clean(text)
    except DataError as error:
        raise CaptionError(str(error)) from None
