"""Targets that are spread over all pairs of the same id, without a matrix of pairs.

Shapes: b pairs of this process, B of all, N texts of a block, D embedding width, U ids of this process, H texts of a
block that have one of them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vlkit.objectives.pairs.contrastive.tiles import statistics


class Classes(NamedTuple):
    """The targets T of a block: T_ij = 1 / (how often the id is among all texts) where ids are equal, else 0.

    ``class_b`` says which of the U ids an image has; ``hit_H`` are the texts of the block that have one of them,
    ``class_H`` which; ``weight_U`` the value of T.
    """

    class_b: Tensor
    hit_H: Tensor
    class_H: Tensor
    weight_U: Tensor

    @classmethod
    def of(cls, ids_b: Tensor, ids_N: Tensor, *, everywhere: Tensor) -> Classes:
        """From the ids of this process's images, of the block's texts and of all texts."""
        ids_U, class_b = torch.unique(ids_b, return_inverse=True)
        found_N = torch.searchsorted(ids_U, ids_N).clamp_(max=len(ids_U) - 1)
        hit_H = (ids_U[found_N] == ids_N).nonzero()[:, 0]
        sorted_B = everywhere.sort().values
        counts_U = torch.searchsorted(sorted_B, ids_U, right=True) - torch.searchsorted(sorted_B, ids_U)
        return cls(class_b, hit_H, found_N[hit_H], 1 / counts_U.to(statistics(ids_b.device)))

    def texts(self, text_ND: Tensor, *, dtype: torch.dtype) -> Tensor:
        """``T @ text_ND``, [b, D]."""
        return self._sums(self.class_H, text_ND[self.hit_H], dtype)[self.class_b]

    def pull(self, image_bD: Tensor, text_ND: Tensor, factor: float, *, to: tuple[Tensor, Tensor]) -> None:
        """Adds ``factor * T @ text_ND`` to the first of ``to``, ``factor * T.T @ image_bD`` to the second, in place."""
        to_bD, to_ND = to
        to_bD.add_(self.texts(text_ND, dtype=to_bD.dtype), alpha=factor)
        images_HD = self._sums(self.class_b, image_bD, to_ND.dtype)[self.class_H]
        to_ND.index_add_(0, self.hit_H, images_HD, alpha=factor)

    def _sums(self, classes: Tensor, rows_XD: Tensor, dtype: torch.dtype) -> Tensor:
        sum_UD = torch.zeros(len(self.weight_U), rows_XD.shape[1], dtype=dtype, device=rows_XD.device)
        sum_UD.index_add_(0, classes, rows_XD.to(dtype))
        return sum_UD.mul_(self.weight_U.to(dtype)[:, None])
