"""The seams: what a part must offer to be joined with the others. A user's own module needs no base class of ours.

Shapes: B batch, C channels, H height, W width, L text length, N image tokens, M model tokens, D encoder width, E
embedding width, T width of token states, V vocabulary, R chosen rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

from vlkit.errors import DataError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor, nn
    from typing_extensions import Self

    from vlkit.spec.dataset import DataSpec
    from vlkit.spec.model import BaseModelSpec
    from vlkit.spec.objectives import LossSpec
    from vlkit.spec.training import StageSpec


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
        """The caption that was picked."""
        texts = sample.captions[self.language]
        return texts[self.caption_index % len(texts)]

    def pivot(self, sample: Sample) -> str:
        """An English caption of the same image: its translation where the languages' captions come in step, or ""."""
        texts = sample.captions.get("en", ())
        return texts[self.caption_index % len(texts)] if texts else ""


@runtime_checkable
class Batch(Protocol):
    """Rows for one training step; what else they hold is between a model, its preparer and its objectives.

    ``languages`` are BCP 47 tags and ``sources`` names of collections, one a row, for the log; () where not known.
    """

    @property
    def languages(self) -> tuple[str, ...]:
        """BCP 47 tags, one a row."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the collections, one a row."""

    def __len__(self) -> int:
        """How many rows."""

    def rows(self, index: Tensor) -> Self:
        """The rows of these numbers, in this order; ``index`` int64."""

    def to(self, device: torch.device) -> Self:
        """The batch with its tensors on a device."""


class Preparer(Protocol):
    """How a sample becomes a model's input: readers know nothing of transforms, tokenizers or pairs.

    It may be copied into reading processes, and holds no state.
    """

    @property
    def reads(self) -> bool:
        """Whether rows look at images; else records of the samples do."""

    def row(self, sample: Sample, pick: Pick) -> Any:
        """One row of a batch, as ``collate`` takes it.

        Raises:
            DataError: The sample cannot be read; another one takes its place.
        """

    def collate(self, rows: Sequence[Any]) -> Batch:
        """Rows as a batch, on the CPU."""


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
class SavesConfig(Protocol):
    """A part that needs more than its spec to be built again without weights: configuration, tokenizer files."""

    def save_config(self, folder: Path) -> None:
        """Writes all of it into a folder."""


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


@runtime_checkable
class Model(Protocol):
    """Anything that a recipe builds, trains, saves and loads; parts are asked for by name, never by what they are."""

    loaded_from: str | None
    """What ``vlkit.load`` was given; None for a model that was built anew."""

    @property
    def spec(self) -> BaseModelSpec:
        """The spec that builds this model again."""

    def parts(self) -> Mapping[str, nn.Module]:
        """The submodules that train, freeze, save, shard, compile and print by name; keys are their attribute names."""

    def preparer(
        self, data: DataSpec, *, needs: Collection[str] | None = None, tables: Mapping[str, Any] | None = None
    ) -> Preparer:
        """How samples become batches of this model.

        Args:
            data: Of the recipe: augmentation, reduced decoding.
            needs: Parts whose input the objectives look at; that of others may be left out. None takes all.
            tables: By part name outputs of frozen parts that can be looked up (``models.frozen_parts``).
        """

    def figures(self) -> Mapping[str, float]:
        """What a line of the log says of the model itself."""


def as_module(model: object) -> nn.Module:
    """A model as the torch module that it is, for what all modules do: a protocol cannot say it to a type checker."""
    return cast("nn.Module", model)


class FrozenTables(Protocol):
    """What frozen parts make of all training data, where it was computed once and can be looked up."""

    @property
    def samples(self) -> Source:
        """The training data in their order; reading their images is not meant."""

    @property
    def languages(self) -> tuple[str, ...]:
        """BCP 47 tags that are learned from."""

    def table(self, part: str) -> Any | None:
        """The outputs of a part, as its kind of model keeps them; None where it trains or nothing is kept of it."""

    def encode(self, part: str, texts: Sequence[str], *, language: str) -> Tensor:
        """features_TD of further texts by a frozen part."""


class Start(Protocol):
    """What a kind of model works out before the first step of a stage: function ``start`` of its module ``start``."""

    def __call__(
        self,
        model: Any,
        stage: StageSpec,
        *,
        objectives: Sequence[LossSpec],
        frozen: FrozenTables | None,
        first: bool,
    ) -> None:
        """Changes the model in place; every process calls it and rank 0's result counts.

        Args:
            model: With the stage's parts set to train.
            stage: The stage.
            objectives: The losses of the stage.
            frozen: What frozen parts make of the data; None where data are streamed.
            first: Nothing has trained yet.

        Raises:
            VlkitError: Something that the model needs is not there.
        """


class Piece(NamedTuple):
    """Some rows of a batch, and the factor that their loss counts with in the batch's."""

    batch: Any
    weight: float = 1.0


M_contra = TypeVar("M_contra", contravariant=True)
B_contra = TypeVar("B_contra", contravariant=True)


class Objective(Protocol[M_contra, B_contra]):
    """Owns the loss; the training loop knows nothing of what is trained (law 7).

    ``needs`` names the parts of the model whose input it looks at.
    """

    @property
    def needs(self) -> frozenset[str]:
        """Parts of the model whose input it looks at."""

    def __call__(self, model: M_contra, batch: B_contra) -> Loss:
        """The loss of one batch or piece, which lies on the CPU: what is needed is moved to the model here.

        Its gradient is that of the global mean loss after the mean over processes (law 20).
        """

    def pieces(self, batch: B_contra, size: int) -> Sequence[Piece]:
        """The batch in pieces of at most ``size`` rows, for less memory.

        The sum of their weighted losses is the loss of the batch, and so are gradients; an objective whose loss sees
        all rows at once gives one piece. Every process of a job calls it at the same time.
        """


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


@runtime_checkable
class ReducedDecoding(Protocol):
    """The image of a sample that can be decoded at a reduced size."""

    def draft(self, size: int | None) -> Image:
        """The RGB image, its shorter side no shorter than ``size`` pixels (or than it is); None decodes in full."""


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
