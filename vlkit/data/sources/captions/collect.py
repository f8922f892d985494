"""From image names and captions to samples; all that is wrong is gathered and told at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL.Image import Image

from vlkit import languages
from vlkit.data.formats.images import LazyImage
from vlkit.data.names.label_set import raise_all
from vlkit.errors import DataError, UnknownName, counted
from vlkit.types import Sample

_SPLIT = "test"


class Collector:
    """Gathers the captions of images in the order in which both are told.

    Captions stay as they are, repeated ones too: published recalls count them all.

    Args:
        where: The file, for errors.
    """

    def __init__(self, where: Path) -> None:
        self.where = where
        self._problems: list[str] = []
        self._captions: dict[str, dict[str, tuple[str, ...]]] = {}
        self._codes: dict[str, str] = {}
        self._tags: dict[str, str | None] = {}

    def problem(self, text: str) -> None:
        """Notes what is wrong."""
        self._problems.append(text)

    def language(self, code: str, *, system: languages.System | None = None) -> str | None:
        """The BCP 47 tag of a code, or None (and a problem) for no language or a second code of the same one."""
        if code not in self._tags:
            self._tags[code] = self._tag(code, system)
        return self._tags[code]

    def _tag(self, code: str, system: languages.System | None) -> str | None:
        try:
            tag = languages.get(code, system=system).tag
        except UnknownName as error:
            self.problem(str(error))
            return None
        if (first := self._codes.setdefault(tag, code)) != code:
            self.problem(f"{first!r} and {code!r} are both {tag}; leave one out")
            return None
        return tag

    def image(self, name: Any, *, where: str) -> str | None:
        """The name of an image, or None (and a problem) for something else; ``where`` is its place, for errors."""
        if not isinstance(name, str) or not name.strip():
            self.problem(f"{where}: the image must be a file name, not {name!r}")
            return None
        self._captions.setdefault(name, {})
        return name

    def add(self, name: str, tag: str, texts: Any, *, where: str) -> None:
        """Takes the captions of an image in one language; none at all is no problem, a blank one is."""
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            self.problem(f"{where}: captions must be a list of texts, not {str(texts)[:60]!r}")
        elif not all(text.strip() for text in texts):
            self.problem(f"{where}: an empty caption")
        elif tag in self._captions[name]:
            self.problem(f"{where}: captions of {name!r} in {tag} for the second time")
        elif texts:
            self._captions[name][tag] = tuple(texts)

    def samples(self, images: Path, files: Mapping[str, str] | None = None) -> tuple[Sample, ...]:
        """The images with their captions.

        Args:
            images: The folder that names are relative to.
            files: The file of each image in that folder, where it is not called as the image is; what is not in it is
                missing.

        Raises:
            DataError: Problems have been noted, no captions, an image without any, or images that are not there.
        """
        self._check()
        if not images.is_dir():
            raise DataError(f"{images}: no such folder of images; images names the folder that {self.where} speaks of")
        paths = {name: images / file for name in self._captions if (file := name if files is None else files.get(name))}
        # Path.is_file raises where a name is too long
        if missing := [name for name in self._captions if name not in paths or not os.path.isfile(paths[name])]:  # noqa: PTH113
            raise DataError(
                f"{images}: {counted(missing)} of {len(self._captions)} images of {self.where} are not there; "
                f"names are relative to this folder"
            )
        return self.samples_of({name: LazyImage(path, str(path)) for name, path in paths.items()})

    def samples_of(self, images: Mapping[str, Callable[[], Image]]) -> tuple[Sample, ...]:
        """The same for images that lie elsewhere than in files of their own: by name, what decodes each."""
        self._check()
        return tuple(Sample(name, (images[name],), captions, split=_SPLIT) for name, captions in self._captions.items())

    def _check(self) -> None:
        raise_all(self._problems, where=str(self.where))
        if not any(self._captions.values()):
            raise DataError(f"{self.where}: there are no captions")
        if bare := [name for name, captions in self._captions.items() if not captions]:
            raise DataError(f"{self.where}: {counted(bare)} of {len(self._captions)} images without a caption")
