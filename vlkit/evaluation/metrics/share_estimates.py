"""Shares and means of answers with intervals that resample groups of them, and how far they are from a control's.

N answers, F figures, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlkit.evaluation.metrics.intervals import Interval, percentiles, resampled_sums, wilson_interval

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ShareEstimate:
    """A mean over answers and its 95 % interval."""

    value: float
    interval: Interval


def share_estimates(
    each: Mapping[str, npt.ArrayLike], groups: Sequence[int], *, against: Mapping[str, npt.ArrayLike], seed: int
) -> tuple[dict[str, ShareEstimate], dict[str, ShareEstimate]]:
    """The mean of each figure [N], and how much better it is than its control, where there is one; all paired.

    Groups are resampled, then answers inside each. A share of answers that is 0 or 1 has the Wilson interval.

    Args:
        each: By name a figure of each answer, in 0..1.
        groups: Numbers that answers share which stand or fall together.
        against: The same figures of a control, by name.
        seed: Of the resampling.
    """
    own = {name: np.asarray(values, dtype=np.float64) for name, values in each.items()}
    other = {name: np.asarray(values, dtype=np.float64) for name, values in against.items() if name in own}
    columns = [*own.values(), *other.values(), np.ones(len(groups))]
    drawn_RF = resampled_sums(np.column_stack(columns), groups, seed=seed)
    mean_RF = drawn_RF[:, :-1] / drawn_RF[:, -1:]
    names = list(own)
    estimates = {
        name: ShareEstimate(float(values.mean()), _interval(values, mean_RF[:, place]))
        for place, (name, values) in enumerate(own.items())
    }
    gaps = {
        name: ShareEstimate(
            float(own[name].mean() - values.mean()),
            percentiles(mean_RF[:, names.index(name)] - mean_RF[:, len(own) + place]),
        )
        for place, (name, values) in enumerate(other.items())
    }
    return estimates, gaps


def _interval(values_N: Floats, drawn_R: Floats) -> Interval:
    if values_N.min() == values_N.max() and values_N[0] in (0, 1):
        return wilson_interval(int(values_N.sum()), len(values_N))
    return percentiles(drawn_R)
