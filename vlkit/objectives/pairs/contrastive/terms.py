"""The contrastive losses as terms of a run.

Shapes: B pairs of this process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from vlkit.distributed.collectives import Ranks
from vlkit.errors import VlkitError
from vlkit.models.dual_encoder.batch import PairBatch
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.objectives.context import Context
from vlkit.objectives.name_ids import ids_of
from vlkit.objectives.pairs.contrastive.exchange import PairLoss
from vlkit.objectives.pairs.contrastive.sigmoid import sigmoid_contrastive
from vlkit.objectives.pairs.contrastive.softmax import softmax_contrastive
from vlkit.objectives.pairs.pair_term import Term, needed
from vlkit.spec.objectives import GroupedContrastiveObjective, PairObjective
from vlkit.types import Embeddings, Loss

_PROCESSES_OF_A_NODE = "LOCAL_WORLD_SIZE"


class PairTerm(Term):
    """A loss over all pairs of images and texts that some processes have together.

    ``pair_loss`` is the function; it takes the fields of the spec named in ``options``.
    """

    pair_loss: ClassVar[Callable[..., PairLoss]]
    options: ClassVar[tuple[str, ...]] = ("exchange", "tile", "duplicates")

    def __init__(self, spec: PairObjective, *, ranks: Ranks | None = None) -> None:
        self.spec, self.ranks = spec, ranks or Ranks()

    @classmethod
    def build(cls, spec: PairObjective, model: DualEncoder, context: Context) -> PairTerm:
        """See ``Term.build``."""
        return cls(spec, ranks=context.ranks)

    def loss(
        self, model: DualEncoder, batch: PairBatch, embeddings: Embeddings | None, per_pair: Mapping[str, Tensor]
    ) -> Loss:
        """See ``Term.loss``; reports the loss and the share of images whose own caption scores highest."""
        embeddings = needed(embeddings, self.name)
        ids_B = pair_ids(batch, self.spec, ranks=self.ranks)
        ids_B = None if ids_B is None else ids_B.to(embeddings.image_BE.device)
        options = {name: getattr(self.spec, name) for name in self.options}
        found = self.pair_loss(embeddings, ranks=self.ranks, ids=ids_B, **options)
        return Loss(found.loss, {self.name: found.loss.detach(), "batch_acc1": found.acc1})


class Contrastive(PairTerm):
    """Pulls each image to its own caption and away from all others of the batch, whichever process has them."""

    name: ClassVar[str] = "contrastive"
    pair_loss = staticmethod(softmax_contrastive)
    options = (*PairTerm.options, "recompute")


class GroupedContrastive(Contrastive):
    """The mean of the contrastive losses of groups of processes: fewer negatives, and no traffic between groups.

    Not the loss of one large batch: an anchor meets the negatives of its group only (``negatives_per_anchor``).
    """

    name = "grouped_contrastive"

    @classmethod
    def build(cls, spec: Any, model: DualEncoder, context: Context) -> GroupedContrastive:
        """See ``Term.build``; every process makes the groups, once.

        Raises:
            VlkitError: Groups of this size do not divide the processes, or nobody says how many make a node.
        """
        return cls(spec, ranks=context.ranks.groups_of(_group_size(spec, context.ranks)))

    def loss(
        self, model: DualEncoder, batch: PairBatch, embeddings: Embeddings | None, per_pair: Mapping[str, Tensor]
    ) -> Loss:
        """See ``Term.loss``; reports the negatives of an image as well."""
        total, parts = super().loss(model, batch, embeddings, per_pair)
        negatives = torch.tensor(float(self.ranks.size * len(batch.languages) - 1), device=total.device)
        return Loss(total, {**parts, "negatives_per_anchor": negatives})


class Sigmoid(PairTerm):
    """Asks of every image and caption of the batch, whichever process has them, whether they belong together."""

    name: ClassVar[str] = "sigmoid"
    pair_loss = staticmethod(sigmoid_contrastive)

    @classmethod
    def build(cls, spec: PairObjective, model: DualEncoder, context: Context) -> PairTerm:
        """See ``Term.build``.

        Raises:
            VlkitError: The model has no bias.
        """
        if model.bias is None:
            raise VlkitError(
                "the sigmoid objective needs a bias of similarities and model.init_bias is null; set model.init_bias: "
                "-10 (and model.init_scale: 10, as SigLIP does)"
            )
        return super().build(spec, model, context)


def pair_ids(batch: PairBatch, spec: PairObjective, *, ranks: Ranks) -> Tensor | None:
    """int64 ids_B that are equal where ``spec.duplicates_by`` is, on every process; None where nobody asks.

    A pair without a concept or caption is a duplicate of no other.

    Raises:
        VlkitError: The reader gave no captions.
    """
    if spec.duplicates == "negatives":
        return None
    names: Sequence[str] = batch.concepts if spec.duplicates_by == "concept" else batch.captions
    if len(names) != len(batch.languages):
        raise VlkitError(
            f"objectives.duplicates_by is {spec.duplicates_by!r} and the batches of this reader carry no "
            f"{spec.duplicates_by}s; choose {'caption' if spec.duplicates_by == 'concept' else 'concept'!r}, or "
            f"duplicates: negatives"
        )
    return ids_of(names, rank=ranks.rank)


def _group_size(spec: GroupedContrastiveObjective, ranks: Ranks) -> int:
    if spec.group_size is not None:
        return spec.group_size
    said = os.environ.get(_PROCESSES_OF_A_NODE, "")
    if said.isdigit():
        return int(said)
    if ranks.size == 1:
        return 1
    raise VlkitError(
        f"objectives.group_size is null (the processes of a node) and the environment has no {_PROCESSES_OF_A_NODE}; "
        f"start with torchrun, which sets it, or give group_size"
    )
