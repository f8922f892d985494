"""A suite of tasks: opened and checked before a model is loaded, run, and written to a folder."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from vlkit.errors import VlkitError
from vlkit.evaluation.tasks.task import Task, left_out_notes
from vlkit.files import write_atomic
from vlkit.languages import normalize
from vlkit.obstacles import Obstacles
from vlkit.registry import Registry
from vlkit.spec.evaluation import SuiteSpec
from vlkit.spec.load import dump_yaml, find_suite, resolve_spec

log = logging.getLogger(__name__)
TASKS = Registry(
    "kind of task",
    {
        "captioning": "vlkit.evaluation.tasks.captioning_task:open_captioning",
        "choices": "vlkit.evaluation.tasks.choices_task:open_choices",
        "generation": "vlkit.evaluation.tasks.generation_task:open_generation",
        "linear_probe": "vlkit.evaluation.tasks.linear_probe_task:open_linear_probe",
        "presence": "vlkit.evaluation.tasks.presence_task:open_presence",
        "questions": "vlkit.evaluation.tasks.question_task:open_questions",
        "reconstruction": "vlkit.evaluation.tasks.reconstruction_task:open_reconstruction",
        "retrieval": "vlkit.evaluation.tasks.retrieval_task:open_retrieval",
        "zero_shot": "vlkit.evaluation.tasks.zero_shot_task:open_zero_shot",
    },
)
"""Kind of a task to what opens it: a function of its spec and the languages asked for (None for all) that finds images
and texts, reads no image, and gives one task or several."""
SETTINGS = "evaluation.yaml"
_WRITTEN = (
    "rows", "answers", "written", "examples", "drawn", "clip_benchmark", "results*.json", "results*.csv", "results.md",
    "templates.csv", "report*.html", "classnames.json", "compared",
)  # fmt: skip


@dataclass(frozen=True)
class Suite:
    """A suite whose files have been read: what was asked for, its tasks in order, and the BCP 47 tags of each task.

    ``notes`` are for those who read the results: languages that are left out, and why.
    """

    spec: SuiteSpec
    tasks: tuple[Task, ...]
    languages: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def read_suite(path_or_name: str | Path, overrides: Sequence[str] = ()) -> SuiteSpec:
    """Reads a suite from a YAML file, or a shipped one by name (``openmoji``).

    ``overrides`` are ``key=value`` arguments with dotted keys, e.g. ``["languages=[de,no]"]``.

    Raises:
        SpecError: Something in it is wrong; the message lists every fault with its place.
        UnknownName: There is neither such a file nor such a shipped suite.
    """
    return resolve_spec(SuiteSpec, find_suite(path_or_name), overrides).spec


def open_suite(suite: SuiteSpec) -> Suite:
    """Finds the images and texts of a suite; reads no image. Built data sets are built if need be.

    Raises:
        DataError: Files that are missing or wrong.
        UnknownName: A language that is none, or that a task does not have.
        VlkitError: Several of these, one line each.
    """
    tasks: list[Task] = []
    languages: list[tuple[str, ...]] = []
    notes: list[str] = []
    obstacles = Obstacles()
    asked = [suite.languages or (), *(one.languages or () for one in suite.tasks)]
    for tag in dict.fromkeys(chain.from_iterable(asked)):
        with obstacles.met():
            normalize(tag)
    for one in suite.tasks:
        wanted = suite.languages if one.languages is None else one.languages
        with obstacles.met():
            opened: Sequence[Task] = TASKS.get_object(getattr(one, "kind", ""))(one, wanted)
            languages += [task.choose(wanted) for task in opened]
            notes += [f"{task.name}: {note}" for task in opened for note in left_out_notes(task.left_out, wanted)]
            tasks += opened
    obstacles.refuse()
    names = [task.name for task in tasks]
    if taken := [name for name in names if names.count(name) > 1]:
        raise VlkitError(f"comparable.shared makes a task {taken[0]!r}, which the suite has already; rename that one")
    for note in notes:
        log.warning(note)
    return Suite(suite, tuple(tasks), tuple(languages), tuple(notes))


def check_free(folder: Path, suite: SuiteSpec, *, resume: bool, overwrite: bool) -> None:
    """Whether an evaluation may be written to a folder.

    Raises:
        VlkitError: It holds something else, or an evaluation and neither ``resume`` nor ``overwrite`` was said, or one
            of other settings and ``resume`` was.
    """
    path = folder / SETTINGS
    if folder.exists() and not folder.is_dir():
        raise VlkitError(f"{folder} is a file; --out takes a folder")
    if path.is_file() and not overwrite:
        if not resume:
            raise VlkitError(f"{folder} holds an evaluation; --resume goes on with it, --overwrite replaces it")
        if path.read_text(encoding="utf-8") != dump_yaml(suite):
            raise VlkitError(
                f"{folder} holds an evaluation of other settings (see {path}); --overwrite replaces it, another --out "
                f"keeps both"
            )
    if not path.is_file() and folder.is_dir() and any(not inside.name.startswith(".") for inside in folder.iterdir()):
        raise VlkitError(f"{folder} holds other files; --out takes a new folder")


def claim(folder: Path, suite: SuiteSpec, *, resume: bool, overwrite: bool) -> None:
    """Takes a folder for an evaluation, where ``check_free`` lets it; what is to be evaluated is written there.

    Embeddings of images stay where an evaluation is replaced: they are known by a digest of all that decides them.
    """
    check_free(folder, suite, resume=resume, overwrite=overwrite)
    if (folder / SETTINGS).is_file() and overwrite:
        for written in [inside for pattern in _WRITTEN for inside in folder.glob(pattern)]:
            if written.is_dir():
                shutil.rmtree(written)
            else:
                written.unlink()
    write_atomic(folder / SETTINGS, dump_yaml(suite))
