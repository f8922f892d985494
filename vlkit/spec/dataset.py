"""Specs of training data: how languages are mixed, how shards are read, how images are varied."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from vlkit.spec.base import LocalPath, Spec
from vlkit.spec.sources import SourceSpec


class UniformMixing(Spec):
    """Every language of an image is equally likely (of samples in one language: as much of each as there is)."""

    kind: Literal["uniform"] = "uniform"


class TemperatureMixing(Spec):
    """Languages in proportion to their numbers of captions to the power of alpha (XLM-R, section 3.1).

    With limits it balances as FuxiTranyu does (arXiv 2408.06273), whose exponent and shares are not published.
    """

    kind: Literal["temperature"] = "temperature"
    alpha: float = Field(default=0.3, ge=0.0, le=1.0)
    """1 follows the data, 0 is uniform."""
    max_share: float | None = Field(default=None, gt=0.0, le=1.0)
    """No language has more than this share; null sets no limit."""
    max_repeats: float | None = Field(default=None, ge=1.0)
    """While as many captions are drawn as there are, none comes more often than so many times on average; null sets no
    limit."""


class EnglishShareMixing(Spec):
    """English with a fixed share, the rest shared evenly by the other languages (Centurio)."""

    kind: Literal["english_share"] = "english_share"
    share: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of English."""


class ProportionalMixing(Spec):
    """The languages of the data in proportion to a published table; those that it lacks are not learned from."""

    kind: Literal["proportional"] = "proportional"
    table: Literal["mc4", "marco_llm"] = "mc4"
    """mc4: pages of mC4 in 96 languages (mBLIP). marco_llm: tokens of Marco-LLM, equal within a tier, all languages.
    One of your own is kind weights."""
    english: float | None = Field(default=None, ge=0.0, le=1.0)
    """Share of English; the others then share the rest by the table. null takes the table's."""


class TieredMixing(Spec):
    """Each tier of languages with a share of its own, evenly within it; languages in no tier are not learned from."""

    kind: Literal["tiered"] = "tiered"
    tiers: dict[str, tuple[str, ...]] | None = Field(default=None, min_length=1)
    """Tier -> BCP 47 tags; null takes T1 to T5 of Centurio, by how much there is in a language (T5: most)."""
    shares: dict[str, float] | None = Field(default=None, min_length=1)
    """Tier -> share, relative to the others; tiers that are not named are left out. null: by numbers of languages."""
    english: float | None = Field(default=0.5, ge=0.0, le=1.0)
    """Share of English, whatever its tier; null takes it as the other languages of its tier."""

    @model_validator(mode="after")
    def _known_tiers(self) -> TieredMixing:
        known = ("T1", "T2", "T3", "T4", "T5") if self.tiers is None else tuple(self.tiers)
        if strange := [tier for tier in self.shares or () if tier not in known]:
            raise ValueError(f"shares: no tier {', '.join(strange)}; there are: {', '.join(known)}")
        if wrong := [tier for tier, share in (self.shares or {}).items() if share <= 0]:
            raise ValueError(f"shares must be above 0 (that of {', '.join(wrong)} is not); leave a tier out instead")
        return self


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
    UniformMixing | TemperatureMixing | EnglishShareMixing | ProportionalMixing | TieredMixing | WeightsMixing,
    Field(discriminator="kind"),
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
    `yes_no`, `translate`) have each of them put into a prompt that names the language of the answer.
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
    code_switch: float = Field(default=0.0, ge=0.0, le=1.0)
    """For text-to-image models: the share of captions of which one half is replaced by that of the English caption of
    the same image, as many the first as the second."""
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
