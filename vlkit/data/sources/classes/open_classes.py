"""From the spec of an image set and of its labels to images, and names in many languages."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from vlkit import languages as language_table
from vlkit.data.names.imagenet import wordnet_ids
from vlkit.data.names.label_files import read_label_set
from vlkit.data.names.label_set import LabelSet
from vlkit.data.sources.classes.collection import ClassImages, any_classes, unclear_order
from vlkit.data.sources.classes.find import find_images
from vlkit.data.sources.classes.imagenet_images import imagenet_images
from vlkit.data.sources.classes.objectnet import ObjectNet, read_objectnet
from vlkit.data.sources.combine import SampleList
from vlkit.errors import DataError
from vlkit.obstacles import Obstacles
from vlkit.paths import local_path
from vlkit.spec import sources as spec

_log = logging.getLogger(__name__)


def captioned(images: ClassImages, labels: LabelSet) -> SampleList:
    """Images sorted into classes as samples to learn from; the names of its class are the captions of an image."""
    captions = [
        {tag: named[number] for tag, named in labels.names.items() if named.get(number)}
        for number in range(images.num_classes)
    ]
    pairs = zip(images.samples, images.targets, strict=True)
    return SampleList([replace(sample, captions=captions[number]) for sample, number in pairs])


def open_images(images: spec.NamedImages, labels: spec.OwnLabels | spec.LabelFiles) -> tuple[ClassImages, LabelSet]:
    """The images of a task and the names of the classes that have any; no image is read.

    Raises:
        DataError: Files that are missing or wrong.
    """
    obstacles, opened = Obstacles(), list[_Opened]()
    with obstacles.met():
        opened.append(_open(images))
    if not isinstance(labels, spec.LabelFiles):
        obstacles.refuse()
        ((found, _, _),) = opened
        language = images.language if isinstance(images, spec.FolderImages) else "en"
        return found, _own(found, language_table.normalize(language)).subset(found.present)
    read = list[tuple[Path, LabelSet]]()
    for path in map(local_path, labels.paths):
        with obstacles.met():  # files that are wrong are told beside images that are missing
            read.append((path, read_label_set(path, num_classes=opened[0].labels_for if opened else None)))
    obstacles.refuse()
    ((found, labels_for, objects),) = opened
    names = _merged(read, labels_for, found.where)
    if isinstance(images, spec.FolderImages):
        _check_count(found, names)
    names = names if objects is None else objects.names_of(names)
    return found, names.subset(found.present)


class _Opened(NamedTuple):
    images: ClassImages
    labels_for: int  # how many classes label files number
    objects: ObjectNet | None = None


def _open(images: spec.NamedImages) -> _Opened:
    if isinstance(images, spec.ObjectNetImages):
        objects = read_objectnet(images.path, mappings=_path(images.mappings), border=images.border)
        return _Opened(objects.images, len(wordnet_ids()), objects)
    if isinstance(images, spec.ImageNetImages):
        found = imagenet_images(images.path, classes=images.classes, labels_file=_path(images.labels_file))
    else:
        found = any_classes(find_images(images.path, labels_file=_path(images.labels_file)))
    return _Opened(found, found.num_classes)


def _check_count(images: ClassImages, labels: LabelSet) -> None:
    """Whether label files, which number the classes, count as the images do.

    Raises:
        DataError: One begins with 0 and the other with 1.
    """
    named = {number for names in labels.names.values() for number, each in names.items() if each}
    first, last = images.present[0], images.present[-1]
    if named and (first, min(named), max(named)) == (1, 0, last - 1):
        raise DataError(
            f"{images.where} has images of the classes 1 to {last}, and label file {labels.name!r} names the classes "
            f"0 to {last - 1}; let both begin with the same number"
        )
    by_text = images.class_names
    if by_text and list(by_text) == sorted(by_text) and (odd := unclear_order(by_text)):
        said = f"its classes are numbered in the order of their names as texts, {odd[0]!r} before {odd[1]!r}"
        _log.warning("%s: %s; label files must count so", images.where, said)


def _path(path: str | None) -> Path | None:
    return None if path is None else local_path(path)


def _own(images: ClassImages, language: str) -> LabelSet:
    if not images.class_names:
        raise DataError(
            f"{images.where}: its classes have numbers and no names; give label files (labels.kind=files), or "
            f"classnames.txt beside the shards"
        )
    named = {number: (" ".join(name.replace("_", " ").split()),) for number, name in enumerate(images.class_names)}
    return LabelSet("own", images.num_classes, {language: named})


def _merged(files: Sequence[tuple[Path, LabelSet]], num_classes: int, where: str) -> LabelSet:
    """The names of several label files; of a language that several have, those of the first."""
    for path, labels in files:
        if labels.num_classes != num_classes:
            raise DataError(
                f"label file {path} is for {labels.num_classes} classes, but {where} has {num_classes}; "
                f"take a file for these classes, or images of kind imagenet"
            )
    read = [labels for _, labels in files]
    names = {tag: one.names[tag] for one in reversed(read) for tag in one.languages}
    order = dict.fromkeys(tag for one in read for tag in one.languages)
    notice = "\n".join(dict.fromkeys(one.notice for one in read if one.notice))
    private = any(one.private for one in read)
    return LabelSet(read[0].name, num_classes, {tag: names[tag] for tag in order}, notice, private=private)
