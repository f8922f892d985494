"""Class-prototype distillation: an image classifier teaches the text side the names of its classes, without images.

The rows of a classifier's last layer stand for its classes in the image encoder's feature space. Each class name is
told apart from all classes by the place that the image side gives an image surely recognised as that class.

Shapes: K classes, N names, M names of a step, L text length, D encoder width, E embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch import Tensor

from vlkit.errors import VlkitError
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.nn.heads import Head
from vlkit.objectives.pairs.pair_term import Surroundings, Term, TextFeatures
from vlkit.spec.objectives import ClassPrototypeObjective
from vlkit.spec.training import ObjectiveSpec
from vlkit.types import Batch, ClassRows, Embeddings, KnowsClasses, Loss


class ClassPrototypes(Term):
    """Cross entropy of class names over the image classifier's classes.

    Args:
        spec: Weight, temperature, names a step.
        model: Its image encoder must have an ImageNet classifier.
        text_features: Features of the frozen text encoder; None where the text encoder trains, and names are encoded
            anew in every step.

    Raises:
        VlkitError: The image encoder has no classifier to learn from, or the image head cannot place its classes.
    """

    name = "class_prototypes"
    sides = frozenset()

    @classmethod
    def build(cls, spec: ObjectiveSpec, model: DualEncoder, around: Surroundings) -> ClassPrototypes:
        """See ``Term.build``."""
        return cls(cast("ClassPrototypeObjective", spec), model, text_features=around.text_features)

    def __init__(
        self, spec: ClassPrototypeObjective, model: DualEncoder, *, text_features: TextFeatures | None
    ) -> None:
        self.spec = spec
        self.rows = class_rows(model)
        if not isinstance(model.image_head, Head):
            raise VlkitError(
                "the class_prototypes objective needs an image head of vlkit's own; leave the objective out"
            )
        self.names = tuple(name for names in self.rows.names for name in names)
        counts = [len(names) for names in self.rows.names]
        self._first_K = torch.tensor([0, *counts]).cumsum(0)[:-1]
        self._counts_K = torch.tensor(counts)
        self.features_ND = None if text_features is None else text_features(self.names)

    def class_features(self) -> Tensor:
        """Mean text feature of each class's names, features_KD; needs a frozen text encoder."""
        if self.features_ND is None:
            raise VlkitError("a warm start needs a frozen text encoder; take 'text' out of the stage's trainable parts")
        owner_N = torch.repeat_interleave(torch.arange(len(self._counts_K)), self._counts_K)
        sums_KD = torch.zeros(len(self._counts_K), self.features_ND.shape[1])
        return sums_KD.index_add_(0, owner_N, self.features_ND.float()) / self._counts_K[:, None]

    def loss(
        self, model: DualEncoder, batch: Batch, embeddings: Embeddings | None, per_pair: Mapping[str, Tensor]
    ) -> Loss:
        """See ``Term.loss``; the batch of pairs is not looked at."""
        classes_M = torch.randperm(len(self._counts_K))[: self.spec.names_per_step]
        chosen_M = (torch.rand(len(classes_M)) * self._counts_K[classes_M]).long() + self._first_K[classes_M]
        text_ME = self._embed(model, chosen_M)
        class_KE = F.normalize(cast("Head", model.image_head).class_prototypes(self.rows), dim=-1)
        logits_MK = text_ME @ class_KE.T / self.spec.temperature
        classes_M = classes_M.to(logits_MK.device)
        total = F.cross_entropy(logits_MK, classes_M)
        accuracy = (logits_MK.detach().argmax(dim=1) == classes_M).float().mean()
        return Loss(total, {self.name: total.detach(), "class_acc1": accuracy})

    def _embed(self, model: DualEncoder, chosen_M: Tensor) -> Tensor:
        if self.features_ND is not None:
            return model.project_text(self.features_ND[chosen_M].float())
        return model.encode_text(model.tokenize([self.names[row] for row in chosen_M.tolist()], language="en"))


def class_rows(model: DualEncoder) -> ClassRows:
    """The image encoder's class prototypes.

    Raises:
        VlkitError: The image encoder has none.
    """
    rows = model.image.class_rows() if isinstance(model.image, KnowsClasses) else None
    if rows is None:
        raise VlkitError(
            "the class_prototypes objective needs an image encoder with an ImageNet-1k classifier (timm, pretrained: "
            "true); choose one, or leave the objective out"
        )
    return rows
