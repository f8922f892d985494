"""Where vlkit keeps its files, and writes that are whole or not there at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vlkit.errors import VlkitError
from vlkit.paths import local_path

_REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_OVERTAKEN = (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST)  # by another process that writes the same folder


def home() -> Path:
    """The cache folder: ``$VLKIT_HOME``, else ``$XDG_CACHE_HOME/vlkit``, else ``~/.cache/vlkit``."""
    if named := os.environ.get("VLKIT_HOME"):
        return local_path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (local_path(base) if base else Path.home() / ".cache") / "vlkit"


def sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def digest(value: Any) -> str:
    """Hex digest (16 digits) of anything JSON can hold, the same on every machine."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yields an empty folder beside ``target`` that takes its place when the block ends well.

    An error or a kill inside the block leaves the old ``target`` whole. Of two processes that write the same target,
    the later one wins and both leave a whole folder.

    Raises:
        VlkitError: The disk is full or the place cannot be written to.
    """
    with _disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        scratch.chmod(0o755)
        with _disk_errors(target, scratch=scratch):
            yield scratch
        with _disk_errors(target):
            _replace_folder(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _replace_folder(scratch: Path, target: Path) -> None:
    for _ in range(64):
        try:
            scratch.rename(target)
            return
        except OSError as error:  # another writer may have moved the folder away again by now
            if error.errno not in _OVERTAKEN or target.is_file():
                raise
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
        old = aside / "old"
        try:
            target.rename(old)
            scratch.rename(target)
            return
        except OSError as error:
            if error.errno not in _OVERTAKEN:
                raise
        finally:
            if old.exists() and not target.exists():  # stopped between the two renames
                with suppress(OSError):  # another writer was faster
                    old.rename(target)
            shutil.rmtree(aside, ignore_errors=True)
    raise VlkitError(f"cannot replace {target}: other processes keep writing it; run one at a time")


def write_atomic(path: Path, content: bytes | str, *more: bytes | memoryview) -> None:
    """Writes a file under a temporary name and renames it, so that readers never see half of it.

    ``more`` follows, piece by piece, so that what is large need not be copied into one.

    Raises:
        VlkitError: The disk is full or the place cannot be written to.
    """
    raw = content.encode() if isinstance(content, str) else content
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.writelines((raw, *more))
                stream.flush()
                os.fsync(stream.fileno())
            Path(scratch).chmod(0o644)
            Path(scratch).replace(path)
        finally:
            Path(scratch).unlink(missing_ok=True)


@contextmanager
def _disk_errors(target: Path, *, scratch: Path | None = None) -> Iterator[None]:
    """Turns what the disk refused into one clear message; with ``scratch``, only what it refused there."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOENT or error.strerror is None or not (scratch is None or _is_under(scratch, error)):
            raise
        why = f"{error.filename} is no folder" if error.errno == errno.EEXIST else error.strerror
        raise VlkitError(
            f"cannot write {target}: {why}; free some space or choose a place that can be written to "
            f"(outputs: --out or run.folder, caches: the environment variable VLKIT_HOME)"
        ) from error


def _is_under(folder: Path, error: OSError) -> bool:
    """Whether a write to ``folder`` failed; a block that writes there may also fail to read something elsewhere."""
    if not isinstance(error.filename, str | os.PathLike):
        return error.errno in _REFUSED  # a write to an open file names no file
    return Path(error.filename).absolute().is_relative_to(folder.absolute())


def packaged(kind: str) -> Path:
    """The folder of YAML or tables shipped with vlkit: ``recipes``, ``eval`` or ``data``.

    In a wheel they lie inside the package (``vlkit/_recipes``), in a checkout beside it.
    """
    package = Path(__file__).parent
    inside = package / f"_{kind}"
    return inside if inside.is_dir() else package.parent / kind
