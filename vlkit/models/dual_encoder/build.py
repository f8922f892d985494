"""From its spec to a dual encoder, and from whole models of other libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.parts import clip_models
from vlkit.parts.bridges import build_decoder, build_head
from vlkit.parts.encoders import build_image_encoder, build_text_encoder
from vlkit.spec.model import DualEncoderSpec
from vlkit.spec.parts import HeadSpec, IdentityHeadSpec, MlpHeadSpec, TinyImage, TinyText
from vlkit.types import SharesLayers

_TINY = DualEncoderSpec(
    image=TinyImage(),
    text=TinyText(),
    embed_dim=32,
    image_head=MlpHeadSpec(hidden=64),
    text_head=MlpHeadSpec(hidden=64),
)


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


def load_tiny(where: str) -> DualEncoder:
    """A small random model, the same each time."""
    torch.default_generator.manual_seed(0)
    return build(_TINY, saved=None, empty=False)


def load_open_clip(where: str) -> DualEncoder:
    """A model of open_clip; see ``clip_models.load_open_clip``."""
    return _joined(*clip_models.load_open_clip(where))


def load_hf(where: str) -> DualEncoder:
    """A two-tower model of transformers; see ``clip_models.load_hf_clip``."""
    return _joined(*clip_models.load_hf_clip(where))


def _joined(image: Any, text: Any, similarity: clip_models.ScaleBias) -> DualEncoder:
    usual = DualEncoderSpec.model_fields["max_scale"].default
    return DualEncoder(
        image,
        text,
        embed_dim=image.width,
        image_head=build_head(IdentityHeadSpec(), image.width, image.width),
        text_head=build_head(IdentityHeadSpec(), text.width, image.width),
        init_scale=similarity.scale,
        max_scale=max(usual, similarity.scale),  # SigLIP's own is above 100
        init_bias=similarity.bias,
    )
