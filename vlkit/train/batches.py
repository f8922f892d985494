"""Batches of a run: looked up where the encoders are frozen, read and tokenised where they train."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vlkit.data.bad import BadSamples
from vlkit.data.loader import batches, tokenize_mixed
from vlkit.data.sampling import PairSampler, Pick
from vlkit.errors import DataError
from vlkit.models.dual_encoder import DualEncoder
from vlkit.spec.recipe import Recipe
from vlkit.train.tables import ImageTable, TextTable, view_of
from vlkit.types import Batch, Sample, Source

_ATTEMPTS = 64  # unreadable samples in a row before a place in a batch is given up


@dataclass
class PairBatches:
    """The batches of steps, each a pure function of the recipe and the step.

    ``images`` and ``texts`` are the tables of frozen encoders, None where an encoder trains. Captions are looked up
    only beside cached images: the reader of pixels tokenises by itself.
    """

    recipe: Recipe
    model: DualEncoder
    source: Source
    sampler: PairSampler
    bad: BadSamples
    images: ImageTable | None
    texts: TextTable | None

    def steps(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of steps ``start`` to ``stop - 1``."""
        if self.images is None:
            yield from batches(
                self.source,
                self.sampler,
                transform=self.model.transform,
                tokenize=self.model.tokenize,
                start_step=start,
                steps=stop,
                num_workers=self.recipe.loop.num_workers,
                augment=self.recipe.data.augment,
                bad=self.bad,
            )
            return
        for step in range(start, stop):
            yield self._looked_up(step, self.images)

    def _looked_up(self, step: int, images: ImageTable) -> Batch:
        picks = [self._readable(step, row, pick, images) for row, pick in enumerate(self.sampler.plan(step))]
        samples: list[Sample] = [self.source[pick.index] for pick in picks]
        captions = [pick.caption(sample) for pick, sample in zip(picks, samples, strict=True)]
        languages = tuple(pick.language for pick in picks)
        views = images.features_NVD.shape[1]
        return Batch(
            pixels_BCHW=None,
            image_BD=images.look_up([pick.index for pick in picks], [view_of(pick, views) for pick in picks]),
            tokens=tokenize_mixed(self.model.tokenize, captions, languages) if self.texts is None else None,
            text_BD=None if self.texts is None else self.texts.look_up(captions, languages),
            languages=languages,
            concepts=tuple(sample.concept for sample in samples),
        )

    def _readable(self, step: int, row: int, pick: Pick, images: ImageTable) -> Pick:
        for attempt in range(_ATTEMPTS):
            if pick.index not in images.bad:
                return pick
            pick = self.sampler.spare(step, row, attempt=attempt)
        raise DataError(f"step {step}: {_ATTEMPTS} unreadable samples in a row; check the data")
