"""Logistic regression on features that stay as they are, and how its regularisation is chosen: CLIP's linear probe.

N images, K classes, E width of the features.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

_ITERATIONS = 1000
_DECADES = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)
_FINEST = 0.125  # of a decade: 8 steps each, 96 in all


class LinearClassifier(NamedTuple):
    """Logits are ``feature_NE @ weight_KE.T + bias_K``; float64."""

    weight_KE: Tensor
    bias_K: Tensor

    def logits(self, feature_NE: Tensor) -> Tensor:
        """logit_NK of each class."""
        return feature_NE.to(self.weight_KE) @ self.weight_KE.T + self.bias_K


def fit_logistic(
    feature_NE: Tensor, target_N: Tensor, *, num_classes: int, inverse: float, start: LinearClassifier | None = None
) -> LinearClassifier:
    """Multinomial logistic regression by L-BFGS, at most 1000 iterations, on the device of the features.

    It minimises the mean cross entropy plus ``|weight|^2 / (2 inverse N)``; the bias is free. ``inverse`` is what
    scikit-learn calls C, the inverse of CLIP's strength (arXiv 2103.00020, appendix A.3). ``start`` is where to begin:
    the minimum does not hang on it.
    """
    from scipy.optimize import minimize

    feature_NE, target_N = feature_NE.double(), target_N.to(feature_NE.device)
    count, width = feature_NE.shape
    decay = 1.0 / (inverse * count)
    right_NK = F.one_hot(target_N, num_classes).to(feature_NE)

    def objective(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        given_KF = torch.from_numpy(flat).to(feature_NE).view(num_classes, width + 1)
        weight_KE, bias_K = given_KF[:, :width], given_KF[:, width]
        log_NK = (feature_NE @ weight_KE.T + bias_K).log_softmax(1)
        loss = -(log_NK * right_NK).sum() / count + 0.5 * decay * weight_KE.square().sum()
        error_NK = (log_NK.exp() - right_NK) / count
        slope_KF = torch.cat([error_NK.T @ feature_NE + decay * weight_KE, error_NK.sum(0)[:, None]], dim=1)
        return loss.item(), slope_KF.cpu().numpy().ravel()

    first_KF = torch.zeros(num_classes, width + 1, dtype=torch.float64)
    if start is not None:
        first_KF = torch.cat([start.weight_KE, start.bias_K[:, None]], dim=1).cpu()
    options: dict[str, Any] = {"maxiter": _ITERATIONS, "maxfun": 2 * _ITERATIONS, "ftol": 1e-12, "gtol": 1e-6}
    found = minimize(objective, first_KF.numpy().ravel(), jac=True, method="L-BFGS-B", options=options)
    best_KF = torch.from_numpy(np.asarray(found.x)).to(feature_NE).view(num_classes, width + 1)
    return LinearClassifier(best_KF[:, :width], best_KF[:, width])


def choose_inverse(
    feature_NE: Tensor, target_N: Tensor, held_ME: Tensor, held_target_M: Tensor, *, num_classes: int
) -> float:
    """The regularisation (``inverse`` of ``fit_logistic``) that does best on M held-out images.

    CLIP's search (arXiv 2103.00020, appendix A.3): seven values from 1e-6 to 1e6, then twice as fine around the best,
    to eight a decade. Better is more right answers; of equally many, which few images often give, more likely ones.
    """
    tried: dict[float, tuple[float, float]] = {}
    last: LinearClassifier | None = None

    def quality(decade: float) -> tuple[float, float]:
        nonlocal last
        if decade not in tried:
            last = fit_logistic(feature_NE, target_N, num_classes=num_classes, inverse=10.0**decade, start=last)
            logit_MK, right_M = last.logits(held_ME), held_target_M.to(last.bias_K.device)
            hits = (logit_MK.argmax(1) == right_M).double().mean().item()
            tried[decade] = (hits, -F.cross_entropy(logit_MK, right_M).item())
        return tried[decade]

    best, step = max(_DECADES, key=quality), _DECADES[1] - _DECADES[0]
    while step > _FINEST:
        step /= 2
        around = [decade for decade in (best - step, best, best + step) if _DECADES[0] <= decade <= _DECADES[-1]]
        best = max(around, key=quality)
    return float(10.0**best)
