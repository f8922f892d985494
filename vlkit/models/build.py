"""From a spec to a model."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch

from vlkit.errors import UnknownName
from vlkit.models.dual_encoder import DualEncoder
from vlkit.nn.heads import build_head
from vlkit.parts.building import weightless
from vlkit.parts.image import build_image_encoder
from vlkit.parts.text import build_text_encoder
from vlkit.spec.model import DualEncoderSpec, ModelSpec
from vlkit.types import ImageEncoder, TextEncoder


def build(spec: ModelSpec, *, saved: Path | None = None) -> DualEncoder:
    """The model that ``spec`` describes.

    Args:
        spec: What to build.
        saved: A model folder; encoders are built from the configuration in it, with weights unset until a state dict is
            loaded, and nothing is downloaded.

    Raises:
        VlkitError: A part cannot be had, or parts do not fit each other.
    """
    return _build(spec, saved=saved, empty=False)


def build_meta(spec: ModelSpec) -> DualEncoder:
    """The model on the meta device: all shapes, no weights. For dry runs."""
    with torch.device("meta"):
        return _build(spec, saved=None, empty=True)


def _build(spec: ModelSpec, *, saved: Path | None, empty: bool) -> DualEncoder:
    match spec:
        case DualEncoderSpec():
            image = cast("ImageEncoder", build_image_encoder(spec.image, saved=saved and saved / "image", empty=empty))
            text = cast("TextEncoder", build_text_encoder(spec.text, saved=saved and saved / "text", empty=empty))
            with weightless(saved=saved is not None, empty=empty):
                image_head = build_head(spec.image_head, image.width, spec.embed_dim)
                text_head = build_head(spec.text_head, text.width, spec.embed_dim)
            return DualEncoder(
                image,
                text,
                embed_dim=spec.embed_dim,
                image_head=image_head,
                text_head=text_head,
                init_scale=spec.init_scale,
                max_scale=spec.max_scale,
                init_bias=spec.init_bias,
            )
        case _:
            raise UnknownName("model", type(spec).__name__, allowed=("dual_encoder",))
