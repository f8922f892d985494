"""Micro-batches change nothing but memory: R4 (one loss, one gradient) and R5 (the same random numbers again)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.helpers.ranks import on_ranks
from vlkit.distributed.collectives import Ranks
from vlkit.errors import VlkitError
from vlkit.models.dual_encoder.batch import PairBatch
from vlkit.models.dual_encoder.model import DualEncoder, Encoded
from vlkit.models.registry import build
from vlkit.objectives.context import Context
from vlkit.objectives.pairs.pair_losses import PairLosses
from vlkit.objectives.pairs.pair_term import Term
from vlkit.objectives.weighted_sum import build_objective
from vlkit.spec.model import DualEncoderSpec
from vlkit.spec.objectives import ContrastiveObjective, GroupedContrastiveObjective, SigmoidObjective
from vlkit.spec.parts import LinearHeadSpec, TinyImage, TinyText
from vlkit.types import Embeddings, Loss

WORDS = ("a", "a cat", "a cat sits", "two cats sit on a very long and old mat")
SIZE = 8


class PerPair(Term):
    """A loss of each pair by itself, as a caption loss is."""

    name = "per_pair"

    def per_pair(self, model: DualEncoder, chunk: PairBatch, encoded: Encoded) -> Mapping[str, Tensor]:
        assert encoded.image_BE is not None and encoded.text_BE is not None
        return {"gap": (encoded.image_BE - encoded.text_BE).square().sum(1) * model.log_scale}

    def loss(self, model: DualEncoder, batch: PairBatch, embeddings: Embeddings | None, per_pair: Any) -> Loss:
        total = per_pair["gap"].mean()
        return Loss(total, {self.name: total.detach()})


def model_and_batch(*, rank: int = 0, ranks: int = 1, head: nn.Module | None = None) -> tuple[DualEncoder, PairBatch]:
    torch.manual_seed(0)
    model: Any = build(
        DualEncoderSpec(
            image=TinyImage(image_size=16, width=16),
            text=TinyText(width=16),
            embed_dim=8,
            image_head=LinearHeadSpec(),
            text_head=LinearHeadSpec(),
            init_bias=-5.0,
        )
    )
    if head is not None:
        model.image_head = head
    size = SIZE // ranks
    rows = range(rank * size, (rank + 1) * size)
    pixels = torch.randn(SIZE, 3, 16, 16)[rows.start : rows.stop]
    tokens = model.tokenize([f"{WORDS[(3 * n) % 4]} {n}" for n in rows])
    batch = PairBatch(pixels, None, tokens, None, ("en",) * size, tuple(str(n) for n in rows))
    return model.train(), batch


def gradients(objective: PairLosses, model: DualEncoder, batch: PairBatch, ranks: Ranks) -> dict[str, Tensor]:
    loss = objective(model, batch)
    loss.total.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None} | {"loss": loss.total.detach()}
    return {name: ranks.all_reduce(x.clone()) / ranks.size for name, x in found.items()}


def here(kind: str, micro_batch: int | None) -> dict[str, Any]:
    ranks = Ranks.world()
    model, batch = model_and_batch(rank=ranks.rank, ranks=ranks.size)
    specs = {
        "softmax": ContrastiveObjective(),
        "softmax, ring": ContrastiveObjective(exchange="ring"),
        "sigmoid": SigmoidObjective(),
        "groups": GroupedContrastiveObjective(group_size=1),
    }
    built = build_objective([specs[kind]], model, context=Context(ranks))
    ((_, pairs),) = built.members
    objective = PairLosses([*pairs.terms, (0.5, PerPair())], micro_batch=micro_batch)
    return {name: x.numpy() for name, x in gradients(objective, model, batch, ranks).items()}


def close(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert one.keys() == two.keys()
    errors = {name: np.linalg.norm(x - two[name]) / max(np.linalg.norm(two[name]), 1e-3) for name, x in one.items()}
    assert {name: error for name, error in errors.items() if error > 1e-5} == {}


@pytest.mark.parametrize("pieces", [2, 4, 8])
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_r4_any_number_of_micro_batches_has_the_gradients_of_one_batch(kind: str, pieces: int) -> None:
    whole = here(kind, None)
    assert ("bias" in whole) == (kind == "sigmoid") and abs(whole["log_scale"]) > 1e-3
    close(here(kind, SIZE // pieces), whole)


@pytest.mark.parametrize("kind", ["softmax", "softmax, ring", "sigmoid"])
def test_r4_micro_batches_on_two_processes(kind: str) -> None:
    for got in on_ranks(2, here, kind, 2):
        close(got, here(kind, None))


def test_r4_r6_groups_of_micro_batches_are_the_mean_of_their_losses() -> None:
    got, whole = on_ranks(2, here, "groups", 1)[0], on_ranks(2, here, "groups", None)[0]
    close(got, whole)
    alone = here("softmax", None)
    assert abs(got["loss"] - alone["loss"]) > 0.1  # fewer negatives: another loss


class Noted(nn.Module):
    """A head with dropout that notes what it gave."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.drop = nn.Linear(16, 8), nn.Dropout(0.5)
        self.gave: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.drop(self.linear(x))
        self.gave.append(out.detach().clone())
        return out


def test_r5_the_second_run_of_a_micro_batch_draws_the_same_random_numbers() -> None:
    head = Noted()
    model, batch = model_and_batch(head=head)
    objective = build_objective([ContrastiveObjective()], model, micro_batch=2)
    objective(model, batch).total.backward()
    first, again = head.gave[: SIZE // 2], head.gave[SIZE // 2 :]
    assert len(again) == SIZE // 2
    for out in first:
        assert sum(torch.equal(out, other) for other in again) == 1
        assert (out == 0).float().mean() > 0.2  # dropout was on
    assert not torch.equal(first[0] == 0, first[1] == 0)


def test_r5_gradients_are_those_of_the_features_that_the_loss_saw() -> None:
    head = Noted()
    model, batch = model_and_batch(head=head)
    micro = build_objective([ContrastiveObjective()], model, micro_batch=4)
    torch.manual_seed(5)
    total = micro(model, batch).total
    total.backward()
    step, weight = 1e-2, head.linear.weight
    grad = weight.grad
    assert grad is not None
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * step * grad
            torch.manual_seed(5)
            values.append(micro(model, batch).total.item())
            weight -= sign * step * grad
    slope = (values[0] - values[1]) / (2 * step)
    assert slope == pytest.approx(grad.square().sum().item(), rel=2e-2)


def test_r5_a_batch_norm_in_training_is_refused() -> None:
    model, batch = model_and_batch(head=nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8)))
    objective = build_objective([ContrastiveObjective()], model, micro_batch=4)
    with pytest.raises(VlkitError, match=r"loop.micro_batch: image_head.1 is a batch norm in training"):
        objective(model, batch)
    model.get_submodule("image_head").eval()
    assert objective(model, batch).total.isfinite()


def test_without_gradients_nothing_runs_twice() -> None:
    head = Noted()
    model, batch = model_and_batch(head=head)
    with torch.no_grad():
        build_objective([ContrastiveObjective()], model, micro_batch=2)(model, batch)
    assert len(head.gave) == SIZE // 2
