"""Samples end to end in fewer rows, so that nothing is computed for padding.

Shapes: B samples, L their padded length, P packed rows, Q their length, E width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Packed(NamedTuple):
    """Rows of several samples each.

    ``embeddings`` [P, Q, E], ``mask`` and ``positions`` int64 [P, Q]: positions count from 0 in each sample.
    ``place_BL`` int64 is where each real place of the samples went, in rows laid flat; ``mask_BL`` bool says which are
    real.
    """

    embeddings: Tensor
    mask: Tensor
    positions: Tensor
    place_BL: Tensor
    mask_BL: Tensor


def pack(embeddings_BLE: Tensor, mask_BL: Tensor, *, length: int) -> Packed:
    """Lays samples end to end in rows of ``length`` (or of the longest sample): first fit, the longest first."""
    real_BL = mask_BL.bool()
    sizes = real_BL.sum(dim=1).tolist()
    length = max(length, *sizes)
    starts, fill = [0] * len(sizes), list[int]()
    for sample in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        row = next((number for number, used in enumerate(fill) if used + sizes[sample] <= length), len(fill))
        if row == len(fill):
            fill.append(0)
        starts[sample] = row * length + fill[row]
        fill[row] += sizes[sample]
    width = max(fill)
    starts_B = torch.tensor([start // length * width + start % length for start in starts], device=mask_BL.device)
    order_BL = real_BL.long().cumsum(dim=1) - 1
    place_BL = (starts_B[:, None] + order_BL).masked_fill(~real_BL, 0)
    count, places_R = len(fill) * width, place_BL[real_BL]
    embeddings = embeddings_BLE.new_zeros(count, embeddings_BLE.shape[2]).index_copy(
        0, places_R, embeddings_BLE[real_BL]
    )
    mask = mask_BL.new_zeros(count).index_fill(0, places_R, 1)
    positions = mask_BL.new_zeros(count).index_copy(0, places_R, order_BL[real_BL].to(mask_BL.dtype))
    shape = (len(fill), width)
    return Packed(embeddings.view(*shape, -1), mask.view(shape), positions.view(shape), place_BL, real_BL)


def unpack(states_PQE: Tensor, packed: Packed) -> Tensor:
    """States of packed rows as [B, L, E] of the samples; zeros at padding."""
    flat = states_PQE.flatten(0, 1)[packed.place_BL.flatten()].view(*packed.place_BL.shape, -1)
    return flat * packed.mask_BL.unsqueeze(-1)
