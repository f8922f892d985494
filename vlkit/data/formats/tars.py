"""What lies where in a tar: its members by name with their places, and a cache of what was found out about a file."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar, cast

from vlkit import files
from vlkit.errors import DataError, VlkitError

T = TypeVar("T")
Span = tuple[int, int]
"""Offset and size of a member's content in its tar, in bytes."""
_BLOCK = 512


def remembered(
    path: Path, *facts: object, make: Callable[[], T], dump: Callable[[T], Any], load: Callable[[Any], T]
) -> T:
    """What was found out about a file, from the cache where it has not changed since (path, size, time of change).

    ``facts`` are what else decides the result, a version number first. ``dump`` turns it into JSON values and ``load``
    these back; what that cannot is made anew.
    """
    name = files.digest([*facts, str(path.resolve()), files.file_state(path)])
    cached = files.home() / "index" / f"{name}.json"
    with suppress(OSError, ValueError, KeyError, TypeError, IndexError):  # not there yet, or unreadable
        return load(json.loads(cached.read_text(encoding="utf-8")))
    found = make()
    with suppress(VlkitError):  # a full or read-only cache only makes the next start slower
        files.write_atomic(cached, json.dumps(dump(found), ensure_ascii=False, separators=(",", ":")))
    return found


def refuse_compressed(path: Path, magic: bytes) -> None:
    """Raises DataError where the first six bytes of a file are those of gzip, zstd, bzip2 or xz."""
    if magic[:2] == b"\x1f\x8b" or magic[:4] == b"\x28\xb5\x2f\xfd" or magic[:3] == b"BZh" or magic == b"\xfd7zXZ\x00":
        raise DataError(f"{path}: a compressed tar cannot be read at random places; unpack it to a plain .tar first")


def sample_key(name: str) -> tuple[str, str]:
    """Key and suffix of a member by WebDataset's rule: the suffix, in lower case, begins at the first dot of the name.

    The key is "" for a file without a suffix, and a hidden one.
    """
    path = PurePosixPath(name)
    stem, dot, suffix = path.name.partition(".")
    return (str(path.with_name(stem)), suffix.lower()) if dot and stem else ("", "")


def tar_members(
    path: Path, stream: IO[bytes], problems: dict[str, str], *, size: int, start: int = 0
) -> Iterator[tuple[str, Span]]:
    """Names and places of a tar's regular files in order; ``path`` is what it is called in errors.

    A tar that breaks off is noted in ``problems`` (name -> reason) and read up to there. It may lie uncompressed in
    another file: it has ``size`` bytes of ``stream`` from ``start`` on.

    Raises:
        DataError: Not a tar, or compressed.
    """
    if size == 0:
        problems[path.name] = "the shard is empty (0 bytes)"
        return
    piece = cast("IO[bytes]", _FileSlice(stream, start, size)) if start else stream
    piece.seek(0)
    refuse_compressed(path, piece.read(6))
    piece.seek(0)
    try:
        with tarfile.open(fileobj=piece, mode="r:") as archive:
            while (member := archive.next()) is not None:
                end = member.offset_data + (member.size if member.isreg() else 0)
                if end > size:
                    problems[f"{path.name}:{member.name}"] = (
                        f"the shard breaks off at byte {size:,}, inside this member"
                    )
                    return
                if member.isreg():
                    yield member.name, (start + member.offset_data, member.size)
            # Without the closing zero blocks something was cut off, unless it ends exactly on a member.
            if (left := size - archive.offset) > 0 and not _only_zeros(piece, archive.offset, min(left, _BLOCK)):
                problems[path.name] = f"no readable tar header at byte {archive.offset:,} of {size:,}"
    except tarfile.ReadError as error:
        if piece.tell() <= _BLOCK:
            raise DataError(f"{path}: not a tar file") from None
        problems[path.name] = f"the shard breaks off: {error}"


def _only_zeros(stream: IO[bytes], offset: int, size: int) -> bool:
    stream.seek(offset)
    return not any(stream.read(size))


class _FileSlice:
    """A piece of a file as a file of its own, for tarfile."""

    def __init__(self, stream: IO[bytes], start: int, size: int) -> None:
        self.stream, self.start, self.size, self.place = stream, start, size, 0

    def seek(self, offset: int) -> None:
        self.place = offset

    def tell(self) -> int:
        return self.place

    def read(self, size: int) -> bytes:
        self.stream.seek(self.start + self.place)
        raw = self.stream.read(min(size, max(self.size - self.place, 0)))
        self.place += len(raw)
        return raw
