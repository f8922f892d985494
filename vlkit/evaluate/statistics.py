"""Accuracies with intervals, and chance.

N images, C classes that occur among them, R bootstrap replicates.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vlkit.errors import VlkitError

_CELLS = 1 << 22  # random numbers drawn at once: keeps the bootstrap's memory below about 100 MB
_Z95 = 1.959963984540054


class Interval(NamedTuple):
    """Lower and upper end, both in 0..1."""

    low: float
    high: float


def chance(num_classes: int) -> float:
    """Expected accuracy of guessing among ``num_classes`` classes."""
    if num_classes < 1:
        raise VlkitError(f"num_classes = {num_classes}: chance needs at least one class")
    return 1.0 / num_classes


def chance_corrected(accuracy: float, num_classes: int) -> float:
    """``(accuracy - 1/n) / (1 - 1/n)``: 0 at chance, 1 when all is right; comparable over languages of different n.

    NaN for one class, where nothing can be got wrong.
    """
    guess = chance(num_classes)
    return (accuracy - guess) / (1.0 - guess) if num_classes > 1 else math.nan


def wilson_interval(hits: int, count: int, *, z: float = _Z95) -> Interval:
    """Wilson score interval of a proportion; never empty, not even at 0 or ``count`` hits.

    Args:
        hits: How many were right, 0..count.
        count: How many there were, at least one.
        z: Normal quantile of the level; the default is 95 %.
    """
    if not 0 <= hits <= count or count < 1:
        raise VlkitError(f"hits = {hits}, count = {count}: need 0 <= hits <= count and at least one trial")
    share, square = hits / count, z * z
    middle = share + square / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + square / (4 * count * count))
    scale = 1 + square / count
    # at the two ends the exact bound is 0 or 1; rounding must not push it past the share itself
    low = 0.0 if hits == 0 else (middle - half) / scale
    high = 1.0 if hits == count else (middle + half) / scale
    return Interval(low, high)


def bootstrap_interval(
    hits: npt.ArrayLike, classes: npt.ArrayLike, *, seed: int = 0, replicates: int = 1000, level: float = 0.95
) -> Interval:
    """Percentile interval of the accuracy by a class-cluster bootstrap: classes are resampled, then images inside each.

    Images of one class stand or fall together with its name: resampling images alone gives too narrow intervals. To
    draw n images of a class with replacement and count the right ones is to draw from Binomial(n, share right), which
    is how it is done here. Where none or all were right resampling cannot vary, and the Wilson interval is given.

    Args:
        hits: N values, true where the answer was right.
        classes: N class ids, any integers.
        seed: The same seed gives the same interval, bit for bit.
        replicates: Resamples R.
        level: Share of the replicates inside the interval.
    """
    hits_N = np.asarray(hits, dtype=bool)
    classes_N = np.asarray(classes)
    if hits_N.ndim != 1 or hits_N.shape != classes_N.shape or hits_N.size == 0:
        raise VlkitError(
            f"hits {hits_N.shape} and classes {classes_N.shape} must be two lists of one length, not empty"
        )
    if replicates < 1 or not 0 < level < 1:
        raise VlkitError(f"replicates = {replicates}, level = {level}: need replicates >= 1 and 0 < level < 1")
    right = int(hits_N.sum())
    if right in (0, hits_N.size):
        return wilson_interval(right, hits_N.size)
    _, ids_N = np.unique(classes_N, return_inverse=True)
    count_C = np.bincount(ids_N)
    share_C = np.bincount(ids_N, weights=hits_N) / count_C
    rng = np.random.default_rng(seed)
    num_classes = len(count_C)
    step = max(1, _CELLS // num_classes)
    means = []
    for start in range(0, replicates, step):
        drawn_RC = rng.integers(num_classes, size=(min(step, replicates - start), num_classes))
        counts_RC = count_C[drawn_RC]
        means.append(rng.binomial(counts_RC, share_C[drawn_RC]).sum(1) / counts_RC.sum(1))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return Interval(float(low), float(high))
