"""What is told of a Q-Former before it is used; its weights may be on the meta device."""

from __future__ import annotations

from vlkit.models.image_facts import facts_of_images
from vlkit.models.query_former.model import QueryFormer


def facts(model: QueryFormer) -> dict[str, int | str]:
    """Sizes: of images and what the encoder makes of them, of the queries, and of texts."""
    return {
        **facts_of_images(model.encoder),
        "queries": model.bridge.num_tokens(0),
        "longest text": model.text.spec.max_length,
        "vocabulary": model.text.spec.vocab,
    }
