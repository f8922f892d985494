"""Where the samples of a WebDataset shard lie: one scan of the tar, kept in the cache for the next time.

An index row names a sample and gives the offset and size of its members, so that any sample is one seek away.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO

from vlkit.data.formats.caption_forms import CaptionError
from vlkit.data.formats.conversation_forms import check_places
from vlkit.data.formats.images import SHARD_IMAGES, USUAL
from vlkit.data.formats.sample_records import read_record
from vlkit.data.formats.tars import Span, remembered, sample_key, tar_members
from vlkit.errors import DataError
from vlkit.foreign import check_size, printable
from vlkit.types import Sample

_VERSION = 3
_NUMBERED = re.compile(rf"(\d{{1,4}})\.(?:{'|'.join(SHARD_IMAGES)})")
_facts = attrgetter("key", "images", "captions", "plain", "concept", "split")


@dataclass(frozen=True)
class ShardRow:
    """One sample of a shard. ``captions`` is the ``.json`` member's span, or the ``.txt`` member's where ``plain``.

    ``images`` are those of ``.jpg`` (or ``.png``, ...), or of ``.0.jpg``, ``.1.jpg``, ... where there are several.
    """

    key: str
    images: tuple[Span, ...]
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
    """Reads the headers and captions of a shard; see read_index.

    Members of one key are a sample also where they lie apart (all images before all texts, or as a folder gave them).
    """
    broken: dict[str, str] = {}
    index = ShardIndex()
    with path.open("rb") as stream:
        groups = list(_groups(tar_members(path, stream, broken, size=path.stat().st_size)))
        index.problems = {printable(name): printable(reason) for name, reason in broken.items()}
        for key, members in _joined(groups):
            try:
                index.rows.append(_row(stream, key, members, language))
            except CaptionError as error:
                index.problems[free_name(f"{printable(path.name)}:{key}", index.problems)] = str(error)
    return index


_Group = tuple[str, dict[str, Span]]


def _groups(found: Iterable[tuple[str, Span]]) -> Iterator[_Group]:
    """Key and members by suffix of what lies together."""
    current, members = "", dict[str, Span]()
    for name, span in found:
        key, suffix = sample_key(printable(name))
        if not key:
            continue
        # A repeated suffix starts a new sample too: concatenated shards may end and begin with the same key.
        if key != current or suffix in members:
            if members:
                yield current, members
            current, members = key, {}
        members[suffix] = span
    if members:
        yield current, members


def _joined(groups: Sequence[_Group]) -> list[_Group]:
    """The groups, but for those of one key of which none is whole: together they are one, where no suffix repeats."""
    pieces = defaultdict[str, list[dict[str, Span]]](list)
    for key, members in groups:
        pieces[key].append(members)
    joined = {
        key: {suffix: span for members in apart for suffix, span in members.items()}
        for key, apart in pieces.items()
        if len(apart) > 1
        and not any(_is_whole(members) for members in apart)
        and len({suffix for members in apart for suffix in members}) == sum(map(len, apart))
    }
    found = []
    for key, members in groups:
        if key not in joined:
            found.append((key, members))
        elif joined[key]:
            found.append((key, joined[key]))
            joined[key] = {}  # the others of this key are in it
    return found


def _is_whole(members: Mapping[str, Span]) -> bool:
    return not members.keys().isdisjoint(SHARD_IMAGES) and not members.keys().isdisjoint(("json", "txt"))


def _row(stream: BinaryIO, key: str, members: Mapping[str, Span], language: str | None) -> ShardRow:
    there = ", ".join(sorted(members))
    images = _images(members)
    plain = "json" not in members
    span = members.get("json") or members.get("txt")
    if not images and (span is None or plain):
        raise CaptionError(f"no image member ({USUAL}); it has: {there}")
    if span is None:
        raise CaptionError(f"no caption member (json, txt); it has: {there}")
    record = read_record(_read(stream, span), plain=plain, language=language)
    if not images and not record.turns:
        raise CaptionError(f"no image member ({USUAL}); it has: {there}")
    if not (record.captions or record.turns) and "txt" in members and not plain:
        # Crawled sets (LAION, CC12M) put only metadata into the .json and the caption into the .txt.
        span, plain = members["txt"], True
        found = read_record(_read(stream, span), plain=True, language=language)
        record = replace(record, captions=found.captions)
    if not (record.captions or record.turns):
        raise CaptionError("it has no caption text")
    check_places(record.turns, len(images))
    counts = Sample(key, (), record.captions, turns=record.turns).counts()
    return ShardRow(key, images, span, plain, record.concept, record.split, tuple(counts), tuple(counts.values()))


def _images(members: Mapping[str, Span]) -> tuple[Span, ...]:
    """The image of a sample, or its numbered images in their order."""
    if single := next((members[suffix] for suffix in SHARD_IMAGES if suffix in members), None):
        return (single,)
    numbered = {int(found[1]): span for suffix, span in members.items() if (found := _NUMBERED.fullmatch(suffix))}
    return tuple(numbered[number] for number in sorted(numbered))


def free_name(name: str, taken: Container[str]) -> str:
    """The name, or the name with the first number that makes it another one than those there are."""
    numbered = (f"{name} ({number})" for number in count(2))
    return name if name not in taken else next(one for one in numbered if one not in taken)


def _read(stream: BinaryIO, span: Span) -> bytes:
    check_size(span[1], what="its captions", error=CaptionError)
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
        ShardRow(
            key, tuple((at, size) for at, size in images), (text[0], text[1]), plain, concept, split, *sets[number]
        )
        for key, images, text, plain, concept, split, number in value["rows"]
    ]
    return ShardIndex(rows, dict(value["problems"]))
