"""From objective specs to the one objective of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vlkit.errors import VlkitError
from vlkit.models.dual_encoder.model import SIDES, DualEncoder, Side
from vlkit.objectives.pairs.micro_batches import refuse_batch_norm, split_batch
from vlkit.objectives.pairs.pair_term import Surroundings, Term
from vlkit.registry import Registry
from vlkit.spec import training as specs
from vlkit.types import Batch, Embeddings, ImageTextModel, Loss

OBJECTIVES = Registry(
    "objective",
    {
        "contrastive": "vlkit.objectives.pairs.contrastive.terms:Contrastive",
        "grouped_contrastive": "vlkit.objectives.pairs.contrastive.terms:GroupedContrastive",
        "sigmoid": "vlkit.objectives.pairs.contrastive.terms:Sigmoid",
        "class_prototypes": "vlkit.objectives.pairs.class_prototypes:ClassPrototypes",
        "captioning": "vlkit.objectives.pairs.captioning.text_terms:Captioning",
        "masked_text": "vlkit.objectives.pairs.captioning.text_terms:MaskedText",
        "masked_image": "vlkit.objectives.pairs.captioning.patches:MaskedImage",
        "text_distillation": "vlkit.objectives.pairs.distillation.text_distillation:TextDistillation",
        "clip_distillation": "vlkit.objectives.pairs.distillation.clip:ClipDistillation",
    },
)

_Figures = Mapping[int, Mapping[str, Tensor]]
"""Figures of each pair, by the number of the term and their name."""


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

    @property
    def sides(self) -> frozenset[Side]:
        """What of a batch is encoded for all terms together; the other side is not looked at."""
        return frozenset[Side]().union(*(term.sides for _, term in self.terms))

    def _encode(self, model: DualEncoder, batch: Batch) -> tuple[Embeddings | None, _Figures, Batch]:
        """Embeddings, figures of each pair by term, and the batch in the order they are in."""
        if not self.sides:
            return None, {}, batch
        if self.micro_batch is None or self.micro_batch >= len(batch.languages):
            outputs = [self._chunk(model, batch)]
        else:
            refuse_batch_norm(model)
            batch, chunks = split_batch(batch, self.micro_batch)
            # Without gradients nothing is kept anyway, and checkpoint would warn.
            run = partial(checkpoint, self._chunk, use_reentrant=False) if torch.is_grad_enabled() else self._chunk
            outputs = [run(model, chunk) for chunk in chunks]
        images, texts, figures = zip(*outputs, strict=True)
        per_pair = {
            number: {name: torch.cat([chunk[number][name] for chunk in figures]) for name in named}
            for number, named in figures[0].items()
        }
        if len(self.sides) < len(SIDES):
            return None, per_pair, batch
        return Embeddings(torch.cat(images), torch.cat(texts), model.scale, model.bias), per_pair, batch

    def _chunk(self, model: DualEncoder, chunk: Batch) -> tuple[Tensor | None, Tensor | None, _Figures]:
        encoded = model.encode(chunk, states=any(term.states for _, term in self.terms), sides=self.sides)
        figures = {number: term.per_pair(model, chunk, encoded) for number, (_, term) in enumerate(self.terms)}
        return encoded.image_BE, encoded.text_BE, figures


def sides_of(chosen: Sequence[specs.ObjectiveSpec]) -> frozenset[Side]:
    """What these objectives need of a batch, known before they are built."""
    return frozenset[Side]().union(*(OBJECTIVES.get_object(spec.kind).sides for spec in chosen))


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
