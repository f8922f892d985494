"""A vision-language model as ``Blip2ForConditionalGeneration``, which mBLIP's are, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
from vlkit.models.vision_language.model import VisionLanguageModel
from vlkit.nn.qformer import QueryTransformer
from vlkit.obstacles import Obstacles
from vlkit.parts.qformer_weights import blip2_name
from vlkit.types import Turn

_VISION = "blip_2_vision_model"


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
        model, obstacles, bridge=QueryTransformer, wanted="a Q-Former (kind: qformer)"
    )
    spec: Any = encoder.spec
    reasons = [
        (
            encoder.config.model_type != _VISION,
            f"encoder: BLIP-2's is a {_VISION}, and this is a {encoder.config.model_type}; take the one of a BLIP-2 "
            f"folder (encoder: {{kind: hf, name: FOLDER, extra_tokens: true}}): {ELSE}",
        ),
        (
            not spec.extra_tokens,
            f"encoder: a Q-Former of BLIP-2 sees the class token, and this model was made without "
            f"(extra_tokens: true): {ELSE}",
        ),
        (spec.layers != (-1,), f"encoder: BLIP-2 reads its last layer, not layers = {list(spec.layers)}: {ELSE}"),
        (
            bridge.image_norm is not None,
            f"bridge: with norm_image = true the image tokens are normed a second time, which BLIP-2 cannot: {ELSE}",
        ),
    ]
    obstacles.found += [why for wrong, why in reasons if wrong]
    obstacles.refuse()
    whole, tokenizer, token = with_image_token(language_model)
    config = Blip2Config(
        vision_config=encoder.config.to_dict(),
        qformer_config=_qformer_config(bridge),
        text_config=text_config(language_model),
        num_query_tokens=model.image_tokens,
        image_token_index=token,
    )
    state = prefixed(encoder.vision, "vision_model.") | prefixed(whole, "language_model.")
    for name, tensor in bridge.state_dict().items():
        state[blip2_name(name)] = tensor.unsqueeze(0) if name == "queries_MW" else tensor
    write_whole(Blip2ForConditionalGeneration, config, state, folder)
    processor = Blip2Processor(encoder.processor, tokenizer, num_query_tokens=model.image_tokens)
    processor.save_pretrained(str(folder))
    notes = []
    if options := ", ".join(f"{key}={value}" for key, value in encoder.options.items()):
        notes.append(f"the images are of another size than the encoder was made for: call the model with {options}")
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
