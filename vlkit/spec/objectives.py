"""Specs of losses over pairs of images and texts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vlkit.spec.base import Spec


class ContrastiveObjective(Spec):
    """Exact softmax contrastive loss, both directions (CLIP, arXiv 2103.00020, figure 3)."""

    kind: Literal["contrastive"] = "contrastive"
    weight: float = Field(default=1.0, ge=0.0)
    """Factor of this loss in the total."""


class ClassPrototypeObjective(Spec):
    """Class-prototype distillation: the image classifier's rows teach the text side the names of its classes."""

    kind: Literal["class_prototypes"] = "class_prototypes"
    weight: float = Field(default=1.0, ge=0.0)
    """Factor of this loss in the total."""
    names_per_step: int = Field(default=256, ge=1)
    """Classes whose names are shown in one step; each is told apart from all classes."""
    temperature: float = Field(default=0.05, gt=0)
    """Cosines are divided by this before the softmax."""
