"""Batches of samples at random places, read in worker processes, in the same order whatever their number.

A work item is a step: the worker plans it, reads it and collates it, so nothing random crosses process borders.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from vlkit.data.batches.unreadable import ATTEMPTS, BadSamples
from vlkit.data.plan.sampling import PairSampler
from vlkit.errors import DataError, VlkitError
from vlkit.types import Batch, Pick, Preparer, Source

T = TypeVar("T")


class _Item(NamedTuple):
    """What a worker hands over. Errors go as text: DataLoader would bury an exception in a worker's traceback."""

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
    for item in in_workers(work, num_workers, order=range(start_step, steps)):
        for number, reason in item.bad:
            tolerance.record(source.meta(number).key, reason, number=number)
        if item.batch is None:
            raise DataError(item.error)
        yield item.batch


def in_workers(items: Dataset[T], workers: int, *, order: Iterable[int] | None = None, ahead: int = 2) -> DataLoader[T]:
    """Items as they are, made in ``workers`` processes (0: in this one), each so many ``ahead`` of the last."""
    return DataLoader(
        items,
        batch_size=None,
        sampler=order,
        num_workers=workers,
        collate_fn=_as_is,
        prefetch_factor=ahead if workers else None,
        worker_init_fn=_one_thread if workers else None,
        generator=torch.Generator(),  # the loader draws a seed for its workers: not from the run's own generator
    )


def _as_is(item: Any) -> Any:
    return item


def _one_thread(worker: int) -> None:
    """Workers share the cores with each other, and read on when the job is asked to stop."""
    torch.set_num_threads(1)
    # Ctrl-C and SIGTERM go to the whole process group, and the step under way still needs its batch.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, signal.SIG_DFL))
