"""What a run learns from, opened: samples at random places with a plan of all steps, or streams of shards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from vlkit.data.plan.mixes import settled
from vlkit.data.plan.sampling import PairSampler
from vlkit.data.plan.weighted import Shares, WeightedPairSampler
from vlkit.data.sources.combine import caption_counts, read_metas, source_numbers
from vlkit.data.sources.open import open_sources
from vlkit.data.stream.remote import is_remote
from vlkit.spec.dataset import DataSpec, WeightsMixing
from vlkit.spec.sources import PipelineSource, WebDatasetSource, learned_in
from vlkit.types import Source


def streamed(data: DataSpec) -> bool:
    """Whether shards are read in streams (``vlkit.data.stream.stream``): if one source has to be, all of them are."""
    return any(
        isinstance(source, PipelineSource)
        or (
            isinstance(source, WebDatasetSource)
            and (source.sampling == "stream" or (source.sampling == "auto" and is_remote(source.path)))
        )
        for source in data.sources
    )


def open_pairs(data: DataSpec, *, batch_size: int, seed: int) -> tuple[Source, PairSampler]:
    """The training samples of indexed sources, and the plan of which of them each step sees (see plan_pairs).

    Raises:
        DataError: Missing or unusable data; fewer pairs than a batch; a language or a share that cannot be had.
    """
    source = open_sources(data)
    return source, plan_pairs(source, data, batch_size=batch_size, seed=seed)


def plan_pairs(source: Source, data: DataSpec, *, batch_size: int, seed: int, stage: str | None = None) -> PairSampler:
    """The plan of which samples of an opened source each step sees.

    ``batch_size`` is pairs a step, over all processes; ``stage`` takes the sources that a stage of this name learns
    from, None all of them.

    Raises:
        DataError: Fewer pairs than a batch; a language or a share that cannot be had.
    """
    used = [stage is None or learned_in(stage)(one) for one in data.sources]
    numbers, metas = source_numbers(source), read_metas(source)
    if not all(used):  # without a language there is nothing to learn of a sample
        metas = [
            meta if used[number] else replace(meta, languages=(), counts=())
            for number, meta in zip(numbers, metas, strict=True)
        ]
    mixing = settled(data.mixing, caption_counts(metas), data.languages)
    languages = data.languages if mixing is data.mixing else None  # which are in the weights now
    weights = [one.weight * here for one, here in zip(data.sources, used, strict=True) if one.weight is not None]
    sampler: Callable[..., PairSampler] = PairSampler
    if weights or isinstance(mixing, WeightsMixing) or data.language_batches == "single":
        shares = Shares(numbers, weights or None, data.language_batches)
        sampler = partial(WeightedPairSampler, shares=shares)
    return sampler(
        metas,
        batch_size,
        seed=seed,
        mixing=mixing,
        languages=languages,
        distinct_concepts=data.distinct_concepts,
    )
