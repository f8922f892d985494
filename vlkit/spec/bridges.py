"""Specs of bridges, which make tokens for a language model of an image encoder's tokens."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vlkit.spec.base import LocalPath, Spec


class LinearBridgeSpec(Spec):
    """One linear map of each image token (LLaVA 1.0, BLIP-2's own)."""

    kind: Literal["linear"] = "linear"
    bias: bool = True
    """Add a bias."""


class MlpBridgeSpec(Spec):
    """A perceptron of each image token: linear maps with GELU between them (LLaVA 1.5), and norms (Yi-VL)."""

    kind: Literal["mlp"] = "mlp"
    layers: int = Field(default=2, ge=1)
    """Linear maps."""
    norm: bool = False
    """A LayerNorm after each linear map (Yi-VL, arXiv 2403.04652, section 7.2)."""


class PixelShuffleBridgeSpec(Spec):
    """Squares of neighbouring image tokens joined into one wide token, then a linear map (nanoVLM, Idefics3)."""

    kind: Literal["pixel_shuffle"] = "pixel_shuffle"
    factor: int = Field(default=2, ge=1)
    """Side of the squares, in tokens; a square grid whose side is no multiple of it is padded with zeros."""
    bias: bool = False
    """Add a bias."""


class QFormerBridgeSpec(Spec):
    """A Q-Former: learned queries look at the image tokens in every second layer (BLIP-2, arXiv 2301.12597, 3.1)."""

    kind: Literal["qformer"] = "qformer"
    num_queries: int = Field(default=32, ge=1)
    """Learned queries: model tokens of an image."""
    width: int = Field(default=768, ge=8)
    """Width of the queries' states."""
    layers: int = Field(default=12, ge=1)
    """Transformer layers."""
    heads: int = Field(default=12, ge=1)
    """Attention heads; a divisor of width."""
    ffn: int = Field(default=3072, ge=1)
    """Hidden width of the perceptrons."""
    cross_every: int = Field(default=2, ge=1)
    """Every how many layers, from the first on, the queries look at the image."""
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of states and attention weights silenced in training."""
    norm_image: bool = False
    """A LayerNorm over the image tokens first (BLIP-2's `ln_vision`)."""
    weights: LocalPath | None = None
    """Weights to start from: a file or folder of LAVIS, of transformers' BLIP-2, or a vlkit model; null draws them."""


class ResamplerBridgeSpec(Spec):
    """A perceiver resampler: learned queries look at image tokens and themselves (Flamingo, arXiv 2204.14198, 3.1)."""

    kind: Literal["resampler"] = "resampler"
    num_queries: int = Field(default=64, ge=1)
    """Learned queries: model tokens of an image."""
    width: int | None = Field(default=None, ge=8)
    """Width inside; null takes the language model's."""
    layers: int = Field(default=2, ge=1)
    """Layers."""
    heads: int = Field(default=8, ge=1)
    """Attention heads; a divisor of width."""
    ffn_factor: int = Field(default=4, ge=1)
    """Hidden width of the perceptrons, in widths."""


class QueryTextSpec(Spec):
    """What lets a Q-Former read and write texts while it learns from them: tokens, embeddings, layers of their own."""

    tokenizer: str | None = None
    """Folder with a transformers tokenizer, or its hub id; null reads UTF-8 bytes."""
    vocab: int = Field(default=259, ge=259)
    """Rows of the token embedding, at least as many as the tokenizer has tokens; bytes take 259."""
    max_length: int = Field(default=32, ge=2)
    """Longest text in tokens, marks included; longer ones are cut."""


BridgeSpec = Annotated[
    LinearBridgeSpec | MlpBridgeSpec | PixelShuffleBridgeSpec | QFormerBridgeSpec | ResamplerBridgeSpec,
    Field(discriminator="kind"),
]
