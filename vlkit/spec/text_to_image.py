"""Specs of models that make images from texts: what stands around the codes, and how they are found."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from vlkit.spec.base import Kinds, Spec

Schedule = Literal["cosine", "linear", "pow", "sigmoid", "arccos"]
"""How the share of hidden codes falls from 1 to 0 (``vlkit.nn.code_masks.SCHEDULES``)."""


class SamplingSpec(Spec):
    """How an image's codes are found: in some steps, the surest first (MaskGIT, arXiv 2202.04200, section 3.2)."""

    steps: int = Field(default=20, ge=1)
    """Steps; each is one pass of the model. No more are made than there are codes to be found."""
    schedule: Schedule = "cosine"
    """How many codes are still unknown after each step: cosine finds few at first and many at the end."""
    power: float = Field(default=2.0, gt=0)
    """With `schedule: pow`: the exponent; the unknown share is 1 - progress^power."""
    temperature: float = Field(default=1.0, ge=0)
    """Codes are drawn, the more freely the higher; 0 takes the likeliest."""
    top_k: int | None = Field(default=None, ge=1)
    """Draw among this many of the likeliest codes; null among all."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw among the likeliest codes that have this share of the probability together."""
    confidence: Literal["linear", "compounding", "linspace"] = "linear"
    """How the noise on the confidence, by which codes are kept, falls from step s = 1 to T: linear to
    `noise` * (1 - s / T) (MaskGIT), compounding as the product of all (1 - s / T) so far (Show-o, NeoBabel: gone within
    a third of the steps), linspace from `noise` in the first step to 0 in the last (aMUSEd, Meissonic)."""
    noise: float = Field(default=1.0, ge=0)
    """The noise that the confidence starts with, a factor of Gumbel noise: MaskGIT has 4.5, Show-o 1, aMUSEd 2."""
    guidance: float = Field(default=4.0, ge=0)
    """How far logits are moved away from those without the prompt (classifier-free guidance)."""
    guidance_as: Literal["scale", "weight"] = "scale"
    """What that number is. scale: g of null + g * (prompt - null), as in diffusers; 1 leaves the null branch out.
    weight: w = g - 1 of (1 + w) * prompt - w * null, as in Show-o and NeoBabel; 0 leaves it out."""
    guidance_schedule: Literal["constant", "linear", "cosine", "interval"] = "constant"
    """How guidance goes over the steps: constant; linear from none in the first step to all in the last (Muse); cosine:
    1 + (g - 1) * (1 - cos(pi * (s / T)^guidance_power)) / 2 for s = 0, ..., T - 1 (TiTok); interval: all of it in some
    steps, none in the others. Steps without guidance need no null branch."""
    guidance_power: float = Field(default=3.0, gt=0)
    """With `guidance_schedule: cosine`: the exponent."""
    guidance_interval: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] = (0.0, 1.0)
    """With `guidance_schedule: interval`: from which share of the steps on there is guidance, and up to which."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of the first image; further ones of a prompt take the numbers after it."""

    @model_validator(mode="after")
    def _interval_is_one(self) -> Self:
        first, last = self.guidance_interval
        if first >= last:
            raise ValueError(f"guidance_interval: [{first:g}, {last:g}] holds no step; its first number is the smaller")
        return self

    @property
    def guidance_scale(self) -> float:
        """Guidance as diffusers has it: 1 for none, whatever ``guidance_as`` is."""
        return self.guidance if self.guidance_as == "scale" else self.guidance + 1


class BaseBodySpec(Spec):
    """What all bodies share: they go from embeddings of codes, behind a prompt, to states that foretell the codes."""

    kind: str


class LanguageModelBodySpec(BaseBodySpec):
    """Codes go through the language model's own layers, behind the prompt (Show-o, NeoBabel)."""

    kind: Literal["language_model"] = "language_model"
    text: Literal["adapted", "frozen"] = "adapted"
    """adapted: prompts are read by the layers as they are trained. frozen: by the language model as it was, so that it
    reads and writes text as before, to the bit; its adapter then acts on codes alone."""


class OwnLayersBodySpec(BaseBodySpec):
    """Codes go through a copy of the language model's layers, which see what the model itself keeps of the prompt."""

    kind: Literal["own_layers"] = "own_layers"


class TowerBodySpec(BaseBodySpec):
    """A small transformer of its own, whose layers look at states of the frozen language model, layer by layer."""

    kind: Literal["tower"] = "tower"
    width: int = Field(default=256, ge=8)
    """Width of its states; a multiple of heads."""
    layers: int = Field(default=8, ge=1)
    """Transformer layers."""
    heads: int = Field(default=4, ge=1)
    """Attention heads."""
    ffn: int = Field(default=1024, ge=1)
    """Hidden width of the perceptrons."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of what each part of a layer adds that is silenced in training."""
    reads: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(default=None, min_length=1)
    """The language model's layers that are looked at, from 1 on, the first ones by the tower's first layers; null takes
    as many as the tower has, evenly spread."""

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width = {self.width} is no multiple of heads = {self.heads}")
        return self


BODY_KINDS = Kinds(TowerBodySpec, LanguageModelBodySpec, OwnLayersBodySpec, usual="tower")
BodySpec = Annotated[BaseBodySpec, BODY_KINDS]
"""The spec of any body."""


class CodeHeadSpec(Spec):
    """Embeddings of codes and the map from states to codes: beside the vocabulary of the text, which stays as it is."""

    places: bool = True
    """Add a learned embedding of the row and one of the column to each code; without them order alone tells places."""
    tied: bool = False
    """Foretell codes with their embeddings, times a learned factor, instead of a map of its own."""
    levels: bool = True
    """Where codes are made of levels (quantizer fsq or lfq), learn of each level beside of each code: codes that are
    alike then share what is learned. Others have none."""
    cap: float | None = Field(default=None, gt=0)
    """Logits become cap * tanh(logits / cap) (Gemma 2 has 30 for its words); null leaves them."""


class PromptSpec(Spec):
    """How a prompt is laid out for the language model: its start token, the text, its end token."""

    template: str = "{text}"
    """What is read; `{text}` stands for the prompt, `{language}` for the English name of its language."""
    max_length: int = Field(default=256, ge=4)
    """Longest prompt in tokens; of longer ones the end is cut off, and the end token stays."""

    @model_validator(mode="after")
    def _has_text(self) -> Self:
        if self.template.count("{text}") != 1:
            raise ValueError(f"template: {self.template!r} has to hold {{text}} once")
        return self
