"""What a batch of a Q-Former in training is, and how samples become one.

Shapes: B pairs, C channels, H height, W width, N image tokens, T their width, L text length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import default_collate
from typing_extensions import Self

from vlkit.models.augment import Augment
from vlkit.models.image_input import decode
from vlkit.parts.tokenizers import Tokenize, tokenize_mixed
from vlkit.spec.dataset import DataSpec
from vlkit.types import Pick, ResizesImages, Sample, TextBatch

if TYPE_CHECKING:
    from PIL.Image import Image

    from vlkit.models.query_former.model import QueryFormer

_PER_ROW = ("languages", "concepts", "sources")


@dataclass(frozen=True)
class QueryBatch:
    """Pairs for one training step.

    ``pixels_BCHW`` float32 as the encoder's transform makes them, or ``image_BNT`` the frozen encoder's tokens;
    ``languages`` BCP 47, ``concepts`` ids, ``sources`` names of the collections, one a row each.
    """

    tokens: TextBatch
    pixels_BCHW: Tensor | None
    image_BNT: Tensor | None
    languages: tuple[str, ...]
    concepts: tuple[str, ...]
    sources: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.languages)

    def rows(self, index: Tensor) -> Self:
        """The pairs of these numbers, in this order."""
        chosen: Any = {name: tuple(getattr(self, name)[row] for row in index.tolist()) for name in _PER_ROW}
        return replace(self._changed(lambda x: x[index.to(x.device)]), **chosen)

    def to(self, device: torch.device) -> Self:
        """The batch with its tensors on a device."""
        return self._changed(lambda x: x.to(device))

    def _changed(self, change: Callable[[Tensor], Tensor]) -> Self:
        images: Any = {name: getattr(self, name) for name in ("pixels_BCHW", "image_BNT")}
        changed: Any = {name: change(x) for name, x in images.items() if x is not None}
        return replace(self, tokens=TextBatch(*(change(x) for x in self.tokens)), **changed)


class QueryRow(NamedTuple):
    """One row of a batch, read."""

    image: Tensor  # pixels_CHW or tokens_NT
    caption: str
    language: str
    concept: str
    source: str


@dataclass(frozen=True)
class QueryPreparer:
    """Image and caption as the encoder and the Q-Former want them.

    ``transform`` is the image encoder's own, RGB image to pixels_CHW; ``draft_size`` are the pixels that the shorter
    side of an image has to keep where it is decoded at a reduced size, None decodes in full.
    """

    transform: Callable[[Image], Tensor]
    tokenize: Tokenize
    augment: Augment
    draft_size: int | None = None

    @classmethod
    def of(cls, model: QueryFormer, data: DataSpec) -> QueryPreparer:
        """The preparer of a model."""
        augment, draft = Augment(data.augment), None
        if data.jpeg_draft and isinstance(model.encoder, ResizesImages):
            draft = augment.draft_size(model.encoder.resized_to)
        return cls(model.transform, model.text.tokenize, augment, draft)

    @property
    def reads(self) -> bool:
        """See ``types.Preparer``."""
        return True

    def row(self, sample: Sample, pick: Pick) -> QueryRow:
        """See ``types.Preparer``."""
        image = self.augment(decode(sample.image, draft_size=self.draft_size), seed=pick.view_seed)
        return _row(sample, pick, self.transform(image))

    def collate(self, rows: Sequence[QueryRow]) -> QueryBatch:
        """Rows as a batch; texts are padded to the longest of them."""
        return _joined(rows, self.tokenize, looked_up=False)


class ImageTokensOfPicks(Protocol):
    """Tokens of images that were computed before."""

    def of(self, picks: Sequence[Pick]) -> Tensor:
        """image_BNT."""


@dataclass(frozen=True)
class LookedUpQueries:
    """Pairs whose image tokens are looked up: no image is read."""

    tokenize: Tokenize
    images: ImageTokensOfPicks

    @property
    def reads(self) -> bool:
        """See ``types.Preparer``."""
        return False

    def row(self, sample: Sample, pick: Pick) -> tuple[QueryRow, Pick]:
        """See ``types.Preparer``."""
        return _row(sample, pick, torch.empty(0)), pick

    def collate(self, rows: Sequence[tuple[QueryRow, Pick]]) -> QueryBatch:
        """See ``types.Preparer``."""
        tokens_BNT = self.images.of([pick for _, pick in rows])
        found = [row._replace(image=image) for (row, _), image in zip(rows, tokens_BNT, strict=True)]
        return _joined(found, self.tokenize, looked_up=True)


def _row(sample: Sample, pick: Pick, image: Tensor) -> QueryRow:
    return QueryRow(image, pick.caption(sample), pick.language, sample.concept, sample.source)


def _joined(rows: Sequence[QueryRow], tokenize: Tokenize, *, looked_up: bool) -> QueryBatch:
    languages = tuple(row.language for row in rows)
    stacked = default_collate([row.image for row in rows])  # in a worker: into shared memory
    return QueryBatch(
        tokens=tokenize_mixed(tokenize, [row.caption for row in rows], languages),
        pixels_BCHW=None if looked_up else stacked,
        image_BNT=stacked if looked_up else None,
        languages=languages,
        concepts=tuple(row.concept for row in rows),
        sources=tuple(row.source for row in rows),
    )
