"""Cross entropy over a large vocabulary without ever holding all logits.

The logits of T tokens over V words take 4 T V bytes (7.7 GB for 512 captions of 76 tokens with CLIP's vocabulary), more
than all else in a step. Here they exist for a slice of tokens at a time, and are computed again in the backward pass.

Shapes: T tokens, S tokens of a slice, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vlkit.errors import ShapeError
from vlkit.objectives.pairs.contrastive.tiles import slices


def sliced_cross_entropy(states_TD: Tensor, weight_VD: Tensor, targets_T: Tensor, *, slice_size: int) -> Tensor:
    """Cross entropy of softmax(weight @ state) at each target, float32 [T].

    Kept for the backward pass are the inputs and one number a token. Under autocast the products are taken in its type;
    the sums over the vocabulary are float32 always (float64 for float64 inputs).

    Args:
        states_TD: Of the tokens to predict.
        weight_VD: The output map, without bias.
        targets_T: int64 ids in [0, V).
        slice_size: Tokens whose logits exist at a time; they take 4 * slice_size * V bytes.

    Raises:
        ShapeError: Widths or counts differ.
    """
    if states_TD.shape[1] != weight_VD.shape[1] or len(states_TD) != len(targets_T):
        raise ShapeError(
            f"states {list(states_TD.shape)}, weight {list(weight_VD.shape)} and targets {list(targets_T.shape)} do "
            f"not fit; they are [T, D], [V, D] and [T]"
        )
    device = states_TD.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight_VD.dtype
    losses_T: Tensor = _Sliced.apply(states_TD.to(dtype), weight_VD.to(dtype), targets_T, slice_size)
    return losses_T


class _Sliced(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states_TD: Tensor, weight_VD: Tensor, targets_T: Tensor, slice_size: int) -> Tensor:
        lse_T = states_TD.new_empty(len(states_TD), dtype=_sum_type(states_TD))
        right_T = torch.empty_like(lse_T)
        for rows in slices(len(states_TD), slice_size):
            logits_SV = _logits(states_TD[rows], weight_VD)
            lse_T[rows] = logits_SV.logsumexp(dim=1)
            right_T[rows] = logits_SV.gather(1, targets_T[rows, None]).squeeze(1)
        ctx.save_for_backward(states_TD, weight_VD, targets_T, lse_T)
        ctx.slice_size = slice_size
        return lse_T - right_T

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        states_TD, weight_VD, targets_T, lse_T = ctx.saved_tensors
        wants_states, wants_weight = ctx.needs_input_grad[:2]
        d_states_TD = torch.zeros_like(states_TD) if wants_states else None
        d_weight_VD = torch.zeros_like(weight_VD, dtype=lse_T.dtype) if wants_weight else None
        for rows in slices(len(states_TD), ctx.slice_size):
            # softmax minus one at the target, times the loss's own gradient
            d_SV = (_logits(states_TD[rows], weight_VD) - lse_T[rows, None]).exp_()
            d_SV.scatter_add_(1, targets_T[rows, None], -torch.ones_like(lse_T[rows, None]))
            d_SV = (d_SV * grads[0][rows, None]).to(states_TD.dtype)
            if d_states_TD is not None:
                d_states_TD[rows] = d_SV @ weight_VD
            if d_weight_VD is not None:
                d_weight_VD += d_SV.T @ states_TD[rows]
        return d_states_TD, None if d_weight_VD is None else d_weight_VD.to(weight_VD.dtype), None, None


def _sum_type(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _logits(states_SD: Tensor, weight_VD: Tensor) -> Tensor:
    with torch.autocast(states_SD.device.type, enabled=False):
        return (states_SD @ weight_VD.T).to(_sum_type(states_SD))
