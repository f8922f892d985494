"""Texts of one language to be said in another: the captions of a source, without their images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vlkit.data.sources.combine import problems
from vlkit.errors import DataError
from vlkit.types import Sample, SampleMeta, Source, Turn


@dataclass(frozen=True)
class Translations:
    """A conversation without images for every caption in ``reads`` (a BCP 47 tag) and other language of its image.

    Captions of two languages come in step: the first is taken for a translation of the first.

    Raises:
        DataError: No image has captions in that language and another one.
    """

    source: Source
    reads: str
    _places: list[tuple[int, str, int]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        for index in range(len(self.source)):
            meta = self.source.meta(index)
            counts = dict(zip(meta.languages, meta.counts, strict=True))
            read = counts.pop(self.reads, 0)
            self._places.extend(
                (index, tag, number) for tag, count in counts.items() for number in range(min(read, count))
            )
        if not self._places:
            raise DataError(f"nothing to translate: no image has a caption in {self.reads} and one in another language")

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Sample:
        place, tag, number = self._places[index]
        sample = self.source[place]
        question, answer = (sample.captions[language][number] for language in (self.reads, tag))
        turns = (Turn("user", question, self.reads), Turn("assistant", answer, tag))
        key = self._key(sample.key, tag, number)
        return Sample(key, (), {}, sample.concept, sample.split, sample.license, turns=turns, task="translate")

    def meta(self, index: int) -> SampleMeta:
        """Key, concept, split and the language of the answer."""
        place, tag, number = self._places[index]
        meta = self.source.meta(place)
        return SampleMeta(self._key(meta.key, tag, number), meta.concept or meta.key, meta.split, (tag,), (1,))

    @property
    def problems(self) -> Mapping[str, str]:
        """Those of the source."""
        return problems(self.source)

    @staticmethod
    def _key(key: str, tag: str, number: int) -> str:
        return f"{key}:{tag}:{number}"
