"""The image tokenizer of a text-to-image model, which is always frozen: its codes can be looked up."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from vlkit.models.feature_cache import FrozenImages, FrozenPart
from vlkit.models.text_to_image.model import TextToImageModel


def frozen_parts(model: TextToImageModel) -> tuple[FrozenPart, ...]:
    """Images to codes, held as float32, in which whole numbers up to 2^24 are exact."""
    tokenizer: Any = model.tokenizer

    def encode(pixels_BCHW: Tensor) -> Tensor:
        codes_BN: Tensor = tokenizer.encode(pixels_BCHW)
        return codes_BN.float()

    return (
        FrozenImages(
            "tokenizer", cast("nn.Module", tokenizer), model.transform, encode=encode, settings={"rows": "codes"}
        ),
    )
