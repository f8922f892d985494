"""What is told of a vision-language model before it is used; its weights may be on the meta device."""

from __future__ import annotations

from vlkit.models.image_facts import facts_of_images
from vlkit.models.vision_language.model import VisionLanguageModel


def facts(model: VisionLanguageModel) -> dict[str, int | str]:
    """Sizes that decide what fits: of images, of what the language model reads of one, and of its context."""
    encoder, language_model = model.encoder, model.language_model
    return {
        **facts_of_images(encoder),
        "model tokens per image": model.image_tokens,
        "context": language_model.max_length,
        "vocabulary": language_model.vocab_size,
        "language model": "encoder-decoder" if language_model.encodes else "decoder-only",
    }
