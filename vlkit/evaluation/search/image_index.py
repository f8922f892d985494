"""Images of a folder, embedded once and kept on disk, and the nearest of them to a text or an image.

N images, Q queries, C images of one chunk, E embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vlkit.data.formats.archives import Member, list_members
from vlkit.errors import DataError, VlkitError, some
from vlkit.evaluation.abilities import EMBEDS, require
from vlkit.evaluation.embed.arrays import Floats, embed_images, embed_texts
from vlkit.evaluation.embed.encode import Embedder
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.embed.given_images import ImageLike, call_images, list_images
from vlkit.evaluation.embed.identity import images_key
from vlkit.evaluation.embed.image_contents import image_contents, image_version
from vlkit.evaluation.embed.image_features import ImageFeatures, image_features
from vlkit.evaluation.search.index_record import RECORD, IndexedImage, IndexRecord, read_record
from vlkit.evaluation.search.matches import Match, Matches
from vlkit.models.feature_store import FeatureStore
from vlkit.outputs import check_folder, locked
from vlkit.paths import local_path
from vlkit.types import Sample

_CHUNK = 1 << 16  # images scored at once: 134 MB of embeddings of width 512


@dataclass(frozen=True)
class IndexingNews:
    """What indexing did: images that were embedded, that were known already, that are gone, that cannot be read."""

    embedded: int
    known: int
    gone: int
    unreadable: dict[str, str]
    """By path inside the folder, the reason."""


class ImageIndex:
    """Images of a folder or archive that can be searched by text in any language, or by an image.

    Embeddings lie in files and are read where they lie: memory does not grow with the images but by some 200 bytes
    each. Make one with ``index_images``.

    Args:
        folder: Of the index.

    Raises:
        DataError: No index is there, it is damaged, or of another version.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.folder = local_path(folder)
        self.record = read_record(self.folder)
        self.names = tuple(self.record.images)
        store = FeatureStore(_features(self.folder, self.record.images_key), writes=False)
        keys_N = np.array([one.content for one in self.record.images.values()], dtype=np.int64)
        self.features = ImageFeatures(store, store.find(keys_N))
        if (lost := int((self.features.place_N < 0).sum())) or not self.names:
            what = f"lacks the embeddings of {lost} images" if self.names else "is not finished"
            raise DataError(f"the index in {self.folder} {what}; run again: vlkit index {self.source} --out {folder}")

    @property
    def source(self) -> Path:
        """The folder or archive of the images."""
        return self.record.source

    def __len__(self) -> int:
        return len(self.names)

    def search(
        self, model: Embedder, texts: str | Sequence[str], *, k: int = 10, language: str | None = None
    ) -> list[Matches]:
        """The ``k`` images nearest to each text, best first.

        Args:
            model: The one that the images were embedded by.
            texts: In any language that it reads.
            k: How many.
            language: Of the texts, for tokenizers that have to be told.

        Raises:
            VlkitError: Another model, ``k`` below 1, or a text that is blank.
        """
        self.check_model(model)
        texts = [texts] if isinstance(texts, str) else list(texts)
        return self._nearest(texts, embed_texts(model, texts, language=language, quiet=True), k)

    def search_images(self, model: Embedder, images: ImageLike | Iterable[ImageLike], *, k: int = 10) -> list[Matches]:
        """The ``k`` images nearest to each image (a path, PIL image, array or tensor), best first; see ``search``.

        Raises:
            DataError: An image that cannot be read.
            VlkitError: Another model, or ``k`` below 1.
        """
        self.check_model(model)
        listed = list_images(images, to="look for")
        return self._nearest(call_images(listed), embed_images(model, listed, quiet=True), k)

    def check_model(self, model: Embedder) -> None:
        """Refuses a model that is not the one of the index: distances to its embeddings would mean nothing.

        Raises:
            VlkitError: It is another one, or embeds no images and texts.
        """
        require(model, EMBEDS, of="an index of images")
        _refuse_other(self.record, images_key(model), self.folder)

    def image(self, name: str) -> Sample:
        """An image of the index as a sample, to be opened.

        Raises:
            DataError: It is not there any more.
        """
        file = self.source / name
        if self.source.is_dir() and file.is_file():
            return Sample(name, (Member(name, file).image(),), captions={})
        found = self._members.get(name)
        if found is None:
            raise DataError(f"image {name} is not in {self.source} any more")
        return Sample(name, (found.image(),), captions={})

    @cached_property
    def _members(self) -> dict[str, Member]:
        return {one.name: one for one in list_members(self.source)}

    def _nearest(self, queries: Sequence[str], query_QE: Floats, k: int) -> list[Matches]:
        if k < 1:
            raise VlkitError(f"k = {k}: must be at least 1")
        score_QK, row_QK = nearest_rows(self.features, torch.from_numpy(query_QE), k=k)
        return [
            Matches(query, tuple(map(Match, (self.names[row] for row in rows), scores)), self.source)
            for query, rows, scores in zip(queries, row_QK.tolist(), score_QK.tolist(), strict=True)
        ]

    def __repr__(self) -> str:
        return f"ImageIndex({len(self):,} images of {str(self.source)!r}, model={self.record.model!r})"


def nearest_rows(features: ImageFeatures, query_QE: Tensor, *, k: int) -> tuple[Tensor, Tensor]:
    """Cosines and numbers of the ``k`` images nearest to each query, best first; of equal ones the first."""
    best_QK, row_QK = torch.zeros(len(query_QE), 0), torch.zeros(len(query_QE), 0, dtype=torch.int64)
    for start in range(0, len(features), _CHUNK):
        row_C = torch.arange(start, min(start + _CHUNK, len(features)))
        score_QC = torch.cat([best_QK, query_QE @ features[row_C].T], dim=1)
        every_QC = torch.cat([row_QK, row_C.expand(len(query_QE), -1)], dim=1)
        # stable: earlier images stand first, and those of earlier chunks before them
        best_QK, place_QK = (side[:, :k] for side in score_QC.sort(dim=1, descending=True, stable=True))
        row_QK = every_QC.gather(1, place_QK)
    return best_QK, row_QK


def index_images(
    model: Embedder,
    images: str | PathLike[str],
    out: str | PathLike[str],
    *,
    model_name: str = "",
    batch_size: int = 64,
    quiet: bool = False,
) -> tuple[ImageIndex, IndexingNews]:
    """Embeds the images of a folder (with those in it) or archive, and keeps them as an index to be searched.

    Run again, it embeds what is new or was changed, known by what files hold: renamed and moved ones are not embedded
    again. A run that is killed costs the last minute; images that cannot be read are left out and told.

    Args:
        model: Any image-text model, or a pair of functions with a name.
        images: The folder, tar or zip.
        out: The folder of the index.
        model_name: What the model is called, for those who search later.
        batch_size: Images a forward pass.
        quiet: Show no progress.

    Raises:
        DataError: No images, or none that can be read.
        VlkitError: The folder holds something else, or an index of another model.
    """
    require(model, EMBEDS, of="an index of images")
    source, folder, key = local_path(images).absolute(), local_path(out), images_key(model)
    members = [one for one in list_members(source) if one.is_image]
    if not members:
        raise DataError(f"{source} holds no images; give a folder, tar or zip that does")
    check_folder(folder)
    with locked(folder):
        known = _claimed(folder, key)
        record = IndexRecord(key, model_name or (known.model if known else ""), source, known.images if known else {})
        record.write(folder)
        samples = [Sample(one.name, (one.image(),), captions={}) for one in members]
        encoding = Encoding(batch_size=batch_size, cache=folder, quiet=quiet)
        _remember(encoding, samples, record)
        bad: dict[int, str] = {}
        with image_features(model, samples, encoding=encoding, unreadable=bad):
            contents_N = image_contents(samples, encoding=encoding, may_fail=True).tolist()
        found = {
            sample.key: IndexedImage(contents_N[row], str(image_version(sample.image)[-1]))
            for row, sample in enumerate(samples)
            if row not in bad
        }
        IndexRecord(key, record.model, source, found).write(folder)
    embedded = encoding.counts.images
    news = IndexingNews(
        embedded=embedded,
        known=len(found) - embedded,
        gone=len(record.images.keys() - found.keys()),
        unreadable={samples[row].key: bad[row] for row in sorted(bad)},
    )
    return ImageIndex(folder), news


def _features(folder: Path, key: str) -> Path:
    """Where ``image_features`` keeps embeddings, given the folder of the index as its cache."""
    return folder / f"images-{key}"


def _claimed(folder: Path, key: str) -> IndexRecord | None:
    """The index that is in a folder already; None for a new one.

    Raises:
        VlkitError: The folder holds something else, or an index of another model.
    """
    if (folder / RECORD).is_file():
        record = read_record(folder)
        _refuse_other(record, key, folder)
        return record
    if others := [path.name for path in sorted(folder.iterdir()) if not path.name.startswith(".")]:
        raise VlkitError(
            f"{folder} holds something else than an index of images ({some(others, most=3)}); choose another"
        )
    return None


def _refuse_other(record: IndexRecord, key: str, folder: Path) -> None:
    if record.images_key != key:
        called = f" ({record.model})" if record.model else ""
        raise VlkitError(
            f"the index in {folder} was made with another model{called}, digest {record.images_key}; the one given has "
            f"{key}: give that one, or index the images with this one into another folder"
        )


def _remember(encoding: Encoding, samples: Sequence[Sample], record: IndexRecord) -> None:
    """What an earlier run found in files that have not changed since need not be read again."""
    for sample in samples:
        version = image_version(sample.image)
        old = record.images.get(sample.key)
        if old is not None and old.state == version[-1]:
            encoding.contents[version] = (sample.image, old.content)
