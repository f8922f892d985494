"""The loss of answers is the plain cross entropy, with or without gradients of the output map, in any slices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.helpers.vision_language import dialogues, tiny
from vlkit.models.trainable import set_trainable
from vlkit.objectives.tokens.answer_loss import AnswerLoss, answer_losses
from vlkit.spec.objectives import AnswersObjective


def gradients(model: Any, losses: Any, *, factor: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    losses_R = losses()
    (losses_R * factor).sum().backward()
    return losses_R.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("slice_size", [1, 4, 1000])
@pytest.mark.parametrize("head", ["frozen", "trains"])
@pytest.mark.parametrize("architecture", ["llama", "gemma2", "mt5", "bloom"])
def test_values_and_gradients_are_those_of_the_plain_cross_entropy(
    architecture: str, head: str, slice_size: int
) -> None:
    model = tiny("linear", architecture)
    set_trainable(model, ["bridge"] if head == "frozen" else ["bridge", "language_model"])
    batch = dialogues(model, (1, ("what?", "a cat")), (1, ("and this?", "a large dog")))
    count = int((batch.labels_BS >= 0).sum())
    factor = torch.rand(count, generator=torch.Generator().manual_seed(0))

    def plain() -> torch.Tensor:
        said = model(batch)
        return functional.cross_entropy(model.logits(said.states_RE).float(), said.labels_R, reduction="none")

    def sliced() -> torch.Tensor:
        said = model(batch)
        return answer_losses(model, said.states_RE, said.labels_R, slice_size=slice_size)

    wanted, found = gradients(model, plain, factor=factor), gradients(model, sliced, factor=factor)
    torch.testing.assert_close(found[0], wanted[0], atol=1e-5, rtol=1e-5)
    assert found[1].keys() == wanted[1].keys()
    for name, gradient in wanted[1].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-5, rtol=1e-4)


class Steep:
    """An output map of a sharp distribution, where chances other than the best are zero in float32."""

    def __init__(self) -> None:
        self.map = nn.Linear(4, 3, bias=False).requires_grad_(False)
        self.map.weight.data = torch.tensor([[400.0, 0, 0, 0], [0, 1.0, 0, 0], [-400.0, 0, 0, 0]])

    def logits(self, states_RE: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.map(states_RE)
        return found


def test_an_answer_that_is_next_to_impossible_has_a_finite_loss_and_gradient() -> None:
    states_RE = torch.tensor([[1.0, 0, 0, 0]] * 2, requires_grad=True)
    labels_R = torch.tensor([0, 2])
    losses_R = answer_losses(Steep(), states_RE, labels_R, slice_size=8)
    torch.testing.assert_close(losses_R, torch.tensor([0.0, 800.0]))
    losses_R.sum().backward()
    assert states_RE.grad is not None
    torch.testing.assert_close(states_RE.grad[1], torch.tensor([800.0, 0, 0, 0]))


def test_logits_of_a_frozen_map_are_made_once_and_a_slice_at_a_time() -> None:
    model = tiny()
    set_trainable(model, ["bridge"])
    batch, sizes, logits = dialogues(model, (1, ("what?", "a cat"))), [], model.logits

    def counted(states_RE: torch.Tensor) -> torch.Tensor:
        sizes.append(len(states_RE))
        return logits(states_RE)

    model.logits = counted  # type: ignore[method-assign]
    AnswerLoss(AnswersObjective(slice_size=4))(model, batch).total.backward()
    count = int((batch.labels_BS >= 0).sum())
    assert sum(sizes) == count and max(sizes) == 4


@torch.no_grad()
def test_without_gradients_it_is_the_same_loss() -> None:
    model = tiny()
    batch = dialogues(model, (1, ("what?", "a cat")), (0, ("why?", "because")))
    said = model(batch)
    wanted_R = functional.cross_entropy(model.logits(said.states_RE), said.labels_R, reduction="none")
    torch.testing.assert_close(answer_losses(model, said.states_RE, said.labels_R, slice_size=3), wanted_R)
