"""Quantisers without a learned codebook, by ``vector-quantize-pytorch``: channels of a place to a code, and back.

Sources: FSQ (arXiv 2309.15505, section 3.1 and appendix A.1), LFQ (MAGVIT-v2, arXiv 2310.05737, section 3.1). Codes are
counted as that package counts them: FSQ's first channel is the fastest digit, LFQ's first channel the highest bit (as
in Show-o's tokenizer).

Shapes: B batch, H rows, W columns, N places (rows * columns), q channels of a code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn


class CodeQuantizer(nn.Module):
    """Rounds the channels of each place; it has nothing to learn and nothing to save.

    ``levels`` are the values that each channel can take: all 2 for ``lfq`` (its sign), 3 or more for ``fsq``.
    """

    def __init__(self, kind: Literal["fsq", "lfq"], levels: Sequence[int]) -> None:
        super().__init__()
        self.kind, self.levels = kind, tuple(levels)
        self.codebook_size = math.prod(levels)
        # The package's tables are computed and read as numbers when they are built, which meta tensors are not: they
        # are made when they are first needed, and stay out of state dicts.
        self._tables: dict[torch.device, Any] = {}

    def forward(self, latents_BqHW: Tensor) -> tuple[Tensor, Tensor]:
        """quantized_BqHW float32 in -1..1, through which gradients pass as if nothing were rounded, and codes_BN int64.

        FSQ's gradient is that of the tanh which keeps its values in range.
        """
        with torch.autocast(latents_BqHW.device.type, enabled=False):
            latents_BqHW = latents_BqHW.float()
            quantized_BqHW, codes_BHW = self._on(latents_BqHW.device)(latents_BqHW)[:2]
            if self.kind == "lfq" and torch.is_grad_enabled():
                quantized_BqHW = latents_BqHW + (quantized_BqHW - latents_BqHW).detach()
        return quantized_BqHW, codes_BHW.flatten(1).long()

    def quantized(self, codes_BN: Tensor, *, grid: tuple[int, int]) -> Tensor:
        """quantized_BqHW of codes, as ``forward`` gives it."""
        found_BqHW: Tensor = self._on(codes_BN.device).indices_to_codes(codes_BN.reshape(-1, *grid))
        return found_BqHW.float()

    def _on(self, device: torch.device) -> Any:
        if device not in self._tables:
            self._tables[device] = _quantizer(self.kind, self.levels).to(device)
        return self._tables[device]


def _quantizer(kind: str, levels: tuple[int, ...]) -> Any:
    from vector_quantize_pytorch import FSQ, LFQ

    with torch.device("cpu"):
        built: Any = FSQ(levels) if kind == "fsq" else LFQ(dim=len(levels), codebook_size=math.prod(levels))
    return built.eval()
