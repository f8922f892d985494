"""Specs of diffusion models that are told what to paint, and of what lets them read other languages."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vlkit.spec.base import Kinds, LocalPath, Spec
from vlkit.spec.parts import Dtype


class PipelineSpec(Spec):
    """What the specs of all diffusion pipelines share."""

    kind: str


class DiffusersFolderSpec(PipelineSpec):
    """A Stable Diffusion pipeline of diffusers, used as it is; a model folder names it and holds nothing of it."""

    kind: Literal["diffusers"] = "diffusers"
    folder: LocalPath
    """A folder as diffusers writes it (`model_index.json`), of a `StableDiffusionPipeline` with safetensors weights."""
    dtype: Dtype = "float32"
    """Precision in which its weights are held."""
    digest: str | None = None
    """Of its configurations and weights; vlkit fills it in where a model is saved. Another pipeline is then refused."""


class TinyPipelineSpec(PipelineSpec):
    """A Stable Diffusion pipeline of a few channels with random weights, for tests; its images are noise."""

    kind: Literal["tiny"] = "tiny"
    width: int = Field(default=16, ge=4, le=256, multiple_of=4)
    """Width of the states that the denoiser reads."""
    tokens: int = Field(default=16, ge=4, le=512)
    """States of a text."""
    seed: int = Field(default=0, ge=0)
    """Seed of the weights."""


PIPELINE_KINDS = Kinds(DiffusersFolderSpec, TinyPipelineSpec, usual="diffusers")
AnyPipelineSpec = Annotated[PipelineSpec, PIPELINE_KINDS]
"""The spec of any diffusion pipeline."""


class ConditionBridgeSpec(Spec):
    """What the specs of bridges to a denoiser's text input share."""

    kind: str


class PeaSpec(ConditionBridgeSpec):
    """A perceptron of each token, as in PEA-Diffusion (arXiv 2311.17086): small, and it keeps the order of words."""

    kind: Literal["pea"] = "pea"
    hidden: int = Field(default=2048, ge=4)
    """Width inside."""


class MulanSpec(ConditionBridgeSpec):
    """A small transformer whose learned queries look at the text, as MuLan's language adapter (arXiv 2412.01271)."""

    kind: Literal["mulan"] = "mulan"
    layers: int = Field(default=1, ge=1)
    """Layers over the text, and as many over the queries."""
    heads: int = Field(default=8, ge=1)
    """Attention heads; a divisor of the width of the denoiser's text input."""
    ratio: int = Field(default=4, ge=1)
    """Hidden width of the perceptrons, in widths."""


CONDITION_BRIDGE_KINDS = Kinds(PeaSpec, MulanSpec, usual="mulan")
AnyConditionBridgeSpec = Annotated[ConditionBridgeSpec, CONDITION_BRIDGE_KINDS]
"""The spec of any bridge to a denoiser's text input."""


class PaintingSpec(Spec):
    """How a diffusion model paints."""

    steps: int = Field(default=50, ge=1, le=1000)
    """Steps; each is one pass of the denoiser, or two with guidance."""
    guidance: float = Field(default=7.5, ge=1)
    """How far noise is moved away from that without the prompt (classifier-free guidance); 1 is none."""
    image_size: int | None = Field(default=None, ge=8, multiple_of=8)
    """Side of the images in pixels; null takes the denoiser's own."""
    batch_size: int = Field(default=4, ge=1)
    """Images at a time; it makes no difference to them."""
    seed: int = Field(default=0, ge=0, lt=2**62)
    """Seed of the first image; further ones take the numbers after it. It is the same noise in every language."""
