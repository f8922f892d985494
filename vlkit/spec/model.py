"""Specs of whole models."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from vlkit.spec.adapt import AdapterSpec
from vlkit.spec.base import Kinds, LocalPath, Spec
from vlkit.spec.bridges import BridgeSpec, QFormerBridgeSpec, QueryTextSpec
from vlkit.spec.diffusion import AnyConditionBridgeSpec, AnyPipelineSpec, MulanSpec
from vlkit.spec.image_tokenizers import ImageTokenizerSpec
from vlkit.spec.language import LanguageSpec
from vlkit.spec.parts import DecoderSpec, HeadSpec, ImageEncoderSpec, LibrarySpec, MlpHeadSpec, TextEncoderSpec
from vlkit.spec.text_to_image import BodySpec, CodeHeadSpec, PromptSpec, SamplingSpec, TowerBodySpec


class BaseModelSpec(Spec):
    """What all kinds of models have in common."""

    renamed: ClassVar[dict[str, str]] = {"image_adapter": "adapters.image", "text_adapter": "adapters.text"}

    kind: str
    adapters: dict[str, AdapterSpec] = Field(default_factory=dict)
    """Part -> adapter in it: `{text: {kind: lora}}`. The part's own weights then stay frozen unless a stage names
    them."""


class DualEncoderSpec(BaseModelSpec):
    """An image and a text encoder with heads into one shared space (CLIP, LiT, M-CLIP, SigLIP)."""

    kind: Literal["dual_encoder"] = "dual_encoder"
    image: ImageEncoderSpec
    """The image side."""
    text: TextEncoderSpec
    """The text side."""
    embed_dim: int = Field(default=512, ge=2)
    """Width of the shared space."""
    image_head: HeadSpec = MlpHeadSpec()
    """From image features to the shared space."""
    text_head: HeadSpec = MlpHeadSpec()
    """From text features to the shared space."""
    decoder: DecoderSpec | None = None
    """Decoders for the `captioning`, `masked_text` and `masked_image` objectives; null for none."""
    init_scale: float = Field(default=1 / 0.07, gt=0)
    """First value of the learned similarity scale (1 / temperature)."""
    max_scale: float = Field(default=100.0, gt=0)
    """The scale is kept at or below this."""
    init_bias: float | None = None
    """First value of the learned similarity bias (SigLIP uses -10); null for none."""


class DialogueSpec(Spec):
    """How turns of a conversation become one text; `{text}` stands for what a turn says.

    Only answers, and the text that ends them, are learned. An image stands where a turn has `<image>`; images without
    such a place come first in the first turn.
    """

    system: str = ""
    """Text before the first turn."""
    user: str = "{text}\n"
    """A turn of the user."""
    assistant: str = "{text}"
    """An answer; what stands before `{text}` is given to the model, not learned."""
    end: str | None = None
    """Ends an answer; null takes the tokenizer's own end token."""
    images_first: bool = False
    """Images at the very beginning stand before the tokenizer's own start token, too (BLIP-2)."""


class VisionLanguageSpec(BaseModelSpec):
    """An image encoder, a bridge and a language model that reads its tokens (BLIP-2, LLaVA, mBLIP, Centurio)."""

    kind: Literal["vision_language"] = "vision_language"
    encoder: ImageEncoderSpec
    """The image encoder, of which the tokens are taken."""
    bridge: BridgeSpec = QFormerBridgeSpec()
    """From image tokens to tokens of the language model."""
    language_model: LanguageSpec
    """What reads them, and writes."""
    dialogue: DialogueSpec = DialogueSpec()
    """How questions and answers are laid out."""
    caption_task: str = "caption"
    """The task whose prompts (`data.prompts.task`) are asked when an image is to be put into words."""
    pack_length: int | None = Field(default=None, ge=8)
    """In training, lay the samples of a batch end to end in rows of at most so many tokens, so that nothing is computed
    for padding; null keeps one sample a row."""


class QueryFormerSpec(BaseModelSpec):
    """An image encoder and a Q-Former that learns what texts say of images: BLIP-2's first stage (arXiv 2301.12597).

    As a bridge of a vision-language model it then starts from that (`bridge.weights`).
    """

    kind: Literal["query_former"] = "query_former"
    encoder: ImageEncoderSpec
    """The image encoder, of which the tokens are taken."""
    bridge: QFormerBridgeSpec = QFormerBridgeSpec()
    """The Q-Former."""
    text: QueryTextSpec = QueryTextSpec()
    """How it reads and writes texts."""
    embed_dim: int = Field(default=256, ge=2)
    """Width of the space in which queries and texts are compared."""
    init_scale: float = Field(default=1 / 0.07, gt=0)
    """First value of the learned similarity scale (1 / temperature)."""


class ImageTokenizerModelSpec(BaseModelSpec):
    """An image tokenizer alone, to be trained or measured; text-to-image models then use it (`tokenizer.weights`)."""

    kind: Literal["image_tokenizer"] = "image_tokenizer"
    tokenizer: ImageTokenizerSpec
    """The tokenizer; those of kind `conv` can be trained."""


class TextToImageSpec(BaseModelSpec):
    """A language model that makes images: it foretells the codes of an image tokenizer (Show-o, NeoBabel)."""

    kind: Literal["text_to_image"] = "text_to_image"
    language_model: LanguageSpec
    """What reads prompts; a decoder-only model."""
    tokenizer: ImageTokenizerSpec
    """What turns images into codes and codes into images; it stays as it is."""
    body: BodySpec = TowerBodySpec()
    """What goes from codes and prompt to the states that foretell codes."""
    head: CodeHeadSpec = CodeHeadSpec()
    """Embeddings of codes, and what foretells them."""
    prompt: PromptSpec = PromptSpec()
    """How prompts are laid out."""
    sampling: SamplingSpec = SamplingSpec()
    """How images are made unless asked for otherwise."""


class DiffusionBridgeSpec(BaseModelSpec):
    """A multilingual text encoder and a bridge from it to a diffusion model that reads English (MuLan, PEA-Diffusion).

    The diffusion model is frozen and stays where it is.
    """

    kind: Literal["diffusion_bridge"] = "diffusion_bridge"
    text: TextEncoderSpec
    """The text encoder, of which the states are taken."""
    bridge: AnyConditionBridgeSpec = MulanSpec()
    """From its states to those that the denoiser reads."""
    pipeline: AnyPipelineSpec
    """The diffusion model with its own text encoder, which teaches."""


class WholeSpec(LibrarySpec):
    """A whole model of transformers that answers questions about images."""

    kind: Literal["hf"] = "hf"
    name: str
    """Hub id, or a folder in hub layout with weights and processor."""


class ImageTextToTextSpec(BaseModelSpec):
    """A whole image-text-to-text model of transformers (Qwen2-VL, SmolVLM, PaliGemma, ...), asked as it is."""

    kind: Literal["image_text_to_text"] = "image_text_to_text"
    whole: WholeSpec
    """The model with its processor."""


class SavedSpec(BaseModelSpec):
    """A trained model to go on from; what comes out is a model folder like any other."""

    kind: Literal["saved"] = "saved"
    path: LocalPath
    """What `vlkit.load` takes: a model folder, `open_clip:MODEL/TAG`, `hf:ID`, ..."""
    image_size: int | None = Field(default=None, ge=8, le=4096)
    """Side of the square images from now on, in pixels; learned positions are interpolated. null keeps the size."""


MODEL_KINDS = Kinds(
    DualEncoderSpec,
    VisionLanguageSpec,
    QueryFormerSpec,
    ImageTokenizerModelSpec,
    TextToImageSpec,
    DiffusionBridgeSpec,
    ImageTextToTextSpec,
    SavedSpec,
    usual="dual_encoder",
)
ModelSpec = Annotated[BaseModelSpec, MODEL_KINDS]
"""The spec of any kind of model."""
