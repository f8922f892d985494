"""ImageNet's classes in image sets: which number a label stands for, and whether all are there."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from vlkit.data.names.imagenet import class_indices, class_numbers, english_lemmas, english_names, wordnet_ids
from vlkit.data.names.label_set import class_number
from vlkit.data.sources.classes.collection import ClassImages, Collection, numbers_of, sort_into_classes
from vlkit.data.sources.classes.find import find_images
from vlkit.errors import DataError, some

log = logging.getLogger(__name__)
_EACH = {"imagenet-1k": 50, "imagenet-v2": 10}  # images a class, where all have the same number


def imagenet_images(path: str, *, classes: str, labels_file: Path | None = None) -> ClassImages:
    """Images of ImageNet's 1000 classes, in any form that find_images knows.

    A label is a WordNet id or the number of a class (0..999, the order of the WordNet ids). Sets of fewer classes may
    number their own (0..199) in the order of the WordNet ids. Where a set brings the names of its numbers, they must be
    those of the same classes here. No class is ever inferred from the order of images.

    Args:
        path: See find_images.
        classes: The data set (``names.imagenet.class_indices``), each of whose classes must be there, or
            ``present`` for those that are. Other classes are an error.
        labels_file: See image_labels.read_image_labels.

    Raises:
        DataError: See find_images, or a label that is no such class, or a class without an image.
    """
    found = find_images(path, labels_file=labels_file, is_class=(_is_wordnet_id, _is_class), wordnet=True)
    _refuse_two_names(found)
    number_of = _numbers(found, classes)
    if classes != "present":
        _check_classes(found, set(number_of.values()), classes)
    images = sort_into_classes(
        found,
        lambda image: number_of[image.label],
        num_classes=len(wordnet_ids()),
        keys=wordnet_ids(),
        class_names=english_names(),
    )
    _check_counts(images, classes)
    return images


def _is_wordnet_id(name: str) -> bool:
    return name in class_numbers()


def _is_class(name: str) -> bool:
    return _number(name) >= 0


def _number(label: str) -> int:
    """The class of a WordNet id or written number, -1 for something else."""
    number = class_number(label)
    if number is not None:
        return number if number < len(wordnet_ids()) else -1
    return class_numbers().get(label, -1)


def _numbers(found: Collection, classes: str) -> dict[str | int, int]:
    written = numbers_of(found.labels)
    if written is not None and isinstance(found.labels[0], str) and not _is_whole_set(written.values(), classes):
        written = None  # folders are called as ImageNet numbers its classes
    if written is None:
        number_of: dict[str | int, int] = {label: _number(str(label)) for label in found.labels}
        if strange := [str(label) for label, number in number_of.items() if number < 0]:
            raise DataError(
                f"{found.where}: {some(strange)} name{'s' if len(strange) == 1 else ''} no ImageNet class; "
                f"folders are named by WordNet id (n01440764) or number (0 to {len(wordnet_ids()) - 1})"
            )
        return number_of
    own = _own_numbers(found, classes, max(written.values()))
    for image in found.images:
        if not 0 <= written[image.label] < len(own):
            raise DataError(f"{image.where}: label {image.label} is out of range; classes are 0 to {len(own) - 1}")
    _check_names(found, own)
    return {label: own[number] for label, number in written.items()}


def _is_whole_set(numbers: Iterable[int], classes: str) -> bool:
    """Whether a set has a folder for each of its classes, 0 to the last: then it numbers them itself."""
    return classes != "present" and set(numbers) == set(range(len(class_indices(classes))))


def _own_numbers(found: Collection, classes: str, highest: int) -> Sequence[int]:
    """The class of each number of the set."""
    everything = range(len(wordnet_ids()))
    if found.names and all(_number(name) >= 0 for name in found.names):
        return [_number(name) for name in found.names]  # its list of names holds WordNet ids
    if classes == "present":
        return everything
    wanted = class_indices(classes)
    # A set that has all its classes under ImageNet's numbers has higher ones than it has classes.
    return wanted if highest < len(wanted) else everything


def _check_names(found: Collection, own: Sequence[int]) -> None:
    """Refuses numbers whose names are those of other classes."""
    if not found.names or all(_number(name) >= 0 for name in found.names):
        return
    if len(found.names) != len(own):
        raise DataError(f"{found.where}: names {len(found.names)} classes, where {len(own)} are expected")
    called = [
        {english.casefold(), *(lemma.casefold() for lemma in lemmas)}
        for english, lemmas in zip(english_names(), english_lemmas(), strict=True)
    ]
    everything = set[str]().union(*called)
    first = [name.split(",")[0].strip().casefold() for name in found.names]
    wrong = [n for n, (name, place) in enumerate(zip(first, own, strict=True)) if name not in called[place]]
    if elsewhere := [number for number in wrong if first[number] in everything]:
        number = elsewhere[0]
        raise DataError(
            f"{found.where}: numbers its classes in another order: {number} is {found.names[number]!r} there, and "
            f"{english_names()[own[number]]!r} ({wordnet_ids()[own[number]]}) in the order of the WordNet ids "
            f"({len(elsewhere)} such classes)"
        )
    if len(wrong) > len(own) // 2:
        log.warning("%s: its names of classes are not ImageNet's, so their order could not be checked", found.where)


def _refuse_two_names(found: Collection) -> None:
    owner: dict[int, str] = {}
    for label in found.labels:
        if isinstance(label, str) and owner.setdefault(_number(label), label) != label and _number(label) >= 0:
            raise DataError(f"{found.where}: the folders {owner[_number(label)]} and {label} are of one class")


def _check_classes(found: Collection, there: set[int], classes: str) -> None:
    wanted = set(class_indices(classes))
    missing = [wordnet_ids()[number] for number in sorted(wanted - there)]
    foreign = [wordnet_ids()[number] for number in sorted(there - wanted)]
    if missing or foreign:
        faults = [f"{len(missing)} are missing: {some(missing)}"] if missing else []
        faults += [f"{len(foreign)} are not of it: {some(foreign)}"] if foreign else []
        raise DataError(
            f"{found.where}: of the {len(wanted)} classes of {classes}, {'; '.join(faults)} (classes: present takes "
            f"what is there)"
        )


def _check_counts(images: ClassImages, classes: str) -> None:
    counts, wanted = Counter(images.targets), _EACH.get(classes)
    odd = [f"{wordnet_ids()[number]} ({count})" for number, count in sorted(counts.items()) if count != wanted]
    if wanted is not None and odd:
        log.warning(
            "%s: %d of %d classes do not have the %d images that %s has of each: %s; scores are not those of all of it",
            images.where,
            len(odd),
            len(counts),
            wanted,
            classes,
            some(odd),
        )
