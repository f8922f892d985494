"""Exact softmax contrastive loss.

Shapes: B batch, E embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch import Tensor

from vlkit.models.dual_encoder import DualEncoder
from vlkit.objectives.terms import Surroundings, Term, needed
from vlkit.spec.train import ObjectiveSpec
from vlkit.types import Batch, Embeddings, Loss


def softmax_contrastive(embeddings: Embeddings) -> Tensor:
    """The mean of the image-to-text and the text-to-image cross entropy (CLIP, arXiv 2103.00020, figure 3).

    Every other row of the batch is a negative. A bias, if the model has one, cancels out in the softmax.
    """
    logits_BB = embeddings.scale * embeddings.image_BE @ embeddings.text_BE.T
    targets_B = torch.arange(len(logits_BB), device=logits_BB.device)
    return (F.cross_entropy(logits_BB, targets_B) + F.cross_entropy(logits_BB.T, targets_B)) / 2


class Contrastive(Term):
    """Pulls each image to its own caption and away from all others of the batch."""

    name = "contrastive"

    @classmethod
    def build(cls, spec: ObjectiveSpec, model: DualEncoder, around: Surroundings) -> Contrastive:
        """See ``Term.build``."""
        return cls()

    def loss(
        self, model: DualEncoder, batch: Batch, embeddings: Embeddings | None, per_pair: Mapping[str, Tensor]
    ) -> Loss:
        """See ``Term.loss``; reports the loss and the share of images whose own caption scores highest."""
        embeddings = needed(embeddings, self.name)
        total = softmax_contrastive(embeddings)
        with torch.no_grad():
            best_B = (embeddings.image_BE @ embeddings.text_BE.T).argmax(dim=1)
            accuracy = (best_B == torch.arange(len(best_B), device=best_B.device)).float().mean()
        return Loss(total, {self.name: total.detach(), "batch_acc1": accuracy})
