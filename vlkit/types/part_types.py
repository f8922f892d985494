"""The seams of parts: what an encoder, a bridge or a language model must offer to be joined with the others.

Shapes: B batch, C channels, H height, W width, L text length, N image tokens, M model tokens, D encoder width, E
embedding width, T width of token states, V vocabulary, R chosen rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

    from vlkit.spec.language import GenerationSpec


class ImageFacts(NamedTuple):
    """What there is to know of an image encoder before it is joined with others.

    ``width`` of the pooled feature, ``token_width`` of a token, ``image_size`` the side in pixels that it was made for,
    ``tokens`` of such an image and the ``side`` of their square grid (None where they form none), ``extra_tokens`` that
    the encoder has beside those of places (class, registers), ``mean`` and ``std`` of its preprocessing.
    """

    width: int
    token_width: int
    image_size: int
    tokens: int
    side: int | None
    extra_tokens: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


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
    """Which token ids begin or end a word, and which are marks; bool [V] each.

    A word begins at a token of ``starts_V``, and after one of ``ends_V``. ``special_V`` are the marks that a tokenizer
    adds: start, end, padding, language.
    """

    starts_V: Tensor
    ends_V: Tensor
    special_V: Tensor


@runtime_checkable
class SavesConfig(Protocol):
    """A part that needs more than its spec to be built again without weights: configuration, tokenizer files."""

    def save_config(self, folder: Path) -> None:
        """Writes all of it into a folder."""


@runtime_checkable
class ImageEncoder(SavesConfig, Protocol):
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


@runtime_checkable
class TextEncoder(SavesConfig, Protocol):
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
class TellsFacts(Protocol):
    """What an image encoder may offer: all that is to be known of it, in one call."""

    def facts(self) -> ImageFacts:
        """Sizes, places and preprocessing."""


@runtime_checkable
class TransformsAtSizes(Protocol):
    """What an image encoder may offer: its preprocessing for larger images, which it then sees in tiles."""

    def transform_at(self, size: int) -> Callable[[Image], Tensor]:
        """Like ``transform``, to square images of ``size`` pixels a side."""


@runtime_checkable
class SharesLayers(Protocol):
    """What a text encoder may offer: layers that are one set of weights for images and texts."""

    def join(self, image: ImageEncoder) -> None:
        """Takes over the image side's, where that has such layers."""


@runtime_checkable
class LanguageModel(SavesConfig, Protocol):
    """Reads embeddings and writes text: decoder-only models (``encodes`` false) and encoder-decoders (true) alike.

    ``width`` is E of the embeddings that it reads, ``vocab_size`` V, ``max_length`` the longest input in tokens, an
    answer of a decoder-only model included; ``tokenizer`` is transformers' for this model.
    """

    width: int
    vocab_size: int
    max_length: int
    encodes: bool
    tokenizer: Any

    def embed(self, ids_BL: Tensor) -> Tensor:
        """embeddings_BLE of token ids, among which a bridge's model tokens are put."""

    def __call__(
        self,
        embeddings_BLE: Tensor,
        mask_BL: Tensor,
        *,
        targets: TextBatch | None = None,
        positions_BL: Tensor | None = None,
    ) -> Tensor:
        """States before the output map; those of real places do not depend on where the padding stands.

        Args:
            embeddings_BLE: What is read: model tokens of images and embeddings of text.
            mask_BL: 1 for real places, 0 for padding.
            targets: The text that an encoder-decoder writes; None for a decoder-only model, where it is part of the
                embeddings.
            positions_BL: Of rows that hold several samples end to end, places counted from 0 in each: a place sees its
                own sample alone. None where a row is one sample; not for encoder-decoders.

        Returns:
            states_BLE of what was read, or of ``targets`` where they are given: state l foretells token l + 1 (of
            ``targets`` token l, as the decoder's start token is put before them).
        """

    def logits(self, states_RE: Tensor) -> Tensor:
        """logits_RV of chosen states; those of the places that no loss looks at are never made."""

    def generate(
        self,
        embeddings_BLE: Tensor,
        mask_BL: Tensor,
        *,
        generation: GenerationSpec,
        prefix: TextBatch | None = None,
        language: str | None = None,
        stream: Callable[[str], None] | None = None,
    ) -> list[str]:
        """Texts, one a row, that go on from what is read, without marks.

        Args:
            embeddings_BLE: What is read.
            mask_BL: 1 for real places, 0 for padding.
            generation: How they are written.
            prefix: What the answers begin with; they are returned with it.
            language: BCP 47 tag for ``generation.language_token``.
            stream: Takes each piece of text as it is written, of a single row.
        """


@runtime_checkable
class ReadsOtherTokens(Protocol):
    """What a language model may offer whose sides have two tokenizers; ``tokenizer`` is that of what is written."""

    @property
    def reader(self) -> Any:
        """Transformers' tokenizer of what is read, whose ids ``embed`` takes."""


class Prefix(NamedTuple):
    """What is kept of texts that were read once, so that more can be read behind them as often as wished.

    ``mask_BT`` is 1 for real places, which stand first; ``layers`` holds what each layer keeps: keys and values
    [B, heads, T, width] of a language model's own layers, or whatever another reader looks at, B first.
    """

    mask_BT: Tensor
    layers: tuple[tuple[Tensor, ...], ...]

    def rows(self, index: Tensor) -> Prefix:
        """Those of the texts of these numbers, in this order; one may come several times."""
        return Prefix(self.mask_BT[index], tuple(tuple(one[index] for one in layer) for layer in self.layers))


@runtime_checkable
class GivesLayerStates(Protocol):
    """What a language model may offer: the states of each of its layers, from the first on. Image towers look at them.

    ``depth`` is how many layers there are.
    """

    @property
    def depth(self) -> int:
        """Layers."""

    def layer_states(self, embeddings_BTE: Tensor, mask_BT: Tensor) -> tuple[Tensor, ...]:
        """``depth`` states [B, T, E]; real places are as in ``LanguageModel``, and stand where they stood."""


@runtime_checkable
class KeepsPrefix(Protocol):
    """What a decoder-only language model may offer: blocks that see a text and all of themselves, behind that text.

    The text itself is read as always, each place looking back; nothing of a block is seen by it.
    """

    def read_prefix(self, embeddings_BTE: Tensor, mask_BT: Tensor) -> Prefix:
        """Reads texts, and keeps what is needed to go on behind them."""

    def read_behind(self, block_BME: Tensor, prefix: Prefix) -> Tensor:
        """states_BME of a block behind texts that were read; ``prefix`` is not changed."""

    def read_whole(self, embeddings_BTE: Tensor, mask_BT: Tensor, block_BME: Tensor) -> Tensor:
        """The same states from one pass over text and block."""

    def own_layers(self) -> nn.Module:
        """A copy of its layers, in float32; called with (block_BME, prefix) it does what ``read_behind`` does."""


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
class ImageTokenizer(SavesConfig, Protocol):
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


def lacking(part: object, protocol: type) -> list[str]:
    """The names that a protocol asks for and a part does not have, in the protocol's order."""
    wanted = (*protocol.__annotations__, *(name for one in protocol.__mro__ for name in vars(one)))
    return [name for name in dict.fromkeys(wanted) if not name.startswith("_") and not hasattr(part, name)]
