"""The seams: what a part must offer to be joined with the others. A user's own module needs no base class of ours.

Shapes: B batch, C channels, H height, W width, L text length, N image tokens, D encoder width, E embedding width.
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

    def row(self, sample: Sample, pick: Pick) -> Any:
        """One row of a batch, as ``collate`` takes it.

        Raises:
            DataError: The sample cannot be read; another one takes its place.
        """

    def collate(self, rows: Sequence[Any]) -> Batch:
        """Rows as a batch, on the CPU."""


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
class SavesConfig(Protocol):
    """A part that needs more than its spec to be built again without weights: configuration, tokenizer files."""

    def save_config(self, folder: Path) -> None:
        """Writes all of it into a folder."""


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

    def preparer(self, data: DataSpec, *, needs: Collection[str] | None = None) -> Preparer:
        """How samples become batches of this model.

        Args:
            data: Of the recipe: augmentation, reduced decoding.
            needs: Parts whose input the objectives look at; that of others may be left out. None takes all.
        """

    def figures(self) -> Mapping[str, float]:
        """What a line of the log says of the model itself."""


def as_module(model: object) -> nn.Module:
    """A model as the torch module that it is, for what all modules do: a protocol cannot say it to a type checker."""
    return cast("nn.Module", model)


class FrozenTables(Protocol):
    """What frozen parts make of all training data, where it was computed once and can be looked up."""

    @property
    def samples(self) -> Sequence[Sample]:
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
