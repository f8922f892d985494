"""Batches of a run: looked up where all that is needed is frozen, read and prepared where it trains, or streamed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from vlkit.data.batches.loader import batches
from vlkit.data.batches.unreadable import ATTEMPTS, BadSamples
from vlkit.data.plan.sampling import PairSampler
from vlkit.data.stream.stream import StreamPlan, open_stream
from vlkit.errors import DataError
from vlkit.spec.recipe import Recipe
from vlkit.types import Batch, Pick, Preparer, Source


class Batches(Protocol):
    """This process's rows of the batches of a run, and the place behind the last one."""

    @property
    def readers(self) -> int | None:
        """Processes that read samples; None where nothing is read."""

    def steps(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of steps ``start`` to ``stop - 1``."""

    def state(self) -> dict[str, Any]:
        """What ``restore`` needs to go on behind the last batch that ``steps`` gave, as JSON can hold it."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes to a place that ``state`` gave; ``{}`` is the start."""


@dataclass
class PlannedBatches:
    """The batches of steps, each a pure function of the recipe and the step, read by worker processes.

    ``ranks`` are this process's rank and the number of processes: each takes every so many rows of a batch. ``readers``
    are worker processes; 0 reads here.
    """

    source: Source
    sampler: PairSampler
    preparer: Preparer
    ranks: tuple[int, int]
    bad: BadSamples
    readers: int | None

    def state(self) -> dict[str, Any]:
        """Nothing: a step is all that is needed."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to do."""

    def steps(self, start: int, stop: int) -> Iterator[Batch]:
        """This process's rows of the batches of steps ``start`` to ``stop - 1``."""
        yield from batches(
            self.source,
            self.sampler,
            preparer=self.preparer,
            start_step=start,
            steps=stop,
            num_workers=self.readers or 0,
            bad=self.bad,
            rank_of=self.ranks,
        )


@dataclass
class LookedUpBatches(PlannedBatches):
    """The same where the preparer looks rows up: nothing is read, and samples without a row are passed over."""

    unreadable: frozenset[int] = frozenset()

    def steps(self, start: int, stop: int) -> Iterator[Batch]:
        """See ``PlannedBatches``."""
        rank, ranks = self.ranks
        for step in range(start, stop):
            rows = list(enumerate(self.sampler.plan(step)))[rank::ranks]
            picks = [self._readable(step, row, pick) for row, pick in rows]
            yield self.preparer.collate([self.preparer.row(self.source[pick.index], pick) for pick in picks])

    def _readable(self, step: int, row: int, pick: Pick) -> Pick:
        for attempt in range(ATTEMPTS):
            if pick.index not in self.unreadable:
                return pick
            pick = self.sampler.spare(step, row, attempt=attempt)
        raise DataError(f"step {step}: {ATTEMPTS} unreadable samples in a row; check the data")


def stream_plan(recipe: Recipe, *, ranks: tuple[int, int]) -> StreamPlan:
    """The shards of a recipe and their readers; fails early where there is nothing to read.

    Raises:
        DataError: See ``vlkit.data.stream.stream.open_stream``.
    """
    return open_stream(
        recipe.data,
        batch_size=recipe.loop.batch_size,
        seed=recipe.seed,
        num_workers=recipe.loop.num_workers,
        rank_of=ranks,
    )
