"""What lies where in a tar: its members by name with their places, and a cache of what was found out about a file."""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar, cast

from vlkit import files
from vlkit.data.formats.folders import follow, is_hidden
from vlkit.data.formats.images import IMAGE_FILES
from vlkit.errors import DataError, VlkitError
from vlkit.foreign import file_name, printable

T = TypeVar("T")
Span = tuple[int, int]
"""Offset and size of a member's content in its tar, in bytes."""
_BLOCK = 512
_LONGEST = 2**24  # bytes of a header: of names and what else stands before a member


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
    with suppress(VlkitError, UnicodeError):  # a full or read-only cache only makes the next start slower
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
    path = PurePosixPath(file_name(name))
    if is_hidden(name):
        return "", ""
    stem, dot, suffix = path.name.partition(".")
    return (str(path.with_name(stem)), suffix.lower()) if dot and stem else ("", "")


def tar_members(
    path: Path, stream: IO[bytes], problems: dict[str, str], *, size: int, start: int = 0
) -> Iterator[tuple[str, Span]]:
    """Names and places of a tar's regular files in order; ``path`` is what it is called in errors.

    A hard link is the file that it names. What symbolic links name comes last, once more for each, by the link's name.
    A tar that breaks off is noted in ``problems`` (name -> reason) and read up to there. It may lie uncompressed in
    another file: it has ``size`` bytes of ``stream`` from ``start`` on.

    Raises:
        DataError: Not a tar, or compressed.
    """
    called = printable(path.name)
    if size == 0:
        problems[called] = "the shard is empty (0 bytes)"
        return
    piece = _FileSlice(stream, start, size)
    refuse_compressed(path, piece.read(6))
    piece.seek(0)
    there: dict[str, Span] = {}
    links: dict[str, str] = {}
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", piece), mode="r:") as archive:
            while (member := archive.next()) is not None:
                where = f"{called}:{printable(member.name)}"
                name = posixpath.normpath(member.name)
                end = member.offset_data + (member.size if member.isreg() else 0)
                if member.size < 0:
                    raise ValueError(f"a member of {member.size} bytes")
                if end > size:
                    problems[where] = f"the shard breaks off at byte {size:,}, inside this member"
                    return
                if member.issparse():
                    problems[where] = "a sparse file, which is not read here; pack it without --sparse"
                elif member.isreg():
                    there[name] = (start + member.offset_data, member.size)
                    yield member.name, there[name]
                elif member.issym():
                    links[name] = member.linkname
                elif member.islnk() and (span := there.get(posixpath.normpath(member.linkname))) is not None:
                    there[name] = span
                    yield member.name, span
                elif member.islnk():
                    problems[where] = f"a link to {printable(member.linkname)}, which does not stand before it"
            # Without the closing zero blocks something was cut off, unless it ends exactly on a member.
            if (left := size - archive.offset) > 0 and not _only_zeros(piece, archive.offset, min(left, _BLOCK)):
                problems[called] = f"no readable tar header at byte {archive.offset:,} of {size:,}"
    except VlkitError:
        raise
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:  # tarfile raises all of these
        if piece.tell() <= _BLOCK:
            raise DataError(f"{path}: not a tar file") from None
        reason = "too many headers before one member" if isinstance(error, RecursionError) else str(error)
        problems[called] = f"the shard breaks off: {reason}"
    yield from _linked(called, links, there, problems)


def _linked(
    called: str, links: Mapping[str, str], there: Mapping[str, Span], problems: dict[str, str]
) -> Iterator[tuple[str, Span]]:
    found, lost = follow(links, there)
    yield from found.items()
    for name in lost:
        if not is_hidden(name) and PurePosixPath(name).suffix.lower() in ("", *IMAGE_FILES):
            problems[f"{called}:{printable(name)}"] = (
                f"a link to {printable(links[name])}, which is not in the tar (tar --dereference packs what links name)"
            )


def _only_zeros(stream: _FileSlice, offset: int, size: int) -> bool:
    stream.seek(offset)
    return not any(stream.read(size))


class _FileSlice:
    """A piece of a file as a file of its own, for tarfile, which reads no more than headers of it."""

    def __init__(self, stream: IO[bytes], start: int, size: int) -> None:
        self.stream, self.start, self.size, self.place = stream, start, size, 0

    def seek(self, offset: int) -> None:
        self.place = offset

    def tell(self) -> int:
        return self.place

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LONGEST:
            raise ValueError(f"a header of {size:,} bytes at byte {self.place:,}")
        self.stream.seek(self.start + self.place)
        raw = self.stream.read(min(size, max(self.size - self.place, 0)))
        self.place += len(raw)
        return raw
