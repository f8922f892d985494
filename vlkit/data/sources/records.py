"""The records of a source without their images, read once: captions are then looked up, and no shard is opened."""

from __future__ import annotations

import json
import mmap
import tempfile
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from vlkit.types import Sample, SampleMeta, Source, Turn

if TYPE_CHECKING:
    from PIL.Image import Image


class Records:
    """A source, read through once, whose records lie in a file that is mapped; images are read where they were.

    Memory holds 8 bytes a record; a record takes some 5 microseconds.

    Raises:
        DataError: A record cannot be read.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        ends = np.zeros(len(source) + 1, dtype=np.int64)
        with tempfile.TemporaryFile(prefix="vlkit-records-") as stream:
            for index in range(len(source)):
                ends[index + 1] = ends[index] + stream.write(_packed(source[index]))
            stream.flush()
            self._mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if ends[-1] else b""
        self._ends = ends

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> Sample:
        """One record; its image is looked for in the source when called for."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        raw = self._mapped[self._ends[index] : self._ends[index + 1]]
        return _unpacked(raw, image=lambda number: self.source[index].images[number]())

    def meta(self, index: int) -> SampleMeta:
        """As the source knows it."""
        return self.source.meta(index)


def _packed(sample: Sample) -> bytes:
    plain = [
        sample.key, len(sample.images), dict(sample.captions), sample.concept, sample.split, sample.license,
        sample.source, [(turn.role, turn.text, turn.language) for turn in sample.turns], sample.task, sample.translated,
        sample.keywords,
    ]  # fmt: skip
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _unpacked(raw: bytes, *, image: Callable[[int], Image]) -> Sample:
    plain: list[Any] = json.loads(raw.decode("utf-8", "surrogatepass"))
    key, images, captions, concept, split, license_, source, turns, task, translated, keywords = plain
    texts = {tag: tuple(found) for tag, found in captions.items()}
    readers = tuple(partial(image, number) for number in range(images))
    said = tuple(Turn(*turn) for turn in turns)
    return Sample(
        key, readers, texts, concept, split, license_, source, said, task, translated, tuple(keywords)
    )  # fmt: skip
