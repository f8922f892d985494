"""Files inside folders, tars and zips, listed once and read at random places."""

from __future__ import annotations

import logging
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from vlkit.data.formats.images import IMAGE_FILES, UNREAD_IMAGES, LazyImage, StoredImage, read_span, unread_images
from vlkit.data.formats.tars import Span, remembered, tar_members
from vlkit.errors import DataError

_log = logging.getLogger(__name__)
ARCHIVES = (".tar", ".zip")
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_VERSION = 2
_LOCAL_HEADER = 30  # bytes of a zip's local file header before the name (APPNOTE.TXT 4.3.7)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class Member:
    """One file.

    Attributes:
        name: Its path inside the folder or archive, with ``/``.
        path: The file on disk that it is, or lies in.
        span: Offset and size in bytes in ``path`` (of a zip's member: of its local header, and of the compressed
            data); None for the whole file.
        zipped: Of a zip's member, the method of compression and the CRC-32 of what comes out.
    """

    name: str
    path: Path
    span: Span | None = None
    zipped: tuple[int, int] | None = None

    @property
    def where(self) -> str:
        """File and member, for errors."""
        return str(self.path) if self.span is None else f"{self.name} in {self.path}"

    @property
    def is_image(self) -> bool:
        """Its name ends like that of an image."""
        return PurePosixPath(self.name).suffix.lower() in IMAGE_FILES

    def read(self) -> bytes:
        """The whole content.

        Raises:
            DataError: Damaged, or cannot be read.
        """
        try:
            if self.span is None:
                return self.path.read_bytes()
            return read_span(self.path, self.span) if self.zipped is None else self._unzip(*self.span, *self.zipped)
        except OSError as error:
            raise DataError(f"cannot read {self.where}: {(error.strerror or str(error)).lower()}") from error

    def _unzip(self, offset: int, size: int, method: int, crc: int) -> bytes:
        head = read_span(self.path, (offset, _LOCAL_HEADER))
        if len(head) < _LOCAL_HEADER or head[:4] != b"PK\x03\x04":
            raise DataError(f"cannot read {self.where}: the zip is damaged (no header at byte {offset:,})")
        lengths = int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
        raw = read_span(self.path, (offset + _LOCAL_HEADER + lengths, size))
        try:
            content = zlib.decompress(raw, -zlib.MAX_WBITS) if method == zipfile.ZIP_DEFLATED else raw
        except zlib.error as error:
            raise DataError(f"cannot read {self.where}: the zip is damaged ({error})") from None
        if zlib.crc32(content) != crc:
            raise DataError(f"cannot read {self.where}: the zip is damaged (its checksum does not fit)")
        return content

    def image(self) -> LazyImage | StoredImage:
        """The image in it, decoded when called for."""
        if self.zipped is not None:
            return StoredImage(self.read, self.where, self.path)
        return LazyImage(self.path, self.where, self.span)


def list_members(path: Path) -> list[Member]:
    """All files of a folder (with the folders in it), a tar or a zip, sorted by name; hidden ones are left out.

    Tars that lie in it are opened where there is no image outside of them: their members are listed below the tar's
    name without its ending, as if it were a folder. What a tar holds is kept in the cache until the file changes.

    Raises:
        DataError: Missing, damaged, compressed as a whole or encrypted.
    """
    if path.is_dir():
        found = [
            Member(one.relative_to(path).as_posix(), one)
            for one in path.rglob("*")
            if one.suffix.lower() in _LISTED and one.is_file()
        ]
    elif not path.is_file():
        raise DataError(f"{path}: no such file or folder")
    elif path.name.lower().endswith(_COMPRESSED):
        raise DataError(f"{path}: {_unpack(path)}")
    elif path.suffix.lower() == ".zip":
        found = _zip_members(path)
    else:
        found = _tar_members(path)
    found = [member for member in found if not _hidden(member.name)]
    if unread := unread_images(member.name for member in found):
        _log.warning("%s: images that Pillow does not read are left out, convert them first: %s", path, unread)
    if not any(member.is_image for member in found):
        found = list(_inside(found))
    return sorted(found, key=lambda member: member.name)


def list_archives(paths: Sequence[Path]) -> list[Member]:
    """The files of several tars or zips, each below the archive's name without its ending.

    Raises:
        DataError: See list_members.
    """
    return [_below(path.stem, member) for path in paths for member in list_members(path)]


# what else than images is of use here; a folder may hold anything
_LISTED = {*IMAGE_FILES, *UNREAD_IMAGES, *ARCHIVES, ".gz", ".tgz", ".json", ".txt", ".cls"}


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _below(folder: str, member: Member) -> Member:
    return replace(member, name=f"{folder}/{member.name}")


def _unpack(path: Path) -> str:
    tool = "gunzip" if path.suffix.lower() in (".gz", ".tgz") else "unpack"
    return f"a compressed tar cannot be read at random places; make a plain .tar of it first ({tool} {path.name})"


def _inside(members: Iterable[Member]) -> Iterator[Member]:
    for member in members:
        inner = PurePosixPath(member.name)
        if inner.name.lower().endswith(_COMPRESSED):
            raise DataError(f"{member.where}: {_unpack(Path(inner.name))}")
        if inner.suffix.lower() not in ARCHIVES:
            yield member
            continue
        if member.span is None:
            opened = list_members(member.path)
        elif inner.suffix.lower() == ".zip" or member.zipped is not None:
            raise DataError(
                f"{member.where}: an archive in an archive is read only where both are tars; unpack it first"
            )
        else:
            opened = [one for one in _tar_members(member.path, member) if not _hidden(one.name)]
        for one in opened:
            yield _below(str(inner.with_suffix("")), one)


def _tar_members(path: Path, outer: Member | None = None) -> list[Member]:
    """The members of a tar, or of a tar that is one of its members."""
    where = path if outer is None else Path(outer.where)
    start, size = (0, path.stat().st_size) if outer is None or outer.span is None else outer.span

    def listed() -> list[tuple[str, Span]]:
        problems: dict[str, str] = {}
        with path.open("rb") as stream:
            found = list(tar_members(where, stream, problems, size=size, start=start))
        for name, reason in problems.items():
            raise DataError(f"{where}: {name}: {reason}; an evaluation needs all of it, get the file anew")
        return found

    def loaded(rows: list[tuple[str, Span]]) -> list[tuple[str, Span]]:
        return [(name, (offset, length)) for name, (offset, length) in rows]

    members = remembered(path, _VERSION, "names", start, make=listed, dump=list, load=loaded)
    return [Member(str(PurePosixPath(name)), path, span) for name, span in members]


def _zip_members(path: Path) -> list[Member]:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: not a whole zip ({error}); get the file anew") from None
    for info in infos:
        if info.flag_bits & 1:
            raise DataError(f"{path}: {info.filename} is encrypted; unpack the zip with its password first")
        if info.compress_type not in _METHODS:
            raise DataError(
                f"{path}: {info.filename} is compressed by method {info.compress_type}, which is not read here (only "
                f"0, stored, and 8, deflated); unpack the zip first"
            )
    return [
        Member(info.filename, path, (info.header_offset, info.compress_size), (info.compress_type, info.CRC))
        for info in infos
    ]
