"""CLIP distillation: the similarities of a teacher as soft targets (CLIP-KD, arXiv 2307.12732, equations 5 to 8).

Shapes: B pairs of this process, N of all processes, E and F embedding widths of model and teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from vlkit.distributed.collectives import Ranks
from vlkit.errors import VlkitError
from vlkit.models.dual_encoder.batch import PairBatch
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.objectives.context import Context
from vlkit.objectives.pairs.distillation.teacher import load_teacher, raw_texts
from vlkit.objectives.pairs.pair_term import Term, needed
from vlkit.spec.distillation import ClipDistillationObjective
from vlkit.spec.training import ObjectiveSpec
from vlkit.types import Embeddings, Loss


class ClipDistillation(Term):
    """Cross entropy between the teacher's softmax over the batch and the model's, in both directions.

    Args:
        spec: What the teacher reads.
        teacher: Frozen; it takes the same pixels as the model.
        ranks: The processes that share a batch; each meets the embeddings of all.
    """

    name = "clip_distillation"

    def __init__(self, spec: ClipDistillationObjective, teacher: DualEncoder, *, ranks: Ranks | None = None) -> None:
        self.spec, self.teacher, self.ranks = spec, teacher, ranks or Ranks()

    @classmethod
    def build(cls, spec: ObjectiveSpec, model: DualEncoder, context: Context) -> ClipDistillation:
        """See ``Term.build``.

        Raises:
            VlkitError: The teacher prepares images in another way than the model.
        """
        own = cast("ClipDistillationObjective", spec)
        teacher = load_teacher(own.teacher, model)
        if repr(teacher.transform) != repr(model.transform):
            raise VlkitError(
                f"clip_distillation: the teacher {own.teacher} prepares images as {teacher.transform!r} and the model "
                f"as {model.transform!r}; both see the same pixels, so choose a teacher or an image encoder that agree"
            )
        return cls(own, teacher, ranks=context.ranks)

    def loss(
        self, model: DualEncoder, batch: PairBatch, embeddings: Embeddings | None, per_pair: Mapping[str, Tensor]
    ) -> Loss:
        """See ``Term.loss``."""
        own = needed(embeddings, self.name)
        image_BF, text_BF = self._teach(batch)
        targets = _logits(image_BF, text_BF, self.teacher.scale, ranks=self.ranks)
        given = _logits(own.image_BE, own.text_BE, own.scale, ranks=self.ranks)
        total = sum(
            -(target_BN.softmax(dim=1) * logits_BN.log_softmax(dim=1)).sum(dim=1).mean() / 2
            for target_BN, logits_BN in zip(targets, given, strict=True)
        )
        total = cast("Tensor", total)
        return Loss(total, {self.name: total.detach()})

    @torch.no_grad()
    def _teach(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        if batch.pixels_BCHW is None:
            raise VlkitError(
                "clip_distillation needs pixels for its teacher, and the batch holds features of the model's own image "
                "encoder; set loop.cache_features to false"
            )
        english = self.spec.teacher_text == "english"
        texts = batch.pivots if english else batch.captions
        if english and not all(texts):
            raise VlkitError(
                "clip_distillation.teacher_text = english needs an English caption of each image; take only such images"
            )
        raw_BF = raw_texts(self.teacher, texts, ["en"] * len(texts) if english else batch.languages)
        return self.teacher.encode_image(batch.pixels_BCHW), torch.nn.functional.normalize(raw_BF, dim=-1)


def _logits(image_BE: Tensor, text_BE: Tensor, scale: Tensor, *, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """Scaled similarities of own images with all texts, and of own texts with all images."""
    image_NE, text_NE = (_Gather.apply(own_BE, ranks) for own_BE in (image_BE, text_BE))
    return scale * image_BE @ text_NE.T, scale * text_BE @ image_NE.T


class _Gather(torch.autograd.Function):
    """The rows of all processes; gradients go back to the process whose rows they are of."""

    @staticmethod
    def forward(ctx: Any, own_BE: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks.all_gather(own_BE)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks.reduce_scatter(grads[0].contiguous()), None
