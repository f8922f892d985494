"""What is told of a dual encoder before it is used; its weights may be on the meta device."""

from __future__ import annotations

from vlkit.models.dual_encoder.model import DualEncoder


def facts(model: DualEncoder) -> dict[str, int | str]:
    """Its sizes."""
    return {"image size": model.image.image_size, "embedding width": model.embed_dim}
