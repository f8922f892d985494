"""The forms in which captions come, read into one: BCP 47 tag -> texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from vlkit import languages
from vlkit.errors import UnknownName, VlkitError

_PREFIX = "caption_"
_PLAIN = ("caption", "text")


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


def parse_captions(record: Mapping[str, Any], *, language: str | None) -> dict[str, tuple[str, ...]]:
    """Captions of one record, blank ones left out.

    Understood are ``captions`` (an object of language -> text or list of texts), columns ``caption_de``, ..., and
    ``caption`` or ``text`` with the language in ``language``, else the argument of that name.

    Raises:
        CaptionError: A wrong type, an unknown language, or no language at all.
    """
    found: dict[str, list[str]] = {}
    given = record.get("captions")
    if given is not None:
        if not isinstance(given, Mapping):
            raise CaptionError(f'\'captions\' is a {type(given).__name__}, expected an object such as {{"de": "Hund"}}')
        for code, texts in given.items():
            _add(found, str(code), texts)
    for column, texts in record.items():
        if column.startswith(_PREFIX):
            _add(found, column[len(_PREFIX) :], texts)
    for column in _PLAIN:
        if record.get(column) not in (None, ""):
            code = record.get("language") or language
            if not code:
                raise CaptionError(
                    f"'{column}' has no language: add a 'language' field or set the source's language (language: en)"
                )
            _add(found, str(code), record[column])
    return {code: tuple(dict.fromkeys(texts)) for code, texts in found.items() if texts}


def read_record(raw: bytes, *, plain: bool, language: str | None) -> dict[str, Any]:
    """Captions by language, concept, split and license from a ``.txt`` (plain) or ``.json`` member.

    Raises:
        CaptionError: Not UTF-8, not JSON, or captions of a wrong form.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CaptionError(f"its captions are not UTF-8 (byte {error.start})") from None
    if plain:
        value: Any = {"caption": text.strip()}
    else:
        try:
            value = json.loads(text)
        except ValueError as error:
            raise CaptionError(f"bad JSON: {error}") from None
        if not isinstance(value, dict):
            raise CaptionError(f"its JSON is a {type(value).__name__}, expected an object")
    return {
        "captions": parse_captions(value, language=language),
        "concept": fact(value, "concept"),
        "split": fact(value, "split", "train"),
        "license": fact(value, "license"),
    }


def fact(record: Mapping[str, Any], name: str, default: str = "") -> str:
    """What a record says of its sample, as text; 0 is said, null and blanks are not."""
    value = record.get(name)
    text = "" if value is None else str(value).strip()
    return text or default


def _add(found: dict[str, list[str]], code: str, texts: Any) -> None:
    for text in [texts] if isinstance(texts, str) else texts if isinstance(texts, list | tuple) else [texts]:
        if text is None:
            continue
        if not isinstance(text, str):
            raise CaptionError(f"the caption in {code!r} is a {type(text).__name__}, expected text")
        if text.strip():
            found.setdefault(tag(code), []).append(" ".join(text.split()))
