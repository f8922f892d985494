"""From the objectives of a recipe to the one objective of a run: their weighted sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from vlkit.errors import VlkitError
from vlkit.objectives.context import Context
from vlkit.objectives.pairs.pair_losses import PairLosses, weighted
from vlkit.objectives.pairs.pair_term import Term
from vlkit.registry import Registry
from vlkit.spec.objectives import ObjectiveSpec
from vlkit.types import Loss, Objective, Piece

OBJECTIVES = Registry(
    "objective",
    {
        "contrastive": "vlkit.objectives.pairs.contrastive.terms:Contrastive",
        "grouped_contrastive": "vlkit.objectives.pairs.contrastive.terms:GroupedContrastive",
        "sigmoid": "vlkit.objectives.pairs.contrastive.terms:Sigmoid",
        "class_prototypes": "vlkit.objectives.pairs.class_prototypes:ClassPrototypes",
        "captioning": "vlkit.objectives.pairs.captioning.decoder_terms:Captioning",
        "masked_text": "vlkit.objectives.pairs.captioning.decoder_terms:MaskedText",
        "masked_image": "vlkit.objectives.pairs.captioning.decoder_terms:MaskedImage",
        "text_distillation": "vlkit.objectives.pairs.distillation:TextDistillation",
        "clip_distillation": "vlkit.objectives.pairs.distillation:ClipDistillation",
        "image_text_queries": "vlkit.objectives.queries.image_text_queries:ImageTextQueries",
        "reconstruction": "vlkit.objectives.codes.reconstruction:Reconstruction",
        "masked_codes": "vlkit.objectives.codes.masked_codes:MaskedCodes",
        "condition_distillation": "vlkit.objectives.conditions.condition_distillation:ConditionDistillation",
        "answers": "vlkit.objectives.tokens.answer_loss:AnswerLoss",
    },
)
"""Kind to a class with ``needs`` and ``build(spec, model, context)``: an ``Objective``, or a ``Term`` over pairs."""


class _Share(NamedTuple):
    """A piece of a batch as one member of several cuts it."""

    member: int
    batch: Any


class WeightedSum:
    """Several objectives as one; ``parts`` holds each one's own unweighted figures."""

    def __init__(self, members: Sequence[tuple[float, Objective[Any, Any]]]) -> None:
        self.members = tuple(members)

    @property
    def needs(self) -> frozenset[str]:
        """Parts of the model whose input one of them looks at."""
        return frozenset[str]().union(*(member.needs for _, member in self.members))

    def __call__(self, model: Any, batch: Any) -> Loss:
        """See ``types.Objective``."""
        chosen = self.members
        if isinstance(batch, _Share):
            chosen, batch = self.members[batch.member : batch.member + 1], batch.batch
        return weighted((weight, member(model, batch)) for weight, member in chosen)

    def pieces(self, batch: Any, size: int) -> list[Piece]:
        """See ``types.Objective``; each member's pieces, one member after the other."""
        if len(self.members) == 1:
            return list(self.members[0][1].pieces(batch, size))
        return [
            Piece(_Share(number, piece.batch), piece.weight)
            for number, (_, member) in enumerate(self.members)
            for piece in member.pieces(batch, size)
        ]


def needs_of(chosen: Sequence[ObjectiveSpec]) -> frozenset[str]:
    """Parts of a model whose input these objectives look at, known before they are built."""
    return frozenset[str]().union(*(OBJECTIVES.get_object(spec.kind).needs for spec in chosen))


def build_objective(
    chosen: Sequence[ObjectiveSpec], model: Any, *, context: Context | None = None, micro_batch: int | None = None
) -> WeightedSum:
    """The weighted sum of the objectives of a recipe; all losses over pairs share one pass through the encoders.

    ``micro_batch`` is how many pairs the encoders take at a time; None takes all of a batch.

    Raises:
        VlkitError: The model lacks what an objective needs.
    """
    if not chosen:
        raise VlkitError("a run needs at least one objective")
    members: list[tuple[float, Objective[Any, Any]]] = []
    terms: list[tuple[float, Term]] = []
    for spec in chosen:
        built = OBJECTIVES.get_object(spec.kind).build(spec, model, context or Context())
        if not isinstance(built, Term):
            members.append((spec.weight, built))
            continue
        if not terms:
            members.append((1.0, PairLosses(terms, micro_batch=micro_batch)))
        terms.append((spec.weight, built))
    return WeightedSum(members)
