"""Sigmoid contrastive loss over all processes: each pair of the B x B is a yes-or-no question of its own.

With x_ij = scale * image_i . text_j + bias and z_ij = 1 for pairs that belong together, else -1, the loss (SigLIP,
arXiv 2303.15343, equation 1 and algorithm 1) is

    L = -1/B sum_ij log sigmoid(z_ij x_ij) = 1/B [sum_ij softplus(x_ij) - sum_(z=1) x_ij]

It has no normaliser to wait for, so gradients are taken while a tile of logits is at hand: nothing is computed twice
and no logits are kept.

Shapes: b pairs of this process, B of all, N texts of a block, T edge of a tile, D embedding width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch import Tensor
from torch.autograd.function import once_differentiable

from vlkit.distributed.collectives import Ranks
from vlkit.errors import VlkitError
from vlkit.objectives.pairs.contrastive.exchange import (
    Duplicates,
    Exchange,
    PairLoss,
    Plan,
    check_arguments,
    gather_texts,
    wire_dtype,
)
from vlkit.objectives.pairs.contrastive.tiles import Ids, slices, statistics
from vlkit.spec.objectives import SigmoidObjective
from vlkit.types import Embeddings

_TILE: int = SigmoidObjective.model_fields["tile"].default
_LINEAR = 40.0
"""softplus(x) - x is below 1e-17 from here on, and exp(x) is still a float32."""


def sigmoid_contrastive(
    embeddings: Embeddings,
    *,
    ranks: Ranks | None = None,
    exchange: Exchange = "gather",
    tile: int = _TILE,
    duplicates: Duplicates = "negatives",
    ids: Tensor | None = None,
) -> PairLoss:
    """The sigmoid loss of the pairs of all processes, in sums over all B x B pairs divided by B.

    Arguments, and what a process gets, are those of ``softmax_contrastive``; ``ignore`` leaves other pairs of the same
    id out, ``positives`` counts them as such.

    Raises:
        VlkitError: No bias, unequal batches, or arguments that do not go together.
    """
    image_BE, text_BE, scale, bias = embeddings
    if bias is None:
        raise VlkitError(
            "the sigmoid loss needs a bias of similarities, for nearly all pairs are negatives; set model.init_bias: "
            "-10 (and model.init_scale: 10, as SigLIP does)"
        )
    plan = Plan(ranks or Ranks(), exchange, tile, duplicates, wire_dtype(image_BE, text_BE))
    check_arguments(image_BE, text_BE, ids, plan=plan)
    grads = torch.is_grad_enabled() and any(x.requires_grad for x in (image_BE, text_BE, scale, bias))
    return PairLoss(*_SigmoidLoss.apply(image_BE, text_BE, scale, bias, ids, plan, grads))


class _SigmoidLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        image_BE: Tensor,
        text_BE: Tensor,
        scale: Tensor,
        bias: Tensor,
        ids_b: Tensor | None,
        plan: Plan,
        grads: bool,
    ) -> tuple[Tensor, Tensor]:
        image_bD, text_bD = plan.inputs(image_BE, text_BE)
        with torch.autocast(image_bD.device.type, enabled=False):
            sums = _Sums(image_bD, scale.item(), bias.item(), plan, grads=grads)
            go = _gathered if plan.exchange == "gather" else _round_the_ring
            text_pull_bD = go(sums, text_bD, ids_b)
            size = len(image_bD)
            accuracy = (sums.own_b >= sums.max_b).float().mean()
            if grads:
                grad_scale = (image_bD * sums.pull_bD).sum() / size
                factor = sums.scale / size
                found = (sums.pull_bD.mul_(factor), text_pull_bD.mul_(factor), grad_scale, sums.grad_bias / size)
                like = (image_BE, text_BE, scale, bias)
                ctx.save_for_backward(*(grad.to(x.dtype) for grad, x in zip(found, like, strict=True)))
        ctx.mark_non_differentiable(accuracy)
        return (sums.value / size).to(sums.dtype), accuracy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (*(saved * grads[0].to(saved.dtype) for saved in ctx.saved_tensors), None, None, None)


class _Sums:
    """What is added up over blocks of texts; ``pull_bD`` is the gradient in scale * image, not yet divided by b."""

    def __init__(self, image_bD: Tensor, scale: float, bias: float, plan: Plan, *, grads: bool) -> None:
        self.image_bD, self.scale, self.bias, self.plan, self.grads = image_bD, scale, bias, plan, grads
        self.dtype = plan.sums_dtype
        self.value = torch.zeros((), dtype=statistics(image_bD.device), device=image_bD.device)
        self.grad_bias = self.value.clone()
        self.pull_bD = torch.zeros_like(image_bD, dtype=self.dtype)
        self.max_b = torch.full((len(image_bD),), -torch.inf, dtype=self.dtype, device=image_bD.device)
        self.own_b = self.max_b.clone()

    def add(self, text_ND: Tensor, pull_ND: Tensor, ids: Ids | None, *, start: int) -> None:
        """Adds a block whose column ``start + i`` is image i's own text; its gradient is added to ``pull_ND``."""
        for cols in slices(len(text_ND), self.plan.tile):
            text_TD = text_ND[cols].to(self.dtype)
            for rows in slices(len(self.image_bD), self.plan.tile):
                image_TD = self.image_bD[rows].to(self.dtype)
                x_TT = (image_TD * self.scale @ text_TD.T).add_(self.bias)
                same_TT = None if ids is None else ids[0][rows, None] == ids[1][None, cols]
                self._pairs(x_TT, same_TT, rows, own=start + rows.start - cols.start)
                if self.grads:
                    self.pull_bD[rows].addmm_(x_TT, text_TD)
                    pull_ND[cols].addmm_(x_TT.T, image_TD)

    def _pairs(self, x_TT: Tensor, same_TT: Tensor | None, rows: slice, *, own: int) -> None:
        """Adds a tile's value; the tile becomes its gradient. Own pairs are on the diagonal ``own``."""
        own_T = x_TT.diagonal(own) if -len(x_TT) < own < x_TT.shape[1] else x_TT.new_empty(0)
        if len(own_T):
            first = rows.start + max(0, -own)
            self.own_b[first : first + len(own_T)] = own_T
        if same_TT is not None and self.plan.duplicates == "ignore":
            if len(own_T):
                same_TT.diagonal(own).fill_(False)
            x_TT.masked_fill_(same_TT, -torch.inf)
        positive = x_TT[same_TT] if same_TT is not None and self.plan.duplicates == "positives" else own_T
        self.value.add_(F.softplus(x_TT, threshold=_LINEAR).sum()).sub_(positive.sum())
        torch.maximum(self.max_b[rows], x_TT.amax(1), out=self.max_b[rows])
        if self.grads:
            x_TT.sigmoid_()
            if same_TT is not None and self.plan.duplicates == "positives":
                x_TT.sub_(same_TT.to(x_TT.dtype))
            else:
                own_T.sub_(1)
            self.grad_bias.add_(x_TT.sum())


def _gathered(sums: _Sums, text_bD: Tensor, ids_b: Tensor | None) -> Tensor:
    plan, size = sums.plan, len(text_bD)
    text_ND, ids_B = gather_texts(text_bD, ids_b, ranks=plan.ranks)
    pull_ND = torch.zeros_like(text_ND, dtype=sums.dtype)
    ids = None if ids_b is None or ids_B is None else (ids_b, ids_B)
    sums.add(text_ND, pull_ND, ids, start=plan.ranks.rank * size)
    return plan.ranks.reduce_scatter(pull_ND) if sums.grads else pull_ND


def _round_the_ring(sums: _Sums, text_bD: Tensor, ids_b: Tensor | None) -> Tensor:
    """Each block goes round with its gradient so far (and its ids), until it is back."""
    ranks, size = sums.plan.ranks, len(text_bD)
    pull_bD = torch.zeros_like(sums.pull_bD)
    block_ids = ids_b
    for step in range(ranks.size):
        owner = (ranks.rank - step) % ranks.size
        ids = None if ids_b is None or block_ids is None else (ids_b, block_ids)
        sums.add(text_bD, pull_bD, ids, start=0 if owner == ranks.rank else size * ranks.size)
        if step < ranks.size - 1:
            text_bD, pull_bD, *more = ranks.shift(text_bD, pull_bD, *([] if block_ids is None else [block_ids]))
            block_ids = more[0] if more else None
        elif sums.grads:
            (pull_bD,) = ranks.shift(pull_bD)
    return pull_bD
