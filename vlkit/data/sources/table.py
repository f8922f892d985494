"""A table of captions beside a folder of images."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL.Image import Image

from vlkit.data.formats.caption_forms import CaptionError, parse_captions
from vlkit.data.formats.images import LazyImage
from vlkit.errors import DataError, did_you_mean
from vlkit.types import Sample, SampleMeta

_IMAGE_COLUMNS = ("image", "file_name", "filepath")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_TABLES = (".jsonl", *_DELIMITERS)


@dataclass
class _Entry:
    line: int
    captions: dict[str, tuple[str, ...]]
    concept: str
    split: str
    license: str


@dataclass
class FolderSource:
    """Samples of a JSONL, CSV or TSV table; rows of one image are one sample.

    Columns: ``image`` (path), then ``caption`` or ``text`` with an optional ``language``, or ``caption_de``, ...,
    or (JSONL) ``captions`` = {"de": "Hund", "fr": ["chien"]}; optional ``concept``, ``split``, ``license``.

    Args:
        table: The table.
        images: Folder that image paths are relative to; None takes the table's own.
        language: BCP 47 tag of captions that name none themselves.
        texts_only: Rows are texts in several languages without an image; asking for one is an error.

    Raises:
        DataError: The table is missing, empty, or a line of it is wrong (the message gives file and line).
    """

    table: Path
    images: Path | None = None
    language: str | None = None
    texts_only: bool = False
    _keys: list[str] = field(init=False, default_factory=list)
    _entries: dict[str, _Entry] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.images is not None and not self.images.is_dir():
            raise DataError(f"{self.images}: no such folder of images")
        for line, record in _records(self.table, texts_only=self.texts_only):
            try:
                self._add(line, record)
            except CaptionError as error:
                raise DataError(f"{self.table}:{line}: {error}") from None
        if not self._entries:
            raise DataError(f"{self.table}: the table has no rows")
        self._keys = list(self._entries)

    def _add(self, line: int, record: Mapping[str, Any]) -> None:
        image = next((record[column] for column in _IMAGE_COLUMNS if record.get(column)), None)
        if image is None and self.texts_only:
            image = f"line {line}"
        if not isinstance(image, str):
            raise CaptionError(f"no 'image' column; there are: {', '.join(record)}{_hint(record)}")
        captions = parse_captions(record, language=self.language)
        if not captions:
            raise CaptionError(
                "no caption; expected 'caption' or 'text', 'caption_LANGUAGE' columns, or a 'captions' object"
            )
        known = self._entries.get(image)
        if known is None:
            facts = [
                str(record.get(name) or default)
                for name, default in (("concept", ""), ("split", "train"), ("license", ""))
            ]
            self._entries[image] = _Entry(line, captions, *facts)
            return
        for name in ("concept", "split"):
            if record.get(name) and str(record[name]) != getattr(known, name):
                given = getattr(known, name) or "none"
                raise CaptionError(f"{name} of {image!r} is {record[name]!r} here and {given!r} in line {known.line}")
        for code, texts in captions.items():
            known.captions[code] = tuple(dict.fromkeys([*known.captions.get(code, ()), *texts]))

    def __len__(self) -> int:
        return len(self._keys)

    def meta(self, index: int) -> SampleMeta:
        """Key, concept, split and languages, from the table alone."""
        key = self._keys[index]
        entry = self._entries[key]
        counts = tuple(len(texts) for texts in entry.captions.values())
        return SampleMeta(key, entry.concept, entry.split, tuple(entry.captions), counts)

    def __getitem__(self, index: int) -> Sample:
        """One sample; its image is read and decoded when called for."""
        key = self._keys[index]
        entry = self._entries[key]
        path = (self.images or self.table.parent) / key
        where = f"{path} ({self.table.name}:{entry.line})"
        image: Callable[[], Image] = NoImage(where) if self.texts_only else LazyImage(path, where)
        return Sample(key, image, entry.captions, entry.concept, entry.split, entry.license)


@dataclass(frozen=True)
class NoImage:
    """Stands where an image would, in a table of texts."""

    name: str

    def __call__(self) -> Image:
        """Raises DataError: there is none."""
        raise DataError(f"{self.name}: a source with texts_only has no images; leave out the losses that need them")


def _hint(record: Mapping[str, Any]) -> str:
    suggestions = [column for column in record if did_you_mean(column, ["image"]).startswith("did")]
    return f"; is {suggestions[0]!r} meant?" if suggestions else ""


def _records(table: Path, *, texts_only: bool) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line number (from 1) and content of each row."""
    if table.suffix.lower() not in _TABLES:
        raise DataError(f"{table}: a table must be one of {', '.join(_TABLES)}")
    try:
        # utf-8-sig: spreadsheets put a byte order mark before the first column name.
        with table.open(encoding="utf-8-sig", newline="") as stream:
            if table.suffix.lower() == ".jsonl":
                yield from _jsonl(table, stream)
            else:
                yield from _csv(table, stream, texts_only=texts_only)
    except FileNotFoundError:
        raise DataError(f"{table}: no such table") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{table}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{table}: {error.strerror or error}") from error


def _jsonl(table: Path, stream: Iterator[str] | Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, text in enumerate(stream, start=1):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except ValueError as error:
            raise DataError(f"{table}:{line}: bad JSON: {error}") from None
        if not isinstance(record, dict):
            raise DataError(f"{table}:{line}: a JSON {type(record).__name__}, expected an object")
        yield line, record


def _csv(table: Path, stream: Any, *, texts_only: bool) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(stream, delimiter=_DELIMITERS[table.suffix.lower()], strict=True)
    try:
        columns = reader.fieldnames or []
        if not columns:
            raise DataError(f"{table}: the table is empty")
        if not texts_only and not set(columns) & set(_IMAGE_COLUMNS):
            raise DataError(
                f"{table}:1: no 'image' column; there are: {', '.join(columns)}{_hint(dict.fromkeys(columns))}"
            )
        for record in reader:
            if None in record or None in record.values():
                found = len(columns) + len(record.get(None) or []) - sum(value is None for value in record.values())
                raise DataError(f"{table}:{reader.line_num}: {found} columns, the header has {len(columns)}")
            yield reader.line_num, record
    except csv.Error as error:
        raise DataError(f"{table}:{reader.line_num}: {error}") from None
