"""From its spec to a dual encoder."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import nn

from vlkit.errors import VlkitError
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.nn.decoders import Decoder
from vlkit.nn.heads import build_head
from vlkit.parts.image import build_image_encoder
from vlkit.parts.multiway_encoders import MultiwayTextEncoder
from vlkit.parts.text import build_text_encoder
from vlkit.spec.captioning import DecoderSpec
from vlkit.spec.model import DualEncoderSpec
from vlkit.spec.parts import HeadSpec
from vlkit.types import ImageEncoder, TextEncoder


def build(spec: DualEncoderSpec, *, saved: Path | None, empty: bool) -> DualEncoder:
    """The dual encoder of a spec, without its adapters; see ``models.registry.build``."""
    image = cast("ImageEncoder", build_image_encoder(spec.image, saved=saved and saved / "image", empty=empty))
    text = cast("TextEncoder", build_text_encoder(spec.text, saved=saved and saved / "text", empty=empty))
    if isinstance(text, MultiwayTextEncoder):
        text.join(cast("nn.Module", image))
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


def build_decoder(spec: DecoderSpec, image: ImageEncoder, text: TextEncoder) -> Decoder:
    """The decoders of a model between these encoders, with fresh weights.

    Raises:
        VlkitError: The text encoder does not tell how many tokens it knows.
    """
    vocab_size: int | None = getattr(text, "vocab_size", None)
    if vocab_size is None:
        raise VlkitError(
            f"model.decoder: the text encoder {type(text).__name__} has no vocab_size, so no decoder can be built "
            f"beside it; choose another one, or leave the decoder out"
        )
    return Decoder(
        spec,
        image_width=getattr(image, "states_width", image.width),
        text_width=getattr(text, "states_width", text.width),
        vocab_size=vocab_size,
    )


def _head(spec: HeadSpec, in_width: int, out_width: int, *, saved: bool) -> nn.Module:
    if not saved:
        return build_head(spec, in_width, out_width)
    with torch.device("meta"):  # orthogonal first weights take a second, and all of a head is in the state dict
        head = build_head(spec, in_width, out_width)
    return head.to_empty(device="cpu")
