"""A suite of tasks: opened and checked before a model is loaded, run, and written to a folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from vlkit import languages as language_table
from vlkit.data.names.imagenet import openai_templates
from vlkit.data.names.template_files import read_templates
from vlkit.data.sources.classes.open_classes import open_images
from vlkit.data.sources.combine import Subset
from vlkit.data.sources.open import open_source
from vlkit.errors import UnknownName, VlkitError
from vlkit.evaluation.tasks.class_names import comparable_tasks
from vlkit.evaluation.tasks.retrieval_task import RetrievalTask
from vlkit.evaluation.tasks.zero_shot_task import ZeroShotTask, captioned_task
from vlkit.files import write_atomic
from vlkit.prompts import check_template
from vlkit.spec import evaluation as spec
from vlkit.spec.load import dump_yaml, find_suite, resolve_spec
from vlkit.spec.sources import BuiltSource, FolderImages
from vlkit.types import Sample

Task: TypeAlias = ZeroShotTask | RetrievalTask
SETTINGS = "evaluation.yaml"
_WRITTEN = (
    "rows", "answers", "clip_benchmark", "results*.json", "results*.csv", "results.md", "templates.csv", "report*.html",
    "classnames.json",
)  # fmt: skip


@dataclass(frozen=True)
class Suite:
    """A suite whose files have been read.

    Attributes:
        spec: What was asked for.
        tasks: Its tasks, in their order.
        languages: BCP 47 tags of each task.
    """

    spec: spec.SuiteSpec
    tasks: tuple[Task, ...]
    languages: tuple[tuple[str, ...], ...]


def read_suite(path_or_name: str | Path, overrides: Sequence[str] = ()) -> spec.SuiteSpec:
    """Reads a suite.

    Args:
        path_or_name: A YAML file, or the name of a shipped suite (``openmoji``).
        overrides: ``key=value`` arguments with dotted keys, e.g. ``["languages=[de,no]"]``.

    Raises:
        SpecError: Something in it is wrong; the message lists every fault with its place.
        UnknownName: There is neither such a file nor such a shipped suite.
    """
    return resolve_spec(spec.SuiteSpec, find_suite(path_or_name), overrides).spec


def open_suite(suite: spec.SuiteSpec) -> Suite:
    """Finds the images and names of a suite; reads no image. Built data sets are built if need be.

    Raises:
        DataError: Files that are missing or wrong.
        UnknownName: A language that is none, or that a task does not have.
    """
    tasks: list[Task] = []
    languages: list[tuple[str, ...]] = []
    for one in suite.tasks:
        task = _task(one)
        tags = task.choose(suite.languages if one.languages is None else one.languages)
        made: list[Task] = [task]
        if isinstance(task, ZeroShotTask) and isinstance(one, spec.ZeroShotSpec):
            made = [*comparable_tasks(task, tags, one.comparable)]
        tasks += made
        languages += [tags] * len(made)
    names = [task.name for task in tasks]
    if taken := [name for name in names if names.count(name) > 1]:
        raise VlkitError(f"comparable.shared makes a task {taken[0]!r}, which the suite has already; rename that one")
    return Suite(suite, tuple(tasks), tuple(languages))


def _task(task: spec.ZeroShotSpec | spec.RetrievalSpec) -> Task:
    if isinstance(task, spec.RetrievalSpec):
        samples = _captioned(task)
        told = _tags(task.tokenizer_languages)
        return RetrievalTask(task.name, samples, captions=task.captions, gallery=task.gallery, tokenizer_languages=told)
    templates, told = _templates(task.templates), _tags(task.tokenizer_languages)
    if isinstance(task.images, spec.BuiltImages):
        source = open_source(BuiltSource(name=task.images.name, image_size=task.images.image_size))
        split = None if task.images.split == "all" else task.images.split
        return replace(captioned_task(task.name, source, split=split), templates=templates, tokenizer_languages=told)
    images, labels = open_images(task.images, task.labels)
    return ZeroShotTask(
        task.name,
        images.samples,
        {tag: labels.of(tag) for tag in labels.languages},
        images.targets,
        templates=templates,
        tokenizer_languages=told,
        notice=labels.notice,
        private=labels.private,
        known_titles=() if isinstance(task.images, FolderImages) and not labels.private else images.class_names,
    )


def _tags(languages: Mapping[str, str]) -> dict[str, str]:
    return {language_table.normalize(one): language_table.normalize(other) for one, other in languages.items()}


def _captioned(task: spec.RetrievalSpec) -> Sequence[Sample]:
    source = open_source(task.source)
    if task.split is not None:
        metas = [source.meta(index) for index in range(len(source))]
        if task.split not in (splits := {meta.split for meta in metas}):
            raise UnknownName(f"split in the data of task {task.name}", task.split, allowed=splits)
        source = Subset(source, [index for index, meta in enumerate(metas) if meta.split == task.split])
    return [source[index] for index in range(len(source))]


def _templates(templates: spec.TemplatesSpec) -> tuple[str, ...] | dict[str, tuple[str, ...]] | None:
    if isinstance(templates, spec.BareTemplates):
        return ("{}",)
    if isinstance(templates, spec.PackagedTemplates):
        return None
    if isinstance(templates, spec.EnglishTemplates):
        return openai_templates()
    if isinstance(templates, spec.ListedTemplates):
        for template in templates.texts:
            check_template(template)
        return templates.texts
    path = Path(templates.path).expanduser()
    found = read_templates(path, normalize_whitespace=templates.normalize_whitespace)
    return found | ({"en": openai_templates()} if templates.english == "openai" else {})


def claim(folder: Path, suite: spec.SuiteSpec, *, resume: bool, overwrite: bool) -> None:
    """Takes a folder for an evaluation; what is to be evaluated is written there.

    Embeddings of images stay where an evaluation is replaced: they are known by a digest of all that decides them.

    Raises:
        VlkitError: It holds something else, or an evaluation and neither ``resume`` nor ``overwrite`` was said, or one
            of other settings and ``resume`` was.
    """
    wanted, path = dump_yaml(suite), folder / SETTINGS
    if folder.exists() and not folder.is_dir():
        raise VlkitError(f"{folder} is a file; --out takes a folder")
    if path.is_file():
        if overwrite:
            _clear(folder)
        elif not resume:
            raise VlkitError(f"{folder} holds an evaluation; --resume goes on with it, --overwrite replaces it")
        elif path.read_text(encoding="utf-8") != wanted:
            raise VlkitError(
                f"{folder} holds an evaluation of other settings (see {path}); --overwrite replaces it, another --out "
                f"keeps both"
            )
    elif folder.is_dir() and any(not inside.name.startswith(".") for inside in folder.iterdir()):
        raise VlkitError(f"{folder} holds other files; --out takes a new folder")
    write_atomic(path, wanted)


def _clear(folder: Path) -> None:
    for pattern in _WRITTEN:
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
