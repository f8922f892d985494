"""Where the samples of a tar shard lie: one scan of the headers, kept in the cache for the next time.

An index row names a sample and gives the offset and size of its members, so that any sample is one seek away.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO

from vlkit import files
from vlkit.data.formats.caption_forms import CaptionError, parse_captions
from vlkit.errors import DataError, VlkitError

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
_VERSION = 1
_BLOCK = 512

Span = tuple[int, int]
"""Offset and size of a member's content in its tar, in bytes."""


@dataclass(frozen=True)
class Row:
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

    rows: list[Row] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)


def read_index(path: Path, *, language: str | None) -> ShardIndex:
    """The index of a shard, from the cache where the file has not changed since (path, size, time of change).

    Args:
        path: An uncompressed tar file.
        language: BCP 47 tag of ``.txt`` captions and of ``.json`` captions that name none.

    Raises:
        DataError: Missing, not a tar, or compressed.
    """
    try:
        status = path.stat()
    except OSError:
        raise DataError(f"{path}: no such shard") from None
    name = files.digest([_VERSION, str(path.resolve()), status.st_size, status.st_mtime_ns, language])
    cached = files.home() / "index" / f"{name}.json"
    index = _read_cached(cached)
    if index is None:
        index = scan(path, language=language)
        with suppress(VlkitError):  # a full or read-only cache only makes the next start slower
            files.write_atomic(cached, _dump(index))
    return index


def scan(path: Path, *, language: str | None) -> ShardIndex:
    """Reads the headers and captions of a shard; see read_index."""
    index = ShardIndex()
    with path.open("rb") as stream:
        refuse_compressed(path, stream.read(6))
        members: dict[str, Span] = {}
        current = ""
        for name, span in tar_members(path, stream, index.problems, size=path.stat().st_size):
            key, suffix = _split_name(name)
            if key is None:
                continue
            # A repeated suffix starts a new sample too: concatenated shards may end and begin with the same key.
            if key != current or suffix in members:
                _finish(index, path, stream, current, members, language)
                current, members = key, {}
            members[suffix] = span
        _finish(index, path, stream, current, members, language)
    return index


def refuse_compressed(path: Path, magic: bytes) -> None:
    """Raises DataError where the first six bytes of a file are those of gzip, zstd, bzip2 or xz."""
    if magic[:2] == b"\x1f\x8b" or magic[:4] == b"\x28\xb5\x2f\xfd" or magic[:3] == b"BZh" or magic == b"\xfd7zXZ\x00":
        raise DataError(f"{path}: a compressed tar cannot be read at random places; unpack it to a plain .tar first")


def tar_members(path: Path, stream: IO[bytes], problems: dict[str, str], *, size: int) -> Iterator[tuple[str, Span]]:
    """Names and places of a tar's regular files in order; ``path`` is what it is called in errors.

    A tar that breaks off is noted in ``problems`` (name -> reason) and read up to there.

    Raises:
        DataError: Not a tar.
    """
    if size == 0:
        problems[path.name] = "the shard is empty (0 bytes)"
        return
    stream.seek(0)
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            while (member := archive.next()) is not None:
                end = member.offset_data + (member.size if member.isreg() else 0)
                if end > size:
                    problems[f"{path.name}:{member.name}"] = (
                        f"the shard breaks off at byte {size:,}, inside this member"
                    )
                    return
                if member.isreg():
                    yield member.name, (member.offset_data, member.size)
            # Without the closing zero blocks something was cut off, unless it ends exactly on a member.
            if (left := size - archive.offset) > 0 and not _only_zeros(stream, archive.offset, min(left, _BLOCK)):
                problems[path.name] = f"no readable tar header at byte {archive.offset:,} of {size:,}"
    except tarfile.ReadError as error:
        if stream.tell() <= _BLOCK:
            raise DataError(f"{path}: not a tar file") from None
        problems[path.name] = f"the shard breaks off: {error}"


def _only_zeros(stream: IO[bytes], offset: int, size: int) -> bool:
    stream.seek(offset)
    return not any(stream.read(size))


def _split_name(name: str) -> tuple[str | None, str]:
    """WebDataset's rule: the suffix begins at the first dot of the file name."""
    path = PurePosixPath(name)
    stem, dot, suffix = path.name.partition(".")
    if not dot or not stem:
        return None, ""
    return str(path.with_name(stem)), suffix.lower()


def _finish(
    index: ShardIndex, path: Path, stream: BinaryIO, key: str, members: Mapping[str, Span], language: str | None
) -> None:
    if not key:
        return
    where = f"{path.name}:{key}"
    if where in index.problems:
        return
    image = next((members[suffix] for suffix in IMAGE_SUFFIXES if suffix in members), None)
    if image is None:
        index.problems[where] = f"no image member ({', '.join(IMAGE_SUFFIXES)}); it has: {', '.join(sorted(members))}"
        return
    plain = "json" not in members
    span = members.get("json") or members.get("txt")
    if span is None:
        index.problems[where] = f"no caption member (json, txt); it has: {', '.join(sorted(members))}"
        return
    try:
        record = read_record(_read(stream, span), plain=plain, language=language)
        if not record["captions"] and "txt" in members and not plain:
            # Crawled sets (LAION, CC12M) put only metadata into the .json and the caption into the .txt.
            span, plain = members["txt"], True
            record |= {"captions": read_record(_read(stream, span), plain=True, language=language)["captions"]}
        if not record["captions"]:
            raise CaptionError("it has no caption text")
    except CaptionError as error:
        index.problems[where] = str(error)
        return
    captions = record["captions"]
    counts = tuple(len(texts) for texts in captions.values())
    row = Row(key, image, span, plain, record["concept"], record["split"], tuple(captions), counts)
    index.rows.append(row)


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
        "concept": str(value.get("concept") or ""),
        "split": str(value.get("split") or "train"),
        "license": str(value.get("license") or ""),
    }


def _read(stream: BinaryIO, span: Span) -> bytes:
    stream.seek(span[0])
    return stream.read(span[1])


def _facts(row: Row) -> list[Any]:
    return [row.key, row.image, row.captions, row.plain, row.concept, row.split]


def _dump(index: ShardIndex) -> str:
    # Most rows share their languages: those are written once and referred to by number.
    sets: dict[tuple[tuple[str, ...], tuple[int, ...]], int] = {}
    rows = [[*_facts(row), sets.setdefault((row.languages, row.counts), len(sets))] for row in index.rows]
    value = {"version": _VERSION, "sets": list(sets), "rows": rows, "problems": index.problems}
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _read_cached(path: Path) -> ShardIndex | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        sets = [(tuple(languages), tuple(counts)) for languages, counts in value["sets"]]
        rows = [
            Row(key, (image[0], image[1]), (text[0], text[1]), plain, concept, split, *sets[number])
            for key, image, text, plain, concept, split, number in value["rows"]
        ]
        return ShardIndex(rows, dict(value["problems"]))
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None  # not there yet, or unreadable: scan again
