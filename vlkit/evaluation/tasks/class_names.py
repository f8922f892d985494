"""Names of a task's classes: which of them languages share, and which may be written to a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from vlkit.errors import DataError
from vlkit.evaluation.tasks.zero_shot_task import ZeroShotTask
from vlkit.files import write_atomic
from vlkit.spec.evaluation import ComparableSpec

FILE = "classnames.json"


@runtime_checkable
class NamesClasses(Protocol):
    """A task whose classes have names that can be written to a file (see ``ZeroShotTask``)."""

    name: str
    names: Mapping[str, Sequence[tuple[str, ...] | None]]
    notice: str
    private: bool


def comparable_tasks(task: ZeroShotTask, languages: Sequence[str], wanted: ComparableSpec) -> list[ZeroShotTask]:
    """The task, set to give the accuracy among fewer classes, and the task on shared classes where that is wanted.

    Raises:
        DataError: The languages share fewer than two classes that have images.
    """
    counts = {len(task.classes(tag)[0]) for tag in languages}
    size = (min(counts) if len(counts) > 1 else 0) if wanted.size == "smallest" else wanted.size or 0
    task = replace(task, subset_size=size if size > 1 else 0)
    return [task, shared_classes(task, languages)] if wanted.shared else [task]


def shared_classes(task: ZeroShotTask, languages: Sequence[str]) -> ZeroShotTask:
    """The task with just the classes that have a name in each of the languages, under their old numbers.

    Raises:
        DataError: The languages share fewer than two classes that have images.
    """
    shared = set(task.targets).intersection(*(task.classes(tag)[0] for tag in languages))
    if len(shared) < 2:
        counts = sorted((len(task.classes(tag)[0]), tag) for tag in languages)
        fewest = ", ".join(f"{tag} {count}" for count, tag in counts[:5])
        raise DataError(
            f"task {task.name!r}: its {len(languages)} languages share {len(shared)} classes, which leaves nothing to "
            f"tell apart; leave out languages that name few (fewest: {fewest}) or set comparable.shared=false"
        )
    names = {
        tag: tuple(each if number in shared else None for number, each in enumerate(task.names[tag]))
        for tag in languages
    }
    return replace(task, name=f"{task.name}-shared", names=names, subset_size=0)


def check_class_names(tasks: Iterable[object], *, own_use: bool = False) -> list[NamesClasses]:
    """The tasks with named classes, all of whose names may be written; to a private file with ``own_use``.

    Raises:
        DataError: The license of some names forbids copies, and ``own_use`` was not said.
    """
    found = [task for task in tasks if isinstance(task, NamesClasses)]
    for task in found:
        if task.private and not own_use:
            raise DataError(
                f"the class names of task {task.name!r} may not be passed on, so they are not written: {task.notice} "
                f"For a file that you keep to yourself, say --own-use as well"
            )
    return found


def write_class_names(folder: Path, tasks: Iterable[object], *, own_use: bool = False) -> tuple[Path, tuple[str, ...]]:
    """Writes ``classnames.json``: for each task origin and license, and by language the names of each class.

    Tasks without class names are left out. Gives the file, and the origins and licenses of the names in it.

    Raises:
        DataError: The license of some names forbids copies, and ``own_use`` was not said.
    """
    found = check_class_names(tasks, own_use=own_use)
    content = {
        task.name: {
            "notice": task.notice,
            "private": task.private,
            "names": {
                tag: {str(number): list(names) for number, names in enumerate(each) if names}
                for tag, each in task.names.items()
            },
        }
        for task in found
    }
    path = folder / FILE
    write_atomic(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    return path, tuple(dict.fromkeys(task.notice for task in found if task.notice))
