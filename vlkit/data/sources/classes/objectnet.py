"""ObjectNet (Barbu et al., NeurIPS 2019): those of its objects that are ImageNet classes.

Its license forbids to train on the images, and its authors ask to cut off the red border that marks each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from PIL.Image import Image

from vlkit.data.formats.text_files import read_json
from vlkit.data.names.imagenet import english_lemmas
from vlkit.data.names.label_set import LabelSet
from vlkit.data.sources.classes.collection import ClassImages, sort_into_classes
from vlkit.data.sources.classes.find import find_images
from vlkit.errors import DataError, some
from vlkit.paths import local_path

_FOLDERS = "folder_to_objectnet_label.json"
_CLASSES = "objectnet_to_imagenet_1k.json"


@dataclass(frozen=True)
class ObjectNet:
    """The images, and the ImageNet classes (0..999) of each of its objects."""

    images: ClassImages
    imagenet: tuple[tuple[int, ...], ...]

    def names_of(self, labels: LabelSet) -> LabelSet:
        """Names of ImageNet's classes as names of the objects.

        An object that is several ImageNet classes ("Bicycle": mountain bike, tandem) has the names of all of them that
        a language names. Its embedding is their mean, so that an answer stands for any of these classes.
        """
        named = {
            tag: {
                number: names
                for number, classes in enumerate(self.imagenet)
                if (names := tuple(dict.fromkeys(name for one in classes for name in of.get(one, ()))))
            }
            for tag, of in labels.names.items()
        }
        kept = {tag: names for tag, names in named.items() if names}
        return replace(labels, num_classes=len(self.imagenet), names=kept)


@dataclass(frozen=True)
class Cropped:
    """An image without ``border`` pixels on each side."""

    image: Callable[[], Image]
    border: int
    where: str

    def __call__(self) -> Image:
        """The inner part.

        Raises:
            DataError: Cannot be read, or has nothing but the border.
        """
        whole = self.image()
        if min(whole.size) <= 2 * self.border:
            raise DataError(f"{self.where}: {whole.width} x {whole.height} pixels are no more than its border")
        return whole.crop((self.border, self.border, whole.width - self.border, whole.height - self.border))


def read_objectnet(path: str, *, mappings: Path | None = None, border: int = 2) -> ObjectNet:
    """ObjectNet's images of objects that are ImageNet classes (113 in the release); the others are left out.

    Args:
        path: The release's folder (``objectnet-1.0``), or its ``images``: a folder for each object.
        mappings: The folder with ``folder_to_objectnet_label.json`` and ``objectnet_to_imagenet_1k.json``; None takes
            ``mappings`` in the release's folder.
        border: Pixels to cut off on each side.

    Raises:
        DataError: Files that are missing or wrong, a folder that is no object, or an object without images.
    """
    root = local_path(path)
    inside = root / "images"
    folder = mappings or next(
        (one for one in (root / "mappings", root.parent / "mappings") if one.is_dir()), root / "mappings"
    )
    label_of, classes_of = _texts(folder / _FOLDERS), _texts(folder / _CLASSES)
    found = find_images(str(inside) if inside.is_dir() else path, is_class=(label_of.__contains__,))
    if strange := [str(label) for label in found.labels if label not in label_of]:
        raise DataError(f"{found.where}: {some(strange)}: no such folder in {folder / _FOLDERS}")
    objects = sorted({label for label in label_of.values() if label in classes_of})
    if not objects:
        raise DataError(f"{folder}: no object of {_FOLDERS} is an ImageNet class in {_CLASSES}")
    place = {label: number for number, label in enumerate(objects)}
    imagenet = _imagenet_classes({label: classes_of[label] for label in objects}, folder / _CLASSES)
    images = sort_into_classes(
        found,
        lambda image: place.get(label_of[str(image.label)], -1),
        num_classes=len(objects),
        keys=objects,
        class_names=[label.lower() for label in objects],
    )
    if missing := [objects[number] for number in sorted(set(place.values()) - set(images.present))]:
        raise DataError(f"{found.where}: {len(missing)} of {len(objects)} objects have no images: {some(missing)}")
    samples = [replace(one, images=(Cropped(one.image, border, one.key),)) for one in images.samples]
    return ObjectNet(replace(images, samples=tuple(samples)), imagenet)


def _texts(path: Path) -> Mapping[str, str]:
    if not path.is_file():
        raise DataError(
            f"cannot read {path}: no such file or directory; mappings names the folder of the release that holds it"
        )
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(one, str) for one in content.values()):
        raise DataError(f"{path}: must map texts to texts")
    return content


def _imagenet_classes(names: Mapping[str, str], path: Path) -> tuple[tuple[int, ...], ...]:
    """``"analog clock; digital clock"``: each piece is all the WordNet lemmas of an ImageNet class."""
    place: dict[str, list[int]] = {}
    for number, lemmas in enumerate(english_lemmas()):
        place.setdefault(", ".join(lemmas).casefold(), []).append(number)
    found = []
    for label, text in names.items():
        pieces = [piece.strip() for piece in text.split(";") if piece.strip()]
        for piece in pieces:
            if len(place.get(piece.casefold(), ())) != 1:
                why = "two ImageNet classes are called so" if piece.casefold() in place else "no ImageNet class"
                raise DataError(f"{path}: {label!r} is {piece!r}: {why}")
        found.append(tuple(sorted(place[piece.casefold()][0] for piece in pieces)))
    return tuple(found)
