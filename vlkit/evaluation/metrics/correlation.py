"""How far two lists of scores go together: over languages, over models, with a third thing held fixed.

N points, R bootstrap replicates, G things held fixed.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau, rankdata

from vlkit.errors import VlkitError

Floats = npt.NDArray[np.float64]


class Estimate(NamedTuple):
    """A coefficient in -1..1 with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


class Correlation(NamedTuple):
    """Three coefficients over ``n`` points."""

    n: int
    pearson: Estimate
    spearman: Estimate
    kendall: Estimate


def correlate(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    given: npt.ArrayLike | None = None,
    clusters: npt.ArrayLike | None = None,
    replicates: int = 500,
    seed: int = 0,
) -> Correlation:
    """Pearson, Spearman and Kendall (tau-b) of paired scores.

    Accuracies of languages with few classes are high whatever the model: give ``given=np.log(num_classes)`` to hold
    that fixed. Then residuals of the linear regression on it are correlated (of the ranks, for Spearman and Kendall).

    Args:
        x: N scores.
        y: N scores of the same things.
        given: N values, or N x G, to be held fixed.
        clusters: N ids (languages, say) of points that are resampled together; None resamples single points.
        replicates: Resamples R of the interval; 0 for none (NaN).
        seed: The same seed gives the same interval.

    Raises:
        VlkitError: Lists of different lengths, fewer than three points, or values that are not finite.
    """
    x_N, y_N = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    given_NG = np.empty((x_N.size, 0)) if given is None else np.asarray(given, dtype=np.float64)
    given_NG = given_NG.reshape(len(given_NG), -1)
    ids_N = np.arange(x_N.size) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    if x_N.ndim != 1 or not len(x_N) == len(y_N) == len(given_NG) == len(ids_N) or len(x_N) < 3:
        raise VlkitError(
            f"x, y, given and clusters have {len(x_N)}, {len(y_N)}, {len(given_NG)} and {len(ids_N)} entries; need "
            f"equally many, at least three"
        )
    if not all(np.isfinite(values).all() for values in (x_N, y_N, given_NG)):
        raise VlkitError("x, y or given has values that are not finite; leave these points out")
    members = [np.flatnonzero(ids_N == cluster) for cluster in range(int(ids_N.max()) + 1)]
    rng = np.random.default_rng(seed)
    drawn = [
        np.concatenate([members[place] for place in rng.integers(len(members), size=len(members))])
        for _ in range(replicates)
    ]
    found = []
    for measure in (_pearson, _spearman, _kendall):
        values = [measure(x_N[rows], y_N[rows], given_NG[rows]) for rows in drawn]
        values = [value for value in values if not math.isnan(value)]  # a resample of one point repeated has none
        low, high = np.quantile(values, [0.025, 0.975]) if values else (math.nan, math.nan)
        found.append(Estimate(measure(x_N, y_N, given_NG), float(low), float(high)))
    return Correlation(len(x_N), *found)


def _pearson(x_N: Floats, y_N: Floats, given_NG: Floats) -> float:
    x_N, y_N = _residual(x_N, given_NG), _residual(y_N, given_NG)
    scale = math.sqrt(float(x_N @ x_N) * float(y_N @ y_N))
    return float(x_N @ y_N) / scale if scale > 1e-12 else math.nan


def _spearman(x_N: Floats, y_N: Floats, given_NG: Floats) -> float:
    return _pearson(rankdata(x_N), rankdata(y_N), _ranked(given_NG))


def _kendall(x_N: Floats, y_N: Floats, given_NG: Floats) -> float:
    if given_NG.shape[1]:
        ranked_NG = _ranked(given_NG)
        x_N, y_N = (_residual(rankdata(values), ranked_NG) for values in (x_N, y_N))
        x_N, y_N = x_N.round(9), y_N.round(9)
    return float(kendalltau(x_N, y_N).statistic)  # tau-b; NaN where one of them does not vary


def _ranked(given_NG: Floats) -> Floats:
    columns = [rankdata(column) for column in given_NG.T]
    return np.stack(columns, axis=1) if columns else given_NG


def _residual(values_N: Floats, given_NG: Floats) -> Floats:
    design_NG = np.concatenate([np.ones((len(values_N), 1)), given_NG], axis=1)
    weights_G = np.linalg.lstsq(design_NG, values_N, rcond=None)[0]
    residual: Floats = values_N - design_NG @ weights_G
    return residual
