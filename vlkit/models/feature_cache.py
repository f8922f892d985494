"""Frozen encoders that remember: nothing is computed again for the same weights, input and settings.

Shapes: N inputs, D encoder width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vlkit.models.digest import part_digest
from vlkit.models.feature_store import Blocks, FeatureStore, Numbers, key_of, shared_folder
from vlkit.types import TextBatch


class Remembering(nn.Module):
    """A frozen encoder that encodes each image or text once in all; it behaves as the encoder itself.

    Features agree with those computed directly up to the rounding that the composition of batches brings. They carry no
    gradient.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self._store = FeatureStore(shared_folder({"encoder": part_digest(encoder), "by": "content"}))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("encoder"), name)

    def forward(self, given: Tensor | TextBatch) -> Tensor:
        """features_ND of pixels or tokens."""

        def compute(rows: list[int]) -> Blocks:
            part = TextBatch(*(side[rows] for side in given)) if isinstance(given, TextBatch) else given[rows]
            yield rows, encode_frozen(self.encoder, part)

        device = given.ids_BL.device if isinstance(given, TextBatch) else given.device
        return self._store.fetch(content_keys(given), compute).to(device)

    def flush(self) -> None:
        """Writes what is not on disk yet."""
        self._store.flush()


@torch.no_grad()
def encode_frozen(
    encoder: nn.Module, inputs: Tensor | TextBatch, *, encode: Callable[[Any], Tensor] | None = None
) -> Tensor:
    """features_ND as they are at inference: in eval mode, without gradient; ``encode`` is the encoder's own method."""
    was = {module: module.training for module in encoder.modules()}
    encoder.eval()
    try:
        features_ND: Tensor = (encode or encoder)(inputs)
    finally:
        for module, training in was.items():
            module.training = training
    return features_ND


def content_keys(given: Tensor | TextBatch) -> Numbers:
    """The keys of pixels or tokens in a store: by what they hold, without the padding."""
    if isinstance(given, TextBatch):
        pairs = zip(given.ids_BL.cpu(), given.mask_BL.cpu(), strict=True)
        return np.array([key_of(ids_L[mask_L.bool()].numpy().tobytes()) for ids_L, mask_L in pairs], dtype=np.int64)
    return np.array([key_of(pixels_CHW.contiguous().numpy().tobytes()) for pixels_CHW in given.cpu()], dtype=np.int64)
