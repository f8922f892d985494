"""KID and FID: by closed forms, by plain loops, intervals that hold the truth, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vlkit.errors import VlkitError
from vlkit.evaluation.metrics.distribution_distance import (
    frechet_distance,
    kernel_distance,
    kernel_distance_interval,
    subset_kernel_distance,
)


def normal(count: int, width: int = 4, *, seed: int, mean: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return mean + scale * np.random.default_rng(seed).standard_normal((count, width))


def test_frechet_distance_of_normal_distributions_is_the_closed_form() -> None:
    x, y = normal(100_000, seed=0), normal(100_000, seed=1, mean=0.5, scale=2.0)
    assert frechet_distance(x, y) == pytest.approx(4 * 0.25 + 4 * (1 - 2) ** 2, rel=0.02)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-8)
    shear = np.array([[1.0, 0.3, 0, 0], [0, 1, 0, 0.5], [0, 0, 2, 0], [0, 0, 0, 1]])
    from scipy.linalg import sqrtm

    one, other = np.cov(x[:50] @ shear, rowvar=False), np.cov(y[:40], rowvar=False)
    gap = (x[:50] @ shear).mean(0) - y[:40].mean(0)
    wanted = gap @ gap + np.trace(one + other - 2 * np.real(sqrtm(one @ other)))
    assert frechet_distance(x[:50] @ shear, y[:40]) == pytest.approx(wanted)


def test_kernel_distance_is_that_of_plain_loops_and_near_zero_for_one_distribution() -> None:
    x, y = normal(5, seed=0), normal(4, seed=1, mean=0.3)

    def kernel(one: np.ndarray, other: np.ndarray) -> float:
        return float((one @ other / 4 + 1) ** 3)

    own = np.mean([kernel(x[i], x[j]) for i in range(5) for j in range(5) if i != j])
    others = np.mean([kernel(y[i], y[j]) for i in range(4) for j in range(4) if i != j])
    cross = np.mean([kernel(one, other) for one in x for other in y])
    assert kernel_distance(x, y) == pytest.approx(own + others - 2 * cross)
    assert abs(kernel_distance(normal(2000, seed=2), normal(2000, seed=3))) < 0.05
    assert kernel_distance(normal(2000, seed=2), normal(2000, seed=3, mean=1)) > 1


def test_subsets_of_all_images_are_the_distance_itself() -> None:
    x, y = normal(50, seed=0), normal(50, seed=1, mean=0.2)
    found = subset_kernel_distance(x, y, subsets=3, size=50)
    assert found.mean == pytest.approx(kernel_distance(x, y)) and found.std == pytest.approx(0, abs=1e-9)
    assert subset_kernel_distance(x, y, subsets=20, size=10).std > 0


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    truth = kernel_distance(normal(3000, seed=10), normal(3000, seed=11, mean=0.5))
    held = 0
    for seed in range(40):
        x, y = normal(60, seed=100 + seed), normal(60, seed=200 + seed, mean=0.5)
        low, high = kernel_distance_interval(x, y, range(60), range(60), seed=seed)
        held += low <= truth <= high
    assert held >= 32
    nothing = kernel_distance_interval(normal(6, seed=0), normal(6, seed=1), [0, 0, 0, 1, 1, 1], range(6))
    assert math.isnan(nothing.low)


def test_prompts_are_drawn_whole() -> None:
    x = np.repeat(normal(10, seed=0), 20, axis=0)  # twenty equal images of each prompt say no more than one
    y = normal(200, seed=1)
    whole = kernel_distance_interval(x, y, np.repeat(np.arange(10), 20), range(200))
    loose = kernel_distance_interval(x, y, range(200), range(200))
    assert whole.high - whole.low > 2 * (loose.high - loose.low)


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(VlkitError, match="must be two or more images on either side, of one width"):
        kernel_distance(normal(5, seed=0), normal(5, 3, seed=0))
    with pytest.raises(VlkitError, match="must be finite"):
        frechet_distance(np.full((3, 2), np.nan), normal(3, 2, seed=0))
    with pytest.raises(VlkitError, match="of 2 to 5 images"):
        subset_kernel_distance(normal(5, seed=0), normal(9, seed=1), size=6)
    with pytest.raises(VlkitError, match="one entry for each of 5 images"):
        kernel_distance_interval(normal(5, seed=0), normal(5, seed=1), [0], range(5))
