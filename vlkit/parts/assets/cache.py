"""Folders that count as there only when a manifest, written last, says that they are whole."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlkit.errors import AssetError
from vlkit.files import home, sha256

MANIFEST = "vlkit_asset.json"
_log = logging.getLogger(__name__)


def asset_folder(name: str, *, library: str) -> Path:
    """Where a converted asset lives; it need not exist."""
    return home() / "assets" / library / name.replace("/", "--")


def write_manifest(folder: Path, about: Mapping[str, Any]) -> None:
    """Lists all files of ``folder`` with size and digest beside ``about``; the last file written into a folder."""
    files = {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    (folder / MANIFEST).write_text(json.dumps({**about, "files": files}, indent=2) + "\n", encoding="utf-8")


def provenance(folder: str | Path) -> dict[str, Any] | None:
    """What a cached asset is made of: name, license, source, wheels and files with digests; or None."""
    try:
        read = json.loads((Path(folder) / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return read if isinstance(read, dict) else None


def problem(folder: Path, *, made_from: str | None = None) -> str | None:
    """Why this folder cannot be used, or None when it is whole: sizes are compared, digests are not read again.

    ``made_from`` is the digest of what it should be made from; another one means that it is out of date.
    """
    if not folder.is_dir():
        return f"not in {folder.parent}"
    manifest = provenance(folder)
    if manifest is None:
        return f"{folder} is not complete (no {MANIFEST})"
    if made_from is not None and manifest.get("made_from") != made_from:
        return f"{folder} was made by another version of vlkit"
    for name, entry in manifest.get("files", {}).items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != entry["size"]:
            return f"{path} is missing or was changed"
    return None


@contextmanager
def lock(target: Path) -> Iterator[None]:
    """Lets one process at a time make ``target``; the lock falls when its holder ends, however it ends.

    Raises:
        AssetError: The folder cannot be written to.
    """
    from filelock import FileLock, Timeout

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(target.parent / f".{target.name}.lock")
        try:
            held.acquire(timeout=0)
        except Timeout:
            _log.warning("another process is making %s; waiting for it", target)
            held.acquire()
    except (OSError, NotImplementedError) as error:  # the latter: a network disk that knows no locks
        why = getattr(error, "strerror", None) or error
        raise AssetError(
            f"cannot write to {target.parent}: {why}; set the environment variable VLKIT_HOME to a folder that can be "
            f"written to"
        ) from error
    try:
        yield
    finally:
        held.release()


def sweep(target: Path) -> None:
    """Removes what killed processes left beside ``target``; call it with the lock held."""
    # Scratch names are those of tempfile: eight characters without a dash, so that `.a-` never takes those of `.a-b-`.
    scratch = re.compile(re.escape(f".{target.name}-") + r"(old-)?[a-z0-9_]{8}")
    for path in target.parent.iterdir():
        if scratch.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)
