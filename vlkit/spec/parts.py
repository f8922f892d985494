"""Specs of the parts: image encoders, text encoders, heads, decoders."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vlkit.spec.base import Spec

Dtype = Literal["float32", "bfloat16", "float16"]


class EncoderSpec(Spec):
    """What the specs of all encoders share."""

    kind: str
    dtype: Dtype = "float32"
    """Precision in which the weights are held; features are float32. The shorter ones halve the memory of an encoder
    that stays frozen."""


class LibrarySpec(EncoderSpec):
    """What the specs of encoders of other libraries share."""

    name: str
    pretrained: bool = True
    """Load the weights; false starts from random ones."""


Layers = Annotated[tuple[int, ...], Field(min_length=1)]


class LibraryImage(LibrarySpec):
    """What those of image encoders share."""

    image_size: int | None = Field(default=None, ge=16, le=4096)
    """Side of the square input in pixels; null takes the model's own."""
    layers: Layers = (-1,)
    """Blocks whose states are the tokens, those of several joined on their channels: 1 is the first block, -1 the last
    one. The last one's are what the library gives at the end, behind its final norm where it has one; the others' are
    as they leave the block ([-2] for LLaVA and Centurio)."""
    fit: Literal["own", "squash", "pad"] = "own"
    """How an image becomes square: own as the library does it (many cut off margins), squash to the square whatever its
    shape, pad with the mean colour first."""


class TransformerImage(LibraryImage):
    """What those of libraries share whose vision transformers have a class token to give."""

    extra_tokens: bool = False
    """Give the class token and others of its kind among the tokens as well, before those of places, as BLIP-2's
    Q-Former reads them."""


class TimmImage(TransformerImage):
    """An image encoder of timm."""

    kind: Literal["timm"] = "timm"
    name: str
    """Architecture and tag as timm writes them (`vit_base_patch16_siglip_224.webli`), or a folder in hub layout."""


class OpenClipImage(LibraryImage):
    """The image tower of an open_clip model."""

    kind: Literal["open_clip"] = "open_clip"
    name: str
    """`MODEL/TAG` as `open_clip.list_pretrained()` lists them, `MODEL` alone with pretrained=false, or a folder in hub
    layout."""


class HfImage(TransformerImage):
    """A vision model of transformers (ViT, DINOv2, SigLIP, CLIP, ...)."""

    kind: Literal["hf"] = "hf"
    name: str
    """Hub id or a folder in hub layout; of a BLIP-2 or LLaVA model its image encoder is taken."""
    pooling: Literal["auto", "cls", "mean"] = "auto"
    """How tokens become one feature; auto takes the model's own pooled output, else the mean."""


class TinyImage(EncoderSpec):
    """A small random vision transformer for tests: the same code paths, no download."""

    kind: Literal["tiny"] = "tiny"
    image_size: int = Field(default=32, ge=8, le=256)
    """Side of the square input in pixels; a multiple of patch_size."""
    patch_size: int = Field(default=8, ge=2)
    """Side of a patch in pixels."""
    width: int = Field(default=32, ge=8)
    """Width of the features."""
    depth: int = Field(default=2, ge=1)
    """Transformer blocks."""
    layers: Layers = (-1,)
    """Blocks whose states are the tokens, those of several joined on their channels: 1 is the first block, -1 the last
    one, whose states are those behind the final norm."""


class MultiwaySpec(EncoderSpec):
    """What both sides of a multiway encoder share."""

    width: int = Field(default=768, ge=8)
    """Width of the features."""
    heads: int = Field(default=12, ge=1)
    """Attention heads; a divisor of width."""
    ffn: int = Field(default=3072, ge=1)
    """Hidden width of the perceptrons."""
    layers: int = Field(default=9, ge=0)
    """Layers of this modality alone."""
    vl_layers: int = Field(default=3, ge=0)
    """Layers after them that both modalities go through; between two `multiway` sides they are one set of weights."""
    drop_path: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of rows for which a branch of the last layer is left out in training; it grows linearly from 0."""


class MultiwayImage(MultiwaySpec):
    """The image side of a multiway (modality-expert) encoder with sub-LN blocks (BEiT-3, M2-Encoder).

    With a text side of kind `multiway` the last `vl_layers` are one set of weights for both sides.
    """

    kind: Literal["multiway"] = "multiway"
    vl_experts: Literal[1, 2] = 1
    """2 also holds the second expert of those layers, which released weights have and embedding never runs."""
    image_size: int = Field(default=224, ge=8, le=4096)
    """Side of the square input in pixels; a multiple of patch_size."""
    patch_size: int = Field(default=16, ge=2)
    """Side of a patch in pixels."""


WholeImageSpec = Annotated[TimmImage | OpenClipImage | HfImage | MultiwayImage | TinyImage, Field(discriminator="kind")]


class TiledImage(Spec):
    """An image encoder that looks at an image in tiles as well, so that it sees more than its own size holds.

    Images are `grid` times as large as the encoder's own size. S2 (arXiv 2403.13043) and Centurio (2501.05122) join the
    tiles' tokens to those of the whole image on their channels: as many tokens as without tiles, twice as wide.
    """

    kind: Literal["tiled"] = "tiled"
    of: WholeImageSpec
    """The encoder, which sees one tile or the whole image at a time."""
    grid: int = Field(default=2, ge=2, le=8)
    """Tiles in a row, and rows."""
    merge: Literal["channels", "tokens"] = "channels"
    """channels: the tiles' tokens, put together and averaged down to the grid of one image, beside those of the whole
    image; tokens: those of the whole image, then those of all tiles row by row."""
    whole: bool = True
    """Add the whole image; false leaves the tiles alone."""

    @property
    def dtype(self) -> Dtype:
        """That of the encoder."""
        return self.of.dtype


ImageEncoderSpec = Annotated[
    TimmImage | OpenClipImage | HfImage | MultiwayImage | TinyImage | TiledImage, Field(discriminator="kind")
]


class HfText(LibrarySpec):
    """A text encoder or causal language model of transformers."""

    kind: Literal["hf"] = "hf"
    name: str
    """Hub id (`intfloat/multilingual-e5-small`) or a folder in hub layout."""
    pooling: Literal["auto", "mean", "cls", "last", "eos"] = "auto"
    """How token states become one feature: mean over the mask, first token, last real token, or the end-of-text token.
    auto: what the model is known to need, else mean for encoders and last for causal models."""
    prefix: str | None = None
    """Text put before every input; null takes what the model is known to need (`query: ` for e5), else nothing."""
    layers: tuple[int, ...] = (-1,)
    """Hidden states whose pooled features are concatenated; 0 is the embedding layer, -1 the last block."""
    max_length: int = Field(default=64, ge=2)
    """Longest input in tokens; longer texts are cut."""


class OpenClipText(LibrarySpec):
    """The text tower of an open_clip model with its own tokenizer."""

    kind: Literal["open_clip"] = "open_clip"
    name: str
    """`MODEL/TAG`, `MODEL` alone with pretrained=false, or a hub-layout folder."""


class TinyText(EncoderSpec):
    """A small random byte-level text transformer for tests."""

    kind: Literal["tiny"] = "tiny"
    width: int = Field(default=32, ge=8)
    """Width of the features."""
    depth: int = Field(default=2, ge=1)
    """Transformer blocks."""
    max_length: int = Field(default=64, ge=2)
    """Longest input in bytes."""


class MultiwayText(MultiwaySpec):
    """The text side of a multiway (modality-expert) encoder with sub-LN blocks (BEiT-3, M2-Encoder)."""

    kind: Literal["multiway"] = "multiway"
    tokenizer: str | None = None
    """Folder with a transformers tokenizer, or its hub id; null reads UTF-8 bytes."""
    vocab: int = Field(default=259, ge=259)
    """Rows of the token embedding, at least as many as the tokenizer has tokens; bytes take 259."""
    max_length: int = Field(default=52, ge=2)
    """Longest input in tokens, marks of start and end included; longer texts are cut."""
    normalize: bool = True
    """Lower-case texts and make curly double quotes straight first, as M2-Encoder does."""


TextEncoderSpec = Annotated[HfText | OpenClipText | MultiwayText | TinyText, Field(discriminator="kind")]


class IdentityHeadSpec(Spec):
    """No head: the encoder already ends in the shared space (open_clip and CLIP towers)."""

    kind: Literal["identity"] = "identity"


class CenteringSpec(Spec):
    """What the specs of heads that can centre share."""

    kind: str
    center: bool = False
    """Subtract the mean feature of the training data first; it is measured once and saved with the model."""


class LinearHeadSpec(CenteringSpec):
    """One linear map into the shared space."""

    kind: Literal["linear"] = "linear"
    bias: bool = False
    """Add a bias."""


class MlpHeadSpec(CenteringSpec):
    """A residual two-layer perceptron beside a linear map."""

    kind: Literal["mlp"] = "mlp"
    hidden: int = Field(default=1024, ge=1)
    """Width of the hidden layer."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of hidden units silenced in training."""


class PrototypeHeadSpec(Spec):
    """An `mlp` head beside the classes that the image encoder's own classifier knows.

    The last `known_dim` values of the shared space hold the class embeddings averaged by the classifier's softmax:
    long for an image it is sure of (a photo), short for one it is not (a drawing), so that each image is placed by what
    knows it best.
    """

    kind: Literal["prototype"] = "prototype"
    hidden: int = Field(default=512, ge=1)
    """Width of the hidden layer."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of hidden units silenced in training."""
    center: bool = True
    """Subtract the mean feature of the training data first; it is measured once and saved with the model."""
    known_dim: int = Field(default=384, ge=1)
    """Values of the shared space that the known classes take; below embed_dim."""
    gain: float = Field(default=2.0, gt=0)
    """Length of a surely recognised class beside the other part, which has length 1."""
    temperature: float = Field(default=1.0, gt=0)
    """The classifier's logits are divided by this before the softmax."""
    num_classes: int = Field(default=1000, ge=2)
    """Classes of the encoder's classifier."""


HeadSpec = Annotated[IdentityHeadSpec | LinearHeadSpec | MlpHeadSpec | PrototypeHeadSpec, Field(discriminator="kind")]


class DecoderSpec(Spec):
    """Small transformers beside a dual encoder, for training only: one reads text by images, one images by text."""

    width: int = Field(default=512, ge=8)
    """Width of both."""
    heads: int = Field(default=8, ge=1)
    """Attention heads; a divisor of width."""
    ffn: int = Field(default=2048, ge=1)
    """Hidden width of the perceptrons."""
    text_layers: int = Field(default=3, ge=0)
    """Layers of the text decoder (`captioning`, `masked_text`); 0 for none."""
    image_layers: int = Field(default=0, ge=0)
    """Layers of the patch decoder (`masked_image`); 0 for none."""
    patch_size: int = Field(default=16, ge=2)
    """Side in pixels of the patches that the patch decoder fills in; a divisor of the image size."""
