"""Which files a set of questions has, language by language, in a release's folder or where a pattern says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from vlkit.data.formats.folders import is_hidden
from vlkit.errors import DataError

LANGUAGE = "{language}"
_CODE = r"([A-Za-z]+(?:-[A-Za-z0-9]+)*?)"
_AGAIN = r"\1"


def files_by_language(path: str, names: Sequence[str]) -> dict[str, list[Path]]:
    """Code of a language, as it stands in the names, to its files or folders, both sorted.

    Args:
        path: A pattern with ``{language}``, or a folder where the first of the ``names`` that fits anything is taken.
        names: Such patterns, relative to a folder.

    Raises:
        DataError: Nothing fits.
    """
    if LANGUAGE in path:
        found = _matching(path)
        if not found:
            raise DataError(f"{path}: no file fits; {LANGUAGE} stands for the code of a language")
        return found
    folder = Path(path)
    if not folder.is_dir():
        what = "no such folder" if not folder.exists() else "a single file does not say its language"
        raise DataError(f"{path}: {what}; give a folder with {_listed(names)}, or a pattern with {LANGUAGE}")
    for name in names:
        if found := _matching(f"{folder}/{name}"):
            return found
    raise DataError(
        f"{path}: has no {_listed(names)}; give their pattern with {LANGUAGE} where they are called otherwise"
    )


def files_of(path: str, names: Sequence[str]) -> list[Path]:
    """The files of a set that says the language of each question itself: one file, a pattern with ``*``, or a folder.

    Raises:
        DataError: Nothing fits.
    """
    given = Path(path)
    if given.is_file():
        return [given]
    patterns = [f"{given}/{name}" for name in names] if given.is_dir() else [path]
    for pattern in patterns:
        if found := sorted(one for one, _ in _glob(pattern)):
            return found
    fits = "no file fits" if "*" in path else "no such file or folder"
    where = f"has no {_listed(names)}" if given.is_dir() else fits
    raise DataError(f"{path}: {where}; give a file, a folder, or a pattern with *")


def _matching(pattern: str) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path, code in sorted(_glob(pattern)):
        found.setdefault(code, []).append(path)
    return found


def _glob(pattern: str) -> list[tuple[Path, str]]:
    """What a pattern fits, with the code of the language in it ("" without one)."""
    parts = Path(pattern).parts
    free = [number for number, part in enumerate(parts) if LANGUAGE in part or "*" in part]
    if not free:
        return [(Path(pattern), "")] if Path(pattern).exists() else []
    root = Path(*parts[: free[0]])
    wanted = "/".join(parts[free[0] :])
    pieces = (re.escape(piece).replace(r"\*", "[^/]*") for piece in wanted.split(LANGUAGE))
    shape = re.compile(
        next(pieces) + "".join(f"{_AGAIN if number else _CODE}{one}" for number, one in enumerate(pieces))
    )
    found = []
    for path in root.glob(wanted.replace(LANGUAGE, "*")):
        name = path.relative_to(root).as_posix()
        fits = None if is_hidden(name) else shape.fullmatch(name)
        if fits:
            found.append((path, fits[1] if shape.groups else ""))
    return found


def _listed(names: Sequence[str]) -> str:
    return " or ".join(names)
