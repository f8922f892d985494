"""Names of a task's classes: which of them may be written to a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from vlkit.errors import DataError
from vlkit.files import write_atomic

FILE = "classnames.json"


@runtime_checkable
class NamesClasses(Protocol):
    """A task whose classes have names that can be written to a file (see ``ZeroShotTask``)."""

    name: str
    names: Mapping[str, Sequence[tuple[str, ...] | None]]
    notice: str
    private: bool


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
