"""Text files of retrieval sets: whole lines and JSON, with errors that name file and line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlkit.errors import DataError


def read_text(path: Path) -> str:
    """UTF-8 text, a byte order mark taken off; ``.gz`` is unpacked.

    Raises:
        DataError: Missing, damaged, or not UTF-8.
    """
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {path}: not UTF-8 text (byte {error.start})") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {(getattr(error, 'strerror', None) or str(error)).lower()}") from None


def read_lines(path: Path) -> list[str]:
    """The lines of a text, without the empty one after the last end; a carriage return stays.

    Raises:
        DataError: See read_text, or there are no lines.
    """
    text = read_text(path).removesuffix("\n")
    if not text:
        raise DataError(f"{path}: the file is empty")
    # Not splitlines: it also splits at U+2028 and its like, which captions hold.
    return text.split("\n")


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DataError: See read_text, or it is none.
    """
    return _object(read_text(path), where=str(path))


def read_objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """``file:line`` and object of each line of a JSONL file; blank lines are passed over.

    Raises:
        DataError: See read_lines, or a line is no object.
    """
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            where = f"{path}:{number}"
            yield where, _object(line, where=where)


def _object(text: str, *, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DataError(f"{where}: bad JSON: {error}") from None
    if not isinstance(found, dict):
        raise DataError(f"{where}: a JSON {type(found).__name__}, expected an object")
    return found
