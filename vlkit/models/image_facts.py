"""What a model's facts say of its image encoder, for any kind of model."""

from __future__ import annotations

from vlkit.types import ImageEncoder, TellsFacts


def facts_of_images(encoder: ImageEncoder) -> dict[str, int | str]:
    """Sizes and places, and the preprocessing's mean and deviation where the encoder tells them."""
    told: dict[str, int | str] = {
        "image size": encoder.image_size,
        "encoder tokens per image": encoder.num_tokens(encoder.image_size),
    }
    if isinstance(encoder, TellsFacts):
        known = encoder.facts()
        told |= {"encoder token width": known.token_width, "class and register tokens": known.extra_tokens}
        if known.side is not None:
            told["encoder grid"] = f"{known.side}x{known.side}"
        for name, values in (("mean", known.mean), ("std", known.std)):
            if values:
                told[f"image {name}"] = ", ".join(f"{value:.4g}" for value in values)
    return told
