"""Closed-form starts for linear maps into a shared space.

Gradient descent on a thousand pairs learns the strong directions of the features first and the rare, telling ones late
or never. Canonical correlation analysis weighs all directions alike, up to a shrinkage against noise, and is a far
better place to start from.

Shapes: N pairs, L captions of an image, D image width, T text width, E embedding width, K classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vlkit.errors import VlkitError


class Maps(NamedTuple):
    """``image_ED`` and ``text_ET``: row e gives value e of the shared space on either side."""

    image_ED: Tensor
    text_ET: Tensor


def canonical_maps(
    image_ND: Tensor, text_NLT: Tensor, *, dim: int, image_shrinkage: float, text_shrinkage: float
) -> Maps:
    """Regularised canonical correlation of images with their captions (Hotelling 1936; ridge form: Vinod 1976).

    The captions of an image (its translations) are averaged for the cross covariance and kept apart for the text's own:
    directions in which translations of one thing differ are thereby weakened. Each canonical direction is weighted by
    the square root of its correlation on both sides, so that the dot product of two embeddings weighs it once.

    Args:
        image_ND: Image features of N pairs, centred or not.
        text_NLT: Text features of L captions of each pair.
        dim: Directions to keep, E; at most min(D, T).
        image_shrinkage: Added to the image variances, as a multiple of their mean; above 0.
        text_shrinkage: Likewise for texts.

    Returns:
        Maps scaled so that embeddings of the given (centred) features have mean length 1.

    Raises:
        VlkitError: More directions than features, or fewer than two pairs.
    """
    if len(image_ND) < 2 or dim > min(image_ND.shape[1], text_NLT.shape[2]):
        raise VlkitError(
            f"a warm start of {dim} dimensions needs at least 2 pairs and features as wide: there are {len(image_ND)} "
            f"pairs of {image_ND.shape[1]} and {text_NLT.shape[2]} wide features; lower model.embed_dim"
        )
    image_ND = image_ND.double() - image_ND.double().mean(0)
    text_NLT = text_NLT.double() - text_NLT.double().mean((0, 1))
    count, captions_XT = len(image_ND), text_NLT.flatten(0, 1)
    white_DD = _inverse_root(image_ND.T @ image_ND / count, image_shrinkage)
    white_TT = _inverse_root(captions_XT.T @ captions_XT / len(captions_XT), text_shrinkage)
    cross_DT = image_ND.T @ text_NLT.mean(1) / count
    left_DR, correlation_R, right_RT = torch.linalg.svd(white_DD @ cross_DT @ white_TT, full_matrices=False)
    weight_E = correlation_R[:dim].sqrt()
    image_ED = (white_DD @ left_DR[:, :dim] * weight_E).T
    text_ET = (right_RT[:dim] @ white_TT) * weight_E[:, None]
    return Maps(_unit_mean(image_ED, image_ND).float(), _unit_mean(text_ET, captions_XT).float())


def _inverse_root(covariance_DD: Tensor, shrinkage: float) -> Tensor:
    """(C + shrinkage * mean variance * I)^(-1/2)."""
    values_D, vectors_DD = torch.linalg.eigh(covariance_DD)
    values_D = values_D.clamp(min=0)
    root_DD: Tensor = vectors_DD * (values_D + shrinkage * values_D.mean()).rsqrt() @ vectors_DD.T
    return root_DD


def _unit_mean(map_ED: Tensor, features_ND: Tensor) -> Tensor:
    scaled_ED: Tensor = map_ED / (features_ND @ map_ED.T).norm(dim=1).mean()
    return scaled_ED


def class_embeddings(weight_KD: Tensor, *, dim: int) -> Tensor:
    """Unit class embeddings class_KE in the ``dim`` strongest directions of a classifier's centred rows."""
    rows_KD = torch.nn.functional.normalize(weight_KD.double() - weight_KD.double().mean(0), dim=-1)
    _, _, directions_RD = torch.linalg.svd(rows_KD, full_matrices=False)
    return torch.nn.functional.normalize(rows_KD @ directions_RD[:dim].T, dim=-1).float()


def ridge_map(
    features_KT: Tensor,
    targets_KE: Tensor,
    *,
    ridge: float,
    spread_TT: Tensor | None = None,
    spread_penalty: float = 0.0,
) -> Tensor:
    """map_ET of the ridge regression from features to targets, scaled so that its outputs have mean length 1.

    Args:
        features_KT: Mean text feature of each class's names.
        targets_KE: Where the image side has the classes.
        ridge: Penalty as a multiple of the mean variance of the features; above 0.
        spread_TT: Covariance of what must not matter (``translation_spread``); None for nothing.
        spread_penalty: Penalty of these directions, as a multiple of the mean variance of the features.
    """
    x_KT = features_KT.double()
    gram_TT = x_KT.T @ x_KT
    mean = gram_TT.diagonal().mean()
    system_TT = gram_TT + ridge * mean * torch.eye(len(gram_TT), dtype=torch.float64)
    if spread_TT is not None:
        system_TT += spread_penalty * mean / spread_TT.double().diagonal().mean().clamp(min=1e-12) * spread_TT.double()
    map_TE = torch.linalg.solve(system_TT, x_KT.T @ targets_KE.double())
    return _unit_mean(map_TE.T, x_KT).float()


def translation_spread(text_NLT: Tensor) -> Tensor:
    """spread_TT: covariance of the differences between the translations of one caption; zero for one language."""
    apart_XT = (text_NLT.double() - text_NLT.double().mean(dim=1, keepdim=True)).flatten(0, 1)
    return (apart_XT.T @ apart_XT / len(apart_XT)).float()
