"""A table of captions beside a folder of images."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from vlkit.data.formats.caption_forms import CaptionError, text_of
from vlkit.data.formats.conversation_forms import holds_conversation
from vlkit.data.formats.images import LazyImage
from vlkit.data.formats.sample_records import parse_record
from vlkit.data.formats.text_files import read_table
from vlkit.errors import DataError, did_you_mean
from vlkit.foreign import json_kind
from vlkit.types import Sample, SampleMeta

_IMAGE_COLUMNS = ("image", "file_name", "filepath")


@dataclass
class _TableRow:
    line: int
    path: str
    captions: dict[str, tuple[str, ...]]
    concept: str
    split: str
    license: str
    task: str
    translated: bool | None
    keywords: tuple[str, ...]


@dataclass
class TableSource:
    """Samples of a JSONL, CSV or TSV table; rows of one image are one sample.

    Columns: ``image`` (path), then ``caption`` or ``text`` with an optional ``language``, or ``caption_de``, ...,
    or (JSONL) ``captions`` = {"de": "Hund", "fr": ["chien"]}; optional ``concept``, ``split``, ``license``,
    ``task``, ``translated``, ``keywords``.

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
    _codes: dict[str, str] = field(init=False, default_factory=dict)
    _keys: list[str] = field(init=False, default_factory=list)
    _entries: dict[str, _TableRow] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.images is not None and not self.images.is_dir():
            raise DataError(f"{self.images}: no such folder of images")
        for line, record in read_table(self.table, header=None if self.texts_only else self._check_columns):
            try:
                self._add(line, record)
            except CaptionError as error:
                raise DataError(f"{self.table}:{line}: {error}") from None
        if not self._entries:
            raise DataError(f"{self.table}: the table has no rows")
        self._keys = list(self._entries)

    def _check_columns(self, columns: Sequence[str]) -> None:
        if not set(columns) & set(_IMAGE_COLUMNS):
            raise DataError(f"{self.table}:1: {_no_image(columns)}")

    def _add(self, line: int, record: Mapping[str, Any]) -> None:
        column = next((name for name in _IMAGE_COLUMNS if str(record.get(name) or "").strip()), None)
        image = f"line {line}" if column is None and self.texts_only else column and record[column]
        if image is None:
            raise CaptionError(_no_image(record))
        if not isinstance(image, str):
            raise CaptionError(f"{column!r} must be the path of an image, found {json_kind(type(image))}")
        path = str(PurePosixPath(image.strip()))
        image = unicodedata.normalize("NFC", path)
        if holds_conversation(record):
            raise CaptionError(
                "is a conversation; give the table as a source of kind dialogues (vlkit data takes it so)"
            )
        read = parse_record(record, language=self.language, codes=self._codes)
        captions = read.captions
        if not captions:
            raise CaptionError(
                "no caption; expected 'caption' or 'text', 'caption_LANGUAGE' columns, or a 'captions' object"
            )
        known = self._entries.get(image)
        if known is None:
            self._entries[image] = _TableRow(
                line, path, captions, read.concept, read.split, read.license, read.task, read.translated, read.keywords
            )
            return
        for name in ("concept", "split"):
            if (here := text_of(record, name)) and here != getattr(known, name):
                given = getattr(known, name) or "none"
                raise CaptionError(f"{name} of {image!r} is {here!r} here and {given!r} in line {known.line}")
        known.keywords = tuple(dict.fromkeys([*known.keywords, *read.keywords]))
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

    def _path(self, image: str) -> Path:
        """Where an image lies; macOS takes its accents apart in names of files, and others join them."""
        folder = self.images or self.table.parent
        if image.isascii() or (folder / image).exists():
            return folder / image
        spelt = (folder / unicodedata.normalize(form, image) for form in ("NFC", "NFD"))
        return next((path for path in spelt if path.exists()), folder / image)

    def __getitem__(self, index: int) -> Sample:
        key = self._keys[index]
        entry = self._entries[key]
        path = self._path(entry.path)
        where = f"{path} ({self.table.name}:{entry.line})"
        images = () if self.texts_only else (LazyImage(path, where),)
        return Sample(
            key, images, entry.captions, entry.concept, entry.split, entry.license,
            task=entry.task, translated=entry.translated, keywords=entry.keywords,
        )  # fmt: skip


def _no_image(columns: Collection[str]) -> str:
    if named := [column for column in columns if column in _IMAGE_COLUMNS]:
        return f"column {named[0]!r} is empty; expected the path of an image"
    meant = next((f"; is {one!r} meant?" for one in columns if did_you_mean(one, ["image"]).startswith("did")), "")
    return f"no 'image' column; there are: {', '.join(columns)}{meant}"
