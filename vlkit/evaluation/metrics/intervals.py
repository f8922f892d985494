"""Accuracies and other figures of images with intervals, and chance.

N images, C classes that occur among them, K columns of figures, R bootstrap replicates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vlkit.errors import VlkitError

_CELLS = 1 << 22  # random numbers drawn at once: keeps the bootstrap's memory below about 100 MB


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


def wilson_interval(hits: int, count: int) -> Interval:
    """95 % Wilson score interval of a proportion; never empty, not even at 0 or ``count`` hits."""
    from scipy.stats import binomtest

    if not 0 <= hits <= count or count < 1:
        raise VlkitError(f"hits = {hits}, count = {count}: need 0 <= hits <= count and at least one trial")
    low, high = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    return Interval(float(low), float(high))


def bootstrap_interval(
    hits: npt.ArrayLike, classes: npt.ArrayLike, *, seed: int = 0, replicates: int = 1000, level: float = 0.95
) -> Interval:
    """Percentile interval of the accuracy by a class-cluster bootstrap: classes are resampled, then images inside each.

    Images of one class stand or fall together with its name: resampling images alone gives too narrow intervals. To
    draw n images of a class with replacement and count the right ones is to draw from Binomial(n, share right), which
    is how it is done here. Where none or all were right resampling cannot vary, and the Wilson interval is given.

    ``hits`` are N values, true where the answer was right, ``classes`` N class ids, any integers. ``level`` is the
    share of the R replicates inside the interval. The same seed gives the same interval, bit for bit.
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
    rng, means = np.random.default_rng(seed), []
    for drawn_RC in _drawn(rng, len(count_C), replicates, cells=_CELLS):
        counts_RC = count_C[drawn_RC]
        means.append(rng.binomial(counts_RC, share_C[drawn_RC]).sum(1) / counts_RC.sum(1))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return Interval(float(low), float(high))


def _drawn(
    rng: np.random.Generator, num_classes: int, replicates: int, *, cells: int
) -> Iterator[npt.NDArray[np.int64]]:
    """Classes drawn with replacement, for so many replicates at a time that there are about ``cells`` of them."""
    step = max(1, cells // num_classes)
    for start in range(0, replicates, step):
        yield rng.integers(num_classes, size=(min(step, replicates - start), num_classes))


class PairedDifference(NamedTuple):
    """Accuracy of one model less that of another on the same images: 95 % interval and two-sided p-value."""

    difference: float
    low: float
    high: float
    p_value: float


def paired_comparison(
    hits: npt.ArrayLike, others: npt.ArrayLike, classes: npt.ArrayLike, *, seed: int = 0, replicates: int = 1000
) -> PairedDifference:
    """Two models on the same images by a paired class-cluster bootstrap: classes are resampled, then images inside.

    The p-value is twice the smaller share of replicates on either side of zero, ``(1 + count) / (1 + R)``, at most 1.
    Arguments are those of ``bootstrap_interval``, with the hits of both models.
    """
    hits_N, others_N, classes_N = np.asarray(hits, dtype=bool), np.asarray(others, dtype=bool), np.asarray(classes)
    if hits_N.ndim != 1 or not hits_N.shape == others_N.shape == classes_N.shape or hits_N.size == 0:
        raise VlkitError(
            f"hits {hits_N.shape}, others {others_N.shape} and classes {classes_N.shape} must be lists of one length, "
            f"not empty"
        )
    if replicates < 1:
        raise VlkitError(f"replicates = {replicates}: must be at least 1")
    _, ids_N = np.unique(classes_N, return_inverse=True)
    gap_N = hits_N.astype(np.int64) - others_N
    count_C = np.bincount(ids_N)
    # an image is won, lost or neither: n drawn from a class with replacement are a multinomial draw
    share_C3 = np.stack([np.bincount(ids_N, weights=gap_N == sign) / count_C for sign in (1, -1, 0)], axis=1)
    rng, means = np.random.default_rng(seed), []
    for drawn_RC in _drawn(rng, len(count_C), replicates, cells=_CELLS // 4):
        wins_RC3 = rng.multinomial(count_C[drawn_RC], share_C3[drawn_RC])
        means.append((wins_RC3[..., 0] - wins_RC3[..., 1]).sum(1) / count_C[drawn_RC].sum(1))
    mean_R = np.concatenate(means)
    low, high = np.quantile(mean_R, [0.025, 0.975])
    tail = (1 + min(int((mean_R <= 0).sum()), int((mean_R >= 0).sum()))) / (1 + replicates)
    return PairedDifference(float(gap_N.mean()), float(low), float(high), min(1.0, 2 * tail))


def paired_means(
    values: npt.ArrayLike, others: npt.ArrayLike, classes: npt.ArrayLike, *, seed: int = 0, replicates: int = 1000
) -> PairedDifference:
    """``paired_comparison`` of any figure that images have (chrF of the answer, say), by its mean over images."""
    values_N, others_N, classes_N = np.asarray(values, float), np.asarray(others, float), np.asarray(classes)
    if values_N.shape != others_N.shape:
        raise VlkitError(f"values {values_N.shape} and others {others_N.shape} must be lists of one length")
    gap_N = values_N - others_N
    sums_R2 = resampled_sums(np.stack([gap_N, np.ones_like(gap_N)], 1), classes_N, seed=seed, replicates=replicates)
    mean_R = sums_R2[:, 0] / sums_R2[:, 1]
    tail = (1 + min(int((mean_R <= 0).sum()), int((mean_R >= 0).sum()))) / (1 + replicates)
    return PairedDifference(float(gap_N.mean()), *percentiles(mean_R), min(1.0, 2 * tail))


def resampled_sums(
    values: npt.ArrayLike, classes: npt.ArrayLike, *, seed: int = 0, replicates: int = 1000
) -> npt.NDArray[np.float64]:
    """Column sums [R, K] over images drawn as ``bootstrap_interval`` draws them: classes, then images inside each.

    All figures that are made of sums (means, shares, BLEU, differences of these between two models) are functions of
    the columns; taken from one draw they are paired. ``values`` are [N, K] numbers, ``classes`` N class ids.
    """
    values_NK, classes_N = np.asarray(values, dtype=np.float64), np.asarray(classes)
    if values_NK.ndim != 2 or classes_N.shape != values_NK.shape[:1] or not classes_N.size:
        raise VlkitError(f"values {values_NK.shape} and classes {classes_N.shape} must be of the same images, not none")
    if replicates < 1:
        raise VlkitError(f"replicates = {replicates}: must be at least 1")
    _, ids_N, count_C = np.unique(classes_N, return_inverse=True, return_counts=True)
    several = [np.flatnonzero(ids_N == one) for one in np.flatnonzero(count_C > 1)]
    rng, sums = np.random.default_rng(seed), []
    step = max(1, _CELLS // len(classes_N))
    for start in range(0, replicates, step):
        size = min(step, replicates - start)
        times_RC = rng.multinomial(len(count_C), np.full(len(count_C), 1 / len(count_C)), size=size)
        times_RN = times_RC[:, ids_N].astype(np.float64)  # as it stays for classes of one image
        for images in several:
            drawn_R = times_RC[:, ids_N[images[0]]] * len(images)
            times_RN[:, images] = rng.multinomial(drawn_R, np.full(len(images), 1 / len(images)))
        sums.append(times_RN @ values_NK)
    return np.concatenate(sums)


def percentiles(figures: npt.ArrayLike) -> Interval:
    """The 95 % interval of those of R replicates that have a figure (are not NaN); NaN where none has."""
    known = np.asarray(figures, dtype=np.float64)
    known = known[~np.isnan(known)]
    if not known.size:
        return Interval(math.nan, math.nan)
    low, high = np.quantile(known, [0.025, 0.975])
    return Interval(float(low), float(high))


def subset_accuracy(ranks: npt.ArrayLike, classes: npt.ArrayLike, *, num_classes: int, size: int) -> float:
    """Top-1 accuracy that a random subset of ``size`` classes would give, on average over all such subsets.

    With it, languages of different numbers of classes are compared as if all had ``size``. An image whose right class
    has rank r among K is right in a subset of m classes if none of the r - 1 before it is there, which happens with
    probability C(K - r, m - 1) / C(K - 1, m - 1): nothing needs to be drawn. Classes weigh equally.

    ``ranks`` are those of the right class of each of the N images, from 1, ``classes`` any integers; ``size`` is 1..K.
    """
    rank_N, classes_N = np.asarray(ranks), np.asarray(classes)
    if not 1 <= size <= num_classes:
        raise VlkitError(f"size = {size}: a subset of {num_classes} classes has 1 to {num_classes}")
    if rank_N.shape != classes_N.shape or rank_N.size == 0 or rank_N.min() < 1 or rank_N.max() > num_classes:
        raise VlkitError(f"need one rank in 1..{num_classes} and one class for each image")
    # C(K - r, m - 1) / C(K - r + 1, m - 1) = (K - r - m + 2) / (K - r + 1), from rank to rank
    share_K = np.zeros(num_classes)
    share_K[0] = 1.0
    for rank in range(2, num_classes - size + 2):
        share_K[rank - 1] = share_K[rank - 2] * (num_classes - rank + 1 - (size - 1)) / (num_classes - rank + 1)
    _, ids_N = np.unique(classes_N, return_inverse=True)
    by_class = np.bincount(ids_N, weights=share_K[rank_N - 1]) / np.bincount(ids_N)
    return float(by_class.mean())


def bootstrap_mean(values: npt.ArrayLike, *, seed: int = 0, replicates: int = 1000) -> Interval:
    """95 % percentile interval of the mean of resampled values (languages of a group, say), whatever their order."""
    values_N = np.asarray(values, dtype=np.float64)
    if values_N.ndim != 1 or values_N.size == 0:
        raise VlkitError("no values to take the mean of")
    values_N = np.sort(values_N)
    drawn_RN = np.random.default_rng(seed).integers(values_N.size, size=(replicates, values_N.size))
    low, high = np.quantile(values_N[drawn_RN].mean(1), [0.025, 0.975])
    return Interval(float(low), float(high))
