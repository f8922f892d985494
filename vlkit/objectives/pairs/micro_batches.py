"""Batches in micro-batches of texts of like length."""

from __future__ import annotations

import torch
from torch import nn

from vlkit.errors import VlkitError
from vlkit.models.dual_encoder.batch import PairBatch
from vlkit.models.trainable import training_batch_norms


def split_batch(batch: PairBatch, size: int) -> tuple[PairBatch, list[PairBatch]]:
    """The batch sorted by the length of its texts, and its micro-batches of ``size`` pairs, each padded to its longest.

    A loss over pairs does not depend on their order, and short texts beside short ones save the padding.
    """
    if batch.tokens is not None:
        order_B = batch.tokens.mask_BL.sum(dim=1).argsort(stable=True)
        batch = batch.rows(order_B)
    count = len(batch)
    pieces = [torch.arange(start, min(start + size, count)) for start in range(0, count, size)]
    return batch, [batch.rows(rows).trimmed() for rows in pieces]


def refuse_batch_norm(model: nn.Module) -> None:
    """Refuses what a micro-batch would change: batch statistics that are taken of the rows at hand.

    Raises:
        VlkitError: A batch norm trains.
    """
    for name in training_batch_norms(model):
        raise VlkitError(
            f"loop.micro_batch: {name} is a batch norm in training, whose statistics would be those of the "
            f"micro-batch, taken twice; freeze that part or leave loop.micro_batch out"
        )
