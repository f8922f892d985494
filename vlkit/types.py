"""The seams: what a part must offer to be joined with the others. A user's own module needs no base class of ours.

Shapes: B batch, C channels, H height, W width, L text length, N image tokens, D encoder width, E embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, runtime_checkable

from vlkit.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


class TextBatch(NamedTuple):
    """Tokenised texts: ``ids_BL`` int64 and ``mask_BL`` int64 (1 = a real token, 0 = padding)."""

    ids_BL: Tensor
    mask_BL: Tensor


class ClassRows(NamedTuple):
    """An image classifier's last layer, read as class prototypes in the encoder's feature space.

    ``weight_KD`` and ``bias_K`` float32; ``names`` K tuples of English names, the usual one first.
    """

    weight_KD: Tensor
    bias_K: Tensor
    names: tuple[tuple[str, ...], ...]


class Embeddings(NamedTuple):
    """L2-normalised embeddings of the two sides of a batch, and the scale (and bias, or None) of their similarities."""

    image_BE: Tensor
    text_BE: Tensor
    scale: Tensor
    bias: Tensor | None


class Loss(NamedTuple):
    """``total`` is what is minimised; ``parts`` are detached scalars for the log."""

    total: Tensor
    parts: Mapping[str, Tensor]


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
    from; ``turns`` are in their order.
    """

    key: str
    images: tuple[Callable[[], Image], ...]
    captions: Mapping[str, tuple[str, ...]]
    concept: str = ""
    split: str = "train"
    license: str = ""
    source: str = ""
    turns: tuple[Turn, ...] = ()

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
    """What is known of a sample without decoding it; ``languages`` are BCP 47 tags, ``counts`` the captions in each."""

    key: str
    concept: str
    split: str
    languages: tuple[str, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """Pairs for one training step. Each side holds either raw input or the frozen encoder's cached features.

    ``pixels_BCHW`` float32 as the image encoder's transform makes them, or ``image_BD`` float32 features; ``tokens`` or
    ``text_BD`` likewise; ``languages`` BCP 47, one a row; ``concepts`` ids, one a row. Where the reader knows them:
    ``captions`` the texts themselves, ``pivots`` an English caption of the same image ("" without one), ``sources`` the
    names of the collections, one a row each.
    """

    pixels_BCHW: Tensor | None
    image_BD: Tensor | None
    tokens: TextBatch | None
    text_BD: Tensor | None
    languages: tuple[str, ...]
    concepts: tuple[str, ...]
    captions: tuple[str, ...] = ()
    pivots: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


@runtime_checkable
class ImageEncoder(Protocol):
    """Pixels to features. ``width`` is D of the pooled feature; ``transform`` turns an RGB image into pixels_CHW."""

    width: int
    transform: Callable[[Image], Tensor]

    def __call__(self, pixels_BCHW: Tensor) -> Tensor:
        """Pooled features_BD."""

    def tokens(self, pixels_BCHW: Tensor) -> Tensor:
        """Spatial features tokens_BND, before pooling (CLS and other extra tokens left out)."""

    def save_config(self, folder: Path) -> None:
        """Writes all that is needed to build this encoder again without weights."""


@runtime_checkable
class TextEncoder(Protocol):
    """Texts to features. ``width`` is D of the pooled feature."""

    width: int

    def tokenize(self, texts: Sequence[str], *, language: str | None = None) -> TextBatch:
        """Adds the encoder's own prefix, and its own language token where it has one.

        An attribute ``marks_language = False`` says that the language makes no difference: then a text that several
        languages share is encoded once.
        """

    def __call__(self, tokens: TextBatch) -> Tensor:
        """Pooled features_BD; rows do not depend on the padding or on the other rows."""

    def save_config(self, folder: Path) -> None:
        """Writes configuration and tokenizer files, all that is needed to build this encoder again without weights."""


class Objective(Protocol):
    """Owns the loss; the training loop knows nothing of what is trained (law 7)."""

    def __call__(self, model: ImageTextModel, batch: Batch) -> Loss:
        """The loss of one batch; its gradient is that of the global mean loss after the mean over ranks (law 20)."""


@runtime_checkable
class ImageTextModel(Protocol):
    """What evaluation needs of a model: both sides embedded into one space, L2-normalised."""

    @property
    def transform(self) -> Callable[[Image], Tensor]:
        """Turns an RGB image into pixels_CHW."""

    def encode_image(self, pixels_BCHW: Tensor) -> Tensor:
        """image_BE, L2-normalised."""

    def tokenize(self, texts: Sequence[str], *, language: str | None = None) -> TextBatch:
        """Tokens for encode_text."""

    def encode_text(self, tokens: TextBatch) -> Tensor:
        """text_BE, L2-normalised."""


class Source(Protocol):
    """A random-access collection of samples: the same index gives the same sample in every process."""

    def __len__(self) -> int:
        """How many samples."""

    def __getitem__(self, index: int) -> Sample:
        """One sample; its image is decoded only when called for."""

    def meta(self, index: int) -> SampleMeta:
        """Key, concept, split and languages of a sample, without reading its image."""
