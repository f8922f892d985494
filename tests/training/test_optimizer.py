"""Learning rates and AdamW's groups."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from vlkit.spec.training import OptimSpec
from vlkit.training.optimizer import build_optimizer, learning_rate


def rates(spec: OptimSpec, steps: int, peak: float = 1.0) -> list[float]:
    return [learning_rate(spec, step, steps=steps, peak=peak) for step in range(steps)]


def test_a_linear_warm_up_then_a_cosine() -> None:
    found = rates(OptimSpec(warmup_steps=10), 100, peak=0.4)
    assert found[:10] == pytest.approx([0.4 * step / 11 for step in range(1, 11)])
    assert found[10] == 0.4 == max(found)
    assert found[10:] == pytest.approx([0.2 * (1 + math.cos(math.pi * step / 90)) for step in range(90)])
    assert all(one > two for one, two in pairwise(found[10:])) and found[-1] > 0


def test_constant_after_the_warm_up() -> None:
    found = rates(OptimSpec(warmup_steps=4, schedule="constant"), 20, peak=3.0)
    assert found[4:] == [3.0] * 16 and found[:4] == sorted(found[:4]) and found[3] < 3.0


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 50])
def test_the_warm_up_is_at_most_a_third_and_no_step_is_lost(steps: int) -> None:
    found = rates(OptimSpec(warmup_steps=1000), steps)
    assert found.index(max(found)) == steps // 3 and max(found) == 1.0
    assert min(found) > 0


def test_matrices_decay_and_vectors_do_not() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    model[2].weight.requires_grad_(False)
    spec = OptimSpec(weight_decay=0.5, betas=(0.8, 0.9), eps=1e-6)
    optimizer = build_optimizer(model, spec, peaks=dict.fromkeys("012", 0.1))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    names = {name: decay.get(id(parameter)) for name, parameter in model.named_parameters()}
    assert names == {
        "0.weight": 0.5, "0.bias": 0.0, "1.weight": 0.0, "1.bias": 0.0, "2.weight": None, "2.bias": 0.0,
    }  # fmt: skip
    assert all((g["lr"], g["betas"], g["eps"]) == (0.1, (0.8, 0.9), 1e-6) for g in optimizer.param_groups)
    scale = nn.ParameterList([nn.Parameter(torch.zeros(()))])
    assert [len(group["params"]) for group in build_optimizer(scale, spec, peaks={"scale": 1.0}).param_groups] == [1]
