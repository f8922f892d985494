"""Specs of whole models."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vlkit.spec.base import Spec
from vlkit.spec.parts import HeadSpec, ImageEncoderSpec, MlpHead, TextEncoderSpec


class DualEncoderSpec(Spec):
    """An image and a text encoder with heads into one shared space (CLIP, LiT, M-CLIP, SigLIP)."""

    kind: Literal["dual_encoder"] = "dual_encoder"
    image: ImageEncoderSpec
    """The image side."""
    text: TextEncoderSpec
    """The text side."""
    embed_dim: int = Field(default=512, ge=2)
    """Width of the shared space."""
    image_head: HeadSpec = MlpHead()
    """From image features to the shared space."""
    text_head: HeadSpec = MlpHead()
    """From text features to the shared space."""
    init_scale: float = Field(default=1 / 0.07, gt=0)
    """First value of the learned similarity scale (1 / temperature)."""
    max_scale: float = Field(default=100.0, gt=0)
    """The scale is kept at or below this."""
    init_bias: float | None = None
    """First value of the learned similarity bias (SigLIP uses -10); null for none."""


ModelSpec = DualEncoderSpec
