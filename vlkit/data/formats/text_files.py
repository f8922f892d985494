"""Text files of data sets: lines, JSON and tables, with errors that name file and line."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlkit.errors import DataError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""Of tables, by the ending of their file."""
TABLES = (".jsonl", *DELIMITERS)
"""Endings of the tables that read_table knows."""


def read_text(path: Path, *, what: str = "") -> str:
    """UTF-8 text, a byte order mark taken off; ``.gz`` is unpacked. ``what`` it is stands in errors ("label file ").

    Raises:
        DataError: Missing, damaged, or not UTF-8.
    """
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {what}{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"cannot read {what}{path}: {reason.lower()}") from None


def read_lines(path: Path, *, may_be_cut: bool = False) -> list[str]:
    """The lines of a text, without the empty one after the last end; a carriage return stays.

    With ``may_be_cut`` a last line without its end, as a kill leaves it, is left out.

    Raises:
        DataError: See read_text, or there are no lines.
    """
    text = read_text(path)
    text = (text[: text.rfind("\n") + 1] if may_be_cut else text).removesuffix("\n")
    if not text:
        raise DataError(f"{path}: the file is empty")
    # Not splitlines: it also splits at U+2028 and its like, which captions hold.
    return text.split("\n")


def read_json(path: Path, *, what: str = "") -> Any:
    """Any JSON value; see read_text.

    Raises:
        DataError: See read_text, or it is no JSON.
    """
    try:
        return json.loads(read_text(path, what=what))
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{what}{path} is not JSON: {error}") from None


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DataError: See read_text, or it is none.
    """
    return _object(read_text(path), where=str(path))


def read_objects(path: Path, *, may_be_cut: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """``file:line`` and object of each line of a JSONL file; blank lines are passed over.

    Raises:
        DataError: See read_lines, or a line is no object.
    """
    for number, line in enumerate(read_lines(path, may_be_cut=may_be_cut), start=1):
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


def read_table(
    path: Path, *, header: Callable[[Sequence[str]], None] | None = None
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line number (from 1) and content of each row of a JSONL, CSV or TSV table.

    ``header`` is called with the columns of a CSV or TSV before its rows, and raises where one is missing.

    Raises:
        DataError: Missing, of another form, or a line of it is wrong.
    """
    if path.suffix.lower() not in TABLES:
        raise DataError(f"{path}: a table must be one of {', '.join(TABLES)}")
    try:
        # utf-8-sig: spreadsheets put a byte order mark before the first column name.
        with path.open(encoding="utf-8-sig", newline="") as stream:
            if path.suffix.lower() in DELIMITERS:
                yield from _rows(path, stream, header)
                return
            for line, text in enumerate(stream, start=1):  # not read_objects: tables of pairs can be large
                if text.strip():
                    yield line, _object(text, where=f"{path}:{line}")
    except FileNotFoundError:
        raise DataError(f"{path}: no such table") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def _rows(
    path: Path, stream: Iterable[str], header: Callable[[Sequence[str]], None] | None
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(stream, delimiter=DELIMITERS[path.suffix.lower()], strict=True)
    try:
        columns = reader.fieldnames or []
        if not columns:
            raise DataError(f"{path}: the table is empty")
        if header is not None:
            header(columns)
        for record in reader:
            if None in record or None in record.values():
                found = len(columns) + len(record.get(None) or []) - sum(value is None for value in record.values())
                raise DataError(f"{path}:{reader.line_num}: {found} columns, the header has {len(columns)}")
            yield reader.line_num, record
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: {error}") from None
