"""Embeddings of texts on disk: a text is encoded once, whatever prompts and label sets it comes in again.

T texts, E embedding width.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from vlkit.files import write_atomic

log = logging.getLogger(__name__)
Keys = npt.NDArray[np.int64]
_ROW = 0xFFFFFFFF  # the row of a text in its file; the file's number is above


def text_keys(texts: Sequence[tuple[str, str]]) -> Keys:
    """64 bits of a digest for each (language, text); two of ten million share them with odds of 1 : 370,000."""
    seals = [hashlib.blake2b(f"{language}\0{text}".encode(), digest_size=8).digest() for language, text in texts]
    return np.frombuffer(b"".join(seals), dtype="<i8").astype(np.int64)


class TextStore:
    """Embeddings in files that are written whole and never changed.

    Memory holds 16 bytes a text. A file that is damaged is left out, so that its texts are encoded again.

    Args:
        folder: For this model's texts alone (``identity.texts_key``).
        names: The files to begin with; None takes what is there. Several processes must begin with the same.
        writes: Whether files are written, and damaged ones deleted: of several processes by one.
    """

    def __init__(self, folder: Path, names: Sequence[str] | None = None, *, writes: bool = True) -> None:
        self.folder, self.writes = folder, writes
        self._files: list[Path] = []
        self._key_T, self._place_T = np.zeros(0, np.int64), np.zeros(0, np.int64)
        for name in self.names(folder) if names is None else names:
            if (keys := _read_keys(folder / name)) is not None:
                self._index(folder / name, keys)

    @staticmethod
    def names(folder: Path) -> list[str]:
        """The files of a folder."""
        return sorted(path.name for path in folder.glob("*.safetensors"))

    def find(self, keys: Keys) -> tuple[npt.NDArray[np.bool_], Tensor | None]:
        """Which of T texts are known, and text_TE with zeros for the others (None where none is)."""
        known_T = np.zeros(len(keys), dtype=bool)
        text_TE: Tensor | None = None
        at_T = np.searchsorted(self._key_T, keys).clip(max=max(len(self._key_T) - 1, 0))
        if not len(self._key_T):
            return known_T, None
        hits = np.flatnonzero(self._key_T[at_T] == keys)
        place = self._place_T[at_T[hits]]
        for number in np.unique(place >> 32):
            found_TE = _read_rows(self._files[number])
            if found_TE is None:
                self._forget(int(number))
                continue
            here = place >> 32 == number
            text_TE = torch.zeros(len(keys), found_TE.shape[1]) if text_TE is None else text_TE
            text_TE[hits[here]] = found_TE[place[here] & _ROW]
            known_T[hits[here]] = True
        return known_T, text_TE

    def add(self, keys: Keys, text_TE: Tensor) -> None:
        """Keeps texts that were not known."""
        path = self.folder / f"{hashlib.blake2b(keys.tobytes(), digest_size=8).hexdigest()}.safetensors"
        if self.writes:
            tensors = {"keys": torch.from_numpy(keys), "text": text_TE.contiguous()}
            write_atomic(path, save(tensors, metadata={"crc32": str(_seal(tensors))}))
        self._index(path, keys)

    def _forget(self, number: int) -> None:
        if self.writes:
            self._files[number].unlink(missing_ok=True)
        kept = self._place_T >> 32 != number
        self._key_T, self._place_T = self._key_T[kept], self._place_T[kept]

    def _index(self, path: Path, keys: Keys) -> None:
        place = (len(self._files) << 32) + np.arange(len(keys), dtype=np.int64)
        self._files.append(path)
        key_T, place_T = np.concatenate([self._key_T, keys]), np.concatenate([self._place_T, place])
        order = np.argsort(key_T, kind="stable")
        self._key_T, self._place_T = key_T[order], place_T[order]


def _read_keys(path: Path) -> Keys | None:
    try:
        with safe_open(path, framework="pt") as opened:
            keys: Keys = opened.get_tensor("keys").numpy()
            return keys
    except (OSError, SafetensorError, KeyError) as error:
        _warn(path, error)
        return None


def _read_rows(path: Path) -> Tensor | None:
    try:
        raw = path.read_bytes()
        tensors = load(raw)
        if int(_metadata(raw)["crc32"]) != _seal(tensors):
            raise ValueError("its checksum does not fit")
        found: Tensor = tensors["text"]
        return found
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        _warn(path, error)
        return None


def _warn(path: Path, error: Exception) -> None:
    log.warning("embeddings of texts in %s are damaged (%s); they are computed again", path, error)


def _metadata(raw: bytes) -> dict[str, str]:
    size = int.from_bytes(raw[:8], "little")
    found: dict[str, str] = json.loads(raw[8 : 8 + size])["__metadata__"]
    return found


def _seal(tensors: dict[str, Tensor]) -> int:
    return zlib.crc32(tensors["text"].numpy().tobytes(), zlib.crc32(tensors["keys"].numpy().tobytes()))
