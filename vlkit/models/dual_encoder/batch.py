"""What a batch of a dual encoder is, and how samples become one.

Shapes: B pairs, C channels, H height, W width, L text length, D encoder width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import default_collate
from typing_extensions import Self

from vlkit.models.augment import Augment
from vlkit.models.image_input import decode
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
        lists = {name: getattr(self, name) for name in ("languages", "concepts", "captions", "pivots", "sources")}
        chosen: Any = {name: tuple(one[row] for row in index.tolist()) for name, one in lists.items() if one}
        return replace(self._tensors(lambda x: x[index.to(x.device)]), **chosen)

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
        tensors = {name: getattr(self, name) for name in ("pixels_BCHW", "image_BD", "text_BD")}
        changed: Any = {name: change(x) for name, x in tensors.items() if x is not None}
        tokens = None if self.tokens is None else TextBatch(*(change(x) for x in self.tokens))
        return replace(self, tokens=tokens, **changed)


class Pair(NamedTuple):
    """One row of a batch, read. ``pivot`` is an English caption of the same image, "" without one."""

    pixels_CHW: Tensor | None
    caption: str
    pivot: str
    language: str
    concept: str
    source: str

    @classmethod
    def of(cls, sample: Sample, pick: Pick, pixels_CHW: Tensor | None) -> Self:
        """What was picked of a sample."""
        return cls(pixels_CHW, pick.caption(sample), pick.pivot(sample), pick.language, sample.concept, sample.source)


@dataclass(frozen=True)
class PairPreparer:
    """Image and caption as the two encoders want them.

    ``transform`` is the image encoder's own, RGB image to pixels_CHW, None reads no images at all; ``draft_size`` are
    the pixels that the shorter side of an image has to keep where it is decoded at a reduced size, so that no crop of
    it has to be enlarged, None decodes in full.
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
            image = decode(sample.image, draft_size=self.draft_size)
            pixels_CHW = self.transform(self.augment(image, seed=pick.view_seed))
        return Pair.of(sample, pick, pixels_CHW)

    def collate(self, rows: Sequence[Pair]) -> PairBatch:
        """Rows as a batch; texts are padded to the longest of them."""
        return _joined(rows, self.tokenize)


class ImageRows(Protocol):
    """Features of N images in V views, computed before; ``bad`` are the numbers of those without."""

    bad: frozenset[int]

    def of(self, picks: Sequence[Pick]) -> Tensor:
        """image_BD."""

    def all_rows(self) -> Tensor:
        """features_NVD."""


class TextRows(Protocol):
    """Features of T captions, computed before."""

    def look_up(self, texts: Sequence[str], languages: Sequence[str]) -> Tensor:
        """text_BD."""

    def all_rows(self) -> Tensor:
        """features_TD."""


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

    def row(self, sample: Sample, pick: Pick) -> tuple[Pair, Pick]:
        """See ``types.Preparer``."""
        return Pair.of(sample, pick, None), pick

    def collate(self, rows: Sequence[tuple[Pair, Pick]]) -> PairBatch:
        """See ``types.Preparer``."""
        batch = _joined([pair for pair, _ in rows], self.tokenize if self.texts is None else None)
        return replace(
            batch,
            image_BD=self.images.of([pick for _, pick in rows]),
            text_BD=None if self.texts is None else self.texts.look_up(batch.captions, batch.languages),
        )


def _joined(pairs: Sequence[Pair], tokenize: Tokenize | None) -> PairBatch:
    """Pairs as a batch, with pixels where they have any, and tokens if they are wanted."""
    pixels = [pair.pixels_CHW for pair in pairs if pair.pixels_CHW is not None]
    captions, languages = tuple(pair.caption for pair in pairs), tuple(pair.language for pair in pairs)
    return PairBatch(
        pixels_BCHW=default_collate(pixels) if pixels else None,  # in a worker: into shared memory
        image_BD=None,
        tokens=None if tokenize is None else tokenize_mixed(tokenize, captions, languages),
        text_BD=None,
        languages=languages,
        concepts=tuple(pair.concept for pair in pairs),
        captions=captions,
        pivots=tuple(pair.pivot for pair in pairs),
        sources=tuple(pair.source for pair in pairs),
    )


def _draft_size(model: DualEncoder, data: DataSpec) -> int | None:
    if not isinstance(model.image, ResizesImages):
        return None
    return Augment(data.augment).draft_size(model.image.resized_to)
