"""Class-prototype distillation: an image classifier teaches the text side the names of its classes, without images.

The rows of a classifier's last layer stand for its classes in the image encoder's feature space. Each class name is
told apart from all classes by the place that the image side gives an image surely recognised as that class.

Shapes: K classes, N names, M names of a step, L text length, D encoder width, E embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch import Tensor

from vlkit.errors import VlkitError
from vlkit.models.dual_encoder.batch import PairBatch
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.models.dual_encoder.start import KnownClasses
from vlkit.nn.heads import Head
from vlkit.objectives.context import Context
from vlkit.objectives.pairs.pair_term import Term
from vlkit.spec.objectives import ClassPrototypeObjective
from vlkit.types import Embeddings, Loss

TextFeatures = Callable[[Sequence[str]], Tensor]


class ClassPrototypes(Term):
    """Cross entropy of class names over the image classifier's classes.

    ``text_features`` turns English texts into the frozen text encoder's features_ND; None where that trains, and names
    are encoded anew in every step.

    Raises:
        VlkitError: The image encoder has no classifier to learn from, or the image head cannot place its classes.
    """

    name = "class_prototypes"
    needs = frozenset()

    @classmethod
    def build(cls, spec: ClassPrototypeObjective, model: DualEncoder, context: Context) -> ClassPrototypes:
        """See ``Term.build``."""
        frozen = context.frozen
        looked_up = (
            None if frozen is None or frozen.table("text") is None else partial(frozen.encode, "text", language="en")
        )
        return cls(spec, model, text_features=looked_up)

    def __init__(
        self, spec: ClassPrototypeObjective, model: DualEncoder, *, text_features: TextFeatures | None
    ) -> None:
        self.spec = spec
        self.classes = KnownClasses(model)
        if not isinstance(model.image_head, Head):
            raise VlkitError(
                "the class_prototypes objective needs an image head of vlkit's own; leave the objective out"
            )
        self.features_ND = None if text_features is None else text_features(self.classes.names)

    def loss(
        self, model: DualEncoder, batch: PairBatch, embeddings: Embeddings | None, per_pair: Mapping[str, Tensor]
    ) -> Loss:
        """See ``Term.loss``; the batch of pairs is not looked at."""
        known = self.classes
        classes_M = torch.randperm(len(known.counts_K))[: self.spec.names_per_step]
        chosen_M = (torch.rand(len(classes_M)) * known.counts_K[classes_M]).long() + known.first_K[classes_M]
        text_ME = self._embed(model, chosen_M)
        class_KE = F.normalize(cast("Head", model.image_head).class_prototypes(known.rows), dim=-1)
        logits_MK = text_ME @ class_KE.T / self.spec.temperature
        classes_M = classes_M.to(logits_MK.device)
        total = F.cross_entropy(logits_MK, classes_M)
        accuracy = (logits_MK.detach().argmax(dim=1) == classes_M).float().mean()
        return Loss(total, {self.name: total.detach(), "class_acc1": accuracy})

    def _embed(self, model: DualEncoder, chosen_M: Tensor) -> Tensor:
        if self.features_ND is not None:
            return model.project_text(self.features_ND[chosen_M].float())
        return model.encode_text(model.tokenize([self.classes.names[row] for row in chosen_M.tolist()], language="en"))
