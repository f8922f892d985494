"""Exact softmax contrastive loss over all processes, one-sided and in tiles.

Each process has the images of its own pairs and meets the texts of all: S = scale * image @ text.T, a block of b x B.
Its rows are complete; the sums of its columns are put together over processes. Only texts travel, and no logits are
kept: the backward pass computes each tile again. The loss (CLIP, arXiv 2103.00020, figure 3) is

    L = 1/(2B) sum_i [logsumexp_j S_ij - S_ii] + 1/(2B) sum_j [logsumexp_i S_ij - S_jj]

Shapes: b pairs of this process, B of all, N texts of a block, D embedding width.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vlkit.distributed.collectives import Ranks
from vlkit.errors import VlkitError
from vlkit.objectives.pairs.contrastive import kernels, tiles
from vlkit.objectives.pairs.contrastive.duplicates import Classes
from vlkit.objectives.pairs.contrastive.exchange import (
    Duplicates,
    Exchange,
    PairLoss,
    Plan,
    check_arguments,
    gather_texts,
    wire_dtype,
)
from vlkit.spec.objectives import ContrastiveObjective
from vlkit.types import Embeddings

MAX_SCALE = 600.0
"""Sums of columns are added up over processes as float64: exp(600) has room for them, and so has exp(-600)."""
_TILE: int = ContrastiveObjective.model_fields["tile"].default


def softmax_contrastive(
    embeddings: Embeddings,
    *,
    ranks: Ranks | None = None,
    exchange: Exchange = "gather",
    tile: int = _TILE,
    recompute: bool = True,
    duplicates: Duplicates = "negatives",
    ids: Tensor | None = None,
) -> PairLoss:
    """The mean of the image-to-text and the text-to-image cross entropy, over the pairs of all processes.

    Every process gets a part of the loss: the mean over processes is the loss, and so are gradients. Every
    process of the group must call it, with as many pairs. A bias, if the model has one, cancels out in the softmax.
    Under autocast the embeddings are rounded to its precision; sums and exponentials are float32 (float64 for float64).

    Args:
        embeddings: Of this process's pairs; rows of length 1.
        ranks: The processes that share negatives; None is this one alone.
        exchange: ``gather`` brings the texts of all processes here, O(B D) memory; ``ring`` passes them on one block
            at a time, O(b D), in as many steps as processes.
        tile: Edge of the tiles of logits, where no kernel chooses its own.
        recompute: Compute logits again in the backward pass; False keeps them, 4 b B bytes, and saves a quarter of the
            work. Needs ``gather``.
        duplicates: Other pairs with the same id are negatives like all others, or are left out (``ignore``), or share
            the target evenly with the own text (``positives``; the targets of SupCon, arXiv 2004.11362, eq. 2).
        ids: int64 ids_b, for ``ignore`` and ``positives``.

    Raises:
        VlkitError: Unequal batches, a scale above 600, or arguments that do not go together.
    """
    image_BE, text_BE, scale, _ = embeddings
    plan = Plan(ranks or Ranks(), exchange, tile, duplicates, wire_dtype(image_BE, text_BE), recompute)
    if not recompute and exchange == "ring":
        raise VlkitError(
            "recompute: false keeps the logits of all texts, and exchange: ring never has them; choose one"
        )
    if scale.item() > MAX_SCALE:
        raise VlkitError(f"the scale of similarities is {scale.item():g}; at most {MAX_SCALE:g}: lower model.max_scale")
    check_arguments(image_BE, text_BE, ids, plan=plan)
    return PairLoss(*_Softmax.apply(image_BE, text_BE, scale, ids, plan))


class _Kept(NamedTuple):
    """What the backward pass needs again: log sums of own rows and of the texts met, these texts, ids, kept logits."""

    row_b: Tensor
    col_N: Tensor
    text_ND: Tensor
    ids_B: Tensor | None
    logits_bN: Tensor | None


class _Found(NamedTuple):
    """What the forward pass leaves: log sums of own texts, logits of what belongs together, the largest of others."""

    kept: _Kept
    own_col_b: Tensor
    target_b: Tensor
    max_b: Tensor


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, image_BE: Tensor, text_BE: Tensor, scale: Tensor, ids_b: Tensor | None, plan: Plan
    ) -> tuple[Tensor, Tensor]:
        image_bD, text_bD = plan.inputs(image_BE, text_BE)
        with torch.autocast(image_bD.device.type, enabled=False):
            find = _gathered if plan.exchange == "gather" else _round_the_ring
            own_b = _scores(image_bD, text_bD, scale, plan)
            found = find(image_bD, text_bD, scale, ids_b, own_b, plan)
            loss = ((found.kept.row_b - found.target_b).mean() + (found.own_col_b - found.target_b).mean()) / 2
            accuracy = (own_b >= found.max_b).float().mean()
        ctx.plan, ctx.dtypes = plan, (image_BE.dtype, text_BE.dtype, scale.dtype)
        ctx.save_for_backward(image_bD, scale, *found.kept)
        ctx.mark_non_differentiable(accuracy)
        return loss.to(plan.sums_dtype), accuracy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        image_bD, scale, *kept = ctx.saved_tensors
        plan: Plan = ctx.plan
        saved = _Kept(*kept)
        row_b, col_N, text_ND, *_ = saved
        here = slice(None) if plan.exchange == "ring" else plan.rows_of(plan.ranks.rank, len(row_b))
        with torch.autocast(image_bD.device.type, enabled=False):
            pull = _pull_gathered if plan.exchange == "gather" else _pull_round_the_ring
            image_pull_bD, text_pull_bD = pull(image_bD, scale, saved, plan)
            own_b = _scores(image_bD, text_ND[here], scale, plan)
            weight_b1 = _own_weights(own_b, row_b, col_N[here], plan).to(image_pull_bD.dtype)[:, None]
            image_pull_bD.addcmul_(weight_b1, text_ND[here].to(weight_b1.dtype))
            text_pull_bD.addcmul_(weight_b1, image_bD.to(weight_b1.dtype))
            share = grads[0] / (2 * len(image_bD))
            grad_scale = (image_bD * image_pull_bD).sum() * share
            image_pull_bD.mul_(scale * share)
            text_pull_bD.mul_(scale * share)
        of_image, of_text, of_scale = ctx.dtypes
        return image_pull_bD.to(of_image), text_pull_bD.to(of_text), grad_scale.to(of_scale), None, None


def _arithmetic(image_bD: Tensor, plan: Plan) -> ModuleType:
    # Kernels round weights to their inputs' type, and the target of several pairs is not kept apart from weights.
    rough = plan.duplicates == "positives" and plan.dtype.itemsize == 2
    return kernels if kernels.usable(image_bD) and not rough else tiles


def _scores(image_bD: Tensor, text_bD: Tensor, scale: Tensor, plan: Plan) -> Tensor:
    """Logits of own pairs in the precision of log sums."""
    cosine_b = (image_bD.to(plan.sums_dtype) * text_bD).sum(1)
    return cosine_b.to(tiles.statistics(image_bD.device)) * scale


def _own_weights(own_b: Tensor, row_b: Tensor, col_b: Tensor, plan: Plan) -> Tensor:
    """Own pairs' part of G, which tiles leave out: both probabilities, less the targets where those are theirs."""
    if plan.duplicates == "positives":
        return (own_b - row_b).exp() + (own_b - col_b).exp()
    return torch.expm1(own_b - row_b) + torch.expm1(own_b - col_b)


def _left_out(plan: Plan, size: int, ids_B: Tensor | None, *, rows: slice, device: torch.device) -> tiles.Ids:
    """Ids whose pairs tiles leave out of the block of texts ``rows``: own pairs, or all of the same id."""
    if ids_B is None or plan.duplicates != "ignore":
        ids_B = torch.arange(plan.ranks.size * size, device=device)
    return ids_B[plan.rows_of(plan.ranks.rank, size)], ids_B[rows]


def _classes(plan: Plan, size: int, ids_B: Tensor | None, *, rows: slice) -> Classes | None:
    """The targets in the block of texts ``rows``, where they are not own pairs alone."""
    if ids_B is None or plan.duplicates != "positives":
        return None
    return Classes.of(ids_B[plan.rows_of(plan.ranks.rank, size)], ids_B[rows], everywhere=ids_B)


def _gathered(
    image_bD: Tensor, text_bD: Tensor, scale: Tensor, ids_b: Tensor | None, own_b: Tensor, plan: Plan
) -> _Found:
    """All texts come here; sums of columns are added up over processes in one message."""
    size = len(image_bD)
    text_ND, ids_B = gather_texts(text_bD, ids_b, ranks=plan.ranks)
    block, own = slice(0, len(text_ND)), plan.rows_of(plan.ranks.rank, size)
    logits_bN, kept = None, {}
    if not plan.recompute:
        logits_bN = image_bD.new_empty((size, len(text_ND)), dtype=plan.sums_dtype)
        kept = {"keep_MN": logits_bN}
    left_out = _left_out(plan, size, ids_B, rows=block, device=image_bD.device)
    sums = _arithmetic(image_bD, plan).log_sums(image_bD, text_ND, scale, tile=plan.tile, ids=left_out, **kept)
    col_N = sums.col_lse_N
    col_N[own] = torch.logaddexp(col_N[own], own_b)
    if plan.ranks.size > 1:
        col_N = plan.ranks.all_reduce(col_N.exp_()).log_()
    classes, target_b = _classes(plan, size, ids_B, rows=block), own_b
    if classes is not None:
        target_b = _scores(image_bD, classes.texts(text_ND, dtype=plan.sums_dtype), scale, plan)
    row_b = torch.logaddexp(sums.row_lse_M, own_b)
    return _Found(_Kept(row_b, col_N, text_ND, ids_B, logits_bN), col_N[own], target_b, sums.row_max_M)


def _pull_gathered(image_bD: Tensor, scale: Tensor, saved: _Kept, plan: Plan) -> tuple[Tensor, Tensor]:
    size, block = len(image_bD), slice(0, len(saved.text_ND))
    left_out = _left_out(plan, size, saved.ids_B, rows=block, device=image_bD.device)
    kept = {} if saved.logits_bN is None else {"kept_MN": saved.logits_bN}
    image_pull_bD, text_pull_ND = _arithmetic(image_bD, plan).gradients(
        image_bD, saved.text_ND, scale, saved.row_b, saved.col_N, tile=plan.tile, ids=left_out, **kept
    )
    classes = _classes(plan, size, saved.ids_B, rows=block)
    if classes is not None:
        classes.pull(image_bD, saved.text_ND, -2.0, to=(image_pull_bD, text_pull_ND))
    return image_pull_bD, plan.ranks.reduce_scatter(text_pull_ND)


def _round_the_ring(
    image_bD: Tensor, text_bD: Tensor, scale: Tensor, ids_b: Tensor | None, own_b: Tensor, plan: Plan
) -> _Found:
    """Blocks of texts are passed on, each with the sums of its columns so far, until all are back."""
    size, ranks = len(image_bD), plan.ranks
    ids_B = None if ids_b is None else ranks.all_gather(ids_b)
    row_b, col_b, max_b = own_b, own_b, torch.full_like(own_b, -torch.inf)
    mean_bD = torch.zeros_like(image_bD, dtype=plan.sums_dtype)
    block_bD = text_bD
    for step in range(ranks.size):
        rows = plan.rows_of((ranks.rank - step) % ranks.size, size)
        left_out = _left_out(plan, size, ids_B, rows=rows, device=image_bD.device)
        sums = _arithmetic(image_bD, plan).log_sums(image_bD, block_bD, scale, tile=plan.tile, ids=left_out)
        row_b, col_b = torch.logaddexp(row_b, sums.row_lse_M), torch.logaddexp(col_b, sums.col_lse_N)
        max_b = torch.maximum(max_b, sums.row_max_M)
        classes = _classes(plan, size, ids_B, rows=rows)
        if classes is not None:
            mean_bD += classes.texts(block_bD, dtype=plan.sums_dtype)
        if step < ranks.size - 1:
            block_bD, col_b = ranks.shift(block_bD, col_b)
    (col_b,) = ranks.shift(col_b)
    target_b = _scores(image_bD, mean_bD, scale, plan) if plan.duplicates == "positives" else own_b
    return _Found(_Kept(row_b, col_b, text_bD, ids_B, None), col_b, target_b, max_b)


def _pull_round_the_ring(image_bD: Tensor, scale: Tensor, saved: _Kept, plan: Plan) -> tuple[Tensor, Tensor]:
    """Blocks go round once more, each with its gradient so far."""
    size, ranks = len(image_bD), plan.ranks
    block_bD, col_b = saved.text_ND, saved.col_N
    image_pull_bD = torch.zeros_like(image_bD, dtype=plan.sums_dtype)
    text_pull_bD = torch.zeros_like(image_pull_bD)
    for step in range(ranks.size):
        rows = plan.rows_of((ranks.rank - step) % ranks.size, size)
        left_out = _left_out(plan, size, saved.ids_B, rows=rows, device=image_bD.device)
        here_bD, there_bD = _arithmetic(image_bD, plan).gradients(
            image_bD, block_bD, scale, saved.row_b, col_b, tile=plan.tile, ids=left_out
        )
        image_pull_bD += here_bD
        text_pull_bD += there_bD
        classes = _classes(plan, size, saved.ids_B, rows=rows)
        if classes is not None:
            classes.pull(image_bD, block_bD, -2.0, to=(image_pull_bD, text_pull_bD))
        if step < ranks.size - 1:
            block_bD, col_b, text_pull_bD = ranks.shift(block_bD, col_b, text_pull_bD)
    (text_pull_bD,) = ranks.shift(text_pull_bD)
    return image_pull_bD, text_pull_bD
