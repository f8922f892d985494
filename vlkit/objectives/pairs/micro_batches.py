"""Batches in micro-batches of texts of like length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from vlkit.errors import VlkitError
from vlkit.models.trainable import training_batch_norms
from vlkit.types import Batch, TextBatch


def split_batch(batch: Batch, size: int) -> tuple[Batch, list[Batch]]:
    """The batch sorted by the length of its texts, and its micro-batches of ``size`` pairs, each padded to its longest.

    A loss over pairs does not depend on their order, and short texts beside short ones save the padding.
    """
    if batch.tokens is not None:
        order_B = batch.tokens.mask_BL.sum(dim=1).argsort(stable=True)
        batch = _rows(batch, order_B)
    count = len(batch.languages)
    pieces = [torch.arange(start, min(start + size, count)) for start in range(0, count, size)]
    return batch, [_trimmed(_rows(batch, rows)) for rows in pieces]


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


def _rows(batch: Batch, rows: Tensor) -> Batch:
    def tensor(x: Tensor | None) -> Tensor | None:
        return None if x is None else x[rows.to(x.device)]

    def names(values: Sequence[str]) -> tuple[str, ...]:
        return tuple(values[row] for row in rows.tolist()) if values else ()

    tokens = batch.tokens
    return replace(
        batch,
        pixels_BCHW=tensor(batch.pixels_BCHW),
        image_BD=tensor(batch.image_BD),
        tokens=None if tokens is None else TextBatch(*(x[rows.to(x.device)] for x in tokens)),
        text_BD=tensor(batch.text_BD),
        languages=names(batch.languages),
        concepts=names(batch.concepts),
        captions=names(batch.captions),
        pivots=names(batch.pivots),
        sources=names(batch.sources),
    )


def _trimmed(batch: Batch) -> Batch:
    if batch.tokens is None:
        return batch
    used_L = batch.tokens.mask_BL.any(dim=0)
    last = int(used_L.nonzero().max()) + 1 if bool(used_L.any()) else 1
    return replace(batch, tokens=TextBatch(*(x[:, :last] for x in batch.tokens)))
