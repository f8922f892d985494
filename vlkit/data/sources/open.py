"""From source specs to samples: one interface over shards, tables and data sets that vlkit builds itself."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vlkit.data.build.concepts import held_out
from vlkit.data.sources.shards import ShardSource, expand
from vlkit.data.sources.table import FolderSource
from vlkit.errors import DataError, UnknownName
from vlkit.spec import dataset as spec
from vlkit.types import Sample, SampleMeta, Source

VALIDATION = "validation"
_SALT = "validation:"


@dataclass(frozen=True)
class Subset:
    """The samples of ``source`` at ``indices``, in that order."""

    source: Source
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        """One sample; its image is decoded only when called for."""
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
        for source in self.sources:
            self._ends.append((self._ends[-1] if self._ends else 0) + len(source))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def _locate(self, index: int) -> tuple[Source, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        number = bisect.bisect_right(self._ends, index)
        return self.sources[number], index - (self._ends[number - 1] if number else 0)

    def __getitem__(self, index: int) -> Sample:
        """One sample; its image is decoded only when called for."""
        source, inside = self._locate(index)
        return source[inside]

    def meta(self, index: int) -> SampleMeta:
        """Key, concept, split and languages, without reading the image."""
        source, inside = self._locate(index)
        return source.meta(inside)


@dataclass(frozen=True)
class Named:
    """The samples of ``source``, each with the name of its collection."""

    source: Source
    name: str

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        """One sample; its image is decoded only when called for."""
        return replace(self.source[index], source=self.name)

    def meta(self, index: int) -> SampleMeta:
        """Key, concept, split and languages, without reading the image."""
        return self.source.meta(index)


def source_names(sources: Sequence[spec.SourceSpec]) -> list[str]:
    """What metrics call each source: the last part of its path, the whole path where others end so too."""
    paths = [source.name if isinstance(source, spec.BuiltSource) else source.path for source in sources]
    short = [path.rstrip("/").rpartition("/")[2] or path for path in paths]
    return [path if short.count(name) > 1 else name for path, name in zip(paths, short, strict=True)]


def open_source(source: spec.SourceSpec) -> Source:
    """The samples that a source spec describes, all splits; a data set that vlkit builds itself is built if need be.

    Raises:
        DataError: Missing, empty or of a wrong form.
    """
    if isinstance(source, spec.WebDatasetSource):
        return ShardSource(expand(source.path), language=source.language)
    if isinstance(source, spec.FolderSource):
        images = None if source.images is None else Path(source.images)
        return FolderSource(Path(source.path), images=images, language=source.language, texts_only=source.texts_only)
    return ShardSource(expand(built_path(source)))


def built_path(source: spec.BuiltSource) -> str:
    """The folder of a data set that vlkit builds itself; it is built if need be."""
    from vlkit.data.build.builders import built_folder

    return str(built_folder(source.name, image_size=source.image_size))


def open_sources(data: spec.DataSpec, *, split: str = "train") -> Source:
    """All sources of a recipe as one, restricted to a split.

    ``data.holdout_concepts`` concepts of "train" are kept back by a stable hash: they are the split "validation" and no
    longer in "train". Samples without a concept count as a concept each. ``split="all"`` takes everything.

    Raises:
        UnknownName: No sample has that split.
        DataError: More concepts are to be kept back than there are.
    """
    names = source_names(data.sources)
    opened = tuple(Named(open_source(source), name) for source, name in zip(data.sources, names, strict=True))
    whole: Source = opened[0] if len(opened) == 1 else ConcatSource(opened)
    if split == "all":
        return whole
    metas = [whole.meta(index) for index in range(len(whole))]
    splits = {meta.split for meta in metas}
    wanted = split
    if data.holdout_concepts and split in ("train", VALIDATION):
        concepts = {meta.concept or meta.key for meta in metas if meta.split == "train"}
        if data.holdout_concepts >= len(concepts):
            raise DataError(
                f"data.holdout_concepts = {data.holdout_concepts} keeps everything back: "
                f"the training split has {len(concepts)} concepts"
            )
        kept_back = held_out(concepts, data.holdout_concepts, salt=_SALT)
        wanted = "train"
    else:
        kept_back = frozenset()
    keep = split == VALIDATION and bool(kept_back)
    indices = [
        index
        for index, meta in enumerate(metas)
        if meta.split == wanted and ((meta.concept or meta.key) in kept_back) == keep
    ]
    if not indices:
        raise UnknownName("split", split, allowed=splits | ({VALIDATION} if data.holdout_concepts else set()))
    return whole if len(indices) == len(whole) else Subset(whole, indices)


def source_numbers(source: Source) -> list[int]:
    """Which of the sources of a recipe each sample is from; ``source`` is what open_sources gave."""
    if isinstance(source, Subset):
        whole = source_numbers(source.source)
        return [whole[index] for index in source.indices]
    if isinstance(source, ConcatSource):
        return [number for number, part in enumerate(source.sources) for _ in range(len(part))]
    return [0] * len(source)


def problems(source: Source) -> dict[str, str]:
    """Name -> reason of all broken samples that the sources under ``source`` had to leave out."""
    if isinstance(source, Subset | Named):
        return problems(source.source)
    if isinstance(source, ConcatSource):
        return {name: reason for part in source.sources for name, reason in problems(part).items()}
    return dict(getattr(source, "problems", {}))
