"""What data are before any model sees them: samples, what is picked of them, and collections."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from vlkit.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image


IMAGE_MARK = "<image>"
"""Stands in a turn where an image belongs."""


@dataclass(frozen=True)
class Turn:
    """One part of a conversation: who says what; ``language`` is a BCP 47 tag."""

    role: Literal["user", "assistant", "system"]
    text: str
    language: str


@dataclass(frozen=True)
class Sample:
    """One thing of a data set, with what its reader knows: no, one or several images, captions, a conversation.

    ``images`` decode when called. ``captions`` maps a BCP 47 tag to one or more texts. ``concept`` groups the variants
    of one thing (skin tones, hair), which stand on the same side of every split; ``source`` names the collection it is
    from; ``turns`` are in their order. ``task`` is what kind of thing it teaches ("caption", "vqa", "ocr", ...), and
    ``translated`` whether a machine translated its texts, both as far as the reader knows; ``keywords`` are words that
    a good answer holds.
    """

    key: str
    images: tuple[Callable[[], Image], ...]
    captions: Mapping[str, tuple[str, ...]]
    concept: str = ""
    split: str = "train"
    license: str = ""
    source: str = ""
    turns: tuple[Turn, ...] = ()
    task: str = ""
    translated: bool | None = None
    keywords: tuple[str, ...] = ()

    def counts(self) -> dict[str, int]:
        """How many captions there are in each language; of a conversation, 1 for each language of its answers."""
        if self.turns:
            return dict.fromkeys((turn.language for turn in self.turns if turn.role == "assistant"), 1)
        return {language: len(texts) for language, texts in self.captions.items()}

    @property
    def image(self) -> Callable[[], Image]:
        """The first image.

        Raises:
            DataError: There is none.
        """
        if not self.images:
            raise DataError(
                f"sample {self.key!r} has no image (a source with texts_only has no images); leave out what needs one"
            )
        return self.images[0]


@dataclass(frozen=True)
class SampleMeta:
    """What is known of a sample without decoding it; ``languages`` are BCP 47 tags, ``counts`` the captions in each.

    Of a conversation these are the languages of its answers, with 1 for each.
    """

    key: str
    concept: str
    split: str
    languages: tuple[str, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pick:
    """What of a sample one row of a batch takes: a caption, by language and number, and the seed of its augmentation.

    ``index`` is the sample's number in its source, -1 where samples are streamed.
    """

    index: int
    language: str
    caption_index: int
    view_seed: int

    def caption(self, sample: Sample) -> str:
        """The caption that was picked.

        Raises:
            DataError: The sample has none in this language, but a conversation, say.
        """
        texts = sample.captions.get(self.language)
        if not texts:
            what = "turns of a conversation, no captions" if sample.turns else "no caption"
            raise DataError(
                f"sample {sample.key!r} has {what} in {self.language}; leave its source out of data.sources, or train "
                "a model that learns from what it has"
            )
        return texts[self.caption_index % len(texts)]

    def pivot(self, sample: Sample) -> str:
        """An English caption of the same image: its translation where the languages' captions come in step, or ""."""
        texts = sample.captions.get("en", ())
        return texts[self.caption_index % len(texts)] if texts else ""


@runtime_checkable
class ReducedDecoding(Protocol):
    """The image of a sample that can be decoded at a reduced size."""

    def draft(self, size: int | None) -> Image:
        """The RGB image, its shorter side no shorter than ``size`` pixels (or than it is); None decodes in full."""


@dataclass(frozen=True)
class Question:
    """What a vision-language model is asked: a text about no, one or several images.

    An image is a path, a PIL image, encoded bytes, an array, or tokens_NT that the model's ``image_features`` gave.
    ``language`` is the BCP 47 tag that is to be answered in; ``prefix`` are the words that the answer begins with.
    """

    text: str
    images: tuple[Any, ...] = ()
    language: str | None = None
    prefix: str = ""


class Source(Protocol):
    """A random-access collection of samples: the same index gives the same sample in every process."""

    def __len__(self) -> int:
        """How many samples."""

    def __getitem__(self, index: int) -> Sample:
        """One sample; its image is decoded only when called for."""

    def meta(self, index: int) -> SampleMeta:
        """Key, concept, split and languages of a sample, without reading its image."""
