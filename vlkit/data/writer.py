"""WebDataset shards with the same bytes on every machine."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from vlkit.errors import DataError


class ShardWriter:
    """Writes samples into ``PREFIX-0000.tar``, ``PREFIX-0001.tar``, ... of at most ``per_shard`` samples.

    Headers carry neither time nor owner, so the bytes depend on the samples alone.
    """

    def __init__(self, folder: Path, *, prefix: str = "shard", per_shard: int = 1000) -> None:
        self.folder, self.prefix, self.per_shard = folder, prefix, per_shard
        self.count = 0
        self.paths: list[Path] = []
        self._tar: tarfile.TarFile | None = None

    def __enter__(self) -> ShardWriter:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def write(self, key: str, members: Mapping[str, bytes]) -> None:
        """Adds one sample; ``members`` maps suffix ("png", "json", "txt") to content.

        Raises:
            DataError: The key has a dot or a path, which readers would take for a suffix or a folder.
        """
        if not key or "." in key or "/" in key:
            raise DataError(f"sample key {key!r}: must be non-empty, without '.' and '/'")
        if self.count % self.per_shard == 0:
            self._open()
        if self._tar is None:
            raise DataError("ShardWriter is used outside its with block")
        for suffix, content in members.items():
            info = tarfile.TarInfo(f"{key}.{suffix}")
            info.size, info.mtime, info.mode = len(content), 0, 0o644
            self._tar.addfile(info, io.BytesIO(content))
        self.count += 1

    def _open(self) -> None:
        self._close()
        path = self.folder / f"{self.prefix}-{len(self.paths):04d}.tar"
        self._tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - closed when the shard is full
        self.paths.append(path)

    def _close(self) -> None:
        if self._tar is not None:
            self._tar.close()
            self._tar = None


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """Compact UTF-8 JSON with sorted keys."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
