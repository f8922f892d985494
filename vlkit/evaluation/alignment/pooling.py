"""From the states of a text's tokens to one embedding.

B batch, L tokens with padding, D width.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from vlkit.errors import UnknownName

Pooling = Literal["weighted", "last", "mean"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)


def pool_tokens(states_BLD: Tensor, mask_BL: Tensor, *, pooling: Pooling) -> Tensor:
    """embedding_BD in float32, wherever the padding is; NaN for a text without tokens.

    ``weighted`` gives the t-th real token the weight t, counted from 1 (SGPT, Muennighoff 2022, arXiv 2202.08904,
    equation 2; the default of MEXA); ``last`` takes the last real token; ``mean`` weighs all alike.

    Args:
        states_BLD: Of one layer.
        mask_BL: 1 for a real token, 0 for padding.
        pooling: Which.

    Raises:
        UnknownName: No such pooling.
    """
    if pooling not in POOLINGS:
        raise UnknownName("pooling", pooling, allowed=POOLINGS)
    real_BL = mask_BL > 0
    place_BL = real_BL.cumsum(dim=1) * real_BL  # the mask is counted, so that padding on the left moves nothing
    if pooling == "weighted":
        weight_BL = place_BL.float()
    elif pooling == "mean":
        weight_BL = real_BL.float()
    else:
        weight_BL = ((place_BL == place_BL.max(dim=1, keepdim=True).values) & real_BL).float()
    # padding may hold anything, NaN too, which a weight of zero would let through
    states_BLD = torch.where(real_BL[:, :, None], states_BLD.float(), 0.0)
    return torch.einsum("bl,bld->bd", weight_BL, states_BLD) / weight_BL.sum(dim=1, keepdim=True)
