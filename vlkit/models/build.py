"""From a spec to a model."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import nn

from vlkit.errors import UnknownName
from vlkit.models.dual_encoder import DualEncoder
from vlkit.nn.heads import build_head
from vlkit.parts.image import build_image_encoder
from vlkit.parts.text import build_text_encoder
from vlkit.spec.model import DualEncoderSpec, ModelSpec
from vlkit.spec.parts import HeadSpec
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
            return DualEncoder(
                image,
                text,
                embed_dim=spec.embed_dim,
                image_head=_head(spec.image_head, image.width, spec.embed_dim, saved=saved is not None),
                text_head=_head(spec.text_head, text.width, spec.embed_dim, saved=saved is not None),
                init_scale=spec.init_scale,
                max_scale=spec.max_scale,
                init_bias=spec.init_bias,
            )
        case _:
            raise UnknownName("model", type(spec).__name__, allowed=("dual_encoder",))


def _head(spec: HeadSpec, in_width: int, out_width: int, *, saved: bool) -> nn.Module:
    if not saved:
        return build_head(spec, in_width, out_width)
    with torch.device("meta"):  # orthogonal first weights take a second, and all of a head is in the state dict
        head = build_head(spec, in_width, out_width)
    return head.to_empty(device="cpu")
