"""Gradients of the contrastive losses in float64, one process, block by block: what all others are held against.

Shapes: B all pairs, R rows of a block, D embedding width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vlkit.errors import VlkitError

_BLOCK_BYTES = 2**28
_MAX_SCALE = 300.0


class Gradients(NamedTuple):
    """Of the mean loss of a batch; ``bias`` is 0 for the softmax."""

    image_BD: Tensor
    text_BD: Tensor
    scale: Tensor
    bias: Tensor


def softmax_gradients(image_BD: Tensor, text_BD: Tensor, scale: float) -> Gradients:
    """Of 1/(2B) sum_i [logsumexp_j S_ij + logsumexp_j S_ji - 2 S_ii], S = scale * image @ text.T, rows of length 1.

    Raises:
        VlkitError: A scale above 300, for which exp(-2 scale) is no float64.
    """
    if scale > _MAX_SCALE:
        raise VlkitError(f"the float64 reference takes scales up to {_MAX_SCALE:g}, not {scale:g}")
    image_BD, text_BD = image_BD.double(), text_BD.double()
    row_B, col_B = image_BD.new_zeros(len(image_BD)), image_BD.new_zeros(len(text_BD))
    for rows in _blocks(len(image_BD)):
        E_RB = (image_BD[rows] @ text_BD.T).mul_(scale).sub_(scale).exp_()
        row_B[rows] = E_RB.sum(1)
        col_B += E_RB.sum(0)
    pulls = _Pulls(image_BD, text_BD)
    for rows in _blocks(len(image_BD)):
        cosine_RB = image_BD[rows] @ text_BD.T
        G_RB = (cosine_RB * scale).sub_(scale).exp_()
        G_RB.mul_((1 / row_B[rows])[:, None] + (1 / col_B)[None, :])
        G_RB.diagonal(rows.start).sub_(2)
        pulls.add(rows, G_RB, cosine_RB)
    return pulls.gradients(scale, 2 * len(image_BD))


def sigmoid_gradients(image_BD: Tensor, text_BD: Tensor, scale: float, bias: float) -> Gradients:
    """Of -1/B sum_ij log sigmoid(z_ij (scale * image_i . text_j + bias)), z = 1 for i = j, else -1."""
    image_BD, text_BD = image_BD.double(), text_BD.double()
    pulls = _Pulls(image_BD, text_BD)
    for rows in _blocks(len(image_BD)):
        cosine_RB = image_BD[rows] @ text_BD.T
        G_RB = (cosine_RB * scale).add_(bias).sigmoid_()
        G_RB.diagonal(rows.start).sub_(1)
        pulls.add(rows, G_RB, cosine_RB)
    return pulls.gradients(scale, len(image_BD))


class _Pulls:
    """G @ text, G.T @ image and the sums that scale and bias need."""

    def __init__(self, image_BD: Tensor, text_BD: Tensor) -> None:
        self.image_BD, self.text_BD = image_BD, text_BD
        self.of_image_BD, self.of_text_BD = torch.zeros_like(image_BD), torch.zeros_like(text_BD)
        self.of_scale, self.of_bias = image_BD.new_zeros(()), image_BD.new_zeros(())

    def add(self, rows: slice, G_RB: Tensor, cosine_RB: Tensor) -> None:
        self.of_image_BD[rows] = G_RB @ self.text_BD
        self.of_text_BD.addmm_(G_RB.T, self.image_BD[rows])
        self.of_bias += G_RB.sum()
        self.of_scale += G_RB.mul_(cosine_RB).sum()

    def gradients(self, scale: float, divide: int) -> Gradients:
        return Gradients(
            self.of_image_BD.mul_(scale / divide),
            self.of_text_BD.mul_(scale / divide),
            self.of_scale / divide,
            self.of_bias / divide,
        )


def _blocks(count: int) -> list[slice]:
    size = max(1, _BLOCK_BYTES // (8 * count))
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
