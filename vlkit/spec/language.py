"""Specs of language models, which read what a bridge makes of images and write text, and of how they write it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vlkit.spec.base import LocalPath, Spec
from vlkit.spec.parts import EncoderSpec, LibrarySpec


class LanguageModelSpec(EncoderSpec):
    """What the specs of all language models share."""

    max_length: int = Field(default=512, ge=8)
    """Longest input in tokens: the places of images, prompt and, in a decoder-only model, answer."""


class HfLanguage(LanguageModelSpec, LibrarySpec):
    """A language model of transformers: decoder-only (Llama, Qwen, Gemma, BLOOM, ...) or encoder-decoder (mT5, mT0)."""

    kind: Literal["hf"] = "hf"
    name: str
    """Hub id (`google/gemma-3-270m`), a folder in hub layout, or a GGUF file; of a BLIP-2 or LLaVA model its language
    model is taken."""
    quantize: Literal["none", "int8", "nf4"] = "none"
    """Hold the weights of its linear layers in 8 or 4 bits (bitsandbytes, on a GPU); all other parts keep theirs."""
    vocabulary: LocalPath | Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """BCP 47 tags, or a text file, one text a line (captions, prompts): only the rows of the vocabulary that names and
    vlkit's prompts in these languages need (or those texts), and those that all other texts fall back to, are kept;
    null keeps all."""
    tokens: tuple[str, ...] = ()
    """Tokens to add to the vocabulary; their rows start as the mean of all."""


class TinyLanguage(LanguageModelSpec):
    """A small random language model of transformers for tests: the architecture of a real one, byte by byte."""

    kind: Literal["tiny"] = "tiny"
    architecture: Literal["llama", "qwen3", "gemma2", "gemma3", "bloom", "t5", "mt5"] = "llama"
    """Whose layers it has; t5 and mt5 are encoder-decoders."""
    width: int = Field(default=32, ge=16)
    """Width of the states; a multiple of 16."""
    depth: int = Field(default=2, ge=1)
    """Transformer blocks (of each side)."""
    max_length: int = Field(default=256, ge=8)
    """Longest input in tokens (bytes)."""


SideSpec = Annotated[HfLanguage | TinyLanguage, Field(discriminator="kind")]


class JoinedLanguage(LanguageModelSpec):
    """The encoder of one model and a decoder-only other, whose layers learn to look at it (Florenz)."""

    kind: Literal["joined"] = "joined"
    encoder: SideSpec
    """An encoder-decoder (T5, mT5, BART, Florence-2), of which the encoder is taken: it reads prompts and images."""
    decoder: SideSpec
    """A decoder-only model, which writes."""
    heads: int = Field(default=8, ge=1)
    """Heads of the attention that is added to the decoder's layers; a divisor of its width."""
    every: int = Field(default=1, ge=1)
    """It is added to each layer, to each second one, ..."""


LanguageSpec = Annotated[HfLanguage | JoinedLanguage | TinyLanguage, Field(discriminator="kind")]


class GenerationSpec(Spec):
    """How an answer is written; the default takes the likeliest token each time."""

    max_tokens: int = Field(default=64, ge=1)
    """Most tokens of an answer."""
    min_tokens: int = Field(default=1, ge=0)
    """Tokens before an answer may end."""
    beams: int = Field(default=1, ge=1)
    """Answers that are followed at a time; 1 for none but the likeliest."""
    length_penalty: float = 1.0
    """With beams: above 0 favours long answers, below 0 short ones (mBLIP takes -1 for answers, 1 for captions)."""
    repetition_penalty: float = Field(default=1.0, gt=0)
    """Above 1: tokens that were written already become less likely."""
    temperature: float = Field(default=0.0, ge=0)
    """Above 0: tokens are drawn, the more freely the higher; 0 takes the likeliest."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """With a temperature: draw among the likeliest tokens that have this share of the probability together."""
    seed: int = Field(default=0, ge=0)
    """Of what is drawn."""
    stop: tuple[str, ...] = ()
    """Texts before which an answer ends, beside the model's own end token."""
    language_token: str | None = None
    """With `{language}`, the token that answers begin with (`<2{language}>`), where the model has one for each
    language; null for none."""
