"""Images sorted into one folder for each class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vlkit.data.images import LazyImage
from vlkit.data.tree import IMAGE_FILES
from vlkit.errors import DataError
from vlkit.evaluate.labelsets.imagenet import class_indices, wordnet_ids
from vlkit.types import Sample

_SHOWN = 5


@dataclass(frozen=True)
class ClassImages:
    """N images of K classes.

    Attributes:
        samples: The images, class by class, in each by name.
        targets: Class of each, 0..K-1.
        num_classes: K; classes may have no images.
    """

    samples: tuple[Sample, ...]
    targets: tuple[int, ...]
    num_classes: int

    @property
    def present(self) -> tuple[int, ...]:
        """The classes that have images, ascending."""
        return tuple(sorted(set(self.targets)))


def folder_names(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; hidden ones are left out.

    Raises:
        DataError: No such folder, or no folder in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of images")
    found = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not found:
        raise DataError(f"{folder}: has no folders; expected one for each class, with its images in it")
    return found


def numbered_folders(folder: Path) -> ClassImages:
    """Any folder of classes, which are numbered in the order of the names of their folders.

    Raises:
        DataError: No such folder, or a class without an image.
    """
    names = folder_names(folder)
    return _read(folder, {name: number for number, name in enumerate(names)}, num_classes=len(names))


def imagenet_folders(folder: Path, *, classes: str) -> ClassImages:
    """ImageNet's classes from folders named by WordNet id or by number (which may have leading zeros).

    Args:
        folder: Holds the folders.
        classes: The data set (``labelsets.imagenet.class_indices``), each of whose classes must be there, or
            ``present`` for those that are. Other classes are an error.

    Raises:
        DataError: A folder that names no such class, or a class that has no folder or no image.
    """
    names = folder_names(folder)
    place = {wnid: number for number, wnid in enumerate(wordnet_ids())}
    number_of = {name: int(name) if name.isdecimal() else place.get(name, -1) for name in names}
    strange = [name for name in names if not 0 <= number_of[name] < len(place)]
    if strange:
        raise DataError(
            f"{folder}: {_some(strange)} name{'s' if len(strange) == 1 else ''} no ImageNet class; "
            f"folders are named by WordNet id (n01440764) or number (0 to {len(place) - 1})"
        )
    if classes != "present":
        wanted, found = set(class_indices(classes)), set(number_of.values())
        missing = [wordnet_ids()[number] for number in sorted(wanted - found)]
        foreign = [wordnet_ids()[number] for number in sorted(found - wanted)]
        if missing or foreign:
            faults = [f"{len(missing)} are missing: {_some(missing)}"] if missing else []
            faults += [f"{len(foreign)} are not of it: {_some(foreign)}"] if foreign else []
            raise DataError(
                f"{folder}: of the {len(wanted)} classes of {classes}, {'; '.join(faults)} (classes: present takes "
                f"what is there)"
            )
    return _read(folder, number_of, num_classes=len(place))


def _read(folder: Path, number_of: Mapping[str, int], *, num_classes: int) -> ClassImages:
    samples: list[Sample] = []
    targets: list[int] = []
    owner: dict[int, str] = {}
    for name, number in sorted(number_of.items(), key=lambda pair: pair[1]):
        if owner.setdefault(number, name) != name:
            raise DataError(f"{folder}: the folders {owner[number]} and {name} are of one class")
        paths = sorted(
            path for path in (folder / name).rglob("*") if path.suffix.lower() in IMAGE_FILES and path.is_file()
        )
        if not paths:
            raise DataError(f"{folder / name}: has no image ({', '.join(sorted(IMAGE_FILES))})")
        for path in paths:
            key = path.relative_to(folder).as_posix()
            samples.append(Sample(key, LazyImage(path, str(path)), {}, concept=name, split="test"))
            targets.append(number)
    return ClassImages(tuple(samples), tuple(targets), num_classes)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
