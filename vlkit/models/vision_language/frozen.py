"""The image encoder of a vision-language model where it is frozen: its tokens can be looked up."""

from __future__ import annotations

from typing import cast

from torch import nn

from vlkit.models.feature_cache import FrozenImages, FrozenPart
from vlkit.models.vision_language.model import VisionLanguageModel


def frozen_parts(model: VisionLanguageModel) -> tuple[FrozenPart, ...]:
    """Images to the encoder's tokens, where no sample has several images."""
    encoder = model.encoder
    return (
        FrozenImages(
            "encoder",
            cast("nn.Module", encoder),
            model.transform,
            encode=encoder.tokens,
            settings={"rows": "tokens"},
            at_most_one=True,
        ),
    )
