"""From its spec, or a folder of transformers, to a whole model that answers questions about images."""

from __future__ import annotations

from pathlib import Path

from vlkit.models.image_text_to_text.model import ImageTextToText
from vlkit.parts.hf_image_text import HfImageText
from vlkit.spec.model import ImageTextToTextSpec, WholeSpec


def build(spec: ImageTextToTextSpec, *, saved: Path | None, empty: bool) -> ImageTextToText:
    """The model of a spec, without its adapters; see ``models.registry.build``."""
    return ImageTextToText(HfImageText.build(spec.whole, saved=saved and saved / "whole", empty=empty))


def load_whole(where: str) -> ImageTextToText:
    """A model of transformers by hub id or folder; see ``HfImageText.build``."""
    return ImageTextToText(HfImageText.build(WholeSpec(name=where)))
