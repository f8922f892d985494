"""The seams of models: what a recipe builds, what it is fed with, and what it learns from.

Shapes: B batch, C channels, H height, W width, E embedding width, N, T, D as said.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

from vlkit.types.part_types import TextBatch
from vlkit.types.sample_types import Pick, Question, Sample, Source

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor, nn
    from typing_extensions import Self

    from vlkit.spec.dataset import DataSpec
    from vlkit.spec.language import GenerationSpec
    from vlkit.spec.model import BaseModelSpec
    from vlkit.spec.objectives import LossSpec
    from vlkit.spec.training import StageSpec


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


@runtime_checkable
class Batch(Protocol):
    """Rows for one training step; what else they hold is between a model, its preparer and its objectives."""

    @property
    def languages(self) -> tuple[str, ...]:
        """BCP 47 tags, one a row, for the log; () where not known."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the collections, likewise."""

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
            tables: By part name outputs of frozen parts that can be looked up (``models.feature_cache``).
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
        self, model: Any, stage: StageSpec, *, objectives: Sequence[LossSpec], frozen: FrozenTables | None, first: bool
    ) -> None:
        """Changes the model in place; every process calls it and rank 0's result counts.

        The stage's parts are set to train. ``objectives`` are its losses; ``frozen`` is None where data are streamed;
        with ``first`` nothing has trained yet.

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
    """The loss of a run, computed from its model and a batch; the training loop knows nothing else of it."""

    @property
    def needs(self) -> frozenset[str]:
        """Parts of the model whose input it looks at."""

    def __call__(self, model: M_contra, batch: B_contra) -> Loss:
        """The loss of one batch or piece, which lies on the CPU: what is needed is moved to the model here.

        After the mean over processes its gradient is that of the global mean loss.
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
class GivesImagesBack(Protocol):
    """What evaluation needs of an image tokenizer: images to codes and back.

    ``pixel_low`` is the lowest value of the pixels that ``transform`` makes and ``encode`` reads; the highest is 1.
    """

    @property
    def codebook_size(self) -> int:
        """How many codes there are."""

    @property
    def pixel_low(self) -> float:
        """-1 or 0."""

    @property
    def transform(self) -> Callable[[Image], Tensor]:
        """Turns an RGB image into pixels_CHW."""

    def encode(self, pixels_BCHW: Tensor) -> Tensor:
        """codes_BN int64."""

    def decode(self, codes_BN: Tensor) -> Tensor:
        """pixels_BCHW float32 in 0..1."""


@runtime_checkable
class AnswersQuestions(Protocol):
    """What evaluation and commands need of a vision-language model: answers to questions about images."""

    def image_features(self, images: Sequence[Any]) -> list[Tensor]:
        """Each image's tokens_NT by the image encoder, for several questions about it.

        Raises:
            DataError: An image cannot be read.
        """

    def answer(
        self,
        questions: Sequence[Question],
        *,
        generation: GenerationSpec | None = None,
        batch_size: int = 16,
        stream: Callable[[str], None] | None = None,
    ) -> list[str]:
        """One answer a question, in their order; none depends on the others. ``stream`` is for a single question.

        Raises:
            DataError: An image cannot be read.
            VlkitError: A question is empty, does not fit the context, or names images that are not there.
        """

    def log_likelihoods(self, questions: Sequence[Question], answers: Sequence[str], *, batch_size: int = 16) -> Tensor:
        """[N, 2] float32: the log probability of each answer with its end, and how many tokens it has."""


@runtime_checkable
class AnsweringModel(AnswersQuestions, Protocol):
    """What commands ask of a vision-language model beside: the two things that its users do with it."""

    def caption(
        self, images: Any, *, language: str, prompt: str | None = None, prefix: str = "", **generation: Any
    ) -> Any:
        """A text about an image, or one about each of a list; ``prompt`` None takes one that the model learned."""

    def ask(
        self,
        images: Any,
        question: str,
        *,
        language: str | None = None,
        prefix: str = "",
        stream: Callable[[str], None] | None = None,
        **generation: Any,
    ) -> str:
        """The answer to a question about no, one or several images."""


@runtime_checkable
class TakesSizes(Protocol):
    """What a kind of model may offer: to go on with images of another size."""

    def at_size(self, size: int) -> None:
        """Changes the model in place; ``size`` is the side of its square images in pixels."""


@runtime_checkable
class ForetellsCodes(Protocol):
    """What validation needs of a text-to-image model: how well it foretells an image's codes."""

    def code_losses(
        self, images: Sequence[Any], prompts: Sequence[str], *, language: str, share: float, batch_size: int = 16
    ) -> Tensor:
        """[N, 2] float32: of each image, of which a ``share`` of the codes in 0..1 is hidden, the mean loss of a hidden
        code in nats, and the share of them that is foretold right. Which codes are hidden is the same in each call.
        """


@runtime_checkable
class ChangesImages(Protocol):
    """What a model that makes images may offer: to change one as a prompt says; options are those of ``generate``."""

    def repaint(self, image: Any, mask: Any, prompt: str | None, **options: Any) -> list[Image]:
        """Makes anew what is white in ``mask``."""

    def vary(self, image: Any, prompt: str | None, *, strength: float = 0.5, **options: Any) -> list[Image]:
        """Makes a share of it anew, wherever that is."""


@runtime_checkable
class Painter(Protocol):
    """What evaluation and commands need of a text-to-image model: images of prompts."""

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        language: str | None = None,
        seed: int | None = None,
        num_images: int = 1,
        **sampling: Any,
    ) -> list[Image]:
        """``num_images`` RGB images of each prompt, one prompt after the other, in the seeds from ``seed`` on.

        A seed is the same noise in every language and batch. ``language`` is BCP 47; ``sampling`` are fields of
        ``spec.text_to_image.SamplingSpec``.

        Raises:
            VlkitError: A prompt is empty, or a setting is none.
        """
