"""An image encoder, a bridge, and a language model that reads its tokens among those of a text.

Sources: BLIP-2 (arXiv 2301.12597), LLaVA (2304.08485), mBLIP (2307.06930), Centurio (2501.05122).

Shapes: B rows, L read tokens, S states' places, N images, K image tokens, T their width, M model tokens, E width of the
language model, R places with a label.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from vlkit.errors import ShapeError, VlkitError
from vlkit.models.assembly import checked_part, place_of, spec_of, trains
from vlkit.models.image_input import AnImage
from vlkit.models.model_html import model_html
from vlkit.models.speaking import ask_one, caption_all
from vlkit.models.trainable import adapter_specs, hold_frozen_in_eval
from vlkit.models.turns import prompts_of
from vlkit.models.vision_language import answering
from vlkit.models.vision_language.batch import DialogueBatch, DialoguePreparer, LookedUpDialogues
from vlkit.models.vision_language.dialogue import IGNORED, Layout
from vlkit.models.vision_language.packing import pack, unpack
from vlkit.spec.dataset import DataSpec
from vlkit.spec.language import GenerationSpec
from vlkit.spec.model import DialogueSpec, VisionLanguageSpec
from vlkit.types import Bridge, ImageEncoder, LanguageModel, Preparer, Question, ReadsOtherTokens

if TYPE_CHECKING:
    from PIL.Image import Image
    from typing_extensions import Self


def _default(field: str) -> Any:
    return VisionLanguageSpec.model_fields[field].default


class Foretold(NamedTuple):
    """What the language model says of the places that have a label.

    ``states_RE`` foretell ``labels_R``; ``rows_R`` are the rows of the batch that they belong to.
    """

    states_RE: Tensor
    labels_R: Tensor
    rows_R: Tensor


class VisionLanguageModel(nn.Module):
    """Answers questions about images, in any language that its language model knows.

    The image encoder's tokens go through the bridge and take the places of images among the embeddings of a text.
    Inputs are moved to the device and precision of the part that takes them. A part whose parameters are all frozen
    stays in eval mode, and what nothing trains in builds no graph.

    Args:
        encoder: A ``types.ImageEncoder`` that is an ``nn.Module``.
        bridge: A ``types.Bridge`` from the encoder's ``token_width`` to the language model's ``width``.
        language_model: A ``types.LanguageModel``, decoder-only or encoder-decoder.
        dialogue: How questions and answers are laid out; None takes the spec's default.
        caption_task: The task whose prompts ``caption`` asks with (``vlkit.image_prompts``).
        pack_length: In training, samples lie end to end in rows of at most so many tokens; None keeps one a row.

    Raises:
        ShapeError: The bridge's widths do not fit.
        VlkitError: A part does not offer what its place needs.
    """

    encoder: ImageEncoder
    bridge: Bridge
    language_model: LanguageModel

    def __init__(
        self,
        encoder: ImageEncoder | nn.Module,
        bridge: Bridge | nn.Module,
        language_model: LanguageModel | nn.Module,
        *,
        dialogue: DialogueSpec | None = None,
        caption_task: str = _default("caption_task"),
        pack_length: int | None = None,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        self.encoder = checked_part("image encoder", encoder, ImageEncoder, owner=owner)
        self.bridge = checked_part("bridge", bridge, Bridge, owner=owner)
        self.language_model = checked_part("language model", language_model, LanguageModel, owner=owner)
        _check_widths(self.encoder, self.bridge, self.language_model)
        if pack_length is not None and self.language_model.encodes:
            raise VlkitError("model.pack_length: an encoder-decoder reads one sample a row; set pack_length to null")
        self.dialogue, self.caption_task, self.pack_length = dialogue or DialogueSpec(), caption_task, pack_length
        self.loaded_from: str | None = None  # what vlkit.load was given

    def parts(self) -> dict[str, nn.Module]:
        """See ``types.Model``."""
        return dict(self.named_children())

    @property
    def spec(self) -> VisionLanguageSpec:
        """The spec that builds this model again, read off its parts.

        Raises:
            VlkitError: A part carries no spec of vlkit's.
        """
        return VisionLanguageSpec(
            **{name: spec_of(self, name) for name in self.parts()},
            adapters=adapter_specs(self),
            dialogue=self.dialogue,
            caption_task=self.caption_task,
            pack_length=self.pack_length,
        )

    @property
    def image_tokens(self) -> int:
        """M, the model tokens of an image."""
        return self.bridge.num_tokens(self.encoder.num_tokens(self.encoder.image_size))

    @property
    def layout(self) -> Layout:
        """How conversations become ids for this model."""
        model = self.language_model
        reader = model.reader if isinstance(model, ReadsOtherTokens) else None
        return Layout(model.tokenizer, self.dialogue, model.encodes, self.image_tokens, model.max_length, reader)

    @property
    def transform(self) -> Callable[[Image], Tensor]:
        """Turns an RGB image into pixels_CHW as the image encoder wants them."""
        return self.encoder.transform

    def preparer(
        self, data: DataSpec, *, needs: Collection[str] | None = None, tables: Mapping[str, Any] | None = None
    ) -> Preparer:
        """See ``types.Model``; with a table of the encoder's tokens no image is read."""
        if tables and "encoder" in tables:
            return LookedUpDialogues(self.layout, prompts_of(data.prompts), tables["encoder"])
        return DialoguePreparer.of(self, data)

    def _repr_html_(self) -> str:
        return model_html(self)

    def figures(self) -> dict[str, float]:
        """See ``types.Model``: nothing of its own."""
        return {}

    def train(self, mode: bool = True) -> Self:
        """Sets training mode, but for the frozen parts: their dropout and batch statistics must not move."""
        super().train(mode)
        hold_frozen_in_eval(self)
        return self

    def tokens_of_pixels(self, pixels_NCHW: Tensor) -> Tensor:
        """image_NKT of the encoder; without a graph where it is frozen."""
        encoder: Any = self.encoder
        with nullcontext() if trains(encoder) else torch.no_grad():
            tokens_NKT: Tensor = encoder.tokens(_moved(pixels_NCHW, encoder))
        return tokens_NKT

    def read(self, batch: DialogueBatch) -> Tensor:
        """embeddings_BLE of a batch: those of its ids, and the bridge's tokens at the places of its images.

        Raises:
            ShapeError: Places and model tokens differ in number.
        """
        model: Any = self.language_model
        ids_BL = batch.ids_BL.to(_device(model))
        embeddings_BLE: Tensor = model.embed(ids_BL)
        if batch.image_NKT is None and batch.pixels_NCHW is None:
            return embeddings_BLE
        image_NKT = batch.image_NKT if batch.image_NKT is not None else self.tokens_of_pixels(_given(batch.pixels_NCHW))
        bridge: Any = self.bridge
        tokens_NME: Tensor = bridge(_moved(image_NKT, bridge))
        # counted where the batch lies, usually the CPU: no device is waited for
        if (places := int(batch.slots_BL.sum())) != tokens_NME.shape[0] * tokens_NME.shape[1]:
            raise ShapeError(
                f"{len(tokens_NME)} images give {tokens_NME.shape[1]} model tokens each, and the batch has {places} "
                f"places for them; the images must be of the encoder's size ({self.encoder.image_size} pixels)"
            )
        slots_BL = batch.slots_BL.to(embeddings_BLE.device)
        tokens_NME = tokens_NME.to(embeddings_BLE.device, embeddings_BLE.dtype)
        return embeddings_BLE.masked_scatter(slots_BL.unsqueeze(-1), tokens_NME)

    def forward(self, batch: DialogueBatch) -> Foretold:
        """States at the places that have a label; the output map is left to who needs it (``logits``)."""
        model: Any = self.language_model
        embeddings_BLE = self.read(batch)
        device = embeddings_BLE.device
        mask_BL, labels_BS = batch.mask_BL.to(device), batch.labels_BS.to(device)
        rows_BS = torch.arange(len(labels_BS), device=device)[:, None].expand_as(labels_BS)
        if model.encodes:
            targets = None if batch.targets is None else type(batch.targets)(*(x.to(device) for x in batch.targets))
            states_BSE = model(embeddings_BLE, mask_BL, targets=targets)
        elif self.pack_length is not None and self.training:
            packed = pack(embeddings_BLE, mask_BL, length=self.pack_length)
            states_BSE = unpack(model(packed.embeddings, packed.mask, positions_BL=packed.positions), packed)
        else:
            states_BSE = model(embeddings_BLE, mask_BL)
        learned_BS = labels_BS != IGNORED
        return Foretold(states_BSE[learned_BS], labels_BS[learned_BS], rows_BS[learned_BS])

    def logits(self, states_RE: Tensor) -> Tensor:
        """logits_RV of chosen states."""
        return self.language_model.logits(states_RE)

    def image_features(self, images: Sequence[AnImage]) -> list[Tensor]:
        """See ``types.AnswersQuestions``."""
        return answering.image_features(self, images)

    def answer(
        self,
        questions: Sequence[Question],
        *,
        generation: GenerationSpec | None = None,
        batch_size: int = 16,
        stream: Callable[[str], None] | None = None,
    ) -> list[str]:
        """See ``types.AnswersQuestions``."""
        return answering.answer(self, questions, generation=generation, batch_size=batch_size, stream=stream)

    def log_likelihoods(self, questions: Sequence[Question], answers: Sequence[str], *, batch_size: int = 16) -> Tensor:
        """See ``types.AnswersQuestions``."""
        return answering.log_likelihoods(self, questions, answers, batch_size=batch_size)

    def caption(
        self, images: Any, *, language: str, prompt: str | None = None, prefix: str = "", **generation: Any
    ) -> Any:
        """One or several images in words.

        Args:
            images: A path, PIL image, encoded bytes, array or tokens of ``image_features``, or a list of these.
            language: BCP 47 tag of the words.
            prompt: What to ask; None takes the plainest prompt of ``caption_task`` for the language.
            prefix: Words that each caption begins with.
            generation: Fields of ``spec.language.GenerationSpec`` (``max_tokens``, ``beams``, ``temperature``, ...).

        Returns:
            A text; of a list of images a list of texts.
        """
        return caption_all(self, images, language=language, prompt=prompt, prefix=prefix, generation=generation)

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
        """Answers a question about one image or several.

        Args:
            images: As for ``caption``; a list are the images of this one question, which may say where each stands
                (``<image>``). None or [] asks without one.
            question: In any language.
            language: BCP 47 tag that is to be answered in; None leaves it to the model.
            prefix: Words that the answer begins with.
            stream: Takes each piece of the answer as it is written.
            generation: Fields of ``spec.language.GenerationSpec``.
        """
        return ask_one(self, images, question, language=language, prefix=prefix, stream=stream, generation=generation)


def _check_widths(encoder: ImageEncoder, bridge: Bridge, language_model: LanguageModel) -> None:
    if bridge.in_width != encoder.token_width:
        raise ShapeError(
            f"the bridge takes tokens {bridge.in_width} wide, the image encoder gives {encoder.token_width}; build it "
            f"with in_width={encoder.token_width} (encoder.token_width)"
        )
    if bridge.out_width != language_model.width:
        raise ShapeError(
            f"the bridge gives tokens {bridge.out_width} wide, the language model reads {language_model.width}; build "
            f"it with out_width={language_model.width} (language_model.width)"
        )


def _given(pixels_NCHW: Tensor | None) -> Tensor:
    if pixels_NCHW is None:
        raise VlkitError("the batch has neither pixels_NCHW nor image_NKT; one of them is needed")
    return pixels_NCHW


def _moved(x: Tensor, module: nn.Module) -> Tensor:
    place = place_of(module)
    return x if place is None else x.to(*place)


def _device(module: nn.Module) -> torch.device:
    place = place_of(module)
    return torch.device("cpu") if place is None else place[0]
