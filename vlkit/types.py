"""The seams: what a part must offer to be joined with the others. A user's own module needs no base class of ours.

Shapes: B batch, C channels, H height, W width, L text length, N image tokens, M model tokens, D encoder width, E
embedding width, T width of token states, V vocabulary, R chosen rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

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


class Vocabulary(NamedTuple):
    """Facts of token ids, bool [V] each.

    A word begins at a token of ``starts_V``, and after one of ``ends_V``. ``special_V`` are the marks that a tokenizer
    adds: start, end, padding, language.
    """

    starts_V: Tensor
    ends_V: Tensor
    special_V: Tensor


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
class Sample:
    """One image with its captions.

    ``captions`` maps a BCP 47 tag to one or more texts. ``concept`` groups the variants of one thing (skin tones,
    hair), which stand on the same side of every split; ``source`` names the collection it is from.
    """

    key: str
    image: Callable[[], Image]
    captions: Mapping[str, tuple[str, ...]]
    concept: str = ""
    split: str = "train"
    license: str = ""
    source: str = ""


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
    """Turns images into features: one vector an image, or one a patch.

    ``width`` is D of the pooled feature, ``token_width`` T of a token; ``image_size`` the side in pixels of the square
    input that it was made for; ``transform`` turns an RGB image into pixels_CHW.
    """

    width: int
    token_width: int
    image_size: int
    transform: Callable[[Image], Tensor]

    def num_tokens(self, size: int) -> int:
        """N of ``tokens`` for square images of ``size`` pixels a side."""

    def __call__(self, pixels_BCHW: Tensor) -> Tensor:
        """Pooled features_BD."""

    def tokens(self, pixels_BCHW: Tensor) -> Tensor:
        """Spatial features tokens_BNT, before pooling (CLS and other extra tokens left out)."""

    def save_config(self, folder: Path) -> None:
        """Writes all that is needed to build this encoder again without weights."""


@runtime_checkable
class TextEncoder(Protocol):
    """Turns texts into features.

    ``width`` is D of the pooled feature. Where ``marks_language`` is false the language makes no difference to the
    tokens, and a text that several languages share is encoded once.
    """

    width: int

    @property
    def marks_language(self) -> bool:
        """Whether the tokenizer puts a mark of the language into its input."""

    def tokenize(self, texts: Sequence[str], *, language: str | None = None) -> TextBatch:
        """Adds the encoder's own prefix, and its own language token where it has one."""

    def __call__(self, tokens: TextBatch) -> Tensor:
        """Pooled features_BD; rows do not depend on the padding or on the other rows."""

    def save_config(self, folder: Path) -> None:
        """Writes configuration and tokenizer files, all that is needed to build this encoder again without weights."""


@runtime_checkable
class GivesStates(Protocol):
    """What an image or text encoder may offer: the states before pooling beside the feature. Decoders look at them."""

    @property
    def token_width(self) -> int:
        """T of the states."""

    def pooled_and_states(self, inputs: Any, /) -> tuple[Tensor, Tensor]:
        """features_BD and states [B, N or L, T] of pixels or tokens in one pass; states of real tokens stand first."""


@runtime_checkable
class KnowsClasses(Protocol):
    """What an image encoder may offer: the classifier that it was trained with."""

    def class_rows(self) -> ClassRows | None:
        """The classifier's last layer; None where these weights have none that is known."""


@runtime_checkable
class KnowsVocabulary(Protocol):
    """What a text encoder may offer: the tokens it knows."""

    @property
    def vocab_size(self) -> int:
        """V, the rows of the token embedding."""

    def vocabulary(self) -> Vocabulary:
        """What the ids mean."""


@runtime_checkable
class ResizesImages(Protocol):
    """What an image encoder may offer: how far its transform shrinks, so that large photos are decoded no larger."""

    @property
    def resized_to(self) -> int:
        """Side in pixels to which ``transform`` resizes before it crops."""


@runtime_checkable
class SharesLayers(Protocol):
    """What a text encoder may offer: layers that are one set of weights for images and texts."""

    def join(self, image: ImageEncoder) -> None:
        """Takes over the image side's, where that has such layers."""


@runtime_checkable
class LanguageModel(Protocol):
    """Reads embeddings and writes text: decoder-only models (``encodes`` false) and encoder-decoders (true) alike.

    ``width`` is E of the embeddings that it reads, ``vocab_size`` V; ``tokenizer`` is transformers' for this model.
    """

    width: int
    vocab_size: int
    encodes: bool
    tokenizer: Any

    def embed(self, ids_BL: Tensor) -> Tensor:
        """embeddings_BLE of token ids, among which a bridge's model tokens are put."""

    def __call__(self, embeddings_BLE: Tensor, mask_BL: Tensor, *, targets: TextBatch | None = None) -> Tensor:
        """States before the output map.

        Args:
            embeddings_BLE: What is read: model tokens of images and embeddings of text.
            mask_BL: 1 for real places, 0 for padding.
            targets: The text that an encoder-decoder writes; None for a decoder-only model, where it is part of the
                embeddings.

        Returns:
            states_BLE of what was read, or of ``targets`` where they are given: state l foretells token l + 1.
        """

    def logits(self, states_RE: Tensor) -> Tensor:
        """logits_RV of chosen states; those of the places that no loss looks at are never made."""

    def generate(self, embeddings_BLE: Tensor, mask_BL: Tensor, *, max_tokens: int, beams: int) -> list[str]:
        """Texts, one a row, that go on from what is read; the likeliest token each time, or a beam search."""

    def save_config(self, folder: Path) -> None:
        """Writes configuration and tokenizer files, all that is needed to build this model again without weights."""


@runtime_checkable
class Bridge(Protocol):
    """Maps an image encoder's tokens to tokens that a language model reads; it knows two widths and nothing else.

    ``in_width`` is T of the image tokens, ``out_width`` E of the model tokens.
    """

    in_width: int
    out_width: int

    def num_tokens(self, count: int) -> int:
        """M, the model tokens for ``count`` image tokens."""

    def __call__(self, tokens_BNT: Tensor) -> Tensor:
        """tokens_BME."""


@runtime_checkable
class ImageTokenizer(Protocol):
    """Turns images into rows of whole numbers (codes) and codes into images.

    Codes lie in 0..``codebook_size`` - 1; ``grid`` are the rows and columns of an image's codes; ``transform`` turns an
    RGB image into pixels_CHW.
    """

    codebook_size: int
    grid: tuple[int, int]
    transform: Callable[[Image], Tensor]

    def encode(self, pixels_BCHW: Tensor) -> Tensor:
        """codes_BN int64, row by row from the top; N = rows * columns."""

    def decode(self, codes_BN: Tensor) -> Tensor:
        """pixels_BCHW float32 in 0..1."""

    def save_config(self, folder: Path) -> None:
        """Writes all that is needed to build this tokenizer again without weights."""


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


def lacking(part: object, protocol: type) -> list[str]:
    """The names that a protocol asks for and a part does not have, in the protocol's order."""
    wanted = (*protocol.__annotations__, *(name for name in vars(protocol) if not name.startswith("_")))
    return [name for name in dict.fromkeys(wanted) if not hasattr(part, name)]
