"""Its batches, which are no pairs: pixels and numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from vlkit.models.image_input import decode
from vlkit.types import Pick, Sample


@dataclass(frozen=True)
class BrightnessBatch:
    """``pixels_BCHW``, and ``target_B`` the mean brightness of the images in 0..1."""

    pixels_BCHW: Tensor
    target_B: Tensor
    languages: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.target_B)

    def rows(self, index: Tensor) -> BrightnessBatch:
        return replace(self, pixels_BCHW=self.pixels_BCHW[index], target_B=self.target_B[index])

    def to(self, device: torch.device) -> BrightnessBatch:
        return replace(self, pixels_BCHW=self.pixels_BCHW.to(device), target_B=self.target_B.to(device))


@dataclass(frozen=True)
class BrightnessPreparer:
    transform: Callable[[Image], Tensor]
    reads = True

    def row(self, sample: Sample, pick: Pick) -> tuple[Tensor, float]:
        image = decode(sample.image, draft_size=None)
        return self.transform(image), float(np.asarray(image.convert("L")).mean() / 255)

    def collate(self, rows: Sequence[tuple[Tensor, float]]) -> BrightnessBatch:
        return BrightnessBatch(torch.stack([pixels for pixels, _ in rows]), torch.tensor([one for _, one in rows]))
