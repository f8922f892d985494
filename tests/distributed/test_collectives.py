"""The calls between processes, on 1, 2 and 4 of them and on groups of neighbours."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.helpers.ranks import RankError, on_ranks
from vlkit.distributed.collectives import Ranks
from vlkit.errors import VlkitError


def _all_calls(group: int) -> dict[str, Any]:
    world = Ranks.world()
    ranks = world.groups_of(group)
    mine = torch.full((2, 3), float(world.rank))
    pieces = torch.arange(float(2 * ranks.size))[:, None] * (world.rank + 1)
    return {
        "place": (world.rank, ranks.rank, ranks.size),
        "gathered": ranks.all_gather(mine)[:, 0].tolist(),
        "scattered": ranks.reduce_scatter(pieces).flatten().tolist(),
        "sum": ranks.all_reduce(mine.clone())[0, 0].item(),
        "max": ranks.all_reduce(mine.clone(), "max")[0, 0].item(),
        "shifted": [x[0, 0].item() for x in ranks.shift(mine, mine + 10)],
        "objects": ranks.gather_objects(world.rank),
    }


@pytest.mark.parametrize(("size", "group"), [(1, 1), (2, 2), (2, 1), (4, 4), (4, 2), (4, 1)])
def test_every_call(size: int, group: int) -> None:
    for rank, got in enumerate(on_ranks(size, _all_calls, group) if size > 1 else [_all_calls(group)]):
        first = rank - rank % group
        members = list(range(first, first + group))
        weight = sum(member + 1 for member in members)
        assert got == {
            "place": (rank, rank - first, group),
            "gathered": [float(member) for member in members for _ in range(2)],
            "scattered": [
                float(piece * (weight if group > 1 else rank + 1))
                for piece in (2 * (rank - first), 2 * (rank - first) + 1)
            ],
            "sum": float(sum(members)),
            "max": float(max(members)),
            "shifted": [float(first + (rank - first - 1) % group), float(first + (rank - first - 1) % group) + 10],
            "objects": members,
        }


def test_a_group_size_that_does_not_fit_names_those_that_do() -> None:
    with pytest.raises(VlkitError, match=r"groups of 3 do not divide 4 processes; group sizes that do: 1, 2, 4"):
        Ranks(0, 4).groups_of(3)


def _fails_on_one() -> None:
    if Ranks.world().rank == 1:
        raise ValueError("this one")
    Ranks.world().barrier()


def test_a_rank_that_fails_is_told() -> None:
    with pytest.raises(RankError, match=r"rank (0|1)"):
        on_ranks(2, _fails_on_one)
