"""From its spec to a vision-language model."""

from __future__ import annotations

from pathlib import Path

from vlkit.models.vision_language.model import VisionLanguageModel
from vlkit.parts.bridges import build_bridge
from vlkit.parts.encoders import build_image_encoder
from vlkit.parts.language_models import build_language_model
from vlkit.spec.model import VisionLanguageSpec


def build(spec: VisionLanguageSpec, *, saved: Path | None, empty: bool) -> VisionLanguageModel:
    """The model of a spec, without its adapters; see ``models.registry.build``."""
    encoder = build_image_encoder(spec.encoder, saved=saved and saved / "encoder", empty=empty)
    language_model = build_language_model(spec.language_model, saved=saved and saved / "language_model", empty=empty)
    bridge = build_bridge(
        spec.bridge, encoder.token_width, language_model.width, saved=saved is not None and not empty, empty=empty
    )
    return VisionLanguageModel(
        encoder,
        bridge,
        language_model,
        dialogue=spec.dialogue,
        caption_task=spec.caption_task,
        pack_length=spec.pack_length,
    )
