"""What a source holds, counted from its metadata."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from vlkit.data.formats.image_tree import TreeSource
from vlkit.data.sources.open import problems
from vlkit.data.sources.shards import ShardSource, expand
from vlkit.data.sources.table import FolderSource
from vlkit.types import Source


@dataclass(frozen=True)
class Summary:
    """Counts of one source. ``languages``: BCP 47 tag -> captions; ``splits``: name -> images."""

    images: int
    concepts: int
    captions: int
    splits: dict[str, int]
    languages: dict[str, int]
    problems: dict[str, str]


def open_path(path: str, *, language: str | None = None) -> Source:
    """Shards (a tar, a folder of tars, a pattern), a table, or a folder of images, told apart by what is there.

    Raises:
        DataError: Missing, empty or of a wrong form.
    """
    if Path(path).suffix.lower() in (".jsonl", ".csv", ".tsv"):
        return FolderSource(Path(path), language=language)
    if Path(path).is_dir() and not any(Path(path).glob("*.tar")):
        return TreeSource(Path(path), language=language)
    return ShardSource(expand(path), language=language)


def summarize(source: Source) -> Summary:
    """Counts from metadata alone; no image is read."""
    splits: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    concepts: set[str] = set()
    for index in range(len(source)):
        meta = source.meta(index)
        splits[meta.split] += 1
        concepts.add(meta.concept or meta.key)
        languages.update(dict(zip(meta.languages, meta.counts, strict=True)))
    return Summary(
        images=len(source),
        concepts=len(concepts),
        captions=languages.total(),
        splits=dict(sorted(splits.items())),
        languages=dict(sorted(languages.items(), key=lambda pair: (-pair[1], pair[0]))),
        problems=problems(source),
    )
