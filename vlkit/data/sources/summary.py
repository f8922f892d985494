"""What a source holds, counted from its metadata."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from vlkit.data.sources.combine import problems
from vlkit.types import Source


@dataclass(frozen=True)
class SourceSummary:
    """Counts of one source. ``languages``: BCP 47 tag -> captions; ``splits``: name -> images."""

    images: int
    concepts: int
    captions: int
    splits: dict[str, int]
    languages: dict[str, int]
    problems: dict[str, str]


def summarize(source: Source) -> SourceSummary:
    """Counts from metadata alone; no image is read."""
    splits: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    concepts: set[str] = set()
    for index in range(len(source)):
        meta = source.meta(index)
        splits[meta.split] += 1
        concepts.add(meta.concept or meta.key)
        languages.update(dict(zip(meta.languages, meta.counts, strict=True)))
    return SourceSummary(
        images=len(source),
        concepts=len(concepts),
        captions=languages.total(),
        splits=dict(sorted(splits.items())),
        languages=dict(sorted(languages.items(), key=lambda pair: (-pair[1], pair[0]))),
        problems=problems(source),
    )
