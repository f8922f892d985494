"""Sources out of others: a list of samples, parts, several one after the other, named; and what a source holds."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

from vlkit.data.formats.images import image_place
from vlkit.data.formats.shard_index import free_name
from vlkit.errors import DataError
from vlkit.types import Sample, SampleMeta, Source


@dataclass(frozen=True)
class SampleList:
    """Samples at hand. ``problems``: name -> reason of those that had to be left out."""

    samples: Sequence[Sample]
    problems: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    def meta(self, index: int) -> SampleMeta:
        """Key, concept, split and languages, without reading the image."""
        return meta_of(self.samples[index])


def meta_of(sample: Sample) -> SampleMeta:
    """What is known of a sample without its image."""
    counts = sample.counts()
    return SampleMeta(sample.key, sample.concept, sample.split, tuple(counts), tuple(counts.values()))


@dataclass(frozen=True)
class Subset:
    """The samples of ``source`` at ``indices``, in that order."""

    source: Source
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.source[self.indices[index]]

    def meta(self, index: int) -> SampleMeta:
        """Key, concept, split and languages, without reading the image."""
        return self.source.meta(self.indices[index])


@dataclass(frozen=True)
class ConcatSource:
    """Several sources, one after the other."""

    sources: tuple[Source, ...]
    _ends: list[int] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._ends.extend(accumulate(len(source) for source in self.sources))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Sample:
        number, inside = locate(self._ends, index)
        return self.sources[number][inside]

    def meta(self, index: int) -> SampleMeta:
        """Key, concept, split and languages, without reading the image."""
        number, inside = locate(self._ends, index)
        return self.sources[number].meta(inside)


@dataclass(frozen=True)
class Named:
    """The samples of ``source``, each with the name of its collection, and in ``split`` where that is not None.

    ``task`` is what those teach that do not say it themselves.
    """

    source: Source
    name: str
    split: str | None = None
    task: str = ""

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        sample = self.source[index]
        split = sample.split if self.split is None else self.split
        return replace(sample, source=self.name, split=split, task=sample.task or self.task)

    def meta(self, index: int) -> SampleMeta:
        """Key, concept, split and languages, without reading the image."""
        meta = self.source.meta(index)
        return meta if self.split is None else replace(meta, split=self.split)


@dataclass(frozen=True)
class InLanguages:
    """The samples of ``source`` with their captions in ``languages`` alone (BCP 47 tags); conversations stay whole."""

    source: Source
    languages: frozenset[str]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        sample = self.source[index]
        return replace(sample, captions={tag: texts for tag, texts in sample.captions.items() if tag in self.languages})

    def meta(self, index: int) -> SampleMeta:
        """Key, concept, split and languages, without reading the image."""
        meta = self.source.meta(index)
        kept = [pair for pair in zip(meta.languages, meta.counts, strict=True) if pair[0] in self.languages]
        return replace(meta, languages=tuple(tag for tag, _ in kept), counts=tuple(count for _, count in kept))


def locate(ends: Sequence[int], index: int) -> tuple[int, int]:
    """Which of several parts an index falls into, and its place there; ``ends`` are the sums of their lengths."""
    if not 0 <= index < ends[-1]:
        raise IndexError(f"sample {index} of {ends[-1]}")
    number = bisect.bisect_right(ends, index)
    return number, index - (ends[number - 1] if number else 0)


def source_numbers(source: Source) -> list[int]:
    """Which of the sources of a recipe each sample is from; ``source`` is what open_sources gave."""
    if isinstance(source, Subset):
        whole = source_numbers(source.source)
        return [whole[index] for index in source.indices]
    if isinstance(source, ConcatSource):
        return [number for number, part in enumerate(source.sources) for _ in range(len(part))]
    return [0] * len(source)


def read_metas(source: Source) -> list[SampleMeta]:
    """The metadata of all samples, in order."""
    return [source.meta(index) for index in range(len(source))]


def caption_counts(metas: Iterable[SampleMeta]) -> Counter[str]:
    """How many captions or answers there are in each language, by BCP 47 tag."""
    kinds = Counter((meta.languages, meta.counts) for meta in metas)  # most samples share theirs
    found: Counter[str] = Counter()
    for (languages, counts), times in kinds.items():
        for language, count in zip(languages, counts, strict=True):
            found[language] += count * times
    return found


def identities(source: Source) -> list[str]:
    """What each sample shows: its concept, and without one the sample itself.

    Keys are no names for that: two shards may call two things by the same number. Where a key repeats, images in
    different places (or texts, without images) are different samples.
    """
    metas = read_metas(source)
    concepts = {meta.concept for meta in metas}
    keys = Counter(meta.key for meta in metas if not meta.concept)
    places: dict[str, dict[object, int]] = {key: {} for key, count in keys.items() if count > 1 or key in concepts}
    found = []
    for index, meta in enumerate(metas):
        name = meta.concept or meta.key
        if not meta.concept and (known := places.get(meta.key)) is not None:
            number = known.setdefault(_place(source, index), len(known))
            name = f"{name}\0{number}" if number or name in concepts else name
        found.append(name)
    return found


def _place(source: Source, index: int) -> object:
    try:
        sample = source[index]
    except DataError:
        return index
    return (image_place(sample.images[0]) if sample.images else None) or repr(sample.turns or sample.captions)


def problems(source: Source) -> dict[str, str]:
    """Name -> reason of all broken samples that the sources under ``source`` had to leave out."""
    if isinstance(source, Subset | Named | InLanguages):
        return problems(source.source)
    if isinstance(source, ConcatSource):
        return gathered((part.name if isinstance(part, Named) else "", problems(part)) for part in source.sources)
    return dict(getattr(source, "problems", {}))


def gathered(parts: Iterable[tuple[str, Mapping[str, str]]]) -> dict[str, str]:
    """Problems of several parts as one; those that are called alike are told apart by the names of the parts."""
    found: dict[str, str] = {}
    for where, reasons in parts:
        for name, reason in reasons.items():
            found[free_name(f"{where}/{name}" if name in found and where else name, found)] = reason
    return found


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
    metas = read_metas(source)
    languages = caption_counts(metas)
    return SourceSummary(
        images=len(source),
        concepts=len(set(identities(source))),
        captions=languages.total(),
        splits=dict(sorted(Counter(meta.split for meta in metas).items())),
        languages=dict(sorted(languages.items(), key=lambda pair: (-pair[1], pair[0]))),
        problems=problems(source),
    )
