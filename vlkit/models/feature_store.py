"""Rows of features on disk by the digest of their input: computed once, read back a few at a time.

N rows, each a tensor of one shape: a pooled feature [D], a grid of image tokens [M, D].
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlkit.errors import VlkitError
from vlkit.files import digest, home, write_atomic

log = logging.getLogger(__name__)
Numbers: TypeAlias = npt.NDArray[np.int64]
Blocks: TypeAlias = Iterable[tuple[Sequence[int], Tensor]]
"""Numbers of inputs with their features, block by block."""
_FLUSH_EVERY = 60.0  # seconds of work that a kill may cost
_FILE_BYTES = 1 << 25  # that wait for being written: what the store itself holds in memory
_ROW = 0xFFFFFFFF  # a place is the row in its file, and the file's number above that
_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_HEADER = 1 << 26  # bytes that no header of ours has


def key_of(*what: object) -> int:
    """The key of an input: 64 bits of a digest of what it is made of.

    Two of ten million inputs share one with odds of 1 : 370,000.
    """
    seal = hashlib.blake2b(digest_size=16)
    for part in what:
        seal.update(part if isinstance(part, bytes) else str(part).encode())
        seal.update(b"\0")
    return int.from_bytes(seal.digest()[:8], "big", signed=True)


def shared_folder(key: Mapping[str, Any]) -> Path:
    """The folder in vlkit's cache for all that decides features but their input: weights, transform, precision."""
    return home() / "features" / digest(key)


class FeatureStore:
    """Rows by key, in files that are written whole, never changed, and read where they lie.

    Memory holds 16 bytes a row, the rows asked for, and up to a minute or 32 MiB of rows that are not written yet. To
    add rows costs what they are, however many are there. Each block of rows that was added at once has a checksum,
    which is looked at once before its rows are used: what does not fit is left out, so that it is computed again.
    Several processes may read one folder, and write to it if they write different rows. ``shape`` is that of one row,
    None while there is none.

    Args:
        folder: For one model and one setting: all that decides a row beside its key.
        dtype: Of the rows as they are stored and read: float32, float16 or bfloat16.
        names: The files to begin with; None takes what is there. Processes that go on in step must begin with the same.
        writes: Whether damaged files are mended, and deleted: of processes in step by one.
    """

    def __init__(
        self,
        folder: Path,
        *,
        dtype: torch.dtype = torch.float32,
        names: Sequence[str] | None = None,
        writes: bool = True,
    ) -> None:
        self.folder, self.dtype, self.writes = folder, dtype, writes
        self.shape: tuple[int, ...] | None = None
        self._parts: list[_RowFile | _Unwritten] = []
        self._names: set[str] = set()
        self._key_N, self._place_N = np.zeros(0, np.int64), np.zeros(0, np.int64)  # sorted by key
        self._new: dict[int, int] = {}  # key -> place of what is not written yet
        self._unwritten: _Unwritten | None = None
        self._written = time.monotonic()
        self.include(self.names(folder) if names is None else names)

    @staticmethod
    def names(folder: Path) -> list[str]:
        """The files of a folder."""
        return sorted(path.name for path in folder.glob("*.safetensors"))

    def include(self, names: Iterable[str]) -> None:
        """Takes in files that other processes wrote."""
        keys, places = [self._key_N], [self._place_N]
        for name in names:
            if name in self._names:
                continue
            path = self.folder / name
            try:
                file = _RowFile(path)
                if file.dtype != self.dtype or file.shape != (self.shape or file.shape):
                    raise ValueError(f"its rows are {file.dtype} of shape {list(file.shape)}")
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                self._warn(path, str(error))
                if self.writes:
                    path.unlink(missing_ok=True)
                continue
            self.shape = file.shape
            keys.append(file.keys())
            places.append((len(self._parts) << 32) + np.arange(file.count, dtype=np.int64))
            self._parts.append(file)
            self._names.add(name)
        if len(keys) > 1:
            self._index(np.concatenate(keys), np.concatenate(places))

    def find(self, keys: Numbers) -> Numbers:
        """The places of N rows, -1 where one is not known."""
        while True:
            place_N = np.full(len(keys), -1, dtype=np.int64)
            if len(self._key_N):
                at_N = np.searchsorted(self._key_N, keys).clip(max=len(self._key_N) - 1)
                hit_N = self._key_N[at_N] == keys
                place_N[hit_N] = self._place_N[at_N[hit_N]]
            if self._new:
                rest = np.flatnonzero(place_N < 0)
                place_N[rest] = [self._new.get(key, -1) for key in keys[rest].tolist()]
            if not self._leave_out_damaged(place_N):
                return place_N

    def read(self, place_N: Numbers) -> Tensor:
        """The rows at places that ``find`` gave, [N, ...]; zeros for -1 where there are others."""
        part_N = place_N >> 32
        parts = np.unique(part_N)
        if len(parts) == 1 and parts[0] >= 0:
            return self._parts[int(parts[0])].rows(place_N & _ROW)
        found = torch.zeros(len(place_N), *(self.shape or ()), dtype=self.dtype)
        for number in parts[parts >= 0].tolist():
            here = np.flatnonzero(part_N == number)
            found[torch.from_numpy(here)] = self._parts[number].rows(place_N[here] & _ROW)
        return found

    def add(self, keys: Numbers, rows: Tensor) -> None:
        """Keeps rows that were not known; ``flush`` writes them."""
        shape = tuple(rows.shape[1:])
        if shape != (self.shape or shape):
            raise VlkitError(f"features of shape {list(shape)} beside others of shape {list(self.shape or ())}")
        self.shape = shape
        if self._unwritten is None:
            self._unwritten = _Unwritten(len(self._parts))
            self._parts.append(self._unwritten)
        first = (self._unwritten.number << 32) + self._unwritten.count
        self._new.update(zip(keys.tolist(), range(first, first + len(keys)), strict=True))
        self._unwritten.add(keys, rows.detach().to("cpu", self.dtype).contiguous())

    def flush(self) -> str | None:
        """Writes what is not on disk yet; the name of the file, None where all was."""
        if self._unwritten is None:
            return None
        number, keys, path = self._unwritten.number, self._unwritten.keys(), self._write(self._unwritten)
        self._parts[number] = _RowFile(path, checked=True)
        self._names.add(path.name)
        first = number << 32
        at_N = np.argsort(keys, kind="stable")
        into_N = np.searchsorted(self._key_N, keys[at_N])
        self._key_N = np.insert(self._key_N, into_N, keys[at_N])
        self._place_N = np.insert(self._place_N, into_N, first + at_N)
        self._new, self._unwritten, self._written = {}, None, time.monotonic()
        return path.name

    def flush_if_due(self) -> None:
        """Writes what would be too much to lose or to hold."""
        if self._unwritten is not None and (
            self._unwritten.bytes >= _FILE_BYTES or time.monotonic() - self._written > _FLUSH_EVERY
        ):
            self.flush()

    def fill(self, keys: Numbers, compute: Callable[[list[int]], Blocks]) -> Numbers:
        """The places of N rows, after those that were not known are computed.

        ``compute``, given the numbers of the inputs that are not known yet, yields their features in blocks. What it
        yielded is kept even if it fails later. Inputs that it leaves out are at -1 and not remembered.

        Raises:
            VlkitError: Features that are not finite, no row at all, or a disk that is full.
        """
        place_N = self.find(keys)
        unknown = np.flatnonzero(place_N < 0)
        if not len(unknown):
            return place_N
        missing = np.sort(unknown[np.unique(keys[unknown], return_index=True)[1]])
        for rows, features in compute(missing.tolist()):
            if not bool(features.isfinite().all()):
                raise VlkitError(f"the encoder gave features that are not finite for inputs {rows[0]} to {rows[-1]}")
            self.add(keys[np.asarray(rows)], features)
            self.flush_if_due()
        place_N = self.find(keys)
        if (place_N < 0).all():
            raise VlkitError(f"there are no features of any of {len(keys)} inputs")
        return place_N

    def fetch(self, keys: Numbers, compute: Callable[[list[int]], Blocks]) -> Tensor:
        """The rows of N inputs in their order, zeros for those that ``compute`` leaves out; see ``fill``."""
        return self.read(self.fill(keys, compute))

    def _write(self, part: _Unwritten) -> Path:
        keys = part.keys()
        path = self.folder / f"{hashlib.blake2b(keys.tobytes(), digest_size=8).hexdigest()}.safetensors"
        blocks = [(len(block), crc32) for (block, _), crc32 in zip(part.blocks, part.sums, strict=True)]
        shape = [len(keys), *part.blocks[0][1].shape[1:]]
        header = {
            "__metadata__": {"blocks": json.dumps(blocks)},
            "keys": {"dtype": "I64", "shape": [len(keys)], "data_offsets": [0, keys.nbytes]},
            "rows": {
                "dtype": _NAMES[self.dtype],
                "shape": shape,
                "data_offsets": [keys.nbytes, keys.nbytes + part.bytes],
            },
        }
        raw = json.dumps(header).encode()
        raw += b" " * (-len(raw) % 8)
        rows = (_bytes(rows) for _, rows in part.blocks)
        write_atomic(path, len(raw).to_bytes(8, "little") + raw, keys.data.cast("B"), *rows)
        return path

    def _leave_out_damaged(self, place_N: Numbers) -> bool:
        """Looks at the checksums of what is about to be used; True where something had to be left out."""
        part_N = place_N >> 32
        left_out = False
        for number in np.unique(part_N[place_N >= 0]).tolist():
            file = self._parts[number]
            if isinstance(file, _RowFile) and (bad := file.damaged(place_N[part_N == number] & _ROW)):
                self._warn(file.path, "its checksum does not fit")
                self._leave_out(number, file, bad)
                left_out = True
        return left_out

    def _leave_out(self, number: int, file: _RowFile, bad: Sequence[int]) -> None:
        gone_N = self._place_N >> 32 == number
        if self.writes:  # what is good of it goes on in a file of its own
            bad = file.damaged(np.arange(file.count))
            good, keys = _Unwritten(number), file.keys()
            for block in sorted({*range(len(file.sums))} - {*bad}):
                span = np.arange(file.starts[block], file.starts[block + 1])
                good.add(keys[span], file.rows(span))
            self._index(self._key_N[~gone_N], self._place_N[~gone_N])
            self._names.discard(file.path.name)
            if good.count:
                self.include([self._write(good).name])
            file.path.unlink(missing_ok=True)
            return
        gone_N[gone_N] = np.isin(file.blocks_of(self._place_N[gone_N] & _ROW), bad)
        self._index(self._key_N[~gone_N], self._place_N[~gone_N])

    def _index(self, key_N: Numbers, place_N: Numbers) -> None:
        order = np.argsort(key_N, kind="stable")
        self._key_N, self._place_N = key_N[order], place_N[order]

    @staticmethod
    def _warn(path: Path, why: str) -> None:
        log.warning("features in %s are damaged (%s); they are computed again", path, why)


class _Unwritten:
    """Rows that are not on disk yet: blocks as they were added, with their checksums."""

    def __init__(self, number: int) -> None:
        self.number = number  # its place among the parts of a store
        self.blocks: list[tuple[Numbers, Tensor]] = []
        self.sums: list[int] = []
        self._starts, self.bytes = [0], 0

    @property
    def count(self) -> int:
        return self._starts[-1]

    def add(self, keys: Numbers, rows: Tensor) -> None:
        self.blocks.append((keys, rows))
        self.sums.append(_seal(keys, _bytes(rows)))
        self._starts.append(self.count + len(keys))
        self.bytes += rows.nbytes

    def keys(self) -> Numbers:
        return np.concatenate([keys for keys, _ in self.blocks])

    def rows(self, rows_N: Numbers) -> Tensor:
        block_N = np.searchsorted(self._starts, rows_N, side="right") - 1
        found = self.blocks[0][1].new_empty(len(rows_N), *self.blocks[0][1].shape[1:])
        for number in np.unique(block_N).tolist():
            here = np.flatnonzero(block_N == number)
            chosen = torch.from_numpy(rows_N[here] - self._starts[number])
            found[torch.from_numpy(here)] = self.blocks[number][1][chosen]
        return found


class _RowFile:
    """A safetensors file of ``keys`` and ``rows`` that is read where it lies, block by block checked before its use."""

    def __init__(self, path: Path, *, checked: bool = False) -> None:
        self.path = path
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > _HEADER:
                raise ValueError("it has no header")
            header = json.loads(stream.read(size))
        counts, sums = zip(*json.loads(header["__metadata__"]["blocks"]), strict=True)
        self.starts, self.sums = np.cumsum([0, *counts]), list[int](sums)
        self.count, *shape = header["rows"]["shape"]
        self.dtype, self.shape = {name: dtype for dtype, name in _NAMES.items()}[header["rows"]["dtype"]], tuple(shape)
        self._keys_at, self._rows_at = (8 + size + header[name]["data_offsets"][0] for name in ("keys", "rows"))
        self._width = int(np.prod(shape, dtype=np.int64))
        self._checked = np.full(len(self.sums), checked)
        if self.starts[-1] != self.count:
            raise ValueError("its header does not fit together")

    def keys(self) -> Numbers:
        with self.path.open("rb") as stream:
            stream.seek(self._keys_at)
            keys = np.frombuffer(stream.read(8 * self.count), dtype="<i8").astype(np.int64)
        if len(keys) != self.count:
            raise ValueError("it was cut off")
        return keys

    def rows(self, rows_N: Numbers) -> Tensor:
        """Copies of some rows; the file is mapped for as long as that takes, so that memory does not fill with it."""
        plain = np.dtype(f"<i{self.dtype.itemsize}")
        with self.path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            whole = (len(mapped) - self._rows_at) // max(1, plain.itemsize * self._width)
            mapped_NW = np.ndarray((min(whole, self.count), self._width), plain, mapped, self._rows_at)
            found_NW = mapped_NW[rows_N]
            del mapped_NW
        return torch.from_numpy(found_NW).view(self.dtype).view(-1, *self.shape)

    def blocks_of(self, rows_N: Numbers) -> Numbers:
        found: Numbers = np.searchsorted(self.starts, rows_N, side="right") - 1
        return found

    def damaged(self, rows_N: Numbers) -> list[int]:
        """Which of the blocks of these rows are not as they were written."""
        if self._checked.all():
            return []
        bad = []
        size = self.dtype.itemsize * self._width
        try:
            with self.path.open("rb") as stream:
                for block in np.unique(self.blocks_of(rows_N)).tolist():
                    if self._checked[block]:
                        continue
                    first, count = int(self.starts[block]), int(self.starts[block + 1] - self.starts[block])
                    stream.seek(self._keys_at + 8 * first)
                    keys = np.frombuffer(stream.read(8 * count), dtype=np.uint8)
                    stream.seek(self._rows_at + size * first)
                    self._checked[block] = _seal(keys, stream.read(size * count)) == self.sums[block]
                    if not self._checked[block]:
                        bad.append(block)
        except OSError:  # gone, or not to be read
            return list(range(len(self.sums)))
        return bad


def _bytes(rows: Tensor) -> memoryview:
    plain = rows.reshape(-1).view(torch.uint8).numpy()
    return plain.data


def _seal(keys: npt.NDArray[Any], rows: bytes | memoryview) -> int:
    return zlib.crc32(rows, zlib.crc32(keys.tobytes()))
