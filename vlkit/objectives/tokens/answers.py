"""The loss of a language model's answers, with logits only where something is learned.

Each sample counts the same, whatever the length of its answers: its loss is the mean over the tokens that are learned
of it, the batch's the mean over samples. Others average over the tokens of a batch, so that languages which the
tokenizer cuts into more pieces weigh more; and micro-batches would need the number of tokens of the whole batch.

Shapes: B rows, R places with a label, E width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from vlkit.errors import VlkitError
from vlkit.models.vision_language.batch import DialogueBatch
from vlkit.models.vision_language.model import VisionLanguageModel
from vlkit.objectives.context import Context
from vlkit.spec.objectives import AnswersObjective
from vlkit.types import Loss, Piece


class Answers:
    """Cross entropy of the tokens of answers (LLaVA, arXiv 2304.08485, equation 3; mBLIP, 2307.06930)."""

    needs = frozenset(("encoder",))

    def __init__(self, spec: AnswersObjective) -> None:
        self.spec = spec

    @classmethod
    def build(cls, spec: AnswersObjective, model: Any, context: Context) -> Answers:
        """The objective of a model that writes answers.

        Raises:
            VlkitError: The model is of another kind.
        """
        if not isinstance(model, VisionLanguageModel):
            raise VlkitError(
                f"the answers objective needs a model of kind vision_language, and this one is of kind "
                f"{model.spec.kind}"
            )
        return cls(spec)

    def __call__(self, model: VisionLanguageModel, batch: DialogueBatch) -> Loss:
        """See ``types.Objective``."""
        said = model(batch)
        losses_R = answer_losses(model, said.states_RE, said.labels_R, slice_size=self.spec.slice_size)
        zeros_B = losses_R.new_zeros(len(batch))
        sums_B = zeros_B.index_add(0, said.rows_R, losses_R)
        counts_B = zeros_B.index_add(0, said.rows_R, torch.ones_like(losses_R))
        total = (sums_B / counts_B.clamp(min=1)).mean()
        return Loss(total, {"answers": total.detach()})

    def pieces(self, batch: DialogueBatch, size: int) -> Sequence[Piece]:
        """See ``types.Objective``."""
        cuts = [torch.arange(start, min(start + size, len(batch))) for start in range(0, len(batch), size)]
        return [Piece(batch.rows(index), len(index) / len(batch)) for index in cuts]


def answer_losses(model: Any, states_RE: Tensor, labels_R: Tensor, *, slice_size: int) -> Tensor:
    """Cross entropy at each place, float32 [R]; the logits of ``slice_size`` places exist at a time.

    They take 4 * slice_size * V bytes, and are computed again in the backward pass where there are several slices.
    """
    if len(states_RE) <= slice_size:
        return _losses(model, states_RE, labels_R)
    return torch.cat(
        [
            checkpoint(_losses, model, states, labels, use_reentrant=False)
            for states, labels in zip(*(torch.split(x, slice_size) for x in (states_RE, labels_R)), strict=True)
        ]
    )


def _losses(model: Any, states_RE: Tensor, labels_R: Tensor) -> Tensor:
    return functional.cross_entropy(model.logits(states_RE).float(), labels_R, reduction="none")
