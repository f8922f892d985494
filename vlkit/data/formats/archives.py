"""Files inside folders, tars and zips, listed once and read at random places."""

from __future__ import annotations

import logging
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from vlkit.data.formats.folders import follow, is_hidden, walk
from vlkit.data.formats.images import IMAGE_FILES, UNREAD_IMAGES, LazyImage, StoredImage, read_span, unread_images
from vlkit.data.formats.tars import Span, remembered, tar_members
from vlkit.errors import DataError
from vlkit.foreign import check_size, file_name, inflate, printable

_log = logging.getLogger(__name__)
ARCHIVES = (".tar", ".zip")
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_VERSION = 3
_LOCAL_HEADER = 30  # bytes of a zip's local file header before the name (APPNOTE.TXT 4.3.7)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_IS_UTF8 = 0x800  # flag of a zip's member: its name is (APPNOTE.TXT, appendix D)
_UNICODE_PATH = 0x7075  # an extra field with the name in UTF-8 (APPNOTE.TXT 4.6.9)
_LONGEST_PATH = 4096
_BROKEN = re.compile("[\ud800-\udfff]")  # bytes of a name that are not UTF-8, as Python hands them on


@dataclass(frozen=True)
class Member:
    """One file.

    Attributes:
        name: Its path inside the folder or archive, with ``/``, in NFC.
        path: The file on disk that it is, or lies in.
        span: Offset and size in bytes in ``path`` (of a zip's member: of its local header, and of the compressed
            data); None for the whole file.
        zipped: Of a zip's member, the method of compression, and the CRC-32 and size in bytes of what comes out.
    """

    name: str
    path: Path
    span: Span | None = None
    zipped: tuple[int, int, int] | None = None

    @property
    def where(self) -> str:
        """File and member, for errors."""
        return printable(str(self.path) if self.span is None else f"{self.name} in {self.path}")

    @property
    def is_image(self) -> bool:
        """Its name ends like that of an image."""
        return PurePosixPath(self.name).suffix.lower() in IMAGE_FILES

    def read(self) -> bytes:
        """The whole content.

        Raises:
            DataError: Damaged, cannot be read, or larger than the limit of memory (see vlkit.foreign.check_size).
        """
        try:
            check_size(self.path.stat().st_size if self.span is None else self.span[1], what=self.where)
            if self.span is None:
                return self.path.read_bytes()
            return read_span(self.path, self.span) if self.zipped is None else self._unzip(*self.span, *self.zipped)
        except OSError as error:
            raise DataError(f"cannot read {self.where}: {(error.strerror or str(error)).lower()}") from error

    def _unzip(self, offset: int, size: int, method: int, crc: int, unpacked: int) -> bytes:
        check_size(unpacked, what=f"{self.where}, unpacked")
        head = read_span(self.path, (offset, _LOCAL_HEADER))
        if len(head) < _LOCAL_HEADER or head[:4] != b"PK\x03\x04":
            raise DataError(f"cannot read {self.where}: the zip is damaged (no header at byte {offset:,})")
        lengths = int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
        raw = read_span(self.path, (offset + _LOCAL_HEADER + lengths, size))
        try:
            content = inflate(raw, what=self.where, wbits=-zlib.MAX_WBITS) if method == zipfile.ZIP_DEFLATED else raw
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

    Links are followed, of archives those to what is in them.

    Tars that lie in it are opened where there is no image outside of them: their members are listed below the tar's
    name without its ending, as if it were a folder. What a tar holds is kept in the cache until the file changes.

    Raises:
        DataError: Missing, damaged, compressed as a whole or encrypted, or a folder's name is not UTF-8.
    """
    if path.is_dir():
        found = [Member(_named(name, path), one) for name, one in walk(path) if one.suffix.lower() in _LISTED]
        if twice := [name for name, count in Counter(one.name for one in found).items() if count > 1]:
            raise DataError(f"{path}: two files are called {twice[0]!r}, with accents written in two ways; leave one")
    elif not path.is_file():
        raise DataError(f"{path}: no such file or folder")
    elif path.name.lower().endswith(_COMPRESSED):
        raise DataError(f"{path}: {_unpack(path)}")
    elif path.suffix.lower() == ".zip":
        found = _zip_members(path)
    else:
        found = _tar_members(path)
    found = [member for member in found if not is_hidden(member.name)]
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


def _named(name: str, where: Path) -> str:
    """The name of a file that may stand for classes and captions."""
    folder = name.rpartition("/")[0]
    if _BROKEN.search(folder):
        raise DataError(f"{where}: the name of the folder '{printable(folder)}' is not UTF-8; give it another name")
    return file_name(name)


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
            opened = [one for one in _tar_members(member.path, member) if not is_hidden(one.name)]
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
        return [(_named(str(PurePosixPath(name)), where), span) for name, span in found]

    def loaded(rows: list[tuple[str, Span]]) -> list[tuple[str, Span]]:
        return [(name, (offset, length)) for name, (offset, length) in rows]

    members = remembered(path, _VERSION, "names", start, make=listed, dump=list, load=loaded)
    return [Member(name, path, span) for name, span in members]


def _zip_members(path: Path) -> list[Member]:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if info.filename and not info.is_dir()]
            for info in infos:
                _check_zipped(info, path)
            targets = [archive.read(info) if _is_link(info) else b"" for info in infos]
    except (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a whole zip ({error}); get the file anew") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {error.object!r} is said to be UTF-8 and is not; pack the files anew") from None
    there: dict[str, Member] = {}
    links: dict[str, str] = {}
    for name, info, target in zip(_zip_names(infos, path), infos, targets, strict=True):
        if target:
            links[name] = target.decode("utf-8", "surrogateescape")
        else:
            facts = (info.compress_type, info.CRC, info.file_size)
            there[name] = Member(name, path, (info.header_offset, info.compress_size), facts)
    found, lost = follow(links, there)
    for name in lost:
        if not is_hidden(name) and PurePosixPath(name).suffix.lower() in ("", *IMAGE_FILES):
            raise DataError(f"{path}: {name} is a link to {printable(links[name])}, which is not in the zip")
    return [*there.values(), *(replace(member, name=name) for name, member in found.items())]


def _check_zipped(info: zipfile.ZipInfo, path: Path) -> None:
    if info.flag_bits & 1:
        raise DataError(f"{path}: {info.filename} is encrypted; unpack the zip with its password first")
    if info.compress_type not in _METHODS:
        raise DataError(
            f"{path}: {info.filename} is compressed by method {info.compress_type}, which is not read here (only "
            f"0, stored, and 8, deflated); unpack the zip first"
        )


def _is_link(info: zipfile.ZipInfo) -> bool:
    return stat.S_ISLNK(info.external_attr >> 16) and info.file_size <= _LONGEST_PATH


def _zip_names(infos: Sequence[zipfile.ZipInfo], path: Path) -> list[str]:
    names = [_zip_name(info) for info in infos]
    # of code page 437, which a zip means where it says nothing; many tools take that of their country instead
    guessed = [info.filename for info, name in zip(infos, names, strict=True) if name is None]
    for name in guessed:
        if not all(sign.isascii() or sign.isalpha() for sign in name):
            raise DataError(
                f"{path}: the zip does not say how its names are encoded (one reads {name!r}); pack the files anew "
                f"with names in UTF-8 (7z a -mcu=on, or zip -r of Linux or macOS), or unpack them first"
            )
    if guessed:
        _log.warning("%s: the zip does not say how its names are encoded; taken as %r and so on", path, guessed[0])
    made = [info.filename if name is None else name for info, name in zip(infos, names, strict=True)]
    if not any("/" in name for name in made):  # written by old tools of Windows
        made = [name.replace("\\", "/") for name in made]
    return [_named(str(PurePosixPath(name)), path) for name in made]


def _zip_name(info: zipfile.ZipInfo) -> str | None:
    """The name of a member, None where it is in an encoding that the zip does not say."""
    if info.flag_bits & _IS_UTF8 or info.orig_filename.isascii():
        return info.filename
    raw, extra = info.orig_filename.encode("cp437"), info.extra
    while len(extra) >= 4:
        kind, size = int.from_bytes(extra[:2], "little"), int.from_bytes(extra[2:4], "little")
        if kind == _UNICODE_PATH and int.from_bytes(extra[5:9], "little") == zlib.crc32(raw):
            raw = extra[9 : 4 + size]
        extra = extra[4 + size :]
    try:  # macOS writes UTF-8 and does not say so
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None
