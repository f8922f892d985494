"""A vision-language model as ``Blip2ForConditionalGeneration``, which mBLIP's are, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlkit.models.vision_language.export.blip2_vision import blip_vision
from vlkit.models.vision_language.export.check import IMAGE_TOKEN
from vlkit.models.vision_language.export.into_transformers import (
    known_parts,
    prefixed,
    starts_texts,
    text_config,
    with_image_token,
    write_whole,
)
from vlkit.models.vision_language.model import VisionLanguageModel
from vlkit.nn.qformer import QueryTransformer
from vlkit.obstacles import Obstacles
from vlkit.parts.hf_image import HfImageEncoder
from vlkit.parts.qformer_weights import blip2_name
from vlkit.parts.timm_image import TimmImageEncoder
from vlkit.types import Turn


def write_blip2(model: VisionLanguageModel, folder: Path) -> list[str]:
    """Writes the files of a BLIP-2 model in hub layout; the folder exists and is empty.

    The language model is changed (``with_image_token``).

    Returns:
        What the other format cannot say, one sentence each.

    Raises:
        VlkitError: Something of the model has no place in a BLIP-2; the message says what and why.
    """
    from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor

    obstacles = Obstacles()
    encoder, bridge, language_model = known_parts(
        model,
        obstacles,
        encoder=(HfImageEncoder, TimmImageEncoder),
        bridge=QueryTransformer,
        wanted=("an image encoder of transformers or timm (kind: hf or timm)", "a Q-Former (kind: qformer)"),
    )
    vision = blip_vision(encoder, bridge.image_norm)
    whole, tokenizer, token = with_image_token(language_model)
    config = Blip2Config(
        vision_config=vision.config,
        qformer_config=_qformer_config(bridge),
        text_config=text_config(language_model),
        num_query_tokens=model.image_tokens,
        image_token_index=token,
    )
    state = {f"vision_model.{name}": tensor for name, tensor in vision.state.items()}
    state |= prefixed(whole, "language_model.")
    for name, tensor in bridge.state_dict().items():
        state[blip2_name(name)] = tensor.unsqueeze(0) if name == "queries_MW" else tensor
    write_whole(Blip2ForConditionalGeneration, config, state, folder)
    processor = Blip2Processor(vision.processor, tokenizer, num_query_tokens=model.image_tokens)
    processor.save_pretrained(str(folder))
    notes = list(vision.notes)
    if starts_texts(language_model) and not model.dialogue.images_first:
        notes.append(
            "BLIP-2's own processor puts images before the tokenizer's start token, and this model has them behind it: "
            "write prompts as README.md shows"
        )
    return notes


def _qformer_config(bridge: QueryTransformer) -> dict[str, Any]:
    spec = bridge.spec
    return {
        "hidden_size": spec.width,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "intermediate_size": spec.ffn,
        "cross_attention_frequency": spec.cross_every,
        "hidden_dropout_prob": spec.dropout,
        "attention_probs_dropout_prob": spec.dropout,
        "encoder_hidden_size": bridge.in_width,
    }


def blip2_usage(model: VisionLanguageModel) -> str:
    """Python lines that ask the exported model as this one is asked."""
    text = model.layout.written_out([Turn("user", "What is this?", "en")], images=1, mark="\0")
    prompt = repr(text).replace("\\x00" * model.image_tokens, f"' + '{IMAGE_TOKEN}' * {model.image_tokens} + '")
    prompt = prompt.removeprefix("'' + ").removesuffix(" + ''")
    answer = "written[0]" if model.layout.encodes else 'written[0, inputs["input_ids"].shape[1] :]'
    return f"""from PIL import Image
from transformers import AutoProcessor, Blip2ForConditionalGeneration

model = Blip2ForConditionalGeneration.from_pretrained("FOLDER")
processor = AutoProcessor.from_pretrained("FOLDER")
prompt = {prompt}
inputs = processor.tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
pixels = processor.image_processor(images=Image.open("photo.jpg").convert("RGB"), return_tensors="pt")
written = model.generate(**inputs, **pixels, max_new_tokens=64)
print(processor.tokenizer.decode({answer}, skip_special_tokens=True))"""
