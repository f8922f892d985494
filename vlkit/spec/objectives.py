"""Specs of losses over pairs of images and texts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from vlkit.spec.base import Spec


class LossSpec(Spec):
    """What all losses have in common."""

    kind: str
    weight: float = Field(default=1.0, ge=0.0)
    """Factor of this loss in the total."""


class PairObjective(LossSpec):
    """What the losses over all pairs of a batch have in common."""

    exchange: Literal["gather", "ring"] = "gather"
    """How texts of other processes get here: all at once, or one process's at a time (less memory, more messages)."""
    tile: int = Field(default=1024, ge=16)
    """Edge of the tiles in which logits are computed; kernels choose their own."""
    duplicates: Literal["negatives", "ignore", "positives"] = "negatives"
    """Other pairs of the same concept or caption: negatives like all others, left out, or positives too."""
    duplicates_by: Literal["concept", "caption"] = "concept"
    """What two pairs must share to be duplicates."""


class _SoftmaxObjective(PairObjective):
    recompute: bool = True
    """Compute logits again in the backward pass; false keeps them (4 bytes each), for a quarter less work."""

    @model_validator(mode="after")
    def _ring_keeps_nothing(self) -> Self:
        if not self.recompute and self.exchange == "ring":
            raise ValueError("recompute: false keeps the logits of all texts, and exchange: ring never has them")
        return self


class ContrastiveObjective(_SoftmaxObjective):
    """Exact softmax contrastive loss over the batch of all processes, both directions (CLIP, arXiv 2103.00020)."""

    kind: Literal["contrastive"] = "contrastive"


class GroupedContrastiveObjective(_SoftmaxObjective):
    """Mean of the contrastive losses of groups of processes: a different loss, with the negatives of a group only.

    The grouped aggregation of M2-Encoder (arXiv 2401.15896); its batch accumulation is `loop.micro_batch`.
    """

    kind: Literal["grouped_contrastive"] = "grouped_contrastive"
    group_size: int | None = Field(default=None, ge=1)
    """Neighbouring processes that share negatives; null takes the processes of a node."""


class SigmoidObjective(PairObjective):
    """Sigmoid loss of every pair of the batch of all processes (SigLIP, arXiv 2303.15343); needs model.init_bias."""

    kind: Literal["sigmoid"] = "sigmoid"


class ClassPrototypeObjective(LossSpec):
    """Class-prototype distillation: the image classifier's rows teach the text side the names of its classes."""

    kind: Literal["class_prototypes"] = "class_prototypes"
    names_per_step: int = Field(default=256, ge=1)
    """Classes whose names are shown in one step; each is told apart from all classes."""
    temperature: float = Field(default=0.05, gt=0)
    """Cosines are divided by this before the softmax."""
