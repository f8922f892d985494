"""What is hidden from a decoder: whole words of texts, patches of images.

Draws are from torch's global generator of the device, which micro-batches replay.

Shapes: B batch, L text length, N patches, K hidden patches, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch import Tensor

from vlkit.errors import VlkitError
from vlkit.types import Vocabulary


def words(ids_BL: Tensor, mask_BL: Tensor, vocabulary: Vocabulary) -> Tensor:
    """The number of the word that each token is of, from 0; -1 for padding and special tokens."""
    text_BL = (mask_BL > 0) & ~vocabulary.special_V[ids_BL]
    starts_BL, ends_BL = vocabulary.starts_V[ids_BL], vocabulary.ends_V[ids_BL]
    after_BL = F.pad(ends_BL[:, :-1] | ~text_BL[:, :-1], (1, 0), value=True)
    begins_BL = text_BL & (starts_BL | after_BL)
    return torch.where(text_BL, begins_BL.cumsum(dim=1) - 1, -1)


def hide_words(words_BL: Tensor, share: float) -> Tensor:
    """Bool [B, L]: the tokens of a random ``share`` of each row's words (rounded, one word at least)."""
    size, length = words_BL.shape
    count_B1 = words_BL.max(dim=1, keepdim=True).values + 1
    draw_BW = torch.rand(size, length, device=words_BL.device)
    absent_BW = torch.arange(length, device=words_BL.device) >= count_B1
    rank_BW = draw_BW.masked_fill(absent_BW, 2.0).argsort(dim=1).argsort(dim=1)
    hidden_BW = rank_BW < (share * count_B1).round().clamp(min=1)
    return hidden_BW.gather(1, words_BL.clamp(min=0)) & (words_BL >= 0)


def hide_patches(size: int, count: int, *, share: float, likeness_BN: Tensor | None, device: torch.device) -> Tensor:
    """int64 [B, K]: the hidden patches of each image, in ascending order.

    Of ``count`` patches, K is a ``share`` (rounded, one at least): those with the highest ``likeness_BN``, or random
    ones.
    """
    order_BN = torch.rand(size, count, device=device) if likeness_BN is None else likeness_BN
    return order_BN.topk(max(1, round(share * count)), dim=1).indices.sort(dim=1).values


def on_grid(likeness_BM: Tensor, rows: int, columns: int) -> Tensor:
    """Figures of an encoder's M image tokens, spread over a grid of patches, [B, rows * columns].

    Raises:
        VlkitError: The image tokens form no square.
    """
    side = round(likeness_BM.shape[1] ** 0.5)
    if side * side != likeness_BM.shape[1]:
        raise VlkitError(
            f"objectives: masking = 'attentive' needs image tokens that form a square, and there are "
            f"{likeness_BM.shape[1]}; set masking to 'random'"
        )
    grid_B1hw = likeness_BM.view(-1, 1, side, side)
    if (rows, columns) != (side, side):
        grid_B1hw = F.interpolate(grid_B1hw, (rows, columns), mode="bilinear", align_corners=False)
    return grid_B1hw.flatten(1)
