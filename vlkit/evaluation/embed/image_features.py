"""Image embeddings on disk: each image is encoded once, by any number of processes, whatever is evaluated.

N images, E embedding width, B images of one batch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from vlkit.distributed.collectives import shared_errors
from vlkit.errors import DataError, VlkitError
from vlkit.evaluation.embed.encode import Embedder, encode_prepared, prepare, read_ahead
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.embed.identity import images_key
from vlkit.evaluation.embed.image_contents import image_contents
from vlkit.models.feature_store import FeatureStore, Numbers
from vlkit.progress import Bar, bar
from vlkit.types import Sample


@dataclass(frozen=True)
class ImageFeatures:
    """L2-normalised float32 image_NE in files; zeros for images that could not be read, where they may be left out.

    Only the rows asked for are read, so that memory does not grow with N but by 24 bytes an image.
    """

    store: FeatureStore
    place_N: Numbers

    def __len__(self) -> int:
        return len(self.place_N)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """image_BE of the images of these numbers."""
        return self.store.read(self.place_N[rows.numpy()])


@contextmanager
def image_features(
    model: Embedder,
    samples: Sequence[Sample],
    *,
    encoding: Encoding | None = None,
    unreadable: dict[int, str] | None = None,
) -> Iterator[ImageFeatures]:
    """The embeddings of all images, computed where they are not known yet; without a cache only inside the block.

    A run that was stopped goes on where it was, but for the batches of the last minute if it was killed; batches that
    were damaged on disk are computed again. One process or several fill the same folder. In a cache images are known by
    what they hold, so that one that was replaced under its old name is encoded again, and it alone.

    An image that cannot be read is an error. Where ``unreadable`` is given it is left out, and its number stands there
    with the reason.

    Raises:
        DataError: An image that cannot be read, unless it may be left out.
        VlkitError: No image, an embedding that is not finite, or a folder that not all processes see.
    """
    encoding = Encoding() if encoding is None else encoding
    ranks = encoding.ranks
    if not samples:
        raise VlkitError("no images to encode; give at least one")
    with tempfile.TemporaryDirectory(prefix="vlkit-features-") as scratch:
        if encoding.cache is None:
            folder = Path(ranks.gather_objects(scratch)[0])
            keys_N = np.arange(len(samples))  # keys enough: the folder is of these images alone
        else:
            folder = encoding.cache / f"images-{images_key(model)}"
            keys_N = image_contents(samples, encoding=encoding, may_fail=unreadable is not None)
        with shared_errors(ranks):
            # the first process says what is missing, and mends what is damaged
            store = FeatureStore(folder, names=[] if encoding.follows else None, writes=not encoding.follows)
            known_N = store.find(keys_N) >= 0
        # of equal images one
        first_N = np.isin(np.arange(len(keys_N)), np.unique(keys_N, return_index=True)[1])
        missing: Numbers = ranks.gather_objects(None if encoding.follows else np.flatnonzero(first_N & ~known_N))[0]
        quiet = encoding.quiet or encoding.follows
        with bar("images", total=len(samples), unit="images", quiet=quiet) as shown:
            shown.advance(len(samples) - len(missing))
            _fill(store, model, samples, missing.tolist(), keys_N, encoding, shown, unreadable)
        store.include(ranks.gather_objects([] if encoding.follows else FeatureStore.names(folder))[0])
        place_N = store.find(keys_N)
        with shared_errors(ranks):
            if unreadable is not None:
                _tell_copies(unreadable, samples, keys_N, np.flatnonzero(place_N < 0).tolist())
            elif (place_N < 0).any():
                raise VlkitError(
                    f"the embeddings in {folder} are not seen by all processes; give a cache folder on a file system "
                    f"that all of them share"
                )
        yield ImageFeatures(store, place_N)
        ranks.barrier()  # the scratch folder of rank 0 is read by all


def _fill(
    store: FeatureStore,
    model: Embedder,
    samples: Sequence[Sample],
    missing: Sequence[int],
    keys_N: Numbers,
    encoding: Encoding,
    shown: Bar,
    unreadable: dict[int, str] | None,
) -> None:
    """This process's batches of what is missing."""
    ranks, size = encoding.ranks, encoding.batch_size
    batches = [missing[start : start + size] for start in range(0, len(missing), size)][ranks.rank :: ranks.size]
    count, problems = 0, dict[int, str]()

    def read(sample: Sample) -> Any:
        try:
            return prepare(model, sample.image())
        except DataError as error:
            if unreadable is None:
                raise
            return error

    with shared_errors(ranks):
        prepared = read_ahead(([samples[row] for row in batch] for batch in batches), read, workers=encoding.workers)
        try:
            for batch, images in zip(batches, prepared, strict=True):
                pairs = list(zip(batch, images, strict=True))
                problems.update((row, str(image)) for row, image in pairs if isinstance(image, DataError))
                rows = [row for row in batch if row not in problems]
                if rows:
                    given = [image for row, image in pairs if row not in problems]
                    image_BE = encode_prepared(model, given, names=[samples[row].key for row in rows])
                    store.add(keys_N[rows], F.normalize(image_BE, dim=1))
                store.flush_if_due()
                count += len(rows)
                shown.advance(len(batch))
        finally:
            store.flush()
    encoding.counts.images += sum(ranks.gather_objects(count))
    if unreadable is not None:
        for found in ranks.gather_objects(problems):
            unreadable.update(found)


def _tell_copies(unreadable: dict[int, str], samples: Sequence[Sample], keys_N: Numbers, rows: Sequence[int]) -> None:
    """Copies of images that cannot be read are not looked at a second time: they cannot either.

    Raises:
        DataError: None of the images can be read.
    """
    reasons = {int(keys_N[row]): reason for row, reason in unreadable.items()}
    for row in rows:
        unreadable.setdefault(row, reasons.get(int(keys_N[row]), f"cannot read image {samples[row].key}"))
    if len(rows) == len(samples):
        raise DataError(f"none of {len(samples)} images can be read; the first: {unreadable[0]}")
