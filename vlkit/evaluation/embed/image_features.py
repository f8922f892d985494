"""Image embeddings on disk: each image is encoded once, by any number of processes, whatever is evaluated.

N images, E embedding width, B images of one batch.
"""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor
from typing_extensions import Unpack

from vlkit.errors import VlkitError
from vlkit.evaluation.embed.encode import Embedder, encode_prepared, prepare, read_ahead, together
from vlkit.evaluation.embed.encoding import Encoding, How
from vlkit.evaluation.embed.identity import features_key
from vlkit.files import write_atomic
from vlkit.progress import Bar, bar
from vlkit.types import Sample

_DONE = 1 << 32  # over the 32 bits of the checksum: this batch was written


@dataclass(frozen=True)
class ImageFeatures:
    """L2-normalised float32 image_NE in a file.

    Only the rows asked for are read, so that memory does not grow with N.
    """

    path: Path
    count: int
    width: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows: Tensor) -> Tensor:
        """image_BE of the images of these numbers."""
        mapped = np.memmap(self.path, dtype=np.float32, mode="r", shape=(self.count, self.width))
        return torch.from_numpy(np.array(mapped[rows.numpy()]))


@contextmanager
def image_features(model: Embedder, samples: Sequence[Sample], **how: Unpack[How]) -> Iterator[ImageFeatures]:
    """The embeddings of all images, computed where they are not known yet.

    A run that was stopped goes on where it was; batches that were damaged on disk are computed again. One process or
    several write the same file.

    Args:
        model: Embeds one side of each pair.
        samples: The images.
        how: See ``Encoding``. Without a cache, embeddings are kept only inside the block.

    Raises:
        VlkitError: No image, an embedding that is not finite, or a folder that not all processes see.
    """
    encoding = Encoding(**how)
    if not samples:
        raise VlkitError("no images to encode; give at least one")
    with tempfile.TemporaryDirectory(prefix="vlkit-features-") as scratch:
        if encoding.cache is None:
            folder = Path(encoding.ranks.gather_objects(scratch)[0])
        else:
            folder = encoding.cache / features_key(model, samples)
        with together(encoding.ranks):
            file = _File(folder, len(samples), encoding)
        quiet = encoding.quiet or encoding.follows
        with bar("images", total=len(samples), unit="images", quiet=quiet) as shown:
            file.fill(model, samples, shown)
        yield ImageFeatures(folder / "features.f32", len(samples), file.width)
        encoding.ranks.barrier()  # the scratch folder of rank 0 is read by all


class _File:
    """Rows of float32, and for each batch of rows its checksum once it is written."""

    def __init__(self, folder: Path, count: int, encoding: Encoding) -> None:
        self.folder, self.count, self.encoding, self.ranks = folder, count, encoding, encoding.ranks
        self.batch_size, self.width = encoding.batch_size, 0
        try:
            meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
            if meta["count"] == count:
                self.batch_size, self.width = int(meta["batch_size"]), int(meta["width"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # nothing there yet, or nothing of use
        self.batches = [range(start, min(start + self.batch_size, count)) for start in range(0, count, self.batch_size)]

    def fill(self, model: Embedder, samples: Sequence[Sample], shown: Bar) -> None:
        """Computes what is missing."""
        missing: list[int] = self.ranks.gather_objects(self._missing() if self.ranks.rank == 0 else [])[0]
        shown.advance(self.count - sum(len(self.batches[number]) for number in missing))
        encoded = self._encode(model, samples, missing[self.ranks.rank :: self.ranks.size])
        with together(self.ranks):
            first = next(encoded, None)
        if self.width == 0:
            self.width = max(self.ranks.gather_objects(0 if first is None else first[1].shape[1]))
            with together(self.ranks):
                if self.ranks.rank == 0:
                    self._create()
            with together(self.ranks):
                self._check_shared()
        count = 0
        with together(self.ranks):
            for number, image_BE in encoded if first is None else chain([first], encoded):
                self._write(number, image_BE)
                count += len(image_BE)
                shown.advance(len(image_BE))
        self.encoding.work.images += sum(self.ranks.gather_objects(count))

    def _encode(
        self, model: Embedder, samples: Sequence[Sample], numbers: Sequence[int]
    ) -> Iterator[tuple[int, Tensor]]:
        batches = [[samples[row] for row in self.batches[number]] for number in numbers]
        prepared = read_ahead(batches, lambda sample: prepare(model, sample.image()), workers=self.encoding.workers)
        for number, batch, images in zip(numbers, batches, prepared, strict=True):
            image_BE = encode_prepared(model, images, names=[sample.key for sample in batch])
            yield number, F.normalize(image_BE, dim=1)

    def _missing(self) -> list[int]:
        """Batches that are not on disk as they were written."""
        everything = list(range(len(self.batches)))
        if self.width == 0:
            return everything
        rows, done = self._sizes()
        for path, size in ((self._features, rows), (self._done, done)):
            if not path.exists() or path.stat().st_size != size:
                path.touch()
                with path.open("r+b") as stream:
                    stream.truncate(size)  # what was cut off is zeros now, which no checksum fits
        sums = np.fromfile(self._done, dtype=np.uint64)
        mapped = np.memmap(self._features, dtype=np.float32, mode="r", shape=(self.count, self.width))
        return [
            number
            for number in everything
            if int(sums[number]) != _seal(mapped[self.batches[number].start : self.batches[number].stop])
        ]

    def _create(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for path, size in zip((self._features, self._done), self._sizes(), strict=True):
            with path.open("wb") as stream:
                stream.truncate(size)
        meta = {"count": self.count, "width": self.width, "batch_size": self.batch_size}
        write_atomic(self.folder / "meta.json", json.dumps(meta) + "\n")

    def _check_shared(self) -> None:
        if not (self.folder / "meta.json").exists():
            raise VlkitError(
                f"the folder {self.folder} made by the first process is not seen by all; give a cache folder on a "
                f"file system that all of them share"
            )

    def _write(self, number: int, image_BE: Tensor) -> None:
        rows = np.ascontiguousarray(image_BE.numpy(), dtype=np.float32)
        with self._features.open("r+b") as stream:
            stream.seek(self.batches[number].start * self.width * 4)
            stream.write(rows.tobytes())
        with self._done.open("r+b") as stream:
            stream.seek(number * 8)
            stream.write(np.uint64(_seal(rows)).tobytes())

    def _sizes(self) -> tuple[int, int]:
        return self.count * self.width * 4, len(self.batches) * 8

    @property
    def _features(self) -> Path:
        return self.folder / "features.f32"

    @property
    def _done(self) -> Path:
        return self.folder / "batches.u64"


def _seal(rows: npt.NDArray[np.float32]) -> int:
    return _DONE | zlib.crc32(np.ascontiguousarray(rows).tobytes())
