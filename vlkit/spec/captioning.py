"""Specs of decoders and of the losses that read one side's tokens with the help of the other side's."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vlkit.spec.base import Spec
from vlkit.spec.objectives import LossSpec


class DecoderSpec(Spec):
    """Small transformers beside a dual encoder, for training only: one reads text by images, one images by text."""

    width: int = Field(default=512, ge=8)
    """Width of both."""
    heads: int = Field(default=8, ge=1)
    """Attention heads; a divisor of width."""
    ffn: int = Field(default=2048, ge=1)
    """Hidden width of the perceptrons."""
    text_layers: int = Field(default=3, ge=0)
    """Layers of the text decoder (`captioning`, `masked_text`); 0 for none."""
    image_layers: int = Field(default=0, ge=0)
    """Layers of the patch decoder (`masked_image`); 0 for none."""
    patch_size: int = Field(default=16, ge=2)
    """Side in pixels of the patches that the patch decoder fills in; a divisor of the image size."""


class CaptioningObjective(LossSpec):
    """Captioning: each token of a text from those before it and the image (CoCa, arXiv 2205.01917, section 3.2)."""

    kind: Literal["captioning"] = "captioning"
    weight: float = Field(default=2.0, ge=0.0)
    """Factor of this loss in the total."""
    slice_size: int = Field(default=1024, ge=1)
    """Tokens whose logits over the vocabulary exist at a time."""


class MaskedTextObjective(LossSpec):
    """Cross-modal masked language modelling: hidden words of a text from the others and the image (CMLM)."""

    kind: Literal["masked_text"] = "masked_text"
    mask_share: float = Field(default=0.5, gt=0, le=1)
    """Share of a text's words that is hidden, one word at least."""
    slice_size: int = Field(default=1024, ge=1)
    """Tokens whose logits over the vocabulary exist at a time."""


class MaskedImageObjective(LossSpec):
    """Cross-modal masked image modelling: hidden patches of an image from the others and the text (CMIM)."""

    kind: Literal["masked_image"] = "masked_image"
    mask_share: float = Field(default=80 / 196, gt=0, le=1)
    """Share of an image's patches that is hidden, one patch at least."""
    masking: Literal["random", "attentive"] = "random"
    """attentive hides the patches that are most like the text in the shared space (SyCoCa, arXiv 2401.02137)."""
