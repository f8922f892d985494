"""Specs of training data: where pairs come from, how languages are mixed, how images are varied."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vlkit.spec.base import Spec


class WebDatasetSource(Spec):
    """WebDataset shards: tar files whose members share a key (`0001.png`, `0001.json`)."""

    kind: Literal["webdataset"] = "webdataset"
    path: str
    """A tar file, a folder of tar files, or a brace pattern (`data/train-{0000..0009}.tar`)."""
    language: str | None = None
    """BCP 47 tag of plain `.txt` captions; captions in `.json` carry their own."""


class FolderSource(Spec):
    """A table (JSONL or CSV) of image paths and captions beside a folder of images."""

    kind: Literal["folder"] = "folder"
    path: str
    """The table: `.jsonl`, `.csv` or `.tsv`."""
    images: str | None = None
    """Folder that image paths are relative to; null takes the table's own folder."""
    language: str | None = None
    """BCP 47 tag of the captions where the table has no language column."""


class BuiltSource(Spec):
    """A data set that vlkit builds itself, once, into the cache (`vlkit data build`)."""

    kind: Literal["built"] = "built"
    name: Literal["openmoji", "flags"]
    """Which one."""
    image_size: int = Field(default=224, ge=16, le=1024)
    """Side of the rendered images in pixels."""


SourceSpec = Annotated[WebDatasetSource | FolderSource | BuiltSource, Field(discriminator="kind")]


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


MixingSpec = Annotated[UniformMixing | TemperatureMixing | EnglishShareMixing, Field(discriminator="kind")]


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


class DataSpec(Spec):
    """What a run learns from."""

    sources: tuple[SourceSpec, ...] = Field(min_length=1)
    """One or more collections of image-text pairs."""
    languages: tuple[str, ...] | None = None
    """BCP 47 tags to learn from; null takes every language of the data."""
    mixing: MixingSpec = UniformMixing()
    """How the language of each caption is drawn."""
    augment: AugmentSpec = AugmentSpec()
    """Random variations of the images."""
    holdout_concepts: int = Field(default=0, ge=0)
    """Concepts of the training split kept back for validation (by a stable hash of the concept id)."""
    distinct_concepts: bool = True
    """Never two pairs of one concept in a batch, where there are enough concepts."""
    max_bad_share: float = Field(default=0.01, ge=0.0, le=1.0)
    """Unreadable samples are skipped and named up to this share, an error above it."""
