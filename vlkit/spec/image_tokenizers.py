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


IMAGE_TOKENIZER_KINDS = Kinds(ConvTokenizerSpec, usual="conv")
ImageTokenizerSpec = Annotated[BaseTokenizerSpec, IMAGE_TOKENIZER_KINDS]
"""The spec of any kind of image tokenizer."""
