"""Features of frozen encoders for all training data, computed once and looked up by row.

Shapes: N samples, V views, D encoder width, T texts, B batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from vlkit.data.batches.unreadable import BadSamples
from vlkit.data.formats.images import LazyImage
from vlkit.errors import DataError
from vlkit.models.augment import Augment, read_image
from vlkit.models.feature_cache import Blocks, FeatureStore, Remembering, encode_frozen, encoder_digest, name_of
from vlkit.progress import bar
from vlkit.spec.dataset import AugmentSpec
from vlkit.types import ImageEncoder, Pick, Sample, Source, TextBatch, TextEncoder

_IMAGES, _TEXTS = 64, 128  # inputs of a forward pass


def view_of(pick: Pick, views: int) -> int:
    """Which of an image's cached views a pick takes."""
    return pick.view_seed % views


def view_seed(key: str, view: int, *, seed: int) -> int:
    """Seed of the augmentation behind a cached view of a sample; view 0 is the plain image."""
    return int(name_of(key, view, seed)[:15], 16)


@dataclass(frozen=True)
class ImageTable:
    """``features_NVD`` of the samples of a source; ``bad`` are the unreadable ones, whose rows are zero."""

    features_NVD: Tensor
    bad: frozenset[int]

    def look_up(self, indices: Sequence[int], views: Sequence[int]) -> Tensor:
        """image_BD of the chosen views."""
        return self.features_NVD[torch.tensor(indices), torch.tensor(views)]


def image_table(
    encoder: ImageEncoder,
    source: Source,
    *,
    augment: AugmentSpec,
    views: int,
    seed: int,
    bad: BadSamples,
    quiet: bool = False,
) -> ImageTable:
    """Features of every sample, plain and in ``views - 1`` augmented views; unreadable samples are recorded in ``bad``.

    Raises:
        DataError: More unreadable samples than ``bad`` allows.
    """
    module, vary = cast("nn.Module", encoder), Augment(augment)
    files: dict[Path, str] = {}  # thousands of images may lie in one file
    marks = [image_mark(source[index], files) for index in range(len(source))]
    settings = None if views == 1 else (augment.model_dump_json(), seed)
    names = [name_of(mark, view, settings if view else None) for mark in marks for view in range(views)]

    def pixels(number: int) -> Tensor | None:
        sample, view = source[number // views], number % views
        try:
            image = read_image(sample, draft_size=None)
        except DataError as error:
            bad.record(sample.key, str(error))
            return None
        return encoder.transform(vary(image, seed=view_seed(sample.key, view, seed=seed)) if view else image)

    def compute(missing: list[int]) -> Blocks:
        with bar("image features", total=len(missing), unit="images", quiet=quiet) as shown:
            for start in range(0, len(missing), _IMAGES):
                rows = missing[start : start + _IMAGES]
                read = {row: picture for row in rows if (picture := pixels(row)) is not None}
                if read:
                    yield list(read), _encode(module, torch.stack(list(read.values())))
                shown.advance(len(rows))

    store = FeatureStore({"encoder": encoder_digest(module), "transform": repr(encoder.transform), "by": "file"})
    try:
        features_ND = store.fetch(names, compute)
    finally:
        store.flush()
    features_NVD = features_ND.view(len(source), views, -1)
    missing_N = (features_NVD == 0).all(dim=2).any(dim=1)
    return ImageTable(features_NVD, frozenset(missing_N.nonzero().flatten().tolist()))


class TextTable:
    """Features of all captions of a source in some languages."""

    def __init__(self, encoder: TextEncoder, source: Source, *, languages: Sequence[str], quiet: bool = False) -> None:
        wanted: dict[str, dict[str, None]] = {language: {} for language in languages}
        for index in range(len(source)):
            for language, captions in source[index].captions.items():
                if language in wanted:
                    wanted[language] |= dict.fromkeys(captions)
        memory = TextMemory(encoder, quiet=quiet)
        pairs = [(language, text) for language, texts in wanted.items() for text in texts]
        self._row = {pair: row for row, pair in enumerate(pairs)}
        try:
            self.features_TD = torch.cat([memory(list(texts), language=tag) for tag, texts in wanted.items() if texts])
        finally:
            memory.flush()

    def look_up(self, texts: Sequence[str], languages: Sequence[str]) -> Tensor:
        """text_BD of captions of this source."""
        rows = [self._row[language, text] for text, language in zip(texts, languages, strict=True)]
        return self.features_TD[torch.tensor(rows)]


class TextMemory:
    """Texts to the features of a frozen text encoder, each text encoded once in all."""

    def __init__(self, encoder: TextEncoder, *, quiet: bool = False) -> None:
        self.encoder, self.quiet, self._memory = encoder, quiet, Remembering(cast("nn.Module", encoder))

    def __call__(self, texts: Sequence[str], *, language: str) -> Tensor:
        """features_TD in the order of the texts; texts of like length share a forward pass."""
        order = sorted(range(len(texts)), key=lambda row: len(texts[row].encode()))
        features_TD = torch.zeros(len(texts), self.encoder.width)
        with bar(f"text features ({language})", total=len(texts), unit="texts", quiet=self.quiet) as shown:
            for start in range(0, len(order), _TEXTS):
                rows = order[start : start + _TEXTS]
                tokens = self.encoder.tokenize([texts[row] for row in rows], language=language)
                features_TD[rows] = _encode(self._memory, tokens)
                shown.advance(len(rows))
        return features_TD

    def flush(self) -> None:
        """Writes what is not on disk yet."""
        self._memory.flush()


def image_mark(sample: Sample, files: dict[Path, str]) -> str:
    """What tells versions of a sample's image apart: its file with size and time and its place there, or its pixels.

    ``files`` remembers what was found out about each file.
    """
    if isinstance(sample.image, LazyImage):
        path = sample.image.path
        if path not in files:
            files[path] = _file_mark(path)
        return f"{path} {files[path]} {sample.image.span}"
    try:
        image = sample.image()
    except DataError:
        return "unreadable"
    return name_of(image.size, image.tobytes())


def _file_mark(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return "missing"
    return f"{found.st_size} {found.st_mtime_ns}"


def _encode(encoder: nn.Module, inputs: Tensor | TextBatch) -> Tensor:
    place = next(encoder.parameters())
    if isinstance(inputs, TextBatch):
        return encode_frozen(encoder, TextBatch(*(part.to(place.device) for part in inputs))).float().cpu()
    return encode_frozen(encoder, inputs.to(place.device, place.dtype)).float().cpu()
