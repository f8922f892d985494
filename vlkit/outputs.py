"""What a command may write to: a place that can be a folder, holds nothing of others, and is written by one process."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from vlkit.errors import VlkitError, some
from vlkit.files import disk_errors, fcntl, same_file
from vlkit.paths import local_path

_LOCK = ".lock"
_UNSEEN = (_LOCK, ".DS_Store", "Thumbs.db", "desktop.ini")  # ours, and what file managers leave behind
_held: dict[str, tuple[int, int]] = {}  # folder -> process and thread that hold it


def check_folder(path: Path) -> None:
    """Refuses a place where no folder is and none can be made; to be called before anything is read.

    Raises:
        VlkitError: A file, a link that leads nowhere, too long a name, or a place that cannot be written to.
    """
    place = local_path(path)
    while True:
        try:
            is_folder = place.is_dir() if place.exists() else None
        except OSError as error:
            raise VlkitError(f"cannot write {path}: {error.strerror}; choose another place") from None
        if is_folder is None and place.is_symlink():
            raise VlkitError(
                f"{place} is a link to {place.readlink()}, which is not there; remove the link, or make the folder "
                f"that it leads to"
            )
        if is_folder is not None:
            break
        place = place.parent
    if not is_folder:
        raise VlkitError(f"{place} is a file; choose a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise VlkitError(f"cannot write {path}: {place} cannot be written to; choose another place")


def check_replaceable(
    target: Path, *, what: str, made: Callable[[Path], bool], names: Sequence[str], inputs: Iterable[str | Path] = ()
) -> bool:
    """Whether there is something in ``target`` that may be replaced; refuses all that may not.

    One rule for all commands: nothing is replaced that vlkit did not write itself, and never what a command reads.

    Args:
        target: A folder that is to be written anew, all of it.
        what: What vlkit writes there, for messages: "a model".
        made: Whether a folder bears the mark of what vlkit writes.
        names: Patterns of the names of its files and folders.
        inputs: Files and folders that are read meanwhile.

    Raises:
        VlkitError: Something else is there, or an input.
    """
    check_folder(target)
    refuse_inputs(target, inputs)
    found = sorted(path.name for path in target.iterdir() if path.name not in _UNSEEN) if target.is_dir() else []
    if not found:
        return False
    if not made(target):
        raise VlkitError(
            f"{target} holds something else than {what} ({some(found, most=3)}), and all of it would be replaced; "
            f"choose a new folder"
        )
    if others := [name for name in found if not any(fnmatch(name, pattern) for pattern in names)]:
        raise VlkitError(
            f"{target} holds {what} and beside it {some(others, most=3)}, which vlkit did not write and would delete; "
            f"move that away, or choose a new folder"
        )
    return True


def refuse_inputs(target: Path, inputs: Iterable[str | Path]) -> None:
    """Refuses to replace a folder that holds what a command reads; ``inputs`` may be names of other things as well.

    Raises:
        VlkitError: An input lies in it, or is it.
    """
    real = target.resolve()
    for given in inputs:
        for text in (str(given), str(given).partition(":")[2]):  # hf:FOLDER
            if text and (path := _there(text)) is not None and path.is_relative_to(real):
                raise VlkitError(
                    f"{target} would be replaced and holds {given}, which is read here; choose another place"
                )


def _there(text: str) -> Path | None:
    """Where a text leads, if it is the path of something that is there."""
    with suppress(OSError, ValueError, RuntimeError):  # nothing there, or no path at all
        return local_path(text).resolve(strict=True)
    return None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a folder while it is written; another process that wants to write it is told who does.

    The lock falls with the process, however it ends. A thread may lock a folder that it holds already.

    Raises:
        VlkitError: Another process or thread writes it, or no folder can be there.
    """
    check_folder(folder)
    real = str(folder.resolve())
    here = (os.getpid(), threading.get_ident())
    holder = _held.get(real)
    if holder == here:
        yield
        return
    if holder is not None and holder[0] == here[0]:
        raise VlkitError(_busy(folder, {}))
    made = not folder.exists()
    with disk_errors(folder):
        try:
            handle = _lock(folder)
        except FileNotFoundError as error:  # in /proc, in a folder that is deleted, on a disk that has gone
            raise VlkitError(f"cannot write {folder}: no folder can be made there; choose another place") from error
    _held[real] = here
    try:
        yield
    finally:
        del _held[real]
        with suppress(OSError):
            (folder / _LOCK).unlink()
        os.close(handle)
        if made:
            with suppress(OSError):  # something was written
                folder.rmdir()


def _lock(folder: Path) -> int:
    # POSIX locks, unlike flock, are not shared with forked children, which may outlive their parent.
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            continue  # its holder has ended and taken the new, empty folder away
        try:
            if fcntl is not None:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raw = os.read(handle, 1 << 16)
            os.close(handle)
            raise VlkitError(_busy(folder, _parsed(raw))) from None
        except OSError:
            return handle  # a disk without locks
        if not same_file(folder / _LOCK, handle):
            os.close(handle)
            continue
        who = {"pid": os.getpid(), "host": socket.gethostname(), "command": sys.argv, "since": time.strftime("%F %T")}
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(who).encode())
        return handle


def _parsed(raw: bytes) -> dict[str, Any]:
    with suppress(ValueError):
        found = json.loads(raw)
        return found if isinstance(found, dict) else {}
    return {}


def _busy(folder: Path, who: dict[str, Any]) -> str:
    other = "another part of this process"
    if who:
        command = " ".join(str(word) for word in who.get("command", ()))
        other = f"process {who.get('pid')} on {who.get('host')} since {who.get('since')} ({command})"
    return f"{folder} is being written by {other}; wait until it ends, stop it, or choose another place"
