"""From objective specs to the one objective of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vlkit.errors import VlkitError
from vlkit.models.dual_encoder import DualEncoder
from vlkit.objectives.chunks import split_batch, untrained_batch_norm
from vlkit.objectives.terms import Surroundings, Term
from vlkit.registry import Registry
from vlkit.spec import train as specs
from vlkit.types import Batch, Embeddings, ImageTextModel, Loss

OBJECTIVES = Registry(
    "objective",
    {
        "contrastive": "vlkit.objectives.contrastive.softmax:Contrastive",
        "class_prototypes": "vlkit.objectives.class_prototypes:ClassPrototypes",
    },
)


class WeightedSum:
    """Several terms as one objective; ``parts`` holds each one's own unweighted figures.

    With ``micro_batch`` the encoders run that many pairs at a time and keep nothing but their outputs; the backward
    pass runs each micro-batch again under the same random numbers (GradCache, arXiv 2101.06983, section 3). The loss
    sees the whole batch once, so its value and all gradients are those of one large batch.
    """

    def __init__(self, terms: Sequence[tuple[float, Term]], *, micro_batch: int | None = None) -> None:
        self.terms, self.micro_batch = tuple(terms), micro_batch

    def __call__(self, model: ImageTextModel, batch: Batch) -> Loss:
        """See ``types.Objective``."""
        dual = cast("DualEncoder", model)
        embeddings, per_pair, batch = self._encode(dual, batch)
        losses = [
            (weight, term.loss(dual, batch, embeddings, per_pair.get(number, {})))
            for number, (weight, term) in enumerate(self.terms)
        ]
        parts: dict[str, Tensor] = {}
        for _, loss in losses:
            parts |= loss.parts
        weighted = [weight * loss.total for weight, loss in losses]
        return Loss(sum(weighted[1:], start=weighted[0]), parts)

    def _encode(
        self, model: DualEncoder, batch: Batch
    ) -> tuple[Embeddings | None, dict[int, dict[str, Tensor]], Batch]:
        """Embeddings and figures of each pair, by term, and the batch in the order they are in."""
        embeds = any(term.embeds for _, term in self.terms)
        if not embeds:
            return None, {}, batch
        size = len(batch.languages)
        if self.micro_batch is None or self.micro_batch >= size:
            outs = [self._chunk(model, batch)]
        else:
            untrained_batch_norm(model)
            batch, chunks = split_batch(batch, self.micro_batch)
            keep = torch.is_grad_enabled()
            outs = [
                checkpoint(self._chunk, model, chunk, use_reentrant=False) if keep else self._chunk(model, chunk)
                for chunk in chunks
            ]
        image_BE, text_BE, *rest = (torch.cat(pieces) for pieces in zip(*outs, strict=True))
        per_pair: dict[int, dict[str, Tensor]] = {}
        for (number, name), values_B in zip(self._figures, rest, strict=True):
            per_pair.setdefault(number, {})[name] = values_B
        return Embeddings(image_BE, text_BE, model.scale, model.bias), per_pair, batch

    def _chunk(self, model: DualEncoder, chunk: Batch) -> tuple[Tensor, ...]:
        encoded = model.encode(chunk, states=any(term.states for _, term in self.terms))
        figures = {
            (number, name): values_B
            for number, (_, term) in enumerate(self.terms)
            for name, values_B in term.per_pair(model, chunk, encoded).items()
        }
        self._figures = tuple(figures)
        return encoded.image_BE, encoded.text_BE, *figures.values()


def build_objective(
    chosen: Sequence[specs.ObjectiveSpec],
    model: DualEncoder,
    *,
    around: Surroundings | None = None,
    micro_batch: int | None = None,
) -> WeightedSum:
    """The weighted sum of the objectives of a recipe.

    Args:
        chosen: Their specs.
        model: What is trained.
        around: The processes that share a batch, and features of frozen encoders.
        micro_batch: Pairs that the encoders take at a time; None takes all of a batch.

    Raises:
        VlkitError: The model lacks what an objective needs.
    """
    terms: list[tuple[float, Term]] = []
    for spec in chosen:
        home: type[Term] = OBJECTIVES.get_object(spec.kind)
        terms.append((spec.weight, home.build(spec, model, around or Surroundings())))
    if not terms:
        raise VlkitError("a run needs at least one objective")
    return WeightedSum(terms, micro_batch=micro_batch)
