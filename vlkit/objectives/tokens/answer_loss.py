"""The loss of a language model's answers, with logits only where something is learned.

Each sample counts the same, whatever the length of its answers: its loss is the mean over the tokens that are learned
of it, the batch's the mean over samples. Others average over the tokens of a batch, so that languages which the
tokenizer cuts into more pieces weigh more; and micro-batches would need the number of tokens of the whole batch.

Shapes: B rows, R places with a label, E width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


class AnswerLoss:
    """Cross entropy of the tokens of answers (LLaVA, arXiv 2304.08485, equation 3; mBLIP, 2307.06930)."""

    needs = frozenset(("encoder",))

    def __init__(self, spec: AnswersObjective) -> None:
        self.spec = spec

    @classmethod
    def build(cls, spec: AnswersObjective, model: Any, context: Context) -> AnswerLoss:
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
        total = mean_by_row(losses_R, said.rows_R, rows=len(batch))
        return Loss(total, {"answers": total.detach()})

    def pieces(self, batch: DialogueBatch, size: int) -> Sequence[Piece]:
        """See ``types.Objective``."""
        cuts = [torch.arange(start, min(start + size, len(batch))) for start in range(0, len(batch), size)]
        return [Piece(batch.rows(index), len(index) / len(batch)) for index in cuts]


def mean_by_row(losses_R: Tensor, rows_R: Tensor, *, rows: int) -> Tensor:
    """The mean over rows of the mean over each one's places, a scalar; a row without any counts 0."""
    zeros_B = losses_R.new_zeros(rows)
    sums_B, counts_B = zeros_B.index_add(0, rows_R, losses_R), zeros_B.index_add(0, rows_R, torch.ones_like(losses_R))
    return (sums_B / counts_B.clamp(min=1)).mean()


def answer_losses(model: Any, states_RE: Tensor, labels_R: Tensor, *, slice_size: int) -> Tensor:
    """Cross entropy at each place, float32 [R]; the logits of ``slice_size`` places exist at a time.

    Where the output map is frozen, gradients in the states are found beside the losses and logits are made once; else
    they are made again in the backward pass. About 12 * slice_size * V bytes are needed for them.
    """
    map_trains = model.logits(states_RE[:0].detach()).requires_grad
    if states_RE.requires_grad and not map_trains:
        losses_R: Tensor = _FrozenMap.apply(states_RE, labels_R, model.logits, slice_size)
        return losses_R
    return torch.cat(
        [
            checkpoint(_losses, model, states, labels, use_reentrant=False)
            for states, labels in zip(*(torch.split(x, slice_size) for x in (states_RE, labels_R)), strict=True)
        ]
    )


def _losses(model: Any, states_RE: Tensor, labels_R: Tensor) -> Tensor:
    return functional.cross_entropy(model.logits(states_RE).float(), labels_R, reduction="none")


class _FrozenMap(torch.autograd.Function):
    """Cross entropy under an output map that stays as it is.

    The loss of a place depends on its own state alone, so its gradient is known but for a factor, which comes later.
    """

    @staticmethod
    def forward(
        ctx: Any, states_RE: Tensor, labels_R: Tensor, logits: Callable[[Tensor], Tensor], slice_size: int
    ) -> Tensor:
        """Losses [R]."""
        losses_R = states_RE.new_empty(len(states_RE), dtype=torch.float32)
        gradients_RE = torch.empty_like(states_RE)
        for start in range(0, len(states_RE), slice_size):
            part = slice(start, start + slice_size)
            losses_R[part], gradients_RE[part] = _with_gradients(logits, states_RE[part], labels_R[part])
        ctx.save_for_backward(gradients_RE)
        return losses_R

    @staticmethod
    def backward(ctx: Any, *factors: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients in the states."""
        (gradients_RE,) = ctx.saved_tensors
        return gradients_RE * factors[0].to(gradients_RE.dtype).unsqueeze(-1), None, None, None


def _with_gradients(logits: Callable[[Tensor], Tensor], states_RE: Tensor, labels_R: Tensor) -> tuple[Tensor, Tensor]:
    """Losses [R] and their gradients [R, E] in the states."""
    states_RE, places_R1 = states_RE.detach().requires_grad_(), labels_R.unsqueeze(-1)
    with torch.enable_grad():
        logits_RV = logits(states_RE).float()
    known_RV = logits_RV.detach()
    chances_RV = known_RV.softmax(dim=-1)
    most_R1 = known_RV.argmax(dim=-1, keepdim=True)  # its chance is never so small that its logarithm is off
    losses_R1 = known_RV.gather(1, most_R1) - chances_RV.gather(1, most_R1).log() - known_RV.gather(1, places_R1)
    chances_RV.scatter_add_(1, places_R1, chances_RV.new_full(places_R1.shape, -1.0))
    (gradients_RE,) = torch.autograd.grad(logits_RV, states_RE, chances_RV)
    return losses_R1.squeeze(-1), gradients_RE
