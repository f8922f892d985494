"""Text distillation: captions of all languages move to where a teacher has their English translation.

Sources: Multilingual-CLIP (LREC 2022), AltCLIP (arXiv 2211.06679, section 3.1).

Shapes: B pairs of this process, P of them with an English caption, W processes, E embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch import Tensor

from vlkit.distributed.collectives import Ranks
from vlkit.errors import ShapeError, VlkitError
from vlkit.models.dual_encoder.batch import PairBatch
from vlkit.models.dual_encoder.model import DualEncoder, Encoded, Side
from vlkit.objectives.context import Context
from vlkit.objectives.pairs.distillation.teacher import load_teacher, raw_texts
from vlkit.objectives.pairs.pair_term import Term
from vlkit.spec.distillation import TextDistillationObjective
from vlkit.spec.training import ObjectiveSpec
from vlkit.types import Embeddings, Loss


class TextDistillation(Term):
    """The distance of a caption's embedding from the teacher's of its English translation.

    Args:
        spec: Which distance.
        teacher: Frozen.
        ranks: The processes that share a batch.
    """

    name = "text_distillation"
    needs: ClassVar[frozenset[Side]] = frozenset(("text",))

    def __init__(self, spec: TextDistillationObjective, teacher: DualEncoder, *, ranks: Ranks | None = None) -> None:
        self.spec, self.teacher, self.ranks = spec, teacher, ranks or Ranks()

    @classmethod
    def build(cls, spec: ObjectiveSpec, model: DualEncoder, context: Context) -> TextDistillation:
        """See ``Term.build``.

        Raises:
            VlkitError: There is no teacher, or it embeds into another space.
        """
        own = cast("TextDistillationObjective", spec)
        name = own.teacher or model.loaded_from
        if name is None:
            raise VlkitError(
                "text_distillation.teacher = null takes the model that the run goes on from, and this one starts anew; "
                "name a teacher, or start from a trained model (model.kind: saved)"
            )
        teacher = load_teacher(name, model, remember=own.remember)
        if teacher.embed_dim != model.embed_dim:
            raise ShapeError(
                f"the teacher {name} embeds into {teacher.embed_dim} dimensions, the model into {model.embed_dim}; "
                f"set model.embed_dim to {teacher.embed_dim}"
            )
        return cls(own, teacher, ranks=context.ranks)

    def per_pair(self, model: DualEncoder, chunk: PairBatch, encoded: Encoded) -> Mapping[str, Tensor]:
        """The captions' embeddings before they are normalised."""
        if encoded.raw_text_BE is None:
            raise VlkitError("text_distillation needs the text side of a batch and was given none")
        return {"raw_text_BE": encoded.raw_text_BE}

    def loss(
        self, model: DualEncoder, batch: PairBatch, embeddings: Embeddings | None, per_pair: Mapping[str, Tensor]
    ) -> Loss:
        """See ``Term.loss``; also reports the share of pairs that have an English caption."""
        raw_BE = per_pair["raw_text_BE"]
        if not batch.pivots:
            raise VlkitError("text_distillation needs the English captions of a batch; its reader does not give them")
        rows = [row for row, pivot in enumerate(batch.pivots) if pivot]
        counts_W = self.ranks.all_gather(torch.tensor([len(rows)], device=raw_BE.device))
        target_BE = torch.zeros_like(raw_BE)
        if rows:
            target_BE[rows] = raw_texts(self.teacher, [batch.pivots[row] for row in rows], ["en"] * len(rows))
        each_P = self._distances(raw_BE, target_BE, torch.tensor(rows, dtype=torch.int64, device=raw_BE.device))
        # the mean over all pairs of all processes, as this process's share of a mean over processes (law 20)
        total = each_P.sum() * self.ranks.size / counts_W.sum().clamp(min=1)
        share = torch.tensor(len(rows) / len(raw_BE))
        return Loss(total, {self.name: total.detach(), "with_english": share})

    def _distances(self, raw_BE: Tensor, target_BE: Tensor, rows_P: Tensor) -> Tensor:
        student_PE, teacher_PE = raw_BE[rows_P], target_BE[rows_P]
        if self.spec.loss == "mse":
            return (student_PE - teacher_PE).square().mean(dim=1)
        student_PE = F.normalize(student_PE, dim=-1)
        if self.spec.loss == "cosine":
            return 1 - (student_PE * F.normalize(teacher_PE, dim=-1)).sum(dim=1)
        # a row of zeros marks a pair without an English caption, here or in another process
        every_CE = self.ranks.all_gather(F.normalize(target_BE, dim=-1))
        logits_PC = student_PE @ every_CE.T / self.spec.temperature
        logits_PC = logits_PC.masked_fill(~every_CE.any(dim=1), -torch.inf)
        return F.cross_entropy(logits_PC, rows_P + self.ranks.rank * len(raw_BE), reduction="none")
