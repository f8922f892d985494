"""Conversations about images, and alt texts beside translated captions: one sample a record of a JSON or JSONL file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from vlkit.data.formats.caption_forms import CaptionError, tag, text_of
from vlkit.data.formats.conversation_forms import check_places, holds_conversation
from vlkit.data.formats.images import LazyImage
from vlkit.data.formats.sample_records import parse_record
from vlkit.data.formats.text_files import read_json, read_table
from vlkit.data.sources.combine import SampleList
from vlkit.errors import DataError
from vlkit.foreign import json_kind
from vlkit.types import Sample

_IMAGE_FIELDS = ("images", "image", "image_id")
_NATIVE, _TRANSLATED = "alt", "mt_caption"


def read_dialogues(path: Path, *, images: Path | None = None, language: str | None = None) -> SampleList:
    """The conversations of a ``.json`` list or ``.jsonl`` file (``conversation_forms`` has their forms).

    Two about one image are of one concept, unless a record says another one. No image is looked for here: what cannot
    be read is found and counted when it is wanted.

    Raises:
        DataError: Missing, of another form, or a record of it is wrong (the message gives file and line or record).
    """
    folder = _folder(path, images)
    samples = []
    for number, (where, record) in enumerate(_records(path)):
        try:
            if not holds_conversation(record):
                raise CaptionError(
                    "no conversation; expected 'conversations', 'turns', or 'context' and 'label', there are: "
                    f"{', '.join(map(str, record))}"
                )
            names = _image_names(record)
            read = parse_record(record, language=language)
            check_places(read.turns, len(names))
            samples.append(
                Sample(
                    text_of(record, "id") or text_of(record, "key") or f"{number:09d}",
                    tuple(LazyImage(folder / name, f"{folder / name} ({where})") for name in names),
                    {},
                    read.concept or (names[0] if names else ""),
                    read.split,
                    read.license,
                    turns=read.turns,
                    task=read.task,
                    translated=read.translated,
                    keywords=read.keywords,
                )
            )
        except CaptionError as error:
            raise DataError(f"{where}: {error}") from None
    if not samples:
        raise DataError(f"{path}: there are no conversations")
    return SampleList(samples)


def is_dialogues(path: Path) -> bool:
    """Whether the first record of a JSONL file is a conversation."""
    if path.suffix.lower() != ".jsonl":
        return path.suffix.lower() == ".json"
    return any(holds_conversation(record) for _, record in _first(read_table(path)))


def read_native_and_translated(
    path: Path, *, images: Path | None = None, texts: Literal["native", "translated", "both"] = "both"
) -> SampleList:
    """Alt texts and translated captions, a sample each; texts about one image are of one concept.

    Raises:
        DataError: Missing, of another form, or a line of it is wrong; no texts of that source.
    """
    folder = _folder(path, images)
    samples, passed = [], 0
    for line, record in read_table(path):
        where = f"{path}:{line}"
        try:
            if (given := record.get("source")) not in (_NATIVE, _TRANSLATED):
                raise CaptionError(f"'source' is {given!r}, expected '{_NATIVE}' or '{_TRANSLATED}'")
            translated = given == _TRANSLATED
            if texts != "both" and translated != (texts == "translated"):
                passed += 1
                continue
            (name,) = _image_names(record, most=1) or _no_image()
            if not (code := record.get("lang")) or not isinstance(code, str):
                raise CaptionError("no 'lang', the language of its text")
            read = parse_record({"caption": record.get("text"), "keywords": record.get("keywords")}, language=code)
            if not read.captions:
                raise CaptionError("'text' is empty")
            image = LazyImage(folder / name, f"{folder / name} ({where})")
            key = f"{name}:{tag(code)}:{given}:{line}"
            samples.append(
                Sample(
                    key,
                    (image,),
                    read.captions,
                    name,
                    task="caption",
                    translated=translated,
                    keywords=read.keywords,
                )
            )
        except CaptionError as error:
            raise DataError(f"{where}: {error}") from None
    if not samples:
        raise DataError(f"{path}: there are no texts{f' that are {texts} ({passed} are not)' if passed else ''}")
    return SampleList(samples)


def _records(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if path.suffix.lower() == ".jsonl":
        for line, record in read_table(path):
            yield f"{path}:{line}", record
        return
    if path.suffix.lower() != ".json":
        raise DataError(f"{path}: conversations are read from a .json file with a list of them, or from a .jsonl file")
    for number, record in enumerate(read_json(path, expected=list), start=1):
        where = f"{path}: record {number}"
        if not isinstance(record, dict):
            raise DataError(f"{where} is {json_kind(type(record))}, expected an object")
        yield where, record


def _first(rows: Iterator[tuple[int, Mapping[str, Any]]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for row in rows:
        yield row
        return


def _folder(path: Path, images: Path | None) -> Path:
    if images is not None and not images.is_dir():
        raise DataError(f"{images}: no such folder of images")
    return images or path.parent


def _image_names(record: Mapping[str, Any], *, most: int | None = None) -> list[str]:
    field = next((name for name in _IMAGE_FIELDS if record.get(name) not in (None, "", [])), None)
    if field is None:
        return []
    given = record[field]
    names = given if isinstance(given, list) else [given]
    if not all(isinstance(name, str) and name.strip() for name in names) or (most is not None and len(names) > most):
        raise CaptionError(f"{field!r} must be the path of an image{' or a list of them' if most is None else ''}")
    return [name.strip() for name in names]


def _no_image() -> list[str]:
    raise CaptionError("no 'image', the path of one")
