"""Paths as people write them: ``~``, patterns, and brackets that belong to the name of a file."""

from __future__ import annotations

import glob
import os
from os import PathLike
from pathlib import Path

from vlkit.errors import VlkitError

_SIGNS = "*?[{"


def local_path(path: str | PathLike[str]) -> Path:
    """The path meant: ``~`` and ``~/x`` lie in the home folder, ``./~`` is a folder of this name.

    Asked again about what it gave, it gives the same. Where ``~x`` is no user, it is a name like any other.

    Raises:
        VlkitError: It holds a zero byte, which no system takes.
    """
    if "\0" in os.fspath(path):
        raise VlkitError(f"{os.fspath(path)!r} cannot be a path: it holds a zero byte; take that out")
    found = Path(os.path.expanduser(path))  # noqa: PTH111 - pathlib takes ./~ for ~
    return Path.cwd() / found if str(found).startswith("~") else found


def local(path: str) -> str:
    """The same for text that is a path, pattern, URL or command: what does not begin with ``~`` stays as it is."""
    return str(local_path(path)) if path.startswith(("~", "./~")) else path


def split_pattern(pattern: str) -> tuple[Path, str]:
    """What of a pattern is there as it is written, and the rest, in which ``* ? [ ] { }`` are signs; "" for nothing.

    ``photos [1]/*.jpg`` is the folder ``photos [1]`` and ``*.jpg``, if that folder is there.
    """
    there = Path(os.sep if pattern.startswith(os.sep) else "")
    parts = local_path(pattern).parts
    for number, part in enumerate(parts):
        if not (there / part).exists():
            return there, "/".join(parts[number:])
        there /= part
    return there, ""


def is_pattern(path: str) -> bool:
    """Whether a path that is not there as it is written stands for several."""
    rest = split_pattern(path)[1]
    return any(sign in rest for sign in _SIGNS)


def matching(folder: Path, pattern: str) -> list[Path]:
    """The files and folders in ``folder`` that a glob pattern fits, sorted; ``**`` is any depth."""
    found = glob.glob(pattern, root_dir=folder, recursive=True)  # noqa: PTH207 - pathlib's takes no absolute ones
    return sorted(folder / match for match in found)
