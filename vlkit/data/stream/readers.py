"""What a stream asks of its sources, whatever they read: shards that are fetched, or a pipeline of the user's own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

from vlkit.data.batches.unreadable import UnreadableSample
from vlkit.spec.dataset import StreamSpec
from vlkit.types import Sample


class StreamedSample(Protocol):
    """A sample that a reader gave."""

    @property
    def shard(self) -> str:
        """Where it is from, for errors."""

    @property
    def key(self) -> str:
        """What it is called there."""

    @property
    def concept(self) -> str:
        """What must not come twice in a batch."""

    def read(self) -> Sample:
        """The sample itself, with the name of its source; it is to be used before the next one is taken.

        Raises:
            DataError: It cannot be read.
        """


class StreamReader(Protocol):
    """One source as one reader (a worker of a process) sees it. ``bad``: what it could not use."""

    bad: list[UnreadableSample]

    def take(self, language: str | None, taken: Collection[str]) -> StreamedSample:
        """The next sample that has a caption in ``language`` (None: any) and no concept in ``taken``, if there is one.

        Raises:
            DataError: There is no such sample, or nothing at all.
        """

    def state(self) -> dict[str, Any]:
        """The reader's place, as JSON can hold it; ``passed_by`` counts the samples that no batch had use for."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes to a place that ``state`` gave."""

    def close(self) -> None:
        """Gives back what it holds."""


class StreamSource(Protocol):
    """A source of a stream: ``names`` are its parts, ``languages`` BCP 47 tags to learn from (None: all)."""

    @property
    def name(self) -> str:
        """What metrics and errors call it."""

    @property
    def names(self) -> tuple[str, ...]:
        """Its shards, or the pipeline."""

    @property
    def languages(self) -> frozenset[str] | None:
        """What is learned from."""

    def reader(self, *, spec: StreamSpec, seed: int, lane: int, lanes: int, folder: Path) -> StreamReader:
        """Reader ``lane`` of ``lanes``; ``folder`` is for what it fetches."""
