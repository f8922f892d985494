"""The two sides of the vision-language bench: vlkit's model, and transformers' Blip2 of equal shapes and weights.

Shapes: B rows, L read tokens, S states' places, R places with a label, V vocabulary, C channels, H height, W width, N
image tokens, T their width.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from vlkit.adapt.inject import add_lora
from vlkit.adapt.targets import find_layers
from vlkit.bench.memory import extra_memory
from vlkit.bench.reading import made_photo
from vlkit.models.trainable import set_trainable
from vlkit.models.vision_language.batch import DialogueBatch, DialogueRow, collate
from vlkit.models.vision_language.dialogue import IGNORED
from vlkit.models.vision_language.model import VisionLanguageModel
from vlkit.nn.multiway import INIT_STD
from vlkit.objectives.tokens.answer_loss import AnswerLoss
from vlkit.parts.bridges import build_bridge
from vlkit.parts.building import resize_to_square, weightless
from vlkit.parts.hf_common import quiet
from vlkit.parts.hf_language import HfLanguageModel, auto_class
from vlkit.parts.qformer_weights import blip2_name
from vlkit.spec.adapt import LoRA
from vlkit.spec.bridges import QFormerBridgeSpec
from vlkit.spec.language import GenerationSpec, HfLanguage
from vlkit.spec.objectives import AnswersObjective
from vlkit.types import Question, Turn

Architecture = Literal["bloom", "mt5", "llama"]
_PAD, _END, _UNKNOWN, _IMAGE = range(4)  # ids of marks; all others are words that are written as their numbers
_LORA = LoRA(rank=8, alpha=16, targets="all")  # mBLIP's; dropout would make the sides differ
_BRIDGE = QFormerBridgeSpec(num_queries=32, width=256, layers=4, heads=4, ffn=1024, dropout=0.0)
_HEAD, _PATCH = 64, 14  # width of an attention head, side of a patch
_PACKED = 256  # tokens of a row of samples that lie end to end
_ASKED, _SAID = (4, 10), (4, 64)  # tokens of a question and of an answer, at least and at most
_PHOTO = {"width": 320, "height": 240}
_LR = 1e-4


@dataclass(frozen=True)
class VlmSetting:
    """What both sides are given; the defaults are mBLIP's shape scaled down.

    ``architecture`` is that of the language model: mBLIP's two are bloom (BLOOMZ) and mt5 (mT0), and samples of llama
    can lie end to end. ``vocabulary`` are rows of its embedding, ``batch`` samples of one image each, ``written``
    tokens of an answer that is generated.
    """

    architecture: Architecture = "bloom"
    batch: int = 8
    vocabulary: int = 250_880
    width: int = 512
    layers: int = 6
    image_width: int = 384
    image_layers: int = 8
    image_size: int = 224
    written: int = 24


class _Made(NamedTuple):
    """One image, what is asked about it, and what is to be said."""

    image: Image.Image
    question: str
    answer: str


class BlipImages(nn.Module):
    """The image side of transformers' Blip2 as a ``types.ImageEncoder``; tokens with the class token, as in BLIP-2."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.width = self.token_width = int(model.config.hidden_size)
        self.image_size = int(model.config.image_size)

    def transform(self, image: Image.Image) -> Tensor:
        """An RGB image as pixels_CHW."""
        return resize_to_square(image, size=self.image_size)

    def num_tokens(self, size: int) -> int:
        """N for images of ``size`` pixels a side."""
        return int((size // _PATCH) ** 2 + 1)

    def tokens(self, pixels_BCHW: Tensor) -> Tensor:
        """tokens_BNT."""
        tokens_BNT: Tensor = self.model(pixel_values=pixels_BCHW).last_hidden_state
        return tokens_BNT

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Features_BD of the class token."""
        return self.tokens(pixels_BCHW)[:, 0]

    def save_config(self, folder: Path) -> None:
        """Writes the model's config."""
        self.model.config.save_pretrained(str(folder))


class Sides:
    """Both models in training mode with an AdamW each, and a batch of the same samples for each.

    Weights are random and equal. The Q-Former, its projection and a LoRA in all linear layers of the language model
    train, all else is frozen. There is no dropout, so that both compute the same.
    """

    def __init__(self, setting: VlmSetting) -> None:
        self.setting = setting
        torch.manual_seed(0)
        with quiet():
            self.peer = _peer(setting)
            self.ours = _ours(setting, self.peer)
        self.matched = list(_matched(self.ours, self.peer))
        for own, theirs in self.matched:
            own.data.copy_(theirs.data.view_as(own))
            theirs.requires_grad_(own.requires_grad)
        self.made = _samples(setting)
        layout = self.ours.layout
        laid = [
            layout.learned([Turn("user", one.question, "und"), Turn("assistant", one.answer, "und")], images=1, seed=0,
                           where=f"sample {number}")
            for number, one in enumerate(self.made)
        ]  # fmt: skip
        pixels = [self.ours.transform(one.image) for one in self.made]
        rows = [DialogueRow((image,), one) for image, one in zip(pixels, laid, strict=True)]
        self.batch = collate(rows, layout, looked_up=False)
        with torch.no_grad():
            tokens_NKT = self.ours.tokens_of_pixels(torch.stack(pixels))
        self.cached = replace(self.batch, pixels_NCHW=None, image_NKT=tokens_NKT)
        self.peer_batch = _for_peer(self.batch)
        self.objective = AnswerLoss(AnswersObjective())
        self.optimizers = {"vlkit": _optimizer(self.ours), "transformers": _optimizer(self.peer)}

    def step(self, name: str) -> None:
        """An optimizer step of ``vlkit``, of ``cached`` (the same with the frozen encoder's tokens) or of
        ``transformers``.
        """
        optimizer = self.optimizers["transformers" if name == "transformers" else "vlkit"]
        optimizer.zero_grad()
        if name == "transformers":
            loss = self.peer(**self.peer_batch).loss
        else:
            loss = self.objective(self.ours, self.cached if name == "cached" else self.batch).total
        loss.backward()
        optimizer.step()

    def write(self, name: str) -> list[str]:
        """Answers of ``vlkit`` or of ``transformers`` to all questions, from images to texts of ``written`` tokens."""
        count = self.setting.written
        if name == "vlkit":
            questions = [Question(one.question, (one.image,)) for one in self.made]
            generation = GenerationSpec(max_tokens=count, min_tokens=count)
            return self.ours.answer(questions, generation=generation, batch_size=len(questions))
        return self.write_with_peer([one.image for one in self.made], [one.question for one in self.made], count=count)

    def write_with_peer(self, images: Sequence[Image.Image], questions: Sequence[str], *, count: int) -> list[str]:
        """Answers of ``transformers`` of ``count`` tokens to one question about each image, in one call."""
        layout, model = self.ours.layout, self.ours.language_model
        asked = [layout.asked([Turn("user", one, "und")], images=1, where="") for one in questions]
        batch = collate([DialogueRow((), one) for one in asked], layout, looked_up=True)
        ids_BL = batch.ids_BL.masked_fill(batch.slots_BL, _IMAGE)
        order_BL = batch.mask_BL.argsort(dim=1, stable=not model.encodes)  # the library writes at the right end
        self.peer.eval()
        written_BL = self.peer.generate(
            pixel_values=torch.stack([self.ours.transform(one) for one in images]),
            input_ids=ids_BL.gather(1, order_BL),
            attention_mask=batch.mask_BL.gather(1, order_BL),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
        )
        self.peer.train()
        return list(model.tokenizer.batch_decode(written_BL[:, -count:], skip_special_tokens=True))

    def words(self, count: int, *, seed: int) -> str:
        """A text of so many words that both sides read."""
        draw = random.Random(seed)
        return " ".join(str(draw.randrange(_IMAGE + 1, self.setting.vocabulary)) for _ in range(count))

    def differences(self) -> dict[str, float]:
        """How far the sides are apart on the batch: logits at the places with a label, loss, gradients of all that
        trains; logits and gradients as relative L2.

        The loss is the peer's, a mean over the tokens of the batch; vlkit's own gives each sample the same weight.
        """
        said = self.ours(self.batch)
        logits_RV = self.ours.logits(said.states_RE)
        loss = functional.cross_entropy(logits_RV, said.labels_R)
        loss.backward()  # type: ignore[no-untyped-call]
        theirs = self.peer(**self.peer_batch)
        theirs.loss.backward()
        with torch.no_grad():
            found = {
                "logits_error": _apart([(logits_RV, theirs.logits[self.batch.labels_BS != IGNORED])]),
                "loss_error": abs(float(loss) - float(theirs.loss)),
                "gradient_error": _apart([(a.grad, b.grad) for a, b in self.matched if a.requires_grad]),
            }
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        return found


def step_memory(setting: dict[str, Any], *, name: str) -> int:
    """Bytes that a step of one side needs at its peak beyond both models and batches; in a fresh process."""
    sides = Sides(VlmSetting(**setting))
    return extra_memory(lambda: sides.step(name))


def _samples(setting: VlmSetting) -> list[_Made]:
    """Made photos; lengths of answers are spread as those of captions are."""
    draw, noise = random.Random(0), np.random.default_rng(0)

    def words(count: int) -> str:
        return " ".join(str(draw.randrange(_IMAGE + 1, setting.vocabulary)) for _ in range(count))

    found = []
    for _ in range(setting.batch):
        image = Image.open(io.BytesIO(made_photo(noise, **_PHOTO))).convert("RGB")
        length = min(_SAID[1], max(_SAID[0], round(draw.lognormvariate(2.8, 0.6))))
        found.append(_Made(image, words(draw.randint(*_ASKED)), words(length)))
    return found


def _for_peer(batch: DialogueBatch) -> dict[str, Tensor]:
    """The batch as Blip2 takes it: images stand at a token of their own, and labels where their tokens are."""
    labels_BS = batch.labels_BS
    if batch.targets is None:
        labels_BS = functional.pad(labels_BS[:, :-1], (1, 0), value=IGNORED)
    return {
        "pixel_values": batch.pixels_NCHW if batch.pixels_NCHW is not None else torch.empty(0),
        "input_ids": batch.ids_BL.masked_fill(batch.slots_BL, _IMAGE),
        "attention_mask": batch.mask_BL,
        "labels": labels_BS,
    }


def _peer(setting: VlmSetting) -> Any:
    from peft import LoraConfig, inject_adapter_in_model
    from transformers import Blip2Config, Blip2ForConditionalGeneration

    vision = {
        "hidden_size": setting.image_width, "intermediate_size": 4 * setting.image_width, "patch_size": _PATCH,
        "num_hidden_layers": setting.image_layers, "num_attention_heads": setting.image_width // _HEAD,
        "image_size": setting.image_size, "initializer_range": 0.02,
    }  # fmt: skip
    qformer = {
        "hidden_size": _BRIDGE.width, "num_hidden_layers": _BRIDGE.layers, "num_attention_heads": _BRIDGE.heads,
        "intermediate_size": _BRIDGE.ffn, "cross_attention_frequency": _BRIDGE.cross_every,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip
    config = Blip2Config(
        vision_config=vision,
        qformer_config=qformer,
        text_config=_text_config(setting),
        num_query_tokens=_BRIDGE.num_queries,
        image_token_index=_IMAGE,
    )
    model = Blip2ForConditionalGeneration(config).requires_grad_(False)
    layers = list(find_layers(model.language_model, _LORA.targets))
    lora = LoraConfig(r=_LORA.rank, lora_alpha=_LORA.alpha, target_modules=layers)
    inject_adapter_in_model(lora, model.language_model)
    nn.init.normal_(model.query_tokens, std=INIT_STD)  # alike, they would stay alike
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # at zero, no gradient would reach the other half
            nn.init.normal_(parameter, std=INIT_STD)
    return model.train()


def _ours(setting: VlmSetting, peer: Any) -> VisionLanguageModel:
    from transformers import Blip2VisionModel

    config = peer.config.text_config
    with weightless(saved=True, empty=False):  # all of them are the peer's
        encoder = BlipImages(Blip2VisionModel(peer.config.vision_config))
        whole = auto_class(config).from_config(config)
    language_model = HfLanguageModel(
        whole,
        config,
        tokenizer=number_tokenizer(setting.vocabulary),
        spec=HfLanguage(name=setting.architecture, pretrained=False),
        where=setting.architecture,
    )
    add_lora(language_model, _LORA)
    model = VisionLanguageModel(
        encoder,
        build_bridge(_BRIDGE, encoder.token_width, language_model.width),
        language_model,
        pack_length=_PACKED if setting.architecture == "llama" else None,
    )
    set_trainable(model, ["bridge", "language_model_adapter"])
    return model.train()


def _matched(ours: VisionLanguageModel, peer: Any) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
    """Each parameter of ours and the peer's that is the same."""
    theirs = dict(peer.named_parameters())
    places = {"encoder.model": "vision_model", "language_model.model": "language_model"}
    for name, parameter in ours.named_parameters():
        if name.startswith("bridge."):
            yield parameter, theirs[blip2_name(name.removeprefix("bridge."))]
        else:
            place = next(place for place in places if name.startswith(f"{place}."))
            yield parameter, theirs[f"{places[place]}{name.removeprefix(place)}"]


def _text_config(setting: VlmSetting) -> Any:
    from transformers import AutoConfig

    heads = setting.width // _HEAD
    marks = {"pad_token_id": _PAD, "eos_token_id": _END, "bos_token_id": None, "vocab_size": setting.vocabulary}
    if setting.architecture == "mt5":
        return AutoConfig.for_model(
            "mt5", d_model=setting.width, d_kv=_HEAD, d_ff=2 * setting.width, num_heads=heads, dropout_rate=0.0,
            num_layers=setting.layers, num_decoder_layers=setting.layers, decoder_start_token_id=_PAD, **marks,
        )  # fmt: skip
    if setting.architecture == "bloom":
        return AutoConfig.for_model(
            "bloom", hidden_size=setting.width, n_layer=setting.layers, n_head=heads, **marks,
            hidden_dropout=0.0, attention_dropout=0.0,
        )  # fmt: skip
    return AutoConfig.for_model(
        "llama", hidden_size=setting.width, intermediate_size=4 * setting.width, num_hidden_layers=setting.layers,
        num_attention_heads=heads, tie_word_embeddings=True, **marks,
    )  # fmt: skip


def number_tokenizer(rows: int) -> Any:
    """A word is a number, and its own id."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    marks = ("<pad>", "</s>", "<unk>", "<image>")
    words = {word: number for number, word in enumerate((*marks, *map(str, range(len(marks), rows))))}
    tokenizer = Tokenizer(WordLevel(words, unk_token=marks[_UNKNOWN]))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=marks[_PAD], eos_token=marks[_END], unk_token=marks[_UNKNOWN]
    )


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=_LR)


def _apart(pairs: list[tuple[Tensor | None, Tensor | None]]) -> float:
    """Relative L2 distance over all pairs."""
    known = [(a.double(), b.double()) for a, b in pairs if a is not None and b is not None]
    off = sum(float((a - b).square().sum()) for a, b in known)
    return float((off / sum(float(b.square().sum()) for _, b in known)) ** 0.5)
