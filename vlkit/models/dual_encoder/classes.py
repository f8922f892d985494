"""The classes that an image encoder's own classifier knows, and their names.

Shapes: K classes, N names, D text width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vlkit.errors import VlkitError
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.types import ClassRows, KnowsClasses


class KnownClasses:
    """The image encoder's class prototypes ``rows`` with the N English ``names`` of all classes in one list.

    ``first_K`` is the number of each class's first name, ``counts_K`` how many it has; they stand behind each other.

    Raises:
        VlkitError: The image encoder has no ImageNet classifier.
    """

    def __init__(self, model: DualEncoder) -> None:
        rows = model.image.class_rows() if isinstance(model.image, KnowsClasses) else None
        if rows is None:
            raise VlkitError(
                "the class_prototypes objective needs an image encoder with an ImageNet-1k classifier (timm, "
                "pretrained: true); choose one, or leave the objective out"
            )
        self.rows: ClassRows = rows
        self.names = tuple(name for names in self.rows.names for name in names)
        counts = [len(names) for names in self.rows.names]
        self.first_K = torch.tensor([0, *counts]).cumsum(0)[:-1]
        self.counts_K = torch.tensor(counts)

    def mean_features(self, features_ND: Tensor) -> Tensor:
        """The mean of the features of each class's names, features_KD."""
        owner_N = torch.repeat_interleave(torch.arange(len(self.counts_K)), self.counts_K)
        sums_KD = torch.zeros(len(self.counts_K), features_ND.shape[1])
        return sums_KD.index_add_(0, owner_N, features_ND.float()) / self.counts_K[:, None]
