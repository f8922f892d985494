"""Small random image-text-to-text models of transformers in folders, with processors: of four families."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.helpers.whole_models import IMAGE_SIZE, tokenizer
from vlkit.parts.hf_common import quiet

_VISION: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": IMAGE_SIZE, "patch_size": 4,
}  # fmt: skip
_TEXT: dict[str, Any] = {
    "vocab_size": 280, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 2048, "pad_token_id": 0,
}  # fmt: skip
CHAT = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def _tokens(*more: str) -> Any:
    made = tokenizer("llama")
    made.add_special_tokens({"additional_special_tokens": list(more)})
    return made


def _saved(model: Any, processor: Any, folder: Path) -> Any:
    for parameter in model.parameters():  # large enough for answers to hang on the image
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.25)
    model.eval().tie_weights()
    tokens = processor.tokenizer
    model.generation_config.update(
        eos_token_id=tokens.eos_token_id, bos_token_id=tokens.bos_token_id, pad_token_id=tokens.pad_token_id
    )
    with quiet():
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return model


def qwen2_vl(folder: Path) -> Any:
    """Qwen2-VL: as many tokens as an image has patches."""
    tokens = _tokens("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    ids = {
        "vision_start_token_id": tokens.convert_tokens_to_ids("<|vision_start|>"),
        "vision_end_token_id": tokens.convert_tokens_to_ids("<|vision_end|>"),
        "image_token_id": tokens.convert_tokens_to_ids("<|image_pad|>"),
        "video_token_id": tokens.convert_tokens_to_ids("<|video_pad|>"),
    }
    torch.manual_seed(0)
    config = transformers.Qwen2VLConfig(
        text_config={
            **_TEXT,
            "max_window_layers": 2,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4},
        },
        vision_config={"depth": 2, "embed_dim": 16, "num_heads": 2, "hidden_size": 32, "patch_size": 4, "mlp_ratio": 2},
        **ids,
    )
    images = transformers.Qwen2VLImageProcessor(patch_size=4, min_pixels=64, max_pixels=1024)
    videos = transformers.Qwen2VLVideoProcessor(patch_size=4, min_pixels=64, max_pixels=1024)
    chat = CHAT.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    processor = transformers.Qwen2VLProcessor(images, tokens, videos, chat_template=chat)
    return _saved(transformers.Qwen2VLForConditionalGeneration(config), processor, folder)


def idefics3(folder: Path) -> Any:
    """Idefics3 (SmolVLM's forerunner): an image in tiles, padded to equally many in a batch."""
    tokens = _tokens("<fake_token_around_image>", "<image>", "<global-img>", "<end_of_utterance>",
                     "<row_1_col_1>", "<row_1_col_2>", "<row_2_col_1>", "<row_2_col_2>")  # fmt: skip
    torch.manual_seed(0)
    config = transformers.Idefics3Config(
        text_config={**_TEXT, "model_type": "llama"},
        vision_config=_VISION,
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
    )
    images = transformers.Idefics3ImageProcessor(
        size={"longest_edge": 2 * IMAGE_SIZE}, max_image_size={"longest_edge": IMAGE_SIZE}
    )
    processor = transformers.Idefics3Processor(
        images, tokens, image_seq_len=4, chat_template=CHAT.replace("IMAGE", "<image>")
    )
    return _saved(transformers.Idefics3ForConditionalGeneration(config), processor, folder)


def paligemma(folder: Path) -> Any:
    """PaliGemma: no chat template; what is read is seen from both sides."""
    tokens = _tokens("<image>")
    torch.manual_seed(0)
    config = transformers.PaliGemmaConfig(
        text_config={**_TEXT, "model_type": "gemma", "head_dim": 8},
        vision_config={**_VISION, "model_type": "siglip_vision_model", "projection_dim": 32},
        image_token_index=tokens.convert_tokens_to_ids("<image>"),
        projection_dim=32,
        hidden_size=32,
    )
    images = transformers.SiglipImageProcessor(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
    images.image_seq_length = (IMAGE_SIZE // 4) ** 2
    processor = transformers.PaliGemmaProcessor(images, tokens)
    return _saved(transformers.PaliGemmaForConditionalGeneration(config), processor, folder)


def llava_next(folder: Path) -> Any:
    """LLaVA-NeXT: tiles at the image's own shape."""
    tokens = _tokens("<image>")
    torch.manual_seed(0)
    config = transformers.LlavaNextConfig(
        text_config={**_TEXT, "model_type": "llama"},
        vision_config={**_VISION, "model_type": "clip_vision_model"},
        image_token_index=tokens.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=[[IMAGE_SIZE, 2 * IMAGE_SIZE], [2 * IMAGE_SIZE, IMAGE_SIZE]],
        vision_feature_layer=-1,
    )
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    images = transformers.LlavaNextImageProcessor(
        size={"shortest_edge": IMAGE_SIZE}, crop_size=size, image_grid_pinpoints=config.image_grid_pinpoints
    )
    processor = transformers.LlavaNextProcessor(
        images, tokens, patch_size=4, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=CHAT.replace("IMAGE", "<image>"),
    )  # fmt: skip
    return _saved(transformers.LlavaNextForConditionalGeneration(config), processor, folder)


FAMILIES: Mapping[str, Callable[[Path], Any]] = {
    "qwen2_vl": qwen2_vl, "idefics3": idefics3, "paligemma": paligemma, "llava_next": llava_next,
}  # fmt: skip
