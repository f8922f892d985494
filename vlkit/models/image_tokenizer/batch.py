"""What a batch of an image tokenizer in training is, and how samples become one: pixels alone.

Shapes: B images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import default_collate
from typing_extensions import Self

from vlkit.models.augment import Augment
from vlkit.models.image_input import decode
from vlkit.types import Pick, Sample

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class ImageBatch:
    """Images for one training step: ``pixels_BCHW`` float32 as the tokenizer's transform makes them, and their sources.

    What languages their captions are in makes no difference and is not kept.
    """

    pixels_BCHW: Tensor
    sources: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels_BCHW)

    def rows(self, index: Tensor) -> Self:
        """The images of these numbers, in this order."""
        sources = tuple(self.sources[row] for row in index.tolist()) if self.sources else ()
        return replace(self, pixels_BCHW=self.pixels_BCHW[index.to(self.pixels_BCHW.device)], sources=sources)

    def to(self, device: torch.device) -> Self:
        """The batch with its tensors on a device."""
        return replace(self, pixels_BCHW=self.pixels_BCHW.to(device))


class ImageRow(NamedTuple):
    """One row of a batch, read."""

    pixels_CHW: Tensor
    source: str


@dataclass(frozen=True)
class ImagePreparer:
    """Images as a tokenizer wants them; ``transform`` turns an RGB image into pixels_CHW."""

    transform: Callable[[Image], Tensor]
    augment: Augment

    @property
    def reads(self) -> bool:
        """See ``types.Preparer``."""
        return True

    def row(self, sample: Sample, pick: Pick) -> ImageRow:
        """See ``types.Preparer``."""
        image = self.augment(decode(sample.image, draft_size=None), seed=pick.view_seed)
        return ImageRow(self.transform(image), sample.source)

    def collate(self, rows: Sequence[ImageRow]) -> ImageBatch:
        """See ``types.Preparer``."""
        stacked = default_collate([row.pixels_CHW for row in rows])  # in a worker: into shared memory
        return ImageBatch(stacked, tuple(row.source for row in rows))
