"""The images that a command line names: files, folders, archives, patterns and URLs."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlkit.errors import DataError
from vlkit.foreign import check_size
from vlkit.paths import is_pattern, local_path, matching, split_pattern
from vlkit.version import __version__

if TYPE_CHECKING:
    from PIL.Image import Image

_TIMEOUT = 30.0  # seconds without an answer
_ARCHIVES = (".tar", ".zip")


@dataclass(frozen=True)
class NamedImage:
    """An image that is read when it is opened, under the name it was given by."""

    name: str
    open: Callable[[], Image]


def find_images(arguments: Sequence[str]) -> tuple[list[NamedImage], dict[str, str]]:
    """The images in the order given, those of a folder by name; and what is wrong with arguments that name none.

    An image that is named twice is there twice.
    """
    found: list[NamedImage] = []
    problems: dict[str, str] = {}
    for argument in arguments:
        try:
            found += _images_of(argument)
        except DataError as error:
            problems[argument] = str(error)
    return found, problems


def _images_of(argument: str) -> Iterator[NamedImage]:
    from vlkit.data.formats.images import open_image

    if argument.startswith(("http://", "https://")):
        yield NamedImage(argument, lambda: open_image(_fetch(argument), name=argument))
    elif is_pattern(argument):
        matches = matching(*split_pattern(argument))
        if not matches:
            raise DataError(f"no file matches {argument}")
        for path in matches:
            if not path.is_dir():
                yield _file(str(path), path)
    elif (path := local_path(argument)).is_dir() or (path.suffix.lower() in _ARCHIVES and path.is_file()):
        yield from _inside(argument, path)
    else:
        yield _file(argument, path)


def _file(name: str, path: Path) -> NamedImage:
    from vlkit.data.formats.images import open_image

    return NamedImage(name, lambda: open_image(path, name=name))


def _inside(argument: str, path: Path) -> Iterator[NamedImage]:
    from vlkit.data.formats.archives import list_members
    from vlkit.data.formats.images import IMAGE_FILES

    members = [member for member in list_members(path) if member.is_image]
    if not members:
        endings = ", ".join(sorted(ending.removeprefix(".") for ending in IMAGE_FILES))
        raise DataError(f"{argument} holds no images (files that end in {endings})")
    for member in members:
        yield NamedImage(f"{argument.rstrip('/')}/{member.name}", member.image())


def _fetch(url: str) -> bytes:
    """What a URL gives.

    Raises:
        DataError: It cannot be had, or is larger than the limit.
    """
    request = urllib.request.Request(url, headers={"User-Agent": f"vlkit/{__version__}"})
    raw = bytearray()
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            while piece := answer.read(1 << 20):
                raw += piece
                check_size(len(raw), what=url)
    except urllib.error.HTTPError as error:
        raise DataError(f"cannot read image {url}: the server answers {error.code} {error.reason}") from None
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise DataError(f"cannot read image {url}: {reason}") from None
    return bytes(raw)
