"""Where the samples of a WebDataset shard lie: one scan of the tar, kept in the cache for the next time.

An index row names a sample and gives the offset and size of its members, so that any sample is one seek away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO

from vlkit.data.formats.caption_forms import CaptionError, read_record
from vlkit.data.formats.images import SHARD_IMAGES, USUAL
from vlkit.data.formats.tars import Span, remembered, sample_key, tar_members
from vlkit.errors import DataError

_VERSION = 1
_facts = attrgetter("key", "image", "captions", "plain", "concept", "split")


@dataclass(frozen=True)
class ShardRow:
    """One sample of a shard. ``captions`` is the ``.json`` member's span, or the ``.txt`` member's where ``plain``."""

    key: str
    image: Span
    captions: Span
    plain: bool
    concept: str
    split: str
    languages: tuple[str, ...]
    counts: tuple[int, ...]


@dataclass
class ShardIndex:
    """The whole samples of a shard, and the broken ones by name."""

    rows: list[ShardRow] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)


def read_index(path: Path, *, language: str | None) -> ShardIndex:
    """The index of a shard, from the cache where the file has not changed since (path, size, time of change).

    ``language`` is the BCP 47 tag of ``.txt`` captions and of ``.json`` captions that name none.

    Raises:
        DataError: Missing, not a tar, or compressed.
    """
    if not path.exists():
        raise DataError(f"{path}: no such shard")
    return remembered(path, _VERSION, language, make=lambda: scan(path, language=language), dump=_dump, load=_loaded)


def scan(path: Path, *, language: str | None) -> ShardIndex:
    """Reads the headers and captions of a shard; see read_index."""
    index = ShardIndex()
    with path.open("rb") as stream:
        members: dict[str, Span] = {}
        current = ""
        for name, span in tar_members(path, stream, index.problems, size=path.stat().st_size):
            key, suffix = sample_key(name)
            if not key:
                continue
            # A repeated suffix starts a new sample too: concatenated shards may end and begin with the same key.
            if key != current or suffix in members:
                _finish(index, path, stream, current, members, language)
                current, members = key, {}
            members[suffix] = span
        _finish(index, path, stream, current, members, language)
    return index


def _finish(
    index: ShardIndex, path: Path, stream: BinaryIO, key: str, members: Mapping[str, Span], language: str | None
) -> None:
    if not key:
        return
    where = f"{path.name}:{key}"
    if where in index.problems:
        return
    try:
        index.rows.append(_row(stream, key, members, language))
    except CaptionError as error:
        index.problems[where] = str(error)


def _row(stream: BinaryIO, key: str, members: Mapping[str, Span], language: str | None) -> ShardRow:
    there = ", ".join(sorted(members))
    image = next((members[suffix] for suffix in SHARD_IMAGES if suffix in members), None)
    if image is None:
        raise CaptionError(f"no image member ({USUAL}); it has: {there}")
    plain = "json" not in members
    span = members.get("json") or members.get("txt")
    if span is None:
        raise CaptionError(f"no caption member (json, txt); it has: {there}")
    record = read_record(_read(stream, span), plain=plain, language=language)
    captions = record["captions"]
    if not captions and "txt" in members and not plain:
        # Crawled sets (LAION, CC12M) put only metadata into the .json and the caption into the .txt.
        span, plain = members["txt"], True
        captions = read_record(_read(stream, span), plain=True, language=language)["captions"]
    if not captions:
        raise CaptionError("it has no caption text")
    counts = tuple(len(texts) for texts in captions.values())
    return ShardRow(key, image, span, plain, record["concept"], record["split"], tuple(captions), counts)


def _read(stream: BinaryIO, span: Span) -> bytes:
    stream.seek(span[0])
    return stream.read(span[1])


def _dump(index: ShardIndex) -> dict[str, Any]:
    # Most rows share their languages: those are written once and referred to by number.
    sets: dict[tuple[tuple[str, ...], tuple[int, ...]], int] = {}
    rows = [[*_facts(row), sets.setdefault((row.languages, row.counts), len(sets))] for row in index.rows]
    return {"sets": list(sets), "rows": rows, "problems": index.problems}


def _loaded(value: Any) -> ShardIndex:
    sets = [(tuple(languages), tuple(counts)) for languages, counts in value["sets"]]
    rows = [
        ShardRow(key, (image[0], image[1]), (text[0], text[1]), plain, concept, split, *sets[number])
        for key, image, text, plain, concept, split, number in value["rows"]
    ]
    return ShardIndex(rows, dict(value["problems"]))
