"""How far a set of generated images is from real ones, by the features of any image encoder: KID and FID.

The figures depend on the encoder, its resizing and the number of images; only those of one encoder and one number may
be compared, and with Inception's features alone are they what papers call KID and FID.

Shapes: N and M images, F width of features.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vlkit.errors import VlkitError
from vlkit.evaluation.metrics.intervals import Interval, percentiles

Floats = npt.NDArray[np.float64]


class KernelDistance(NamedTuple):
    """KID of random subsets: mean and standard deviation over them."""

    mean: float
    std: float


def kernel_distance(features_NF: npt.ArrayLike, real_MF: npt.ArrayLike) -> float:
    """KID: squared distance of two sets under the kernel (x y / F + 1)^3, without bias; may be below 0.

    Binkowski et al., arXiv 1801.01401, section 4.

    Raises:
        VlkitError: Fewer than two images on a side, other widths, or features that are not finite.
    """
    x_NF, y_MF = _checked(features_NF, real_MF)
    return _unbiased(_kernel(x_NF, x_NF), _kernel(y_MF, y_MF), _kernel(x_NF, y_MF))


def subset_kernel_distance(
    features_NF: npt.ArrayLike, real_MF: npt.ArrayLike, *, subsets: int = 100, size: int = 1000, seed: int = 0
) -> KernelDistance:
    """KID as it is published: over random subsets of so many images of either side, drawn without replacement.

    Raises:
        VlkitError: Fewer than ``size`` images, or settings below their smallest values.
    """
    x_NF, y_MF = _checked(features_NF, real_MF)
    if subsets < 1 or not 2 <= size <= min(len(x_NF), len(y_MF)):
        raise VlkitError(
            f"subsets = {subsets}, size = {size}: need a subset or more, of 2 to {min(len(x_NF), len(y_MF))} images"
        )
    rng, found = np.random.default_rng(seed), []
    for _ in range(subsets):
        x = x_NF[rng.permutation(len(x_NF))[:size]]
        y = y_MF[rng.permutation(len(y_MF))[:size]]
        found.append(_unbiased(_kernel(x, x), _kernel(y, y), _kernel(x, y)))
    return KernelDistance(float(np.mean(found)), float(np.std(found)))


def kernel_distance_interval(
    features_NF: npt.ArrayLike,
    real_MF: npt.ArrayLike,
    groups_N: npt.ArrayLike,
    groups_M: npt.ArrayLike,
    *,
    seed: int = 0,
    replicates: int = 200,
) -> Interval:
    """95 % interval of ``kernel_distance``: from halves of the prompts of either side, drawn without replacement.

    A mean over half of the prompts varies about the mean over all just as that does about the truth, and no image
    meets itself, as it would in a bootstrap. ``groups_N`` and ``groups_M`` say which images belong to one prompt. NaN
    where a side has fewer than four prompts.
    """
    x_NF, y_MF = _checked(features_NF, real_MF)
    sides = [_numbered(groups_N, len(x_NF)), _numbered(groups_M, len(y_MF))]
    if min(int(one.max()) + 1 for one in sides) < 4:
        return Interval(math.nan, math.nan)
    own_NN, own_MM, cross_NM = _kernel(x_NF, x_NF), _kernel(y_MF, y_MF), _kernel(x_NF, y_MF)
    rng, found = np.random.default_rng(seed), []
    for _ in range(replicates):
        n, m = (_half(one, rng) for one in sides)
        found.append(_unbiased(own_NN[np.ix_(n, n)], own_MM[np.ix_(m, m)], cross_NM[np.ix_(n, m)]))
    return percentiles(found)


def frechet_distance(features_NF: npt.ArrayLike, real_MF: npt.ArrayLike) -> float:
    """FID: |mean - mean'|^2 + Tr(C + C' - 2 (C C')^(1/2)) of normal distributions fitted to both sides, 0 or more.

    Heusel et al., arXiv 1706.08500, equation 6. It is biased upwards with few images (10,000 are usual): of small sets
    take KID. The trace of the root is that of (C^(1/2) C' C^(1/2))^(1/2), which is real without more ado.

    Raises:
        VlkitError: Fewer than two images on a side, other widths, or features that are not finite.
    """
    x_NF, y_MF = _checked(features_NF, real_MF)
    gap_F = x_NF.mean(axis=0) - y_MF.mean(axis=0)
    cov_FF, other_FF = (np.atleast_2d(np.cov(one, rowvar=False)) for one in (x_NF, y_MF))
    values_F, vectors_FF = np.linalg.eigh(cov_FF)
    root_FF = (vectors_FF * np.sqrt(values_F.clip(min=0))) @ vectors_FF.T
    shared = np.sqrt(np.linalg.eigvalsh(root_FF @ other_FF @ root_FF).clip(min=0)).sum()
    return float(max(0.0, gap_F @ gap_F + np.trace(cov_FF) + np.trace(other_FF) - 2 * shared))


def _checked(features_NF: npt.ArrayLike, real_MF: npt.ArrayLike) -> tuple[Floats, Floats]:
    x_NF, y_MF = (np.asarray(one, dtype=np.float64) for one in (features_NF, real_MF))
    if x_NF.ndim != 2 or y_MF.ndim != 2 or x_NF.shape[1] != y_MF.shape[1] or min(len(x_NF), len(y_MF)) < 2:
        raise VlkitError(
            f"features {x_NF.shape} and {y_MF.shape} must be two or more images on either side, of one width"
        )
    if not (np.isfinite(x_NF).all() and np.isfinite(y_MF).all()):
        raise VlkitError("features must be finite; some are NaN or infinite")
    return x_NF, y_MF


def _kernel(x_NF: Floats, y_MF: Floats) -> Floats:
    kernel: Floats = (x_NF @ y_MF.T / x_NF.shape[1] + 1) ** 3
    return kernel


def _unbiased(own_NN: Floats, own_MM: Floats, cross_NM: Floats) -> float:
    within = [(one.sum() - np.trace(one)) / (len(one) * (len(one) - 1)) for one in (own_NN, own_MM)]
    return float(within[0] + within[1] - 2 * cross_NM.mean())


def _numbered(groups: npt.ArrayLike, count: int) -> npt.NDArray[np.int64]:
    groups_N = np.asarray(groups)
    if groups_N.shape != (count,):
        raise VlkitError(f"groups {groups_N.shape} must have one entry for each of {count} images")
    numbers: npt.NDArray[np.int64] = np.unique(groups_N, return_inverse=True)[1]
    return numbers


def _half(group_N: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.intp]:
    count = int(group_N.max()) + 1
    drawn = np.zeros(count, dtype=bool)
    drawn[rng.permutation(count)[: count // 2]] = True
    return np.flatnonzero(drawn[group_N])
