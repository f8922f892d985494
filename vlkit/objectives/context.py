"""What an objective may need to know beside its spec and the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from vlkit.distributed.collectives import Ranks

TextFeatures = Callable[[Sequence[str]], Tensor]
"""English texts to the frozen text encoder's features_ND."""


@dataclass(frozen=True)
class Context:
    """Where a run computes its losses.

    ``ranks`` are the processes that share a batch; ``text_features`` the features of English texts where the text
    encoder is frozen, else None.
    """

    ranks: Ranks = field(default_factory=Ranks)
    text_features: TextFeatures | None = None
