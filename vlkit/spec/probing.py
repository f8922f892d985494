"""Specs of evaluations that learn a linear classifier from a model's features."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from vlkit.spec.any_task import AnyTask
from vlkit.spec.sources import LabelsSpec, NamedImages, OwnLabels

_Images = Annotated[NamedImages, Field(discriminator="kind")]


class LinearProbeSpec(AnyTask):
    """Images to be told apart by a linear classifier that learns from all, or from few, labelled images of each class.

    The features are the model's embeddings, which stay as they are. Zero-shot classification stands beside it, in each
    language that names all classes.
    """

    kind: Literal["linear_probe"] = "linear_probe"
    images: _Images
    """The images that are told apart."""
    train: _Images | None = None
    """The images to learn from, of the same classes; null: `images` are split in two."""
    test_share: float = Field(default=0.5, gt=0, lt=1)
    """Without `train`, the share of each class's images that are told apart, by a stable hash; the others teach."""
    labels: LabelsSpec = OwnLabels()
    """The names of the classes, for zero-shot classification."""
    templates: Literal["packaged", "none"] = "packaged"
    """What names are put into: vlkit's frames of the language, or nothing."""
    shots: tuple[Annotated[int, Field(ge=1)], ...] = (1, 2, 4, 8, 16)
    """Labelled images of each class to learn from; as many again, but at most 4, choose the regularisation."""
    full: bool = True
    """Learn from all images, too (linear probe); a fifth of them chooses the regularisation first."""
    draws: int = Field(default=3, ge=1)
    """How often the few images are drawn; figures are means over draws."""

    @field_validator("shots")
    @classmethod
    def _shots_rise(cls, shots: tuple[int, ...]) -> tuple[int, ...]:
        if list(shots) != sorted(set(shots)):
            raise ValueError(f"shots = {list(shots)}: give each number once, the smallest first")
        return shots

    @model_validator(mode="after")
    def _something_is_learned(self) -> LinearProbeSpec:
        if not self.shots and not self.full:
            raise ValueError("shots is empty and full is false, which leaves nothing to learn from; set one of them")
        return self
