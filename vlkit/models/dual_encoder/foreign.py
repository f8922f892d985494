"""Whole models of other libraries as dual encoders."""

from __future__ import annotations

from typing import Any

import torch

from vlkit.models.dual_encoder.build import build
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.parts import clip_models
from vlkit.parts.bridges import build_head
from vlkit.spec.model import DualEncoderSpec
from vlkit.spec.parts import IdentityHeadSpec, MlpHeadSpec, TinyImage, TinyText

_TINY = DualEncoderSpec(
    image=TinyImage(),
    text=TinyText(),
    embed_dim=32,
    image_head=MlpHeadSpec(hidden=64),
    text_head=MlpHeadSpec(hidden=64),
)


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
