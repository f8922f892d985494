"""What the record of a sample says: a `.json` beside an image, a row of a table, what a pipeline gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlkit.data.formats.caption_forms import CaptionError, parse_captions, text_of
from vlkit.data.formats.conversation_forms import parse_turns
from vlkit.foreign import json_kind, parse_json
from vlkit.types import Turn

_YES, _NO = ("true", "yes", "1"), ("false", "no", "0", "")


@dataclass(frozen=True)
class SampleRecord:
    """Captions by BCP 47 tag or the turns of a conversation, with what is known of them; see ``types.Sample``."""

    captions: dict[str, tuple[str, ...]]
    turns: tuple[Turn, ...]
    concept: str
    split: str
    license: str
    task: str
    translated: bool | None
    keywords: tuple[str, ...]


def parse_record(
    record: Mapping[str, Any], *, language: str | None, codes: dict[str, str] | None = None
) -> SampleRecord:
    """A record in any known form. Captions beside a conversation are passed over; ``codes`` as for parse_captions.

    Raises:
        CaptionError: Captions, turns or facts of a wrong form.
    """
    turns = parse_turns(record, language=language)
    return SampleRecord(
        captions={} if turns else parse_captions(record, language=language, codes=codes),
        turns=turns,
        concept=text_of(record, "concept"),
        split=text_of(record, "split", "train"),
        license=text_of(record, "license"),
        task=text_of(record, "task"),
        translated=_flag(record, "translated"),
        keywords=_words(record, "keywords"),
    )


def read_record(raw: bytes, *, plain: bool, language: str | None) -> SampleRecord:
    """The record in a ``.txt`` (plain, a caption) or ``.json`` member.

    Raises:
        CaptionError: Not UTF-8, not JSON, or of a wrong form.
    """
    if plain:
        try:
            value: Any = {"caption": raw.decode("utf-8-sig").strip()}
        except UnicodeDecodeError as error:
            raise CaptionError(f"its captions are not UTF-8 (byte {error.start})") from None
    else:
        value = parse_json(raw, where="its captions", expected=dict, error=CaptionError)
    return parse_record(value, language=language)


def _flag(record: Mapping[str, Any], name: str) -> bool | None:
    value = record.get(name)
    if value is None or isinstance(value, bool):
        return value
    text = str(value).strip().casefold()
    if text not in (*_YES, *_NO):
        raise CaptionError(f"{name!r} is {value!r}, expected true or false")
    return text in _YES if text else None


def _words(record: Mapping[str, Any], name: str) -> tuple[str, ...]:
    given = record.get(name)
    if given is None or given == "":
        return ()
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise CaptionError(f"{name!r} must be a list of texts, found {json_kind(type(given))}")
    return tuple(one for text in given if (one := text_of({name: text}, name)))
