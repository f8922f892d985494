"""From objective specs to the one objective of a run."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vlkit.errors import UnknownName
from vlkit.models.dual_encoder import DualEncoder
from vlkit.objectives.class_prototypes import ClassPrototypes, TextFeatures
from vlkit.objectives.contrastive import Contrastive
from vlkit.spec import train as specs
from vlkit.types import Batch, ImageTextModel, Loss, Objective


class WeightedSum:
    """Several objectives as one; ``parts`` holds each one's own unweighted figures."""

    def __init__(self, objectives: Sequence[tuple[float, Objective]]) -> None:
        self.objectives = tuple(objectives)

    def __call__(self, model: ImageTextModel, batch: Batch) -> Loss:
        """See ``types.Objective``."""
        losses = [(weight, objective(model, batch)) for weight, objective in self.objectives]
        parts: dict[str, Tensor] = {}
        for _, loss in losses:
            parts |= loss.parts
        weighted = [weight * loss.total for weight, loss in losses]
        return Loss(sum(weighted[1:], start=weighted[0]), parts)


def build_objective(
    chosen: Sequence[specs.ObjectiveSpec], model: DualEncoder, *, text_features: TextFeatures | None = None
) -> WeightedSum:
    """The weighted sum of the objectives of a recipe.

    Args:
        chosen: Their specs.
        model: What is trained.
        text_features: English texts to the text encoder's features, where that encoder is frozen.

    Raises:
        VlkitError: The model lacks what an objective needs.
    """

    def one(spec: specs.ObjectiveSpec) -> Objective:
        match spec:
            case specs.ContrastiveObjective():
                return Contrastive()
            case specs.ClassPrototypeObjective():
                return ClassPrototypes(spec, model, text_features=text_features)
            case _:
                raise UnknownName("objective", type(spec).__name__, allowed=("contrastive", "class_prototypes"))

    return WeightedSum([(spec.weight, one(spec)) for spec in chosen])
