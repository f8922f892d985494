"""From its spec to a dual encoder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.parts.bridges import build_decoder, build_head
from vlkit.parts.encoders import build_image_encoder, build_text_encoder
from vlkit.spec.model import DualEncoderSpec
from vlkit.spec.parts import HeadSpec
from vlkit.types import SharesLayers


def build(spec: DualEncoderSpec, *, saved: Path | None, empty: bool) -> DualEncoder:
    """The dual encoder of a spec, without its adapters; see ``models.registry.build``."""
    image = build_image_encoder(spec.image, saved=saved and saved / "image", empty=empty)
    text = build_text_encoder(spec.text, saved=saved and saved / "text", empty=empty)
    if isinstance(text, SharesLayers):
        text.join(image)
    return DualEncoder(
        image,
        text,
        embed_dim=spec.embed_dim,
        image_head=_head(spec.image_head, image.width, spec.embed_dim, saved=saved is not None and not empty),
        text_head=_head(spec.text_head, text.width, spec.embed_dim, saved=saved is not None and not empty),
        init_scale=spec.init_scale,
        max_scale=spec.max_scale,
        init_bias=spec.init_bias,
        decoder=None if spec.decoder is None else build_decoder(spec.decoder, image, text),
    )


def _head(spec: HeadSpec, in_width: int, out_width: int, *, saved: bool) -> nn.Module:
    if not saved:
        return build_head(spec, in_width, out_width)
    with torch.device("meta"):  # orthogonal first weights take a second, and all of a head is in the state dict
        head = build_head(spec, in_width, out_width)
    return head.to_empty(device="cpu")
