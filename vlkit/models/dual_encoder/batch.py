"""What a batch of a dual encoder is, and how samples become one.

Shapes: B pairs, C channels, H height, W width, L text length, D encoder width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import default_collate
from typing_extensions import Self

from vlkit.models.augment import FLATTEST, Augment, read_image
from vlkit.parts.tokenizers import Tokenize, tokenize_mixed
from vlkit.spec.dataset import AugmentSpec, DataSpec
from vlkit.types import Pick, ResizesImages, Sample, TextBatch

if TYPE_CHECKING:
    from PIL.Image import Image

    from vlkit.models.dual_encoder.model import DualEncoder


@dataclass(frozen=True)
class PairBatch:
    """Pairs for one training step. Each side holds either raw input or the frozen encoder's cached features.

    ``pixels_BCHW`` float32 as the image encoder's transform makes them, or ``image_BD`` float32 features; ``tokens`` or
    ``text_BD`` likewise; ``languages`` BCP 47, one a row; ``concepts`` ids, one a row. Where the reader knows them:
    ``captions`` the texts themselves, ``pivots`` an English caption of the same image ("" without one), ``sources`` the
    names of the collections, one a row each.
    """

    pixels_BCHW: Tensor | None
    image_BD: Tensor | None
    tokens: TextBatch | None
    text_BD: Tensor | None
    languages: tuple[str, ...]
    concepts: tuple[str, ...]
    captions: tuple[str, ...] = ()
    pivots: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.languages)

    def rows(self, index: Tensor) -> Self:
        """The pairs of these numbers, in this order."""

        def names(values: Sequence[str]) -> tuple[str, ...]:
            return tuple(values[row] for row in index.tolist()) if values else ()

        return replace(
            self._tensors(lambda x: x[index.to(x.device)]),
            languages=names(self.languages),
            concepts=names(self.concepts),
            captions=names(self.captions),
            pivots=names(self.pivots),
            sources=names(self.sources),
        )

    def to(self, device: torch.device) -> Self:
        """The batch with its tensors on a device."""
        return self._tensors(lambda x: x.to(device))

    def trimmed(self) -> Self:
        """Without the columns of tokens that are padding in all rows."""
        if self.tokens is None:
            return self
        used_L = self.tokens.mask_BL.any(dim=0)
        last = int(used_L.nonzero().max()) + 1 if bool(used_L.any()) else 1
        return replace(self, tokens=TextBatch(*(x[:, :last] for x in self.tokens)))

    def _tensors(self, change: Callable[[Tensor], Tensor]) -> Self:
        return replace(
            self,
            pixels_BCHW=None if self.pixels_BCHW is None else change(self.pixels_BCHW),
            image_BD=None if self.image_BD is None else change(self.image_BD),
            tokens=None if self.tokens is None else TextBatch(*(change(x) for x in self.tokens)),
            text_BD=None if self.text_BD is None else change(self.text_BD),
        )


class Pair(NamedTuple):
    """One row of a batch, read. ``pivot`` is an English caption of the same image, "" without one."""

    pixels_CHW: Tensor | None
    caption: str
    pivot: str
    language: str
    concept: str
    source: str


@dataclass(frozen=True)
class PairPreparer:
    """Image and caption as the two encoders want them.

    Args:
        transform: The image encoder's own, RGB image to pixels_CHW; None reads no images at all.
        tokenize: The text encoder's own: ``tokenize(texts, language=...)``.
        augment: Random variations of the images.
        draft_size: Pixels that the shorter side of an image has to keep where it is decoded at a reduced size, so that
            no crop of it has to be enlarged; None decodes in full.
    """

    transform: Callable[[Image], Tensor] | None
    tokenize: Tokenize
    augment: Augment = field(default_factory=lambda: Augment(AugmentSpec()))
    draft_size: int | None = None

    @classmethod
    def of(cls, model: DualEncoder, data: DataSpec, *, images: bool = True) -> PairPreparer:
        """The preparer of a model; ``images`` False reads none, for losses between texts."""
        draft_size = _draft_size(model, data) if data.jpeg_draft else None
        return cls(model.transform if images else None, model.tokenize, Augment(data.augment), draft_size)

    @property
    def reads(self) -> bool:
        """See ``types.Preparer``."""
        return True

    def row(self, sample: Sample, pick: Pick) -> Pair:
        """See ``types.Preparer``."""
        pixels_CHW = None
        if self.transform is not None:
            image = read_image(sample, draft_size=self.draft_size)
            pixels_CHW = self.transform(self.augment(image, seed=pick.view_seed))
        return Pair(pixels_CHW, pick.caption(sample), pick.pivot(sample), pick.language, sample.concept, sample.source)

    def collate(self, rows: Sequence[Pair]) -> PairBatch:
        """Rows as a batch; texts are padded to the longest of them."""
        captions = [pair.caption for pair in rows]
        languages = tuple(pair.language for pair in rows)
        pixels = [pair.pixels_CHW for pair in rows if pair.pixels_CHW is not None]
        return PairBatch(
            pixels_BCHW=default_collate(pixels) if pixels else None,  # in a worker: into shared memory
            image_BD=None,
            tokens=tokenize_mixed(self.tokenize, captions, languages),
            text_BD=None,
            languages=languages,
            concepts=tuple(pair.concept for pair in rows),
            captions=tuple(captions),
            pivots=tuple(pair.pivot for pair in rows),
            sources=tuple(pair.source for pair in rows),
        )


class ImageRows(Protocol):
    """Features of images, computed before."""

    def of(self, picks: Sequence[Pick]) -> Tensor:
        """image_BD."""


class TextRows(Protocol):
    """Features of captions, computed before."""

    def look_up(self, texts: Sequence[str], languages: Sequence[str]) -> Tensor:
        """text_BD."""


@dataclass(frozen=True)
class LookedUpPairs:
    """Pairs whose images, and captions where ``texts`` is given, are looked up: no image is read."""

    tokenize: Tokenize
    images: ImageRows
    texts: TextRows | None

    @property
    def reads(self) -> bool:
        """See ``types.Preparer``."""
        return False

    def row(self, sample: Sample, pick: Pick) -> tuple[Sample, Pick]:
        """See ``types.Preparer``."""
        return sample, pick

    def collate(self, rows: Sequence[tuple[Sample, Pick]]) -> PairBatch:
        """See ``types.Preparer``."""
        captions = [pick.caption(sample) for sample, pick in rows]
        languages = tuple(pick.language for _, pick in rows)
        return PairBatch(
            pixels_BCHW=None,
            image_BD=self.images.of([pick for _, pick in rows]),
            tokens=tokenize_mixed(self.tokenize, captions, languages) if self.texts is None else None,
            text_BD=None if self.texts is None else self.texts.look_up(captions, languages),
            languages=languages,
            concepts=tuple(sample.concept for sample, _ in rows),
            captions=tuple(captions),
            pivots=tuple(pick.pivot(sample) for sample, pick in rows),
            sources=tuple(sample.source for sample, _ in rows),
        )


def _draft_size(model: DualEncoder, data: DataSpec) -> int | None:
    if not isinstance(model.image, ResizesImages):
        return None
    side, scale = model.image.resized_to, data.augment.crop_scale
    return side if scale is None else math.ceil(side * math.sqrt(FLATTEST / scale[0]))
