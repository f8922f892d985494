"""Losses that let a model learn from another one, which is frozen.

Sources: Multilingual-CLIP (LREC 2022), AltCLIP (arXiv 2211.06679, section 3.1), CLIP-KD (arXiv 2307.12732, equations
5 to 8).

Shapes: B pairs of this process, P of them with an English caption, N pairs of all processes, W processes, E and F
embedding widths of model and teacher.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch import Tensor, nn

from vlkit.distributed.collectives import Ranks
from vlkit.errors import ShapeError, VlkitError
from vlkit.models.dual_encoder.batch import PairBatch
from vlkit.models.dual_encoder.model import DualEncoder, Encoded, Side
from vlkit.models.feature_cache import Remembering
from vlkit.models.folder import load
from vlkit.objectives.context import Context
from vlkit.objectives.gather import gathered
from vlkit.objectives.pairs.pair_term import Term, needed
from vlkit.parts.tokenizers import tokenize_mixed
from vlkit.spec.objectives import ClipDistillationObjective, TextDistillationObjective
from vlkit.types import Embeddings, Loss


def load_teacher(name: str, student: DualEncoder, *, remember: bool = False) -> DualEncoder:
    """The teacher, frozen, on the device of the student.

    ``remember`` keeps its text features in the cache.

    Raises:
        VlkitError: There is no such model.
    """
    teacher = load(name, device=student.log_scale.device, expect=DualEncoder).requires_grad_(False)
    if remember:
        memory = Remembering(cast("nn.Module", teacher.text))
        cast("Any", teacher).text = memory
        weakref.finalize(teacher, memory.flush)
    return teacher


@torch.no_grad()
def raw_texts(teacher: DualEncoder, texts: Sequence[str], languages: Sequence[str]) -> Tensor:
    """The teacher's raw_text_BE of texts, each read in its own language.

    Raises:
        VlkitError: There are no texts.
    """
    if not texts:
        raise VlkitError("distillation needs the captions of a batch; its reader does not give them")
    return teacher.raw_text(tokenize_mixed(teacher.tokenize, texts, languages))


class _Taught(Term):
    """A term with a teacher."""

    def __init__(self, spec: Any, teacher: DualEncoder, *, ranks: Ranks | None = None) -> None:
        self.spec, self.teacher, self.ranks = spec, teacher, ranks or Ranks()


class TextDistillation(_Taught):
    """The distance of a caption's embedding from the teacher's of its English translation, in all languages."""

    name = "text_distillation"
    needs: ClassVar[frozenset[Side]] = frozenset(("text",))

    @classmethod
    def build(cls, spec: TextDistillationObjective, model: DualEncoder, context: Context) -> TextDistillation:
        """See ``Term.build``.

        Raises:
            VlkitError: There is no teacher, or it embeds into another space.
        """
        name = spec.teacher or model.loaded_from
        if name is None:
            raise VlkitError(
                "text_distillation.teacher = null takes the model that the run goes on from, and this one starts anew; "
                "name a teacher, or start from a trained model (model.kind: saved)"
            )
        teacher = load_teacher(name, model, remember=spec.remember)
        if teacher.embed_dim != model.embed_dim:
            raise ShapeError(
                f"the teacher {name} embeds into {teacher.embed_dim} dimensions, the model into {model.embed_dim}; "
                f"set model.embed_dim to {teacher.embed_dim}"
            )
        return cls(spec, teacher, ranks=context.ranks)

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
        # the mean over all pairs of all processes, as this process's share of a mean over processes
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


class ClipDistillation(_Taught):
    """Cross entropy between the teacher's softmax over the batch of all processes and the model's, both directions."""

    name = "clip_distillation"

    @classmethod
    def build(cls, spec: ClipDistillationObjective, model: DualEncoder, context: Context) -> ClipDistillation:
        """See ``Term.build``.

        Raises:
            VlkitError: The teacher prepares images in another way than the model.
        """
        teacher = load_teacher(spec.teacher, model)
        if repr(teacher.transform) != repr(model.transform):
            raise VlkitError(
                f"clip_distillation: the teacher {spec.teacher} prepares images as {teacher.transform!r} and the model "
                f"as {model.transform!r}; both see the same pixels, so choose a teacher or an image encoder that agree"
            )
        return cls(spec, teacher, ranks=context.ranks)

    def loss(
        self, model: DualEncoder, batch: PairBatch, embeddings: Embeddings | None, per_pair: Mapping[str, Tensor]
    ) -> Loss:
        """See ``Term.loss``."""
        own = needed(embeddings, self.name)
        image_BF, text_BF = self._teach(batch)
        targets = _logits(image_BF, text_BF, self.teacher.scale, ranks=self.ranks)
        given = _logits(own.image_BE, own.text_BE, own.scale, ranks=self.ranks)
        total: Any = sum(
            -(target_BN.softmax(dim=1) * logits_BN.log_softmax(dim=1)).sum(dim=1).mean() / 2
            for target_BN, logits_BN in zip(targets, given, strict=True)
        )
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
        return self.teacher.encode_image(batch.pixels_BCHW), F.normalize(raw_BF, dim=-1)


def _logits(image_BE: Tensor, text_BE: Tensor, scale: Tensor, *, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """Scaled similarities of own images with all texts, and of own texts with all images."""
    image_NE, text_NE = (gathered(own_BE, ranks) for own_BE in (image_BE, text_BE))
    return scale * image_BE @ text_NE.T, scale * text_BE @ image_NE.T
