"""The encoders of a dual encoder where they are frozen: what can be looked up of them, and a model that remembers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from torch import nn

from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.models.feature_cache import FrozenImages, FrozenPart, FrozenTexts, Remembering


def frozen_parts(model: DualEncoder) -> tuple[FrozenPart, ...]:
    """Images and captions to the encoders' pooled features.

    Captions are looked up only beside images: whoever reads pixels tokenises too.
    """
    return (
        FrozenImages("image", cast("nn.Module", model.image), model.image.transform),
        FrozenTexts("text", cast("nn.Module", model.text), model.text.tokenize, beside=("image",)),
    )


@contextmanager
def remembering(model: DualEncoder) -> Iterator[DualEncoder]:
    """Inside the block the model's encoders remember: for variants that share frozen encoders."""
    parts, plain = cast("Any", model), (model.image, model.text)
    memories = [Remembering(cast("nn.Module", encoder)) for encoder in plain]
    parts.image, parts.text = memories
    try:
        yield model
    finally:
        parts.image, parts.text = plain
        for memory in memories:
            memory.flush()
