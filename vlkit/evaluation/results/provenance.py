"""What was evaluated, in digests and figures: for the provenance of a results file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from torch import nn

from vlkit.evaluation.tasks.zero_shot_task import ZeroShotTask
from vlkit.files import digest


def model_facts(model: object) -> dict[str, Any]:
    """Number of parameters, and the precision that most of them are stored in; nothing for what is no torch module."""
    if not isinstance(model, nn.Module):
        return {}
    sizes: Counter[str] = Counter()
    for parameter in model.parameters():
        sizes[str(parameter.dtype).removeprefix("torch.")] += parameter.numel()
    if not sizes:
        return {"parameters": 0}
    return {"parameters": sum(sizes.values()), "precision": sizes.most_common(1)[0][0]}


def task_facts(tasks: Iterable[object]) -> dict[str, dict[str, str]]:
    """By task, hex digests of the class names and of the templates in all its languages; names alone are not in it."""
    found = [task for task in tasks if isinstance(task, ZeroShotTask)]
    return {
        "label_sets": {task.name: digest(task.names) for task in found},
        "template_sets": {task.name: digest({tag: task.templates_of(tag) for tag in task.names}) for task in found},
    }
