"""What every form of an image set is read into, and the classes made of it."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from PIL.Image import Image

from vlkit.data.names.label_set import MOST_CLASSES, class_number
from vlkit.errors import DataError, some
from vlkit.foreign import clean
from vlkit.types import Sample

_log = logging.getLogger(__name__)
_PARTS = re.compile(r"(\d{1,18})")


@dataclass(frozen=True)
class LabelledImage:
    """One image.

    Attributes:
        label: Its class as written there (see read_label): a folder's name or a WordNet id; an int where classes are
            numbered by the data set.
        name: What it is called within its class; images of a class are ordered by it.
        image: Decodes it.
        where: File and member, for errors.
    """

    label: str | int
    name: str
    image: Callable[[], Image]
    where: str


@dataclass(frozen=True)
class Collection:
    """The images of one data set, in any order.

    Attributes:
        where: The file or folder, for errors.
        images: At least one; all labels are texts, or all are numbers.
        names: What the data set itself calls its classes 0, 1, ...; empty where it does not say.
    """

    where: str
    images: tuple[LabelledImage, ...]
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.images:
            raise DataError(f"{self.where}: no image")
        kinds = Counter(type(image.label) for image in self.images)
        if len(kinds) > 1:
            rare = kinds.most_common()[-1][0]
            odd = next(image for image in self.images if type(image.label) is rare)
            raise DataError(f"{odd.where}: label {odd.label!r}, where others are {kinds.most_common(1)[0][0].__name__}")

    @property
    def labels(self) -> list[str | int]:
        """The different labels, sorted."""
        return sorted({image.label for image in self.images}, key=lambda label: (isinstance(label, str), label))


@dataclass(frozen=True)
class ClassImages:
    """N images of K classes.

    Attributes:
        where: The file or folder, for errors.
        samples: The images, class by class, in each by name.
        targets: Class of each, 0..K-1.
        num_classes: K; classes may have no images.
        class_names: What the data set itself calls its K classes; empty where it only numbers them.
    """

    where: str
    samples: tuple[Sample, ...]
    targets: tuple[int, ...]
    num_classes: int
    class_names: tuple[str, ...] = ()

    @property
    def present(self) -> tuple[int, ...]:
        """The classes that have images, ascending."""
        return tuple(sorted(set(self.targets)))


def sort_into_classes(
    found: Collection,
    number_of: Callable[[LabelledImage], int],
    *,
    num_classes: int,
    keys: Sequence[str],
    class_names: Sequence[str] = (),
) -> ClassImages:
    """The images of a collection in the order that all forms of a set share: by class, then by name.

    Args:
        found: The collection.
        number_of: The class of an image, 0..num_classes-1; images of a number below 0 are left out.
        num_classes: K.
        keys: What a class is called in the keys of its samples (``KEY/NAME``), K of them.
        class_names: See ClassImages.

    Raises:
        DataError: Two images of one class with the same name.
    """
    numbered = [(number_of(image), image) for image in found.images]
    numbered = sorted((pair for pair in numbered if pair[0] >= 0), key=lambda pair: (pair[0], pair[1].name))
    samples = [
        Sample(f"{keys[number]}/{image.name}", (image.image,), {}, concept=keys[number], split="test")
        for number, image in numbered
    ]
    key, count = Counter(sample.key for sample in samples).most_common(1)[0]
    if count > 1:
        twice = [image.where for (_, image), sample in zip(numbered, samples, strict=True) if sample.key == key]
        raise DataError(f"{found.where}: the image {key} is there {count} times: {some(twice)}")
    return ClassImages(
        found.where, tuple(samples), tuple(number for number, _ in numbered), num_classes, tuple(class_names)
    )


def read_label(label: object, *, where: str) -> str | int:
    """A label as people mean it: a number, or a text in NFC without marks that nobody sees and blanks around it.

    Raises:
        DataError: Neither a number nor a text, an empty text, or one of half characters; ``where`` it stands.
    """
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise DataError(f"{where}: label {label!r} is neither a number nor a text")
    try:
        cleaned = clean(label) if isinstance(label, str) else label
    except DataError as error:
        raise DataError(f"{where}: its label holds {error}") from None
    if cleaned == "":
        raise DataError(f"{where}: the label {label!r} is empty")
    return cleaned


def numbers_of(labels: Iterable[str | int]) -> dict[str | int, int] | None:
    """The number of each label, where all are numbers of classes or written as such (``0``, ``10``, ``2``)."""
    numbers = {label: label if isinstance(label, int) else class_number(label) for label in labels}
    known = {label: number for label, number in numbers.items() if number is not None}
    return known if len(known) == len(numbers) else None


def any_classes(found: Collection) -> ClassImages:
    """The classes of any image set: numbered by it, or else in the order of their names.

    Names that are decimal numbers, all of them, are the numbers of the classes: ``2`` comes before ``10``.

    Raises:
        DataError: A number that its list of names does not reach, below 0, above a million, or written in two ways.
    """
    labels = found.labels
    numbered = numbers_of(labels)
    place = numbered or {label: count for count, label in enumerate(labels)}
    highest = len(found.names) - 1 if found.names else max(place.values())
    for image in found.images:
        if not 0 <= place[image.label] <= min(highest, MOST_CLASSES):
            said = (
                f"the classes are 0 to {highest}"
                if found.names
                else f"classes are numbered from 0 on, to {MOST_CLASSES:,}"
            )
            raise DataError(f"{image.where}: label {image.label} is out of range; {said}")
    names = found.names
    if not names and isinstance(labels[0], str):
        called: dict[int, str] = {}
        for label, number in place.items():
            if called.setdefault(number, str(label)) != label:
                raise DataError(f"{found.where}: {called[number]!r} and {label!r} are both class {number}; join them")
        if numbered and 0 not in called:
            _log.warning("%s: its classes begin with number %d; label files must count so", found.where, min(called))
        names = tuple(called.get(number, str(number)) for number in range(highest + 1))
    keys = names if len(set(names)) == len(names) > 0 else tuple(str(number) for number in range(highest + 1))
    return sort_into_classes(
        found, lambda image: place[image.label], num_classes=highest + 1, keys=keys, class_names=names
    )


def unclear_order(ordered: Sequence[str]) -> tuple[str, str] | None:
    """The first two of sorted texts that the numbers in them order otherwise (``c10`` before ``c2``), or None."""
    by_number = sorted(
        ordered, key=lambda name: [int(part) if part.isdecimal() else part for part in _PARTS.split(name)]
    )
    return next((pair for pair in zip(ordered, by_number, strict=True) if pair[0] != pair[1]), None)
