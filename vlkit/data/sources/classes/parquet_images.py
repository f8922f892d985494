"""Image sets in parquet files as on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlkit.data.formats.images import StoredImage
from vlkit.data.formats.parquet import read_rows
from vlkit.data.sources.classes.collection import Collection, LabelledImage
from vlkit.errors import DataError

_IMAGES = ("image", "jpg", "webp", "png")
_LABELS = ("label", "cls")


def read_parquet(files: Sequence[Path]) -> Collection:
    """The rows of one or several files: ``image`` ``{bytes, path}`` and ``label``, a number or a text.

    ``jpg``, ``png`` or ``webp`` and ``cls`` (converted WebDataset shards) are read as well. Images are named by
    ``path`` where each has one of its own in its class, else by their row.

    Raises:
        MissingPackage: pyarrow is not installed.
        DataError: A file is missing or damaged, lacks a column, or numbers its classes otherwise than the first one.
    """
    listed: list[LabelledImage] = []
    names: tuple[str, ...] = ()
    for number, file in enumerate(files):
        rows = read_rows(file, images=_IMAGES, columns=[_LABELS])
        paths = rows.columns.get(f"{_IMAGES[0]}.path", [None] * len(rows.cells))
        own = tuple(str(name) for name in rows.features.get(_LABELS[0], {}).get("names") or ())
        if number and own != names:
            raise DataError(f"{file}: names its classes otherwise than {files[0]}; give files of one data set")
        names = own
        for row, (label, name, cell) in enumerate(zip(rows.columns[_LABELS[0]], paths, rows.cells, strict=True)):
            where = f"{file}: row {row}"
            if label is None or isinstance(label, bool) or not isinstance(label, str | int):
                raise DataError(f"{where}: label {label!r} is neither a number nor a text")
            listed.append(LabelledImage(label, str(name or ""), StoredImage(cell, where), where))
    called = {(image.label, image.name) for image in listed if image.name}
    if len(called) < len(listed):
        listed = [
            LabelledImage(image.label, f"row-{row:08d}", image.image, image.where) for row, image in enumerate(listed)
        ]
    return Collection(str(files[0]) if len(files) == 1 else str(files[0].parent), tuple(listed), names)
