"""Which pairs a training step sees: a pure function of seed and step, so that a resumed run needs only the step.

Each epoch deals the images into batches anew. Dealing goes by concept: the images, in a random order of their concepts,
are dealt round like cards to the batches of the epoch, so that two images of one concept never meet (where there are
enough concepts) and no image is seen twice in an epoch.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from vlkit.data.formats.caption_forms import tag
from vlkit.errors import DataError
from vlkit.spec.dataset import EnglishShareMixing, MixingSpec, TemperatureMixing, UniformMixing, WeightsMixing
from vlkit.types import Pick, SampleMeta

T = TypeVar("T")
_EPOCH, _STEP, _SPARE = 1, 2, 3  # streams of random numbers that must not meet
_TRIES = 64


class PairSampler:
    """Plans the batches of a run: ``batch_size`` pairs of the samples whose ``metas`` these are.

    ``mixing`` says how the language of a caption is drawn; ``languages`` are BCP 47 tags to learn from (None: all), and
    samples with none of them are left out (``left_out`` of them). With ``distinct_concepts`` no two pairs of a batch
    are of one concept, where there are enough concepts. In ``steps_per_epoch`` batches no image comes twice.

    Raises:
        DataError: Fewer pairs than a batch needs, or a language that no sample has.
    """

    def __init__(
        self,
        metas: Sequence[SampleMeta],
        batch_size: int,
        *,
        seed: int,
        mixing: MixingSpec | None = None,
        languages: Sequence[str] | None = None,
        distinct_concepts: bool = True,
    ) -> None:
        self.batch_size, self.seed = batch_size, seed
        self.mixing: MixingSpec = mixing or UniformMixing()
        self.languages = _allowed(metas, chosen_languages(self.mixing, languages))
        # Most samples share their languages and counts: what hangs on those is worked out once a kind.
        kinds: dict[tuple[tuple[str, ...], tuple[int, ...]], int] = {}
        kind_of = np.array(
            [kinds.setdefault((meta.languages, meta.counts), len(kinds)) for meta in metas], dtype=np.int64
        )
        wanted = set(self.languages)
        tables = [
            {language: count for language, count in zip(*kind, strict=True) if language in wanted} for kind in kinds
        ]
        usable = np.array([bool(table) for table in tables], dtype=bool)
        self._pool = np.flatnonzero(usable[kind_of]) if len(metas) else np.zeros(0, dtype=np.int64)
        self.left_out = len(metas) - len(self._pool)
        if len(self._pool) < batch_size:
            raise DataError(
                f"loop.batch_size = {batch_size}, but there are only {len(self._pool)} images with a caption in the "
                f"chosen languages; use loop.batch_size={len(self._pool)} or less"
            )
        self._kind_of, self._counts = kind_of[self._pool], tables
        self._cdfs = self._cumulative(tables)
        names = [metas[index].concept or f"\0{index}" for index in self._pool.tolist()]
        self._group = np.unique(names, return_inverse=True)[1] if distinct_concepts else np.arange(len(names))
        self._concepts = names
        sizes = np.bincount(self._group)
        self.steps_per_epoch, self._cap = _batches_an_epoch(sizes, batch_size)
        self._deal = LastResults(self._deal_epoch, count=2)

    def plan(self, step: int) -> list[Pick]:
        """The pairs of a step (from 0), over all processes."""
        return self._picks(self._positions(step), np.random.default_rng([self.seed, _STEP, step]))

    def spare(self, step: int, row: int, *, attempt: int) -> Pick:
        """What takes the place of an unreadable sample in row ``row`` of a step; differs by attempt.

        Its concept is not in the batch already, where such a one is found.
        """
        random = np.random.default_rng([self.seed, _SPARE, step, row, attempt])
        taken = {self._concepts[position] for position in self._positions(step)}
        position = self._untaken(np.arange(len(self._pool)), taken, random)
        return self._picks(np.array([position]), random)[0]

    def _untaken(self, positions: NDArray[np.int64], taken: Collection[str], random: np.random.Generator) -> int:
        """Any of some positions in the pool, of a concept that is not taken where one is found."""
        position = 0
        for _ in range(_TRIES):
            position = int(positions[random.integers(len(positions))])
            if self._concepts[position] not in taken:
                break
        return position

    def _positions(self, step: int) -> NDArray[np.int64]:
        epoch, number = divmod(step, self.steps_per_epoch)
        row: NDArray[np.int64] = self._deal(epoch)[number]
        return row

    def _picks(self, positions: NDArray[np.int64], random: np.random.Generator) -> list[Pick]:
        draws = random.random(len(positions))
        chosen = (draws[:, None] >= self._cdfs[self._kind_of[positions]]).sum(axis=1)
        captions = random.integers(0, 2**31, len(positions))
        views = random.integers(0, 2**63, len(positions))
        picks = []
        for position, number, caption, view in zip(positions, chosen, captions, views, strict=True):
            index, kind, language = int(self._pool[position]), int(self._kind_of[position]), self.languages[number]
            picks.append(Pick(index, language, int(caption) % self._counts[kind][language], int(view)))
        return picks

    def _deal_epoch(self, epoch: int) -> NDArray[np.int64]:
        """Positions in the pool, one row a batch."""
        random = np.random.default_rng([self.seed, _EPOCH, epoch])
        order = random.permutation(len(self._pool))
        # At most _cap images of a concept, then as many as fill the batches, chosen by the random order.
        order = order[rank_in_group(self._group[order]) < self._cap]
        order = order[: self.steps_per_epoch * self.batch_size]
        place = random.permutation(int(self._group.max()) + 1)
        order = order[np.argsort(place[self._group[order]], kind="stable")]
        return order.reshape(self.batch_size, self.steps_per_epoch).T

    def _cumulative(self, tables: Sequence[Mapping[str, int]]) -> NDArray[np.float64]:
        """Cumulative probability over the languages, one row a kind of sample."""
        listed = [table.get(language, 0) for table in tables for language in self.languages]
        amounts = np.array(listed, dtype=np.float64).reshape(len(tables), len(self.languages))
        totals = np.bincount(self._kind_of, minlength=len(tables)) @ amounts
        cdfs = np.ones_like(amounts)
        for number, row in enumerate(amounts):
            if row.any():
                weights = np.zeros(len(row))
                members = np.flatnonzero(row)
                names = [self.languages[number] for number in members.tolist()]
                weights[members] = language_weights(self.mixing, names, totals[members])
                cdfs[number] = np.cumsum(weights)
                cdfs[number] /= cdfs[number, -1]  # ends in exactly 1, also behind languages of weight 0
        return cdfs


def language_weights(
    mixing: MixingSpec, languages: Sequence[str], totals: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Chances of an image's languages, relative to each other; ``totals`` are the captions of each in all the data."""
    if isinstance(mixing, TemperatureMixing) and totals is not None:
        return np.asarray(totals**mixing.alpha, dtype=np.float64)
    if isinstance(mixing, EnglishShareMixing):
        english = np.array([language == "en" for language in languages])
        if english.any() and not english.all():
            return np.where(english, mixing.share, (1 - mixing.share) / (~english).sum())
    if isinstance(mixing, WeightsMixing):
        weights = {tag(code): weight for code, weight in mixing.weights.items()}
        return np.array([weights.get(language, 0.0) for language in languages])
    return np.ones(len(languages))


def chosen_languages(mixing: MixingSpec, languages: Sequence[str] | None) -> Sequence[str] | None:
    """The languages to learn from: those with a weight, where each has one of its own.

    Raises:
        DataError: A language of data.languages has no weight.
    """
    if not isinstance(mixing, WeightsMixing):
        return languages
    weighted = [tag(code) for code in mixing.weights]
    if without := [code for code in languages or () if tag(code) not in weighted]:
        raise DataError(
            f"data.mixing.weights gives no weight to {', '.join(without)} of data.languages; it has: "
            f"{', '.join(mixing.weights)}"
        )
    return weighted if languages is None else languages


def wanted_of(languages: Sequence[str], present: Collection[str]) -> tuple[str, ...]:
    """The BCP 47 tags of the languages to learn from, sorted.

    Raises:
        DataError: One that is not present in the data.
    """
    wanted = tuple(sorted({tag(language) for language in languages}))
    if missing := [language for language in wanted if language not in present]:
        raise DataError(
            f"data.languages: no caption in {', '.join(missing)}; the data has: {', '.join(sorted(present)) or 'none'}"
        )
    return wanted


def _allowed(metas: Sequence[SampleMeta], languages: Sequence[str] | None) -> tuple[str, ...]:
    present = {language for languages_ in {meta.languages for meta in metas} for language in languages_}
    if languages is None:
        return tuple(sorted(present))
    return wanted_of(languages, present)


def _batches_an_epoch(sizes: NDArray[np.int64], batch_size: int) -> tuple[int, int]:
    """The most batches that an epoch can fill with distinct concepts, and how many images a concept then gives.

    K batches can be filled when sum(min(size, K)) >= K * batch_size; that sum is concave in K, so the K that work are
    1..K_max. With fewer concepts than a batch has rows no K works: concepts then repeat as little as they can.
    """
    most = int(sizes.sum()) // batch_size
    if len(sizes) < batch_size:
        return most, int(sizes.max())

    def too_many(batches: int) -> bool:
        return int(np.minimum(sizes, batches).sum()) < batches * batch_size

    fit = 1 + bisect_left(range(2, most + 1), True, key=too_many)
    return fit, fit


class LastResults(Generic[T]):
    """A function whose last results are kept; they stay behind where it goes to another process."""

    def __init__(self, function: Callable[..., T], count: int) -> None:
        self._made_of = function, count
        self._kept = lru_cache(maxsize=count)(function)

    def __call__(self, *numbers: int) -> T:
        """The function's result."""
        return self._kept(*numbers)

    def __reduce__(self) -> tuple[Any, ...]:
        return LastResults, self._made_of


def rank_in_group(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of the same group come before each entry."""
    by_group = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(groups[by_group]) != 0])
    lengths = np.diff(np.r_[starts, len(groups)])
    rank = np.empty(len(groups), dtype=np.int64)
    rank[by_group] = np.arange(len(groups)) - np.repeat(starts, lengths)
    return rank
