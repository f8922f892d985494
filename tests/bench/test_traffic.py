"""Counted calls against calls counted by hand, on 2 and 4 ranks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from tests.helpers.ranks import on_ranks
from vlkit.bench.traffic import Traffic
from vlkit.distributed.collectives import Ranks

N = 96  # bytes of the tensor that each rank holds: 6 x 4 float32


def _counted(function: Callable[[], Any]) -> list[tuple[str, int, int]]:
    with warnings.catch_warnings(), Traffic() as traffic:
        warnings.simplefilter("ignore")
        function()
    assert traffic.received_bytes == sum(call.received for call in traffic.calls)
    return [(call.name, call.payload, call.received) for call in traffic.calls]


def _every_call() -> dict[str, list[tuple[str, int, int]]]:
    import torch.distributed._functional_collectives as functional

    ranks, x = Ranks.world(), torch.randn(6, 4)
    many = torch.randn(ranks.size * 6, 4)
    pieces = [torch.ones(6, 4) for _ in range(ranks.size)] if ranks.rank == 0 else None
    everyone = dist.group.WORLD
    calls: dict[str, Callable[[], Any]] = {
        "all_gather": lambda: ranks.all_gather(x),
        "reduce_scatter": lambda: ranks.reduce_scatter(many),
        "all_reduce": lambda: ranks.all_reduce(x.clone()),
        "shift": lambda: ranks.shift(x, x[0]),
        "barrier": lambda: ranks.barrier(),
        "list": lambda: dist.all_gather([torch.empty_like(x) for _ in range(ranks.size)], x),
        "broadcast": lambda: dist.broadcast(x.clone(), 0),
        "reduce": lambda: dist.reduce(x.clone(), 0),
        "gather": lambda: dist.gather(x, pieces, 0),
        "scatter": lambda: dist.scatter(x.clone(), pieces, 0),
        "all_to_all": lambda: dist.all_to_all_single(many.clone(), many),
        "functional gather": lambda: functional.all_gather_tensor(x, 0, everyone).sum(),
        "functional scatter": lambda: functional.reduce_scatter_tensor(many, "sum", 0, everyone).sum(),
        "functional reduce": lambda: functional.all_reduce(x, "sum", everyone).sum(),
    }
    return {name: _counted(function) for name, function in calls.items()}


@pytest.mark.parametrize("size", [2, 4])
def test_bytes_of_every_call_as_counted_by_hand(size: int) -> None:
    for rank, got in enumerate(on_ranks(size, _every_call)):
        others, root = (size - 1) * N, rank == 0
        assert got == {
            "all_gather": [("all_gather", size * N, others)],
            "reduce_scatter": [("reduce_scatter", size * N, others)],
            "all_reduce": [("all_reduce", N, 2 * N * (size - 1) // size)],
            "shift": [("send", N, 0), ("send", 16, 0), ("recv", N, N), ("recv", 16, 16)],
            "barrier": [("barrier", 0, 0)],
            "list": [("all_gather", size * N, others)],
            "broadcast": [("broadcast", N, 0 if root else N)],
            "reduce": [("reduce", N, N if root else 0)],
            "gather": [("gather", size * N if root else N, others if root else 0)],
            "scatter": [("scatter", size * N if root else N, 0 if root else N)],
            "all_to_all": [("all_to_all", size * N, others)],
            "functional gather": [("all_gather", size * N, others)],
            "functional scatter": [("reduce_scatter", size * N, others)],
            "functional reduce": [("all_reduce", N, 2 * N * (size - 1) // size)],
        }


class _GatherInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return Ranks.world().all_reduce(Ranks.world().all_gather(grad.to(torch.bfloat16))[:6].float())


def _backward() -> tuple[list[tuple[str, int, int]], int, list[str]]:
    x = torch.randn(6, 4, requires_grad=True)
    layer = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 3))
    with Traffic() as traffic:
        _GatherInBackward.apply(x).sum().backward()
        layer(torch.ones(2, 4)).sum().backward()
    calls = [(call.name, call.payload, call.received) for call in traffic.calls]
    return calls, traffic.collectives, sorted({str(dtype) for call in traffic.calls for dtype in call.dtypes})


def test_calls_of_the_backward_pass_and_of_ddp_are_seen() -> None:
    for calls, collectives, dtypes in on_ranks(2, _backward):
        # bf16 halves the gather; DDP reduces the 12 weights and 3 biases of the layer in one bucket.
        assert calls == [("all_gather", N, N // 2), ("all_reduce", N, N), ("all_reduce", 60, 60)]
        assert collectives == 3
        assert dtypes == ["torch.bfloat16", "torch.float32"]


def _inside_and_across() -> tuple[int, int, int, int]:
    world = Ranks.world()
    inside = world.groups_of(2)
    x = torch.randn(6, 4)
    with Traffic() as traffic:
        inside.all_gather(x)
        inside.shift(x)
    kept = sum(call.received for call in traffic.crossing(2))
    with Traffic() as wide:
        world.all_gather(x)
        world.shift(x)
    return traffic.received_bytes, kept, wide.received_bytes, sum(call.received for call in wide.crossing(2))


def test_bytes_that_cross_a_group() -> None:
    for rank, (inside, kept, wide, crossing) in enumerate(on_ranks(4, _inside_and_across)):
        assert (inside, kept) == (2 * N, 0)
        assert wide == 4 * N
        # A shift crosses only where the rank before is in the other group.
        assert crossing == 3 * N + (N if rank in (0, 2) else 0)


def test_nothing_is_counted_outside_the_block_or_for_one_process() -> None:
    with Traffic() as traffic:
        Ranks().all_gather(torch.ones(3)).sum()
    assert traffic.calls == [] and traffic.received_bytes == 0 and traffic.collectives == 0
