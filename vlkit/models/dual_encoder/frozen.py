"""Which parts of a dual encoder can be looked up where they are frozen: the two encoders."""

from __future__ import annotations

from typing import cast

from torch import nn

from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.models.frozen_parts import FrozenImages, FrozenPart, FrozenTexts


def frozen_parts(model: DualEncoder) -> tuple[FrozenPart, ...]:
    """Images and captions to the encoders' pooled features.

    Captions are looked up only beside images: whoever reads pixels tokenises too.
    """
    return (
        FrozenImages("image", cast("nn.Module", model.image), model.image.transform),
        FrozenTexts("text", cast("nn.Module", model.text), model.text.tokenize, beside=("image",)),
    )
