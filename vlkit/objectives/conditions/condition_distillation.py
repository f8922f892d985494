"""What a bridge to a denoiser learns from: the denoiser and its own text encoder, which reads the English text.

Source: PEA-Diffusion (arXiv 2311.17086, section 3.3), which asks the denoiser about images with noise. Here are none:
it is asked about noise alone, at a random step, so that parallel texts are all that is needed; and the states
themselves are compared, which its perceptron of another encoder's tokens cannot be.

Shapes: B texts, M states that the denoiser reads, E their width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vlkit.errors import VlkitError
from vlkit.models.diffusion_bridge.batch import ParallelBatch
from vlkit.models.diffusion_bridge.model import DiffusionBridge
from vlkit.objectives.context import Context
from vlkit.spec.objectives import ConditionDistillationObjective
from vlkit.types import Loss, Piece


class ConditionDistillation:
    """Mean squared differences of states, of the noise found with them, and of the denoiser's features on the way."""

    needs = frozenset(("text",))

    def __init__(self, spec: ConditionDistillationObjective) -> None:
        self.spec = spec

    @classmethod
    def build(cls, spec: ConditionDistillationObjective, model: Any, context: Context) -> ConditionDistillation:
        """The objective of a bridge to a diffusion model.

        Raises:
            VlkitError: The model is of another kind, or nothing is to be learned.
        """
        if not isinstance(model, DiffusionBridge):
            raise VlkitError(
                f"the condition_distillation objective needs a model of kind diffusion_bridge, and this one is of kind "
                f"{model.spec.kind}"
            )
        if not (spec.states or spec.noise or spec.features):
            raise VlkitError("objectives: states, noise and features are all 0; at least one of them is to be learned")
        return cls(spec)

    def __call__(self, model: DiffusionBridge, batch: ParallelBatch) -> Loss:
        """See ``types.Objective``."""
        pipeline = model.pipeline
        own_BME, english_BME = model.conditions(batch.tokens), pipeline.english(batch.english)
        differences = {"states": _difference(own_BME, english_BME)}
        if self.spec.noise or self.spec.features:
            noised, wanted = pipeline.noised(batch.seeds), bool(self.spec.features)
            with torch.no_grad():
                target = pipeline.denoised(noised, english_BME, features=wanted)
            found = pipeline.denoised(noised, own_BME, features=wanted)
            differences["noise"] = _difference(found.noise_Bchw, target.noise_Bchw)
            if wanted:
                pairs = zip(found.features, target.features, strict=True)
                differences["features"] = torch.stack([_difference(*pair) for pair in pairs]).sum()
        factors = self.spec.model_dump(include=set(differences))
        total = torch.stack([factors[name] * value for name, value in differences.items()]).sum()
        return Loss(total, {name: value.detach() for name, value in differences.items()})

    def pieces(self, batch: ParallelBatch, size: int) -> Sequence[Piece]:
        """See ``types.Objective``."""
        cuts = [torch.arange(start, min(start + size, len(batch))) for start in range(0, len(batch), size)]
        return [Piece(batch.rows(index), len(index) / len(batch)) for index in cuts]


def _difference(own: Tensor, other: Tensor) -> Tensor:
    return (own - other).square().mean()
