"""What lies in a folder, with all folders in it: links are followed, and what a system puts there is passed over."""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TypeVar

from vlkit.errors import DataError

T = TypeVar("T")
# of macOS, Windows, Synology, QNAP, ext4 and Python; compared without case
_SYSTEM = frozenset(
    ("__macosx", "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "thumbs.db",
     "desktop.ini", "system volume information", "lost+found", "__pycache__")
)  # fmt: skip
_STEPS = 40  # from link to link, as Linux allows


def is_hidden(name: str) -> bool:
    """Whether a path has a hidden part (``.ipynb_checkpoints``), or one that is no one's data (``@eaDir``)."""
    return any(
        (part.startswith(".") and part not in (".", "..")) or part.casefold() in _SYSTEM for part in name.split("/")
    )


def files_in(folder: Path, pattern: str) -> list[Path]:
    """What a pattern fits in a folder, sorted; hidden files are left out, as the ``._x.tar`` that macOS adds."""
    return sorted(path for path in folder.glob(pattern) if not is_hidden(path.name))


def walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name inside of ``folder``, with ``/``, and path of each file; hidden ones are left out.

    A link to a folder around itself is passed over. What a link names may be missing, where the link is called like a
    file; reading it then says so.

    Raises:
        DataError: A folder that may not be read, or a link without an ending to what is not there.
    """
    above = frozenset(_identity(parent) for parent in folder.resolve().parents)
    left = [("", folder, above)]
    while left:
        inside, here, around = left.pop()
        try:
            known = _identity(here)
            entries = [] if known in around else sorted(here.iterdir())
        except OSError as error:
            raise DataError(f"cannot read the folder {here}: {(error.strerror or str(error)).lower()}") from None
        for path in entries:
            name = inside + path.name
            if is_hidden(path.name):
                continue
            if path.is_dir():
                left.append((f"{name}/", path, around | {known}))
            elif path.is_file() or (path.is_symlink() and path.suffix):
                yield name, path
            elif path.is_symlink():
                raise DataError(f"{path}: a link to {path.readlink()}, which is not there; mend or remove the link")


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def follow(links: Mapping[str, str], there: Mapping[str, T]) -> tuple[dict[str, T], list[str]]:
    """The files of an archive that its links stand for, by the names they have through them; and the links to nothing.

    Args:
        links: Name -> target, relative to the link's folder.
        there: The files by name.
    """
    found: dict[str, T] = {}
    lost: list[str] = []
    names = sorted(there)
    for link in links:
        target = _target(link, links)
        if target is None:
            lost.append(link)
        elif target in there:
            found[link] = there[target]
        elif target != "." and not f"{link}/".startswith(f"{target}/"):  # those are around the link itself
            # "0" is the sign that comes after "/"
            below = names[bisect.bisect_left(names, f"{target}/") : bisect.bisect_left(names, f"{target}0")]
            found |= {link + name.removeprefix(target): there[name] for name in below}
            lost += [] if below else [link]
    return found, lost


def _target(link: str, links: Mapping[str, str]) -> str | None:
    """Where a link leads in the end, by name inside of the archive; None where that is outside, or a ring."""
    place = link
    for _ in range(_STEPS):
        parts = PurePosixPath(place).parts
        over = next((n for n in range(1, len(parts) + 1) if str(PurePosixPath(*parts[:n])) in links), None)
        if over is None:
            return place
        head = str(PurePosixPath(*parts[:over]))
        place = os.path.normpath("/".join((str(PurePosixPath(head).parent), links[head], *parts[over:])))
        if place.startswith(("..", "/")) or links[head].startswith("/"):
            return None
    return None
