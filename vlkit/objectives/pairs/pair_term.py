"""What a loss of a run is: a term that sees pairs inside a micro-batch, or all of a batch at once, or both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from vlkit.errors import VlkitError
from vlkit.models.dual_encoder.batch import PairBatch
from vlkit.models.dual_encoder.model import SIDES, DualEncoder, Encoded, Side
from vlkit.objectives.context import Context
from vlkit.types import Embeddings, Loss


class Term:
    """One loss. Encoders run once a micro-batch for all terms together; a term says what it needs of that run."""

    name: ClassVar[str]
    """Its key in ``Loss.parts``."""
    needs: ClassVar[frozenset[Side]] = SIDES
    """The sides that it needs encoded; ``loss`` gets embeddings where all terms together need both."""
    states: ClassVar[bool] = False
    """Whether it needs the encoders' states before pooling as well (``Encoded.image_BND``, ``Encoded.text_BLD``)."""

    @classmethod
    def build(cls, spec: Any, model: DualEncoder, context: Context) -> Term:
        """The term of a spec.

        Raises:
            VlkitError: The model lacks what it needs.
        """
        raise NotImplementedError

    def per_pair(self, model: DualEncoder, chunk: PairBatch, encoded: Encoded) -> Mapping[str, Tensor]:
        """Figures of each pair of a micro-batch, by name, one row a pair; differentiable."""
        return {}

    def loss(
        self, model: DualEncoder, batch: PairBatch, embeddings: Embeddings | None, per_pair: Mapping[str, Tensor]
    ) -> Loss:
        """The loss of this process's whole batch, from the embeddings and what ``per_pair`` gave for all of it.

        Its mean over processes is the global mean loss, and so are gradients.
        """
        raise NotImplementedError


def needed(embeddings: Embeddings | None, name: str) -> Embeddings:
    """The embeddings of a term that needs them.

    Raises:
        VlkitError: It was called without.
    """
    if embeddings is None:
        raise VlkitError(f"the {name} objective needs embeddings of the batch and was given none")
    return embeddings
