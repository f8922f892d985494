"""Specs of image tokenizers, which turn images into rows of whole numbers (codes) and back."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from vlkit.spec.base import Kinds, LocalPath, Spec

_MOST_CODES = 1 << 18


class BaseTokenizerSpec(Spec):
    """What the specs of all image tokenizers share."""

    kind: str


class ConvTokenizerSpec(BaseTokenizerSpec):
    """vlkit's own: a small convolutional encoder and decoder around a quantiser without a learned codebook.

    `patch` and each of `widths` but the first divide the sides: 64 pixels by a patch of 4 and two widths are 8 codes.
    """

    kind: Literal["conv"] = "conv"
    image_size: int = Field(default=64, ge=8, le=1024)
    """Side of the square images in pixels; a multiple of `step`, patch * 2 ** (number of widths - 1)."""
    patch: Literal[1, 2, 4, 8, 16] = 4
    """Squares of so many pixels a side become the channels that the first layer reads."""
    widths: tuple[Annotated[int, Field(ge=4, le=4096)], ...] = Field(default=(64, 192), min_length=1, max_length=6)
    """Channels of the places, whose sides halve from one to the next; the last ones are those at the codes. The decoder
    has the same in reverse."""
    blocks: int = Field(default=2, ge=1, le=16)
    """Residual blocks at each of widths."""
    attention: int = Field(default=0, ge=0, le=16)
    """Layers of self-attention over all places at the codes, in the encoder and in the decoder."""
    quantizer: Literal["fsq", "lfq"] = "fsq"
    """fsq rounds each channel to one of `levels` values (arXiv 2309.15505, section 3.1); lfq takes its sign (MAGVIT-v2,
    arXiv 2310.05737, section 3.1)."""
    levels: tuple[Annotated[int, Field(ge=2, le=64)], ...] = Field(default=(8, 8, 8, 8), min_length=1, max_length=18)
    """Values of each channel of a code; their product is the number of codes. fsq takes 3 or more each, lfq 2."""
    weights: LocalPath | None = None
    """A folder of a trained model that has such a tokenizer; sizes that are not given here are taken from there. null
    draws the weights."""

    @property
    def codebook_size(self) -> int:
        """How many codes there are."""
        return math.prod(self.levels)

    @property
    def step(self) -> int:
        """Pixels of a code's side."""
        return self.patch << (len(self.widths) - 1)

    @property
    def side(self) -> int:
        """Rows, and columns, of an image's codes."""
        return self.image_size // self.step

    @model_validator(mode="after")
    def _sizes_fit(self) -> ConvTokenizerSpec:
        if self.image_size % self.step:
            nearest = max(1, round(self.image_size / self.step)) * self.step
            raise ValueError(
                f"image_size = {self.image_size} is no multiple of {self.step}, by which patch = {self.patch} and "
                f"{len(self.widths)} widths divide it; nearest: {nearest}"
            )
        wrong = [level for level in self.levels if (level == 2) != (self.quantizer == "lfq")]
        if wrong:
            allowed = "2 each" if self.quantizer == "lfq" else "3 or more each (2 each is quantizer: lfq)"
            raise ValueError(f"levels: {wrong[0]} is none of quantizer {self.quantizer}; allowed: {allowed}")
        if self.codebook_size > _MOST_CODES:
            raise ValueError(f"levels: {self.codebook_size:,} codes; allowed: up to {_MOST_CODES:,}")
        return self


class DiffusersVqSpec(BaseTokenizerSpec):
    """A `VQModel` of diffusers, such as those of aMUSEd and Meissonic; it is not trained."""

    kind: Literal["diffusers_vq"] = "diffusers_vq"
    weights: LocalPath
    """A folder with its config.json and diffusion_pytorch_model.safetensors (`vqvae/` of a pipeline)."""
    image_size: int = Field(ge=8, le=4096)
    """Side of the square images in pixels, which the folder does not say: 512 for amused-512."""
    pixel_low: Literal[0, -1] = 0
    """The lowest value of the pixels that it was trained on, the highest is 1: 0 for aMUSEd and Meissonic."""


class JanusTokenizerSpec(BaseTokenizerSpec):
    """The tokenizer of Janus and Janus-Pro (LlamaGen's network), `JanusVQVAE` of transformers; it is not trained."""

    kind: Literal["janus"] = "janus"
    weights: LocalPath
    """A folder in hub layout, of a `JanusVQVAE` alone or of the whole Janus model, whose tokenizer is taken."""


class TorchScriptTokenizerSpec(BaseTokenizerSpec):
    """An image tokenizer as TorchScript files, such as NVIDIA's Cosmos; it is not trained.

    Such files are programs. They run only where `run_code` says so; what they take and give is said here.
    """

    kind: Literal["torchscript"] = "torchscript"
    encoder: LocalPath
    """The file that makes codes of pixels."""
    decoder: LocalPath | None = None
    """The file that makes pixels of codes; null: the same file does both."""
    encode: str = "forward"
    """The method of the encoder that is called."""
    decode: str = "forward"
    """The method of the decoder that is called."""
    codes_at: int | None = Field(default=None, ge=0)
    """Where the encoder gives several tensors: which of them are the codes, 0 for the first (Cosmos). null: it gives
    codes alone."""
    codes_as: Literal["grid", "rows"] = "grid"
    """The form of codes that the decoder takes: grid is [batch, rows, columns] (Cosmos), rows is [batch, codes]."""
    image_size: int = Field(ge=8, le=4096)
    """Side of the square images in pixels; a multiple of `step`."""
    step: int = Field(ge=1, le=256)
    """Pixels of a code's side: 16 for Cosmos DI16x16."""
    codebook_size: int = Field(ge=2, le=_MOST_CODES)
    """How many codes there are: 64000 for Cosmos."""
    pixel_low: Literal[0, -1] = -1
    """The lowest value of pixels, of those it reads and of those it gives; the highest is 1."""
    sha256: tuple[str, ...] = ()
    """Digests of the files, encoder first; vlkit fills them in where a model is saved. Other files are then refused."""
    run_code: bool = False
    """Run the files. Say true only for files of a source that you trust: a program can do more than compute."""

    @model_validator(mode="after")
    def _may_run(self) -> TorchScriptTokenizerSpec:
        if not self.run_code:
            raise ValueError(
                f"run_code: {self.encoder} is a program and would be run; write run_code: true if you trust its source"
            )
        if self.image_size % self.step:
            nearest = max(1, round(self.image_size / self.step)) * self.step
            raise ValueError(f"image_size = {self.image_size} is no multiple of step = {self.step}; nearest: {nearest}")
        return self


IMAGE_TOKENIZER_KINDS = Kinds(
    ConvTokenizerSpec, DiffusersVqSpec, JanusTokenizerSpec, TorchScriptTokenizerSpec, usual="conv"
)
ImageTokenizerSpec = Annotated[BaseTokenizerSpec, IMAGE_TOKENIZER_KINDS]
"""The spec of any kind of image tokenizer."""
