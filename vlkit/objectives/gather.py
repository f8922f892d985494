"""Rows of all processes with their gradients, for losses that compare each row with all others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vlkit.distributed.collectives import Ranks


def gathered(own: Tensor, ranks: Ranks) -> Tensor:
    """The rows of all processes in the order of ranks; gradients go back to the process whose rows they are of."""
    if ranks.size == 1:
        return own
    found: Tensor = _Gather.apply(own, ranks)
    return found


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks.all_gather(own)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks.reduce_scatter(grads[0].contiguous()), None
