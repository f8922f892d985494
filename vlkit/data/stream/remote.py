"""Shards from elsewhere, fetched whole: ``https://``, ``s3://`` and what else fsspec knows, and pipes."""

from __future__ import annotations

import contextlib
import errno
import http.client
import logging
import os
import re
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from vlkit import files
from vlkit.data.sources.shards import braces, expand
from vlkit.errors import DataError
from vlkit.spec.dataset import StreamSpec

_log = logging.getLogger(__name__)
_SCHEME = re.compile(r"([a-z][a-z0-9+.\-]*)://")
_PIPE = "pipe:"
_PIECE = 1 << 20
_HOPELESS = (400, 401, 403, 404, 405, 410)  # answers that do not change by asking again
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "hdfs": "pyarrow"}


class ShardLost(DataError):  # noqa: N818 - reads as a sentence where it is raised and caught
    """A shard that cannot be had or read; the others may still do."""


class _Hopeless(Exception):  # noqa: N818 - never leaves this module
    """A failure that trying again does not mend."""


def is_remote(path: str) -> bool:
    """Whether shards of this path have to be fetched: a URL or ``pipe:COMMAND``."""
    return path.startswith(_PIPE) or _SCHEME.match(path) is not None


def list_shards(path: str) -> tuple[str, ...]:
    """The shards of a path or pattern: local files as ``expand`` finds them, URLs and commands by their braces.

    In a command only ``{0000..0009}`` counts, as shells have braces too. ``*`` works where fsspec can list.

    Raises:
        DataError: Nothing is there, or the package that reads this kind of URL is missing.
    """
    if not is_remote(path):
        return tuple(str(found) for found in expand(path))
    if path.startswith(_PIPE):
        return tuple(braces(path, ranges_only=True))
    scheme = _scheme(path)
    if scheme not in ("http", "https"):
        _filesystem(scheme)
    shards: list[str] = []
    for piece in braces(path):
        if "*" in piece and scheme not in ("http", "https"):
            filesystem = _filesystem(scheme)()
            shards += [f"{scheme}://{found}" for found in sorted(map(str, filesystem.glob(piece)))]
        else:
            shards.append(piece)
    if not shards:
        raise DataError(f"{path}: no shard matches this pattern")
    return tuple(shards)


def _scheme(url: str) -> str:
    found = _SCHEME.match(url)
    return found[1] if found else ""


def _filesystem(scheme: str) -> Any:
    import fsspec

    try:
        return fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        package = _PACKAGES.get(scheme)
        raise DataError(
            f"{scheme}:// needs {f'a package: pip install {package}' if package else f'a package ({error})'}"
        ) from None
    except ValueError:
        raise DataError(f"{scheme}:// is no kind of URL that can be read; see fsspec's list of protocols") from None


def fetch(url: str, target: Path, *, spec: StreamSpec) -> None:
    """Copies a shard to ``target``, trying again where that may help; the cache of fetched shards is used if it is on.

    Raises:
        ShardLost: It cannot be had; the message ends with the last reason.
        DataError: The disk is full, or cannot be written to.
    """
    kept = files.home() / "shards" / f"{files.digest(url)}.tar"
    if spec.cache_gb and _link(kept, target):
        return
    for attempt in range(spec.retries + 1):
        try:
            _copy(url, target, timeout=spec.timeout)
            break
        except (_Hopeless, OSError, http.client.HTTPException, subprocess.SubprocessError, ValueError) as error:
            target.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno in _DISK:
                raise DataError(
                    f"cannot write {target}: {error.strerror}; free some space, lower data.stream.window_shards, or "
                    f"choose another place by the environment variable VLKIT_HOME"
                ) from error
            if attempt == spec.retries or isinstance(error, _Hopeless | FileNotFoundError | PermissionError):
                tries = f" ({attempt + 1} tries)" if attempt else ""
                raise ShardLost(f"{url}: cannot be fetched{tries}: {_reason(error)}") from error
            _log.info("%s: %s; trying again", url, _reason(error))
            time.sleep(spec.backoff * 2**attempt)
    if spec.cache_gb:
        _keep(target, kept, limit=int(spec.cache_gb * 1e9))


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
        return str(error.reason)
    return str(error) or type(error).__name__


def _copy(url: str, target: Path, *, timeout: float) -> None:
    if url.startswith(_PIPE):
        _copy_pipe(url[len(_PIPE) :], target, timeout=timeout)
    elif _scheme(url) in ("http", "https"):
        _copy_http(url, target, timeout=timeout)
    else:
        import fsspec

        remote = fsspec.open(url, "rb")
        with remote as stream, target.open("wb") as out:
            shutil.copyfileobj(stream, out, _PIECE)
        _check_size(target, remote.fs.size(remote.path))


def _copy_http(url: str, target: Path, *, timeout: float) -> None:
    try:
        # The scheme was looked at; fsspec would need one more package for these.
        with urllib.request.urlopen(url, timeout=timeout) as answer, target.open("wb") as out:
            shutil.copyfileobj(answer, out, _PIECE)
            wanted = answer.headers.get("Content-Length")
    except urllib.error.HTTPError as error:
        if error.code in _HOPELESS:
            raise _Hopeless(str(error)) from error
        raise
    _check_size(target, wanted)


def _check_size(fetched: Path, wanted: str | int | None) -> None:
    if wanted is not None and fetched.stat().st_size != int(wanted):
        raise OSError(f"{fetched.stat().st_size:,} of {int(wanted):,} bytes came")


def _copy_pipe(command: str, target: Path, *, timeout: float) -> None:
    """The output of a shell command, which is ended when it says nothing for ``timeout`` seconds."""
    with (
        target.open("wb") as out,
        subprocess.Popen(
            command, shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process,
        _patience(process, timeout) as heard,
    ):  # fmt: skip
        said: list[bytes] = []
        listener = threading.Thread(target=_listen, args=(process.stderr, said), daemon=True)
        listener.start()
        while process.stdout is not None and (piece := process.stdout.read1(_PIECE)):  # type: ignore[attr-defined]
            heard.set()
            out.write(piece)
        listener.join()
        code = process.wait()
    if code:
        tail = b"".join(said).decode(errors="replace").strip()[-200:]
        silent = " (silent for too long: data.stream.timeout)" if code == -9 else ""
        raise OSError(f"the command ended with code {code}{silent}{': ' + tail if tail else ''}")


def _listen(stream: IO[bytes] | None, said: list[bytes]) -> None:
    while stream is not None and (piece := stream.read(4096)):
        said.append(piece)
        del said[:-4]  # what it said last


@contextlib.contextmanager
def _patience(process: subprocess.Popen[bytes], timeout: float) -> Iterator[threading.Event]:
    """Kills a process and its children when the event is not set for ``timeout`` seconds."""
    heard, ended = threading.Event(), threading.Event()

    def watch() -> None:
        while heard.wait(timeout):
            heard.clear()
            if ended.is_set():
                return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield heard
    finally:
        ended.set()
        heard.set()
        watcher.join()


def _link(source: Path, target: Path) -> bool:
    """Another name for a file: it stays readable when the first name is deleted. False where there is no such file."""
    try:
        os.utime(source)  # used last now
        os.link(source, target)
    except OSError:
        return False
    return True


def _keep(fetched: Path, kept: Path, *, limit: int) -> None:
    """Puts a shard into the cache, which never grows above ``limit`` bytes: those used longest ago make room first."""
    from filelock import FileLock

    size = fetched.stat().st_size
    if size > limit:
        return
    kept.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(kept.parent / ".lock"):  # readers of one machine share the cache
        entries = []
        for path in kept.parent.glob("*.tar"):
            with contextlib.suppress(OSError):  # deleted by hand
                entries.append((path.stat().st_mtime, path.stat().st_size, path))
        total = size + sum(taken for _, taken, path in entries if path != kept)
        for _, taken, path in sorted(entries):
            if total <= limit:
                break
            if path != kept:
                path.unlink(missing_ok=True)
                total -= taken
        _link(fetched, kept)


@contextlib.contextmanager
def spool_folder() -> Iterator[Path]:
    """A folder for fetched shards, deleted at the end; those of processes that were killed are deleted too."""
    base = files.home() / "spool"
    host = os.uname().nodename
    for left in base.glob(f"{host}-*"):
        number = left.name[len(host) + 1 :].partition("-")[0]
        if number.isdigit() and not _alive(int(number)):
            shutil.rmtree(left, ignore_errors=True)
    folder = base / f"{host}-{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True
