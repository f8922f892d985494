"""Images against the classes of a language: chunk by chunk, so that no matrix of all scores is ever held.

N images, C of them in one chunk, B of those tied; K classes, U with names of their own, M best answers; E embedding
width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vlkit.distributed.collectives import Ranks, shared_errors
from vlkit.evaluation.embed.image_features import ImageFeatures

_CHUNK = 2048  # images scored at once: 2048 x 1000 scores are 8 MB


class ClassEmbeddings(NamedTuple):
    """The classes of one language; ``first_K`` is the first class with the same names, by place."""

    ids: tuple[int, ...]
    class_KE: Tensor
    first_K: Tensor


class Scorer:
    """The images of a task that have one of some classes, scored chunk by chunk."""

    def __init__(
        self,
        features: ImageFeatures,
        targets: Sequence[int],
        classes: Sequence[int],
        *,
        ranks: Ranks,
        device: torch.device,
    ) -> None:
        place = np.full(max(max(targets), *classes) + 1, -1, dtype=np.int64)
        place[list(classes)] = np.arange(len(classes))
        target = torch.from_numpy(place[np.asarray(targets)])
        self.images_N = (target >= 0).nonzero()[:, 0]
        self.target_N = target[self.images_N]
        self.features, self.ranks, self.device = features, ranks, device

    def score(self, classes: ClassEmbeddings, *, answers: int, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """Ranks of the right class (strict, tolerant), ties and best class of each image, and the best answers."""
        # classes of the same names are scored once, so that they are equal to the last bit
        own_K, column_K = torch.unique(classes.first_K, return_inverse=True)
        class_EK, first_K = classes.class_KE[own_K].T.to(self.device), classes.first_K.to(self.device)
        column_K = column_K.to(self.device) if len(own_K) < len(column_K) else None
        count, width = len(self.images_N), min(answers, len(classes.ids))
        rank_4N = torch.zeros(4, count, dtype=torch.int32)
        best_NM, probability_NM = torch.zeros(count, width, dtype=torch.int64), torch.zeros(count, width)
        with shared_errors(self.ranks):
            # chunks are the same whatever the number of processes: so are the last bits of the scores
            for start in range(self.ranks.rank * _CHUNK, count, self.ranks.size * _CHUNK):
                chunk = slice(start, start + _CHUNK)
                score_CK = self.features[self.images_N[chunk]].to(self.device) @ class_EK
                score_CK = score_CK if column_K is None else score_CK[:, column_K]
                rank_4N[:, chunk] = ranks_of_right(score_CK, self.target_N[chunk].to(self.device), first_K).cpu()
                if width:
                    best_CM = best_places(score_CK, width)
                    best_NM[chunk] = best_CM.cpu()
                    probability_NM[chunk] = (scale * score_CK).softmax(1).gather(1, best_CM).cpu()
        for filled in (rank_4N, best_NM, probability_NM):
            self.ranks.all_reduce(filled)  # the others' places are zero
        return rank_4N, best_NM, probability_NM


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
