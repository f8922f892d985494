"""Which of many classes an image is nearest to: ranks of the right one, and the best answers.

C images, B of them tied; K classes, M best answers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def first_of_equals(names: Sequence[tuple[str, ...]]) -> Tensor:
    """For each of K classes, the place of the first one with just the same names."""
    first: dict[frozenset[str], int] = {}
    return torch.tensor([first.setdefault(frozenset(one), place) for place, one in enumerate(names)])


def ranks_of_right(score_CK: Tensor, target_C: Tensor, first_K: Tensor) -> Tensor:
    """Rank of the right class, the same with its namesakes right too, strangers equal to it, the best class."""
    right_C1 = score_CK.gather(1, target_C[:, None])
    above_C, level_C = _count(score_CK > right_C1), _count(score_CK >= right_C1)
    # of equal scores the first
    best_C = score_CK.argmax(1) if score_CK.is_cuda else torch.from_numpy(score_CK.numpy().argmax(1))
    rank_4C = torch.stack([above_C + 1, above_C + 1, torch.zeros_like(above_C), best_C])
    # ties are rare, and the order of equal scores is looked at for them alone
    tied_B = (level_C - above_C > 1).nonzero()[:, 0]
    if len(tied_B):
        target_B = target_C[tied_B]
        equal_BK = score_CK[tied_B] == right_C1[tied_B]
        before_BK = equal_BK & (torch.arange(len(first_K), device=first_K.device)[None] < target_B[:, None])
        stranger_BK = first_K[None] != first_K[target_B][:, None]
        more = (before_BK.sum(1), (before_BK & stranger_BK).sum(1), (equal_BK & stranger_BK).sum(1))
        rank_4C[:3, tied_B] += torch.stack(more)
    return rank_4C.int()


def best_places(score_CK: Tensor, width: int) -> Tensor:
    """The best places of each image, best first; of equal scores the first."""
    top = score_CK.topk(width, dim=1)
    # the order of equal ones is left open by topk: where there are any, all scores are sorted
    equal_C = (top.values[:, 1:] == top.values[:, :-1]).any(1) | (_count(score_CK >= top.values[:, -1:]) > width)
    best_CM = top.indices
    if equal_C.any():
        best_CM[equal_C] = score_CK[equal_C].sort(dim=1, descending=True, stable=True).indices[:, :width]
    return best_CM


def _count(mask_CK: Tensor) -> Tensor:
    """How many are true in each row; NumPy is three times as fast as torch here."""
    if mask_CK.is_cuda:
        return mask_CK.sum(1)
    return torch.from_numpy(np.add.reduce(mask_CK.numpy().view(np.uint8), axis=1, dtype=np.int32)).long()
