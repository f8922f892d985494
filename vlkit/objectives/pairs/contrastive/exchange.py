"""What the contrastive losses send between processes, and what they are asked to do.

Shapes: b pairs of this process, B of all, D embedding width.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vlkit.distributed.collectives import Ranks
from vlkit.errors import VlkitError

Exchange = Literal["gather", "ring"]
Duplicates = Literal["negatives", "ignore", "positives"]


class PairLoss(NamedTuple):
    """The loss, and the share of this process's images whose own text scores highest (detached)."""

    loss: Tensor
    acc1: Tensor


class Plan(NamedTuple):
    """How a loss is to be computed: see the arguments of ``softmax_contrastive``; ``dtype`` is that of products."""

    ranks: Ranks
    exchange: Exchange
    tile: int
    duplicates: Duplicates
    dtype: torch.dtype
    recompute: bool = True

    @property
    def sums_dtype(self) -> torch.dtype:
        """What products are summed in."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    def inputs(self, *x_bD: Tensor) -> tuple[Tensor, ...]:
        """Embeddings as they are multiplied and sent."""
        return tuple(x.detach().to(self.dtype).contiguous() for x in x_bD)

    @staticmethod
    def rows_of(rank: int, size: int) -> slice:
        """Where a rank's pairs are among those of all."""
        return slice(rank * size, (rank + 1) * size)


def wire_dtype(image_BE: Tensor, text_BE: Tensor) -> torch.dtype:
    """What embeddings are multiplied and sent in: autocast's precision inside autocast, else their own."""
    device = image_BE.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return torch.promote_types(image_BE.dtype, text_BE.dtype)


def check_arguments(image_BE: Tensor, text_BE: Tensor, ids_b: Tensor | None, *, plan: Plan) -> None:
    """One tiny message, so that batches of unequal size end with the same words on every process and not in a hang.

    Raises:
        VlkitError: Ids where they mean nothing or none where they are needed; images and texts are no pairs, or
            processes have unequal numbers of them.
    """
    if (plan.duplicates == "negatives") != (ids_b is None):
        raise VlkitError(
            f"duplicates is {plan.duplicates!r}; 'ignore' and 'positives' need ids, 'negatives' takes none"
        )
    ranks = plan.ranks
    here = (len(image_BE), len(text_BE))
    everywhere = ranks.all_gather(torch.tensor([here], device=image_BE.device)).tolist()
    if any(images != texts or not images for images, texts in everywhere):
        counts = ", ".join(f"{images} and {texts}" for images, texts in everywhere)
        raise VlkitError(f"a contrastive loss takes pairs; images and texts by process: {counts}")
    if len({images for images, _ in everywhere}) > 1:
        counts = ", ".join(str(images) for images, _ in everywhere)
        raise VlkitError(
            f"a contrastive loss over {ranks.size} processes needs as many pairs on each; they have {counts}; drop the "
            f"last, partial batch of an epoch"
        )


def gather_texts(text_BD: Tensor, ids_B: Tensor | None, *, ranks: Ranks) -> tuple[Tensor, Tensor | None]:
    """The texts (and ids) of all processes in the order of ranks, in one message."""
    if ids_B is None or ranks.size == 1:
        return ranks.all_gather(text_BD), ids_B
    text_bytes, id_bytes = text_BD.contiguous().view(torch.uint8), ids_B[:, None].contiguous().view(torch.uint8)
    both = ranks.all_gather(torch.cat([text_bytes, id_bytes], dim=1))
    width = text_bytes.shape[1]
    texts, ids = both[:, :width].contiguous(), both[:, width:].contiguous()
    return texts.view(text_BD.dtype), ids.view(torch.int64)[:, 0]
