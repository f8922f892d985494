"""Opens zero-shot tasks of a suite: finds images, names of classes and templates, without reading an image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from vlkit.data.names.imagenet import openai_templates
from vlkit.data.names.template_files import read_templates
from vlkit.data.sources.classes.open_classes import open_images
from vlkit.data.sources.open import open_source
from vlkit.evaluation.tasks.class_names import comparable_tasks
from vlkit.evaluation.tasks.zero_shot_task import ZeroShotTask, captioned_task
from vlkit.paths import local_path
from vlkit.prompts import check_template
from vlkit.spec import evaluation as spec
from vlkit.spec.sources import BuiltSource, FolderImages


def open_zero_shot(task: spec.ZeroShotSpec, languages: Iterable[str] | None) -> list[ZeroShotTask]:
    """The task, and the one on classes that all languages (None for all it has) share where that is wanted.

    Raises:
        DataError: Files that are missing or wrong, or languages that share fewer than two classes.
        UnknownName: A language that is none, or that the task does not have.
    """
    opened = _named_images(task)
    return comparable_tasks(opened, opened.choose(languages), task.comparable)


def _named_images(task: spec.ZeroShotSpec) -> ZeroShotTask:
    templates = _templates(task.templates)
    if isinstance(task.images, spec.BuiltImages):
        source = open_source(BuiltSource(name=task.images.name, image_size=task.images.image_size))
        split = None if task.images.split == "all" else task.images.split
        opened = captioned_task(task.name, source, split=split)
        return replace(opened, templates=templates, tokenizer_languages=task.told, per_template=task.per_template)
    images, labels = open_images(task.images, task.labels)
    return ZeroShotTask(
        task.name,
        images.samples,
        {tag: labels.of(tag) for tag in labels.languages},
        images.targets,
        templates=templates,
        tokenizer_languages=task.told,
        notice=labels.notice,
        private=labels.private,
        known_titles=() if isinstance(task.images, FolderImages) and not labels.private else images.class_names,
        per_template=task.per_template,
    )


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
    path = local_path(templates.path)
    found = read_templates(path, normalize_whitespace=templates.normalize_whitespace)
    return found | ({"en": openai_templates()} if templates.english == "openai" else {})
