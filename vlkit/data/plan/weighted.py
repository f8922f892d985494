"""Batches with shares of their own: so much of each source and each language, or one language a batch.

A stratum is what a row is drawn from: the images of a source, those with captions in a language, or both. Each stratum
deals its images in epochs of its own, so that none comes twice before all came once; quotas say which row is of which.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlkit.data.plan.sampling import LastResults, PairSampler, language_weights, rank_in_group
from vlkit.errors import DataError
from vlkit.spec.dataset import MixingSpec, WeightsMixing
from vlkit.types import Pick, SampleMeta

_DEAL, _ROWS, _LANGUAGE, _SPARE, _CAPTION = 11, 12, 13, 14, 15  # streams of random numbers that must not meet
_ROWS_A_BLOCK = 2048  # at least: shares are then met to 1 in 2000


class _Dealt(NamedTuple):
    position: int  # in the sampler's pool
    stratum: int


@dataclass(frozen=True)
class _Stratum:
    language: str | None
    positions: NDArray[np.int64]
    weight: float


@dataclass(frozen=True)
class Shares:
    """What is to have shares of its own.

    ``source_of`` is the number of each sample's source; ``source_weights`` one a source, 0 leaves it out; None
    for shares by size.
    """

    source_of: Sequence[int]
    source_weights: Sequence[float] | None = None
    language_batches: Literal["mixed", "single"] = "mixed"


class WeightedPairSampler(PairSampler):
    """A PairSampler whose batches hold the sources and languages in given shares (see Shares and WeightsMixing).

    With source weights, a language's weight counts among the languages that its source has.

    Raises:
        DataError: See PairSampler; or a source, or all of it, has no image in the chosen languages.
    """

    def __init__(
        self,
        metas: Sequence[SampleMeta],
        batch_size: int,
        *,
        shares: Shares,
        seed: int,
        mixing: MixingSpec,
        languages: Sequence[str] | None = None,
        distinct_concepts: bool = True,
    ) -> None:
        super().__init__(
            metas, batch_size, seed=seed, mixing=mixing, languages=languages, distinct_concepts=distinct_concepts
        )
        self.distinct_concepts = distinct_concepts
        self.steps_per_epoch = max(1, len(self._pool) // batch_size)
        single = shares.language_batches == "single"
        self._strata = self._make_strata(shares, by_language=single or isinstance(self.mixing, WeightsMixing))
        groups = defaultdict[str | None, list[int]](list)
        for number, stratum in enumerate(self._strata):
            groups[stratum.language if single else None].append(number)
        self._groups = list(groups.values())
        totals = [sum(self._strata[number].weight for number in group) for group in self._groups]
        self._which = Quotas(totals, rows=1, seed=[seed, _LANGUAGE])
        self._rows = [
            Quotas([self._strata[number].weight for number in group], rows=batch_size, seed=[seed, _ROWS, which])
            for which, group in enumerate(self._groups)
        ]
        self._order = LastResults(self._deal_stratum, count=4 * len(self._strata))

    def plan(self, step: int) -> list[Pick]:
        """The pairs of a step (from 0), over all processes."""
        return self._pick(self._places(step), np.random.default_rng([self.seed, _CAPTION, step]))

    def spare(self, step: int, row: int, *, attempt: int) -> Pick:
        """What takes the place of an unreadable sample: another one of the same source and language."""
        random = np.random.default_rng([self.seed, _SPARE, step, row, attempt])
        places = self._places(step)
        taken = {self._concepts[place.position] for place in places}
        return self._pick([self._another(places[row].stratum, taken, random)], random)[0]

    def _places(self, step: int) -> list[_Dealt]:
        which, before = (int(numbers[0]) for numbers in self._which.draw(step))
        strata, ranks = self._rows[which].draw(before)
        random = np.random.default_rng([self.seed, _SPARE, step])
        places: list[_Dealt] = []
        taken: set[str] = set()
        for number, rank in zip(strata.tolist(), ranks.tolist(), strict=True):
            stratum = self._groups[which][number]
            epoch, dealt = divmod(rank, len(self._strata[stratum].positions))
            place = _Dealt(int(self._order(stratum, epoch)[dealt]), stratum)
            if self.distinct_concepts and self._concepts[place.position] in taken:
                place = self._another(place.stratum, taken, random)
            taken.add(self._concepts[place.position])
            places.append(place)
        return places

    def _deal_stratum(self, stratum: int, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, _DEAL, stratum, epoch]).permutation(self._strata[stratum].positions)

    def _another(self, stratum: int, taken: Collection[str], random: np.random.Generator) -> _Dealt:
        return _Dealt(self._untaken(self._strata[stratum].positions, taken, random), stratum)

    def _pick(self, places: Sequence[_Dealt], random: np.random.Generator) -> list[Pick]:
        picks = self._picks(np.array([place.position for place in places]), random)
        captions = random.integers(0, 2**31, len(places)).tolist()
        for row, (place, caption) in enumerate(zip(places, captions, strict=True)):
            language = self._strata[place.stratum].language
            if language is not None:
                count = self._counts[int(self._kind_of[place.position])][language]
                picks[row] = Pick(picks[row].index, language, caption % count, picks[row].view_seed)
        return picks

    def _make_strata(self, shares: Shares, *, by_language: bool) -> list[_Stratum]:
        source_of = np.asarray(shares.source_of, dtype=np.int64)[self._pool]
        if shares.source_weights is None:
            groups = [(1.0, np.arange(len(self._pool)))]
        else:
            groups = [(weight, np.flatnonzero(source_of == n)) for n, weight in enumerate(shares.source_weights)]
        strata: list[_Stratum] = []
        for number, (weight, positions) in enumerate(groups):
            if not weight:
                continue
            if not len(positions):
                raise DataError(
                    f"data.sources.{number} has a weight but no image with a caption in the chosen languages"
                )
            if not by_language:
                strata.append(_Stratum(None, positions, weight))
                continue
            chances = self._language_chances(positions)
            has = np.array([[language in counts for language in self.languages] for counts in self._counts])
            strata += [
                _Stratum(language, positions[has[self._kind_of[positions], column]], weight * chance)
                for column, (language, chance) in enumerate(zip(self.languages, chances.tolist(), strict=True))
                if chance > 0
            ]
        return strata

    def _language_chances(self, positions: NDArray[np.int64]) -> NDArray[np.float64]:
        """Shares of the languages among these images, in the order of ``languages``; those that none has get 0."""
        kinds = np.bincount(self._kind_of[positions], minlength=len(self._counts)).astype(np.float64)
        if not isinstance(self.mixing, WeightsMixing):  # what drawing image by image gives on average
            return np.asarray(kinds @ np.diff(self._cdfs, axis=1, prepend=0.0) / len(positions), dtype=np.float64)
        present = np.array(
            [any(n and tag in kind for n, kind in zip(kinds, self._counts, strict=True)) for tag in self.languages]
        )
        weights = language_weights(self.mixing, self.languages) * present
        return np.asarray(weights / weights.sum(), dtype=np.float64)


class Quotas:
    """``draw(step)`` deals ``rows`` places of a step to strata by their weights; a pure function of the step.

    Shares are fixed: each block of steps holds every stratum exactly so many times, to the nearest row, and its rows up
    to any step differ from that by no more than there are strata. Otherwise the order is random. As all blocks hold the
    same counts, how often a stratum came before any step is known without looking at those steps. ``weights`` are
    relative to each other, at least 0; ``seed`` numbers that no other stream of random numbers has.
    """

    def __init__(self, weights: Sequence[float], *, rows: int, seed: Sequence[int]) -> None:
        self.rows, self.seed = rows, tuple(seed)
        self.steps = -(-_ROWS_A_BLOCK // rows)
        exact = np.asarray(weights, dtype=np.float64) / np.sum(weights) * (self.steps * rows)
        counts = np.floor(exact).astype(np.int64)
        short = self.steps * rows - int(counts.sum())
        counts[np.argsort(counts - exact, kind="stable")[:short]] += 1  # the largest remainders
        self.counts = counts
        self._block = LastResults(self._make_block, count=2)

    def draw(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The stratum of each row of a step, and how many rows of that stratum came before it since step 0."""
        block, inside = divmod(step, self.steps)
        strata, before = self._block(block)
        here = slice(inside * self.rows, (inside + 1) * self.rows)
        return strata[here], before[here] + block * self.counts[strata[here]]

    def _make_block(self, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        strata = np.repeat(np.arange(len(self.counts)), self.counts)
        # Occurrence k of n lies at random in the k-th n-th of the block, so that shares hold in every part of it.
        jitter = np.random.default_rng([*self.seed, block]).random(len(strata))
        strata = strata[np.argsort((rank_in_group(strata) + jitter) / self.counts[strata], kind="stable")]
        return strata, rank_in_group(strata)
