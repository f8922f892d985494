"""What tasks ask about: images with their captions, what is asked in which language, and who shares a concept."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlkit import languages as language_table
from vlkit.data.sources.classes.open_classes import captioned, open_images
from vlkit.data.sources.combine import SampleList, identities
from vlkit.data.sources.open import open_source
from vlkit.errors import DataError, UnknownName
from vlkit.image_prompts import QUESTION, question_prompts
from vlkit.spec.evaluation import AskingSpec, NamingSpec, PresenceSpec
from vlkit.spec.sources import ImageClasses
from vlkit.types import Sample, Source

THING = "{thing}"
"""Stands in a question where the name of what is asked for belongs."""


@dataclass(frozen=True)
class Pictures:
    """The images of a task, and the captions of all that its source holds, which are more where it has splits.

    Attributes:
        samples: Those that are asked about.
        known: Language (BCP 47) to all captions that there are in it.
        every: All images of the split with captions, of which ``samples`` may be some.
        private: The license forbids copies of the captions: they are written to no file.
    """

    samples: tuple[Sample, ...]
    known: Mapping[str, tuple[str, ...]]
    private: bool = False
    every: tuple[Sample, ...] = ()


def open_pictures(task: AskingSpec) -> Pictures:
    """Finds the images and captions of a task; reads no image.

    Raises:
        DataError: Files that are missing or wrong, or no image has a caption.
        UnknownName: No such split.
    """
    source, private = _opened(task)
    every = [source[index] for index in range(len(source))]
    known: dict[str, dict[str, None]] = {}
    for sample in every:
        for tag, texts in sample.captions.items():
            known.setdefault(tag, {}).update(dict.fromkeys(texts))
    if task.split is not None and task.split not in (splits := {sample.split for sample in every}):
        raise UnknownName(f"split in the data of task {task.name}", task.split, allowed=splits)
    samples = [
        sample
        for sample in every
        if sample.images and any(sample.captions.values()) and task.split in (None, sample.split)
    ]
    if not samples:
        raise DataError(f"task {task.name!r} has no image with a caption")
    by_language = {tag: tuple(texts) for tag, texts in known.items()}
    return Pictures(tuple(some_of(samples, task.limit)), by_language, private, tuple(samples))


def _opened(task: AskingSpec) -> tuple[Source, bool]:
    if isinstance(task.source, ImageClasses):
        images, labels = open_images(task.source.images, task.source.labels)
        return captioned(images, labels), labels.private
    return open_source(task.source), False


def some_of(samples: Sequence[Sample], limit: int | None) -> list[Sample]:
    """So many samples, by a stable hash of their keys, in their order; all of them for None."""
    chosen = sorted(range(len(samples)), key=lambda row: hashlib.sha256(samples[row].key.encode()).digest())[:limit]
    return [samples[row] for row in sorted(chosen)]


def prompts_for(task: NamingSpec | PresenceSpec, languages: Iterable[str]) -> dict[str, str]:
    """What is asked in each language (BCP 47), its slots filled but for ``THING``.

    Raises:
        DataError: The task's templates leave a language out.
        UnknownName: They name one that is none.
    """
    given = task.template
    if isinstance(given, str):
        return {tag: _filled(given, tag) for tag in languages}
    if given is None:
        asks = "presence" if isinstance(task, PresenceSpec) else task.asks
        own = {tag: question_prompts(asks, tag, wording=task.wording)[0] for tag in languages}
        return {tag: text.replace(QUESTION, THING) for tag, text in own.items()}
    templates = {language_table.normalize(tag): text for tag, text in given.items()}
    if missing := [tag for tag in languages if tag not in templates]:
        raise DataError(
            f"task {task.name!r}: template has none for {', '.join(missing)}; add them, leave these languages out, or "
            f"give one template with {{language}}"
        )
    return {tag: _filled(templates[tag], tag) for tag in languages}


def _filled(template: str, tag: str) -> str:
    row = language_table.get(tag)
    return template.replace("{language}", row.name).replace("{autonym}", row.autonym)


def asked_in(samples: Sequence[Sample], prompts: Collection[str] | None = None) -> tuple[str, ...]:
    """BCP 47 tags with captions and a prompt (None: any), in the order in which they first occur."""
    found = (tag for sample in samples for tag, texts in sample.captions.items() if texts)
    return tuple(tag for tag in dict.fromkeys(found) if prompts is None or tag in prompts)


def concepts(samples: Sequence[Sample]) -> tuple[int, ...]:
    """A number for each sample, which those of one concept share; without a concept each is one of its own."""
    numbers: dict[str, int] = {}
    return tuple(numbers.setdefault(shown, len(numbers)) for shown in identities(SampleList(samples)))


def others(classes: Sequence[int], *, seed: int) -> npt.NDArray[np.int64] | None:
    """For each of N images another one, of another concept, each taken once; None where one concept has over half.

    Images are put into the order of their concepts, these at random, and each takes the one that stands as many places
    further on as the largest concept has images.
    """
    class_N = np.asarray(classes)
    _, ids_N, count_C = np.unique(class_N, return_inverse=True, return_counts=True)
    most = int(count_C.max(initial=0))
    if 2 * most > len(class_N):
        return None
    place_C = np.random.default_rng(seed).permutation(len(count_C))
    order = np.argsort(place_C[ids_N], kind="stable")
    other_N = np.empty(len(class_N), dtype=np.int64)
    other_N[order] = np.roll(order, -most)
    return other_N
