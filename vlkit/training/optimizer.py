"""AdamW groups by part, warm-up and cosine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from vlkit.errors import UnknownName
from vlkit.models.trainable import part_names, part_of, part_parameters
from vlkit.spec.training import OptimSpec, StageSpec


def peaks_of(model: nn.Module, stage: StageSpec, optim: OptimSpec) -> dict[str, float]:
    """Peak learning rate of each reported part in a stage.

    Raises:
        UnknownName: The stage names a part that the model has not.
    """
    return _by_part(model, stage.lr, optim.lr, key="lr")


def check_stages(model: nn.Module, stages: Sequence[StageSpec], optim: OptimSpec) -> None:
    """Checks all that stages say of parts, before anything is computed or written.

    Raises:
        UnknownName: A stage names a part that the model has not.
    """
    for number, stage in enumerate(stages):
        for part in stage.trainable:
            part_parameters(model, part)
        _by_part(model, stage.lr, optim.lr, key=f"{number}.lr")
        _by_part(model, stage.weight_decay, optim.weight_decay, key=f"{number}.weight_decay")


def build_optimizer(
    model: nn.Module, spec: OptimSpec, *, peaks: Mapping[str, float], stage: StageSpec | None = None
) -> torch.optim.AdamW:
    """AdamW over what trains; matrices decay, vectors and scalars (biases, norms, the scale) do not.

    ``peaks`` are peak learning rates by reported part, which each group holds as ``peak``; ``stage`` may set a weight
    decay of its own, by part.

    Raises:
        UnknownName: The stage names a part that the model has not.
    """
    decays = _by_part(model, None if stage is None else stage.weight_decay, spec.weight_decay, key="weight_decay")
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    trains = [(part_of(name), parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    for part, parameter in sorted(trains, key=lambda named: -min(named[1].ndim, 2)):
        # with fsdp scalars are the only ones not in pieces, and a group holds one sort
        decay = decays[part] if parameter.ndim >= 2 else 0.0
        groups.setdefault((peaks[part], decay, parameter.ndim == 0), []).append(parameter)
    made = [
        {"params": parameters, "weight_decay": decay, "lr": peak, "peak": peak}
        for (peak, decay, _), parameters in groups.items()
    ]
    return torch.optim.AdamW(made, lr=spec.lr, betas=spec.betas, eps=spec.eps)


def _by_part(
    model: nn.Module, given: float | Mapping[str, float] | None, usual: float, *, key: str
) -> dict[str, float]:
    names = part_names(model)
    if not isinstance(given, Mapping):
        return dict.fromkeys(names, usual if given is None else given)
    for name in given:
        if name not in names:
            raise UnknownName("part", name, allowed=names, hint=f"(key: stages.{key})")
    return {name: given.get(name, usual) for name in names}


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
