"""Rows of frozen parts for all training data, computed once and looked up where they lie on disk.

Shapes: N samples, V views, T texts, B batch; a row is a pooled feature [D] or a grid of tokens [M, D].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from vlkit.data.batches.unreadable import BadSamples
from vlkit.data.formats.images import image_mark
from vlkit.errors import DataError
from vlkit.models.augment import Augment
from vlkit.models.digest import part_digest
from vlkit.models.feature_cache import FrozenImages, FrozenPart, FrozenTexts, content_keys, encode_frozen
from vlkit.models.feature_store import Blocks, FeatureStore, Numbers, key_of, shared_folder
from vlkit.models.image_input import decode
from vlkit.progress import bar
from vlkit.spec.dataset import AugmentSpec
from vlkit.types import Pick, Source, TextBatch

_IMAGES, _TEXTS = 64, 128  # inputs of a forward pass


def view_of(pick: Pick, views: int) -> int:
    """Which of an image's cached views a pick takes."""
    return pick.view_seed % views


def view_seed(key: str, view: int, *, seed: int) -> int:
    """Seed of the augmentation behind a cached view of a sample; view 0 is the plain image."""
    return (key_of(key, view, seed) & (1 << 64) - 1) >> 4


class ImageTable:
    """Rows of a part for every sample of a source that has an image, plain and in ``views - 1`` augmented views.

    ``bad`` are the numbers of the samples that cannot be read; they are recorded in the argument of this name, too.

    Raises:
        DataError: More unreadable samples than ``bad`` allows.
    """

    def __init__(
        self,
        part: FrozenImages,
        source: Source,
        *,
        augment: AugmentSpec,
        views: int,
        seed: int,
        bad: BadSamples,
        quiet: bool = False,
    ) -> None:
        self.part, self.views = part, views
        vary = Augment(augment)
        files: dict[Path, str] = {}
        numbers = range(len(source))
        shown = [number for number in numbers if not part.at_most_one or source[number].images]
        marks = [image_mark(source[number].image, files) for number in shown]
        settings = None if views == 1 else (augment.model_dump_json(), seed)
        keys = [key_of(mark, view, settings if view else None) for mark in marks for view in range(views)]

        def pixels(number: int) -> Tensor | None:
            at, view = shown[number // views], number % views
            sample = source[at]
            try:
                image = decode(sample.image, draft_size=None)
            except DataError as error:
                bad.record(sample.key, str(error), number=at)
                return None
            return part.transform(vary(image, seed=view_seed(sample.key, view, seed=seed)) if view else image)

        def compute(missing: list[int]) -> Blocks:
            with bar(f"{part.name} features", total=len(missing), unit="images", quiet=quiet) as shown:
                for start in range(0, len(missing), _IMAGES):
                    rows = missing[start : start + _IMAGES]
                    read = {row: picture for row in rows if (picture := pixels(row)) is not None}
                    if read:
                        yield list(read), _encode(part, torch.stack(list(read.values())))
                    shown.advance(len(rows))

        self._store = _store(part, transform=repr(part.transform), by="file")
        try:
            place_N = self._store.fill(np.array(keys, dtype=np.int64), compute)
        finally:
            self._store.flush()
        self._place_NV = np.full((len(source), views), -1, dtype=np.int64)
        self._place_NV[shown] = place_N.reshape(len(shown), views)
        self.bad = frozenset(at for at in shown if (self._place_NV[at] < 0).any())

    def of(self, picks: Sequence[Pick]) -> Tensor:
        """Rows [B, ...] of the views that picks take."""
        return self.look_up([pick.index for pick in picks], [view_of(pick, self.views) for pick in picks])

    def look_up(self, indices: Sequence[int], views: Sequence[int]) -> Tensor:
        """Rows [B, ...] of the chosen views; zeros for what cannot be read or has no image."""
        return self._store.read(self._place_NV[np.asarray(indices), np.asarray(views)])

    def all_rows(self) -> Tensor:
        """All rows [N, V, ...]; takes the memory that they take."""
        rows = self._store.read(self._place_NV.reshape(-1))
        return rows.view(*self._place_NV.shape, *rows.shape[1:])


class TextTable:
    """Rows of a part for all captions of a source in some languages.

    Memory holds 32 bytes a caption.
    """

    def __init__(self, part: FrozenTexts, source: Source, *, languages: Sequence[str], quiet: bool = False) -> None:
        self.part = part
        wanted: dict[str, dict[str, None]] = {language: {} for language in languages}
        for index in range(len(source)):
            for language, captions in source[index].captions.items():
                if language in wanted:
                    wanted[language] |= dict.fromkeys(captions)
        self._memory = TextMemory(part, quiet=quiet)
        keys = [key_of(language, text) for language, texts in wanted.items() for text in texts]
        try:
            places = [self._memory.places(list(texts), language=tag) for tag, texts in wanted.items() if texts]
        finally:
            self._memory.flush()
        self._place_T = np.concatenate(places)
        self._row_T = np.argsort(keys, kind="stable")
        self._key_T = np.array(keys, dtype=np.int64)[self._row_T]

    def look_up(self, texts: Sequence[str], languages: Sequence[str]) -> Tensor:
        """Rows [B, ...] of captions of this source.

        Raises:
            KeyError: There is no such caption in it.
        """
        pairs = list(zip(texts, languages, strict=True))
        keys = np.array([key_of(language, text) for text, language in pairs], dtype=np.int64)
        at_B = np.searchsorted(self._key_T, keys).clip(max=len(self._key_T) - 1)
        if (wrong := np.flatnonzero(self._key_T[at_B] != keys)).size:
            raise KeyError(pairs[int(wrong[0])])
        return self._memory.read(self._place_T[self._row_T[at_B]])

    def all_rows(self) -> Tensor:
        """All rows [T, ...], language by language; takes the memory that they take."""
        return self._memory.read(self._place_T)


Table: TypeAlias = ImageTable | TextTable


class TextMemory:
    """Texts to the rows of a frozen part, each text encoded once in all."""

    def __init__(self, part: FrozenTexts, *, quiet: bool = False) -> None:
        self.part, self.quiet = part, quiet
        self._store = _store(part, by="content")

    def places(self, texts: Sequence[str], *, language: str) -> Numbers:
        """Where the rows of texts are, in their order; texts of like length share a forward pass."""
        order = sorted(range(len(texts)), key=lambda row: len(texts[row].encode()))
        place_T = np.zeros(len(texts), dtype=np.int64)
        with bar(f"{self.part.name} features ({language})", total=len(texts), unit="texts", quiet=self.quiet) as shown:
            for start in range(0, len(order), _TEXTS):
                rows = order[start : start + _TEXTS]
                tokens = self.part.tokenize([texts[row] for row in rows], language=language)
                place_T[rows] = self._store.fill(content_keys(tokens), self._compute(tokens))
                shown.advance(len(rows))
        return place_T

    def __call__(self, texts: Sequence[str], *, language: str) -> Tensor:
        """Rows [T, ...] in the order of the texts."""
        return self.read(self.places(texts, language=language))

    def read(self, place_T: Numbers) -> Tensor:
        """The rows at some places."""
        return self._store.read(place_T)

    def flush(self) -> None:
        """Writes what is not on disk yet."""
        self._store.flush()

    def _compute(self, tokens: TextBatch) -> Callable[[list[int]], Blocks]:
        def compute(rows: list[int]) -> Blocks:
            yield rows, _encode(self.part, TextBatch(*(side[rows] for side in tokens)))

        return compute


def _store(part: FrozenPart, **by: str) -> FeatureStore:
    key = {"encoder": part_digest(part.module), **by, **part.settings}
    if part.dtype != torch.float32:
        key["dtype"] = str(part.dtype)
    return FeatureStore(shared_folder(key), dtype=part.dtype)


def _encode(part: FrozenPart, inputs: Any) -> Tensor:
    place = next(part.module.parameters())
    if isinstance(inputs, TextBatch):
        inputs = TextBatch(*(side.to(place.device) for side in inputs))
    else:
        inputs = inputs.to(place.device, place.dtype)
    return encode_frozen(part.module, inputs, encode=part.encode).float().cpu()
