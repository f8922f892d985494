"""Pieces of a batch change nothing but memory: value and gradients are those of one large batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.ranks import on_ranks
from tests.helpers.regressor.batch import BrightnessBatch
from tests.helpers.regressor.model import Regressor
from tests.helpers.regressor.objective import BrightnessLoss
from tests.helpers.regressor.spec import BrightnessObjective
from vlkit.distributed.collectives import Ranks
from vlkit.distributed.runtime import Runtime
from vlkit.errors import VlkitError
from vlkit.models.trainable import set_trainable
from vlkit.objectives.weighted_sum import WeightedSum
from vlkit.parts.encoders import build_image_encoder
from vlkit.spec.parts import TinyImage
from vlkit.spec.training import LoopSpec
from vlkit.training.trainee import Trainee
from vlkit.types import Loss, Piece

ROWS = 16


class Steepness:
    """Another loss, whose pieces are those of all rows together."""

    needs = frozenset[str]()

    def __call__(self, model: Regressor, batch: BrightnessBatch) -> Loss:
        total = model.line.weight.square().sum()
        return Loss(total, {"steepness": total.detach()})

    def pieces(self, batch: BrightnessBatch, size: int) -> list[Piece]:
        return [Piece(batch)]


def gradients(
    micro_batch: int | None, parallel: str, trainable: tuple[str, ...] = ("encoder", "line")
) -> dict[str, Any]:
    ranks = Ranks.world()
    torch.manual_seed(0)
    model = Regressor(build_image_encoder(TinyImage(image_size=16, width=16, depth=2)))
    set_trainable(model, ("encoder", "line"))
    draw = torch.Generator().manual_seed(1)
    whole = BrightnessBatch(torch.randn(ROWS, 3, 16, 16, generator=draw), torch.rand(ROWS, generator=draw))
    batch = whole.rows(torch.arange(ranks.rank, ROWS, ranks.size))
    objective = WeightedSum([(1.0, BrightnessLoss(BrightnessObjective())), (0.1, Steepness())])
    loop = LoopSpec(batch_size=ROWS, micro_batch=micro_batch, parallel=parallel, device="cpu")
    trainee = Trainee(model, objective, runtime=Runtime(torch.device("cpu"), ranks, ranks), loop=loop)
    trainee(batch)  # gradients of an earlier step must not count
    loss = trainee(batch)
    found: dict[str, Tensor] = {}
    module: Any = trainee.model
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            grad = parameter.grad
            found[name] = (grad.full_tensor() if hasattr(grad, "full_tensor") else grad).double()
    figures = torch.stack([loss.total.detach(), *loss.parts.values()])
    found["figures"] = ranks.all_reduce(figures.double()) / ranks.size
    return {name: tensor.numpy() for name, tensor in found.items()}


def close(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert found.keys() == expected.keys() and "line.weight" in found
    for name, value in expected.items():
        torch.testing.assert_close(torch.from_numpy(found[name]), torch.from_numpy(value), rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("micro_batch", [1, 3, 5, 16, 99])
def test_pieces_have_the_gradients_of_one_batch(micro_batch: int) -> None:
    close(gradients(micro_batch, "auto"), gradients(None, "auto"))


def test_a_batch_norm_that_trains_is_refused_with_pieces_and_taken_without() -> None:
    encoder = build_image_encoder(TinyImage())
    model = Regressor(encoder)
    model.encoder = torch.nn.Sequential(encoder, torch.nn.BatchNorm1d(encoder.width))
    batch = BrightnessBatch(torch.randn(ROWS, 3, 32, 32), torch.rand(ROWS))
    objective = WeightedSum([(1.0, BrightnessLoss(BrightnessObjective()))])
    runtime = Runtime(torch.device("cpu"), Ranks.world(), Ranks.world())

    def step(micro_batch: int | None) -> None:
        loop = LoopSpec(batch_size=ROWS, micro_batch=micro_batch, device="cpu")
        Trainee(model, objective, runtime=runtime, loop=loop)(batch)

    step(None)
    with pytest.raises(VlkitError, match=r"loop.micro_batch: encoder.1 is a batch norm in training"):
        step(4)
    model.eval()
    step(4)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("micro_batch", [None, 3])
def test_on_two_processes_they_are_those_of_one(parallel: str, micro_batch: int | None) -> None:
    whole = gradients(None, "auto")
    for found in on_ranks(2, gradients, micro_batch, parallel):
        close(found, whole)


def test_a_frozen_part_is_shared_with_the_twin_in_pieces_and_not_copied() -> None:
    assert on_ranks(2, _shares) == [(True, True)] * 2


def _shares() -> tuple[bool, bool]:
    ranks = Ranks.world()
    model = Regressor(build_image_encoder(TinyImage(image_size=16, width=16, depth=2)))
    set_trainable(model, ("line",))
    objective = WeightedSum([(1.0, BrightnessLoss(BrightnessObjective()))])
    loop = LoopSpec(batch_size=ROWS, parallel="fsdp", device="cpu")
    trainee = Trainee(model, objective, runtime=Runtime(torch.device("cpu"), ranks, ranks), loop=loop)
    twin: Any = trainee.model
    mine, others = dict(model.encoder.named_parameters()), dict(twin.encoder.named_parameters())
    shared = all(mine[name].data_ptr() == others[name].data_ptr() for name in mine)
    rows: int = twin.line.weight.to_local().shape[0]
    return shared, rows == (1 if ranks.rank == 0 else 0)  # of the one row there is
