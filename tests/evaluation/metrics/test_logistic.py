"""Logistic regression on features: scikit-learn's minimum, and CLIP's choice of the regularisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from vlkit.evaluation.metrics import logistic
from vlkit.evaluation.metrics.logistic import choose_inverse, fit_logistic

CLASSES, WIDTH = 3, 6


def drawn(count: int, *, noise: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    target_N = rng.integers(0, CLASSES, count)
    center_KE = np.random.default_rng(0).normal(size=(CLASSES, WIDTH))
    feature_NE = center_KE[target_N] + noise * rng.normal(size=(count, WIDTH))
    return torch.from_numpy(feature_NE).float(), torch.from_numpy(target_N)


@pytest.mark.parametrize("inverse", [1e-2, 1.0, 1e2])
def test_the_minimum_is_that_of_scikit_learn(inverse: float) -> None:
    feature_NE, target_N = drawn(60, noise=1.5, seed=1)
    ours = fit_logistic(feature_NE, target_N, num_classes=CLASSES, inverse=inverse)
    theirs = LogisticRegression(C=inverse, max_iter=5000, tol=1e-10).fit(feature_NE.double().numpy(), target_N.numpy())
    assert np.allclose(ours.weight_KE.numpy(), theirs.coef_, atol=2e-3 * np.abs(theirs.coef_).max())
    shares = ours.logits(feature_NE).softmax(1).numpy()
    assert np.allclose(shares, theirs.predict_proba(feature_NE.double().numpy()), atol=1e-3)


def test_the_minimum_does_not_hang_on_where_it_is_looked_for() -> None:
    feature_NE, target_N = drawn(60, noise=1.5, seed=1)
    far = fit_logistic(feature_NE, target_N, num_classes=CLASSES, inverse=1e3)
    cold = fit_logistic(feature_NE, target_N, num_classes=CLASSES, inverse=0.1)
    warm = fit_logistic(feature_NE, target_N, num_classes=CLASSES, inverse=0.1, start=far)
    assert torch.allclose(cold.weight_KE, warm.weight_KE, atol=1e-3)


def test_the_regularisation_is_the_best_of_the_grid_on_what_is_held_out() -> None:
    feature_NE, target_N = drawn(24, noise=2.0, seed=2)
    held_ME, held_target_M = drawn(300, noise=2.0, seed=3)
    chosen = choose_inverse(feature_NE, target_N, held_ME, held_target_M, num_classes=CLASSES)

    def right(inverse: float) -> float:
        made = fit_logistic(feature_NE, target_N, num_classes=CLASSES, inverse=inverse)
        return (made.logits(held_ME).argmax(1) == held_target_M).double().mean().item()

    assert np.isclose(np.log10(chosen) * 8 % 1, 0)  # of the grid of eight a decade
    assert right(chosen) >= max(right(10.0**decade) for decade in logistic._DECADES)
    clear_NE, clear_N = drawn(24, noise=0.1, seed=2)
    loosest = choose_inverse(clear_NE, clear_N, clear_NE, clear_N, num_classes=CLASSES)
    assert loosest == 1e6  # all are right with any: the likelier answers decide
