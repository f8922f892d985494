"""Text and JSON from elsewhere: read within bounds, cleaned once, and shown so that no terminal or table acts on it."""

from __future__ import annotations

import json
import os
import re
import unicodedata
import zlib
from pathlib import Path
from typing import Any

from vlkit.errors import DataError, VlkitError

LIMIT = "VLKIT_LIMIT_MB"
"""Environment variable: how many MB one file, member or cell that somebody else made may take in memory."""
_DEFAULT_LIMIT = 1024

# Marks that no reader sees and no tokenizer should: byte order mark, soft hyphen, direction of text. The joiners
# U+200C and U+200D stay: Persian and Indic words and many emoji are spelled with them.
_UNSEEN = re.compile("[\ufeff\u00ad\u061c\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069]|[\x00-\x08\x0e-\x1f\x7f-\x9f]")
_ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_HALF = re.compile("[\ud800-\udfff]")
_ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_KINDS = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
# What Markdown, with tables, would take for more than text. Brackets make a link before ( [ or : alone.
_MARKUP = re.compile(r"[\\`*|~<]|^\[|\](?=[(\[:])|(?<!\w)_|_(?!\w)|&(?=#?\w+;)")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class _RefusedError(ValueError):
    """What the JSON parser's hooks refuse."""


def parse_json(
    raw: bytes | str, *, where: str, expected: type | None = None, error: type[VlkitError] = DataError
) -> Any:
    """A JSON value from elsewhere; ``where`` it stands (a file, a line, a member) begins each message.

    Args:
        raw: UTF-8, with or without a byte order mark.
        where: Begins each message.
        expected: ``dict`` or ``list`` where only an object or a list will do.
        error: Kind of the error.

    Raises:
        VlkitError: Of the kind ``error``: not UTF-8, no JSON (with line and column), nested too deeply, a key twice in
            one object, half a surrogate pair, or another value than ``expected``.
    """
    try:
        text = (raw if isinstance(raw, str) else raw.decode("utf-8")).removeprefix("\ufeff")
    except UnicodeDecodeError as bad:
        raise error(f"{where}: not UTF-8 text (byte {bad.start}); save it as UTF-8") from None
    try:
        found = json.loads(text, object_pairs_hook=_object)
        if _ESCAPED_HALF.search(text):
            _refuse_halves(found)
    except RecursionError:
        raise error(f"{where}: bad JSON: nested too deeply") from None
    except json.JSONDecodeError as bad:
        raise error(f"{where}: bad JSON: {bad}") from None
    except ValueError as bad:  # ours, or a number of thousands of digits
        raise error(f"{where}: bad JSON: {bad}") from None
    if expected is not None and not isinstance(found, expected):
        raise error(f"{where}: expected {json_kind(expected)}, found {json_kind(type(found))}")
    return found


def parse_yaml(text: str, *, where: str, error: type[VlkitError] = DataError) -> Any:
    """A YAML 1.2 value from elsewhere (`no` is text there); JSON is such too. ``where`` it stands begins each message.

    Raises:
        VlkitError: Of the kind ``error``: no YAML (with line and column), or nested too deeply.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError) as bad:
        raise error(f"{where}: neither JSON nor YAML: {' '.join(str(bad).split())}") from None
    except RecursionError:
        raise error(f"{where}: nested too deeply") from None


def read_json(path: Path, *, expected: type | None = None, error: type[VlkitError] = DataError) -> Any:
    """A JSON file from elsewhere; see parse_json.

    Raises:
        VlkitError: See parse_json, or the file is larger than the limit.
        OSError: It cannot be read.
    """
    check_size(path.stat().st_size, what=str(path), error=error)
    return parse_json(path.read_bytes(), where=str(path), expected=expected, error=error)


def json_kind(kind: type) -> str:
    """What JSON calls a Python type, with its article."""
    return _KINDS.get(kind, "a number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _RefusedError(f"the key {twice!r} stands twice in one object; keep one of them")
    return made


def _refuse_halves(value: Any) -> None:
    left = [value]
    while left:
        found = left.pop()
        if isinstance(found, dict):
            left += [*found, *found.values()]
        elif isinstance(found, list):
            left += found
        elif isinstance(found, str) and (half := _HALF.search(found)):
            raise _RefusedError(f"half a character (\\u{ord(half[0]):04x}) in {printable(found[:40])!r}")


def limit() -> int:
    """How many bytes one file, member or cell from elsewhere may take in memory: 1024 MB, or ``$VLKIT_LIMIT_MB``.

    Raises:
        VlkitError: The variable is no number.
    """
    given = os.environ.get(LIMIT, "")
    if given and not (given.isascii() and given.isdigit()):
        raise VlkitError(f"{LIMIT} is {given!r}; expected a whole number of MB, e.g. {_DEFAULT_LIMIT}")
    return int(given or _DEFAULT_LIMIT) * 10**6


def check_size(size: int, *, what: str, error: type[VlkitError] = DataError) -> None:
    """Refuses to take ``size`` bytes of what somebody else made into memory where that is above the limit.

    Raises:
        VlkitError: It is.
    """
    if size > limit():
        raise error(
            f"{what}: {size / 10**6:,.0f} MB, more than the limit of {limit() // 10**6:,} MB; if it is to be trusted, "
            f"set the environment variable {LIMIT} higher"
        )


def inflate(raw: bytes, *, what: str, wbits: int, error: type[VlkitError] = DataError) -> bytes:
    """Unpacks deflated bytes (``wbits`` as for zlib.decompress), but never to more than the limit.

    Raises:
        VlkitError: More comes out than the limit, or the end is missing.
        zlib.error: Damaged.
    """
    most, content = limit(), b""
    while raw:
        stream = zlib.decompressobj(wbits)
        content += stream.decompress(raw, most - len(content) + 1)
        check_size(len(content), what=f"{what}, unpacked", error=error)
        if not stream.eof:
            raise error(f"cannot read {what}: the compressed data breaks off; get the file anew")
        raw = stream.unused_data.lstrip(b"\0") if wbits > zlib.MAX_WBITS else b""  # files of gzip may be joined
    return content


def clean(text: str) -> str:
    """A caption, label or name as people mean it: NFC, without marks that nobody sees, without blanks around it.

    The joiners U+200C and U+200D stay. Not for published label sets that must stay as they are to the byte.

    Raises:
        DataError: Half a surrogate pair, which no file and no tokenizer can take.
    """
    if text.isascii() and text.isprintable():
        return text.strip()
    if half := _HALF.search(text):
        raise DataError(f"half a character (\\u{ord(half[0]):04x}) in {printable(text[:40])!r}; save the text as UTF-8")
    return unicodedata.normalize("NFC", _UNSEEN.sub("", text)).strip()


def file_name(name: str) -> str:
    r"""The name of a file as people mean it: NFC, which macOS takes apart; bytes that are not UTF-8 as ``\xe9``."""
    return (
        name if name.isascii() else unicodedata.normalize("NFC", _HALF.sub(lambda found: _escape(ord(found[0])), name))
    )


def printable(text: str) -> str:
    r"""Text that a terminal does not act on: control characters become ``\x1b``, line ends and tabs stay.

    So do marks that turn the direction of text; bytes of file names that are not UTF-8 are shown as ``\xe9``.
    """
    return text if text.isprintable() else _ACTING.sub(lambda found: _escape(ord(found[0])), text)


def printable_json(text: str) -> str:
    r"""JSON that no terminal acts on and that reads back as it was: ``\u009b`` where ``printable`` has ``\x9b``."""
    return text if text.isprintable() else _ACTING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escape(number: int) -> str:
    if 0xDC80 <= number <= 0xDCFF:  # surrogateescape: a byte that was no UTF-8
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def spreadsheet_cell(text: str) -> str:
    """Text for a CSV file that a spreadsheet may open: ``'`` before what it would take for a formula.

    Texts that begin with ``'`` get one more, so that `from_spreadsheet_cell` gives each text back.
    """
    return f"'{text}" if text.startswith((*_FORMULA, "'")) else text


def from_spreadsheet_cell(cell: str) -> str:
    """The text that `spreadsheet_cell` wrote."""
    return cell.removeprefix("'")


def markdown_text(text: str) -> str:
    """Text on one line of Markdown that reads as it is: no link, image, element, emphasis or new cell comes of it."""
    return _MARKUP.sub(lambda found: {"<": "&lt;", "&": "&amp;"}.get(found[0], f"\\{found[0]}"), " ".join(text.split()))
