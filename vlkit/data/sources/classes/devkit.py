"""ILSVRC ids of ImageNet's development kit, read from its ``meta.mat`` without a library for MATLAB files.

The file is a Level 5 MAT-file ("MAT-File Format", The MathWorks): elements of type, size and content, which may be
compressed. Only what ``synsets`` of the kit needs is read: one array of structures with numbers and texts.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from vlkit.errors import DataError

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_STRUCT, _CHAR = 2, 4  # classes of arrays
_NUMBERS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
_TEXTS = {1: "latin-1", 2: "latin-1", 16: "utf-8"}  # beside 4 and 17: UTF-16 in the file's byte order
_CLASSES = 1000


def synsets_of_ids(path: Path) -> dict[int, str]:
    """ILSVRC id (1..1000) -> WordNet id, from ``meta.mat`` of the ILSVRC2012 development kit.

    Raises:
        DataError: Missing, or not such a file.
    """
    try:
        rows = _structures(path.read_bytes(), "synsets")
        pairs = [(int(float(row["ILSVRC2012_ID"])), str(row["WNID"])) for row in rows]
    except OSError as error:
        raise DataError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
    except (ValueError, KeyError, IndexError, struct.error, zlib.error) as error:
        raise DataError(
            f"cannot read {path}: not the meta.mat of ImageNet's development kit ({error}); give a file with one "
            f"WordNet id a line instead"
        ) from None
    found = {number: wnid for number, wnid in pairs if 1 <= number <= _CLASSES}
    if not found:
        raise DataError(f"{path}: has no ILSVRC id from 1 to {_CLASSES}")
    return found


def _structures(raw: bytes, name: str) -> list[dict[str, str]]:
    if len(raw) <= _HEADER or raw[126:128] not in (b"IM", b"MI"):
        raise ValueError("no header of a Level 5 MAT-file")
    order = "<" if raw[126:128] == b"IM" else ">"
    for kind, content in _elements(raw[_HEADER:], order):
        if kind == _COMPRESSED:
            kind, content = next(_elements(zlib.decompress(content), order))
        if kind == _MATRIX:
            parts = list(_elements(content, order))
            if parts[0][1][_class_byte(order)] == _STRUCT and parts[2][1] == name.encode():
                return _rows(parts, order)
    raise ValueError(f"no array of structures {name!r}")


def _elements(raw: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and content of each data element."""
    place = 0
    while place + 8 <= len(raw):
        first, size = struct.unpack_from(f"{order}II", raw, place)
        if first >> 16:  # a small element: size and type share a word, the content fills the next one
            yield first & 0xFFFF, raw[place + 4 : place + 4 + (first >> 16)]
            place += 8
            continue
        content = raw[place + 8 : place + 8 + size]
        if len(content) < size:
            raise ValueError(f"it breaks off after {len(raw):,} bytes")
        yield first, content
        place += 8 + (size if first == _COMPRESSED else -(-size // 8) * 8)


def _rows(parts: list[tuple[int, bytes]], order: str) -> list[dict[str, str]]:
    # flags, dimensions, name, length of a field's name, names of the fields, then the fields of one row after another
    (width,) = struct.unpack(f"{order}i", parts[3][1])
    names = parts[4][1]
    fields = [names[start : start + width].rstrip(b"\0").decode() for start in range(0, len(names), width)]
    cells = [_cell(content, order) for _, content in parts[5:]]
    return [
        dict(zip(fields, cells[start : start + len(fields)], strict=True))
        for start in range(0, len(cells), len(fields))
    ]


def _cell(raw: bytes, order: str) -> str:
    """The first number of an array, or the text of a row of characters; "" for what is neither."""
    parts = list(_elements(raw, order))
    if len(parts) < 4 or not parts[3][1]:
        return ""
    kind, content = parts[3]
    if parts[0][1][_class_byte(order)] == _CHAR:
        wide = "utf-16-le" if order == "<" else "utf-16-be"
        return content.decode(_TEXTS.get(kind, wide))
    code = _NUMBERS.get(kind)
    return "" if code is None else str(struct.unpack_from(order + code, content)[0])


def _class_byte(order: str) -> int:
    return 0 if order == "<" else 3  # of the word of flags
