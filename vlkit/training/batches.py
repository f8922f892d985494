"""Batches of a run: looked up where the encoders are frozen, read and tokenised where they train, or streamed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from vlkit.data.batches.loader import batches
from vlkit.data.batches.unreadable import BadSamples
from vlkit.data.plan.sampling import PairSampler, Pick
from vlkit.data.stream.stream import Stream, StreamPlan, open_stream
from vlkit.errors import DataError
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.parts.tokenizers import tokenize_mixed
from vlkit.spec.recipe import Recipe
from vlkit.training.tables import ImageTable, TextTable, view_of
from vlkit.types import Batch, Sample, Source

_ATTEMPTS = 64  # unreadable samples in a row before a place in a batch is given up
_FLATTEST = 4 / 3  # of the crops' shapes, width to height (data/augment)


class Batches(Protocol):
    """This process's rows of the batches of a run, and the place behind the last one."""

    def steps(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of steps ``start`` to ``stop - 1``."""

    def state(self) -> dict[str, Any]:
        """What ``restore`` needs to go on behind the last batch that ``steps`` gave, as JSON can hold it."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes to a place that ``state`` gave; ``{}`` is the start."""


@dataclass
class PairBatches:
    """The batches of steps, each a pure function of the recipe and the step.

    ``images`` and ``texts`` are the tables of frozen encoders, None where an encoder trains. Captions are looked up
    only beside cached images: the reader of pixels tokenises by itself. ``ranks`` is this process's rank and the number
    of processes: each takes every so many rows of a batch. Without ``pixels`` no image is read (losses between texts).
    """

    recipe: Recipe
    model: DualEncoder
    source: Source
    sampler: PairSampler
    bad: BadSamples
    images: ImageTable | None
    texts: TextTable | None
    ranks: tuple[int, int] = (0, 1)
    pixels: bool = True

    def state(self) -> dict[str, Any]:
        """Nothing: a step is all that is needed."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to do."""

    def steps(self, start: int, stop: int) -> Iterator[Batch]:
        """This process's rows of the batches of steps ``start`` to ``stop - 1``."""
        if self.images is None:
            yield from batches(
                self.source,
                self.sampler,
                transform=self.model.transform if self.pixels else None,
                tokenize=self.model.tokenize,
                start_step=start,
                steps=stop,
                num_workers=self.recipe.loop.num_workers,
                augment=self.recipe.data.augment,
                draft_size=draft_size(self.recipe, self.model),
                bad=self.bad,
                rank_of=self.ranks,
            )
            return
        for step in range(start, stop):
            yield self._looked_up(step, self.images)

    def _looked_up(self, step: int, images: ImageTable) -> Batch:
        rank, ranks = self.ranks
        rows = list(enumerate(self.sampler.plan(step)))[rank::ranks]
        picks = [self._readable(step, row, pick, images) for row, pick in rows]
        samples: list[Sample] = [self.source[pick.index] for pick in picks]
        captions = [pick.caption(sample) for pick, sample in zip(picks, samples, strict=True)]
        languages = tuple(pick.language for pick in picks)
        return Batch(
            pixels_BCHW=None,
            image_BD=images.look_up([pick.index for pick in picks], [view_of(pick, images.views) for pick in picks]),
            tokens=tokenize_mixed(self.model.tokenize, captions, languages) if self.texts is None else None,
            text_BD=None if self.texts is None else self.texts.look_up(captions, languages),
            languages=languages,
            concepts=tuple(sample.concept for sample in samples),
            captions=tuple(captions),
            pivots=tuple(pick.pivot(sample) for pick, sample in zip(picks, samples, strict=True)),
            sources=tuple(sample.source for sample in samples),
        )

    def _readable(self, step: int, row: int, pick: Pick, images: ImageTable) -> Pick:
        for attempt in range(_ATTEMPTS):
            if pick.index not in images.bad:
                return pick
            pick = self.sampler.spare(step, row, attempt=attempt)
        raise DataError(f"step {step}: {_ATTEMPTS} unreadable samples in a row; check the data")


class StreamBatches(Stream):
    """The batches of a recipe whose shards are streamed.

    Args:
        recipe: The run.
        model: Whose transform and tokenizer prepare the pairs.
        ranks: This process's rank and the number of processes.
        pixels: Read the images; False for losses between texts.

    Raises:
        DataError: See ``vlkit.data.stream.stream.open_stream``.
    """

    def __init__(
        self, recipe: Recipe, model: DualEncoder, *, ranks: tuple[int, int] = (0, 1), pixels: bool = True
    ) -> None:
        super().__init__(
            stream_plan(recipe, ranks=ranks),
            transform=model.transform if pixels else None,
            tokenize=model.tokenize,
            draft_size=draft_size(recipe, model),
        )


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


def draft_size(recipe: Recipe, model: DualEncoder) -> int | None:
    """Pixels that the shorter side of a training image has to keep, so that no crop of it has to be enlarged.

    None decodes in full.
    """
    if not recipe.data.jpeg_draft:
        return None
    side = _resized_to(model)
    scale = recipe.data.augment.crop_scale
    if side is None:
        return None
    return side if scale is None else math.ceil(side * math.sqrt(_FLATTEST / scale[0]))


def _resized_to(model: DualEncoder) -> int | None:
    """The side in pixels to which the encoder's transform resizes: that of its input, or more where it crops then.

    None for an encoder that does not say its ``image_size``.
    """
    known = getattr(model.image, "image_size", None)
    if known is None:
        return None
    side = int(known)
    settings = getattr(model.transform, "settings", {})
    if crop := settings.get("crop_pct"):  # timm
        side = math.ceil(side / crop)
    if isinstance(size := settings.get("size"), dict):  # transformers
        side = max(side, *(int(value) for value in size.values() if isinstance(value, int)))
    return side
