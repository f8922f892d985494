"""Specs of training data: how languages are mixed, how shards are read, how images are varied."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from vlkit.spec.base import LocalPath, Spec
from vlkit.spec.sources import SourceSpec


class UniformMixing(Spec):
    """Every language of an image is equally likely."""

    kind: Literal["uniform"] = "uniform"


class TemperatureMixing(Spec):
    """A language is drawn in proportion to its number of captions to the power of alpha (XLM-R, section 3.1)."""

    kind: Literal["temperature"] = "temperature"
    alpha: float = Field(default=0.3, ge=0.0, le=1.0)
    """1 follows the data, 0 is uniform."""


class EnglishShareMixing(Spec):
    """English with a fixed share, the rest shared evenly by the other languages (Centurio)."""

    kind: Literal["english_share"] = "english_share"
    share: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of English."""


class WeightsMixing(Spec):
    """Every language with a share of its own: the language of a pair is drawn first, then an image that has it."""

    kind: Literal["weights"] = "weights"
    weights: dict[str, float] = Field(min_length=1)
    """BCP 47 tag -> weight, relative to the others; languages that are not named are not learned from."""

    @field_validator("weights")
    @classmethod
    def _positive(cls, weights: dict[str, float]) -> dict[str, float]:
        if wrong := [language for language, weight in weights.items() if weight <= 0]:
            raise ValueError(
                f"weights must be above 0 (those of {', '.join(wrong)} are not); leave a language out instead"
            )
        return weights


MixingSpec = Annotated[
    UniformMixing | TemperatureMixing | EnglishShareMixing | WeightsMixing, Field(discriminator="kind")
]


class StreamSpec(Spec):
    """How shards are read that are too far or too many to be read at random places."""

    window_shards: int = Field(default=4, ge=1)
    """Shards that a reader holds at a time; samples are drawn at random from all of them."""
    resample: bool = False
    """Draw the shards of each window anew, without end; false reads every shard once an epoch."""
    retries: int = Field(default=4, ge=0)
    """How often a shard that cannot be fetched is tried again, after 1, 2, 4, ... times `backoff`."""
    backoff: float = Field(default=1.0, ge=0)
    """Seconds before the first retry."""
    timeout: float = Field(default=60.0, gt=0)
    """Seconds without a byte after which a fetch has failed."""
    cache_gb: float = Field(default=0.0, ge=0)
    """Keep fetched shards in the cache folder, up to so many gigabytes; 0 deletes each after use."""


class AugmentSpec(Spec):
    """Random variations of a training image; the defaults leave it as it is."""

    crop_scale: tuple[float, float] | None = None
    """Random resized crop: smallest and largest share of the image's area."""
    flip: float = Field(default=0.0, ge=0.0, le=1.0)
    """Chance of a mirror image."""
    rotate: float = Field(default=0.0, ge=0.0, le=180.0)
    """Largest rotation in degrees."""
    color: float = Field(default=0.0, ge=0.0, le=1.0)
    """Strength of brightness, contrast and saturation changes."""
    grayscale: float = Field(default=0.0, ge=0.0, le=1.0)
    """Chance of a gray image."""


class PromptsSpec(Spec):
    """What a vision-language model is asked about a captioned image: to describe or name it in the caption's language.

    Samples that are conversations say themselves what is asked; those whose task asks short questions (`vqa`,
    `yes_no`) have each of them put into a prompt that names the language of the answer.
    """

    task: str = "caption"
    """Of captioned samples that name none with prompts: `caption`, `name`, or a task of `templates`."""
    wording: Literal["english", "native", "both"] = "both"
    """english: prompts in English that name the language; native: in the language itself where there are some; both in
    turn."""
    templates: LocalPath | None = None
    """A YAML file of one's own, `{caption: {english: [...], native: {de: [...]}}}`; null takes vlkit's prompts."""


class DataSpec(Spec):
    """What a run learns from."""

    sources: tuple[SourceSpec, ...] = Field(min_length=1)
    """One or more collections of image-text pairs."""
    languages: tuple[str, ...] | None = None
    """BCP 47 tags to learn from; null takes every language of the data."""
    mixing: MixingSpec = UniformMixing()
    """How the language of each caption is drawn."""
    language_batches: Literal["mixed", "single"] = "mixed"
    """single: all captions of a batch are in one language, so that no pair is told apart by its language alone."""
    prompts: PromptsSpec = PromptsSpec()
    """What vision-language models are asked about captioned images."""
    stream: StreamSpec = StreamSpec()
    """How shards are read that are not indexed (`sampling` of a source)."""
    jpeg_draft: bool = True
    """Decode large JPEGs for training at 1/2, 1/4 or 1/8 of their size where that still covers the encoder's input."""
    augment: AugmentSpec = AugmentSpec()
    """Random variations of the images."""
    holdout_concepts: int = Field(default=0, ge=0)
    """Concepts of the training split kept back for validation (by a stable hash of the concept id)."""
    distinct_concepts: bool = True
    """Never two pairs of one concept in a batch, where there are enough concepts."""
    max_bad_share: float = Field(default=0.01, ge=0.0, le=1.0)
    """Unreadable samples are skipped and named up to this share, an error above it (streams: of the last 10,000)."""

    @model_validator(mode="after")
    def _weights_for_all_or_none(self) -> DataSpec:
        given = [source.weight is not None for source in self.sources]
        if any(given) and not all(given):
            raise ValueError(
                f"sources: {sum(given)} of {len(given)} have a weight; give one to each of them, or to none (by size)"
            )
        return self
