"""WebDataset shards with the same bytes on every machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from webdataset import TarWriter

from vlkit.errors import DataError
from vlkit.foreign import printable
from vlkit.types import Sample

_BLOCK = 512
_END = 20 * _BLOCK  # a tar is filled up to a multiple of this


class ShardWriter:
    """Writes samples into ``PREFIX-0000.tar``, ``PREFIX-0001.tar``, ...; a shard has its name once it is whole.

    Headers carry neither time nor owner, so the bytes depend on the samples alone. A shard has ``per_shard`` samples
    and ``max_bytes`` bytes at most (a single larger sample is a shard of its own); ``first`` is the number of the first
    one. ``sizes`` has name -> samples of the whole shards, and of the one at hand, the last.
    """

    def __init__(
        self,
        folder: Path,
        *,
        prefix: str = "shard",
        per_shard: int | None = 1000,
        max_bytes: int | None = None,
        first: int = 0,
    ) -> None:
        self.folder, self.prefix, self.first = folder, prefix, first
        self.per_shard, self.max_bytes = per_shard, max_bytes
        self.sizes: dict[str, int] = {}
        self._path = folder
        self._file: IO[bytes] | None = None
        self._tar: Any = None

    def __enter__(self) -> ShardWriter:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._close()
        elif self._file is not None:
            for part in (self._tar, self._file):
                with suppress(OSError):  # a full disk
                    part.close()
            _half(self._path).unlink(missing_ok=True)

    def write(self, key: str, members: Mapping[str, bytes]) -> bool:
        """Adds one sample, whose ``members`` map suffix ("png", "json", "txt") to content.

        True where it is the first one of a new shard: all shards before are whole now.

        Raises:
            DataError: The key has a dot or a path, which readers would take for a suffix or a folder.
        """
        if not key or "." in key or "/" in key:
            raise DataError(f"sample key {key!r}: must be non-empty, without '.' and '/'")
        new = self._tar is None or self._full(members)
        if new:
            self._open()
        self._tar.write({"__key__": key, **members})
        self.sizes[self._path.name] += 1
        return new

    def _full(self, members: Mapping[str, bytes]) -> bool:
        if self.per_shard is not None and self.sizes[self._path.name] >= self.per_shard:
            return True
        more = sum(_BLOCK - (-len(content) // _BLOCK) * _BLOCK for content in members.values())
        end = -(-(self._tar.tarstream.offset + more + 2 * _BLOCK) // _END) * _END
        return self.max_bytes is not None and end > self.max_bytes

    def _open(self) -> None:
        self._close()
        self._path = self.folder / f"{self.prefix}-{self.first + len(self.sizes):04d}.tar"
        self._file = _half(self._path).open("wb")
        self._tar = TarWriter(self._file, user="", group="", mode=0o644, mtime=0, encoder=False)
        self.sizes[self._path.name] = 0

    def _close(self) -> None:
        if self._tar is not None and self._file is not None:
            self._tar.close()
            self._file.close()
            self._tar = self._file = None
            _half(self._path).replace(self._path)


def said_of(sample: Sample) -> dict[str, Any]:
    """What a record says of a sample beside its captions: turns, task, translated, keywords, where there are any."""
    turns = [{"role": turn.role, "text": turn.text, "language": turn.language} for turn in sample.turns]
    said = {"turns": turns, "task": sample.task, "translated": sample.translated, "keywords": list(sample.keywords)}
    return {name: value for name, value in said.items() if value not in ("", None, [])}


def _half(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def record_bytes(
    captions: Mapping[str, Sequence[str]], *, more: Mapping[str, Any] | None = None, **facts: str
) -> bytes:
    """The ``.json`` of a sample, the same bytes each time: texts by language, lists where there are several.

    ``more`` is what ``said_of`` gave; facts that are empty are left out.
    """
    plain = {language: texts[0] if len(texts) == 1 else list(texts) for language, texts in captions.items()}
    said = dict(more or {})
    value: dict[str, Any] = {"captions": plain} if captions or "turns" not in said else {}
    value |= {name: printable(fact) for name, fact in facts.items() if fact} | said
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
