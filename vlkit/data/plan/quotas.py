"""Fixed shares without chance in the long run: each block of steps holds every stratum exactly so many times.

Within a block the order is random, so that batches vary; over a block the shares are as asked for, to the nearest row.
As all blocks hold the same counts, how often a stratum came before any step is known without looking at those steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
_ROWS_A_BLOCK = 2048  # at least: shares are then met to 1 in 2000


class Quotas:
    """``draw(step)`` deals ``rows`` places of a step to strata by their weights; a pure function of the step.

    ``weights`` are relative to each other, at least 0; ``seed`` numbers that no other stream of random numbers has.
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
        np.random.default_rng([*self.seed, block]).shuffle(strata)
        return strata, rank_in_group(strata)


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
