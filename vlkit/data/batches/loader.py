"""Batches of pixels and tokens, read in worker processes, in the same order whatever their number.

A work item is a step: the worker plans it, reads it and collates it, so nothing random crosses process borders.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from vlkit.data.batches.augment import Augment
from vlkit.data.batches.unreadable import ATTEMPTS, BadSamples
from vlkit.data.formats.images import LazyImage, StoredImage
from vlkit.data.plan.sampling import PairSampler, Pick
from vlkit.errors import DataError, VlkitError
from vlkit.parts.tokenizers import Tokenize, tokenize_mixed
from vlkit.spec.dataset import AugmentSpec
from vlkit.types import Batch, Sample, Source


class Pair(NamedTuple):
    """One row of a batch, read. ``pivot`` is an English caption of the same image, "" without one."""

    pixels_CHW: Tensor | None
    caption: str
    pivot: str
    language: str
    concept: str
    source: str


class _Item(NamedTuple):
    """What a worker hands over. Errors go as text: DataLoader would bury an exception in a worker's traceback."""

    batch: Batch | None
    bad: list[tuple[str, str]]
    error: str = ""


@dataclass
class _Steps(Dataset[_Item]):
    source: Source
    sampler: PairSampler
    transform: Callable[[Image], Tensor] | None
    tokenize: Tokenize
    augment: Augment
    draft_size: int | None
    rank: int
    world_size: int

    def __getitem__(self, step: int) -> _Item:
        bad: list[tuple[str, str]] = []
        try:
            return _Item(self._batch(step, bad), bad)
        except VlkitError as error:
            return _Item(None, bad, str(error))

    def _batch(self, step: int, bad: list[tuple[str, str]]) -> Batch:
        picks = list(enumerate(self.sampler.plan(step)))[self.rank :: self.world_size]
        pairs = []
        for row, pick in picks:
            read, sample, pixels_CHW = self._read(step, row, pick, bad)
            caption, pivot = read.caption(sample), read.pivot(sample)
            pairs.append(Pair(pixels_CHW, caption, pivot, read.language, sample.concept, sample.source))
        return collate(pairs, self.tokenize)

    def _read(self, step: int, row: int, pick: Pick, bad: list[tuple[str, str]]) -> tuple[Pick, Sample, Tensor | None]:
        """The picked sample, or the spare that takes its place where it cannot be read."""
        for attempt in range(ATTEMPTS):
            try:
                sample = self.source[pick.index]
                if self.transform is None:
                    return pick, sample, None
                image = read_image(sample, draft_size=self.draft_size)
                return pick, sample, self.transform(self.augment(image, seed=pick.view_seed))
            except DataError as error:
                bad.append((self.source.meta(pick.index).key, str(error)))
                pick = self.sampler.spare(step, row, attempt=attempt)
        raise DataError(f"step {step}: {ATTEMPTS} unreadable samples in a row; the last: {bad[-1][0]}: {bad[-1][1]}")


def collate(pairs: Sequence[Pair], tokenize: Tokenize) -> Batch:
    """Rows as a batch; texts are padded to the longest of them."""
    captions = [pair.caption for pair in pairs]
    languages = tuple(pair.language for pair in pairs)
    pixels = [pair.pixels_CHW for pair in pairs if pair.pixels_CHW is not None]
    return Batch(
        pixels_BCHW=default_collate(pixels) if pixels else None,  # in a worker: into shared memory
        image_BD=None,
        tokens=tokenize_mixed(tokenize, captions, languages),
        text_BD=None,
        languages=languages,
        concepts=tuple(pair.concept for pair in pairs),
        captions=tuple(captions),
        pivots=tuple(pair.pivot for pair in pairs),
        sources=tuple(pair.source for pair in pairs),
    )


def read_image(sample: Sample, *, draft_size: int | None) -> Image:
    """A sample's image; sources of ours decode large JPEGs no larger than ``draft_size`` needs."""
    image = sample.image
    return image(draft_size=draft_size) if isinstance(image, LazyImage | StoredImage) else image()


def batches(
    source: Source,
    sampler: PairSampler,
    *,
    transform: Callable[[Image], Tensor] | None,
    tokenize: Tokenize,
    steps: int,
    start_step: int = 0,
    num_workers: int = 0,
    augment: AugmentSpec | None = None,
    draft_size: int | None = None,
    bad: BadSamples | None = None,
    rank_of: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """The batches of steps ``start_step`` to ``steps - 1``.

    Args:
        source: Where samples come from; the sampler was made for it.
        sampler: Plans each step.
        transform: The image encoder's own, RGB image to pixels_CHW; None reads no images at all.
        tokenize: The text encoder's own: ``tokenize(texts, language=...)``.
        steps: Number of the step after the last one.
        start_step: The first step; a resumed run gives the next one.
        num_workers: Processes that read; 0 reads in this one. The batches do not depend on it.
        augment: Random variations of the images.
        draft_size: Side in pixels of the encoder's input; larger JPEGs are decoded at a reduced size that covers it.
        bad: Counts unreadable samples, which others replace; None makes any of them an error.
        rank_of: This process's rank and the number of processes; each takes its share of every batch's rows.

    Raises:
        DataError: More unreadable samples than ``bad`` allows.
    """
    work = _Steps(source, sampler, transform, tokenize, Augment(augment or AugmentSpec()), draft_size, *rank_of)
    tolerance = bad if bad is not None else BadSamples(0.0, total=len(source))
    loader: DataLoader[_Item] = DataLoader(
        work,
        batch_size=None,
        sampler=range(start_step, steps),
        num_workers=num_workers,
        collate_fn=as_is,
        prefetch_factor=2 if num_workers else None,
        worker_init_fn=one_thread if num_workers else None,
        generator=torch.Generator(),  # the loader draws a seed for its workers: not from the run's own generator
    )
    for item in loader:
        for name, reason in item.bad:
            tolerance.record(name, reason)
        if item.batch is None:
            raise DataError(item.error)
        yield item.batch


def as_is(item: Any) -> Any:
    """Items are batches already."""
    return item


def one_thread(worker: int) -> None:
    """For workers: they share the cores with each other, and read on when the job is asked to stop."""
    torch.set_num_threads(1)
    # Ctrl-C and SIGTERM go to the whole process group, and the step under way still needs its batch.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, signal.SIG_DFL))
