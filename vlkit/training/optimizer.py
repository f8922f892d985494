"""AdamW groups, warm-up and cosine."""

from __future__ import annotations

import math

import torch
from torch import nn

from vlkit.spec.training import OptimSpec


def build_optimizer(model: nn.Module, spec: OptimSpec, *, lr: float) -> torch.optim.AdamW:
    """AdamW over what trains; matrices decay, vectors and scalars (biases, norms, the scale) do not."""
    trains = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trains if p.ndim >= 2], "weight_decay": spec.weight_decay},
        {"params": [p for p in trains if p.ndim == 1], "weight_decay": 0.0},
        {"params": [p for p in trains if p.ndim == 0], "weight_decay": 0.0},  # with fsdp the only ones not in pieces
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, betas=spec.betas, eps=spec.eps)


def learning_rate(spec: OptimSpec, step: int, *, steps: int, peak: float) -> float:
    """Learning rate of step ``step`` (from 0) of a stage of ``steps``.

    A linear warm-up, then a cosine to zero, or constant. The warm-up is never longer than a third of the stage.
    """
    warmup = min(spec.warmup_steps, steps // 3)
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if spec.schedule == "constant":
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
