"""The image encoder before a Q-Former where it is frozen: its tokens can be looked up."""

from __future__ import annotations

from vlkit.models.feature_cache import FrozenImages, FrozenPart
from vlkit.models.query_former.model import QueryFormer


def frozen_parts(model: QueryFormer) -> tuple[FrozenPart, ...]:
    """Images to the encoder's tokens."""
    encoder = model.encoder
    return (FrozenImages("encoder", encoder, model.transform, encode=encoder.tokens, settings={"rows": "tokens"}),)
