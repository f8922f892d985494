"""Batches of samples at random places, read in worker processes, in the same order whatever their number.

A work item is a step: the worker plans it, reads it and collates it, so nothing random crosses process borders.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch.utils.data import Dataset

from vlkit.data.batches.unreadable import ATTEMPTS, BadSamples
from vlkit.data.batches.workers import in_workers
from vlkit.data.plan.sampling import PairSampler
from vlkit.errors import DataError, VlkitError
from vlkit.types import Batch, Pick, Preparer, Source


class _Item(NamedTuple):
    """What a worker hands over; an error goes with what could not be read before it."""

    batch: Batch | None
    bad: list[tuple[int, str]]
    error: str = ""


@dataclass
class _Steps(Dataset[_Item]):
    source: Source
    sampler: PairSampler
    preparer: Preparer
    rank: int
    world_size: int

    def __getitem__(self, step: int) -> _Item:
        bad: list[tuple[int, str]] = []
        try:
            return _Item(self._batch(step, bad), bad)
        except VlkitError as error:
            return _Item(None, bad, str(error))

    def _batch(self, step: int, bad: list[tuple[int, str]]) -> Batch:
        picks = list(enumerate(self.sampler.plan(step)))[self.rank :: self.world_size]
        rows = [self._row(step, row, pick, bad) for row, pick in picks]
        return self.preparer.collate(rows)

    def _row(self, step: int, row: int, pick: Pick, bad: list[tuple[int, str]]) -> Any:
        """The row of the picked sample, or of the spare that takes its place where it cannot be read."""
        for attempt in range(ATTEMPTS):
            try:
                return self.preparer.row(self.source[pick.index], pick)
            except DataError as error:
                bad.append((pick.index, str(error)))
                pick = self.sampler.spare(step, row, attempt=attempt)
        last, reason = self.source.meta(bad[-1][0]).key, bad[-1][1]
        raise DataError(f"step {step}: {ATTEMPTS} unreadable samples in a row; the last: {last}: {reason}")


def batches(
    source: Source,
    sampler: PairSampler,
    *,
    preparer: Preparer,
    steps: int,
    start_step: int = 0,
    num_workers: int = 0,
    bad: BadSamples | None = None,
    rank_of: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """The batches of steps ``start_step`` to ``steps - 1``.

    They do not depend on ``num_workers``, the processes that read (0: this one). ``bad`` counts unreadable samples,
    which others replace; None makes any of them an error. ``rank_of`` is this process's rank and the number of
    processes; each takes its share of every batch's rows.

    Raises:
        DataError: More unreadable samples than ``bad`` allows.
    """
    work = _Steps(source, sampler, preparer, *rank_of)
    tolerance = bad if bad is not None else BadSamples(0.0, total=len(source))
    with closing(in_workers(work, num_workers, order=range(start_step, steps))) as items:
        for item in items:
            for number, reason in item.bad:
                tolerance.record(source.meta(number).key, reason, number=number)
            if item.batch is None:
                raise DataError(item.error)
            yield item.batch
