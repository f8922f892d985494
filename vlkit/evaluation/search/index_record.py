"""What an index of images says of itself on disk: which images, of which folder, embedded by which model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from vlkit.errors import DataError
from vlkit.files import write_atomic
from vlkit.foreign import read_json
from vlkit.version import __version__

RECORD = "index.json"
_FORMAT = 1


class IndexedImage(NamedTuple):
    """One image.

    ``state`` is that of the file it lies in (``files.file_state``); ``content`` is the key of its embedding.
    """

    content: int
    state: str


@dataclass(frozen=True)
class IndexRecord:
    """The file ``index.json``.

    Attributes:
        images_key: Digest of all of the model that decides an embedding: weights, precision, transform.
        model: What the model was called, as ``vlkit.load`` takes it; "" where that is not known.
        source: The folder or archive of the images, as an absolute path.
        images: By path inside of it, sorted.
    """

    images_key: str
    model: str
    source: Path
    images: Mapping[str, IndexedImage] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Writes it into the folder of the index, whole or not at all.

        Raises:
            VlkitError: The place cannot be written to.
        """
        content = {
            "format": _FORMAT,
            "vlkit": __version__,
            "model": self.model,
            "images_key": self.images_key,
            "source": str(self.source),
            # a tree that is moved with both of them in it keeps together
            "source_from_here": os.path.relpath(self.source, folder.absolute()),
            "images": {name: list(one) for name, one in self.images.items()},
        }
        write_atomic(folder / RECORD, json.dumps(content, ensure_ascii=False, indent=0) + "\n")


def read_record(folder: Path) -> IndexRecord:
    """What ``IndexRecord.write`` wrote; ``source`` is where the images lie by now, as far as that can be known.

    Raises:
        DataError: No index is there, it is damaged, or of another version.
    """
    path = folder / RECORD
    if not path.is_file():
        raise DataError(f"{folder} is no index of images (it has no {RECORD}); make one: vlkit index DIR --out INDEX")
    content = read_json(path, expected=dict)
    if content.get("format") != _FORMAT:
        raise DataError(
            f"{path} has format {content.get('format')!r}, and this version of vlkit reads {_FORMAT}; index the images "
            f"anew into another folder"
        )
    try:
        beside = (folder.absolute() / content["source_from_here"]).resolve()
        return IndexRecord(
            images_key=str(content["images_key"]),
            model=str(content["model"]),
            source=beside if beside.exists() else Path(content["source"]),
            images={name: IndexedImage(int(key), str(state)) for name, (key, state) in content["images"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({error}); delete it and index the images again") from None
