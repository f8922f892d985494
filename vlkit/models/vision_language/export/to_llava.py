"""A vision-language model as ``LlavaForConditionalGeneration``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from vlkit.errors import VlkitError
from vlkit.models.vision_language.export.check import IMAGE_TOKEN
from vlkit.models.vision_language.export.into_transformers import (
    ELSE,
    known_parts,
    prefixed,
    starts_texts,
    text_config,
    with_image_token,
    write_whole,
)
from vlkit.models.vision_language.from_transformers import check_selection
from vlkit.models.vision_language.model import VisionLanguageModel
from vlkit.nn.projections import MlpBridge
from vlkit.obstacles import Obstacles
from vlkit.parts.hf_image import HfImageEncoder
from vlkit.parts.hf_language import HfLanguageModel
from vlkit.spec.model import DialogueSpec

_MAPS = 2
_EXACT = 1e-4


def write_llava(model: VisionLanguageModel, folder: Path) -> list[str]:
    """Writes the files of a LLaVA model in hub layout; the folder exists and is empty.

    The language model is changed (``with_image_token``).

    Returns:
        What the other format cannot say, one sentence each.

    Raises:
        VlkitError: Something of the model has no place in a LLaVA; the message says what and why.
    """
    from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    obstacles = Obstacles()
    encoder, bridge, language_model = known_parts(
        model,
        obstacles,
        encoder=(HfImageEncoder,),
        bridge=MlpBridge,
        wanted=("an image encoder of transformers (kind: hf)", "a perceptron of two maps (kind: mlp)"),
    )
    if len(bridge.maps) != _MAPS or bridge.norms is not None:
        obstacles.found.append(f"bridge: LLaVA's has two linear maps without norms (layers: 2, norm: false): {ELSE}")
    with obstacles.met():
        vision = _vision_config(encoder)
    with obstacles.met():
        extra = _extra_places(encoder)
        full = encoder.spec.extra_tokens or not extra
        check_selection(encoder, encoder.spec.layers, drops_first=not full, where="encoder")
    with obstacles.met():
        _check_output(language_model)
    obstacles.refuse()
    whole, tokenizer, token = with_image_token(language_model)
    layers = [int(layer) for layer in encoder.spec.layers]
    strategy = "full" if full else "default"
    config = LlavaConfig(
        vision_config=vision,
        text_config=text_config(language_model),
        image_token_index=token,
        image_seq_length=model.image_tokens,
        vision_feature_layer=layers[0] if len(layers) == 1 else layers,
        vision_feature_select_strategy=strategy,
        tie_word_embeddings=bool(whole.config.tie_word_embeddings),
    )
    state = prefixed(encoder.vision, "model.vision_tower.") | prefixed(whole.base_model, "model.language_model.")
    for place, name in enumerate(("linear_1", "linear_2")):
        state |= prefixed(bridge.maps[place], f"model.multi_modal_projector.{name}.")
    state["lm_head.weight"] = whole.get_output_embeddings().weight
    write_whole(LlavaForConditionalGeneration, config, state, folder)
    LlavaProcessor(
        encoder.processor,
        tokenizer,
        patch_size=encoder.patch_size,
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=extra,
        chat_template=chat_template(model.dialogue, starts=starts_texts(language_model)),
    ).save_pretrained(str(folder))
    return []


def _vision_config(encoder: HfImageEncoder) -> dict[str, Any]:
    from transformers import MODEL_MAPPING

    vision: Any = encoder.vision
    if encoder.patch_size is None or MODEL_MAPPING.get(type(vision.config), None) is not type(vision):
        kind = type(vision).__name__
        raise VlkitError(f"encoder: LLaVA takes plain vision transformers, and this is a {kind}: {ELSE}")
    if encoder.options.get("interpolate_pos_encoding"):
        raise VlkitError(
            f"encoder: its images are of another size than it was made for, which LLaVA has no setting for: {ELSE}"
        )
    settings: dict[str, Any] = vision.config.to_dict()
    return settings


@torch.no_grad()
def _extra_places(encoder: HfImageEncoder) -> int:
    """Places of an image that show no part of it (class token, registers)."""
    size = encoder.image_size
    places = encoder.block_states(torch.zeros(1, 3, size, size))[-1].shape[1]
    return places - (size // (encoder.patch_size or size)) ** 2


@torch.no_grad()
def _check_output(language_model: HfLanguageModel) -> None:
    if language_model.encodes:
        raise VlkitError(f"language_model: LLaVA's is decoder-only, and this is an encoder-decoder: {ELSE}")
    head = language_model.whole.get_output_embeddings()
    states_RE = torch.randn((4, language_model.width), generator=torch.Generator().manual_seed(0)) * 10
    if head.bias is not None or (language_model.logits(states_RE) - head(states_RE)).abs().max() > _EXACT:
        raise VlkitError(
            f"language_model: LLaVA's output is one linear map without bias, and that of a "
            f"{language_model.config.model_type} model is more (a bias, a scale or a soft cap): {ELSE}"
        )


def chat_template(dialogue: DialogueSpec, *, starts: bool) -> str:
    """A conversation as transformers' chat templates write it, the same text as this model reads.

    ``starts``: the tokenizer's start token stands first.
    """
    system = json.dumps(dialogue.system, ensure_ascii=False)
    before, after = (json.dumps(text, ensure_ascii=False) for text in dialogue.user.split("{text}"))
    leads, follows = (json.dumps(text, ensure_ascii=False) for text in dialogue.assistant.split("{text}"))
    end = "eos_token" if dialogue.end is None else json.dumps(dialogue.end, ensure_ascii=False)
    says = (
        "{%- if message['content'] is string -%}{{ message['content'] }}{%- else -%}"
        "{%- for part in message['content'] -%}{%- if part['type'] == 'image' -%}{{ '" + IMAGE_TOKEN + "' }}"
        "{%- elif part['type'] == 'text' -%}{{ part['text'] }}{%- endif -%}{%- endfor -%}{%- endif -%}"
    )
    return (
        ("{{ bos_token }}" if starts else "")
        + "{{ " + system + " }}{%- for message in messages -%}"
        + "{%- if message['role'] == 'user' -%}{{ " + before + " }}" + says + "{{ " + after + " }}"
        + "{%- elif message['role'] == 'assistant' -%}{{ " + leads + " }}" + says
        + "{{ " + end + " }}{{ " + follows + " }}{%- else -%}" + says + "{%- endif -%}{%- endfor -%}"
        + "{%- if add_generation_prompt -%}{{ " + leads + " }}{%- endif -%}"
    )  # fmt: skip


def llava_usage(model: VisionLanguageModel) -> str:
    """Python lines that ask the exported model as this one is asked."""
    return """from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

model = LlavaForConditionalGeneration.from_pretrained("FOLDER")
processor = AutoProcessor.from_pretrained("FOLDER")
picture = Image.open("photo.jpg").convert("RGB")
talk = [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "What is this?"}]}]
inputs = processor.apply_chat_template(
    talk, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
)
written = model.generate(**inputs, max_new_tokens=64)
print(processor.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))"""
