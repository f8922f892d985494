"""Which kinds of tasks there are: what a suite calls them, and the function that opens each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from vlkit.evaluation.tasks.task import Task
from vlkit.registry import Registry
from vlkit.spec.base import Spec

TASKS = Registry(
    "kind of task",
    {
        "retrieval": "vlkit.evaluation.tasks.retrieval_task:open_retrieval",
        "zero_shot": "vlkit.evaluation.tasks.open_zero_shot:open_zero_shot",
    },
)
"""Kind to a function of a task's spec and the languages asked for (None for all) that gives one task or several."""


def open_tasks(spec: Spec, languages: Iterable[str] | None) -> Sequence[Task]:
    """Finds the images and texts of a task; reads no image.

    Args:
        spec: Of the task, with its ``kind``.
        languages: BCP 47 tags or other codes; None takes all of the task.

    Raises:
        DataError: Files that are missing or wrong.
        UnknownName: A language that is none, or that the task does not have.
    """
    return cast("Sequence[Task]", TASKS.get_object(getattr(spec, "kind", ""))(spec, languages))
