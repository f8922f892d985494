"""Text files of data sets: lines, JSON and tables, with errors that name file, line and column."""

from __future__ import annotations

import csv
import gzip
import io
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from vlkit.errors import DataError
from vlkit.foreign import check_size, clean, inflate, limit, parse_json

DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""Of tables, by the ending of their file."""
TABLES = (".jsonl", *DELIMITERS)
"""Endings of the tables that read_table knows."""
_GZIP = 16 + zlib.MAX_WBITS


def read_text(path: Path, *, what: str = "") -> str:
    """UTF-8 text, a byte order mark taken off; ``.gz`` is unpacked. ``what`` it is stands in errors ("label file ").

    Raises:
        DataError: Missing, damaged, above the limit of memory, or not UTF-8.
    """
    try:
        check_size(path.stat().st_size, what=f"{what}{path}")
        raw = path.read_bytes()
        return (_gunzip(raw, f"{what}{path}") if path.suffix == ".gz" else raw).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {what}{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"cannot read {what}{path}: {reason.lower()}") from None


def _gunzip(raw: bytes, what: str) -> bytes:
    if raw[:2] != b"\x1f\x8b":
        raise gzip.BadGzipFile(f"not a gzipped file ({raw[:2]!r})")
    return inflate(raw, what=what, wbits=_GZIP)


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


def read_json(path: Path, *, what: str = "", expected: type | None = None) -> Any:
    """Any JSON value; see read_text.

    Raises:
        DataError: See read_text and vlkit.foreign.parse_json.
    """
    return parse_json(read_text(path, what=what), where=f"{what}{path}", expected=expected)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DataError: See read_text, or it is none.
    """
    found: dict[str, Any] = read_json(path, expected=dict)
    return found


def read_objects(path: Path, *, may_be_cut: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """``file:line`` and object of each line of a JSONL file; blank lines are passed over.

    Raises:
        DataError: See read_lines, or a line is no object.
    """
    for number, line in enumerate(read_lines(path, may_be_cut=may_be_cut), start=1):
        if line.strip():
            where = f"{path}:{number}"
            yield where, parse_json(line, where=where, expected=dict)


def read_table(
    path: Path, *, header: Callable[[Sequence[str]], None] | None = None
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line number (from 1) and content of each row of a JSONL, CSV or TSV table.

    ``header`` is called with the columns of a CSV or TSV before its rows, and raises where one is missing.

    Raises:
        DataError: Missing, of another form, or a line of it is wrong: it names file, line and column.
    """
    suffix = path.suffix.lower()
    if suffix not in TABLES:
        raise DataError(f"{path}: a table must be one of {', '.join(TABLES)}")
    try:
        # utf-8-sig: spreadsheets put a byte order mark before the first column name.
        with path.open(encoding="utf-8-sig", newline="") as stream:
            if suffix in DELIMITERS:
                delimiter = delimiter_of(stream.readline(limit()), path)
                stream.seek(0)
                yield from _records(path, read_cells(_bounded(stream, path), path, delimiter=delimiter), header)
                return
            # not read_objects: tables of pairs can be large
            for line, text in enumerate(_bounded(stream, path), start=1):
                if text.strip():
                    yield line, parse_json(text, where=f"{path}:{line}", expected=dict)
    except FileNotFoundError:
        raise DataError(f"{path}: no such table") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def delimiter_of(header: str, path: Path) -> str:
    """What parts the cells of a table: what its ending says, or else what its first line has.

    Excel writes .csv with semicolons where decimals have commas, and open_clip's .csv have tabs.
    """
    usual = DELIMITERS[path.suffix.lower()]
    return next((one for one in (usual, "\t", ";") if one in header), usual)


def read_cells(text: str | Iterable[str], path: Path, *, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    r"""Number of the first line and cells of each row of a table with commas, tabs or semicolons, but for blank lines.

    Between commas and semicolons, a cell may stand in quotes as in RFC 4180, and then hold these, line ends and doubled
    quotes.
    Between tabs a row is a line, and quotes are text unless they stand around a whole cell.

    Args:
        text: The table, or its lines with their ends.
        path: What it is called in errors.
        delimiter: ``,``, ``;`` or ``\t``.

    Raises:
        DataError: A quote that is not closed, or closed inside a cell.
    """
    lines = io.StringIO(text, newline="") if isinstance(text, str) else text
    if delimiter == "\t":
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, [_unquoted(cell) for cell in line.rstrip("\r\n").split("\t")]
        return
    row: list[str] = []
    reader = csv.reader(_noted(lines, row), delimiter=delimiter, strict=True)
    while True:
        first = reader.line_num + 1
        row.clear()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "field limit" in str(error):
                raise DataError(f"{path}:{first}: {_too_long(row, delimiter)}") from None
            reason = "a quote is opened here and not closed" if "unexpected end" in str(error) else str(error)
            raise DataError(f"{path}:{first}: {reason}; a quote inside of a quoted cell is doubled") from None
        if any(cell.strip() for cell in cells):
            yield first, cells


def _bounded(stream: TextIO, path: Path) -> Iterator[str]:
    """The lines of a file, none of which may take more memory than the limit."""
    most, number = limit(), 0
    while text := stream.readline(most + 1):
        number += 1
        check_size(len(text), what=f"{path}:{number}, one line")
        yield text


def _noted(lines: Iterable[str], row: list[str]) -> Iterator[str]:
    for line in lines:
        row.append(line)
        yield line


def _too_long(row: Iterable[str], delimiter: str) -> str:
    """What to say of a row, as far as it was read, with a cell that is longer than Python's csv takes."""
    most = csv.field_size_limit(sys.maxsize)  # for what comes next: the row was read already
    try:
        lengths = [len(cell) for cells in csv.reader(row, delimiter=delimiter) for cell in cells]
    finally:
        csv.field_size_limit(most)
    column = next((number for number, length in enumerate(lengths, start=1) if length > most), len(lengths))
    return (
        f"column {column}: a cell of more than {most:,} characters; close the quote where one was left open, or "
        f"shorten the cell, or write the table as .jsonl"
    )


def _unquoted(cell: str) -> str:
    inner = cell[1:-1] if len(cell) > 1 and cell[0] == cell[-1] == '"' else '"'
    return cell if '"' in inner.replace('""', "") else inner.replace('""', '"')


def _records(
    path: Path, rows: Iterable[tuple[int, list[str]]], header: Callable[[Sequence[str]], None] | None
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows by the names in the first one; columns without a name must be empty, or the first one and count rows."""
    columns: list[str] = []
    for line, cells in rows:
        if not columns:
            columns = [" ".join(clean(cell).split()) for cell in cells]
            counts = Counter(name.casefold() for name in columns if name)
            if twice := [name for name in columns if counts[name.casefold()] > 1]:
                raise DataError(f"{path}:{line}: the column {twice[-1]!r} is there twice; name each otherwise")
            if header is not None:
                header([name for name in columns if name])
            continue
        if len(cells) != len(columns):
            hint = "; a cell with a comma needs quotes around it" if len(cells) > len(columns) else ""
            raise DataError(f"{path}:{line}: {len(cells)} columns, the header has {len(columns)}{hint}")
        is_count = cells[0].strip().isdecimal()  # pandas and R count rows in a first column without a name
        nameless = [number for number, name in enumerate(columns) if not name and cells[number].strip()]
        if nameless := nameless[1:] if nameless[:1] == [0] and is_count else nameless:
            number = nameless[0]
            raise DataError(f"{path}:{line}: {cells[number]!r} stands in column {number + 1}, which has no name")
        yield line, {name: cell for name, cell in zip(columns, cells, strict=True) if name}
    if not columns:
        raise DataError(f"{path}: the table is empty")
