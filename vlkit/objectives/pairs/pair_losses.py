"""All losses over pairs of a run as one objective: the encoders run once for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vlkit.models.dual_encoder.batch import PairBatch
from vlkit.models.dual_encoder.model import SIDES, DualEncoder, Side
from vlkit.models.trainable import refuse_batch_norm
from vlkit.objectives.pairs.pair_term import Term
from vlkit.types import Embeddings, Loss, Piece

_Figures = Mapping[int, Mapping[str, Tensor]]
"""Figures of each pair, by the number of the term and their name."""


class PairLosses:
    """The weighted sum of terms over the pairs of a batch.

    With ``micro_batch`` the encoders run that many pairs at a time and keep nothing but their outputs; the backward
    pass runs each micro-batch again under the same random numbers (GradCache, arXiv 2101.06983, section 3). The loss
    sees the whole batch once, so its value and all gradients are those of one large batch.
    """

    def __init__(self, terms: Sequence[tuple[float, Term]], *, micro_batch: int | None = None) -> None:
        self.terms, self.micro_batch = terms, micro_batch

    @property
    def needs(self) -> frozenset[Side]:
        """What of a batch is encoded for all terms together; the other side is not looked at."""
        return frozenset[Side]().union(*(term.needs for _, term in self.terms))

    def __call__(self, model: DualEncoder, batch: PairBatch) -> Loss:
        """See ``types.Objective``; input is moved to the model a micro-batch at a time."""
        embeddings, per_pair, batch = self._encode(model, batch)
        return weighted(
            (weight, term.loss(model, batch, embeddings, per_pair.get(number, {})))
            for number, (weight, term) in enumerate(self.terms)
        )

    def pieces(self, batch: PairBatch, size: int) -> list[Piece]:
        """The whole batch: a loss over pairs sees all of them at once, and micro-batches lie below it."""
        return [Piece(batch)]

    def _encode(self, model: DualEncoder, batch: PairBatch) -> tuple[Embeddings | None, _Figures, PairBatch]:
        """Embeddings, figures of each pair by term, and the batch in the order they are in."""
        sides = self.needs
        if not sides:
            return None, {}, batch
        if self.micro_batch is None or self.micro_batch >= len(batch):
            outputs = [self._chunk(model, batch)]
        else:
            refuse_batch_norm(model)
            if batch.tokens is not None:
                # A loss over pairs does not depend on their order, and short texts beside short ones save the padding.
                batch = batch.rows(batch.tokens.mask_BL.sum(dim=1).argsort(stable=True))
            chunks = [batch.rows(rows).trimmed() for rows in torch.split(torch.arange(len(batch)), self.micro_batch)]
            # Without gradients nothing is kept anyway, and checkpoint would warn.
            run = partial(checkpoint, self._chunk, use_reentrant=False) if torch.is_grad_enabled() else self._chunk
            outputs = [run(model, chunk) for chunk in chunks]
        images, texts, figures = zip(*outputs, strict=True)
        per_pair = {
            number: {name: torch.cat([chunk[number][name] for chunk in figures]) for name in named}
            for number, named in figures[0].items()
        }
        if len(sides) < len(SIDES):
            return None, per_pair, batch
        return Embeddings(torch.cat(images), torch.cat(texts), model.scale, model.bias), per_pair, batch

    def _chunk(self, model: DualEncoder, chunk: PairBatch) -> tuple[Tensor | None, Tensor | None, _Figures]:
        encoded = model.encode(chunk, states=any(term.states for _, term in self.terms), sides=self.needs)
        figures = {number: term.per_pair(model, chunk, encoded) for number, (_, term) in enumerate(self.terms)}
        return encoded.image_BE, encoded.text_BE, figures


def weighted(losses: Iterable[tuple[float, Loss]]) -> Loss:
    """The sum of losses by their weights, with the figures of all of them."""
    totals, parts = [], dict[str, Tensor]()
    for weight, loss in losses:
        totals.append(weight * loss.total)
        parts |= loss.parts
    return Loss(sum(totals[1:], start=totals[0]), parts)
