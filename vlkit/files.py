"""Where vlkit keeps its files, and writes that are whole or not there at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vlkit.errors import VlkitError
from vlkit.paths import local_path

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows: nothing is locked, and so nothing swept
    fcntl = None

_REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_OVERTAKEN = (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST)  # by another process that writes the same folder
_FROM_RUST = re.compile(r"os error (\d+)|\bcode: (\d+), kind:")  # how safetensors and tokenizers quote the system
_NAME = 200  # bytes that the name of something half-made takes of its own name; systems allow 255
_HALF_MADE = re.compile(r"\..+\.vlkit-(new|old)-[a-z0-9_]{8}", re.DOTALL)
_swept: set[Path] = set()


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


def file_state(path: Path) -> str:
    """What changes whenever a file does: its size and the times of its last changes, one of which nobody can set.

    "missing" where there is none.
    """
    try:
        found = path.stat()
    except (OSError, ValueError):  # a name with a zero byte
        return "missing"
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def digest(value: Any) -> str:
    """Hex digest (16 digits) of anything JSON can hold, the same on every machine."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@contextmanager
def atomic_folder(target: Path, *, then: str = "") -> Iterator[Path]:
    """Yields an empty folder beside ``target`` that takes its place when the block ends well.

    An error or a kill inside the block leaves the old ``target`` whole, and what a killed process left half-made is
    swept by the next one. Of two processes that write the same target, the later one wins and both leave a whole
    folder. A link to a folder stays: the folder is replaced. ``then`` is what to do once a full disk has room again.

    Raises:
        VlkitError: The disk is full or the place cannot be written to.
    """
    with disk_errors(target, then=then):
        target = target.resolve() if target.is_symlink() else target
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent)
        scratch, held = _half_made(target, "new")
    try:
        scratch.chmod(0o755)
        with disk_errors(target, scratch=scratch, then=then):
            yield scratch
        with disk_errors(target, then=then):
            _replace_folder(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(held)


def _replace_folder(scratch: Path, target: Path) -> None:
    for _ in range(64):
        try:
            scratch.rename(target)
            return
        except OSError as error:  # another writer may have moved the folder away again by now
            if error.errno not in _OVERTAKEN or target.is_file():
                raise
        aside, held = _half_made(target, "old")
        old = aside / target.name
        try:
            target.rename(old)
            scratch.rename(target)
            shutil.rmtree(aside, ignore_errors=True)
            return
        except OSError as error:
            if error.errno not in _OVERTAKEN:
                raise
        finally:
            _discard(aside)  # which puts the old folder back where this was stopped between the two renames
            os.close(held)
    raise VlkitError(f"cannot replace {target}: other processes keep writing it; run one at a time")


def write_atomic(path: Path, content: bytes | str, *more: bytes | memoryview) -> None:
    """Writes a file under a temporary name and renames it, so that readers never see half of it.

    ``more`` follows, piece by piece, so that what is large need not be copied into one.

    Raises:
        VlkitError: The disk is full or the place cannot be written to.
    """
    raw = content.encode() if isinstance(content, str) else content
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent not in _swept:
            sweep(path.parent)
            _swept.add(path.parent)
        scratch, handle = _half_made(path, "new", folder=False)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.writelines((raw, *more))
                stream.flush()
                os.fsync(stream.fileno())
                scratch.chmod(0o644)
                scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)


def _half_made(target: Path, kind: str, *, folder: bool = True) -> tuple[Path, int]:
    """A new hidden folder or file beside ``target``, and the handle that holds it for as long as it is open."""
    prefix = f".{os.fsdecode(os.fsencode(target.name)[:_NAME])}.vlkit-{kind}-"
    while True:
        if folder:
            path = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
            try:
                handle = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                continue  # another process took it for a leftover before it was held
        else:
            handle, name = tempfile.mkstemp(prefix=prefix, dir=target.parent)
            path = Path(name)
        if _hold(handle) is not False and same_file(path, handle):
            return path, handle
        os.close(handle)


def _hold(handle: int) -> bool | None:
    """Whether this process holds an open file or folder now, as long as it is open; None where there are no locks."""
    try:
        if fcntl is None:
            return None
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network disks
        return None
    return True


def same_file(path: Path, handle: int) -> bool:
    """Whether an open file or folder still is what its path leads to."""
    with suppress(OSError):
        return os.path.samestat(path.stat(), os.fstat(handle))
    return False


def sweep(folder: Path) -> None:
    """Removes what killed processes left half-made in a folder; what another process is still writing stays.

    A folder whose writer was killed when it had moved the old one aside gets the old one back.
    """
    try:
        left = [path for path in folder.iterdir() if _HALF_MADE.fullmatch(path.name)]
    except OSError:
        return
    for path in left:
        with suppress(OSError):
            handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
            try:
                if _hold(handle):
                    _discard(path)
            finally:
                os.close(handle)


def _discard(path: Path) -> None:
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for kept in path.iterdir() if ".vlkit-old-" in path.name else ():
        with suppress(OSError):  # another writer was faster
            if not (path.parent / kept.name).exists():
                kept.rename(path.parent / kept.name)
    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def disk_errors(target: Path, *, scratch: Path | None = None, then: str = "") -> Iterator[None]:
    """Turns what the disk refused into one clear message; with ``scratch``, only what it refused there.

    Raises:
        VlkitError: The disk is full or the place cannot be written to. ``then`` is what to do once it can.
    """
    try:
        yield
    except Exception as problem:
        error = _from_system(problem)
        if error is None or error.errno == errno.ENOENT or not (scratch is None or _is_under(scratch, error)):
            raise
        why = f"{error.filename} is no folder" if error.errno == errno.EEXIST else error.strerror
        raise VlkitError(
            f"cannot write {target}: {why}; free some space or choose a place that can be written to "
            f"(outputs: --out or run.folder, caches: the environment variable VLKIT_HOME)"
            + (f", then {then}" if then else "")
        ) from problem


def _from_system(error: Exception) -> OSError | None:
    """The system's refusal behind an error: of Python itself, or of a library in Rust, which has kinds of its own."""
    if isinstance(error, VlkitError):
        return None
    if isinstance(error, OSError):
        return None if error.strerror is None else error
    found = _FROM_RUST.search(str(error))
    if found is None and os.strerror(errno.ENOSPC) not in str(error):
        return None
    code = int(found[1] or found[2]) if found else errno.ENOSPC
    return OSError(code, os.strerror(code))


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
