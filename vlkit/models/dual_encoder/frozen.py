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
def remembering(model: DualEncoder, *, frozen_only: bool = False) -> Iterator[DualEncoder]:
    """Inside the block the model's encoders remember: for variants that share frozen encoders.

    The model's weights do not change inside the block. With ``frozen_only`` an encoder in which something trains does
    not remember: its features would be of no use later.
    """
    parts: Any = model
    plain = {"image": cast("nn.Module", model.image), "text": cast("nn.Module", model.text)}
    if frozen_only:
        plain = {name: one for name, one in plain.items() if not any(p.requires_grad for p in one.parameters())}
    memories = {name: Remembering(encoder) for name, encoder in plain.items()}
    for name, memory in memories.items():
        setattr(parts, name, memory)
    try:
        yield model
    finally:
        for name, memory in memories.items():
            setattr(parts, name, plain[name])
            memory.flush()
