"""Image embeddings on disk: each image is encoded once, by any number of processes, whatever is evaluated.

N images, E embedding width, B images of one batch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from vlkit.distributed.collectives import shared_errors
from vlkit.errors import VlkitError
from vlkit.evaluation.embed.encode import Embedder, encode_prepared, prepare, read_ahead
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.embed.identity import images_key
from vlkit.evaluation.embed.image_contents import image_contents
from vlkit.models.feature_store import FeatureStore, Numbers
from vlkit.progress import Bar, bar
from vlkit.types import Sample


@dataclass(frozen=True)
class ImageFeatures:
    """L2-normalised float32 image_NE in files.

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
    model: Embedder, samples: Sequence[Sample], *, encoding: Encoding | None = None
) -> Iterator[ImageFeatures]:
    """The embeddings of all images, computed where they are not known yet; without a cache only inside the block.

    A run that was stopped goes on where it was, but for the batches of the last minute if it was killed; batches that
    were damaged on disk are computed again. One process or several fill the same folder. In a cache images are known by
    what they hold, so that one that was replaced under its old name is encoded again, and it alone.

    Raises:
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
            keys_N = image_contents(samples, encoding=encoding)
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
            _fill(store, model, samples, missing.tolist(), keys_N, encoding, shown)
        store.include(ranks.gather_objects([] if encoding.follows else FeatureStore.names(folder))[0])
        place_N = store.find(keys_N)
        with shared_errors(ranks):
            if (place_N < 0).any():
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
) -> None:
    """This process's batches of what is missing."""
    ranks, size = encoding.ranks, encoding.batch_size
    batches = [missing[start : start + size] for start in range(0, len(missing), size)][ranks.rank :: ranks.size]
    count = 0
    with shared_errors(ranks):
        prepared = read_ahead(
            ([samples[row] for row in batch] for batch in batches),
            lambda sample: prepare(model, sample.image()),
            workers=encoding.workers,
        )
        try:
            for batch, images in zip(batches, prepared, strict=True):
                image_BE = encode_prepared(model, images, names=[samples[row].key for row in batch])
                store.add(keys_N[batch], F.normalize(image_BE, dim=1))
                store.flush_if_due()
                count += len(batch)
                shown.advance(len(batch))
        finally:
            store.flush()
    encoding.counts.images += sum(ranks.gather_objects(count))
