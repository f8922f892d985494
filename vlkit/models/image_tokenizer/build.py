"""From its spec to an image tokenizer that can be trained."""

from __future__ import annotations

from pathlib import Path

from vlkit.models.image_tokenizer.model import ImageTokenizerModel
from vlkit.parts.image_tokenizers import build_image_tokenizer
from vlkit.spec.model import ImageTokenizerModelSpec


def build(spec: ImageTokenizerModelSpec, *, saved: Path | None, empty: bool) -> ImageTokenizerModel:
    """The model of a spec; see ``models.registry.build``."""
    return ImageTokenizerModel(build_image_tokenizer(spec.tokenizer, saved=saved and saved / "tokenizer", empty=empty))
